"""The curations that a service has open, each as it stands on the disk now."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from shardwright.embeddings.encoder import Encoder, TorchOptions, Window
from shardwright.embeddings.model import Model
from shardwright.embeddings.recall import Float32
from shardwright.embeddings.search import FEW, SearchIndex, open_index
from shardwright.errors import DataError, UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.credentials import recipe_without_credentials
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout, opened
from shardwright.metadata.manifest import MANIFEST
from shardwright.service import overview
from shardwright.service.blocks import Block
from shardwright.service.contents import contents
from shardwright.service.pointmap import Places, places
from shardwright.service.presence import Presence
from shardwright.service.rows import HeldRows
from shardwright.service.together import Together

State = tuple[tuple[str, int, int], ...]
Near = list[tuple[str, float]]


@dataclass(frozen=True)
class Content:
    """Something to look for.

    Attributes:
        data: A text in UTF-8, or an encoded image that decodes.
        language: Of a text: empty is none that is known, None is not said.
        record: Id of the record that it is.
    """

    data: bytes
    language: str | None = None
    record: str | None = None


Query = tuple[Sequence[Content], int]


class Held:
    """One curation in one state: what is loaded of it is loaded when it is first asked for.

    Attributes:
        name: In addresses.
        layout: Of its folder.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.layout = opened(folder)
        self.state = state(self.layout)
        self._lock = threading.RLock()
        self._open = connect(self.layout)
        self._connection = self._open.__enter__()

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The recipe as it ran."""
        return overview.recipe(self.layout)

    @cached_property
    def shown_recipe(self) -> dict[str, Any]:
        """The recipe without credentials."""
        return recipe_without_credentials(self.recipe)

    @cached_property
    def modality(self) -> str:
        """``code`` or ``image``."""
        return overview.modality(self.layout)

    @cached_property
    def method(self) -> str | None:
        """The scores that records were pruned by."""
        return overview.method(self.layout, self.recipe)

    @cached_property
    def contents(self) -> list[Block]:
        """What its page says."""
        with self.cursor() as connection:
            return list(contents(self.layout, connection, self.recipe, self.name))

    @cached_property
    def searchable(self) -> bool:
        """Whether there is an index to search in."""
        return read_file_list(self.layout.indexes) is not None

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of one thread to the tables."""
        cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def index(self, *, kept: bool = False) -> SearchIndex:
        """Of the live records, or of those that were kept in the end.

        Raises:
            UserError: There is none, or there are no decisions.
        """
        with self._lock:
            return self._kept_index if kept else self._index

    def nearest(self, items: Sequence[Content], k: int, *, kept: bool = False) -> list[Near]:
        """Records near each item, best first; searches at the same time are one pass.

        The last digits of a cosine depend on how many queries a pass has.

        Raises:
            UserError: There is no index, or an item cannot be embedded.
        """
        return (self._ask_kept if kept else self._ask_all).answer((items, k))

    @cached_property
    def _ask_all(self) -> Together[Query, list[Near]]:
        return Together(partial(self._nearest, kept=False))

    @cached_property
    def _ask_kept(self) -> Together[Query, list[Near]]:
        return Together(partial(self._nearest, kept=True))

    def _nearest(self, queries: Sequence[Query], kept: bool) -> list[list[Near]]:
        faiss: Any = import_module("faiss")
        index = self.index(kept=kept)
        vectors = self._vectors([item for items, _ in queries for item in items])
        wanted = np.array([k for items, k in queries for _ in items])
        near: list[Near] = [[] for _ in wanted]
        # One query is faster on one core; the number is this thread's.
        faiss.omp_set_num_threads(max(1, min(len(vectors), len(os.sched_getaffinity(0)))))
        for k in np.unique(wanted):
            places = np.flatnonzero(wanted == k)
            found = index.search(vectors[places], int(k))
            for place, names, cosines in zip(places, found.ids, found.similarities, strict=True):
                pairs = zip(names, cosines, strict=True)
                near[place] = [(str(name), float(one)) for name, one in pairs if name is not None]
        rest = iter(near)
        return [list(islice(rest, len(items))) for items, _ in queries]

    def _vectors(self, items: Sequence[Content]) -> Float32:
        """Unit vectors [n, d]: those of records as they were found, others by the model."""
        index = self.index()
        known = [None if one.record is None else index.vector(one.record) for one in items]
        unknown = [item for item, vector in zip(items, known, strict=True) if vector is None]
        new = self._embedded(unknown)
        rows = [next(new) if vector is None else vector for vector in known]
        return np.array(rows, np.float32)

    def _embedded(self, items: Sequence[Content]) -> Iterator[Float32]:
        if not items:
            return iter(())
        try:
            if self.modality == "image":
                return iter(self.encoder.encode([one.data for one in items]))
            return iter(self.encoder.encode([one.data.decode() for one in items]))
        except DataError as error:
            raise UserError(str(error)) from None

    @property
    def encoder(self) -> Encoder:
        """The model that made the vectors, loaded once.

        Raises:
            UserError: The curation has no vectors.
        """
        with self._lock:
            return self._encoder

    @property
    def rows(self) -> HeldRows:
        """The records.

        Raises:
            UserError: There is no ``lookup`` of them.
        """
        with self._lock:
            return self._rows

    @property
    def presence(self) -> Presence:
        """What tells whether an item is here already."""
        with self._lock:
            return self._presence

    @property
    def places(self) -> Places:
        """Where the records stand on the map.

        Raises:
            UserError: There are no vectors.
        """
        with self._lock:
            return self._places

    @cached_property
    def _places(self) -> Places:
        with self.cursor() as connection:
            return places(self.layout, connection)

    @cached_property
    def _index(self) -> SearchIndex:
        return open_index(self.layout.root)

    @cached_property
    def _kept_index(self) -> SearchIndex:
        return open_index(self.layout.root, kept=True)

    @cached_property
    def _encoder(self) -> Encoder:
        section = self.recipe.get("embedding")
        if not section:
            raise UserError(
                f"{self.name}: its recipe has no embedding, so nothing is near anything"
            )
        return model_of(section, self.modality).load()

    @cached_property
    def _presence(self) -> Presence:
        return Presence(self.layout, self._connection.cursor(), self.rows, self.recipe)

    @cached_property
    def _rows(self) -> HeldRows:
        with self.cursor() as connection:
            return HeldRows(self.layout, connection)

    def nearest_kept(self, record_id: str) -> tuple[str, float] | None:
        """The kept record that is nearest to another, and their cosine, by the index.

        An index that compares with all finds it; of others the caller does not ask it.
        """
        vector = self.index().vector(record_id)
        if vector is None:
            return None
        answer = self.index(kept=True).search(vector[None], 2)
        for found, cosine in zip(answer.ids[0], answer.similarities[0], strict=True):
            if found not in (None, record_id):
                return str(found), float(cosine)
        return None

    @property
    def exact(self) -> bool:
        """Whether there is an index, and searches among what was kept compare with all."""
        if not self.searchable or not self._kept:
            return False
        return self._kept <= FEW or self.index().recall is None

    @cached_property
    def _kept(self) -> int:
        with self.cursor() as connection:
            return overview.totals(self.layout, connection).kept or 0

    def close(self) -> None:
        """Ends its connection."""
        self._open.__exit__(None, None, None)


