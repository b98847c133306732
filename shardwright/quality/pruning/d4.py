"""D4: SemDeDup first, then SSL prototypes on what is left, clustered anew.

Tirumala, Simig, Aghajanyan and Morcos 2023, "D4: Improving LLM Pretraining via Document
De-Duplication and Diversification" (arXiv 2308.12284). Copies make clusters of their own; once they
are gone, the second clustering is one of topics, and what lies closest to a centroid there is the
most ordinary. The share kept is R = R_dedup * R_proto.
"""

from collections.abc import Callable
from math import sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.pruning.cut import pruned_count
from shardwright.quality.pruning.prototypes import ssl_prototypes_query
from shardwright.quality.pruning.relations import Float64, Ids, assignments, evaluate, relation
from shardwright.quality.pruning.semdedup import semdedup_query

if TYPE_CHECKING:
    from shardwright.embeddings.kmeans import Clustering
    from shardwright.quality.close_pairs import Rows

Cluster: TypeAlias = "Callable[[Any], Clustering[Any]]"
"""Clusters rows [n, d], as ``KMeans.fit`` does."""


def split_ratio(fraction: float, dedup: float = 0.75) -> tuple[float, float]:
    """The shares that the two steps keep.

    R_dedup is ``dedup``, or the root of R where that is more: when little is pruned both steps keep
    the same share, so that neither does all the work.

    Args:
        fraction: Share of the records that is pruned, 1 - R.
        dedup: R_dedup, in (0, 1].

    Returns:
        R_dedup and R_proto; their product is 1 - ``fraction``.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}: it must lie between 0 and 1")
    if not 0 < dedup <= 1:
        raise ValueError(f"dedup is {dedup}: it must be above 0 and at most 1")
    first = max(dedup, sqrt(1 - fraction))
    return first, (1 - fraction) / first


def duplicate_count(records: int, fraction: float, dedup: float = 0.75) -> int:
    """How many of ``records`` records the first step prunes."""
    first, _ = split_ratio(fraction, dedup)
    return min(round((1 - first) * records), pruned_count(records, fraction))


def survivors_query(similarities: str, records: int, fraction: float, dedup: float = 0.75) -> str:
    """SQL for what the first step leaves, which is then clustered anew.

    Args:
        similarities: A relation with ``record_id`` and ``similarity``, of ``earlier_similarity``.
        records: Number of its rows.
        fraction: Share of the records that both steps prune.
        dedup: R_dedup.

    Returns:
        A query that yields the ``record_id`` of the survivors.
    """
    return f"""
    SELECT record_id FROM ({semdedup_query(similarities)})
    QUALIFY row_number() OVER (ORDER BY semdedup, record_id)
      > {duplicate_count(records, fraction, dedup)}"""


def d4_query(similarities: str, clusters: str, records: int) -> str:
    """SQL for the score: (position - 1/2) / records in the order in which records go.

    First go the records that did not survive the first step, the most similar first, then the
    survivors, the nearest to their new centroid first. It holds for the fraction that the survivors
    were chosen for.

    Args:
        similarities: A relation with ``record_id`` and ``similarity``, of all records.
        clusters: A relation with ``record_id``, ``cluster`` and ``distance``, of the survivors.
        records: Number of all records.

    Returns:
        A query that yields ``record_id`` and ``d4``.
    """
    return f"""
    SELECT record_id, (row_number() OVER (
        ORDER BY ssl_prototypes IS NOT NULL, coalesce(ssl_prototypes, semdedup), record_id)
      - 0.5::DOUBLE) / {max(records, 1)} AS d4
    FROM ({semdedup_query(similarities)})
      LEFT JOIN ({ssl_prototypes_query(clusters, 0, 0.0)}) USING (record_id)"""


def d4_score(
    record_ids: Ids,
    vectors: "Rows",
    clusters: npt.ArrayLike,
    distances: npt.ArrayLike,
    fraction: float,
    cluster: Cluster,
    dedup: float = 0.75,
    device: str | None = None,
) -> Float64:
    """Both steps in memory.

    Args:
        record_ids: n ids.
        vectors: rows [n, d], see ``earlier_similarity``.
        clusters: int32 [n], of the first clustering.
        distances: float64 [n], 1 - cosine to the own centroid there.
        fraction: Share of the records that is pruned.
        cluster: Clusters the survivors, which it gets in order of their ids: for example
            ``KMeans(k=100).fit``.
        dedup: R_dedup, see ``split_ratio``.
        device: Where similarities are computed: ``cpu`` or ``cuda``; by default where the vectors
            lie.

    Returns:
        float64 [n].

    Raises:
        TypeError, ValueError: see ``earlier_similarity`` and ``split_ratio``; or an id comes twice.
    """
    from shardwright.quality.pruning.similarity import earlier_similarity

    ids = np.asarray(record_ids, np.str_)
    similarity = earlier_similarity(vectors, clusters, distances, ids, device)
    similarities = relation(ids, similarity=similarity)
    survivors = survivors_query("similarities", len(ids), fraction, dedup)
    query = f"SELECT record_id, record_id IN ({survivors}) AS survives FROM similarities"
    survives = evaluate(query, ids, similarities=similarities)
    order = np.argsort(ids)
    rows = order[survives[order]]
    again = assignments(ids[rows], *_clustered(vectors, rows, cluster))
    score: Float64 = evaluate(
        d4_query("similarities", "clusters", len(ids)),
        ids,
        similarities=similarities,
        clusters=again,
    )
    return score


def _clustered(
    vectors: "Rows", rows: npt.NDArray[np.int64], cluster: Cluster
) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    """Labels and distances of some rows."""
    if not len(rows):
        return [], []
    found = cluster(vectors[rows])
    labels, distances = (
        values if isinstance(values, np.ndarray) else values.cpu().numpy()
        for values in (found.labels, found.distances)
    )
    return labels, distances
