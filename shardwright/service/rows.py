"""Rows of ``records`` for a service: found in memory, read from row groups that stay decoded."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import columns_of
from shardwright.metadata.manifest import Manifest, Part

_HELD: Final = 256_000_000
"""Bytes of columns that stay decoded."""

Key = tuple[Path, int, str]


class HeldRows:
    """``metadata.lookup.Rows`` with where each record stands in memory: some 45 bytes a record."""

    def __init__(self, layout: Layout, connection: duckdb.DuckDBPyConnection) -> None:
        """Reads ``lookup``.

        Raises:
            UserError: The records or their ``lookup`` are not committed.
        """
        self._records = layout.need("records", "ingest")
        layout.need("lookup", "ingest")
        query = "SELECT record_id, part, row FROM lookup ORDER BY record_id"
        table = connection.sql(query).to_arrow_table()
        self.ids: pa.StringArray = table["record_id"].combine_chunks()
        self._keys = _fixed(self.ids)
        self._part = table["part"].to_numpy().astype(np.int32)
        self._row = table["row"].to_numpy().astype(np.int32)
        self._parts = list(self._records.parts())
        self._columns = _Columns()

    def part(self, record_id: str) -> Part | None:
        """See ``metadata.lookup.Rows``."""
        (place,) = self._places([record_id])
        return None if place < 0 else self._parts[self._part[place]]

    def read(
        self, record_ids: Sequence[str], columns: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """See ``metadata.lookup.Rows``."""
        names = columns_of(self._records.schema, columns)
        places = self._places(record_ids)
        places = places[places >= 0]
        found: dict[str, dict[str, Any]] = {}
        for part in np.unique(self._part[places]):
            file = self._parts[part].file
            if file is None:
                continue
            rows = self._row[places[self._part[places] == part]]
            for values in self._columns.take(self._records.folder / file, rows, names).to_pylist():
                found[values["record_id"]] = values
        return {record_id: found[record_id] for record_id in record_ids if record_id in found}

    def find(self, path: Path, record_id: str, columns: Sequence[str]) -> dict[str, Any] | None:
        """See ``metadata.lookup.Rows``."""
        return self._columns.find(path, record_id, columns)

    def aligned(
        self, table: Manifest, column: str, places: npt.NDArray[np.int64]
    ) -> pa.ChunkedArray:
        """A column of a table that has a row for each record, in the parts of ``records``.

        Args:
            table: Such as ``signatures``.
            column: Its name.
            places: (n,), positions among ``ids`` of records that are there.

        Returns:
            (n,), in the order of ``places``.
        """
        files = [part.file for part in table.parts()]
        pieces, order = [], []
        for part in np.unique(self._part[places]):
            here = np.flatnonzero(self._part[places] == part)
            path = table.folder / str(files[part])
            pieces += self._columns.take(path, self._row[places[here]], [column])[column].chunks
            order.append(here)
        whole = pa.chunked_array(pieces, table.schema.field(column).type)
        return whole.take(pa.array(np.argsort(np.concatenate([*order, np.empty(0, np.int64)]))))

    def _places(self, record_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Position of each id among ``ids``, -1 where it is not there."""
        width = self._keys.dtype.itemsize
        asked = [one.encode() if one.isascii() else b"" for one in record_ids]
        wanted = np.array([one if len(one) == width else b"" for one in asked], self._keys.dtype)
        places = np.searchsorted(self._keys, wanted)
        places[places == len(self._keys)] = 0
        same = self._keys[places] == wanted if len(self._keys) else np.zeros(len(wanted), bool)
        return np.where(same, places, -1)


class _Columns:
    """Columns of row groups, the latest ones that were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, pa.Array] = OrderedDict()
        self._ends: dict[Path, npt.NDArray[np.int64]] = {}
        self._bytes = 0

    def take(self, path: Path, rows: npt.NDArray[np.int32], names: Sequence[str]) -> pa.Table:
        """Some rows of a file, in their order; those past its end are left out."""
        ends = self._groups(path)
        groups = np.searchsorted(ends, rows, side="right")
        pieces, places = [], []
        for group in np.unique(groups[groups < len(ends)]):
            here = np.flatnonzero(groups == group)
            first = ends[group - 1] if group else 0
            columns = self._read(path, int(group), names)
            chosen = pa.array(rows[here] - first)
            pieces.append(pa.table([column.take(chosen) for column in columns], list(names)))
            places.append(here)
        if not pieces:
            return pa.table({name: [] for name in names})
        return pa.concat_tables(pieces).take(pa.array(np.argsort(np.concatenate(places))))

    def find(self, path: Path, record_id: str, names: Sequence[str]) -> dict[str, Any] | None:
        """The row of a file with an id."""
        for group in range(len(self._groups(path))):
            (ids,) = self._read(path, group, ["record_id"])
            row = pc.index(ids, record_id).as_py()
            if row >= 0:
                columns = self._read(path, group, names)
                return {
                    name: column[row].as_py() for name, column in zip(names, columns, strict=True)
                }
        return None

    def _groups(self, path: Path) -> npt.NDArray[np.int64]:
        """Where each row group of a file ends."""
        ends = self._ends.get(path)
        if ends is None:
            footer = pq.read_metadata(path)
            counts = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
            ends = self._ends[path] = np.cumsum(counts)
        return ends

    def _read(self, path: Path, group: int, names: Sequence[str]) -> list[pa.Array]:
        columns: dict[str, pa.Array] = {}
        with self._lock:
            for name in names:
                key = (path, group, name)
                if key in self._held:
                    self._held.move_to_end(key)
                    columns[name] = self._held[key]
        missing = [name for name in names if name not in columns]
        if missing:
            with pq.ParquetFile(path) as file:
                table = file.read_row_group(group, columns=missing, use_threads=False)
            for name in missing:
                columns[name] = table[name].combine_chunks()
                self._hold((path, group, name), columns[name])
        return [columns[name] for name in names]

    def _hold(self, key: Key, column: pa.Array) -> None:
        with self._lock:
            if key in self._held:  # another thread was first
                return
            self._held[key] = column
            self._bytes += column.nbytes
            while self._bytes > _HELD:
                self._bytes -= self._held.popitem(last=False)[1].nbytes


def _fixed(ids: pa.StringArray) -> npt.NDArray[np.bytes_]:
    """Ids of one length as an array that can be searched."""
    width = len(ids[0].as_py()) if len(ids) else 1
    buffer = ids.cast(pa.binary()).cast(pa.binary(width)).buffers()[1]
    return np.frombuffer(buffer, np.dtype(f"S{width}"), len(ids))
