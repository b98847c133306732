"""``decontaminate``: records that hold an item of a benchmark, or closely resemble one."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shardwright.metadata.files import fingerprint, write_whole
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import CONTAMINATION
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.alive import (
    alive_parts,
    drop_parameters,
    drops_query,
    live_batches,
)
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Decontaminate, Recipe
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import matrix
from shardwright.quality.contamination import (
    Item,
    NgramIndex,
    hits,
    nearest_items,
    ngram_index,
    read_items,
)
from shardwright.quality.shingles import shingle_hashes

VERSION = "1"
_ROWS = 256


@dataclass(frozen=True)
class ComparePart:
    """Compares the live records of a part with the items of the benchmarks.

    Attributes:
        settings: The recipe's ``decontaminate``.
        names: JSON file of [benchmark, item] in order.
        index: File of the items' n-grams; None compares none.
        vectors: File of the items' vectors [m, d] float32; None compares none.
    """

    settings: Decontaminate
    names: Path
    index: Path | None
    vectors: Path | None

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` and ``payload["embeddings"]`` into ``contamination``."""
        names = json.loads(self.names.read_text())
        found: list[tuple[str, str, str, str, float]] = []
        if self.index is not None and payload["records"] is not None:
            for record_id, item, similarity in self._by_ngrams(payload):
                found.append((record_id, *names[item], "ngram", similarity))
        if self.vectors is not None and payload["embeddings"] is not None:
            for record_id, item, similarity in self._by_vectors(payload):
                found.append((record_id, *names[item], "embedding", similarity))
        if found:
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*found, strict=True), CONTAMINATION, strict=True)
            ]
            output.write("contamination", pa.RecordBatch.from_arrays(columns, schema=CONTAMINATION))

    def _by_ngrams(self, payload: dict[str, Any]) -> Iterator[tuple[str, int, float]]:
        assert self.index is not None
        assert self.settings.overlap is not None
        index = NgramIndex.load(self.index)
        path, columns = Path(payload["records"]), ["record_id", "content"]
        for batch in live_batches(path, columns, payload["dropped"], rows=_ROWS):
            for row in range(batch.num_rows):
                data = batch.column("content")[row].as_buffer().to_pybytes()
                shingles = shingle_hashes(data, self.settings.ngram)
                for item, share in hits(index, shingles, self.settings.overlap):
                    yield batch.column("record_id")[row].as_py(), item, share

    def _by_vectors(self, payload: dict[str, Any]) -> Iterator[tuple[str, int, float]]:
        assert self.vectors is not None
        assert self.settings.similarity is not None
        items = np.load(self.vectors)
        for batch in read_batches(Path(payload["embeddings"]), ["record_id", "vector"], rows=4096):
            vectors = matrix(batch.column("vector"))
            rows, places, values = nearest_items(vectors, items, self.settings.similarity)
            for row, item, value in zip(rows, places, values, strict=True):
                yield batch.column("record_id")[int(row)].as_py(), int(item), float(value)


def load_items(recipe: Recipe) -> list[Item]:
    """The items of the recipe's benchmarks, if it names any.

    Raises:
        UserError: A benchmark cannot be read.
    """
    benchmarks = () if recipe.decontaminate is None else recipe.decontaminate.benchmarks
    return [
        item
        for one in benchmarks
        for item in read_items(one.name, Path(one.uri), text=one.text, name=one.item)
    ]


def plan(
    run: Run, records: Manifest, embeddings: Manifest | None, settings: dict[str, Any]
) -> Iterator[Task]:
    """A part of hits for each part of records."""
    vectors = {} if embeddings is None else {part.key: part for part in embeddings.parts()}
    for part, dropped in alive_parts(run, records, "decontaminate"):
        mine = vectors.get(part.key)
        file = None if mine is None or mine.file is None else mine.file
        yield Task(
            part.key,
            fingerprint(
                stage="decontaminate",
                version=VERSION,
                settings=settings,
                records=part.sha256,
                embeddings=None if mine is None else mine.sha256,
                dropped=dropped,
            ),
            {
                "records": None if part.file is None else str(records.folder / part.file),
                "embeddings": None
                if file is None or embeddings is None
                else str(embeddings.folder / file),
                "dropped": dropped,
            },
            part.bytes,
        )


def run_decontaminate(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    started = time.time()
    settings = run.recipe.decontaminate
    if settings is None:
        run.drop("contamination")
        return
    records = run.layout.need("records", "ingest")
    embeddings = None
    if settings.similarity is not None and run.recipe.embedding is not None:
        embeddings = run.layout.need("embeddings", "embed")
    items = load_items(run.recipe)
    parameters = {
        # where the benchmarks lie decides nothing, what stands in them does
        "items": fingerprint(items=[asdict(item) for item in items]),
        "benchmarks": [one.name for one in settings.benchmarks],
        "ngram": settings.ngram,
        "overlap": settings.overlap,
        "similarity": None if embeddings is None else settings.similarity,
        "encoder": None if embeddings is None else run.encoder.fingerprint,
    }
    tasks = plan(run, records, embeddings, parameters)
    job = run.plan("decontaminate", {"contamination": CONTAMINATION}, tasks)
    prepared = run.layout.staging("benchmarks")
    if job.todo:
        run.execute("decontaminate", job, _prepare(run, items, embeddings, prepared), progress)
    _, drops = drops_query(run, "decontaminate")
    inputs = [records, *drops, *([] if embeddings is None else [embeddings])]
    parameters |= drop_parameters(run, "decontaminate")
    origin = run.origin("decontaminate", VERSION, parameters, inputs, started)
    table = run.commit(job, origin)["contamination"]
    shutil.rmtree(prepared, ignore_errors=True)
    progress.records, progress.bytes = records.rows, job.todo_bytes
    progress.details["hits"] = table.rows


def _prepare(run: Run, items: list[Item], embeddings: Manifest | None, folder: Path) -> ComparePart:
    """Writes what the workers compare with, and says which items are too short to be found."""
    settings = run.recipe.decontaminate
    assert settings is not None
    folder.mkdir(parents=True, exist_ok=True)
    names, index, vectors = folder / "names.json", folder / "ngrams.npz", folder / "vectors.npy"
    write_whole(names, json.dumps([[item.benchmark, item.name] for item in items]))
    if settings.overlap is not None:
        built = ngram_index(items, settings.ngram)
        built.save(index)
        if built.skipped:
            some = ", ".join(" ".join(item) for item in built.skipped[:3])
            run.reporter.note(
                f"decontaminate: {len(built.skipped)} items are too short to be told by n-grams: "
                f"{some}"
            )
    if embeddings is not None:
        np.save(vectors, run.encoder.encode([item.text for item in items]))
    return ComparePart(
        settings,
        names,
        index if settings.overlap is not None else None,
        vectors if embeddings is not None else None,
    )
