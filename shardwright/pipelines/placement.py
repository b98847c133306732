"""Where every kept record goes: its split, its shard and its place in it.

Decided from narrow columns alone, before any content moves: split and order by keyed hashes of ids,
shards by a cut of the ordered sizes. Batches stream through DuckDB, which sorts out of core.

Records whose owners opted out are placed with all others, and those behind them in their shard move
up when they go: no other shard changes.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect, name_parts, scan
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import SHARDS, blob, records
from shardwright.pipelines.opt_out import TAKEN_OUT
from shardwright.pipelines.relational import commit_query, stream
from shardwright.pipelines.run import Run
from shardwright.pipelines.unchanged import remember_places
from shardwright.quality.groups import components
from shardwright.shards.formats import shard_format
from shardwright.shards.order import CutState, assign_split, cut, id_keys, name_keys, order_keys

SAMPLE_COLUMNS = {
    "code": ("record_id", "content", "path", "repository", "language", "license"),
    "image": ("record_id", "image", "path", "label", "format", "width", "height"),
}


# Who stays in the place of whom, for the groups of `near_duplicates`.
_DUPLICATES = ("duplicates", "near_links", "semantic_duplicates")


def sample_schema(modality: str) -> pa.Schema:
    """Columns of a sample, in order."""
    schema = records(modality)
    return pa.schema([schema.field(name) for name in SAMPLE_COLUMNS[modality]])


def _place(run: Run, connection: duckdb.DuckDBPyConnection, records_table: Manifest) -> None:
    """Makes the relation ``placed``: part, row, record_id, split, shard, position."""
    settings = run.recipe.shards
    schema = sample_schema(run.recipe.modality)
    kind = shard_format(settings.format)
    size = kind.size_sql(schema, {blob(run.recipe.modality): "bytes"})
    near = settings.group_by == "near_duplicates"
    if near:
        name_groups(connection, _groupings(run))
    group = "NULL" if settings.group_by is None or near else settings.group_by
    name_parts(connection, records_table)
    kept = f"""
      SELECT part, row, r.record_id AS record_id, size,
        {"coalesce(g.first_id, r.record_id)" if near else "grouped"} AS grouped
      FROM (
        SELECT filename, file_row_number::INTEGER AS row, record_id, ({size})::BIGINT AS size,
          ({group})::VARCHAR AS grouped
        FROM {scan(records_table, positions=True)}) r
        JOIN part_files USING (filename)
        {"LEFT JOIN near_groups g ON g.record_id = r.record_id" if near else ""}
        JOIN decisions d ON d.record_id = r.record_id WHERE d.keep"""
    names = list(settings.split)

    def keyed() -> Iterator[pa.RecordBatch]:
        for batch in stream(connection.cursor(), kept):
            ids = batch.column("record_id")
            keys = id_keys(ids)
            if near:
                keys = id_keys(batch.column("grouped"))
            elif settings.group_by is not None:
                # Records without a group are groups of their own.
                names_of = batch.column("grouped")
                keys = np.where(
                    names_of.is_valid().to_numpy(zero_copy_only=False),
                    name_keys(names_of.fill_null("")),
                    keys,
                )
            columns = {
                "split": pa.array(assign_split(keys, settings.split, settings.seed), pa.int32()),
                "key": pa.array(order_keys(ids, settings.seed), pa.uint64()),
            }
            yield pa.RecordBatch.from_arrays(
                [batch[name] for name in ("part", "row", "record_id", "size")]
                + list(columns.values()),
                names=["part", "row", "record_id", "size", *columns],
            )

    _fill(connection, "keyed", _KEYED, keyed())

    def placed() -> Iterator[pa.RecordBatch]:
        state, split = CutState(), -1
        overhead = kind.overhead(schema, settings.size)
        ordered = "SELECT * FROM keyed ORDER BY split, key, record_id"
        for batch in stream(connection.cursor(), ordered):
            splits = batch.column("split").to_numpy()
            edges = [0, *(np.flatnonzero(np.diff(splits)) + 1).tolist(), len(splits)]
            for low, high in pairwise(edges):
                if high == low:
                    continue
                if splits[low] != split:
                    state, split = CutState(), int(splits[low])
                run_ = batch.slice(low, high - low)
                shard, position, state = cut(
                    run_.column("size").to_numpy(), settings.size, state, overhead
                )
                yield pa.RecordBatch.from_arrays(
                    [
                        run_["part"],
                        run_["row"],
                        run_["record_id"],
                        pa.array([names[split]] * run_.num_rows, pa.string()),
                        pa.array(shard),
                        pa.array(position),
                    ],
                    schema=_PLACED,
                )

    _fill(connection, "placed", _PLACED, placed())


_KEYED = pa.schema(
    [
        ("part", pa.int32()),
        ("row", pa.int32()),
        ("record_id", pa.string()),
        ("size", pa.int64()),
        ("split", pa.int32()),
        ("key", pa.uint64()),
    ]
)
_PLACED = pa.schema([*list(_KEYED)[:3], *list(SHARDS)[1:]])


def _fill(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    schema: pa.Schema,
    batches: Iterator[pa.RecordBatch],
) -> None:
    """Makes a temporary table of a stream of batches; DuckDB spills it when it grows large."""
    connection.register("batches", pa.RecordBatchReader.from_batches(schema, batches))
    connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM batches")
    connection.unregister("batches")


def _groupings(run: Run) -> list[Manifest]:
    """The tables of duplicates that there are.

    Raises:
        UserError: There is none.
    """
    found = [run.layout.manifest(table) for table in _DUPLICATES]
    tables = [manifest for manifest in found if manifest is not None]
    if not tables:
        raise UserError(
            "shards.group_by is near_duplicates, and no duplicates were looked for; give "
            "duplicates.near or duplicates.semantic, or set shards.group_by to null"
        )
    return tables


def name_groups(connection: duckdb.DuckDBPyConnection, duplicates: Sequence[Manifest]) -> None:
    """Makes the relation ``near_groups``: record_id, first_id, for records linked to others.

    What hangs together by any chain of ``representative_id`` in any of the tables is one group, and
    ``first_id`` is the least id of its kept records, or else the least of all. So a group of which
    one record is kept is keyed as that record alone: finding its duplicates does not move it.
    """
    links = " UNION ALL ".join(
        f"SELECT record_id, representative_id FROM {table.table}" for table in duplicates
    )
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE links AS
          SELECT DISTINCT record_id, representative_id
          FROM ({links}) WHERE record_id <> representative_id;
        CREATE OR REPLACE TABLE linked AS
          SELECT record_id, row_number() OVER (ORDER BY coalesce(keep, false) DESC, record_id) AS id
          FROM (SELECT record_id FROM links UNION SELECT representative_id FROM links)
            LEFT JOIN decisions USING (record_id);
        CREATE OR REPLACE TABLE link_edges AS
          SELECT least(l.id, r.id) AS a, greatest(l.id, r.id) AS b
          FROM links JOIN linked l USING (record_id)
            JOIN linked r ON r.record_id = representative_id"""
    )
    components(connection, "link_edges", "link_groups")
    connection.execute(
        """
        CREATE OR REPLACE TABLE near_groups AS
          SELECT l.record_id, f.record_id AS first_id FROM link_groups
            JOIN linked l ON l.id = vertex JOIN linked f ON f.id = representative"""
    )


