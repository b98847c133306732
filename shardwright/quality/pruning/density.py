"""Density-based pruning: each cluster keeps as many records as its complexity calls for.

Abbas, Rusak, Tirumala, Brendel, Chaudhuri and Morcos 2024, "Effective pruning of web-scale datasets
based on complexity of concept clusters" (arXiv 2401.04578). A cluster is complex if its records lie
far from its centroid and its centroid far from others; simple ones are cut to few records. It is
meant to run after semantic duplicates are gone.
"""

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardwright import kernels
from shardwright.quality.close_pairs import Float64, Int64
from shardwright.quality.pruning.cut import pruned_count, quota_query
from shardwright.quality.pruning.relations import Ids, assignments, evaluate, rows

NEIGHBOURS = 20
"""Other centroids that tell how far a cluster lies from the rest."""
_SCALE = 1 << 50


def spread_query(clusters: str) -> str:
    """SQL for what is known of each cluster that has members.

    The mean is one of distances rounded to multiples of 2^-50, whose sum is exact: the same bits
    for any order and any number of threads.

    Args:
        clusters: A relation with ``record_id``, ``cluster`` and ``distance``.

    Returns:
        A query that yields ``cluster``, ``members`` and ``spread``, the mean distance to the
        centroid (d_intra), sorted by cluster.
    """
    return f"""
    SELECT cluster, count(*) AS members,
      sum(round(distance * {_SCALE}::DOUBLE)::HUGEINT)::DOUBLE / {_SCALE}::DOUBLE / count(*)
        AS spread
    FROM {clusters} GROUP BY cluster ORDER BY cluster"""


def separation(centroids: npt.NDArray[np.float32], neighbours: int = NEIGHBOURS) -> Float64:
    """The mean of 1 - cosine from each centroid to the nearest others (d_inter).

    Args:
        centroids: float32 [k, d].
        neighbours: How many others, or all where there are fewer.

    Returns:
        float64 [k]; 1 where there is no other.
    """
    count = len(centroids)
    nearest = min(neighbours, count - 1)
    if nearest < 1:
        return np.ones(count)
    index, value = kernels.topk(centroids, centroids, nearest + 1)
    own = index == np.arange(count)[:, None]
    own[~own.any(axis=1), -1] = True  # so many equal centroids that it is not among them itself
    others: Float64 = (1 - value[~own].reshape(count, nearest)).sum(axis=1) / nearest
    return others


def shares(complexity: Float64, tau: float) -> Float64:
    """softmax(complexity / tau) of float64 [k]: the share of what is kept that each cluster wants.

    Raises:
        ValueError: ``tau`` is not above 0.
    """
    if not tau > 0:
        raise ValueError(f"tau is {tau}: it must be above 0")
    if not len(complexity):
        return np.zeros(0)
    weights = np.exp((complexity - complexity.max()) / tau)
    found: Float64 = weights / math.fsum(weights)
    return found


def nearest_allocation(
    wanted: Float64, lowest: npt.ArrayLike, highest: npt.ArrayLike, total: float
) -> Float64:
    """The allocation within bounds that is nearest to what is wanted.

    It solves the paper's quadratic program, min sum_j (x_j - w_j)^2 subject to sum_j x_j = total
    and l_j <= x_j <= h_j. By the conditions of Karush, Kuhn and Tucker x_j = clip(w_j + mu, l_j,
    h_j) for one mu, and the sum grows with mu: it is found by bisection.

    Args:
        wanted: float64 [k], w.
        lowest: [k], l.
        highest: [k], h.
        total: What the allocation sums up to.

    Returns:
        float64 [k], x.

    Raises:
        ValueError: no allocation within the bounds has this sum.
    """
    low, high = np.asarray(lowest, np.float64), np.asarray(highest, np.float64)
    if (low > high).any() or not math.fsum(low) <= total <= math.fsum(high):
        raise ValueError(f"no allocation within the bounds sums up to {total}")
    if not len(wanted):
        return np.zeros(0)
    below, above = float((low - wanted).min()), float((high - wanted).max())
    for _ in range(64):  # what is left of the interval is below the rounding of its ends
        middle = (below + above) / 2
        if math.fsum(np.clip(wanted + middle, low, high)) < total:
            below = middle
        else:
            above = middle
    return np.clip(wanted + above, low, high)