class Library:
    """All curations of a service. One that was run again is opened again when it is asked for."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Opens the curations.

        Raises:
            UserError: A folder holds none.
        """
        self._folders = dict(folders)
        self._lock = threading.Lock()
        self._held = {name: Held(name, folder) for name, folder in folders.items()}

    @property
    def names(self) -> list[str]:
        """Of the curations, in the order in which they were named."""
        return list(self._folders)

    def get(self, name: str) -> Held | None:
        """A curation as it stands now; None where there is none of this name."""
        with self._lock:
            held = self._held.get(name)
            if held is not None and held.state != state(held.layout):
                # Requests that still have the old one go on with it; it goes with the last of them.
                held = self._held[name] = Held(name, self._folders[name])
            return held

    def close(self) -> None:
        """Closes all."""
        for held in self._held.values():
            held.close()


def state(layout: Layout) -> State:
    """What changes when something is committed: time and size of each manifest."""
    folders = [*(layout.root / "tables").iterdir(), layout.shards, layout.indexes]
    found = []
    for folder in folders:
        try:
            stat = (folder / MANIFEST).stat()
        except OSError:
            continue
        found.append((folder.name, stat.st_mtime_ns, stat.st_size))
    return tuple(sorted(found))


def model_of(section: Mapping[str, Any], modality: str) -> Model:
    """The model of a recipe's section ``embedding``, on whatever device is here.

    Raises:
        UserError: A setting is missing.
    """
    try:
        window = section["window"]
        options = TorchOptions(
            section["compute"],
            None if window is None else Window(**window),
            section["compile"],
            section["draft"],
        )
        return Model(
            section["model"], modality, "auto", section["dtype"], section["batch_size"], options
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"recipe.json: embedding says nothing of {error}") from None
