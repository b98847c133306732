"""Shards in MDS, the format of mosaicml-streaming, with an index that litdata reads too.

A shard file is, little-endian: the number of samples ``n`` (uint32), ``n + 1`` offsets from the
start of the file (uint32), the configuration as JSON, the samples one after another. A sample is
the byte length (uint32) of every column of variable size, and then all the columns' bytes, both
in the order of the columns' names. See ``streaming/base/format/mds/writer.py`` of
mosaicml-streaming 0.13.

litdata knows fewer encodings and reads another section of ``index.json``, so numbers are widened
to the one integer and the one float encoding that both have, and the index holds both sections.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shardwright.errors import DataError, UserError
from shardwright.metadata.files import HashedFile, canonical_json, write_whole

INDEX: Final = "index.json"
OFFSET_BYTES: Final = 4
"""What a shard file spends on a sample besides its encoding."""
_FILE_LIMIT: Final = 2**32
_BLOCK_BYTES: Final = 8_000_000

ENCODINGS: Final[Mapping[pa.DataType, str]] = {
    pa.string(): "str",
    pa.large_string(): "str",
    pa.binary(): "bytes",
    pa.large_binary(): "bytes",
    pa.int32(): "int",
    pa.int64(): "int",
    pa.float32(): "float64",
    pa.float64(): "float64",
}
"""MDS encoding of each Arrow type; narrow numbers are widened without loss."""

_NUMBERS: Final = {"int": (pa.int64(), "<i8"), "float64": (pa.float64(), "<f8")}
_LITDATA: Final = {"str": "str", "bytes": "bytes", "int": "int", "float64": "float"}


@dataclass(frozen=True)
class ShardFile:
    """One written shard file.

    Attributes:
        basename: File name in the folder of its index.
        samples: Number of samples.
        bytes: Size of the file.
        sha256: Hash of the file's bytes (hex).
    """

    basename: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SampleLayout:
    """How many bytes a sample adds to its shard file.

    The size is ``fixed`` plus the byte lengths of the ``variable`` columns, a null counting 0. In
    DuckDB a length is ``coalesce(strlen(column), 0)`` for text and
    ``coalesce(octet_length(column), 0)`` for blobs.

    Attributes:
        fixed: Bytes that every sample takes: its offset, its lengths and its numbers.
        variable: Names of the columns of variable size, sorted.
    """

    fixed: int
    variable: tuple[str, ...]


def columns_for(schema: pa.Schema) -> dict[str, str]:
    """Encoding of each column, by name.

    Raises:
        UserError: A column's type has no encoding, or there is no column.
    """
    if not len(schema):
        raise UserError("a shard needs at least one column; name the columns to write")
    columns = {}
    for field in schema:
        if field.type not in ENCODINGS:
            known = ", ".join(str(kind) for kind in ENCODINGS)
            raise UserError(
                f"column {field.name!r} has type {field.type}, which MDS shards cannot hold; "
                f"leave it out or cast it to one of {known}"
            )
        columns[field.name] = ENCODINGS[field.type]
    return columns


def sample_layout(columns: Mapping[str, str]) -> SampleLayout:
    """What decides the bytes of a sample with these columns (name to encoding)."""
    variable = tuple(sorted(name for name in columns if columns[name] not in _NUMBERS))
    numbers = len(columns) - len(variable)
    return SampleLayout(OFFSET_BYTES + 4 * len(variable) + 8 * numbers, variable)


def sample_sizes(
    columns: Mapping[str, str], samples: int, lengths: Mapping[str, NDArray[np.integer[Any]]]
) -> NDArray[np.int64]:
    """Bytes that each sample adds to its shard file, its offset included.

    Args:
        columns: Encoding of each column, by name.
        samples: Number of samples ``n``.
        lengths: For each column of variable size the byte lengths ``(n,)`` of its values.

    Returns:
        Sizes ``(n,)``, int64.

    Raises:
        DataError: A sample is too large for a shard file (4 GiB).
    """
    layout = sample_layout(columns)
    sizes = np.full(samples, layout.fixed, np.int64)
    for name in layout.variable:
        sizes += lengths[name]
    large = np.flatnonzero(sizes + shard_overhead(columns, _FILE_LIMIT - 1) >= _FILE_LIMIT)
    if len(large):
        raise DataError(
            f"sample {large[0]} of {samples} takes {sizes[large[0]]} bytes, more than an MDS shard "
            "can hold (4 GiB); lower limits.max_bytes"
        )
    return sizes


def batch_sizes(batch: pa.RecordBatch | pa.Table, columns: Mapping[str, str]) -> NDArray[np.int64]:
    """``sample_sizes`` of rows at hand: ``(n,)`` int64.

    Raises:
        DataError: A sample is too large for a shard file (4 GiB).
    """
    lengths = {
        name: np.asarray(pc.fill_null(pc.binary_length(batch[name]), 0))
        for name in sample_layout(columns).variable
    }
    return sample_sizes(columns, batch.num_rows, lengths)


def shard_overhead(columns: Mapping[str, str], size_limit: int) -> int:
    """Bytes of a shard file without samples: its counter, its end offset, its configuration."""
    return 4 + OFFSET_BYTES + len(_config_json(columns, size_limit))


def write_shard(
    path: Path,
    table: pa.Table,
    columns: Mapping[str, str],
    size_limit: int,
    order: NDArray[np.int64] | None = None,
) -> ShardFile:
    """Writes one shard file, hashed on the way; it appears under its name when it is whole.

    The bytes are those that mosaicml-streaming's ``MDSWriter(hashes=["sha256"])`` writes. Nulls in
    columns of variable size become empty values. Beside ``table`` little memory is used: samples
    are encoded some megabytes at a time.

    Args:
        path: File to write; its folder exists.
        table: The samples; columns that ``columns`` does not name are ignored.
        columns: Encoding of each column, by name.
        size_limit: The limit by which shards were cut, in bytes; it is written into the file.
        order: ``(n,)``, the rows of ``table`` in the order of the samples; as they stand if None.

    Raises:
        DataError: The file would reach 4 GiB, or a number is null.
    """
    table = table.select(sorted(columns))
    sizes = batch_sizes(table, columns)
    if order is not None:
        sizes = sizes[order]
    config = _config_json(columns, size_limit)
    total = 4 + OFFSET_BYTES + len(config) + int(sizes.sum())
    if total >= _FILE_LIMIT:
        raise DataError(
            f"shard {path.name} would take {total} bytes, more than an MDS shard can hold (4 GiB); "
            "lower shards.size"
        )
    encoded = np.empty(len(sizes) + 1, np.int64)
    encoded[0] = 4 + OFFSET_BYTES * len(encoded) + len(config)
    encoded[1:] = sizes - OFFSET_BYTES
    with HashedFile(path) as file:
        file.write(np.uint32(len(sizes)).astype("<u4").tobytes())
        file.write(np.cumsum(encoded).astype("<u4").tobytes())
        file.write(config)
        blocks = np.cumsum(sizes) // _BLOCK_BYTES
        for rows in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(blocks)) + 1):
            if len(rows):
                block = (
                    table.slice(rows[0], len(rows)) if order is None else table.take(order[rows])
                )
                file.write(_encode(block, columns))
    if file.bytes != total:
        raise AssertionError(f"shard {path.name} has {file.bytes} bytes, not {total}")
    return ShardFile(path.name, len(sizes), total, file.sha256)


def write_index(
    path: Path, shards: Sequence[ShardFile], columns: Mapping[str, str], size_limit: int
) -> None:
    """Writes ``index.json`` of shard files in one folder; it appears when it is whole.

    mosaicml-streaming reads ``version`` and ``shards``, litdata ``chunks`` and ``config``: left
    alone, litdata derives its sections from ``shards``, but only for compressed files.

    Args:
        path: File to write, named ``index.json``, in the folder of the shards.
        shards: The shards in order.
        columns: Encoding of each column, by name.
        size_limit: What the shards were written with.
    """
    config = _config(columns, size_limit)
    names, encodings = config["column_names"], config["column_encodings"]
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    tree = {
        "type": "builtins.dict",
        "context": json.dumps(names),
        "children_spec": [leaf] * len(names),
    }
    index = {
        "version": 2,
        "shards": [config | _shard_entry(shard) for shard in shards],
        "chunks": [
            {
                "chunk_bytes": shard.bytes,
                "chunk_size": shard.samples,
                "column_sizes": config["column_sizes"],
                "dim": None,
                "filename": shard.basename,
            }
            for shard in shards
        ],
        "config": {
            "chunk_bytes": sum(shard.bytes for shard in shards),
            "chunk_size": sum(shard.samples for shard in shards),
            "compression": None,
            "data_format": [_LITDATA[encoding] for encoding in encodings],
            "data_spec": json.dumps([1, tree]),
            "encryption": None,
            "format": "mds",
        },
    }
    write_whole(path, canonical_json(index))


def _shard_entry(shard: ShardFile) -> dict[str, Any]:
    data = {
        "basename": shard.basename,
        "bytes": shard.bytes,
        "hashes": {"sha256": shard.sha256},
    }
    return {"samples": shard.samples, "raw_data": data, "zip_data": None}


def _config(columns: Mapping[str, str], size_limit: int) -> dict[str, Any]:
    if not 0 < size_limit < _FILE_LIMIT:
        raise UserError(f"shards.size is {size_limit} bytes; it must be above 0 and below 4 GiB")
    names = sorted(columns)
    encodings = [columns[name] for name in names]
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": ["sha256"],
        "size_limit": size_limit,
        "column_names": names,
        "column_encodings": encodings,
        "column_sizes": [8 if encoding in _NUMBERS else None for encoding in encodings],
    }


def _config_json(columns: Mapping[str, str], size_limit: int) -> bytes:
    return json.dumps(_config(columns, size_limit), sort_keys=True).encode()


def _encode(table: pa.Table, columns: Mapping[str, str]) -> pa.Buffer:
    """The samples' bytes, one after another: Arrow's join of columns lays them out so."""
    heads: list[NDArray[np.uint32]] = []
    bodies: list[pa.Array] = []
    for name in sorted(columns):
        column = table[name]
        if columns[name] in _NUMBERS:
            bodies.append(_number_bytes(name, column, columns[name]))
        else:
            body = pc.fill_null(column.cast(pa.large_binary()), b"").combine_chunks()
            heads.append(np.asarray(pc.binary_length(body)).astype("<u4"))
            bodies.append(body)
    if heads:
        bodies.insert(0, _rows_as_binary(np.stack(heads, axis=1)))
    joined = pc.binary_join_element_wise(*bodies, pa.scalar(b"", pa.large_binary()))
    _, offsets, data = joined.buffers()
    bounds = np.frombuffer(offsets, np.int64)
    first, last = bounds[joined.offset], bounds[joined.offset + len(joined)]
    return data.slice(first, last - first)


def _number_bytes(name: str, column: pa.ChunkedArray, encoding: str) -> pa.Array:
    if column.null_count:
        row = np.flatnonzero(np.asarray(column.is_null()))[0]
        raise DataError(
            f"column {name!r} is null in sample {row}, and MDS has no null for numbers; "
            "leave the column out of the shards or fill it"
        )
    kind, dtype = _NUMBERS[encoding]
    return _rows_as_binary(np.asarray(column.cast(kind)).astype(dtype)[:, None])


def _rows_as_binary(rows: NDArray[Any]) -> pa.Array:
    """Each row ``(n, k)`` as one binary value."""
    width = rows.shape[1] * rows.itemsize
    buffer = pa.py_buffer(np.ascontiguousarray(rows))
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, buffer])
    return fixed.cast(pa.large_binary())
