"""The shift between two groups, read on the ruler of the stage that attribution names first.

The ruler is made of images of the group that attribution would change, in the direction in which it
would change them, by the squared MMD with the bandwidth of the two groups. Changed copies show what
their originals show, so no image is held against its own copy: that estimate is without bias, and 0
where nothing is changed.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from shardwright.quality.heterogeneity.attribution import Part
from shardwright.quality.heterogeneity.device_statistics import (
    IN_HEADER,
    STATISTICS,
    Pixels,
    measure,
)
from shardwright.quality.heterogeneity.mmd import median_bandwidth, mmd_squared
from shardwright.quality.heterogeneity.permutation import Float64
from shardwright.quality.heterogeneity.ruler import Reading, Represent, goes_back, make_ruler


def read_shift(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    images: Sequence[Pixels],
    represent: Represent,
    part: Part,
    seed: int = 0,
) -> Reading:
    """Reads the shift between two groups.

    Args:
        a: Numbers [n, d] of one group, as ``represent`` makes them.
        b: Numbers [m, d] of the other.
        images: uint8 [height, width, 3] each, of the group ``part.moved``.
        represent: Images -> numbers [images, d].
        part: The stage, and what of it is changed.
        seed: Of noise.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    bandwidth = [median_bandwidth(x, y)]
    apart = partial(paired_mmd_squared, bandwidth=bandwidth[0])
    ruler = make_ruler(images, part.stage, represent, apart, back=goes_back(part), seed=seed)
    return ruler.read(mmd_squared(x, y, bandwidth))


def paired_mmd_squared(x: Float64, y: Float64, bandwidth: float) -> float:
    """The squared MMD of rows and changed copies of them, without bias.

    Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6: the mean over i and j, not equal, of
    k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i), which asks pairs to be independent, and
    not the two rows of a pair.

    Args:
        x: float64 [n, d], n at least 2.
        y: float64 [n, d], the copies in the same order.
        bandwidth: b of exp(-|x - y|^2 / b).
    """
    kernels = [np.exp(-cdist(a, b, "sqeuclidean") / bandwidth) for a, b in ((x, x), (y, y), (x, y))]
    others = [float(kernel.sum() - np.trace(kernel)) for kernel in kernels]
    return (others[0] + others[1] - 2 * others[2]) / (len(x) * (len(x) - 1))


def shown_statistics(
    a: Float64, b: Float64
) -> tuple[Float64, Float64, Callable[[Sequence[Pixels]], Float64]]:
    """Statistics of two groups on a scale that changed images can be put on too.

    What stands in a file's header is left out, as changed pixels have none; so is what one group
    lacks entirely. Gaps get the median of both groups; then each statistic is divided by its
    standard deviation in both.

    Args:
        a: float64 [n, statistics] of one group, NaN where one does not apply.
        b: float64 [m, statistics] of the other.

    Returns:
        Both on that scale, and what puts images on it.
    """
    both = np.concatenate([a, b])
    header = np.array([one.name in IN_HEADER for one in STATISTICS])
    chosen = ~(header | np.isnan(a).all(axis=0) | np.isnan(b).all(axis=0))
    middle = np.nanmedian(both[:, chosen], axis=0)
    filled = np.where(np.isnan(both[:, chosen]), middle, both[:, chosen])
    mean, deviation = filled.mean(axis=0), filled.std(axis=0)
    deviation[deviation == 0] = 1

    def scaled(values: Float64) -> Float64:
        own = values[:, chosen]
        found: Float64 = (np.where(np.isnan(own), middle, own) - mean) / deviation
        return found

    def represent(images: Sequence[Pixels]) -> Float64:
        return scaled(np.array([list(measure(pixels).values()) for pixels in images]))

    return scaled(a), scaled(b), represent
