"""What files say of their origin: written by Pillow, written by hand, hostile and broken."""

import io
import resource
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from shardwright.errors import DataError
from shardwright.quality.heterogeneity.provenance import Provenance, read_provenance
from shardwright.quality.images import ImageFacts, decode_image

BASE = ExifTags.Base
FIELDS = ("make", "model", "lens", "software", "iso", "exposure_time", "f_number")
FIELDS += ("white_balance", "color_space", "maker_note")
NOTHING = (*[None] * 9, False)

Entry = tuple[int, int, int, bytes]  # tag, type, count, value


def encoded(form: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30, 20), (9, 99, 190)).save(out, form, **options)
    return out.getvalue()


def said(facts: Provenance) -> tuple[object, ...]:
    return tuple(getattr(facts, name) for name in FIELDS)


def tiff(order: str, main: list[Entry], own: list[Entry] | None = None) -> bytes:
    """A TIFF structure of a main directory and, where ``own`` is given, an EXIF directory."""
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8))

    def directory(entries: list[Entry]) -> None:
        start = len(data)
        data.extend(struct.pack(order + "H", len(entries)) + bytes(12 * len(entries) + 4))
        for place, (tag, kind, count, value) in enumerate(entries):
            if tag == ExifTags.IFD.Exif and own is not None:
                value = struct.pack(order + "L", len(data))
                directory(own)
            elif len(value) > 4:
                value, held = struct.pack(order + "L", len(data)), value
                data.extend(held)
            struct.pack_into(
                order + "HHL4s",
                data,
                start + 2 + 12 * place,
                tag,
                kind,
                count,
                value.ljust(4, b"\0"),
            )

    directory([*main, (ExifTags.IFD.Exif, 4, 1, b"")] if own is not None else main)
    return bytes(data)


def text(tag: int, value: bytes, kind: int = 2) -> Entry:
    return tag, kind, len(value), value


def test_all_that_pillow_writes_is_read() -> None:
    exif = Image.Exif()
    exif[BASE.Make], exif[BASE.Model], exif[BASE.Software] = "Canon", "Canon EOS 5D", "Ver 1.0"
    own = exif.get_ifd(ExifTags.IFD.Exif)
    own[BASE.LensModel] = "EF 50mm"
    own[BASE.ISOSpeedRatings], own[BASE.ExposureTime], own[BASE.FNumber] = 400, 1 / 8, 2.5
    own[BASE.WhiteBalance], own[BASE.ColorSpace] = 1, 1
    own[BASE.MakerNote] = b"CANON note"
    expected = ("Canon", "Canon EOS 5D", "EF 50mm", "Ver 1.0", 400, 0.125, 2.5, "manual", "sRGB")
    for form in ("JPEG", "PNG", "WEBP"):
        facts = read_provenance(encoded(form, exif=exif))
        assert said(facts) == (*expected, True), form
        assert (facts.format, facts.width, facts.height) == (form, 30, 20)
        assert (facts.jpeg is not None) == (form == "JPEG")
    facts = read_provenance(encoded("TIFF", exif=exif))  # Pillow leaves the EXIF directory out
    assert said(facts) == ("Canon", "Canon EOS 5D", None, "Ver 1.0", *NOTHING[4:])


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_all_types(order: str) -> None:
    def number(tag: int, kind: int, form: str, *values: int) -> Entry:
        return tag, kind, 1, struct.pack(order + form, *values)

    block = tiff(
        order,
        [text(BASE.Make, b"  ACME\0hidden"), text(BASE.Model, b"X\t 1\r\n", 7)],
        [
            text(BASE.LensModel, "Objektiv für".encode("latin-1")),
            number(BASE.ISOSpeedRatings, 3, "H", 65_535),
            number(BASE.ISOSpeed, 4, "L", 102_400),
            number(BASE.ExposureTime, 5, "LL", 1, 250),
            number(BASE.FNumber, 10, "ll", 28, 10),
            number(BASE.WhiteBalance, 3, "H", 0),
            number(BASE.ColorSpace, 3, "H", 65_535),
        ],
    )
    facts = read_provenance(encoded(exif=b"Exif\0\0" + block))
    expected = ("ACME", "X 1", "Objektiv für", None, 102_400, 0.004, 2.8, "auto", "uncalibrated")
    assert said(facts) == (*expected, False)


@pytest.mark.parametrize(
    "own",
    [
        (BASE.ExposureTime, 5, 1, struct.pack("<LL", 1, 0)),  # by nought
        (BASE.ExposureTime, 5, 1, struct.pack("<LL", 0, 7)),
        (BASE.FNumber, 10, 1, struct.pack("<ll", -28, 10)),
        (BASE.FNumber, 2, 4, b"f/2\0"),  # a text
        (BASE.ISOSpeedRatings, 3, 0, b""),  # no value
        (BASE.ISOSpeedRatings, 99, 1, b"\1\0\0\0"),  # a type that does not exist
        (BASE.WhiteBalance, 3, 1, struct.pack("<H", 77)),
        (BASE.WhiteBalance, 12, 1, struct.pack("<d", float("nan"))),
        (BASE.FNumber, 11, 1, struct.pack("<f", float("inf"))),
        (BASE.LensModel, 2, 2**32 - 1, b"\xff\xff\xff\xff"),  # beyond the end
        (BASE.LensModel, 2, 6, b"\0\0\0\0\0\0"),
        (BASE.LensModel, 3, 1, b"\1\0\0\0"),  # a number
    ],
)
def test_what_cannot_be_read_is_none(own: Entry) -> None:
    facts = read_provenance(encoded("PNG", exif=tiff("<", [text(BASE.Make, b"ACME")], [own])))
    assert said(facts) == ("ACME", *NOTHING[1:])


