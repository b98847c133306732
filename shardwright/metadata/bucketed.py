"""The bucketed table, the one way to regroup rows: a Parquet row group per bucket.

Each worker writes its part's rows sorted by bucket; whoever needs a bucket reads that row group of
every part. With very many parts and buckets the row groups grow small and many, and parts are first
merged in rounds (``list_bucketed``). Workers are handed the path of a list of the files, and open
it once (``open_listed``).
"""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shardwright.errors import DataError
from shardwright.metadata.files import HashedFile, fingerprint, write_whole

FAN_IN: Final = 64
"""Most files that one merge reads."""
_KEY: Final = b"shardwright.buckets"
_ARROW_SCHEMA: Final = b"ARROW:schema"
_CACHED_CELLS: Final = 100_000
_MOST_ROWS: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class BucketedFile:
    """One written file of a bucketed table.

    Attributes:
        rows: Number of rows.
        bytes: Size of the file.
        sha256: Hash of the file's bytes (hex).
    """

    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class BucketedFiles:
    """Files of one bucketed table, with what their footers say. Made by ``open_bucketed``.

    Holds 12 bytes for each bucket of each file, and the parsed footers (about 0.7 kB for each
    column of each row group) up to ~70 MB in all; a footer beyond that is parsed again whenever
    its file is read. No file stays open.

    Attributes:
        paths: The files, in the order in which rows are read.
        schema: The rows' columns.
        pairs: ``(3, n)`` int32: bucket, file, row group; sorted by bucket, then by file.
        footers: The parsed footer of each file, or None.
    """

    paths: tuple[Path, ...]
    schema: pa.Schema
    pairs: NDArray[np.int32]
    footers: tuple[pq.FileMetaData | None, ...]

    @property
    def buckets(self) -> NDArray[np.int32]:
        """The buckets that have rows, ascending: ``(b,)`` int32."""
        buckets: NDArray[np.int32] = np.unique(self.pairs[0])
        return buckets

    def read(self, bucket: int) -> pa.Table:
        """One bucket's rows: files in order, rows in the order in which they were written."""
        return pa.concat_tables([self.schema.empty_table(), *self.groups(bucket)])

    def groups(self, bucket: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yields one bucket's rows, those of a file at a time, with some of their columns."""
        first, last = np.searchsorted(self.pairs[0], [bucket, bucket + 1])
        for number, group in self.pairs[1:, first:last].T.tolist():
            with pq.ParquetFile(self.paths[number], metadata=self.footers[number]) as file:
                yield file.read_row_group(group, columns=columns, use_threads=False)


def open_bucketed(paths: Sequence[Path]) -> BucketedFiles:
    """Reads the footers of one table's files, at least one.

    Raises:
        DataError: A file is not of a bucketed table, or its columns are not those of the first.
    """
    pairs: list[NDArray[np.int32]] = []
    footers: list[pq.FileMetaData | None] = []
    schema: pa.Schema | None = None
    cells = 0
    for number, path in enumerate(paths):
        with pq.ParquetFile(path) as file:
            footer = file.metadata
        buckets, columns = _buckets(path, footer), _schema(path, footer)
        schema = columns if schema is None else schema
        if not columns.equals(schema):
            raise DataError(f"{path} has other columns than {paths[0]}; run its stage with --force")
        groups = np.arange(len(buckets), dtype=np.int32)
        pairs.append(np.stack([buckets, np.full_like(groups, number), groups]))
        cells += footer.num_row_groups * footer.num_columns
        footers.append(footer if cells <= _CACHED_CELLS else None)
    if schema is None:
        raise ValueError("no files to open")
    joined = np.concatenate(pairs, axis=1)
    ordered = joined[:, np.argsort(joined[0], kind="stable")]
    return BucketedFiles(tuple(paths), schema, ordered, tuple(footers))


def write_bucketed(
    path: Path, table: pa.Table, buckets: NDArray[np.int32], compression: str = "lz4"
) -> BucketedFile:
    """Writes rows grouped by bucket, a row group each; within a bucket they keep their order.

    The bytes are a function of the arguments; the file appears under its name when it is whole.

    Args:
        path: File to write; its folder exists.
        table: Rows of one part, all in memory; a bucket's rows are copied at a time.
        buckets: Bucket of each row ``(n,)``, int32.
        compression: A Parquet codec.

    Raises:
        DataError: A bucket has more rows than a row group holds (2**26).
    """
    if buckets.shape != (table.num_rows,):
        raise ValueError(f"buckets of shape {buckets.shape} for {table.num_rows} rows")
    order = np.argsort(buckets, kind="stable")
    present, counts = np.unique(buckets, return_counts=True)
    spans = zip(np.cumsum(counts).tolist(), counts.tolist(), strict=True)
    groups = (table.take(order[end - count : end]).combine_chunks() for end, count in spans)
    return _write(path, table.schema, present.astype(np.int32), groups, compression)


def merge_bucketed(paths: Sequence[Path], out: Path, compression: str = "lz4") -> BucketedFile:
    """Merges files of one bucketed table into one, holding one bucket's rows at a time.

    The result is, byte for byte, what ``write_bucketed`` writes of the files' rows in the order of
    ``paths``.

    Raises:
        DataError: A file is not of a bucketed table, its columns are not those of the first, or a
            bucket has more rows than a row group holds (2**26).
    """
    files = open_bucketed(paths)
    present = files.buckets
    # One chunk each, because pages may end where chunks end.
    groups = (files.read(bucket).combine_chunks() for bucket in present.tolist())
    return _write(out, files.schema, present, groups, compression)


def plan_merges(parts: int, buckets: int, limit: int = 1_000_000) -> tuple[int, ...]:
    """How to merge a table's parts until parts times buckets is at most ``limit``.

    Args:
        parts: Number of files.
        buckets: Number of buckets.
        limit: Most row groups wanted in all; with more buckets than that one file is left.

    Returns:
        For each round how many files go into one, at most ``FAN_IN``; empty if none is needed.
    """
    target = max(1, limit // max(1, buckets))
    rounds = []
    while parts > target:
        group = min(FAN_IN, -(-parts // target))
        rounds.append(group)
        parts = -(-parts // group)
    return tuple(rounds)


def list_bucketed(files: Sequence[Path], buckets: int, folder: Path) -> Path:
    """Writes the list of a table's files, merged first where they are too many.

    Args:
        files: The files that the workers left.
        buckets: Number of buckets.
        folder: Where the list goes, and files that are merged.

    Returns:
        The list, for ``open_listed``; its name is a function of the names of the files.
    """
    for together in plan_merges(len(files), buckets):
        merged = []
        for first in range(0, len(files), together):
            some = files[first : first + together]
            path = folder / f"merged-{_names(some)}.parquet"
            merge_bucketed(some, path)
            merged.append(path)
        files = merged
    listing = folder / f"bucketed-{_names(files)}.json"
    write_whole(listing, json.dumps([str(path) for path in files]))
    return listing


@lru_cache(maxsize=1)
def open_listed(listing: Path) -> BucketedFiles:
    """Opens the files of a list, at least one; a process keeps the footers of the last list."""
    return open_bucketed([Path(name) for name in json.loads(listing.read_text())])


def _names(files: Sequence[Path]) -> str:
    return fingerprint(files=[path.name for path in files])[:16]


def _write(
    path: Path,
    schema: pa.Schema,
    buckets: NDArray[np.int32],
    groups: Iterable[pa.Table],
    compression: str,
) -> BucketedFile:
    options: dict[str, Any] = {
        "compression": compression,
        "use_dictionary": False,
        "write_statistics": False,
    }
    rows = 0
    with HashedFile(path) as file, pq.ParquetWriter(file, schema, **options) as writer:
        for bucket, group in zip(buckets.tolist(), groups, strict=True):
            if group.num_rows > _MOST_ROWS:
                raise DataError(
                    f"bucket {bucket} has {group.num_rows} rows, more than a row group can hold "
                    f"({_MOST_ROWS}); use more buckets"
                )
            writer.write_table(group, row_group_size=group.num_rows)
            rows += group.num_rows
        writer.add_key_value_metadata({_KEY: json.dumps(buckets.tolist(), separators=(",", ":"))})
    return BucketedFile(rows, file.bytes, file.sha256)


def _buckets(path: Path, footer: pq.FileMetaData) -> NDArray[np.int32]:
    """Bucket of each row group."""
    listed = (footer.metadata or {}).get(_KEY)
    buckets = np.array(json.loads(listed) if listed else [], np.int32)
    if listed is None or len(buckets) != footer.num_row_groups:
        raise DataError(f"{path} is no file of a bucketed table; run its stage with --force")
    return buckets


def _schema(path: Path, footer: pq.FileMetaData) -> pa.Schema:
    """The schema that was written: Parquet itself renames the items of lists."""
    stored = (footer.metadata or {}).get(_ARROW_SCHEMA)
    if stored is None:
        raise DataError(f"{path} is no file of a bucketed table; run its stage with --force")
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(stored)))
