"""EXIF that was made to fill the memory or to break who writes it again; and pictures turned."""

import io
import struct
import tracemalloc
import warnings

import pytest
from PIL import Image, ImageOps

from shardwright.quality.exif import upright
from shardwright.quality.faults import Fault
from shardwright.quality.heterogeneity.jpeg import read_jpeg
from shardwright.quality.images import ImageFacts, decode_image
from shardwright.quality.perceptual import perceptual_hash, pixel_sha256
from shardwright.service.samples import thumbnail

ORIENTATION = 274


def picture(kind: str, exif: bytes | Image.Exif | None = None, **options: object) -> bytes:
    image = Image.radial_gradient("L").crop((0, 0, 90, 60)).convert("RGB")
    image.paste((255, 0, 0), (0, 0, 30, 20))
    out = io.BytesIO()
    image.save(out, kind, **({} if exif is None else {"exif": exif}), **options)
    return out.getvalue()


def entries(count: int, tag: int, kind: int, size: int, turn: int = 6) -> bytes:
    """An EXIF block that says how it is turned, and has many entries of the same bytes."""
    said = struct.pack(">HHLHH", ORIENTATION, 3, 1, turn, 0)
    body = said + struct.pack(">HHLL", tag, kind, size, 8) * count
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", count + 1) + body + bytes(4)


def test_a_picture_whose_exif_repeats_itself() -> None:
    bomb = b"".join(
        struct.pack(">HHLL", tag % 60_000, 7, 700_000, 8) for tag in range(40_000, 98_000)
    )
    said = struct.pack(">HHLHH", ORIENTATION, 3, 1, 6, 0)
    block = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 58_001) + said + bomb + bytes(4)
    data = picture("PNG", block)
    tracemalloc.start()
    assert pixel_sha256(data) == pixel_sha256(picture("PNG", entries(0, 0, 0, 0)))
    perceptual_hash(data)
    assert thumbnail(data) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


def test_exif_that_cannot_be_written_again() -> None:
    data = picture("PNG", entries(1, 282, 5, 1) + b"\xff" * 40)
    assert thumbnail(data) is not None


@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_pictures_are_turned_as_pillow_turns_them(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    data = picture(kind, exif)
    with Image.open(io.BytesIO(data)) as expected, Image.open(io.BytesIO(data)) as image:
        wanted = ImageOps.exif_transpose(expected)
        image.load()
        found = upright(image, image, data)
        assert found.size == wanted.size
        assert found.tobytes() == wanted.tobytes()


def test_pictures_are_turned_as_their_xmp_says() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    data = picture("WEBP", xmp=xmp)
    with Image.open(io.BytesIO(data)) as image:
        wanted = ImageOps.exif_transpose(image)
        assert upright(image, image, data).tobytes() == wanted.tobytes()
        assert wanted.size == (60, 90)


def test_a_frame_of_a_jpeg_that_stands_twice() -> None:
    data = picture("JPEG")
    at = data.index(b"\xff\xc0")
    frame = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
    assert read_jpeg(data) is not None
    assert read_jpeg(data[:at] + frame + data[at:]) is None


def test_a_palette_that_is_missing() -> None:
    image = Image.radial_gradient("L").crop((0, 0, 90, 60)).convert("P")
    out = io.BytesIO()
    image.save(out, "PNG")
    data = out.getvalue()
    at = data.index(b"PLTE") - 4
    without = data[:at] + data[at + 12 + int.from_bytes(data[at : at + 4]) :]
    assert isinstance(decode_image(data, 10_000), ImageFacts)
    fault = decode_image(without, 10_000)
    assert isinstance(fault, Fault)
    assert fault.reason == "invalid_image"


def test_a_header_that_is_damaged_warns_of_nothing() -> None:
    data = picture("JPEG", b"Exif\0\0MM\0*\0\0\0\x08\0\x05")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_jpeg(data) is not None
