"""Narrow tables from SQL: one row a record at the most, computed by DuckDB out of core."""

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest, Part, write_manifest
from shardwright.metadata.memory import database_share, share
from shardwright.metadata.tables import PartWriter, write_empty
from shardwright.pipelines.jobs import place, remove_unnamed
from shardwright.pipelines.run import Run
from shardwright.pipelines.stretches import stretches

_BATCH_ROWS = 122_880
_PART_ROWS = 4_000_000


def commit_query(
    run: Run,
    stage: str,
    version: str,
    tables: Mapping[str, tuple[pa.Schema, str]],
    *,
    parameters: Mapping[str, Any],
    inputs: Iterable[Manifest],
    aligned: Manifest | None = None,
    beside: Collection[Manifest] = (),
    prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
) -> dict[str, Manifest]:
    """Commits tables that are queries over committed tables, unless they are as they would be.

    Args:
        run: The run.
        stage: Stage that writes them.
        version: Version of the stage's code.
        tables: Table -> (schema, query that yields the schema's columns in the wanted order). A
            query of several tables runs once, and yields the columns of all.
        parameters: Recipe values that decide the result.
        inputs: Tables that the queries read; they see no others.
        aligned: With it, each query yields ``part`` (place in this table) before the schema's
            columns, sorted by it, and the table gets a part for each part of this one.
        beside: Tables with the parts of ``aligned``, maybe itself. With them each query runs once
            for each of their ``stretches``.
        prepare: Makes what else the queries name; runs only when they run.
    """
    inputs = list(inputs)
    origin = run.origin(stage, version, parameters, inputs, time.time())
    now = {table: run.layout.manifest(table) for table in tables}
    current = {
        table: manifest
        for table, manifest in now.items()
        if manifest is not None
        and manifest.origin.same_work(origin)
        and manifest.schema.equals(tables[table][0])
    }
    if len(current) == len(tables) and not run.force:
        for table in tables:  # what a run left that was cut off
            shutil.rmtree(run.layout.staging(table), ignore_errors=True)
        return current
    run.incomplete()
    committed: dict[str, Manifest] = {}
    memory, read = database_share(), [manifest.table for manifest in inputs]
    with (
        _told_of_memory(stage, memory),
        connect(run.layout, memory=f"{memory}B", tables=read) as connection,
    ):
        if prepare is not None:
            prepare(connection)
        work = fingerprint(origin=[stage, version, dict(parameters), origin.inputs])
        for query in dict.fromkeys(query for _, query in tables.values()):
            schemas = {name: schema for name, (schema, of) in tables.items() if of == query}
            if aligned is None:
                written = _chunked_parts(run, schemas, work, stream(connection, query))
            else:
                shown = stretches(connection, aligned, beside) if beside else [None]
                batches = (batch for _ in shown for batch in stream(connection, query))
                written = _aligned_parts(run, schemas, work, batches, aligned)
            for table, parts in written.items():
                folder = run.layout.table(table)
                done = replace(origin, ended=time.time())
                committed[table] = write_manifest(folder, table, schemas[table], done, parts)
                remove_unnamed(committed[table])
                shutil.rmtree(run.layout.staging(table), ignore_errors=True)
    return committed


@contextmanager
def _told_of_memory(stage: str, memory: int) -> Iterator[None]:
    """Raises UserError where DuckDB's memory is too small even for spilling."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise UserError(
            f"stage {stage}: so many records need more than {memory / 1e9:.1f} GB for the "
            "database, which is what --memory-limit less 1.2 GB leaves it (1 GB without a limit); "
            "give a higher --memory-limit"
        ) from None


@contextmanager
def resting(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """While workers run, a stage's database holds no more than any large thing; see ``memory``."""
    connection.execute(f"SET memory_limit = '{share()}B'")
    try:
        yield
    finally:
        connection.execute(f"SET memory_limit = '{database_share()}B'")


def stream(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    """Runs a query and yields its result in bounded batches.

    ``sql`` streams; ``execute`` would hold the whole result before the first batch.
    """
    reader: Iterator[pa.RecordBatch] = connection.sql(query).to_arrow_reader(_BATCH_ROWS)
    yield from reader


def by_part(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cuts batches sorted by their first column ``part`` where it changes; drops the column."""
    for batch in batches:
        parts = batch.column("part").to_numpy()
        rest = batch.drop_columns(["part"])
        edges = np.flatnonzero(np.diff(parts)) + 1
        for low, high in zip([0, *edges], [*edges, len(parts)], strict=True):
            if high > low:
                yield int(parts[low]), rest.slice(low, high - low)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly the schema's columns, types and nullability."""
    return pa.RecordBatch.from_arrays(
        [batch.column(field.name).cast(field.type) for field in schema], schema=schema
    )


def _aligned_parts(
    run: Run,
    schemas: Mapping[str, pa.Schema],
    work: str,
    batches: Iterable[pa.RecordBatch],
    aligned: Manifest,
) -> dict[str, list[Part]]:
    keys = [part.key for part in aligned.parts()]
    rows = by_part(batches)
    pending = next(rows, None)
    parts: dict[str, list[Part]] = {table: [] for table in schemas}
    for ordinal, key in enumerate(keys):
        if key == "empty":
            continue
        with ExitStack() as stack:
            writers = {
                table: stack.enter_context(_writer(run, table, schema, key, work))
                for table, schema in schemas.items()
            }
            while pending is not None and pending[0] == ordinal:
                for table, schema in schemas.items():
                    writers[table].write(conform(pending[1], schema))
                pending = next(rows, None)
            for table, writer in writers.items():
                parts[table].append(writer.close(key, work))
    if pending is not None:
        raise AssertionError(f"{', '.join(schemas)}: the query's rows are not sorted by part")
    return {table: _placed(run, table, schemas[table], made) for table, made in parts.items()}


def _chunked_parts(
    run: Run, schemas: Mapping[str, pa.Schema], work: str, batches: Iterable[pa.RecordBatch]
) -> dict[str, list[Part]]:
    ((table, schema),) = schemas.items()
    parts: list[Part] = []
    key = f"{0:016x}"
    writer = _writer(run, table, schema, key, work)
    for batch in batches:
        if writer.rows >= _PART_ROWS:
            parts.append(writer.close(key, work))
            key = f"{len(parts):016x}"
            writer = _writer(run, table, schema, key, work)
        writer.write(conform(batch, schema))
    parts.append(writer.close(key, work))
    return {table: _placed(run, table, schema, parts)}


def _writer(run: Run, table: str, schema: pa.Schema, key: str, work: str) -> PartWriter:
    folder = run.layout.staging(table)
    folder.mkdir(parents=True, exist_ok=True)
    return PartWriter(folder / f"part-{key}-{work[:16]}.parquet", schema)


def _placed(run: Run, table: str, schema: pa.Schema, parts: list[Part]) -> list[Part]:
    folder = run.layout.table(table)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [place(part, run.layout.staging(table), folder) for part in parts]
    if all(part.rows == 0 for part in parts):
        return [write_empty(folder / "part-empty.parquet", schema, "empty", ""), *parts]
    return parts