def rounded(allocation: Float64, total: int) -> Int64:
    """Whole numbers with a given sum, by largest remainders; ties go to the lowest index.

    The authors round each number to the nearest, and their sum can differ from the total.

    Args:
        allocation: float64 [k], not negative, of sum ``total`` but for rounding.
        total: The sum of the result.

    Returns:
        int64 [k], each the number below or above, so that whole bounds still hold.
    """
    whole = np.floor(allocation)
    counts = whole.astype(np.int64)
    order = np.argsort(whole - allocation, kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def quotas(
    spread: pa.Table,
    centroids: npt.NDArray[np.float32],
    kept: int,
    tau: float = 0.1,
    min_samples: int = 1,
) -> pa.Table:
    """How many records each cluster keeps.

    With C = separation * spread: the allocation nearest to kept * softmax(C / tau) in which no
    cluster keeps more than it has, and none fewer than ``min_samples`` or all of its members;
    where ``kept`` does not go round for that, fewer than kept / k. Clusters without members count
    for nothing, not as neighbours either.

    Args:
        spread: The rows of ``spread_query``.
        centroids: float32 [k, d], of all clusters.
        kept: How many records are kept in all, at most as many as there are.
        tau: Temperature: the higher, the more alike the clusters' shares.
        min_samples: Records that each cluster keeps at the least.

    Returns:
        ``cluster`` int32 and ``quota`` int64, of sum ``kept``.

    Raises:
        ValueError: an argument is out of range, or a cluster has no centroid.
    """
    if min_samples < 0:
        raise ValueError(f"min_samples is {min_samples}: it must not be negative")
    cluster = spread.column("cluster").to_numpy()
    if len(cluster) and not 0 <= cluster.min() <= cluster.max() < len(centroids):
        raise ValueError(f"cluster {cluster.max()} has no centroid: there are {len(centroids)}")
    members = spread.column("members").to_numpy()
    complexity = separation(centroids[cluster]) * spread.column("spread").to_numpy()
    least = np.minimum(members, min(min_samples, kept // max(1, len(cluster))))
    allocation = nearest_allocation(shares(complexity, tau) * kept, least, members, kept)
    return pa.table({"cluster": cluster, "quota": rounded(allocation, kept)})


def density_query(clusters: str, quotas: str, records: int) -> str:
    """SQL for the score: (position - 1/2) / records in the order in which records go.

    Each cluster keeps the records farthest from its centroid, as many as its quota. Those that go
    come first; either side is in order of the distance, the nearest first. It holds for the
    fraction that the quotas were made for.

    Args:
        clusters: A relation with ``record_id``, ``cluster`` and ``distance``.
        quotas: A relation with ``cluster`` and ``quota``.
        records: Number of rows of ``clusters``.

    Returns:
        A query that yields ``record_id`` and ``density``.
    """
    members = (
        "SELECT record_id, cluster, distance AS worth, quota "
        f"FROM {clusters} JOIN {quotas} USING (cluster)"
    )
    return quota_query(members, records, "density")


def density_score(
    record_ids: Ids,
    clusters: npt.ArrayLike,
    distances: npt.ArrayLike,
    centroids: npt.NDArray[np.float32],
    fraction: float,
    tau: float = 0.1,
    min_samples: int = 1,
) -> Float64:
    """The score in memory: the queries and ``quotas``.

    Args:
        record_ids: n ids.
        clusters: int32 [n].
        distances: float64 [n], 1 - cosine to the own centroid.
        centroids: float32 [k, d].
        fraction: Share of the records that is pruned.
        tau: Temperature, see ``quotas``.
        min_samples: Records that each cluster keeps at the least, see ``quotas``.

    Returns:
        float64 [n].

    Raises:
        ValueError: an argument is out of range, lengths differ, or an id comes twice.
    """
    table = assignments(record_ids, clusters, distances)
    kept = table.num_rows - pruned_count(table.num_rows, fraction)
    known = rows(spread_query("clusters"), clusters=table)
    allowed = quotas(known, centroids, kept, tau, min_samples)
    query = density_query("clusters", "quotas", table.num_rows)
    score: Float64 = evaluate(query, record_ids, clusters=table, quotas=allowed)
    return score
