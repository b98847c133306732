"""Single rows of big tables: which part a record stands in, and that row of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.metadata.catalog import file_literal
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Part


class Rows(Protocol):
    """Records by id."""

    def part(self, record_id: str) -> Part | None:
        """The part of ``records`` that holds a record; None where there is no such record."""

    def read(
        self, record_ids: Sequence[str], columns: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Rows of ``records`` by id.

        Args:
            record_ids: Of which those that are not there are left out.
            columns: Names; all but the nested ones by default.
        """

    def find(self, path: Path, record_id: str, columns: Sequence[str]) -> dict[str, Any] | None:
        """A record's row in a file of another table, which has one row of it or none."""


class StoredRows:
    """``Rows`` as they are stored, with nothing held in memory: see ``Rows``."""

    def __init__(self, layout: Layout, connection: duckdb.DuckDBPyConnection) -> None:
        """Takes a connection with the table's views.

        Raises:
            UserError: The records or their ``lookup`` are not committed.
        """
        self._records = layout.need("records", "ingest")
        layout.need("lookup", "ingest")
        self._layout, self._connection = layout, connection

    def part(self, record_id: str) -> Part | None:
        """See ``Rows``."""
        found = places(self._layout, self._connection, [record_id])
        return found[record_id][0] if found else None

    def read(
        self, record_ids: Sequence[str], columns: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """See ``Rows``."""
        names = columns_of(self._records.schema, columns)
        found: dict[str, dict[str, Any]] = {}
        for record_id, (part, row) in places(self._layout, self._connection, record_ids).items():
            record = None
            if part.file is not None:
                record = _read_row(self._records.folder / part.file, row, names)
            if record is not None and record["record_id"] == record_id:
                found[record_id] = record
        return found

    def find(self, path: Path, record_id: str, columns: Sequence[str]) -> dict[str, Any] | None:
        """See ``Rows``."""
        names = ", ".join(f'"{name}"' for name in columns)
        found = rows_of(
            self._connection,
            f"SELECT {names} FROM read_parquet({file_literal(path)}) WHERE record_id = ?",
            [record_id],
        )
        return found[0] if found else None


def columns_of(schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    """What ``Rows.read`` reads: the id is always among it."""
    every = [name for name in schema.names if name != "attributes"]
    return every if columns is None else list(dict.fromkeys(["record_id", *columns]))


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


def _read_row(path: Path, row: int, columns: Sequence[str]) -> dict[str, Any] | None:
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
