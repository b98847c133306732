"""Where every kept record goes: its split, its shard and its place in it.

Decided from narrow columns alone, before any content moves: split and order by keyed hashes of ids,
shards by a cut of the ordered sizes. Batches stream through DuckDB, which sorts out of core.
"""

from collections.abc import Iterator
from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa

from shardwright.metadata.catalog import name_parts, scan
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import SHARDS, records
from shardwright.pipelines.relational import commit_query, stream
from shardwright.pipelines.run import Run
from shardwright.shards.mds import columns_for, sample_layout, shard_overhead
from shardwright.shards.order import CutState, assign_split, cut, id_keys, name_keys, order_keys

SAMPLE_COLUMNS = {
    "code": ("record_id", "content", "path", "repository", "language", "license"),
    "image": ("record_id", "image", "path", "label", "format", "width", "height"),
}


def sample_columns(modality: str) -> dict[str, str]:
    """MDS encoding of each column of a sample."""
    schema = records(modality)
    return columns_for(pa.schema([schema.field(name) for name in SAMPLE_COLUMNS[modality]]))


def _place(run: Run, connection: duckdb.DuckDBPyConnection, records_table: Manifest) -> None:
    """Makes the relation ``placed``: part, row, record_id, split, shard, position."""
    settings = run.recipe.shards
    columns = sample_columns(run.recipe.modality)
    layout = sample_layout(columns)
    blob_lengths = {"content", "image"}
    sizes = " + ".join(
        "r.bytes" if name in blob_lengths else f"coalesce(strlen(r.{name}), 0)"
        for name in layout.variable
    )
    group = "NULL" if settings.group_by is None else f"r.{settings.group_by}"
    name_parts(connection, records_table)
    kept = f"""
      SELECT part, file_row_number::INTEGER AS row, r.record_id AS record_id,
        ({layout.fixed} + {sizes})::BIGINT AS size, ({group})::VARCHAR AS grouped
      FROM {scan(records_table, positions=True)} r JOIN part_files USING (filename)
        JOIN decisions d ON d.record_id = r.record_id WHERE d.keep"""
    names = list(settings.split)

    def keyed() -> Iterator[pa.RecordBatch]:
        for batch in stream(connection.cursor(), kept):
            ids = batch.column("record_id")
            keys = id_keys(ids)
            if settings.group_by is not None:
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
        overhead = shard_overhead(columns, settings.size)
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


def assign(run: Run, version: str, records_table: Manifest, decisions: Manifest) -> Manifest:
    """Commits ``shards``: where each kept record goes."""
    return commit_query(
        run,
        "shard",
        version,
        {
            "shards": (
                SHARDS,
                "SELECT part, record_id, split, shard, position FROM placed ORDER BY part, row",
            )
        },
        parameters=run.recipe.shards.model_dump(mode="json"),
        inputs=[records_table, decisions],
        aligned=records_table,
        prepare=lambda connection: _place(run, connection, records_table),
    )["shards"]
