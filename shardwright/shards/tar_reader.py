"""Random access to the samples of a tar shard: its headers are scanned once, when it is opened."""

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardwright.errors import DataError
from shardwright.shards.tar import BLOCK, END, read_header


class TarReader:
    """The samples of one tar shard that ``shards.tar`` wrote.

    The file is mapped into memory; 32 bytes a sample are held beside it. A pickled reader opens the
    file again where it is unpickled.

    Raises:
        DataError: The file is no such archive, or it ends early.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            try:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:  # nothing can be mapped of an empty file
                raise DataError(f"{path}: an empty file, no tar archive") from None
        self._places, self._column = self._scan()

    def __len__(self) -> int:
        return len(self._places)

    def read(self, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Samples by their positions in the shard, in the order asked for.

        Raises:
            DataError: A sample is damaged.
        """
        return [self._sample(row) for row in rows.tolist()]

    def __reduce__(self) -> tuple[type["TarReader"], tuple[Path]]:
        return TarReader, (self._path,)

    def _sample(self, row: int) -> dict[str, Any]:
        start, size, told_start, told_size = self._places[row].tolist()
        data = self._data[start : start + size]
        try:
            told = json.loads(self._data[told_start : told_start + told_size])
            payload = data.decode() if self._column == "content" else data
            return {"record_id": told.pop("record_id"), self._column: payload, **told}
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"{self._path}: record {row} of {len(self)} is damaged ({error}); "
                "shardwright verify names every damaged file"
            ) from None

    def _scan(self) -> tuple[NDArray[np.int64], str]:
        """Places ``(n, 4)`` of payload and JSON (start, size), and the payload's column."""
        places: list[int] = []
        at, end, column, before = 0, len(self._data) - len(END), "image", ""
        try:
            while at < end:
                name, size = read_header(self._data, at)
                key, _, suffix = name.partition(".")
                second = len(places) % 4 == 2
                if second and (key != before or suffix != "json"):
                    raise ValueError(f"{name} stands behind a member of {before}")
                if not second and suffix == "txt":
                    column = "content"
                places += (at + BLOCK, size)
                before = key
                at += BLOCK + -(-size // BLOCK) * BLOCK
            if at != end or len(places) % 4 or self._data[end:] != END:
                raise ValueError("it does not end where its last sample does")
        except ValueError as error:
            raise DataError(
                f"{self._path}: damaged from record {len(places) // 4} on ({error}); "
                "shardwright verify names every damaged file"
            ) from None
        return np.array(places, np.int64).reshape(-1, 4), column
