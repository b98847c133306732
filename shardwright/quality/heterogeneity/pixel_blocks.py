"""Traces of JPEG compression in pixels, whatever format holds them now.

Steps between blocks of 8 x 8 pixels, and the comb in the histograms of the blocks' coefficients: a
decoded JPEG has coefficients near multiples of its quantisation steps (Fan and de Queiroz, 2003,
"Identification of bitmap compression history: JPEG detection and quantizer estimation"). The
transform has whole numbers for cosines, small enough that all sums are exact in float32.
"""

import math

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.jpeg import LUMA, standard_tables
from shardwright.quality.heterogeneity.pixel_noise import thinned

_BLOCK = 8
_WAVES = 4  # lowest frequencies each way
_ZIGZAG = ((0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0))
_FEWEST = 64  # blocks
_SCALE = 64  # of the cosines
_BIN = 0.25  # of a coefficient
_BINS = 400  # up to 100, beyond which few coefficients are
_WORST = 10  # quality, below which steps are too wide for a comb
_CLEAR = 0.2  # of the comb: below, no quality is named
_EDGE, _INSIDE = 7, (2, 3, 4)  # rows of a block before a step
_CAP = 48  # levels of a bend, so that a few edges do not outweigh the rest
_FLOOR = 0.5  # levels: below, it is rounding
_MOST = 2048  # blocks, evenly taken by rows of them

Plane = npt.NDArray[np.uint8]
Signed = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

STATISTICS = (
    ("blockiness", "compression", "log2", "differences across the grid of 8 pixels by others"),
    ("dct_comb", "compression", "share", "coefficients on the comb of the likeliest JPEG quality"),
    ("dct_quality", "compression", "quality", "that quality, from 10 on; 100 without a clear comb"),
)


def _cosines() -> Float32:
    rows = [
        [
            round(_SCALE * 0.5 * math.cos(math.pi * u * (2 * x + 1) / (2 * _BLOCK)))
            for x in range(_BLOCK)
        ]
        for u in range(_WAVES)
    ]
    return np.array(rows, np.float32)


_COSINES = _cosines()
_NORMS = np.sqrt((_COSINES.astype(np.float64) ** 2).sum(axis=1))
_CHOSEN = [u * _WAVES + v for u, v in _ZIGZAG]
_FACTORS = 1 / np.multiply.outer(_NORMS, _NORMS).ravel()[_CHOSEN] / _BIN


def _combs() -> tuple[Float64, npt.NDArray[np.int64]]:
    """Weights of each bin by quantisation step [steps, bins], and steps by quality [91, waves]."""
    steps = standard_tables(LUMA)[_WORST - 1 :, [u * _BLOCK + v for u, v in _ZIGZAG]]
    sizes = np.arange(_BINS) * _BIN
    waves = np.zeros((int(steps.max()) + 1, _BINS))
    for step in range(2, len(waves)):
        waves[step] = np.where(sizes > step / 2, np.cos(2 * np.pi * sizes / step), 0)
    return waves, steps


_WEIGHTS, _STEPS = _combs()
_ABOVE = np.array([(np.arange(_BINS) * _BIN > max(step, 2) / 2) for step in range(len(_WEIGHTS))])
_ABOVE = _ABOVE.astype(np.float64)


def measure(luma: Plane) -> dict[str, float]:
    """The statistics of this module, those that apply.

    Args:
        luma: uint8 [height, width], whose first pixel is the first of a block.
    """
    values = _blockiness(luma)
    counts = _coefficients(luma)
    if counts is None:
        return values
    histograms = counts.T.astype(np.float64)
    combs = _WEIGHTS @ histograms  # [steps, waves]
    sizes = _ABOVE @ histograms
    waves = np.arange(len(_ZIGZAG))
    hits, among = combs[_STEPS, waves], sizes[_STEPS, waves]
    told = _STEPS > 1
    weight = np.where(told, among, 0).sum(axis=1)
    share = np.where(told, hits, 0).sum(axis=1) / np.maximum(weight, _FEWEST)
    best = int(np.argmax(share))
    values["dct_comb"] = float(share[best])
    values["dct_quality"] = float(best + _WORST) if share[best] >= _CLEAR else 100.0
    return values


def _blockiness(luma: Plane) -> dict[str, float]:
    """Second differences at the edges of blocks by those inside of them, both ways."""
    found = []
    height, width = luma.shape
    for levels in (luma[:, thinned(width)], luma[thinned(height)].T):
        down, across = (len(levels) - 2) // _BLOCK, levels.shape[1]
        if down < 2:
            continue
        bends = _bends(levels)
        mean = [
            int(bends[row - 1 :: _BLOCK][:down].sum(dtype=np.int64)) / (down * across)
            for row in (_EDGE, *_INSIDE)
        ]
        found.append(math.log2((mean[0] + _FLOOR) / (sum(mean[1:]) / len(_INSIDE) + _FLOOR)))
    return {"blockiness": sum(found) / len(found)} if found else {}


def _bends(levels: Plane) -> Signed:
    """Each row's step to the next against those beside it, capped and summed along the row.

    Args:
        levels: uint8 [rows, at most 128].

    Returns:
        int16 [rows - 3], from the second row on.
    """
    wide = levels.astype(np.int16)
    bend = wide[1:-2] - wide[2:-1]
    bend *= np.int16(3)
    bend += wide[3:]
    bend -= wide[:-3]
    np.abs(bend, out=bend)
    np.minimum(bend, np.int16(_CAP), out=bend)
    sums: Signed = bend.sum(axis=1, dtype=np.int16)
    return sums


def _coefficients(luma: Plane) -> npt.NDArray[np.int64] | None:
    """Histograms of the sizes of the lowest coefficients of the blocks, [waves, bins]."""
    down, across = luma.shape[0] // _BLOCK, luma.shape[1] // _BLOCK
    if down * across < _FEWEST:
        return None
    blocks = luma[: down * _BLOCK, : across * _BLOCK].reshape(down, _BLOCK, across * _BLOCK)
    blocks = blocks[:: max(1, -(-down * across // _MOST))]
    down = len(blocks)
    rows = np.matmul(_COSINES, blocks.astype(np.float32) - np.float32(128))
    both = rows.reshape(down * _WAVES * across, _BLOCK) @ _COSINES.T
    waves = both.reshape(down, _WAVES, across, _WAVES).swapaxes(1, 2).reshape(-1, _WAVES**2)
    sizes = np.abs(waves[:, _CHOSEN].astype(np.float64)) * _FACTORS + 0.5
    bins = np.minimum(sizes.astype(np.int64), _BINS - 1) + np.arange(len(_ZIGZAG)) * _BINS
    return np.bincount(bins.ravel(), minlength=len(_ZIGZAG) * _BINS).reshape(-1, _BINS)
