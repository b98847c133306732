"""A FAISS ``IndexFlatIP`` written to a file batch by batch.

FAISS itself writes an index only when it holds all of it. A flat index is a short header and the
vectors as they are, so its file can be streamed. The header's layout is FAISS's own affair: the
writer takes the bytes from FAISS and proves on a tiny index, each time, that it knows which of
them count the vectors.
"""

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from shardwright.metadata.files import make_durable

_VECTORS_AT = 8
"""Offset of the number of vectors, int64, behind the four-letter type and the dimension."""
_FLOATS_FROM_END = 8
"""The header ends with the number of floats that follow, uint64."""


class FlatIndexWriter:
    """Context manager that writes unit vectors to a FAISS index file, none held back.

    The file appears under its name only when the block ends without an error, flushed to disk;
    plain ``faiss.read_index`` opens it, and its bytes are those of ``faiss.write_index`` for an
    index with the same vectors.

    Example:
        with FlatIndexWriter("vectors.faiss", 256) as index:
            for batch in batches:
                index.add(batch)
    """

    def __init__(self, path: str | os.PathLike[str], dimension: int) -> None:
        """Prepares a file of vectors of a given dimension; touches nothing yet.

        Args:
            path: the file; one that is there is replaced.
            dimension: length of a vector, at least 1.

        Raises:
            ValueError: the dimension is below 1.
            RuntimeError: the installed FAISS lays its file out in another way.
        """
        if dimension < 1:
            raise ValueError(f"dimension is {dimension}: it must be at least 1")
        self.path = Path(path)
        self.dimension = dimension
        self.count = 0
        self._staged = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._file: BinaryIO | None = None
        _verify_layout(dimension)

    def __enter__(self) -> Self:
        self._file = self._staged.open("wb")
        self._file.write(flat_header(self.dimension, 0))
        return self

    def add(self, vectors: npt.NDArray[np.float32]) -> None:
        """Appends vectors float32 [n, dimension].

        Raises:
            TypeError: they are not float32.
            ValueError: their shape is another, or the writer is not inside its ``with`` block.
        """
        if self._file is None:
            raise ValueError("the index is not open: call add inside the with block")
        if vectors.dtype != np.float32:
            raise TypeError(f"vectors are {vectors.dtype}: an index holds float32")
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(f"vectors have shape {vectors.shape}, not [n, {self.dimension}]")
        self._file.write(np.ascontiguousarray(vectors, dtype="<f4").data)
        self.count += len(vectors)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        try:
            with self._file as file:
                if kind is None:
                    file.seek(0)
                    file.write(flat_header(self.dimension, self.count))
                    file.flush()
                    os.fsync(file.fileno())
            if kind is None:
                self._staged.replace(self.path)
                make_durable(self.path.parent)
        finally:
            self._file = None
            self._staged.unlink(missing_ok=True)


def flat_header(dimension: int, count: int) -> bytes:
    """What stands before ``count`` vectors in the file of an ``IndexFlatIP``."""
    import faiss

    header = bytearray(faiss.serialize_index(faiss.IndexFlatIP(dimension)).tobytes())
    struct.pack_into("<q", header, _VECTORS_AT, count)
    struct.pack_into("<Q", header, len(header) - _FLOATS_FROM_END, count * dimension)
    return bytes(header)


def _verify_layout(dimension: int) -> None:
    """Raises RuntimeError unless FAISS lays out two vectors as this module would."""
    import faiss

    vectors = np.arange(2 * dimension, dtype="<f4").reshape(2, dimension)
    index = faiss.IndexFlatIP(dimension)
    index.add(vectors)
    if faiss.serialize_index(index).tobytes() != flat_header(dimension, 2) + vectors.tobytes():
        raise RuntimeError(
            f"FAISS {faiss.__version__} lays out IndexFlatIP in a way that this version of "
            "shardwright does not know: install another FAISS or a newer shardwright"
        )
