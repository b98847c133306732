"""Every input to which something happened between two curations, as one table of a DuckDB.

An input that only A saw and one that only B saw, with the same content, are one that moved: to
another path, or to a source of another name. Of several with one content the first by their ids
are taken for each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from shardwright.errors import DataError
from shardwright.metadata.catalog import create, table_views, without_views
from shardwright.metadata.layout import Layout

_NEEDED = {
    "records": "ingest",
    "rejects": "ingest",
    "decisions": "prune",
    "shards": "shard",
    "curated": "shard",
}
# Columns that follow from the content, and those that are compared by themselves.
_ASIDE = frozenset(
    {
        *("record_id", "content", "image", "content_sha256", "split"),
        *("bytes", "lines", "width", "height", "format"),
    }
)

# Each input of one curation with all that became of it, one join after the other: each may spill.
# Ids and hashes are held as the bytes that their digits stand for. A refused input has no content.
_INPUTS = (
    """CREATE TABLE {side}.decided AS
    SELECT r.record_id::UUID AS id, unhex(r.content_sha256) AS content,
      CASE WHEN d.keep IS NULL THEN 'undecided' WHEN d.keep THEN 'kept' ELSE 'dropped' END
        AS decision, d.stage, d.reason
    FROM {side}.records AS r LEFT JOIN {side}.decisions AS d USING (record_id)""",
    """CREATE TABLE {side}.written AS
    SELECT decided.*, c.curated FROM {side}.decided AS decided LEFT JOIN
      (SELECT record_id::UUID AS id, unhex(content_sha256) AS curated FROM {side}.curated) AS c
      USING (id)""",
    "DROP TABLE {side}.decided",
    """CREATE TABLE {side}.inputs AS
    SELECT written.*, s.split, s.shard, s.position FROM {side}.written AS written LEFT JOIN
      (SELECT record_id::UUID AS id, split, shard, position FROM {side}.shards) AS s USING (id)
    UNION ALL
    SELECT substr(sha256(source || chr(0) || path), 1, 32)::UUID, NULL, 'refused', min(stage),
      min(reason), NULL, NULL, NULL, NULL
    FROM {side}.rejects ANTI JOIN {side}.records USING (source, path) GROUP BY source, path""",
    "DROP TABLE {side}.written",
)
# What moved: its id and name in A, by its id in B.
_MOVED = """CREATE TABLE moved AS
WITH gone AS (
  SELECT id, content, row_number() OVER (PARTITION BY content ORDER BY id) AS place
  FROM a.inputs ANTI JOIN b.inputs USING (id) WHERE content IS NOT NULL
), come AS (
  SELECT id, content, row_number() OVER (PARTITION BY content ORDER BY id) AS place
  FROM b.inputs ANTI JOIN a.inputs USING (id) WHERE content IS NOT NULL
), pairs AS (
  SELECT come.id AS id, gone.id AS was FROM gone JOIN come USING (content, place)
)
SELECT pairs.id, pairs.was, r.source, r.path
FROM pairs JOIN a.records AS r ON r.record_id::UUID = pairs.was"""
# Source and path of what was seen, by id.
_NAMES = """
SELECT record_id::UUID AS id, source, path FROM {side}.records
UNION ALL
SELECT substr(sha256(source || chr(0) || path), 1, 32)::UUID, source, path FROM {side}.rejects
"""
STATE = ("decision", "stage", "reason", "content_sha256", "split", "shard", "position")
"""What is told of an input in one curation."""
# What may have happened to an input, in the order in which it is told.
KINDS = {
    "added": "a.id IS NULL",
    "removed": "b.id IS NULL",
    "moved": "a.was IS NOT NULL",
    "content": "coalesce(a.content <> b.content OR a.curated <> b.curated, false)",
    "columns": "altered.id IS NOT NULL",
    "decision": "a.id IS NOT NULL AND b.id IS NOT NULL "
    "AND (a.decision, a.stage, a.reason) IS DISTINCT FROM (b.decision, b.stage, b.reason)",
    "split": "coalesce(a.split <> b.split, false)",
    "shard": "coalesce(a.split = b.split AND a.shard <> b.shard, false)",
    "position": "coalesce(a.split = b.split AND a.shard = b.shard "
    "AND a.position <> b.position, false)",
}


@contextmanager
def joined(a: Layout, b: Layout) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB with both curations and the table ``differing``: a row per input that changed."""
    for layout in (a, b):
        for table, stage in _NEEDED.items():
            layout.need(table, stage)
    with without_views(b) as connection:
        for side, layout in (("a", a), ("b", b)):
            connection.execute(f"CREATE SCHEMA {side}")
            for table, query in table_views(layout, tables=tuple(_NEEDED)):
                create(connection, table, f"CREATE VIEW {side}.{table} AS {query}")
        connection.execute("SET preserve_insertion_order = false")  # which takes memory
        try:
            for side in "ab":
                for statement in _INPUTS:
                    connection.execute(statement.format(side=side))
            connection.execute(_MOVED)
            connection.execute(f"CREATE TABLE altered AS {_altered(a, b)}")
            connection.execute(f"CREATE TABLE unnamed AS {_unnamed()}")
            connection.execute(f"CREATE TABLE differing AS {_differing()}")
        except (duckdb.IOException, duckdb.ConversionException) as error:
            problem = str(error).splitlines()[0]
            raise DataError(f"{problem}; shardwright verify names every fault") from None
        yield connection