def taken_out(run: Run) -> int:
    """How many records are not kept only because their owners opted out."""
    with connect(run.layout, tables=["decisions"]) as connection:
        counted = f"SELECT count(*) FROM decisions WHERE {TAKEN_OUT}"
        return int(connection.execute(counted).fetchall()[0][0])


def assign(
    run: Run, version: str, records_table: Manifest, decisions: Manifest, gone: int
) -> Manifest:
    """Commits ``shards``: where each kept record goes.

    Args:
        run: The run.
        version: Version of the stage's code.
        records_table: The records.
        decisions: The decision on each.
        gone: What ``taken_out`` counts.
    """
    inputs = [records_table, decisions]
    if run.recipe.shards.group_by == "near_duplicates":
        inputs += _groupings(run)
    places = "FROM placed"
    if gone:
        places = f"""
        FROM (
          SELECT * REPLACE (
            row_number() OVER (PARTITION BY split, shard ORDER BY position) - 1 AS position)
          FROM placed ANTI JOIN (SELECT record_id FROM {scan(decisions)} WHERE {TAKEN_OUT})
            USING (record_id))"""

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        remember_places(run)
        if gone:  # as if they stayed
            connection.execute(
                "CREATE OR REPLACE VIEW decisions AS "
                f"SELECT record_id, keep OR ({TAKEN_OUT}) AS keep FROM {scan(decisions)}"
            )
        _place(run, connection, records_table)

    return commit_query(
        run,
        "shard",
        version,
        {
            "shards": (
                SHARDS,
                f"SELECT part, record_id, split, shard, position {places} ORDER BY part, row",
            )
        },
        parameters=run.recipe.shards.parameters(),
        inputs=inputs,
        aligned=records_table,
        prepare=prepare,
    )["shards"]
