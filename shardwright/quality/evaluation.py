"""How well does a score find planted damage? Areas under the curve, recall, and their intervals.

A file may stand in several trials (of several seeds), clean in one and damaged in another, so what
is drawn independently are files and not rows. Intervals come from the influence of each file on the
estimate: Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data" (Biometrics 53),
which for one row a file is DeLong, DeLong and Clarke-Pearson 1988.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

Z95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A value with the influence of each file on it.

    Attributes:
        value: The estimate.
        influence: float64 [files], whose sum of squares estimates the variance; it sums up to 0.
            That of n independent rows is scaled by the root of n / (n - 1).
    """

    value: float
    influence: Float64

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt((self.influence**2).sum()))

    @property
    def low(self) -> float:
        """Lower end of the 95% interval."""
        return self.value - Z95 * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return self.value + Z95 * self.error

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The difference of two estimates on the same files, which is paired by file."""
        return Estimate(self.value - other.value, self.influence - other.influence)


def area(scores: Float64, damaged: Bool, files: Int64) -> Estimate:
    """The area under the ROC curve: how often a damaged row has a lower score than a clean one.

    Args:
        scores: float64 [n], higher is more worth keeping; ties count one half.
        damaged: bool [n].
        files: int64 [n], the file of each row, from 0 on.

    Returns:
        The area with the influence of each file; NaN where either kind of rows is missing.
    """
    bad, good = scores[damaged], scores[~damaged]
    if not len(bad) or not len(good):
        return Estimate(float("nan"), np.zeros(int(files.max(initial=-1)) + 1))
    above = 1 - _placed(good, bad)
    below = _placed(bad, good)
    value = float(above.mean())
    count = int(files.max()) + 1
    influence = _by_file(files[damaged], above - value, count)
    influence += _by_file(files[~damaged], below - value, count)
    return Estimate(value, influence)


def recall(
    scores: Float64, damaged: Bool, files: Int64, trials: Int64, fraction: float
) -> Estimate:
    """Which share of the damaged rows is among the ``fraction`` of each trial that goes.

    Args:
        scores: float64 [n], higher is more worth keeping; of equal ones the first go.
        damaged: bool [n].
        files: int64 [n], the file of each row, from 0 on.
        trials: int64 [n], the trial of each row.
        fraction: Share of the rows of each trial that is pruned.

    Returns:
        The share with the influence of each file on it; the cut itself is taken as given.
    """
    pruned = np.zeros(len(scores), bool)
    for trial in np.unique(trials):
        rows = np.flatnonzero(trials == trial)
        order = np.argsort(scores[rows], kind="stable")
        pruned[rows[order[: round(fraction * len(rows))]]] = True
    hit = pruned[damaged].astype(np.float64)
    count = int(files.max(initial=-1)) + 1
    if not len(hit):
        return Estimate(float("nan"), np.zeros(count))
    value = float(hit.mean())
    return Estimate(value, _by_file(files[damaged], hit - value, count))


def _by_file(files: Int64, apart: Float64, count: int) -> Float64:
    """Influence of each of ``count`` files on the mean of what the rows are apart from it."""
    several = len(np.unique(files))
    unbiased = np.sqrt(several / max(several - 1, 1))
    sums: Float64 = np.bincount(files, apart * unbiased / len(apart), count).astype(np.float64)
    return sums


def _placed(values: Float64, among: Float64) -> Float64:
    """For each of ``among`` the share of ``values`` that is below it, ties one half."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, among, "left")
    high = np.searchsorted(ordered, among, "right")
    return (low + high) / (2 * len(values))
