"""The table ``classified``: what a classifier that learned from labels says of each live record.

The driver learns, from committed vectors and from contents; workers judge part by part. A record
with the content of an example gets the score of the folds that did not learn from it.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardwright.metadata.catalog import connect, scan
from shardwright.metadata.files import fingerprint
from shardwright.metadata.lookup import places
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import blob, scores
from shardwright.pipelines.alive import alive_parts, drops_query, live_batches
from shardwright.pipelines.clustering import share_cores
from shardwright.pipelines.encoding import encoding
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.labels import Example, find_examples
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import stream
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import matrix

if TYPE_CHECKING:
    from shardwright.quality.pruning.classifier import Classifier

VERSION = "1"
SCHEMA = scores(["classifier"])
_ROWS = 256
_ENCODED = 256
_SLOWNESS = 80
"""A byte takes about so many times as long as in a stage that only reads and writes."""


@dataclass(frozen=True)
class ClassifyPart:
    """Scores the live records of a part.

    Attributes:
        modality: ``code`` or ``image``.
        model: File of the classifier.
        held: File of the contents that it learned from, by sha256, and their scores held out.
        driver: The process that made this.
    """

    modality: str
    model: Path
    held: Path
    driver: int = field(default_factory=os.getpid)

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in vars(self).items() if n not in ("classifier", "known")}

    @cached_property
    def classifier(self) -> "Classifier":
        """The classifier, read once in a worker."""
        from shardwright.quality.pruning.classifier import Classifier

        return Classifier.load(self.model)

    @cached_property
    def known(self) -> dict[str, float]:
        """Scores of the examples by the sha256 of their content."""
        with np.load(self.held, allow_pickle=False) as archive:
            return dict(zip(archive["contents"].tolist(), archive["scores"].tolist(), strict=True))

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` beside their vectors into ``classified``."""
        if payload["records"] is None or payload["embeddings"] is None:
            return
        share_cores(self.driver)
        held = Path(payload["embeddings"]), ["vector"], payload["without_vectors"]
        rows = [matrix(batch.column("vector")) for batch in live_batches(*held)]
        if not rows:
            return
        vectors = np.concatenate(rows)
        columns = ["record_id", "content_sha256"]
        columns += ["content"] if self.modality == "code" else []
        done = 0
        path = Path(payload["records"])
        for batch in live_batches(path, columns, payload["dropped"], _ROWS):
            here = vectors[done : done + batch.num_rows]
            done += batch.num_rows
            texts = batch.column("content").to_pylist() if self.modality == "code" else None
            score = self.classifier.score(texts, here)
            for row, sha256 in enumerate(batch.column("content_sha256").to_pylist()):
                score[row] = self.known.get(sha256, score[row])
            found = [batch.column("record_id"), pa.array(score)]
            output.write("classified", pa.RecordBatch.from_arrays(found, schema=SCHEMA))


def commit_classified(
    run: Run, records: Manifest, embeddings: Manifest, progress: StageProgress
) -> Manifest:
    """Learns from the labels and scores every live record, a part for each of ``records``."""
    started = time.time()
    examples = find_examples(run)
    embedding = run.recipe.embedding
    assert embedding is not None
    # where the labels lie and what they name decides nothing, what they say of which content does
    parameters = {
        "labels": fingerprint(labels={sha256: e.good for sha256, e in examples.items()}),
        "encoder_fingerprint": run.encoder.fingerprint,
        "dtype": embedding.dtype,
    }
    tasks = _tasks(run, records, embeddings, parameters)
    job = run.plan("classified", {"classified": SCHEMA}, tasks)
    if job.todo:
        model, held = job.folder / "model.npz", job.folder / "held.npz"
        names = sorted(examples)
        good = np.array([examples[name].good for name in names])
        learned, judged = _learned(run, records, embeddings, examples, names, good)
        learned.save(model)
        np.savez(held, contents=np.array(names), scores=judged)
        _tell(run, progress, learned, judged, good)
        run.execute("score", job, ClassifyPart(run.recipe.modality, model, held), progress)
    inputs = [records, embeddings, *drops_query(run, "score")[1]]
    origin = run.origin("score", VERSION, parameters, inputs, started)
    return run.commit(job, origin)["classified"]


def _tasks(
    run: Run, records: Manifest, embeddings: Manifest, parameters: Mapping[str, Any]
) -> Iterator[Task]:
    """A part of scores for each part of records; vectors have the same keys."""
    vectors = {part.key: (part, gone) for part, gone in alive_parts(run, embeddings, "score")}
    for part, dropped in alive_parts(run, records, "score"):
        held, gone = vectors.get(part.key, (None, []))
        file = None if held is None else held.file
        yield Task(
            part.key,
            fingerprint(
                stage="classified",
                version=VERSION,
                records=part.sha256,
                dropped=dropped,
                embeddings=None if held is None else held.sha256,
                **parameters,
            ),
            {
                "records": None if part.file is None else str(records.folder / part.file),
                "dropped": dropped,
                "embeddings": None if file is None else str(embeddings.folder / file),
                "without_vectors": gone,
            },
            part.bytes * _SLOWNESS,
        )


