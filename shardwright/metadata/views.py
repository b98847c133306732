"""Views over the tables: what people ask of a curation most."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

_STAGES = ("filter", "duplicates", "decontaminate", "semantic", "prune", "keep")


@dataclass(frozen=True)
class View:
    """A view that a curation has where the tables that it needs are there.

    Attributes:
        name: Its name.
        meaning: What it shows.
        query: Gives its SQL for the tables that are there, or None.
    """

    name: str
    meaning: str
    query: Callable[[Collection[str]], str | None]


def _dropped_by_reason(tables: Collection[str]) -> str | None:
    if "decisions" not in tables:
        return None
    return (
        "SELECT stage, reason, records, share FROM "
        "(SELECT stage, reason, count(*) AS records, "
        "count(*) / sum(count(*)) OVER () AS share FROM decisions GROUP BY stage, reason) "
        "WHERE stage <> 'keep' ORDER BY records DESC, stage, reason"
    )


def _funnel(tables: Collection[str]) -> str | None:
    counts = []
    if "rejects" in tables:
        counts.append(
            "SELECT stage, reason, count(*) AS records, 0 AS place FROM rejects GROUP BY ALL"
        )
    if "decisions" in tables:
        places = " ".join(f"WHEN '{stage}' THEN {i + 1}" for i, stage in enumerate(_STAGES))
        counts.append(
            "SELECT stage, reason, count(*) AS records, "
            f"CASE stage {places} ELSE {len(_STAGES)} END AS place FROM decisions GROUP BY ALL"
        )
    if not counts:
        return None
    return (
        f"SELECT stage, reason, records FROM ({' UNION ALL '.join(counts)}) "
        "ORDER BY place, records DESC, stage, reason"
    )


def _nearest_kept(tables: Collection[str]) -> str | None:
    """Follows what stays in a record's place until it is what no other record stands for.

    The record that stands for an exact copy may be a near or a semantic duplicate itself, so that
    a chain has three steps at most; the bound keeps a damaged table from going round for ever.
    """
    if not {"records", "decisions"} <= set(tables):
        return None
    return (
        "WITH RECURSIVE chain AS (SELECT record_id, representative_id AS nearest, 1 AS steps "
        "FROM decisions WHERE NOT keep AND representative_id IS NOT NULL "
        "UNION ALL SELECT chain.record_id, d.representative_id, steps + 1 "
        "FROM chain JOIN decisions AS d ON d.record_id = chain.nearest "
        "WHERE NOT d.keep AND d.representative_id IS NOT NULL AND steps < 8), "
        "ends AS (SELECT record_id, arg_max(nearest, steps) AS nearest FROM chain "
        "GROUP BY record_id) "
        "SELECT ends.record_id, gone.path, d.stage, d.reason, d.score AS similarity, "
        "ends.nearest AS nearest_id, stays.path AS nearest_path, n.keep AS nearest_kept "
        "FROM ends JOIN decisions AS d ON d.record_id = ends.record_id "
        "JOIN records AS gone ON gone.record_id = ends.record_id "
        "LEFT JOIN decisions AS n ON n.record_id = ends.nearest "
        "LEFT JOIN records AS stays ON stays.record_id = ends.nearest"
    )


def _curated_full(tables: Collection[str]) -> str | None:
    """``curated`` has the columns of ``records``; what was measured comes as structs.

    Methods and filters of other packages may have any name, also that of a column of records.
    """
    if not {"curated", "decisions", "shards"} <= set(tables):
        return None
    columns = ["c.*", "d.score", "d.threshold", "s.shard", "s.position"]
    joins = ["JOIN decisions AS d USING (record_id)", "JOIN shards AS s USING (record_id)"]
    if "clusters" in tables:
        columns += ["k.cluster", "k.distance"]
        joins.append("LEFT JOIN clusters AS k USING (record_id)")
    for table, name in (("scores", "scores"), ("filter_scores", "filters")):
        if table in tables:
            columns.append(f"{table} AS {name}")
            joins.append(f"LEFT JOIN {table} USING (record_id)")
    return f"SELECT {', '.join(columns)} FROM curated AS c {' '.join(joins)}"


VIEWS = (
    View(
        "dropped_by_reason",
        "Dropped records by reason, with their share of all records.",
        _dropped_by_reason,
    ),
    View(
        "funnel",
        "What became of every input, by stage and reason; adds up to all inputs seen.",
        _funnel,
    ),
    View(
        "nearest_kept",
        "Each record that was dropped as a duplicate, and the record that stays in its place. "
        "nearest_kept is false where that one was dropped later, and null where it is of an "
        "earlier curation.",
        _nearest_kept,
    ),
    View(
        "curated_full",
        "Each kept record whole, with its decision, shard, position, cluster, and as structs what "
        "pruning methods (scores) and filters (filters) measured.",
        _curated_full,
    ),
)
"""Every view over the tables, in the order in which they are made."""
