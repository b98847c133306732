"""Who is alive: the rows of each part of a table that an earlier stage dropped."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import numpy as np
import pyarrow as pa

from shardwright.metadata.catalog import connect, name_parts, quoted, scan
from shardwright.metadata.layout import STAGES
from shardwright.metadata.manifest import Manifest, Part
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.relational import stream
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Filter
from shardwright.quality.filters import filters

LivePart: TypeAlias = tuple[Part, list[int]]
"""A part, and the rows of it that are not alive, ascending."""

_NOTHING = (
    "SELECT ''::VARCHAR AS record_id, ''::VARCHAR AS stage, ''::VARCHAR AS reason, "
    "0::DOUBLE AS score, 0::DOUBLE AS threshold, ''::VARCHAR AS representative_id WHERE false"
)


def _filtered(recipe: Recipe) -> str:
    """The first filter of the recipe whose bounds a record is beyond, and the bound."""
    kinds = {name: measure.kind for name, measure in filters(recipe.modality).items()}
    cases: list[tuple[str, str, str, str]] = []
    for item in recipe.filters:
        if item.action == "drop":
            cases += _beyond(item, kinds[item.name])
    if not cases:
        return _NOTHING
    columns = {
        "reason": " ".join(f"WHEN {when} THEN {quoted(name)}" for when, name, _, _ in cases),
        "score": " ".join(f"WHEN {when} THEN {score}" for when, _, score, _ in cases),
        "threshold": " ".join(f"WHEN {when} THEN {bound}" for when, _, _, bound in cases),
    }
    select = ", ".join(f"CASE {text} END AS {name}" for name, text in columns.items())
    return (
        f"SELECT record_id, 'filter' AS stage, reason, score::DOUBLE AS score, "
        "threshold::DOUBLE AS threshold, NULL::VARCHAR AS representative_id "
        f"FROM (SELECT record_id, {select} FROM filter_scores) WHERE reason IS NOT NULL"
    )


def _beyond(item: Filter, kind: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields (condition, name, score, threshold) as SQL for each bound."""
    column = f'"{item.name}"'
    if kind == "text":
        # what states nothing is refused by an allowed list, and passes a denied one
        allow, deny = (", ".join(quoted(v) for v in values) for values in (item.allow, item.deny))
        if item.allow:
            yield f"coalesce({column} NOT IN ({allow}), true)", item.name, "NULL", "NULL"
        if item.deny:
            yield f"coalesce({column} IN ({deny}), false)", item.name, "NULL", "NULL"
        return
    if item.least is not None:
        yield f"{column} < {item.least!r}::DOUBLE", item.name, column, f"{item.least!r}"
    if item.most is not None:
        yield f"{column} > {item.most!r}::DOUBLE", item.name, column, f"{item.most!r}"


def _duplicated(recipe: Recipe) -> str:
    """Copies: what stays in the place of an exact copy may itself be near to another record."""
    near = recipe.duplicates.near
    threshold = 1.0
    if near is not None:
        threshold = near.threshold if recipe.modality == "code" else 1 - near.radius / 64
    return (
        "SELECT d.record_id, 'duplicates' AS stage, d.kind || '_duplicate' AS reason, "
        "d.similarity AS score, "
        f"CASE d.kind WHEN 'near' THEN {threshold!r} ELSE 1.0 END::DOUBLE AS threshold, "
        "coalesce(n.representative_id, d.representative_id) AS representative_id "
        "FROM duplicates d LEFT JOIN duplicates n ON n.record_id = d.representative_id "
        "AND n.kind = 'near' WHERE d.record_id <> d.representative_id"
    )


def _contaminated(recipe: Recipe) -> str:
    """The closest item of a benchmark is the reason."""
    decontaminate = recipe.decontaminate
    bounds = {} if decontaminate is None else decontaminate.model_dump()
    thresholds = " ".join(
        f"WHEN {quoted(method)} THEN {bounds.get(key)!r}"
        for method, key in (
            ("ngram", "overlap"),
            ("abstracted", "overlap"),
            ("embedding", "similarity"),
        )
        if bounds.get(key) is not None
    )
    threshold = f"CASE method {thresholds} END" if thresholds else "NULL"
    return (
        "SELECT record_id, 'decontaminate' AS stage, method || '_contamination' AS reason, "
        f"similarity AS score, {threshold}::DOUBLE AS threshold, "
        "NULL::VARCHAR AS representative_id FROM contamination "
        "QUALIFY row_number() OVER (PARTITION BY record_id "
        "ORDER BY similarity DESC, method, benchmark, item) = 1"
    )


