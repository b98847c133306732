"""What must not be in the tables: a file of queries per table, each of which is to find nothing.

The files are plain SQL over the views of the catalog, and show their violations in any DuckDB:
``duckdb DIR/catalog.duckdb < decisions.sql``. Before each query stand two comments, which say what
it finds, for people, and which tables it reads, the one that is wrong first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardwright.metadata.layout import TABLES

_QUERY = re.compile(r"^-- finds: (.+)\n-- reads: (.+)\n((?:.+\n)+)", re.MULTILINE)


@dataclass(frozen=True)
class Check:
    """A query for what must not be.

    Attributes:
        table: The table that is wrong when it finds something.
        reads: All tables that it reads.
        problem: What its rows are, in words that follow a number.
        query: SQL whose column ``record_id``, of text, names each violation.
    """

    table: str
    reads: frozenset[str]
    problem: str
    query: str


def checks() -> Iterator[Check]:
    """Yields the checks of every table, tables in the order of the stages."""
    for table in TABLES:
        path = Path(__file__).with_name(f"{table}.sql")
        if path.exists():
            yield from read_checks(path.read_text())


def read_checks(text: str) -> Iterator[Check]:
    """Yields the checks of one file.

    Raises:
        ValueError: It holds something else.
    """
    rest = _QUERY.sub("", text).strip()
    if rest:
        raise ValueError(f"no query with its two comments: {rest[:80]!r}")
    for problem, tables, query in _QUERY.findall(text):
        reads = tables.split(", ")
        yield Check(reads[0], frozenset(reads), problem, query.strip().removesuffix(";"))
