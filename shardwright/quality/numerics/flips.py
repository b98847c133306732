"""Decisions that vectors lead to, and which of them flip when the vectors change a little.

A deviation that is far below any band can still turn a decision that stood on an edge, so all
decisions are made twice and compared: nearest neighbours, pairs of duplicates, clusters, and what
SCIP prunes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.numerics.deviation import Bool, Float32, Float64, fewer

Int64: TypeAlias = npt.NDArray[np.int64]

SHARED = ("neighbour", "duplicates", "cluster", "pruning", "pruning_anew")
"""Decisions on each record."""
DECISIONS = (*SHARED, "clustering")
"""And the clustering as a whole."""
_Z = 1.959964


@dataclass(frozen=True)
class Rules:
    """How decisions are made.

    Attributes:
        threshold: Cosine similarity above which two records are duplicates.
        k: Clusters.
        seed: Of k-means.
        start: Of k-means.
        fraction: Share that SCIP prunes.
        alpha: Share of that that goes by the size of clusters.
    """

    threshold: float
    k: int
    seed: int = 0
    start: Literal["sample", "k-means++"] = "sample"
    fraction: float = 0.2
    alpha: float = 0.8


@dataclass(frozen=True, eq=False)
class Decisions:
    """What was decided on n records.

    Attributes:
        neighbours: int64 [n], the most similar other record.
        pairs: int64 [p, 2], duplicates i < j, sorted.
        centroids: float32 [k, d], of k-means on the vectors themselves.
        labels: int64 [n], nearest of the centroids that were given; of the own if none were.
        labels_anew: int64 [n], nearest of the own centroids.
        pruned: bool [n], by the distances and cluster sizes that ``labels`` has.
        pruned_anew: bool [n], by those of ``labels_anew``.
    """

    neighbours: Int64
    pairs: Int64
    centroids: Float32
    labels: Int64
    labels_anew: Int64
    pruned: Bool
    pruned_anew: Bool


@dataclass(frozen=True, eq=False)
class Flips:
    """What differs between two sets of decisions.

    Attributes:
        flipped: Decision -> bool [n], the records on which it differs. ``neighbour``: another
            nearest one. ``duplicates``: other duplicates. ``cluster``: another label, given the
            same centroids. ``pruning``, ``pruning_anew``: pruned in one and not in the other,
            with the same centroids and with own ones.
        pairs: Duplicates of the reference.
        lost: Pairs that fell to the threshold or below.
        gained: Pairs that rose above it.
        rand: Adjusted Rand index of the two clusterings, each with its own centroids.
        rand_without: float64 [n], the same without each record in turn, for intervals.
    """

    flipped: Mapping[str, Bool]
    pairs: int
    lost: int
    gained: int
    rand: float
    rand_without: Float64

    @property
    def rand_interval(self) -> tuple[float, float]:
        """The 95% interval of ``rand`` by the jackknife."""
        half = _Z * jackknife_error(self.rand_without)
        return max(-1.0, self.rand - half), min(1.0, self.rand + half)


def decide(
    record_ids: Sequence[str], vectors: Float32, rules: Rules, centroids: Float32 | None = None
) -> Decisions:
    """Makes all decisions on vectors.

    Pairs are sought among all records: the stage ``semantic`` seeks them within clusters.

    Args:
        record_ids: n different ids; of records that are equal in all else the lower goes first.
        vectors: float32 [n, d], n at least 2 and ``rules.k``; unit rows but for their rounding.
        rules: How.
        centroids: float32 [k, d] of the reference; none to make the reference.

    Raises:
        ValueError: rows are too few, not finite, or no unit vectors.
    """
    from shardwright import kernels
    from shardwright.embeddings.kmeans import KMeans

    index, _ = kernels.topk(vectors, vectors, 2)
    neighbours = np.where(index[:, 0] == np.arange(len(vectors)), index[:, 1], index[:, 0])
    first, second, _ = kernels.pairs_above(vectors, rules.threshold)
    kmeans = KMeans(rules.k, start=rules.start, seed=rules.seed, device="cpu")
    own = kmeans.fit(vectors)
    labels, distances = own.labels, own.distances
    if centroids is not None:
        labels, distances = kmeans.assign(vectors, centroids)
    return Decisions(
        neighbours,
        np.stack([first, second], axis=1),
        own.centroids,
        labels,
        own.labels,
        _pruned(record_ids, labels, distances, rules),
        _pruned(record_ids, own.labels, own.distances, rules),
    )


def flips(vectors: Float32, reference: Decisions, other: Decisions) -> Flips:
    """What differs between the decisions of the reference and others on the same records.

    Args:
        vectors: float32 [n, d] of the reference. A neighbour that has the same vector as the one
            before is no other neighbour: which of the two is named is chance.
        reference: Made without centroids.
        other: Made with the reference's centroids.
    """
    n = len(vectors)
    _, alike = np.unique(vectors, axis=0, return_inverse=True)
    before, after = (_keys(pairs, n) for pairs in (reference.pairs, other.pairs))
    lost, gained = np.setdiff1d(before, after), np.setdiff1d(after, before)
    duplicates = np.zeros(n, bool)
    for crossed in (lost, gained):
        duplicates[crossed // n] = duplicates[crossed % n] = True
    rand, without = adjusted_rand(reference.labels_anew, other.labels_anew)
    return Flips(
        {
            "neighbour": alike[reference.neighbours] != alike[other.neighbours],
            "duplicates": duplicates,
            "cluster": reference.labels != other.labels,
            "pruning": reference.pruned != other.pruned,
            "pruning_anew": reference.pruned_anew != other.pruned_anew,
        },
        len(before),
        len(lost),
        len(gained),
        rand,
        without,
    )


def adjusted_rand(x: Int64, y: Int64) -> tuple[float, Float64]:
    """Adjusted Rand index of two clusterings, and what it is without each record in turn.

    Hubert and Arabie 1985, "Comparing partitions". A resample with replacement would hold
    records twice, which agree with themselves, so intervals are better made by leaving out.

    Args:
        x: int64 [n], not negative.
        y: int64 [n], likewise.

    Returns:
        The index, 1 where it is not defined, and float64 [n].
    """
    wide = int(y.max()) + 1
    cell = x * wide + y
    cells, of_x, of_y = np.bincount(cell), np.bincount(x), np.bincount(y)
    both, left, right = (float((n * (n - 1) // 2).sum()) for n in (cells, of_x, of_y))
    whole = _index(np.float64(both), np.float64(left), np.float64(right), len(x))
    # without a record each of the three loses the pairs that the record makes there
    without = _index(
        both - (cells[cell] - 1), left - (of_x[x] - 1), right - (of_y[y] - 1), len(x) - 1
    )
    return float(whole), without


def _index(both: Any, left: Any, right: Any, n: int) -> Any:
    chance = left * right / max(n * (n - 1) / 2, 1)
    most = (left + right) / 2
    undefined = most == chance
    return np.where(undefined, 1.0, (both - chance) / np.where(undefined, 1.0, most - chance))


def jackknife_error(without: Float64) -> float:
    """Standard error of a statistic, from what it is without each record in turn [n].

    Efron and Stein 1981, "The jackknife estimate of variance".
    """
    n = len(without)
    return float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))


def safe_for(found: Flips, harmless: Flips | None, below_sampling: bool) -> tuple[str, ...]:
    """The decisions for which it is shown that a variant does no more than a harmless change.

    Args:
        found: Flips of the variant.
        harmless: Flips of the harmless change, on the same records; None if there is none.
        below_sampling: Whether the deviation lies below the sampling band.

    Returns:
        Names of ``DECISIONS``. A decision of the others is not shown to be safe, which is not the
        same as unsafe: where the harmless change flips nothing, nothing can be shown.
    """
    if harmless is None or not below_sampling:
        return ()
    safe = [name for name in SHARED if fewer(found.flipped[name], harmless.flipped[name])]
    closer = found.rand - harmless.rand
    error = jackknife_error(found.rand_without - harmless.rand_without)
    return (*safe, *(["clustering"] if closer - _Z * error > 0 else []))


def _keys(pairs: Int64, n: int) -> Int64:
    keys: Int64 = pairs[:, 0] * n + pairs[:, 1]
    return keys


def _pruned(record_ids: Sequence[str], labels: Int64, distances: Float64, rules: Rules) -> Bool:
    import pyarrow as pa

    from shardwright.quality.pruning.scip import pruned_counts, scip

    table = pa.table(
        {
            "record_id": pa.array(record_ids, pa.string()),
            "cluster": labels.astype(np.int32),
            "distance": distances,
        }
    )
    total, _ = pruned_counts(len(labels), rules.fraction, rules.alpha)
    gone = scip(table, rules.fraction, rules.alpha).column("record_id").slice(0, total)
    found: Bool = np.isin(np.asarray(record_ids), gone.to_numpy(zero_copy_only=False))
    return found