def _semantic(recipe: Recipe) -> str:
    """What is close to another record in meaning; the threshold may have been found."""
    return (
        "SELECT record_id, 'semantic' AS stage, 'semantic_duplicate' AS reason, "
        "similarity AS score, threshold, representative_id FROM semantic_duplicates "
        "WHERE record_id <> representative_id"
    )


# Dropping stages in stage order: stage -> (its table, query for whom it drops and why). A record
# that several dropped counts for the first.
DROPS: dict[str, tuple[str, Callable[[Recipe], str]]] = {
    "filter": ("filter_scores", _filtered),
    "duplicates": ("duplicates", _duplicated),
    "decontaminate": ("contamination", _contaminated),
    "semantic": ("semantic_duplicates", _semantic),
}


def drops_query(run: Run, before: str | None = None) -> tuple[str, list[Manifest]]:
    """Query for everything dropped before a stage (None: by any), and the tables that it reads.

    Columns: record_id, stage, reason, score, threshold, representative_id.
    """
    queries, used = [], []
    for stage, (table, query) in DROPS.items():
        if before is not None and STAGES.index(stage) >= STAGES.index(before):
            break
        manifest = run.layout.manifest(table)
        if manifest is not None:
            queries.append(query(run.recipe))
            used.append(manifest)
    return " UNION ALL ".join(queries or [_NOTHING]), used


def drop_parameters(run: Run, before: str | None = None) -> dict[str, Any]:
    """Recipe values that decide who is dropped before a stage, beside the tables themselves."""
    bounds = [item.model_dump(mode="json") for item in run.recipe.filters]
    return {"filters": bounds} if bounds and before != "filter" else {}


def dropped_since_embed(run: Run, before: str) -> list[Manifest]:
    """Tables of the dropping stages between ``embed`` and another stage."""
    earlier = {table.table for table in drops_query(run, "decontaminate")[1]}
    return [table for table in drops_query(run, before)[1] if table.table not in earlier]


def alive_rows(run: Run, table: Manifest, before: str) -> int:
    """How many rows of a table with a row per record are alive."""
    query, used = drops_query(run, before)
    with connect(run.layout, tables=[manifest.table for manifest in used]) as connection:
        counted = f"SELECT count(*) FROM {scan(table)} ANTI JOIN ({query}) AS d USING (record_id)"
        return int(connection.execute(counted).fetchall()[0][0])


def live_batches(
    path: Path, columns: Sequence[str], dropped: Sequence[int], rows: int = 1024
) -> Iterator[pa.RecordBatch]:
    """Streams a part, ``rows`` at a time, without the rows ``dropped`` (ascending)."""
    gone = np.asarray(dropped, dtype=np.int64)
    offset = 0
    for batch in read_batches(path, columns, rows):
        alive = np.ones(batch.num_rows, dtype=bool)
        first, last = np.searchsorted(gone, [offset, offset + batch.num_rows])
        alive[gone[first:last] - offset] = False
        offset += batch.num_rows
        if first < last:
            batch = batch.filter(pa.array(alive))
        if batch.num_rows:
            yield batch


def alive_parts(run: Run, table: Manifest, before: str) -> Iterator[LivePart]:
    """Yields each part of a table with the rows in it that are not alive, ascending.

    Args:
        run: The run.
        table: A table with a row per record and a part for each part of ``records``.
        before: The stage that asks: what later ones drop is alive.
    """
    query, used = drops_query(run, before)
    with connect(run.layout, tables=[manifest.table for manifest in used]) as connection:
        yield from parts_without(connection, table, query)


def parts_without(
    connection: duckdb.DuckDBPyConnection, table: Manifest, query: str
) -> Iterator[LivePart]:
    """Yields each part of a table with the rows in it whose ``record_id`` a query yields."""
    name_parts(connection, table)
    batches = stream(
        connection,
        "SELECT DISTINCT part, file_row_number AS row "
        f"FROM {scan(table, positions=True)} JOIN part_files USING (filename) "
        f"SEMI JOIN ({query}) AS drops USING (record_id) ORDER BY part, row",
    )
    rows = (
        pair
        for batch in batches
        for pair in zip(
            batch.column("part").to_pylist(), batch.column("row").to_pylist(), strict=True
        )
    )
    groups = groupby(rows, key=lambda pair: pair[0])
    ahead = next(groups, None)
    for ordinal, part in enumerate(table.parts()):
        dropped: list[int] = []
        if ahead is not None and ahead[0] == ordinal:
            dropped = [row for _, row in ahead[1]]
            ahead = next(groups, None)
        if part.key != "empty":
            yield part, dropped
