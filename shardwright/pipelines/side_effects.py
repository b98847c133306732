"""Whom pruning hits: what each method would prune of each language, length band, licence, ...

SQL over the committed tables ``scores`` and ``records``.
"""

from collections.abc import Sequence
from typing import Any

import duckdb

from shardwright.pipelines.grouping import group_of, with_groups
from shardwright.pipelines.quality_sections import Prune

LARGEST = 50
"""Of repositories, labels and devices so many have a row of their own; the others share one."""
OTHERS = "others"
_QUARTERS = """
    CASE WHEN bytes <= q[1] THEN '1: at most ' || q[1] || ' bytes'
         WHEN bytes <= q[2] THEN '2: at most ' || q[2] || ' bytes'
         WHEN bytes <= q[3] THEN '3: at most ' || q[3] || ' bytes'
         ELSE '4: above ' || q[3] || ' bytes' END"""


def groupings(modality: str, devices: bool) -> tuple[str, ...]:
    """What records are grouped by; by device where there is a table of devices."""
    return {
        "code": ("language", "length_band", "license", "repository"),
        "image": ("length_band", "repository", "label", *(("device",) if devices else ())),
    }[modality]


def prepare_side_effects(
    connection: duckdb.DuckDBPyConnection,
    grouped: Sequence[str],
    prune: Prune,
    methods: Sequence[str],
) -> None:
    """Makes ``gone``: a row for each live record and method, with its groups and whether it goes.

    A fraction of each ``prune.within`` goes, as in the stage ``prune``; ``prune.cap`` is no effect
    of a method and stays out.

    Args:
        connection: With the tables ``scores`` and ``records``, and ``device_statistics`` for groups
            by device.
        grouped: What ``groupings`` gives.
        prune: The recipe's section.
        methods: Columns of ``scores``.
    """
    within = "" if prune.within is None else f"PARTITION BY {prune.within}"
    total = f"round_even({prune.fraction!r}::DOUBLE * count(*) OVER ({within}), 0)"
    ranked = ", ".join(
        f"row_number() OVER ({within} ORDER BY joined.{name}, record_id) <= {total} AS {name}"
        for name in methods
    )
    columns: list[Any] = [name for name in grouped if name != "length_band"]
    named = ", ".join(f"{group_of(name)} AS {name}" for name in columns)
    connection.execute(f"""
    CREATE TEMP TABLE gone AS
    WITH joined AS (
      SELECT scores.*, bytes, {named}
      FROM scores JOIN records USING (record_id) {with_groups(*columns)}),
    quarters AS (SELECT quantile_disc(bytes, [0.25, 0.5, 0.75]) AS q FROM joined),
    grouped AS (
      SELECT {", ".join(columns)}, {_QUARTERS} AS length_band, {ranked} FROM joined, quarters)
    UNPIVOT grouped ON {", ".join(methods)} INTO NAME method VALUE pruned""")


def side_effects_query(grouped: Sequence[str]) -> str:
    """Query over ``gone`` that yields the rows of ``side_effects``."""
    queries = []
    for place, name in enumerate(grouped):
        own = name
        if name in ("repository", "label", "device"):
            largest = (
                f"SELECT {name} FROM gone GROUP BY {name} ORDER BY count(*) DESC, {name} "
                f"LIMIT {LARGEST}"
            )
            own = f"CASE WHEN {name} IN ({largest}) THEN {name} ELSE '{OTHERS}' END"
        queries.append(
            f"SELECT {place} AS place, method, '{name}' AS grouping, {own} AS \"group\", "
            "count(*) AS records, count(*) FILTER (pruned) AS pruned FROM gone GROUP BY ALL"
        )
    return (
        'SELECT method, grouping, "group", records, pruned, pruned / records AS share '
        f'FROM ({" UNION ALL ".join(queries)}) ORDER BY method, place, "group"'
    )
