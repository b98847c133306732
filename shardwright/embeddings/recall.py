"""Recall@k of an index against exact search, and the least effort that reaches a target.

A found neighbour counts if it is as similar to the query as the k-th of the exact answer, so that
equally similar vectors may stand for each other (as in ann-benchmarks: Aumueller, Bernhardsson and
Faithfull 2020, "ANN-Benchmarks", Information Systems 87, sec. 2.2). The similarities that an index
gives must be exact, as those of flat vectors are.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

K = 10
"""Neighbours that recall is measured on."""
QUERIES = 1000
"""Records held out to tune and to measure on."""
_ROUNDING = 1e-5
"""How far float32 inner products of unit vectors may lie from exact ones."""
_ONE_SIDED, _TWO_SIDED = 1.645, 1.960
"""Normal quantiles of 95 percent."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recall:
    """A measured recall.

    Attributes:
        k: neighbours asked for.
        mean: share of them that was found.
        margin: half the width of the 95 percent confidence interval over queries.
        queries: how many were asked.
    """

    k: int
    mean: float
    margin: float
    queries: int

    def __str__(self) -> str:
        return (
            f"recall@{self.k} {self.mean:.4f} (+-{self.margin:.4f}, {self.queries:,} held-out "
            "queries)"
        )

    def values(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


class Truth:
    """The exact ``K`` best similarities of queries to vectors that stream by."""

    def __init__(self, queries: Float32, device: str = "cpu") -> None:
        """Starts without vectors.

        Args:
            queries: unit vectors float32 [q, d].
            device: ``cpu`` or ``cuda``; the answer is the same.
        """
        self.queries = queries
        self.best = np.empty((len(queries), 0))
        self._device = device

    def add(self, vectors: Float32) -> None:
        """Compares the queries with vectors float32 [n, d]."""
        if not len(vectors) or not len(self.queries):
            return
        import torch

        from shardwright import kernels

        queries, rows = (
            torch.from_numpy(np.require(x, requirements=["C", "W"])).to(self._device)
            for x in (self.queries, vectors)
        )
        _, values = kernels.topk(queries, rows, min(K, len(vectors)), "dot")
        self.join(values.cpu().numpy())

    def join(self, best: npt.NDArray[np.float64]) -> None:
        """Takes in the ``best`` [q, up to K] of the same queries and other vectors."""
        both = np.concatenate([self.best, best], axis=1)
        self.best = -np.sort(-both, axis=1)[:, :K]

    def hits(self, found: Float32) -> npt.NDArray[np.float64]:
        """Share of the exact neighbours that each query found.

        Args:
            found: similarities [q, K], best first, of vectors that ``add`` saw.
        """
        wanted = self.best.shape[1]
        if not wanted:
            return np.ones(len(self.queries))
        shares: npt.NDArray[np.float64] = np.mean(
            found[:, :wanted] >= self.best[:, -1:] - _ROUNDING, axis=1
        )
        return shares


def recall_of(hits: npt.NDArray[np.float64]) -> Recall:
    """The mean of the shares [q] and how well q queries tell it."""
    return Recall(K, float(hits.mean()), _TWO_SIDED * _error(hits), len(hits))


def tune(
    search: Callable[[int], Float32],
    efforts: Sequence[int],
    truth: Truth,
    target: float,
    kinds: int = 1,
) -> tuple[int, Recall]:
    """Finds the least effort that reaches a recall, by bisection.

    Half of the queries choose: with them the lower end of the one-sided 95 percent confidence
    interval reaches the target. The other half, which had no say, give the recall.

    Args:
        search: gives the similarities [q, K] that the truth's queries find with an effort.
        efforts: what to choose from, ascending; more effort finds more.
        truth: of the same queries.
        target: recall to reach, between 0 and 1.
        kinds: of queries, as many of each, one kind behind the other; each reaches the target.

    Returns:
        The effort, or the last where none reaches the target, and the recall with it: the lowest
        of the kinds.
    """
    shares: dict[int, npt.NDArray[np.float64]] = {}

    def enough(effort: int) -> bool:
        shares[effort] = truth.hits(search(effort)).reshape(kinds, -1)
        return all(
            float(choosing.mean()) - _ONE_SIDED * _error(choosing) >= target
            for choosing in shares[effort][:, ::2]
        )

    place = bisect_left(efforts, True, key=enough)
    effort = efforts[min(place, len(efforts) - 1)]
    measured = [recall_of(reporting) for reporting in shares[effort][:, 1::2]]
    return effort, min(measured, key=lambda recall: recall.mean)


def reach(
    search: Callable[[int], Float32],
    efforts: Sequence[int],
    truth: Truth,
    target: float,
    kinds: int = 1,
) -> tuple[int, Recall]:
    """As ``tune``, and on to more effort while the recall of the half that reports is too low.

    That half then errs on the safe side: it had a say, but only for more.
    """
    effort, recall = tune(search, efforts, truth, target, kinds)
    for more in efforts[efforts.index(effort) + 1 :]:
        if recall.mean >= target:
            break
        effort, recall = tune(search, [more], truth, target, kinds)
    return effort, recall


def steps(most: int) -> list[int]:
    """Efforts from 1 to ``most``, each about an eighth more than the one before."""
    found = [1]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, found[-1] * 9 // 8)))
    return found


def _error(hits: npt.NDArray[np.float64]) -> float:
    """Standard error of the mean."""
    return float(hits.std(ddof=1) / len(hits) ** 0.5) if len(hits) > 1 else 0.0