def _altered(a: Layout, b: Layout) -> str:
    """Query for the kept records of both whose columns differ, and the names of these."""
    same = a.need("curated", "").content_sha256 == b.need("curated", "").content_sha256
    names = [] if same else [name for name in curated_columns(a, b)[0] if name not in _ASIDE]
    cases = ", ".join(
        f'CASE WHEN x."{name}" IS DISTINCT FROM y."{name}" THEN \'{name}\' END' for name in names
    )
    if not names:
        return "SELECT NULL::UUID AS id, []::VARCHAR[] AS columns WHERE false"
    return (
        "SELECT * FROM (SELECT record_id::UUID AS id, "
        f"list_filter([{cases}], lambda name: name IS NOT NULL) AS columns "
        "FROM a.curated AS x JOIN b.curated AS y USING (record_id)) WHERE len(columns) > 0"
    )


def curated_columns(a: Layout, b: Layout) -> tuple[list[str], list[str], list[str]]:
    """Columns of ``curated`` in both, in B alone, and in A alone or of another type in B."""
    had, has = (dict(zip(s.names, s.types, strict=True)) for s in map(_schema, (a, b)))
    both = [name for name, kind in had.items() if has.get(name) == kind]
    return both, [n for n in has if n not in had], [n for n in had if n not in both]


def _schema(layout: Layout) -> pa.Schema:
    return layout.need("curated", "shard").schema


def _unnamed() -> str:
    """Query for every input to which anything happened: what, and its state in A and in B."""
    kinds = ", ".join(f"{condition} AS is_{kind}" for kind, condition in KINDS.items())
    states = ", ".join(f"{side}.{_held(name)} AS {side}_{name}" for side in "ab" for name in STATE)
    return (
        "SELECT coalesce(b.id, a.id) AS id, coalesce(altered.columns, []) AS columns, "
        f"a.curated <> b.curated AS is_rewritten, {kinds}, {states} "
        "FROM (SELECT i.* REPLACE (coalesce(m.id, i.id) AS id), m.was FROM a.inputs AS i "
        "LEFT JOIN moved AS m ON m.was = i.id) AS a FULL JOIN b.inputs AS b ON a.id = b.id "
        "LEFT JOIN altered ON altered.id = a.id "
        f"WHERE {' OR '.join(f'is_{kind}' for kind in KINDS)}"
    )


def _held(name: str) -> str:
    return "content" if name == "content_sha256" else name


def _differing() -> str:
    """The same with source and path, of what moved also those of before."""
    hashes = ", ".join(
        f"lower(hex({side}_content_sha256)) AS {side}_content_sha256" for side in "ab"
    )
    return (
        "SELECT replace(id::VARCHAR, '-', '') AS record_id, n.source, n.path, "
        "replace(m.was::VARCHAR, '-', '') AS was, m.source AS was_source, m.path AS was_path, "
        f"u.* EXCLUDE (id) REPLACE ({hashes}) FROM unnamed AS u JOIN "
        f"(SELECT DISTINCT ON (id) * FROM ({_NAMES.format(side='a')} UNION ALL "
        f"{_NAMES.format(side='b')}) SEMI JOIN unnamed USING (id)) AS n USING (id) "
        "LEFT JOIN moved AS m USING (id)"
    )
