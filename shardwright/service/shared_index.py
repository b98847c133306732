"""Searches of several requests at once, answered in one pass over the vectors."""

import threading
from concurrent.futures import Future

import numpy as np

from shardwright.embeddings.recall import Float32, Recall
from shardwright.embeddings.search import Answer, SearchIndex


class SharedIndex:
    """An index that is searched once at a time: what comes meanwhile waits, and is one search.

    A pass over all vectors takes nearly as long for one query as for eight. The last digits of a
    similarity depend on how many queries a pass has.
    """

    def __init__(self, index: SearchIndex) -> None:
        self._index = index
        self._running = threading.Lock()
        self._adding = threading.Lock()
        self._waiting: list[tuple[Float32, int, Future[Answer]]] = []

    @property
    def recall(self) -> Recall | None:
        """See ``embeddings.search.SearchIndex.recall``."""
        return self._index.recall

    def vector(self, record_id: str) -> Float32 | None:
        """See ``embeddings.search.SearchIndex.vector``."""
        return self._index.vector(record_id)

    def search(self, vectors: Float32, k: int) -> Answer:
        """See ``embeddings.search.SearchIndex.search``."""
        mine: Future[Answer] = Future()
        with self._adding:
            self._waiting.append((vectors, k, mine))
        with self._running:
            if not mine.done():  # nobody's pass took it along
                with self._adding:
                    asked = [one for one in self._waiting if one[1] == k]
                    self._waiting = [one for one in self._waiting if one[1] != k]
                self._answer([one[0] for one in asked], k, [one[2] for one in asked])
        return mine.result()

    def _answer(self, asked: list[Float32], k: int, futures: list[Future[Answer]]) -> None:
        try:
            found = self._index.search(np.concatenate(asked), k)
        except Exception as error:
            for future in futures:
                future.set_exception(error)
            return
        ends = np.cumsum([len(vectors) for vectors in asked])
        for future, vectors, end in zip(futures, asked, ends, strict=True):
            own = slice(end - len(vectors), end)
            future.set_result(Answer(found.ids[own], found.similarities[own]))
