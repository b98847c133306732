"""SSL prototypes: how far a record lies from the prototype of its cluster tells how hard it is.

Sorscher, Geirhos, Shekhar, Ganguli and Morcos 2022, "Beyond neural scaling laws: beating power law
scaling via data pruning" (arXiv 2206.14486): k-means in the space of a self-supervised model, and
the distance to the nearest centroid as difficulty. Where data abound the hard records are worth
keeping, where they are scarce the easy ones. Hard is the opposite of SCIP, which drops what is far.
"""

from typing import Literal, TypeAlias, get_args

import numpy.typing as npt

from shardwright.quality.pruning.cut import pruned_count, quota_query
from shardwright.quality.pruning.relations import Float64, Ids, assignments, evaluate

Keep: TypeAlias = Literal["hard", "easy"]


def ssl_prototypes_query(
    clusters: str, records: int, fraction: float, keep: Keep = "hard", balance: float = 0.0
) -> str:
    """SQL for the score.

    Without ``balance`` it is the distance to the centroid (for ``easy`` its negative), whatever the
    fraction. With it, each of the k clusters that have members keeps at least
    floor(balance * kept / k) of them, or all if it has fewer, and the rest is chosen from all
    clusters; the score is then a position among all records and holds for this fraction alone.

    Args:
        clusters: A relation with ``record_id``, ``cluster`` and ``distance``.
        records: Number of its rows.
        fraction: Share of the records that is pruned.
        keep: ``hard`` (far from the centroid) or ``easy``.
        balance: Share of its equal share that each cluster keeps, 0 to 1.

    Returns:
        A query that yields ``record_id`` and ``ssl_prototypes``.

    Raises:
        ValueError: an argument is out of range.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep is {keep!r}: use 'hard' or 'easy'")
    if not 0 <= balance <= 1:
        raise ValueError(f"balance is {balance}: it must lie between 0 and 1")
    kept = records - pruned_count(records, fraction)
    worth = "distance" if keep == "hard" else "-distance"
    if not balance:
        return f"SELECT record_id, {worth} AS ssl_prototypes FROM {clusters}"
    shared = float(balance * kept)
    share = f"(SELECT floor({shared!r}::DOUBLE / count(DISTINCT cluster)) FROM {clusters})"
    members = f"SELECT record_id, cluster, {worth} AS worth, {share} AS quota FROM {clusters}"
    return quota_query(members, records, "ssl_prototypes")


def ssl_prototypes_score(
    record_ids: Ids,
    clusters: npt.ArrayLike,
    distances: npt.ArrayLike,
    fraction: float,
    keep: Keep = "hard",
    balance: float = 0.0,
) -> Float64:
    """The score in memory: what ``ssl_prototypes_query`` says.

    Args:
        record_ids: n ids.
        clusters: int32 [n].
        distances: float64 [n], 1 - cosine to the own centroid.
        fraction: Share of the records that is pruned.
        keep: ``hard`` or ``easy``.
        balance: Share of its equal share that each cluster keeps.

    Returns:
        float64 [n].

    Raises:
        ValueError: an argument is out of range, lengths differ, or an id comes twice.
    """
    table = assignments(record_ids, clusters, distances)
    query = ssl_prototypes_query("clusters", table.num_rows, fraction, keep, balance)
    score: Float64 = evaluate(query, record_ids, clusters=table)
    return score
