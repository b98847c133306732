"""The corruption study: where does damage move records in the space of an encoder?

Yang et al. 2023 (arXiv 2312.02418) damaged code on purpose and saw it move to smaller clusters and
away from centroids; from that they made SCIP. Which of their figures are theirs cannot be checked
here, as the paper's body could not be read; the design is our own: clusters of records as they are,
a sample of them damaged, embedded and assigned to those clusters, each held against its original.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Where records lie among clusters.

    Attributes:
        cluster: int64 [n], the nearest one.
        size: int64 [n], how many undamaged records it holds.
        distance: float64 [n], 1 - cosine to its centroid.
    """

    cluster: Int64
    size: Int64
    distance: Float64


@dataclass(frozen=True)
class Effect:
    """What a kind of damage does.

    Attributes:
        corruption: The kind.
        family: Its family.
        pairs: Records that were damaged by it.
        moved: Share that is nearest to another centroid than before.
        size: Mean change of the natural logarithm of the cluster's size.
        size_effect: That, over its standard deviation (Cohen's d of paired samples).
        size_p: Two-sided p-value of the sign test; changes of zero do not count.
        distance: Mean change of the distance.
        distance_effect: That, over its standard deviation.
        distance_p: As ``size_p``.
    """

    corruption: str
    family: str
    pairs: int
    moved: float
    size: float
    size_effect: float
    size_p: float
    distance: float
    distance_effect: float
    distance_p: float


def study(
    before: Places, after: Places, corruptions: Sequence[str], families: dict[str, str]
) -> list[Effect]:
    """Holds damaged records against their originals, by kind of damage.

    Args:
        before: n originals, one for each damaged record.
        after: n damaged records.
        corruptions: The kind of damage of each.
        families: Kind -> family.

    Returns:
        An effect for each kind, in order of the names.
    """
    named = np.array(corruptions)
    grown = np.log(after.size / before.size)
    farther = after.distance - before.distance
    effects = []
    for kind in sorted(set(corruptions)):
        rows = named == kind
        effects.append(
            Effect(
                kind,
                families[kind],
                int(rows.sum()),
                float((after.cluster[rows] != before.cluster[rows]).mean()),
                *_change(grown[rows]),
                *_change(farther[rows]),
            )
        )
    return effects


def _change(values: Float64) -> tuple[float, float, float]:
    """Mean, mean over standard deviation, and p of the sign test."""
    from scipy.stats import binomtest

    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if np.ptp(values) <= 1e-12 * np.abs(values).max():  # equal but for rounding
        spread = 0.0
    up, down = int((values > 0).sum()), int((values < 0).sum())
    p = float(binomtest(up, up + down).pvalue) if up + down else 1.0
    return mean, mean / spread if spread > 0 else 0.0, p
