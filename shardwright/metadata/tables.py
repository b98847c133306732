"""Reading and writing the Parquet parts of tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.metadata.files import HashedFile
from shardwright.metadata.manifest import Manifest, Part

NARROW_ROWS = 122_880
GROUP_BYTES = 32_000_000
VECTOR_GROUP_BYTES = 64_000_000
# Shingles are read a few rows at a time.
SHINGLE_GROUP_BYTES = 2_000_000
# Columns of few values; every other column (hashes, text, blobs, vectors) is written plain.
_DICTIONARY = frozenset(
    {
        *("source", "modality", "language", "license", "repository", "revision", "label"),
        *("format", "device_make", "device_model", "software"),
        *("stage", "reason", "kind", "split", "model", "cluster", "criterion"),
        *("benchmark", "method"),
    }
)
# Columns whose least and greatest value tell nothing and cost more to find than to compress.
_BULK = frozenset({"content", "image", "attributes", "vector", "sketch", "shingles"})
# Encoded images and hashes do not shrink any further.
_UNCOMPRESSED = frozenset({"image", "sketch", "shingles"})


class PartWriter:
    """Streams RecordBatches into one Parquet file that appears at close.

    Row groups end at ``NARROW_ROWS`` rows or ``GROUP_BYTES`` bytes
    (``VECTOR_GROUP_BYTES`` for vectors), whichever comes first. No file
    is made when no row is written.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._file: HashedFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._held_bytes = 0
        self._most_bytes = _group_bytes(schema)
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends rows of the table's schema."""
        while batch.num_rows:
            take = min(batch.num_rows, NARROW_ROWS - self._held_rows)
            self._hold(batch.slice(0, take))
            batch = batch.slice(take)

    def _hold(self, batch: pa.RecordBatch) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._held_rows >= NARROW_ROWS or self._held_bytes >= self._most_bytes:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._held, self._schema)
        self._open().write_table(table, row_group_size=max(1, table.num_rows))
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._file = HashedFile(self._path)
            self._writer = pq.ParquetWriter(self._file, self._schema, **_options(self._schema))
        return self._writer

    def close(self, key: str, fingerprint: str) -> Part:
        """Finishes the file and returns its entry for the manifest."""
        if self._held:
            self._flush()
        if self._writer is None or self._file is None:
            return Part(key, None, 0, 0, "", fingerprint)
        self._writer.close()
        self._file.close()
        return Part(
            key, self._path.name, self.rows, self._file.bytes, self._file.sha256, fingerprint
        )

    def discard(self) -> None:
        """Forgets what was written."""
        if self._file is not None:
            self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()


def _group_bytes(schema: pa.Schema) -> int:
    if "vector" in schema.names:
        return VECTOR_GROUP_BYTES
    return SHINGLE_GROUP_BYTES if "shingles" in schema.names else GROUP_BYTES


def _options(schema: pa.Schema) -> dict[str, object]:
    plain = [field.name for field in schema if field.name in _UNCOMPRESSED]
    stored = [leaf for name in plain for leaf in _leaves(schema.field(name))]
    return {
        "compression": dict.fromkeys(stored, "none") | _zstd(schema, plain) if plain else "zstd",
        "compression_level": None if plain else 3,
        "use_dictionary": [field.name for field in schema if field.name in _DICTIONARY],
        "write_statistics": [field.name for field in schema if field.name not in _BULK],
        "write_page_index": True,
        "store_schema": True,
    }


def _zstd(schema: pa.Schema, plain: Sequence[str]) -> dict[str, str]:
    names: list[str] = []
    for field in schema:
        if field.name in plain:
            continue
        names += _leaves(field)
    return dict.fromkeys(names, "zstd")


def _leaves(field: pa.Field) -> list[str]:
    """Names that Parquet has for the columns that hold a field's values."""
    if pa.types.is_map(field.type):
        return [f"{field.name}.key_value.key", f"{field.name}.key_value.value"]
    if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
        return [f"{field.name}.list.element"]
    return [field.name]


def write_empty(path: Path, schema: pa.Schema, key: str, fingerprint: str) -> Part:
    """Writes the one part of a table without rows."""
    with HashedFile(path) as file, pq.ParquetWriter(file, schema, **_options(schema)) as writer:
        writer.write_table(schema.empty_table())
    return Part(key, path.name, 0, file.bytes, file.sha256, fingerprint)


def read_batches(
    path: Path, columns: Sequence[str] | None = None, rows: int = 1024
) -> Iterator[pa.RecordBatch]:
    """Streams a part's rows in order, ``rows`` at a time, in bounded memory."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=rows, columns=columns, use_threads=False)


def read_part(
    manifest: Manifest, part: Part, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Streams one part of a committed table."""
    if part.file is not None:
        yield from read_batches(manifest.folder / part.file, columns)
