"""Samples of two groups that show the same things: as many rows of either in every stratum.

Two cameras that photograph different things differ in what they photograph. Where the classes (or,
without labels, the clusters) of the pictures are known, only as many of a class are compared as
both groups have.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Int64: TypeAlias = npt.NDArray[np.int64]
UInt64: TypeAlias = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Matched:
    """Rows of two groups with equal counts in every stratum.

    Attributes:
        x: int64 [n], rows of the first group, by stratum.
        y: int64 [n], rows of the second; the i-th is of the stratum of the i-th of ``x``.
        strata: Strata that both have rows in.
        left_x: Rows of the first group that are left out.
        left_y: Rows of the second that are left out.
    """

    x: Int64
    y: Int64
    strata: int
    left_x: int
    left_y: int

    @property
    def rows(self) -> int:
        """How many rows of either group were matched."""
        return len(self.x)


def match(
    strata_x: npt.ArrayLike, strata_y: npt.ArrayLike, keys_x: UInt64, keys_y: UInt64
) -> Matched:
    """Takes from every stratum as many rows of either group as the smaller of the two has there.

    Args:
        strata_x: n labels that sort, of the rows of the first group.
        strata_y: m labels, of those of the second.
        keys_x: uint64 [n], pseudo-random: rows of the smallest keys are taken
            (``embeddings.sampling.sample_keys`` makes them from ids and a seed, so that the choice
            depends on neither order nor on other groups).
        keys_y: uint64 [m], likewise.

    Raises:
        ValueError: there are not as many keys as labels.
    """
    of_x, of_y = np.asarray(strata_x), np.asarray(strata_y)
    if of_x.shape != keys_x.shape or of_y.shape != keys_y.shape or of_x.ndim != 1:
        raise ValueError(
            f"{of_x.shape} and {of_y.shape} strata for {keys_x.shape} and {keys_y.shape} keys: "
            "each row must have one of both"
        )
    _, codes = np.unique(np.concatenate([of_x, of_y]), return_inverse=True)
    size = int(codes.max(initial=-1)) + 1
    a, b = codes[: len(of_x)], codes[len(of_x) :]
    wanted = np.minimum(np.bincount(a, minlength=size), np.bincount(b, minlength=size))
    x, y = _smallest(a, keys_x, wanted), _smallest(b, keys_y, wanted)
    return Matched(x, y, int((wanted > 0).sum()), len(a) - len(x), len(b) - len(y))


def _smallest(codes: Int64, keys: UInt64, wanted: Int64) -> Int64:
    """The rows of the ``wanted[s]`` smallest keys of each stratum s, by stratum and key."""
    order = np.lexsort((keys, codes))
    inside = codes[order]
    starts = np.searchsorted(inside, np.arange(len(wanted)))
    taken = np.arange(len(order)) - starts[inside] < wanted[inside]
    found: Int64 = order[taken]
    return found
