"""Samples of many shard files by shard and row: files fetched, opened when needed, a few held open.

Nothing here is shared between processes. A pickled ``ShardSet`` is its list of files and stores; it
opens what it needs again where it is unpickled.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from shardwright.errors import UserError
from shardwright.metadata.filelist import ListedFile
from shardwright.shards.added import added_format
from shardwright.shards.store import Store

Sample = dict[str, Any]

_OPEN: Final = 256
"""Shard files that are held open at a time; a process may have some 1,000 files."""


class ShardReader(Protocol):
    """Random access to the samples of one shard file."""

    def __len__(self) -> int:
        """Number of samples."""

    def read(self, rows: NDArray[np.int64]) -> list[Sample]:
        """Samples by their positions ``(k,)`` in the shard, in the order asked for."""


@dataclass(frozen=True)
class _Chosen:
    """Some columns of what another reader reads."""

    reader: ShardReader
    path: Path
    columns: Sequence[str]

    def __len__(self) -> int:
        return len(self.reader)

    def read(self, rows: NDArray[np.int64]) -> list[Sample]:
        found = self.reader.read(rows)
        try:
            return [{name: sample[name] for name in self.columns} for sample in found]
        except KeyError as error:
            known = ", ".join(sorted(found[0]))
            raise UserError(f"{self.path}: no column {error}; there are {known}") from None


def open_shard(path: Path, kind: str, columns: Sequence[str] | None = None) -> ShardReader:
    """Opens a shard file.

    Args:
        path: The file.
        kind: Its format as the list of files gives it: ``mds``, ``webdataset``, ``parquet``, or
            one that a package adds.
        columns: Columns to read, all of them if None.

    Raises:
        DataError: The file is damaged.
        UserError: The format is unknown, or a column is.
    """
    if kind == "mds":
        from shardwright.shards.mds_reader import MdsReader

        return MdsReader(path, columns)
    if kind == "parquet":
        from shardwright.shards.parquet_reader import ParquetReader

        return ParquetReader(path, columns)
    if kind == "webdataset":
        from shardwright.shards.tar_reader import TarReader

        return TarReader(path) if columns is None else _Chosen(TarReader(path), path, columns)
    try:
        added = added_format(kind)
    except UserError as error:
        raise UserError(f"{path}: no reader for shards of format {kind!r}: {error}") from None
    reader = added.open(path)
    return reader if columns is None else _Chosen(reader, path, columns)


@dataclass
class ShardSet:
    """Shard files of one or more locations, numbered through.

    Attributes:
        files: Location and entry of each shard file; its place is the shard's number.
        opener: Opens the store of a location; picklable.
        columns: Columns to read, all of them if None.
    """

    files: Sequence[tuple[str, ListedFile]]
    opener: Callable[[str], Store]
    columns: Sequence[str] | None = None
    _stores: dict[str, Store] = field(default_factory=dict, init=False, repr=False)
    _readers: OrderedDict[int, ShardReader] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    def read(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> list[Sample]:
        """Samples by shard and row, in the order asked for.

        Each shard is read once, its rows in their order in the file.

        Args:
            shards: Numbers of shards, ``(k,)``.
            rows: Positions in them, ``(k,)``.

        Raises:
            DataError: A shard file cannot be had or is damaged.
        """
        sort = np.lexsort((rows, shards))
        shards, rows = shards[sort], rows[sort]
        edges = np.flatnonzero(np.diff(shards)) + 1
        found: list[Sample] = []
        for group, part in zip(np.split(shards, edges), np.split(rows, edges), strict=True):
            if len(group):
                found += self._reader(int(group[0])).read(part)
        back = np.empty(len(sort), np.int64)
        back[sort] = np.arange(len(sort))
        return [found[place] for place in back.tolist()]

    def prefetch(self, shards: NDArray[np.int64]) -> None:
        """Begins to fetch shards, soonest needed first."""
        by_location: dict[str, list[ListedFile]] = {}
        for shard in shards.tolist():
            location, file = self.files[shard]
            by_location.setdefault(location, []).append(file)
        for location, files in by_location.items():
            self._store(location).prefetch(files)

    def check(self) -> None:
        """Fetches every file, and hashes it as the store is told to.

        Raises:
            DataError: The first file that cannot be had or is damaged.
        """
        self.prefetch(np.arange(len(self.files)))
        for location, file in self.files:
            self._store(location).fetch(file)

    def close(self) -> None:
        """Lets go of files and of what is fetched ahead; all opens again when it is needed."""
        self._readers.clear()
        for store in self._stores.values():
            store.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": OrderedDict()}

    def _store(self, location: str) -> Store:
        if location not in self._stores:
            self._stores[location] = self.opener(location)
        return self._stores[location]

    def _reader(self, shard: int) -> ShardReader:
        location, file = self.files[shard]
        reader = self._readers.get(shard)
        if reader is not None:
            self._store(location).recheck(file)
            self._readers.move_to_end(shard)
            return reader
        reader = self._store(location).open_with(
            file, lambda path: open_shard(path, file.format, self.columns)
        )
        self._readers[shard] = reader
        if len(self._readers) > _OPEN:
            self._readers.popitem(last=False)
        return reader
