"""Single rows of big tables: which part a record stands in, and that row of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Part


def rows_of(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: object = None
) -> list[dict[str, Any]]:
    """A small result as dicts."""
    result = connection.execute(sql, parameters)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def places(
    layout: Layout, connection: duckdb.DuckDBPyConnection, record_ids: Sequence[str]
) -> dict[str, tuple[Part, int]]:
    """The part of ``records`` and the row in it of each record that is there.

    Raises:
        UserError: The records or their ``lookup`` are not committed.
    """
    records = layout.need("records", "ingest")
    layout.need("lookup", "ingest")
    found = connection.execute(
        "SELECT record_id, part, row FROM lookup WHERE record_id IN (SELECT unnest(?::VARCHAR[]))",
        [list(record_ids)],
    ).fetchall()
    wanted = {part for _, part, _ in found}
    parts = {place: part for place, part in enumerate(records.parts()) if place in wanted}
    return {record: (parts[part], row) for record, part, row in found if part in parts}


def read_row(path: Path, row: int, columns: Sequence[str]) -> dict[str, Any] | None:
    """One row of a Parquet file, reading only the row group that holds it; None past the end."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                return _row(file, group, row, columns)
            row -= rows
    return None


def _row(file: pq.ParquetFile, group: int, row: int, columns: Sequence[str]) -> dict[str, Any]:
    batches = file.iter_batches(
        batch_size=64, row_groups=[group], columns=list(columns), use_threads=False
    )
    batch: pa.RecordBatch
    for batch in batches:
        if row < batch.num_rows:
            found: dict[str, Any] = batch.slice(row, 1).to_pylist()[0]
            return found
        row -= batch.num_rows
    raise AssertionError("a row group holds fewer rows than its footer says")
