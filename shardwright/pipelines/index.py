"""The job of the index: each task writes a stretch of the vectors as parts of an inverted file.

What it does is in ``embeddings.build``; torch is imported where it runs.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.device import resolve_device
from shardwright.metadata.files import fingerprint, sha256_file
from shardwright.metadata.manifest import Manifest
from shardwright.pipelines.alive import LivePart, live_batches
from shardwright.pipelines.clustering import share_cores
from shardwright.pipelines.jobs import Job, Output, Task
from shardwright.pipelines.vectors import matrix

if TYPE_CHECKING:
    from shardwright.embeddings.build import Wish
    from shardwright.embeddings.ivf import Lists, Part
    from shardwright.embeddings.recall import Truth

# A task takes small parts together: the merge holds the sizes of all lists of each task.
_LEAST_ROWS, _MOST_TASKS = 16_384, 1000


@dataclass(frozen=True)
class WriteLists:
    """Sorts vectors into lists, and finds the exact neighbours of the queries among them.

    Attributes:
        wish: What the index is to be.
        trained: File that ``save_trained`` wrote.
        driver: The process that made this.
    """

    wish: "Wish"
    trained: Path
    driver: int = field(default_factory=os.getpid)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["parts"]``, whose first live vector has row ``payload["first"]``."""
        from shardwright.embeddings.build import fill_lists
        from shardwright.embeddings.ivf import Lists
        from shardwright.embeddings.recall import Truth

        share_cores(self.driver)
        with np.load(self.trained) as arrays:
            trained = dict(arrays)
        lists = Lists(trained["centroids"], trained.get("codebooks"))
        truth = Truth(trained["queries"], resolve_device(self.wish.device, "index.device"))

        def file(number: int, name: str) -> Path:
            return output.file(f".{number}.{name}.npy")

        blocks, first = _blocks(payload["parts"]), payload["first"]
        count = fill_lists(file, lists, truth, blocks, trained["held"], self.wish, first)
        np.save(output.file(".best.npy"), truth.best)
        output.result = {"parts": count}


def _blocks(parts: Sequence[tuple[str, list[int]]]) -> Iterator[npt.NDArray[np.float32]]:
    """The live vectors of parts of embeddings."""
    for path, dropped in parts:
        for batch in live_batches(Path(path), ["vector"], dropped, rows=4096):
            yield matrix(batch.column("vector"))


def save_trained(
    path: Path, lists: "Lists", queries: npt.NDArray[np.float32], held: npt.NDArray[np.int64]
) -> None:
    """Writes what all tasks need to know: the lists, and the queries and their rows."""
    books = {} if lists.codebooks is None else {"codebooks": lists.codebooks}
    np.savez(path, centroids=lists.centroids, queries=queries, held=held, **books)


def list_tasks(
    embeddings: Manifest, live: Sequence[LivePart], rows: int, work: str, trained: Path
) -> Iterator[Task]:
    """A task for each stretch of parts with enough vectors; the cut changes no byte of the index.

    Args:
        embeddings: The vectors.
        live: Its parts and what is not alive of them.
        rows: How many vectors are alive.
        work: Fingerprint of the index.
        trained: File that ``save_trained`` wrote.
    """
    enough = max(_LEAST_ROWS, -(-rows // _MOST_TASKS))
    known = sha256_file(trained)
    parts: list[tuple[str, list[int]]] = []
    first = count = size = number = 0
    last = len(live) - 1
    for place, (part, dropped) in enumerate(live):
        if part.file is not None:
            parts.append((str(embeddings.folder / part.file), dropped))
            count, size = count + part.rows - len(dropped), size + part.bytes
        if parts and (count >= enough or place == last):
            named = fingerprint(work=work, trained=known, rows=[first, first + count])
            yield Task(f"{number:08d}", named, {"parts": parts, "first": first}, size)
            parts, first, count, size, number = [], first + count, 0, 0, number + 1


def collect(job: Job, truth: "Truth") -> "list[Part]":
    """The parts that a job wrote, in order; what its tasks found goes to the truth."""
    from shardwright.embeddings.ivf import Part

    found: list[Part] = []
    for task, left in job.results():
        truth.join(np.load(job.folder / f"{task.name}.best.npy"))
        found += [Part(job.folder / f"{task.name}.{number}") for number in range(left["parts"])]
    return found