@given(st.binary(max_size=200))
def test_no_exif_raises(junk: bytes) -> None:
    for head in (b"", b"Exif\0\0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        read_provenance(encoded("PNG", exif=head + junk))
    block = tiff("<", [text(BASE.Make, b"ACME")], [text(BASE.LensModel, b"lens of ACME")])
    for place in range(0, len(block), 7):
        read_provenance(encoded("PNG", exif=block[:place] + junk[:9] + block[place + 9 :]))


def test_of_a_long_text_the_beginning_is_read() -> None:
    own = [text(BASE.LensModel, b"x" * 9000)]
    assert read_provenance(encoded("PNG", exif=tiff("<", [], own))).lens == "x" * 256


def test_a_directory_that_points_at_itself_ends() -> None:
    block = b"II*\0" + struct.pack("<LHHHLL", 8, 1, ExifTags.IFD.Exif, 4, 1, 8) + bytes(4)
    assert said(read_provenance(encoded("PNG", exif=block))) == NOTHING


@pytest.mark.parametrize("reader", ["provenance", "ingest"])
def test_a_bomb_of_entries_takes_no_memory(reader: str) -> None:
    """60,000 entries of the EXIF directory, each said to be the whole file: 60 GB in all."""
    size = 1_000_000
    main = struct.pack("<HHHLLL", 1, ExifTags.IFD.Exif, 4, 1, 26, 0)
    entries = b"".join(struct.pack("<HHLL", tag, 7, size - 8, 1) for tag in range(60_000))
    block = b"II*\0" + struct.pack("<L", 8) + main + struct.pack("<H", 60_000) + entries
    data = encoded("PNG", exif=block.ljust(size, b"x"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reader == "ingest":
        assert isinstance(decode_image(data, 10**6), ImageFacts)
    else:
        assert read_provenance(data).maker_note
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_a_large_maker_note_is_not_read() -> None:
    note = (BASE.MakerNote, 7, 10_000_000, bytes(10_000_000))
    facts = read_provenance(encoded("PNG", exif=tiff(">", [text(BASE.Make, b"ACME")], [note])))
    assert said(facts) == ("ACME", *NOTHING[1:-1], True)


def test_exif_as_text_in_a_png() -> None:
    from PIL import PngImagePlugin

    chunk = PngImagePlugin.PngInfo()
    block = tiff(">", [text(BASE.Model, b"Model of text")])
    chunk.add_text("Raw profile type exif", f"\nexif\n{len(block):8d}\n{block.hex()}\n")
    assert read_provenance(encoded("PNG", pnginfo=chunk)).model == "Model of text"
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("Raw profile type exif", "\nexif\n 3\nno hex\n")
    assert said(read_provenance(encoded("PNG", pnginfo=chunk))) == NOTHING


def profile_with(
    red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...]
) -> bytes:
    """The profile of sRGB with other colorants (X, Y, Z under D50)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for place in range(struct.unpack_from(">L", data, 128)[0]):
        name, offset, _ = struct.unpack_from(">4sLL", data, 132 + 12 * place)
        colorant = {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}.get(name)
        if colorant:
            numbers = [round(value * 65_536) for value in colorant]
            struct.pack_into(">3l", data, offset + 8, *numbers)
    return bytes(data)


# of the profiles that Apple and Adobe ship
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
ODD = ((0.5, 0.25, 0.01), (0.3, 0.69, 0.1), (0.15, 0.06, 0.7))


def test_profiles_are_told_by_their_primaries() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    facts = read_provenance(encoded(icc_profile=srgb))
    assert (facts.icc_description, facts.icc_space) == ("sRGB built-in", "sRGB")
    assert facts.icc_area == pytest.approx(1, abs=0.01)
    hashes = {facts.icc_sha256}
    for colorants, name in ((P3, "Display P3"), (ADOBE, "Adobe RGB"), (ODD, "other")):
        facts = read_provenance(encoded(icc_profile=profile_with(*colorants)))
        assert facts.icc_space == name
        hashes.add(facts.icc_sha256)
    assert len(hashes) == 4
    assert read_provenance(encoded()).icc_sha256 is None


@given(st.integers(0, 600), st.binary(min_size=1, max_size=16))
def test_no_profile_raises(place: int, damage: bytes) -> None:
    profile = profile_with(*P3)
    for broken in (damage, profile[:place], profile[:place] + damage + profile[place:]):
        facts = read_provenance(encoded("PNG", icc_profile=broken or b"x"))
        assert facts.icc_sha256


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="does not decode"):
        read_provenance(b"no image")
