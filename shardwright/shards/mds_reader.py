"""Random access to the samples of an MDS shard, decoded many at a time.

The format is described in ``shards.mds``. Lengths and numbers of all samples asked for are gathered
with a few array operations; Python touches a sample only to cut its texts and to make its dict
(a slice of the map and its ``decode`` are faster together than ``str`` of a slice of a memoryview).
"""

import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shardwright.errors import DataError, UserError

_NUMBERS: Final = {"int": "<i8", "float64": "<f8"}
_LENGTH: Final = np.dtype("<u4")
_CONFIG_LIMIT: Final = 10_000_000


class MdsReader:
    """The samples of one MDS shard that ``shards.mds`` wrote.

    The file is mapped into memory and nothing is held beside it but its offsets, in the map too. A
    pickled reader opens the file again where it is unpickled.

    Args:
        path: The shard file.
        columns: Columns to read, all of them if None.

    Raises:
        DataError: The file is no such shard, or it ends early.
        UserError: It has no such column.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        self._path, self._columns = path, columns
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(self._map, np.uint8)
            count = int(np.frombuffer(self._map, _LENGTH, 1)[0])
            offsets = np.frombuffer(self._map, _LENGTH, count + 1, 4)
            head = 4 + offsets.nbytes
            self._offsets = offsets
            if int(offsets[-1]) != len(self._map) or not 0 < int(offsets[0]) - head < _CONFIG_LIMIT:
                raise ValueError("its offsets do not end where it does")
            config = json.loads(self._map[head : int(offsets[0])])
            names, encodings = config["column_names"], config["column_encodings"]
            self._kinds = dict(zip(names, encodings, strict=True))
            strange = set(encodings) - {"str", "bytes", *_NUMBERS}
            if strange:
                raise ValueError(f"encoding {', '.join(sorted(strange))} is not known here")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: no readable MDS shard ({error})") from None
        self._wanted = list(self._kinds) if columns is None else list(columns)
        for name in self._wanted:
            if name not in self._kinds:
                raise UserError(
                    f"{path}: no column {name!r}; there are {', '.join(sorted(self._kinds))}"
                )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Samples by their positions in the shard, in the order asked for.

        Raises:
            DataError: A sample is damaged.
        """
        if not len(rows):
            return []
        starts = self._offsets[rows].astype(np.int64)
        ends = self._offsets[rows + 1].astype(np.int64)
        bounds = self._bounds(rows, starts, ends)
        values = []
        places = {name: place for place, name in enumerate(self._kinds)}
        for name in self._wanted:
            place = places[name]
            values.append(
                self._column(self._kinds[name], rows, bounds[:, place], bounds[:, place + 1])
            )
        names = self._wanted
        return [dict(zip(names, sample, strict=False)) for sample in zip(*values, strict=True)]

    def __reduce__(self) -> tuple[type["MdsReader"], tuple[Path, Sequence[str] | None]]:
        return MdsReader, (self._path, self._columns)

    def _bounds(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Where each column of each sample starts, and the last one ends: ``(k, columns + 1)``."""
        numbers = np.array([kind in _NUMBERS for kind in self._kinds.values()])
        variable = int((~numbers).sum())
        head = _LENGTH.itemsize * variable
        widths = np.full((len(rows), len(numbers)), 8, np.int64)
        self._refuse(rows, (starts + head > ends) | (ends > len(self._map)))
        widths[:, ~numbers] = self._gather(starts, head).view(_LENGTH)
        bounds = np.empty((len(rows), len(numbers) + 1), np.int64)
        bounds[:, 0] = starts + head
        np.cumsum(widths, axis=1, out=bounds[:, 1:])
        bounds[:, 1:] += bounds[:, :1]
        self._refuse(rows, bounds[:, -1] != ends)
        return bounds

    def _gather(self, starts: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """``width`` bytes from each start on: ``(k, width)``."""
        return self._bytes[starts[:, None] + np.arange(width)]

    def _column(
        self, kind: str, rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> list[Any]:
        if kind in _NUMBERS:
            numbers: list[Any] = self._gather(starts, 8).view(_NUMBERS[kind])[:, 0].tolist()
            return numbers
        whole = self._map
        cuts = zip(starts.tolist(), ends.tolist(), strict=True)
        if kind == "bytes":
            return [whole[start:end] for start, end in cuts]
        try:
            return [whole[start:end].decode() for start, end in cuts]
        except UnicodeDecodeError:
            for row, start, end in zip(rows, starts, ends, strict=True):
                try:
                    whole[start:end].decode()
                except UnicodeDecodeError as error:
                    raise self._damaged(row, row, f"no UTF-8: {error.reason}") from None
            raise

    def _refuse(self, rows: NDArray[np.int64], wrong: NDArray[np.bool_]) -> None:
        if wrong.any():
            found = rows[wrong]
            raise self._damaged(found.min(), found.max(), "lengths do not add up")

    def _damaged(self, first: np.int64, last: np.int64, why: str) -> DataError:
        which = f"record {first}" if first == last else f"records {first} to {last}"
        return DataError(
            f"{self._path}: {which} of {len(self)}: damaged ({why}); "
            "shardwright verify names every damaged file"
        )
