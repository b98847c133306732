"""Where every token goes: which sequence a record begins in, and which file a sequence.

Decided from narrow columns alone, as the places of samples are: records in the order of their
shards, and a running sum of their tokens. Batches stream through DuckDB, which sorts out of core.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from shardwright.metadata.catalog import connect, file_literal, name_parts, scan
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import TOKENS
from shardwright.pipelines.relational import stream
from shardwright.shards import mds
from shardwright.shards.order import CutState, cut
from shardwright.shards.packing import SEQUENCES, Open, count_documents, sequence_bytes

COLUMNS = mds.columns_for(SEQUENCES)
"""MDS encoding of each column of a sequence."""


def buckets_of(layout: Layout) -> Iterator[tuple[str, int]]:
    """(split, shard) of all shards with samples."""
    with connect(layout, tables=["shards"]) as connection:
        query = "SELECT DISTINCT split, shard FROM shards ORDER BY split, shard"
        yield from connection.execute(query).fetchall()


def first_buckets(layout: Layout) -> dict[str, int]:
    """Number of each split's first bucket; that of a shard is so many more."""
    firsts: dict[str, int] = {}
    used = first = 0
    for split, shard in buckets_of(layout):
        if split not in firsts:
            first = firsts[split] = used
        used = first + shard + 1
    return firsts


def place_tokens(
    connection: duckdb.DuckDBPyConnection, counted: Sequence[Path], shards: Manifest, length: int
) -> None:
    """Makes the relation ``placed``: part, row (of ``shards``) and the columns of ``tokens``.

    Args:
        connection: Has a view of ``shards``.
        counted: Parquet files with ``record_id`` and ``tokens`` of every kept record.
        shards: The table.
        length: Tokens of a sequence.
    """
    name_parts(connection, shards)
    counts = f"read_parquet([{', '.join(file_literal(path) for path in counted)}])"
    if not counted:
        counts = "(SELECT record_id, 0::INTEGER AS tokens FROM shards WHERE false)"
    ordered = f"""
      SELECT part, row, record_id, split, c.tokens
      FROM (SELECT filename, file_row_number::INTEGER AS row, * FROM {scan(shards, positions=True)})
        JOIN part_files USING (filename) JOIN {counts} AS c USING (record_id)
      ORDER BY split, shard, position"""
    schema = pa.schema([("part", pa.int32()), ("row", pa.int32()), *TOKENS])

    def placed() -> Iterator[pa.RecordBatch]:
        before, last = 0, None
        for split, batch in _by_split(stream(connection.cursor(), ordered)):
            before, last = before if split == last else 0, split
            tokens = batch.column("tokens").to_numpy().astype(np.int64)
            starts = before + np.cumsum(tokens) - tokens
            before += int(tokens.sum())
            columns = [batch.column(name) for name in ("part", "row", "record_id", "split")]
            columns += [pa.array(starts // length), pa.array((starts % length).astype(np.int32))]
            yield pa.RecordBatch.from_arrays([*columns, batch.column("tokens")], schema=schema)

    connection.register("batches", pa.RecordBatchReader.from_batches(schema, placed()))
    connection.execute("CREATE OR REPLACE TABLE placed AS SELECT * FROM batches")
    connection.unregister("batches")


def _by_split(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Cuts batches sorted by ``split`` where it changes."""
    for batch in batches:
        splits = batch.column("split").to_numpy(zero_copy_only=False)
        edges = (np.flatnonzero(splits[1:] != splits[:-1]) + 1).tolist()
        for low, high in zip([0, *edges], [*edges, len(splits)], strict=True):
            if high > low:
                yield str(splits[low]), batch.slice(low, high - low)


@dataclass
class SequenceFile:
    """A file to write: sequences ``first`` to ``first + count - 1`` of a split.

    ``buckets`` holds (bucket, tokens of the split before it) of those that reach into it.
    """

    split: str
    shard: int
    first: int
    count: int
    buckets: list[tuple[int, int]]


def plan_files(
    layout: Layout, tokens: Manifest, firsts: dict[str, int], length: int, size: int
) -> list[SequenceFile]:
    """Cuts the sequences of each split into files of at most ``size`` bytes."""
    with connect(layout, tables=["shards"]) as connection:
        documents = f"SELECT split, tokens FROM {scan(tokens)} ORDER BY split, sequence, start"
        files = _cut(_by_split(stream(connection, documents)), length, size)
        spans = connection.execute(
            f"""SELECT t.split, shard, min(sequence * {length} + start) AS first,
                max(sequence * {length} + start + tokens)
              FROM {scan(tokens)} AS t JOIN shards USING (record_id)
              GROUP BY ALL ORDER BY t.split, first"""
        ).fetchall()
    after = 0
    for file in files:  # both are sorted: each span is looked at a few times
        begin, end = file.first * length, (file.first + file.count) * length
        while spans[after][0] < file.split or spans[after][3] <= begin:
            after += 1
        here = after
        while here < len(spans) and spans[here][0] == file.split and spans[here][2] < end:
            split, shard, first, _ = spans[here]
            file.buckets.append((firsts[split] + shard, first))
            here += 1
    return files


def _cut(
    documents: Iterator[tuple[str, pa.RecordBatch]], length: int, size: int
) -> list[SequenceFile]:
    files: list[SequenceFile] = []
    overhead = mds.shard_overhead(COLUMNS, size)
    begun, state, last = Open(), CutState(), ""

    def add(counts: np.ndarray[Any, Any]) -> None:
        nonlocal state
        sizes = mds.sample_sizes(COLUMNS, len(counts), sequence_bytes(counts, length, last))
        shards, _, state = cut(sizes, size, state, overhead)
        for shard, more in zip(*np.unique(shards, return_counts=True), strict=True):
            if files and (files[-1].split, files[-1].shard) == (last, shard):
                files[-1].count += int(more)
                continue
            first = files[-1].first + files[-1].count if files and files[-1].split == last else 0
            files.append(SequenceFile(last, int(shard), first, int(more), []))

    def finish() -> None:
        if begun.tokens:
            add(np.array([begun.documents], np.int64))

    for split, batch in documents:
        if split != last:
            finish()
            begun, state, last = Open(), CutState(), split
        counts, begun = count_documents(batch.column("tokens").to_numpy(), length, begun)
        add(counts)
    finish()
    return files


def count_tokens(layout: Layout, tokens: Manifest, length: int) -> dict[str, Any]:
    """Records, tokens and sequences of each split, and what fills up its last one."""
    splits: dict[str, Any] = {}
    with connect(layout, tables=["curated"]) as connection:
        rows = connection.execute(
            "SELECT t.split, coalesce(language, 'unknown') AS language, count(*), "
            f"sum(tokens)::BIGINT FROM {scan(tokens)} AS t JOIN curated USING (record_id) "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    for split, language, records, count in rows:
        found = splits.setdefault(split, {"records": 0, "tokens": 0, "languages": {}})
        found["records"] += records
        found["tokens"] += count
        found["languages"][language] = {"records": records, "tokens": count}
    for found in splits.values():
        found["sequences"] = -(-found["tokens"] // length)
        found["filled"] = found["sequences"] * length - found["tokens"]
    return {"splits": splits}
