"""Statistics on scales on which what a stage does to them adds up, and how much is nothing.

Logarithms turn what multiplies into what adds, and bound what a few pictures can do to a mean. Of
each feature there is a least difference, below which two groups are taken as alike however many
images there are: no model of a stage is exact to less than that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.device_statistics import STATISTICS

Float64 = npt.NDArray[np.float64]

_OUTLIER = 4.0  # deviations by the median of distances: what lies beyond is moved there
_NORMAL = 1.4826  # deviation of a normal distribution by its median distance


@dataclass(frozen=True)
class Feature:
    """A statistic on its scale.

    Attributes:
        name: Of the statistic.
        stage: The stage that it tracks.
        least: Difference that is nothing.
        scale: ``plain``, ``log`` (of the value and ``offset``) or ``asinh`` (of it by ``offset``).
        offset: See ``scale``.
    """

    name: str
    stage: str
    least: float
    scale: str = "plain"
    offset: float = 0.0


_SCALES: Mapping[str, tuple[float, str, float]] = {
    **{f"{name}_{c}": (0.03, "plain", 0.0) for name in ("grey_world", "white_patch", "median")
       for c in ("red", "blue")},
    "gamma": (0.04, "log", 0.0),
    **{f"luma_{p:02d}": (0.008, "plain", 0.0) for p in (1, 5, 25, 50, 75, 95, 99)},
    "clipped_dark": (0.3, "log", 0.003),
    "clipped_bright": (0.3, "log", 0.003),
    "contrast": (0.006, "plain", 0.0),
    "comb": (0.04, "plain", 0.0),
    "noise_flat": (0.08, "log", 0.25),
    "noise_chroma": (0.08, "log", 0.25),
    "noise_slope": (0.25, "asinh", 0.02),
    "noise_channels": (0.05, "plain", 0.0),
    "noise_grain": (0.12, "plain", 0.0),
    "laplacian": (0.12, "plain", 0.0),
    "acutance": (0.05, "plain", 0.0),
    "overshoot": (0.01, "plain", 0.0),
    "jpeg_quality": (2.0, "plain", 0.0),
    "jpeg_chroma_quality": (2.0, "plain", 0.0),
    "jpeg_chroma_share": (0.05, "plain", 0.0),
    "blockiness": (0.03, "plain", 0.0),
    "dct_comb": (0.03, "plain", 0.0),
    "dct_quality": (3.0, "plain", 0.0),
    "lattice_green": (0.03, "plain", 0.0),
    "lattice_colour": (0.03, "plain", 0.0),
    "detail_alike": (0.08, "plain", 0.0),
    "detail_colour": (0.04, "plain", 0.0),
    "purity": (0.1, "plain", 0.0),
    "icc_area": (0.03, "plain", 0.0),
    "chroma": (0.04, "log", 0.05),
}  # fmt: skip

FEATURES: tuple[Feature, ...] = tuple(
    Feature(one.name, one.stage, *_SCALES[one.name])
    for one in STATISTICS
    if one.stage is not None and one.name in _SCALES
)
"""Of the statistics, those that attribution looks at, in their order."""

NAMES = tuple(one.name for one in FEATURES)


def features(statistics: Sequence[Mapping[str, float]]) -> Float64:
    """Features of images.

    Args:
        statistics: Of each image, as ``measure`` gives them.

    Returns:
        float64 [images, features]; NaN where a statistic is.
    """
    table = np.array([[one[name] for name in NAMES] for one in statistics], np.float64)
    table = table.reshape(len(statistics), len(NAMES))
    for column, feature in enumerate(FEATURES):
        own = table[:, column]
        if feature.scale == "log":
            table[:, column] = np.log2(np.maximum(own + feature.offset, 2.0**-9))
        elif feature.scale == "asinh":
            table[:, column] = np.arcsinh(own / feature.offset)
    return table


def bounded(table: Float64) -> Float64:
    """Gaps filled by the median of a group and outliers moved in.

    Args:
        table: float64 [images, features] of one group; a feature without any value stays NaN.
    """
    known = ~np.isnan(table).all(axis=0)
    found = table.copy()
    own = table[:, known]
    middle = np.nanmedian(own, axis=0)
    own = np.where(np.isnan(own), middle, own)
    reach = _OUTLIER * _NORMAL * np.median(np.abs(own - middle), axis=0)
    reach = np.maximum(reach, own.std(axis=0) * _OUTLIER / 2)  # most may be all alike
    found[:, known] = np.clip(own, middle - reach, middle + reach)
    return found


LEAST: Float64 = np.array([one.least for one in FEATURES])
STAGE_OF = tuple(one.stage for one in FEATURES)
