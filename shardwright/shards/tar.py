"""Shards as tar files in the layout of WebDataset: members of one name are one sample.

A sample is two members: ``<record_id>.txt`` (text) or ``<record_id>.<format>`` (an encoded
picture), and ``<record_id>.json`` with all other columns. Headers are plain ustar and the same
everywhere: mode 0644, owner 0, time 0. An archive ends after the two empty blocks that POSIX asks
for, without GNU tar's filling up to 10,240 bytes, so that its size is a sum over its samples.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shardwright.errors import DataError, UserError
from shardwright.metadata.files import HashedFile
from shardwright.shards.mds import ShardFile

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
_SIZE_LIMIT: Final = 8**11
_TAKEN_BYTES: Final = 8_000_000

_TEXT: Final = (pa.large_string(),)
_BLOB: Final = (pa.large_binary(),)
_IN_JSON: Final = (pa.string(), pa.int32(), pa.int64())
# Names that tools know a format by, where that is not its own name.
_EXTENSIONS: Final = {"jpeg": "jpg", "mpo": "jpg"}
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def payload_column(schema: pa.Schema) -> str:
    """Name of the column that becomes a member of its own; all others go into the JSON.

    Raises:
        UserError: There is no such column or more than one, no ``record_id``, or a type that the
            JSON cannot hold without loss.
    """
    payloads = [field.name for field in schema if field.type in (*_TEXT, *_BLOB)]
    if len(payloads) != 1 or "record_id" not in schema.names:
        raise UserError(
            f"a WebDataset sample is named by its record_id and has one payload (large_string or "
            f"large_binary); the columns {', '.join(schema.names)} have {len(payloads)}"
        )
    for field in schema:
        if field.name not in payloads and field.type not in _IN_JSON:
            known = ", ".join(str(kind) for kind in _IN_JSON)
            raise UserError(
                f"column {field.name!r} has type {field.type}, which the JSON of a WebDataset "
                f"sample does not hold; leave it out or cast it to one of {known}"
            )
    return str(payloads[0])


def extension(image_format: str) -> str:
    """What the name of a picture of this format ends on: ``jpg``, ``png``, ``webp``, ..."""
    plain = "".join(sign for sign in image_format.lower() if sign.isascii() and sign.isalnum())
    return _EXTENSIONS.get(plain, plain or "bin")


def size_sql(schema: pa.Schema, lengths: Mapping[str, str]) -> str:
    """SQL (DuckDB) for the bytes that a row adds to its shard file.

    Args:
        schema: Columns of a sample.
        lengths: SQL for the byte length of columns that are better not read.

    Raises:
        UserError: See ``payload_column``.
    """
    payload = payload_column(schema)
    length = lengths.get(payload) or (
        f"coalesce({'strlen' if schema.field(payload).type in _TEXT else 'octet_length'}"
        f'("{payload}"), 0)'
    )
    rest = [field for field in schema if field.name != payload]
    # Braces, and for each column its name, two quotes, a colon and a comma, but after the last.
    fixed = 1 + sum(len(_ENCODER.encode(field.name)) + 2 for field in rest)
    values = " + ".join(
        f"strlen(to_json(coalesce(\"{field.name}\", ''))::VARCHAR)"
        if field.type == pa.string()
        else f'strlen("{field.name}"::VARCHAR)'
        for field in rest
    )
    return f"{_member_sql(length)} + {_member_sql(f'({fixed} + {values})')}"


def shard_overhead() -> int:
    """Bytes of a shard file without samples: the end of the archive."""
    return len(END)


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
        DataError: A sample is too large for a tar header (8 GiB).
        UserError: See ``payload_column``.
    """
    payload = payload_column(schema)
    table = table.select(schema.names)
    if order is None:
        order = np.arange(table.num_rows)
    sizes = np.asarray(pc.fill_null(pc.binary_length(table[payload]), 0), np.int64)[order]
    blocks = np.cumsum(sizes + BLOCK) // _TAKEN_BYTES
    with HashedFile(path) as file:
        for rows in np.split(order, np.flatnonzero(np.diff(blocks)) + 1):
            if len(rows):
                file.write(_members(table.take(rows), payload))
        file.write(END)
    return ShardFile(path.name, table.num_rows, file.bytes, file.sha256)


def _members(table: pa.Table, payload: str) -> bytes:
    """The samples' headers and contents, one after another."""
    pieces: list[bytes] = []
    for row in table.to_pylist():
        data = row.pop(payload)
        suffix = extension(row["format"]) if "format" in row else "bin"
        if table.schema.field(payload).type in _TEXT:
            data, suffix = (data or "").encode(), "txt"
        kinds = ((name, table.schema.field(name).type) for name in row)
        told = {name: row[name] or "" if kind == pa.string() else row[name] for name, kind in kinds}
        pieces += _member(f"{told['record_id']}.{suffix}", data or b"")
        pieces += _member(f"{told['record_id']}.json", _ENCODER.encode(told).encode())
    return b"".join(pieces)


def _member(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, contents, and zeros up to the next block."""
    return _header(name, len(data)), data, bytes(-len(data) % BLOCK)


def _header(name: str, size: int) -> bytes:
    """A ustar header of a regular file, 512 bytes (POSIX.1-1988, IEEE 1003.1 ``pax``)."""
    if size >= _SIZE_LIMIT:
        raise DataError(f"{name} takes {size} bytes, more than tar can say; lower limits.max_bytes")
    encoded = name.encode("ascii")
    if len(encoded) > 100:
        raise DataError(f"{name}: too long a name for a tar member (100 bytes)")
    numbers = (b"0000644", b"0000000", b"0000000", b"%011o" % size, b"%011o" % 0)
    head = encoded.ljust(100, b"\0") + b"".join(number + b"\0" for number in numbers)
    tail = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
    checksum = sum(head) + sum(b" " * 8) + sum(tail)  # over the header with blanks in its place
    return head + b"%06o\0 " % checksum + tail


def _member_sql(length: str) -> str:
    return f"({BLOCK} + ({length} + {BLOCK - 1}) // {BLOCK} * {BLOCK})"


def read_header(data: Any, start: int) -> tuple[str, int]:
    """Name and size of the member whose header stands at ``start``.

    Args:
        data: The archive, a buffer of bytes.
        start: Offset of the header.

    Raises:
        ValueError: There is no header of a regular file.
    """
    block = bytes(data[start : start + BLOCK])
    if len(block) < BLOCK or block[257:262] != b"ustar" or block[156:157] not in (b"0", b"\0"):
        raise ValueError(f"no tar header of a file at byte {start}")
    if int(block[148:154], 8) != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise ValueError(f"a tar header with a wrong checksum at byte {start}")
    return block[:100].rstrip(b"\0").decode("ascii"), int(block[124:135], 8)
