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


def criterion(records: int, fraction: float, alpha: float) -> str:
    """SQL for why a record is pruned, by its score ``scip``: ``size``, ``distance``, or NULL."""
    total, by_size = (n / max(records, 1) for n in pruned_counts(records, fraction, alpha))
    return (
        f"CASE WHEN scip < {by_size!r}::DOUBLE THEN 'size' "
        f"WHEN scip < {total!r}::DOUBLE THEN 'distance' END"
    )


def ranking_query(clusters: str, records: int, fraction: float, alpha: float) -> str:
    """SQL for the order in which SCIP prunes.

    Rows are sorted once: which clusters are pruned for their size, whole or in part, their sizes
    tell beforehand.

    Args:
        clusters: A relation with ``record_id``, ``cluster`` and ``distance``.
        records: Its number of rows.
        fraction: Share of the records that is pruned, p in the paper.
        alpha: Share of those that is chosen by cluster size.

    Returns:
        A query that yields, for each record, the columns of ``clusters``, ``cluster_size``,
        ``position`` (1 is pruned first), ``criterion`` (``size``, ``distance``, or NULL for the
        records that stay) and ``scip``: (position - 1/2) / records, above fraction for those that
        stay.
    """
    by_size = pruned_counts(records, fraction, alpha)[1]
    return f"""
    WITH sizes AS MATERIALIZED (
      SELECT cluster, count(*) AS cluster_size FROM {clusters} GROUP BY cluster),
    sized AS NOT MATERIALIZED (
      SELECT c.*, cluster_size FROM {clusters} AS c JOIN sizes USING (cluster)),
    edge AS MATERIALIZED (
      SELECT cluster_size AS edge_size, {by_size} - upto + members AS share
      FROM (
        SELECT cluster_size, sum(cluster_size) AS members,
          sum(sum(cluster_size)) OVER (ORDER BY cluster_size) AS upto
        FROM sizes GROUP BY cluster_size)
      WHERE upto >= {by_size} ORDER BY upto LIMIT 1),
    last AS MATERIALIZED (
      SELECT distance AS last_distance, record_id AS last_id
      FROM sized JOIN edge ON cluster_size = edge_size
      QUALIFY row_number() OVER (ORDER BY distance DESC, record_id) = share),
    chosen AS (
      SELECT sized.*, cluster_size < edge_size OR cluster_size = edge_size AND coalesce(
          distance > last_distance OR distance = last_distance AND record_id <= last_id, false)
        AS for_size
      FROM sized, edge LEFT JOIN last ON true),
    ranked AS (
      SELECT * EXCLUDE (for_size), row_number() OVER () AS position,
        (position - 0.5::DOUBLE) / {max(records, 1)} AS scip
      FROM (
        FROM chosen ORDER BY NOT for_size, CASE WHEN for_size THEN cluster_size END,
          distance DESC, record_id))
    SELECT *, {criterion(records, fraction, alpha)} AS criterion FROM ranked"""


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
