"""Opt-out lists: which records their owners want out of what is handed on.

A list names records by one column. What it names is not kept, whatever else is decided, and all
that comes before is computed as if it stood there: no other record's fate changes, nor its shard.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import duckdb
import pyarrow as pa

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.files import fingerprint
from shardwright.pipelines.run import Run
from shardwright.pipelines.sources.names import shown
from shardwright.pipelines.sources.storage import IsNoFileError, open_file

COLUMNS: Final = ("record_id", "path", "repository", "content_sha256")
"""Columns of ``records`` that a list may name records by."""
TAKEN_OUT: Final = "stage = 'prune' AND reason = 'opt_out' AND score IS NULL"
"""SQL over ``decisions`` for what would be kept, had its owner not opted out."""

OptOuts: TypeAlias = frozenset[tuple[str, str]]
"""(column, value) of all that is named."""

_DIGITS: Final = {"record_id": 32, "content_sha256": 64}
_LISTED: Final = 3


def read_opt_outs(locations: Sequence[str] | None) -> OptOuts:
    """All that the lists name.

    Args:
        locations: CSV files with a header, local or on one of Beam's filesystems.

    Raises:
        UserError: A file cannot be read, its header has none or several of ``COLUMNS``, or a value
            is empty or is no hash where it should be one.
    """
    return frozenset(named for location in locations or () for named in _named(location))


def _named(location: str) -> Iterator[tuple[str, str]]:
    where = f"opt_out {shown(location)}"
    try:
        with open_file(location) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, IsNoFileError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"{where}: {problem}; name a readable CSV file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: no UTF-8 at byte {error.start}; save it as UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        column = _column(where, header)
        for row in rows:
            if not row:  # a line without anything on it
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{where}, line {rows.line_num}: {len(row)} values and {len(header)} columns; "
                    "put values with commas in double quotes"
                )
            value = row[header.index(column)]
            yield column, _checked(f"{where}, line {rows.line_num}: {column}", column, value)
    except csv.Error as error:
        raise UserError(f"{where}, line {rows.line_num}: {error}; write it as CSV") from None


def _column(where: str, header: Sequence[str]) -> str:
    """The one column that names records; what else a list holds is for its keeper."""
    found = [name for name in header if name in COLUMNS]
    if len(found) != 1:
        has = ", ".join(repr(name[:40]) for name in header) or "nothing"
        raise UserError(
            f"{where}: its first line has {has}; head one column, and no other, with one of "
            f"{', '.join(COLUMNS)}"
        )
    return found[0]


def _checked(spot: str, column: str, value: str) -> str:
    digits = _DIGITS.get(column)
    if digits is None:
        if not value:
            raise UserError(f"{spot} is empty; name a {column}, or take the line out")
        return value
    hexadecimal = value.strip().lower()
    if not re.fullmatch(f"[0-9a-f]{{{digits}}}", hexadecimal):
        raise UserError(f"{spot} is {value[:80]!r}; write {digits} hex digits")
    return hexadecimal


def opt_out_parameters(opt_outs: OptOuts) -> dict[str, Any]:
    """What lineage tells of the lists: how many values, and their hash instead of the values."""
    if not opt_outs:
        return {}
    return {"opt_out": {"values": len(opt_outs), "sha256": fingerprint(named=sorted(opt_outs))}}


def name_opted_out(connection: duckdb.DuckDBPyConnection, opt_outs: OptOuts) -> None:
    """Makes the relation ``opted_out``: the ``record_id`` of each record that is named, once."""
    _hold(connection, opt_outs)
    named = " UNION ALL ".join(
        f"SELECT record_id FROM records SEMI JOIN "
        f"(SELECT value FROM opt_outs WHERE name = '{column}') ON records.{column} = value"
        for column in _used(opt_outs)
    )
    nothing = "SELECT ''::VARCHAR AS record_id WHERE false"
    connection.execute(f"CREATE TABLE opted_out AS SELECT DISTINCT * FROM ({named or nothing})")


def note_unmatched(run: Run, opt_outs: OptOuts) -> int:
    """Says which of the names are of no record, and returns how many there are."""
    if not opt_outs:
        return 0
    with connect(run.layout, tables=["records"]) as connection:
        _hold(connection, opt_outs)
        lost = " UNION ALL ".join(
            f"SELECT name, value FROM opt_outs ANTI JOIN records ON records.{column} = value "
            f"WHERE name = '{column}'"
            for column in _used(opt_outs)
        )
        connection.execute(f"CREATE TABLE lost AS {lost}")
        count = int(connection.execute("SELECT count(*) FROM lost").fetchall()[0][0])
        first = connection.execute(f"FROM lost ORDER BY ALL LIMIT {_LISTED}").fetchall()
    if count:
        names = ", ".join(f"{name} {value[:80]!r}" for name, value in first)
        more = f" and {count - len(first):,} more" if count > len(first) else ""
        run.reporter.note(
            f"opt_out: {count:,} of {len(opt_outs):,} values name no record: {names}{more}"
        )
    return count


def _hold(connection: duckdb.DuckDBPyConnection, opt_outs: OptOuts) -> None:
    ordered = sorted(opt_outs)
    listed = pa.table(
        {
            "name": pa.array([name for name, _ in ordered], pa.string()),
            "value": pa.array([value for _, value in ordered], pa.string()),
        }
    )
    connection.register("listed_opt_outs", listed)
    connection.execute("CREATE OR REPLACE TABLE opt_outs AS FROM listed_opt_outs")
    connection.unregister("listed_opt_outs")


def _used(opt_outs: Iterable[tuple[str, str]]) -> list[str]:
    used = {name for name, _ in opt_outs}
    return [column for column in COLUMNS if column in used]