def _learned(
    run: Run,
    records: Manifest,
    embeddings: Manifest,
    examples: Mapping[str, Example],
    names: Sequence[str],
    good: npt.NDArray[np.bool_],
) -> tuple["Classifier", npt.NDArray[np.float64]]:
    """Learns from the examples, in the order of their names; and their scores held out.

    Vectors are those that are committed; what has none, a file or a record that was dropped before
    the stage ``embed``, is encoded.
    """
    from shardwright.quality.pruning.classifier import fit_held_out

    code = run.recipe.modality == "code"
    ids = {name: examples[name].record_id for name in names}
    vectors = _vectors(run, embeddings, [i for i in ids.values() if i is not None])
    bare = [name for name in names if ids[name] not in vectors]
    read = _read(run, records, examples, names if code else bare)
    texts: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = []
    found: dict[str, Any] = {}

    def encode() -> None:
        rows = run.encoder.encode([content for _, content in waiting])
        found.update(zip((name for name, _ in waiting), rows, strict=True))
        waiting.clear()

    assert run.recipe.embedding is not None
    without = set(bare)
    with encoding(run):  # pictures are opened under the limits of a worker
        for name, data in read:
            content = data.decode() if code else data
            if code:
                texts[name] = data.decode()
            if name in without:
                waiting.append((name, content))
            if len(waiting) == _ENCODED:
                encode()
        if waiting:
            encode()
    stored = np.dtype(run.recipe.embedding.dtype)
    rows = [
        found[name].astype(stored) if name in without else vectors[str(ids[name])] for name in names
    ]
    together = np.stack(rows).astype(np.float32)
    return fit_held_out([texts[name] for name in names] if code else None, together, good)


def _vectors(run: Run, embeddings: Manifest, ids: Sequence[str]) -> dict[str, Any]:
    """Committed vectors of records, float32 [d], by ``record_id``."""
    size = embeddings.schema.field("vector").type.list_size
    found: dict[str, Any] = {}
    with connect(run.layout, tables=()) as connection:
        connection.register("named", pa.table({"record_id": pa.array(ids, pa.string())}))
        query = (
            f"SELECT record_id, vector::FLOAT[{size}] AS vector FROM {scan(embeddings)} "
            "SEMI JOIN named USING (record_id)"
        )
        for batch in stream(connection, query):
            rows = matrix(batch.column("vector"))
            found |= zip(batch.column("record_id").to_pylist(), rows, strict=True)
    return found


def _read(
    run: Run, records: Manifest, examples: Mapping[str, Example], names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of examples: files, then records, part by part."""
    wanted: dict[str, str] = {}
    for name in names:
        file, record = examples[name].file, examples[name].record_id
        if file is not None:
            yield name, file.read_bytes()
        elif record is not None:
            wanted[record] = name
    by_part: dict[str, set[int]] = {}
    with connect(run.layout, tables=["lookup"]) as connection:
        for part, row in places(run.layout, connection, list(wanted)).values():
            by_part.setdefault(part.key, set()).add(row)
    payload = blob(run.recipe.modality)
    for part in records.parts():
        rows = by_part.get(part.key)
        if rows is None or part.file is None:
            continue
        others = [row for row in range(part.rows) if row not in rows]
        path = records.folder / part.file
        for batch in live_batches(path, ["record_id", payload], others, _ROWS):
            contents = batch.column(payload).cast(pa.large_binary()).to_pylist()
            for record, content in zip(
                batch.column("record_id").to_pylist(), contents, strict=True
            ):
                yield wanted[record], content


def _tell(
    run: Run,
    progress: StageProgress,
    learned: "Classifier",
    judged: npt.NDArray[np.float64],
    good: npt.NDArray[np.bool_],
) -> None:
    """Says whether the labels taught anything."""
    right = int(((judged > 0) == good).sum())
    losses = [f"{learned.losses[0]:.3f} by vectors"]
    losses += [f"{learned.losses[1]:.3f} by words"] if len(learned.words) else []
    run.reporter.note(
        f"classifier: learned from {good.sum():,} good and {(~good).sum():,} bad examples; held "
        f"out, {right:,} of {len(good):,} are on their side of 0, and the log loss is "
        f"{', '.join(losses)} ({np.log(2):.3f}: nothing learned)"
    )
    progress.details["examples_good"] = int(good.sum())
    progress.details["examples_bad"] = int((~good).sum())
    progress.details["examples_held_out_right"] = right
