"""How sharp edges are, and whether sharpening has drawn halos along them.

Edges are found along rows and along columns: where levels two pixels to either side differ most,
and the step over the middle is the steepest. What is taken from them are ratios of differences, so
that neither the contrast nor the number of edges matters; the energy of noise is taken off.
"""

import math

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.pixel_noise import banded, laplacian, thinned

_CONTRAST = 16  # levels over four pixels
_STRONG = 2.0  # times the mean of such differences
_FAR = 6  # pixels from an edge to the plateaus on both of its sides
_MOST = 1024  # edge pixels each way, evenly taken
_FEWEST = 64

Plane = npt.NDArray[np.uint8]
Signed = npt.NDArray[np.int16]
Float64 = npt.NDArray[np.float64]

STATISTICS = (
    ("laplacian", "sharpness", "log2", "variance of the Laplacian by that of the luma"),
    ("acutance", "sharpness", "log2", "energy of steps over two pixels by that over eight"),
    ("overshoot", "sharpness", "share of the step", "crest beside an edge above its plateau"),
)


def measure(luma: Plane, noise: float) -> dict[str, float]:
    """The statistics of this module, those that apply.

    Args:
        luma: uint8 [height, width].
        noise: Deviation of the noise in levels; NaN where unknown.
    """
    power = 0.0 if math.isnan(noise) else noise**2
    values = _laplacian(luma, power)
    height, width = luma.shape
    lines = luma[:, thinned(width)], luma[thinned(height)]
    profiles = np.concatenate([_profiles(own, axis) for axis, own in enumerate(lines)])
    if len(profiles) < _FEWEST:
        return values
    two, eight = _energy(profiles, -1, 1, power), _energy(profiles, -4, 4, power)
    if min(two, eight) > 0:
        values["acutance"] = math.log2(two / eight)
    step = profiles[:, 2 * _FAR] - profiles[:, 0]
    plain = step >= _CONTRAST
    if np.count_nonzero(plain) >= _FEWEST:
        own = profiles[plain].astype(np.float64)
        crest = np.maximum(own[:, _FAR + 2], own[:, _FAR + 3]) - own[:, 2 * _FAR]
        trough = own[:, 0] - np.minimum(own[:, _FAR - 2], own[:, _FAR - 3])
        values["overshoot"] = float(np.median((crest + trough) / step[plain]))
    return values


def _laplacian(luma: Plane, power: float) -> dict[str, float]:
    if min(luma.shape) < 8:
        return {}
    bands = banded(luma)
    found = laplacian(bands)
    energy = _squares(found) / found.size - 20 * power
    mean = int(bands.sum(dtype=np.int64)) / bands.size
    spread = _squares(bands) / bands.size - mean**2 - power
    if energy <= 0 or spread <= 1:
        return {}
    return {"laplacian": math.log2(energy / spread)}


def _squares(values: Signed) -> float:
    """Sum of squares; of whole numbers below 2**53, and so the same in any order."""
    wide = values.astype(np.float64)
    return float(np.vecdot(wide, wide).sum())


def _profiles(luma: Plane, axis: int) -> Signed:
    """Levels across edges, from the darker to the brighter side, int16 [edges, 13]."""
    size = luma.shape[axis]
    if size < 2 * _FAR + 4:
        return np.empty((0, 2 * _FAR + 1), np.int16)
    ahead = [slice(None), slice(None)]
    behind = [slice(None), slice(None)]
    ahead[axis], behind[axis] = slice(_FAR + 2, size - _FAR + 2), slice(_FAR - 2, size - _FAR - 2)
    a, b = luma[tuple(ahead)], luma[tuple(behind)]
    step = np.maximum(a, b) - np.minimum(a, b)
    least = max(_CONTRAST, _STRONG * int(step.sum(dtype=np.uint32)) / step.size)
    places = np.flatnonzero(step >= min(255, math.ceil(least)))
    places = places[:: max(1, -(-len(places) // _MOST))]
    row, column = np.divmod(places, step.shape[1])
    stride = luma.shape[1] if axis == 0 else 1
    start = row * luma.shape[1] + column  # the slice begins _FAR before the edge
    flat = np.ravel(luma)
    found = np.stack([flat[start + k * stride] for k in range(2 * _FAR + 1)], axis=1)
    levels = found.astype(np.int16)
    down = levels[:, _FAR + 2] < levels[:, _FAR - 2]
    levels[down] = levels[down, ::-1]
    steps = [levels[:, _FAR + k + 1] - levels[:, _FAR + k - 1] for k in (-1, 0, 1)]
    steepest: Signed = levels[(steps[1] >= steps[0]) & (steps[1] >= steps[2])]
    return steepest


def _energy(profiles: Signed, a: int, b: int, power: float) -> float:
    """Mean square of the step from ``a`` to ``b`` pixels of the edge, less that of noise."""
    step = (profiles[:, _FAR + b] - profiles[:, _FAR + a]).astype(np.int64)
    return float((step**2).sum()) / len(step) - 2 * power
