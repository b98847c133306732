"""``decontaminate``: records that hold an item of a benchmark, or closely resemble one.

Three methods: n-grams of the text as it stands, n-grams of the text abstracted from names and
comments, and the vector of the abstracted text.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shardwright.embeddings.encoder import Encoder, load_encoder
from shardwright.errors import UserError
from shardwright.metadata.files import fingerprint, write_whole
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import CONTAMINATION
from shardwright.pipelines.alive import (
    alive_parts,
    drop_parameters,
    drops_query,
    live_batches,
)
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Decontaminate
from shardwright.quality.contamination import (
    LEAST_WORDS,
    Item,
    NgramIndex,
    abstracted,
    hits,
    nearest_items,
    ngram_index,
    read_items,
)
from shardwright.quality.language import detect_language
from shardwright.quality.shingles import shingle_hashes

VERSION = "2"
_ROWS = 256
_METHODS = {"ngram": "plain.npz", "abstracted": "abstracted.npz"}


@dataclass(frozen=True)
class ComparePart:
    """Compares the live records of a part with the items of the benchmarks.

    Attributes:
        settings: The recipe's ``decontaminate``.
        folder: What the items were made into: names, n-grams, vectors.
    """

    settings: Decontaminate
    folder: Path

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "folder": self.folder}

    @cached_property
    def names(self) -> list[tuple[str, str]]:
        """Benchmark and name of each item."""
        return [tuple(one) for one in json.loads((self.folder / "names.json").read_text())]

    @cached_property
    def indexes(self) -> dict[str, NgramIndex]:
        """The items' n-grams by method."""
        return {name: NgramIndex.load(self.folder / file) for name, file in _METHODS.items()}

    @cached_property
    def vectors(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Vectors of the items that are long enough, float32 [m, d], and which those are [m]."""
        stored = np.load(self.folder / "vectors.npz")
        return stored["vectors"], stored["items"]

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, loaded once in a worker."""
        return _encoder(self.settings)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` into ``contamination``."""
        if payload["records"] is None:
            return
        path, columns = Path(payload["records"]), ["record_id", "content", "language"]
        for batch in live_batches(path, columns, payload["dropped"], rows=_ROWS):
            ids = batch.column("record_id").to_pylist()
            contents = [value.as_buffer().to_pybytes() for value in batch.column("content")]
            bare = [
                abstracted(data, language)
                for data, language in zip(
                    contents, batch.column("language").to_pylist(), strict=True
                )
            ]
            found = [
                (ids[row], *self.names[item], method, similarity)
                for row, item, method, similarity in sorted(self._hits(contents, bare))
            ]
            if found:
                values = zip(zip(*found, strict=True), CONTAMINATION, strict=True)
                rows = [pa.array(column, field.type) for column, field in values]
                table = pa.RecordBatch.from_arrays(rows, schema=CONTAMINATION)
                output.write("contamination", table)

    def _hits(
        self, contents: list[bytes], bare: list[str]
    ) -> Iterator[tuple[int, int, str, float]]:
        """Yields (row, item, method, similarity)."""
        if self.settings.overlap is not None:
            texts = {"ngram": contents, "abstracted": [text.encode() for text in bare]}
            for method, index in self.indexes.items():
                for row, data in enumerate(texts[method]):
                    shingles = shingle_hashes(data, index.ngram)
                    for item, share in hits(index, shingles, self.settings.overlap):
                        yield row, item, method, share
        if self.settings.similarity is not None and len(self.vectors[1]):
            vectors, items = self.vectors
            encoded = self.encoder.encode(bare)
            rows, places, values = nearest_items(encoded, vectors, self.settings.similarity)
            for row, place, value in zip(rows, places, values, strict=True):
                yield int(row), int(items[place]), "embedding", float(value)


def _encoder(settings: Decontaminate) -> Encoder:
    return load_encoder(
        settings.model, modality="code", device="auto", dtype="float32", batch_size=256
    )


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


def plan(run: Run, records: Manifest, settings: dict[str, Any]) -> Iterator[Task]:
    """A part of hits for each part of records."""
    for part, dropped in alive_parts(run, records, "decontaminate"):
        yield Task(
            part.key,
            fingerprint(
                stage="decontaminate",
                version=VERSION,
                settings=settings,
                records=part.sha256,
                dropped=dropped,
            ),
            {
                "records": None if part.file is None else str(records.folder / part.file),
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
    items = load_items(run.recipe)
    parameters = {
        # where the benchmarks lie decides nothing, what stands in them does
        "items": fingerprint(items=[asdict(item) for item in items]),
        "benchmarks": [one.name for one in settings.benchmarks],
        **settings.model_dump(mode="json", exclude={"benchmarks", "model"}),
    }
    if settings.similarity is not None:
        parameters["encoder"] = _encoder(settings).fingerprint
    job = run.plan(
        "decontaminate", {"contamination": CONTAMINATION}, plan(run, records, parameters)
    )
    folder = run.layout.staging("benchmarks")
    if job.todo:
        _prepare(run, settings, items, folder)
        run.execute("decontaminate", job, ComparePart(settings, folder), progress)
    parameters |= drop_parameters(run, "decontaminate")
    inputs = [records, *drops_query(run, "decontaminate")[1]]
    origin = run.origin("decontaminate", VERSION, parameters, inputs, started)
    table = run.commit(job, origin)["contamination"]
    shutil.rmtree(folder, ignore_errors=True)
    progress.records, progress.bytes = records.rows, job.todo_bytes
    progress.details["hits"] = table.rows


def _prepare(run: Run, settings: Decontaminate, items: list[Item], folder: Path) -> None:
    """Writes what the workers compare with, and says which items are too short to be told."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "names.json", json.dumps([[item.benchmark, item.name] for item in items]))
    languages = {one.name: one.language for one in settings.benchmarks}
    bare = [
        abstracted(
            item.text.encode(),
            languages[item.benchmark] or detect_language(item.name, item.text),
        )
        for item in items
    ]
    shadows = [Item(i.benchmark, i.name, text) for i, text in zip(items, bare, strict=True)]
    index, shadow = ngram_index(items, settings.ngram), ngram_index(shadows, settings.ngram)
    if len(index.skipped) == len(items):
        raise UserError(
            f"decontaminate.benchmarks: none of the {len(items)} items has {LEAST_WORDS} words or "
            "more, so there is nothing to look for: check the columns of their text"
        )
    index.save(folder / _METHODS["ngram"])
    shadow.save(folder / _METHODS["abstracted"])
    if index.skipped:
        some = ", ".join(" ".join(item) for item in index.skipped[:3])
        run.reporter.note(
            f"decontaminate: {len(index.skipped)} items have too few words to be told: {some}"
        )
    if settings.similarity is not None:
        # the vectors of tiny texts lie close to each other
        long = np.flatnonzero(shadow.sizes)
        texts = [bare[place] for place in long]
        encoder = _encoder(settings)
        vectors = encoder.encode(texts) if texts else np.empty((0, encoder.dimension), np.float32)
        np.savez(folder / "vectors.npz", vectors=vectors, items=long)
