"""Facts of a JPEG's header, against writers that were told what to write."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shardwright.quality.heterogeneity.jpeg import CHROMA, LUMA, read_jpeg, standard_tables

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("subsampling", "share"), [("4:4:4", 1.0), ("4:2:2", 0.5), ("4:2:0", 0.25)]
)
def test_every_quality_of_pillow_is_exact(subsampling: str, share: float) -> None:
    hashes = set()
    for quality in range(1, 101):
        facts = read_jpeg(jpeg(quality=quality, subsampling=subsampling))
        assert facts is not None
        found = facts.quality, facts.rmse, facts.chroma_quality, facts.chroma_rmse
        assert found == (quality, 0, quality, 0)
        assert (facts.subsampling, facts.chroma_share) == (subsampling, share)
        assert not facts.progressive
        hashes.add(facts.sha256)
    assert len(hashes) == 100


def test_every_quality_of_another_writer_is_exact() -> None:
    torch = pytest.importorskip("torch")
    io_of_torch = pytest.importorskip("torchvision.io")
    pixels = torch.from_numpy(PIXELS).permute(2, 0, 1)
    for quality in range(1, 101):
        facts = read_jpeg(bytes(io_of_torch.encode_jpeg(pixels, quality).numpy()))
        assert facts is not None
        found = facts.quality, facts.rmse, facts.chroma_quality, facts.chroma_rmse
        assert found == (quality, 0, quality, 0)
        assert facts.subsampling == "4:2:0"


def test_grey_has_no_chroma() -> None:
    facts = read_jpeg(jpeg("L", quality=37))
    assert facts is not None
    assert (facts.quality, facts.rmse, facts.subsampling) == (37, 0, "4:0:0")
    assert (facts.chroma_quality, facts.chroma_rmse, facts.chroma_share) == (None, None, None)
    assert len(facts.tables) == 1


def test_four_inks_have_no_subsampling_by_name() -> None:
    facts = read_jpeg(jpeg("CMYK", quality=37))
    assert facts is not None
    assert (facts.quality, facts.subsampling, facts.chroma_quality) == (37, "other", None)


def test_tables_of_no_quality_have_their_nearest() -> None:
    luma = standard_tables(LUMA)[79].copy()
    luma[5] += 8  # root of 64 / 64
    chroma = standard_tables(CHROMA)[89]
    facts = read_jpeg(jpeg(qtables=[luma.tolist(), chroma.tolist()]))
    assert facts is not None
    assert facts.tables == (tuple(luma.tolist()), tuple(chroma.tolist()))
    assert (facts.quality, facts.rmse) == (80, 1.0)
    assert (facts.chroma_quality, facts.chroma_rmse) == (90, 0.0)


def with_tables_of_16_bits(data: bytes, quality: int) -> bytes:
    """The same JPEG, its tables replaced by those that IJG writes without the limit of 255."""
    start = data.index(b"\xff\xdb")
    end = data.index(b"\xff\xc0")
    zigzag = sorted(
        range(64),
        key=lambda n: (
            n // 8 + n % 8,
            n // 8 if (n // 8 + n % 8) % 2 else n % 8,
        ),
    )
    body = b""
    for number, base in enumerate((LUMA, CHROMA)):
        table = standard_tables(base, 32_767)[quality - 1]
        body += bytes([0x10 + number]) + table[zigzag].astype(">u2").tobytes()
    return data[:start] + b"\xff\xdb" + (len(body) + 2).to_bytes(2, "big") + body + data[end:]


@pytest.mark.parametrize("quality", [1, 2, 3, 10, 20])
def test_tables_of_16_bits(quality: int) -> None:
    facts = read_jpeg(with_tables_of_16_bits(jpeg(), quality))
    assert facts is not None
    found = facts.quality, facts.rmse, facts.chroma_quality, facts.chroma_rmse
    assert found == (quality, 0, quality, 0)


def test_progressive_is_told() -> None:
    plain, progressive = read_jpeg(jpeg()), read_jpeg(jpeg(progressive=True))
    assert plain is not None
    assert progressive is not None
    assert (plain.progressive, progressive.progressive) == (False, True)
    assert plain.sha256 == progressive.sha256


def test_the_header_is_enough() -> None:
    data = jpeg(quality=60)
    assert read_jpeg(data[: data.index(b"\xff\xda") + 20]) == read_jpeg(data)


def test_odd_factors_are_other() -> None:
    data = jpeg(subsampling="4:2:0")
    at = data.index(b"\xff\xc0") + 11  # the factors of the first component
    for factors, name in ((0x12, "other"), (0x41, "other"), (0x11, "4:4:4"), (0x00, "other")):
        facts = read_jpeg(data[:at] + bytes([factors]) + data[at + 1 :])
        assert facts is not None
        assert facts.subsampling == name


@given(st.binary(max_size=60), st.integers(0, 700), st.binary(min_size=1, max_size=9))
def test_no_bytes_raise(junk: bytes, place: int, damage: bytes) -> None:
    read_jpeg(junk)
    read_jpeg(b"\xff\xd8" + junk)
    data = jpeg()
    read_jpeg(data[:place])
    read_jpeg(data[:place] + damage + data[place + len(damage) :])


def test_what_is_no_jpeg_has_no_facts() -> None:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "PNG")
    assert read_jpeg(out.getvalue()) is None
    assert read_jpeg(b"") is None
    data = jpeg()
    assert read_jpeg(data[: data.index(b"\xff\xdb")] + data[data.index(b"\xff\xc0") :]) is None
