"""Shards as Parquet files whose row groups are small enough to read single samples.

A row group holds at most 128 samples and 1 MB of them, or one sample that is larger: that much is
read and decompressed for one sample. Columns are written plain and compressed with zstd, pictures
as they came; pages have checksums, and a page index says where they begin.

How far text shrinks is not known before it is compressed, so shards are cut by a size that a file
cannot exceed: plain values, what zstd may add to them, and what Parquet writes around them.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shardwright.errors import UserError
from shardwright.metadata.files import HashedFile
from shardwright.shards.mds import ShardFile

GROUP_ROWS: Final = 128
GROUP_BYTES: Final = 1_000_000
_TAKEN_BYTES: Final = 8_000_000
# Bytes for each column of each row group, a bound: the page's header and its place in the page
# index, the column's entry in the footer, and the 64 bytes that zstd adds at most to a short page.
_COLUMN_BYTES: Final = 320

_NUMBERS: Final = {pa.int32(): 4, pa.int64(): 8, pa.float32(): 4, pa.float64(): 8}
_TEXT: Final = (pa.string(), pa.large_string())
_BLOB: Final = (pa.binary(), pa.large_binary())


def sample_schema(schema: pa.Schema) -> pa.Schema:
    """The columns as they are written: none of them is ever null.

    Raises:
        UserError: A column's type is not one that the size of a sample is known for.
    """
    for field in schema:
        if field.type not in (*_NUMBERS, *_TEXT, *_BLOB):
            known = ", ".join(str(kind) for kind in (*_TEXT, *_BLOB, *_NUMBERS))
            raise UserError(
                f"column {field.name!r} has type {field.type}, which Parquet shards do not hold; "
                f"leave it out or cast it to one of {known}"
            )
    return pa.schema([field.with_nullable(False) for field in schema])


def size_sql(schema: pa.Schema, lengths: Mapping[str, str]) -> str:
    """SQL (DuckDB) for the most bytes that a row adds to its shard file.

    A file of ``n`` samples and ``b`` plain bytes has less than ``n / 128 + 2 b / 1 MB + 1`` row
    groups, because of two neighbours that are not full by rows one or both exceed 1 MB together.

    Args:
        schema: Columns of a sample.
        lengths: SQL for the byte length of columns that are better not read.
    """
    group = _COLUMN_BYTES * len(sample_schema(schema))
    terms = []
    for field in schema:
        if field.type in _NUMBERS:
            terms.append(str(_NUMBERS[field.type]))
            continue
        measure = "strlen" if field.type in _TEXT else "octet_length"
        length = lengths.get(field.name) or f'coalesce({measure}("{field.name}"), 0)'
        terms.append(f"4 + {length}")
    plain = f"({' + '.join(terms)})"
    # zstd adds at most 1/256 (ZSTD_compressBound), and row groups as many bytes as said above.
    more = f"{plain} // 256 + 2 * {group} * {plain} // {GROUP_BYTES}"
    return f"{plain} + {more} + {2 + -(-group // GROUP_ROWS)}"


def shard_overhead(schema: pa.Schema) -> int:
    """Most bytes of a shard file beside its samples: an empty file, and one row group's share."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, sample_schema(schema), **_options(schema)):
        pass
    return sink.getbuffer().nbytes + _COLUMN_BYTES * len(schema)


def write_shard(
    path: Path, table: pa.Table, schema: pa.Schema, order: NDArray[np.int64] | None = None
) -> ShardFile:
    """Writes one shard file, hashed on the way; it appears under its name when it is whole.

    Missing texts become empty ones. Beside ``table`` some megabytes are used.

    Args:
        path: File to write; its folder exists.
        table: The samples; columns that ``schema`` does not name are ignored.
        schema: Columns of a sample.
        order: ``(n,)``, the rows of ``table`` in the order of the samples; as they stand if None.

    Raises:
        UserError: See ``sample_schema``.
    """
    written = sample_schema(schema)
    table = table.select(schema.names)
    if order is None:
        order = np.arange(table.num_rows)
    with (
        HashedFile(path) as file,
        pq.ParquetWriter(file, written, **_options(schema)) as writer,
    ):
        for rows, cuts in _blocks(_plain_bytes(table)[order]):
            # One chunk each, because pages may end where chunks end.
            block = _filled(table.take(order[rows]), written).combine_chunks()
            for low, high in zip([0, *cuts], [*cuts, len(rows)], strict=True):
                writer.write_table(block.slice(low, high - low), row_group_size=high - low)
    return ShardFile(path.name, table.num_rows, file.bytes, file.sha256)


def _options(schema: pa.Schema) -> dict[str, Any]:
    return {
        # Encoded pictures do not shrink any further.
        "compression": {f.name: "none" if f.type in _BLOB else "zstd" for f in schema},
        "use_dictionary": False,
        "write_statistics": False,
        "write_page_index": True,
        "write_page_checksum": True,
        "store_schema": True,
    }


def _plain_bytes(table: pa.Table) -> NDArray[np.int64]:
    """Bytes of each row in Parquet's plain encoding: ``(n,)``."""
    sizes = np.zeros(table.num_rows, np.int64)
    for field in table.schema:
        if field.type in _NUMBERS:
            sizes += _NUMBERS[field.type]
        else:
            sizes += 4 + np.asarray(pc.fill_null(pc.binary_length(table[field.name]), 0))
    return sizes


def _blocks(sizes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], list[int]]]:
    """Yields runs of rows of some megabytes, and in each the first rows of its later row groups."""
    ends = np.cumsum(sizes)
    first, cuts = 0, [0]
    while cuts[-1] < len(sizes):
        start = cuts[-1]
        before = int(ends[start - 1]) if start else 0
        last = int(np.searchsorted(ends, before + GROUP_BYTES, side="right"))
        cuts.append(min(max(last, start + 1), start + GROUP_ROWS))
        if ends[cuts[-1] - 1] - (ends[first] - sizes[first]) >= _TAKEN_BYTES:
            yield np.arange(first, cuts[-1]), [cut - first for cut in cuts[1:-1]]
            first, cuts = cuts[-1], [cuts[-1]]
    if cuts[-1] > first:
        yield np.arange(first, cuts[-1]), [cut - first for cut in cuts[1:-1]]


def _filled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with empty values in place of nulls."""
    empty = {**dict.fromkeys(_TEXT, ""), **dict.fromkeys(_BLOB, b"")}
    columns = [
        pc.fill_null(table[f.name], pa.scalar(empty[f.type], f.type))
        if f.type in empty
        else table[f.name]
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
