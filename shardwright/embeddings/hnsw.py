"""HNSW graphs of FAISS, with the same bytes on every run.

A graph depends on the order in which its vectors are linked, and FAISS links as many at a time as
there are threads. Here one thread links blocks of a fixed size, in order (Malkov and Yashunin
2018, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
World graphs", arXiv:1603.09320, algorithm 1). Vectors and links are held while it is built.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from shardwright.embeddings.recall import Float32

LINKS = 16
"""Neighbours of a vector above the lowest level, M in the paper; twice as many on the lowest."""
_WIDTH = 120
"""Candidates while linking, efConstruction in the paper."""
_BLOCK = 8192
"""Rows linked at once: FAISS links those of a block from the highest level down."""


class HnswBuilder:
    """Links vectors in the order in which they come."""

    def __init__(self, dimension: int) -> None:
        """An index without vectors."""
        faiss: Any = import_module("faiss")

        self.index: Any = faiss.IndexHNSWFlat(dimension, LINKS, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = _WIDTH
        self._waiting = np.empty((0, dimension), np.float32)

    def add(self, vectors: Float32) -> None:
        """Adds vectors float32 [n, dimension]; how they are cut into calls changes nothing."""
        rows = np.concatenate([self._waiting, vectors])
        whole = len(rows) - len(rows) % _BLOCK
        with _one_thread():
            for start in range(0, whole, _BLOCK):
                self.index.add(rows[start : start + _BLOCK])
        self._waiting = rows[whole:]

    def flush(self) -> None:
        """Links what waits for its block to fill."""
        with _one_thread():
            if len(self._waiting):
                self.index.add(self._waiting)
        self._waiting = self._waiting[:0]

    def write(self, path: Path, depth: int) -> None:
        """Writes a file whose searches keep ``depth`` candidates, efSearch in the paper."""
        faiss: Any = import_module("faiss")

        self.flush()
        self.index.hnsw.efSearch = depth
        faiss.write_index(self.index, str(path))


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS on one thread; a setting of the process, put back behind."""
    faiss: Any = import_module("faiss")

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
