"""SCIP, synthetic-corruption-informed pruning: the ranking of Algorithm 1.

Yang et al., "Decoding Data Quality via Synthetic Corruptions: Embedding-guided Pruning of Code
Data" (arXiv 2312.02418). Corrupted code moves to smaller clusters and away from centroids, so a
share ``alpha`` of what is pruned are members of the smallest clusters and the rest, of what is then
left, are the records farthest from their centroid. The paper leaves ties open; here a cluster that
is cut loses its farthest members first, and records at equal distance go by ``record_id``.
"""

import numpy as np
import pyarrow as pa


def pruned_counts(records: int, fraction: float, alpha: float) -> tuple[int, int]:
    """How many of ``records`` are pruned in all, and how many of these by cluster size."""
    total = round(fraction * records)
    return total, round(alpha * total)


def ranking_query(clusters: str, records: int, fraction: float, alpha: float) -> str:
    """SQL for the order in which SCIP prunes.

    Args:
        clusters: A relation with ``record_id``, ``cluster`` and ``distance``.
        records: Its number of rows.
        fraction: Share of the records that is pruned, p in the paper.
        alpha: Share of those that is chosen by cluster size.

    Returns:
        A query that yields, for each record, ``cluster``, ``cluster_size``, ``distance``,
        ``position`` (1 is pruned first), ``criterion`` (``size``, ``distance``, or NULL for the
        records that stay) and ``scip``: (position - 1/2) / records, above fraction for those that
        stay.
    """
    total, by_size = pruned_counts(records, fraction, alpha)
    return f"""
    WITH sized AS (
      SELECT record_id, cluster, distance, count(*) OVER (PARTITION BY cluster) AS cluster_size
      FROM {clusters}),
    ranked AS (
      SELECT *, row_number() OVER (
        ORDER BY cluster_size, distance DESC, record_id) AS by_size
      FROM sized),
    ordered AS (
      SELECT *, CASE WHEN by_size <= {by_size} THEN by_size ELSE {by_size} + row_number() OVER (
        PARTITION BY by_size <= {by_size} ORDER BY distance DESC, record_id) END AS position
      FROM ranked)
    SELECT record_id, cluster, cluster_size, distance, position,
      CASE WHEN position <= {by_size} THEN 'size' WHEN position <= {total} THEN 'distance' END
        AS criterion,
      (position - 0.5::DOUBLE) / {max(records, 1)} AS scip
    FROM ordered"""


def scip(clusters: pa.Table, fraction: float = 0.2, alpha: float = 0.8) -> pa.Table:
    """Ranks a table of assignments in memory: what ``ranking_query`` says, in NumPy.

    Args:
        clusters: ``record_id`` string, ``cluster`` int32, ``distance`` float64 (1 - cosine).
        fraction: Share of the records that is pruned.
        alpha: Share of those that is chosen by cluster size.

    Returns:
        The columns of ``ranking_query``, a row per record, the first to be pruned first.
    """
    records = clusters.num_rows
    total, by_size = pruned_counts(records, fraction, alpha)
    clusters = clusters.select(["record_id", "cluster", "distance"])
    cluster, distance = (clusters.column(name).to_numpy() for name in ("cluster", "distance"))
    _, label, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    size = sizes[label].astype(np.int64)
    ties = clusters.column("record_id").to_numpy().astype("S32")
    order = np.lexsort((ties, -distance, size))
    rest = order[by_size:]
    order[by_size:] = rest[np.lexsort((ties[rest], -distance[rest]))]
    position = np.arange(1, records + 1)
    criterion = np.where(position <= by_size, "size", "distance")
    ranked = clusters.take(pa.array(order))
    ranked = ranked.add_column(2, "cluster_size", pa.array(size[order]))
    ranked = ranked.append_column("position", pa.array(position))
    ranked = ranked.append_column("criterion", pa.array(criterion, mask=position > total))
    return ranked.append_column("scip", pa.array((position - 0.5) / max(records, 1)))
