"""Random access to the samples of a Parquet shard, a row group at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shardwright.errors import DataError, UserError


class ParquetReader:
    """The samples of one Parquet shard.

    The file is mapped into memory. ``read`` decompresses each row group that it needs once, so rows
    are best asked for many at a time; the last row group stays in memory until its last row was
    read. Checksums of pages are compared. A pickled reader opens the file again where it is
    unpickled.

    Args:
        path: The shard file.
        columns: Columns to read, all of them if None; others are not decompressed.

    Raises:
        DataError: The file is no Parquet, or its end is damaged.
        UserError: It has no such column.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._path, self._columns = path, columns
        try:
            self._file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise DataError(f"{path}: no readable Parquet ({_line(error)})") from None
        names = self._file.schema_arrow.names
        for name in columns or ():
            if name not in names:
                raise UserError(f"{path}: no column {name!r}; there are {', '.join(sorted(names))}")
        self._wanted = names if columns is None else list(columns)
        footer = self._file.metadata
        counts = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        self._held: tuple[int, pa.Table | None] = (-1, None)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Samples by their positions in the shard, in the order asked for.

        Raises:
            DataError: A row group is damaged.
        """
        samples: list[dict[str, Any]] = [{}] * len(rows)
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group)
            table = self._group(group)
            inside = table.take(pa.array(rows[places] - self._starts[group]))
            if rows[places].max() + 1 == self._starts[group + 1]:
                self._held = (-1, None)
            for place, sample in zip(places.tolist(), inside.to_pylist(), strict=True):
                samples[place] = sample
        return samples

    def __reduce__(self) -> tuple[type["ParquetReader"], tuple[Path, Sequence[str] | None]]:
        return ParquetReader, (self._path, self._columns)

    def _group(self, group: int) -> pa.Table:
        held, table = self._held
        if held != group or table is None:
            try:
                read = self._file.read_row_group(group, columns=self._wanted, use_threads=False)
                table = read.select(self._wanted)
            except (pa.ArrowInvalid, OSError) as error:
                first, last = self._starts[group], self._starts[group + 1] - 1
                raise DataError(
                    f"{self._path}: records {first} to {last} of {len(self)} are damaged "
                    f"({_line(error)}); shardwright verify names every damaged file"
                ) from None
            self._held = (group, table)
        return table


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
