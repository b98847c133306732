"""Queries over tables of the same parts, a stretch of parts at a time.

A join or a sort then holds the rows of a stretch, which is of some two million rows or of one part
that is longer, however many records there are.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import duckdb

from shardwright.metadata.catalog import name_files, scan_files, view_columns
from shardwright.metadata.manifest import Manifest

IN_STRETCH = "part BETWEEN getvariable('first_part') AND getvariable('last_part')"
"""SQL: whether a row of any relation with ``part`` is of the stretch that is shown."""
_ROWS = 2_000_000


def stretches(
    connection: duckdb.DuckDBPyConnection, aligned: Manifest, tables: Collection[Manifest]
) -> Iterator[None]:
    """Shows one stretch after another: a yield, and views hold its rows.

    Args:
        connection: Where the views are made or replaced.
        aligned: Its parts are counted.
        tables: Tables whose parts have the keys of these; each becomes a view of its name, with
            ``part`` and ``row`` before its columns.
    """
    parts = list(aligned.parts())
    files = {table.table: _files(aligned, table) for table in tables}
    first = rows = 0
    for last, part in enumerate(parts):
        rows += part.rows
        if rows < _ROWS and last + 1 < len(parts):
            continue
        connection.execute(f"SET VARIABLE first_part = {first}; SET VARIABLE last_part = {last}")
        for table in tables:
            of = files[table.table]
            _show(connection, table, {at: of[at] for at in range(first, last + 1) if at in of})
        yield
        first, rows = last + 1, 0


def show_whole(connection: duckdb.DuckDBPyConnection, aligned: Manifest, table: Manifest) -> None:
    """Shows all rows of a table as a stretch is shown."""
    _show(connection, table, _files(aligned, table))


def _files(aligned: Manifest, table: Manifest) -> dict[int, Path]:
    """The table's files by the place of their part in ``aligned``."""
    ordinals = {part.key: ordinal for ordinal, part in enumerate(aligned.parts())}
    return {
        ordinals[part.key]: table.folder / part.file
        for part in table.parts()
        if part.file is not None and part.key != "empty"
    }


def _show(connection: duckdb.DuckDBPyConnection, table: Manifest, files: dict[int, Path]) -> None:
    named = f"{table.table}_files"
    name_files(connection, named, [(str(file), at) for at, file in files.items()])
    rows = scan_files(files.values() if files else table.files()[:1], positions=True)
    connection.execute(
        f"CREATE OR REPLACE VIEW {table.table} AS "
        f"SELECT part, file_row_number AS row, {view_columns(table.schema)} "
        f"FROM {rows} JOIN {named} USING (filename)"
    )
