"""What a JPEG's header tells of its encoder: quantisation tables, quality, subsampling, scans.

No pixel is decoded. The standard tables are those of Annex K of ITU-T T.81 | ISO/IEC 10918-1,
tables K.1 and K.2, and quality 1 to 100 scales them as the library of the Independent JPEG Group
does (``jpeg_quality_scaling``): by 5000 / q below 50 and 200 - 2 q from there on, in hundredths.
"""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import JpegImagePlugin

from shardwright.embeddings.pixels import SILENCE

Table = npt.NDArray[np.int64]

# fmt: off
LUMA: Table = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
])
CHROMA: Table = np.array([
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
])
# fmt: on
_BASELINE, _EXTENDED = 255, 32_767  # the largest entry with 8 bits, and that of IJG with 16
_NAMES = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0"}
_UNCOLOURED = {1: "4:0:0", 4: "other"}
_COLOURED = 3  # components: luma and two of chroma


@dataclass(frozen=True)
class JpegFacts:
    """How a JPEG was encoded.

    Attributes:
        tables: The tables of luma and, where there is colour, of chroma: 64 entries each, row by
            row (not in zigzag order).
        quality: Quality 1 to 100 whose standard table of luma is nearest.
        rmse: Root mean square difference of that table from the file's; 0 for a standard one,
            whose quality is then exact.
        chroma_quality: As ``quality``, of chroma; None where there is no colour. The tables of
            quality 1, 2 and 3 are the same (all 255): of equals, the nearest to ``quality``.
        chroma_rmse: As ``rmse``, of chroma.
        subsampling: ``4:4:4``, ``4:2:2``, ``4:2:0``, ``4:0:0`` (grey), or ``other``.
        chroma_share: Samples of each chroma plane by samples of luma (0.25 for 4:2:0).
        progressive: Whether it is coded in several passes.
        sha256: 64 hex digits, of the tables in the components' order.
    """

    tables: tuple[tuple[int, ...], ...]
    quality: int
    rmse: float
    chroma_quality: int | None
    chroma_rmse: float | None
    subsampling: str
    chroma_share: float | None
    progressive: bool
    sha256: str


def standard_tables(base: Table, most: int = _BASELINE) -> Table:
    """The tables of quality 1 to 100, int64 [100, 64]."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((np.multiply.outer(percent, base) + 50) // 100, 1, most)


_TABLES = {
    (name, most): standard_tables(base, most)
    for name, base in (("luma", LUMA), ("chroma", CHROMA))
    for most in (_BASELINE, _EXTENDED)
}


def read_jpeg(data: bytes) -> JpegFacts | None:
    """Reads the header of a JPEG; of a file with several pictures (MPO), that of the first.

    Args:
        data: The file, or as much of it as holds the header up to the first scan.

    Returns:
        The facts; None where the bytes are no JPEG, or its header is broken, has no tables, or is
        of a kind that Pillow does not read (12 bits, lossless, arithmetic coding).
    """
    try:
        with SILENCE:
            image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        layers = list(image.layer)
        tables = [image.quantization[layer[3]] for layer in layers]
        progressive = "progressive" in image.info
    except MemoryError:
        raise
    except Exception:  # on broken bytes Pillow's parsers raise nearly anything
        return None
    if len(tables) not in (*_UNCOLOURED, _COLOURED) or any(len(one) != len(LUMA) for one in tables):
        return None
    shown = tuple(tuple(map(int, table)) for table in tables[:2])
    quality, rmse = _nearest("luma", shown[0], None)
    colour = len(layers) == _COLOURED
    chroma_quality, chroma_rmse = _nearest("chroma", shown[1], quality) if colour else (None, None)
    subsampling, share = _subsampling(layers) if colour else (_UNCOLOURED[len(layers)], None)
    digest = hashlib.sha256(np.array(tables, ">u4").tobytes()).hexdigest()
    return JpegFacts(
        shown if colour else shown[:1],
        quality,
        rmse,
        chroma_quality,
        chroma_rmse,
        subsampling,
        share,
        progressive,
        digest,
    )


def _nearest(name: str, table: tuple[int, ...], prefer: int | None) -> tuple[int, float]:
    """The quality whose table is nearest, among equals the one next to ``prefer``; its RMSE."""
    most = _BASELINE if max(table) <= _BASELINE else _EXTENDED
    squares = ((_TABLES[name, most] - np.array(table)) ** 2).sum(axis=1)
    nearest = np.flatnonzero(squares == squares.min()) + 1
    quality = nearest[0] if prefer is None else nearest[np.argmin(np.abs(nearest - prefer))]
    return int(quality), float(np.sqrt(squares.min() / len(LUMA)))


def _subsampling(layers: list[tuple[int, int, int, int]]) -> tuple[str, float | None]:
    """The name, and chroma samples by luma samples; layers hold id, two factors, and table."""
    (_, across, down, _), blue, red = layers
    if not across * down or not blue[1] * blue[2]:
        return "other", None
    share = blue[1] * blue[2] / (across * down)
    if blue[1:3] != red[1:3] or across % blue[1] or down % blue[2]:
        return "other", share
    return _NAMES.get((across // blue[1], down // blue[2]), "other"), share
