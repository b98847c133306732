"""Which records go: the lowest scores, and scores under which quotas are kept."""

import numpy as np
import numpy.typing as npt

from shardwright.quality.pruning.relations import Ids, evaluate, relation


def pruned_count(records: int, fraction: float) -> int:
    """How many of ``records`` records are pruned: the rounded ``fraction`` of them.

    Raises:
        ValueError: ``fraction`` does not lie between 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}: it must lie between 0 and 1")
    return round(fraction * records)


def pruned_query(scores: str, method: str, records: int, fraction: float) -> str:
    """SQL for who goes.

    Args:
        scores: A relation with ``record_id`` and the column ``method``.
        method: Column of the scores.
        records: Number of its rows.
        fraction: Share of the records that goes.

    Returns:
        A query that yields ``record_id`` and ``pruned``, true for the lowest
        ``pruned_count(records, fraction)`` scores; of equal ones the lowest id goes first.
    """
    return f"""
    SELECT record_id, row_number() OVER (ORDER BY {method}, record_id)
      <= {pruned_count(records, fraction)} AS pruned
    FROM {scores}"""


def pruned(record_ids: Ids, scores: npt.ArrayLike, fraction: float) -> npt.NDArray[np.bool_]:
    """Who goes, in memory.

    Args:
        record_ids: n ids.
        scores: float64 [n].
        fraction: Share of the records that goes.

    Returns:
        bool [n].

    Raises:
        ValueError: lengths differ, an id comes twice, or ``fraction`` is out of range.
    """
    table = relation(record_ids, score=np.asarray(scores, np.float64))
    query = pruned_query("scores", "score", table.num_rows, fraction)
    found: npt.NDArray[np.bool_] = evaluate(query, record_ids, scores=table)
    return found


def quota_query(members: str, records: int, method: str) -> str:
    """SQL for a score under which each cluster keeps the best of its members, up to its quota.

    Args:
        members: A query that yields ``record_id``, ``cluster``, ``worth`` (the higher the better
            to keep) and ``quota`` (of the cluster).
        records: Number of its rows.
        method: Name of the score.

    Returns:
        A query that yields ``record_id`` and the score, (position - 1/2) / records; positions are
        in the order in which records go: by ``worth``, then id, those within the quotas last.
    """
    return f"""
    WITH ranked AS (
      SELECT record_id, worth, quota >= row_number() OVER (
        PARTITION BY cluster ORDER BY worth DESC, record_id DESC) AS within
      FROM ({members}))
    SELECT record_id, (row_number() OVER (ORDER BY within, worth, record_id) - 0.5::DOUBLE)
      / {max(records, 1)} AS {method}
    FROM ranked"""
