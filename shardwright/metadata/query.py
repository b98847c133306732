"""Read-only SQL over the tables, and its results as text."""

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
from rich.cells import cell_len, set_cell_size

from shardwright.errors import DataError, UserError
from shardwright.metadata.catalog import connect, file_literal, quoted
from shardwright.metadata.layout import Layout

_CELL = 80
_BATCH = 1000
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\b\s*)?(\([^()]*\)\s*)?", re.IGNORECASE)


def query(
    layout: Layout, sql: str, memory: str = "1GB", *, rows: int | None = None, size: int = 2**63
) -> pa.Table:
    """Answers one query over the tables, and can do nothing else.

    DuckDB may open the files that the manifests name and no others, loads no extension, and its
    settings are locked. What those files could still suffer, a COPY over one of them, is refused
    before anything runs.

    Args:
        layout: The output folder.
        sql: One SELECT, or EXPLAIN of one; DESCRIBE, SHOW, SUMMARIZE and PIVOT ... IN count too.
        memory: DuckDB's memory limit; it spills above.
        rows: Rows of the result at most, what follows is not computed; None is all.
        size: Bytes of the result after which no more rows are taken.

    Returns:
        The result; columns of one name are numbered.

    Raises:
        UserError: The query is wrong or would do more than read.
        DataError: A file of the tables is missing or damaged.
    """
    with connect(layout, memory) as connection:
        _lock(connection, layout)
        try:
            _check_reads_only(connection, sql)
            result = _taken(connection.sql(sql).to_arrow_reader(_BATCH), rows, size)
        except duckdb.IOException as error:
            raise DataError(f"{_said(str(error))}; shardwright verify says what is wrong") from None
        except duckdb.Error as error:
            raise UserError(f"query: {_said(str(error))}") from None
    return result.rename_columns(_distinct(result.column_names))


def _taken(reader: pa.RecordBatchReader, rows: int | None, size: int) -> pa.Table:
    """The first rows of a result."""
    batches, left = [], rows
    for batch in reader:
        if left is not None:
            batch = batch.slice(0, left)
            left -= batch.num_rows
        batches.append(batch)
        size -= batch.nbytes
        if left == 0 or size <= 0:
            break
    return pa.Table.from_batches(batches, reader.schema)


def _lock(connection: duckdb.DuckDBPyConnection, layout: Layout) -> None:
    paths = [path for manifest in layout.manifests() for path in manifest.files()]
    # A path is looked up as it is named in a query, and as the file that it then means.
    at = ""
    if layout.url is not None:
        at, paths = f"{layout.url}/", [path.relative_to(layout.root) for path in paths]
    files = {quoted(f"{at}{path}") for path in paths} | {file_literal(path, at) for path in paths}
    connection.execute(f"SET allowed_paths = [{', '.join(sorted(files))}]")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _check_reads_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuses all but one SELECT that writes nothing.

    A SELECT can write through ``WITH x AS (COPY ...)``, but only at the top level: DuckDB binds no
    such statement as a subquery, so the query is bound as one.
    """
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise UserError(f"query: holds {len(statements)} statements; give one SELECT")
    body = sql
    if statements[0].type == duckdb.StatementType.EXPLAIN:
        body = _EXPLAIN.sub("", sql, count=1)
        statements = connection.extract_statements(body)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UserError("query: the tables are read-only; give one SELECT")
    try:
        connection.execute(f"EXPLAIN SELECT * FROM query({quoted(body)})")
        return
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        problem = str(error)
    if "must be at the top level" in problem:
        raise UserError("query: the tables are read-only; give one SELECT")
    try:
        connection.execute(f"EXPLAIN\n{body}")
    except duckdb.Error as error:
        # The same problem, said of the query as it was written, which begins on the second line.
        problem = re.sub(
            r"^LINE (\d+):", lambda line: f"LINE {int(line[1]) - 1}:", str(error), flags=re.M
        )
    raise UserError(f"query: {_said(problem)}")


def _said(message: str) -> str:
    """DuckDB's message without blank lines."""
    return "\n".join(line.rstrip() for line in message.splitlines() if line.strip())


def _distinct(names: list[str]) -> list[str]:
    taken: set[str] = set()
    distinct = []
    for name in names:
        wanted, number = name, 1
        while wanted in taken:
            wanted, number = f"{name}_{number}", number + 1
        taken.add(wanted)
        distinct.append(wanted)
    return distinct


def format_result(table: pa.Table, form: str) -> str:
    """A result as text: ``table`` for people, ``csv`` and ``json`` for programs.

    Nested values are JSON, binary values base64. Only ``table`` shortens cells.

    Raises:
        UserError: There is no such form.
    """
    if form not in _FORMS:
        raise UserError(f"--format {form}: no such format; choose {', '.join(_FORMS)}")
    return _FORMS[form](table)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist(maps_as_pydicts="lossy")


def plain(value: Any) -> Any:
    """The value as JSON knows it; binary values as base64, what is no number as null."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _text(value: Any) -> str:
    """The value as a cell."""
    if isinstance(value, float):
        return repr(value)
    simple = plain(value)
    if isinstance(simple, str):
        return simple
    return "" if simple is None else json.dumps(simple, ensure_ascii=False)


def _as_json(table: pa.Table) -> str:
    rows = (json.dumps(plain(row), ensure_ascii=False) for row in _rows(table))
    return "[" + ",\n ".join(rows) + "]\n"


def _as_csv(table: pa.Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in _rows(table):
        writer.writerow([_text(value) for value in row.values()])
    return out.getvalue()


def _as_table(table: pa.Table) -> str:
    numeric = [
        pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)
        for t in table.schema.types
    ]
    rows = [[_cell(value) for value in row.values()] for row in _rows(table)]
    heads = [_cell(name) for name in table.column_names]
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    texts = [
        "  ".join(
            " " * (width - cell_len(cell)) + cell if right else set_cell_size(cell, width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*texts, f"({len(rows)} row{'' if len(rows) == 1 else 's'})"]) + "\n"


def _cell(value: Any) -> str:
    """One line for the terminal: bounded, and nothing in it that a terminal obeys."""
    text = "NULL" if value is None else _text(value)[: _CELL + 1]
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


_FORMS: dict[str, Callable[[pa.Table], str]] = {
    "table": _as_table,
    "csv": _as_csv,
    "json": _as_json,
}
