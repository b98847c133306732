"""SemDeDup: of records that lie close together within a cluster one stays.

Abbas, Tirumala, Simig, Ganguli and Morcos 2023, "SemDeDup: Data-efficient learning at web-scale
through semantic deduplication" (arXiv 2303.09540), sec. 3. The rows of a cluster stand in order of
preference. Who goes has three meanings:

- ``ranked``, the paper's own: a row goes if any earlier row is close, even one that goes itself.
- ``greedy``: only survivors count. A row goes if an earlier row that stays is close.
- ``components``: of all that hang together the first stays.

Of a chain A ~ B ~ C, A and C apart, ``ranked`` and ``components`` keep A, ``greedy`` A and C. What
``ranked`` keeps, ``greedy`` keeps too; what ``components`` keeps, ``ranked`` keeps too.
"""

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from shardwright.quality.close_pairs import Float64, Int64

Meaning: TypeAlias = Literal["ranked", "greedy", "components"]
MEANINGS: tuple[Meaning, ...] = get_args(Meaning)


class Verdicts:
    """Adds up the close pairs of ``close_pairs``, in its order, under all three meanings at once.

    It holds some numbers for each row and none for a pair.
    """

    def __init__(self, rows: int) -> None:
        """Starts with ``rows`` rows, in order of preference, of which no two are close."""
        self._earlier = _Closest(rows)
        self._survivor = _Closest(rows)
        self._root = np.arange(rows)

    def add(self, i: Int64, j: Int64, value: Float64) -> None:
        """Takes notice of pairs: earlier row i [p], later row j [p], similarity [p].

        Whether the earlier rows stay is known of all that no pair of this or a later call has as
        its later row.
        """
        self._earlier.offer(j, i, value)
        _join(self._root, i, j)
        rows, places = np.unique(np.concatenate([i, j]), return_inverse=True)
        stays = self._survivors(places[: len(i)], places[len(i) :], rows)
        self._survivor.offer(j[stays], i[stays], value[stays])

    def _survivors(self, i: Int64, j: Int64, rows: Int64) -> npt.NDArray[np.bool_]:
        """Which pairs have an earlier row that ``greedy`` keeps; i and j are places in ``rows``."""
        gone = self._survivor.index[rows] >= 0
        open_ = np.flatnonzero(~gone[i] & ~gone[j])
        while len(open_):
            waiting = np.zeros(len(rows), bool)
            waiting[j[open_]] = True
            # the first open row of all has only earlier rows that are settled: some pair goes
            gone[j[open_[~waiting[i[open_]]]]] = True
            open_ = open_[~gone[i[open_]] & ~gone[j[open_]]]
        return ~gone[i]

    @property
    def earlier(self) -> tuple[Int64, Float64]:
        """The closest earlier row of each row, -1 where none is close, and its similarity."""
        return self._earlier.index, self._earlier.value

    @property
    def survivor(self) -> tuple[Int64, Float64]:
        """The closest earlier row that ``greedy`` keeps, -1 where none is close; its similarity."""
        return self._survivor.index, self._survivor.value

    def representatives(self, meaning: Meaning) -> Int64:
        """For each row the row that stays in its place, int64 [n]; itself if it stays.

        For ``ranked``, where what a row is close to may go itself, it is where the way from a row
        to its closest earlier row ends.
        """
        if meaning == "components":
            return _ends(self._root, self._root)
        closest = self._survivor if meaning == "greedy" else self._earlier
        leads = np.where(closest.index >= 0, closest.index, np.arange(len(self._root)))
        return _ends(leads, leads)


class _Closest:
    """The closest row offered to each row so far, of several the first; -1 if there is none."""

    def __init__(self, rows: int) -> None:
        self.index = np.full(rows, -1, np.int64)
        self.value = np.full(rows, -np.inf)

    def offer(self, row: Int64, index: Int64, value: Float64) -> None:
        order = np.lexsort((index, -value, row))
        first = order[np.diff(row[order], prepend=-1) > 0]
        better = first[value[first] > self.value[row[first]]]
        self.index[row[better]] = index[better]
        self.value[row[better]] = value[better]


def _join(root: Int64, i: Int64, j: Int64) -> None:
    """Joins the components of pairs.

    ``root`` [n] leads each row to an earlier one of its component, and the first to itself.
    """
    while len(i):
        i, j = _ends(root, i), _ends(root, j)
        apart = i != j
        i, j = np.minimum(i[apart], j[apart]), np.maximum(i[apart], j[apart])
        np.minimum.at(root, j, i)


def _ends(leads: Int64, rows: Int64) -> Int64:
    """Where the ways end that lead from rows on to others; the last leads to itself."""
    ends = leads[rows]
    while True:
        further = leads[ends]
        if np.array_equal(further, ends):
            return ends
        if rows is leads:  # of all rows: each step doubles the way
            leads = further
        ends = further


def threshold_for(highest: Float64, target: float) -> float:
    """The threshold at which a share of a sample stays under the meaning ``ranked``.

    The paper finds its thresholds on a part of the clusters, too (sec. 4 and its fig. 3).

    Args:
        highest: float64 [n], the greatest similarity of each sampled row to an earlier row of its
            cluster, -inf where there is none.
        target: share of the rows that is to stay, in (0, 1).

    Returns:
        The least value for which at least that share of the rows is not above it.
    """
    kept = max(1, int(np.ceil(target * len(highest) - 1e-9)))
    return float(np.sort(highest)[kept - 1])


def interval(hits: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95% interval of a share of which ``hits`` of ``trials`` are known.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    if trials == 0:
        return 0.0, 1.0
    share, extra = hits / trials, z * z / trials
    centre = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * np.sqrt(share * (1 - share) / trials + extra / (4 * trials))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
