"""``index``: a FAISS index of the live records, with the id of each of its vectors.

FAISS, and torch for k-means, are imported where they run: a flat index needs no torch.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.sampling import sample_keys
from shardwright.metadata.filelist import ListedFile, read_file_list, write_file_list
from shardwright.metadata.files import fingerprint, sha256_file
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.tables import PartWriter
from shardwright.pipelines.alive import LivePart, alive_parts, dropped_since_embed, live_batches
from shardwright.pipelines.clustering import sample
from shardwright.pipelines.index import WriteLists, collect, list_tasks, save_trained
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Index
from shardwright.pipelines.vectors import matrix

if TYPE_CHECKING:
    from shardwright.embeddings.build import Wish
    from shardwright.embeddings.ivf import Lists, Part
    from shardwright.embeddings.recall import Truth

VERSION = "2"
_JOB = "index-lists"
_IDS = pa.schema([pa.field("record_id", pa.string(), nullable=False)])


@dataclass(frozen=True)
class _Held:
    """The records that are held out to tune on: rows ascending, their ids and sample keys."""

    rows: npt.NDArray[np.int64]
    ids: list[str]
    keys: npt.NDArray[np.uint64]


def check_index(settings: Index | None) -> None:
    """Raises UserError if the recipe asks for a device that is not there."""
    if settings is not None and settings.device == "cuda":
        resolve_device("cuda", "index.device")


def run_index(run: Run, progress: StageProgress) -> None:
    """Runs the stage: workers sort vectors into lists; only an HNSW graph is held while built."""
    layout = run.layout
    if run.recipe.index is None or run.recipe.embedding is None:
        if layout.indexes.exists():
            run.incomplete()
            shutil.rmtree(layout.indexes)
        return
    started = time.time()
    embeddings = layout.need("embeddings", "embed")
    parameters = _parameters(run.recipe.index)
    live = list(alive_parts(run, embeddings, "index"))
    rows = embeddings.rows - sum(len(dropped) for _, dropped in live)
    work = fingerprint(
        version=VERSION,
        embeddings=embeddings.content_sha256,
        dropped=[dropped for _, dropped in live],
        **parameters,
    )
    old = read_file_list(layout.indexes)
    progress.records, progress.bytes = rows, embeddings.bytes
    if old is not None and old.fingerprint == work and not run.force:
        progress.parts = progress.reused = 1
        return
    run.incomplete()
    layout.indexes.mkdir(parents=True, exist_ok=True)
    (layout.indexes / "_manifest.json").unlink(missing_ok=True)
    files, found = _build(run, progress, embeddings, live, rows, work)
    inputs = [embeddings, *dropped_since_embed(run, "index")]
    origin = run.origin("index", VERSION, {**parameters, **found}, inputs, started)
    write_file_list(layout.indexes, work, origin, files)
    named = {"_manifest.json", *(file.path for file in files)}
    for path in layout.indexes.iterdir():
        if path.name not in named:  # what a run that was cut off left
            path.unlink()
    progress.parts += 1


def _parameters(settings: Index) -> dict[str, Any]:
    """What decides the files of given vectors; the device does not."""
    if settings.kind == "flat":
        return settings.model_dump(mode="json", include={"kind", "memory"})
    return settings.model_dump(mode="json", exclude={"device"})


def _build(
    run: Run,
    progress: StageProgress,
    embeddings: Manifest,
    live: Sequence[LivePart],
    rows: int,
    work: str,
) -> tuple[list[ListedFile], dict[str, Any]]:
    """Writes the index and its ids; returns the files and what is to be known of them."""
    from shardwright.embeddings import automatic, build, ivf, kinds, recall

    settings = run.recipe.index
    assert settings is not None
    dimension = embeddings.schema.field("vector").type.list_size
    scratch = run.layout.staging("index")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    plain = settings.kind == "flat" or rows < kinds.SMALL
    if plain and settings.kind != "flat":
        run.reporter.note(f"index.kind {settings.kind} falls to flat: {rows:,} records are alive")
    held = _Held(np.empty(0, np.int64), [], np.empty(0, np.uint64))
    queries = training = np.empty((0, dimension), np.float32)
    if not plain:
        held = _held_out(embeddings, live, min(recall.QUERIES, rows // 10), settings.seed)
        trained = ivf.POINTS * kinds.list_count(rows)
        most = min(rows, len(held.ids) + max(trained, automatic.SAMPLE, ivf.CODE_SAMPLE))
        drawn = sample(embeddings, live, most, settings.seed, scratch / "sample.bin")
        # rows of the sample stand in the order of their keys: the queries before all others
        queries = np.array(drawn[: len(held.ids)])[np.argsort(np.argsort(held.keys))]
        training = drawn[len(held.ids) :]
    wish = build.Wish(
        "flat" if plain or settings.kind == "auto" else settings.kind,
        settings.recall,
        settings.memory,
        settings.seed,
        settings.device,
    )
    found: dict[str, Any] = {}
    if settings.kind == "auto" and not plain:
        tried = training[: automatic.SAMPLE]
        wish, costs = automatic.choose(wish, rows, tried, queries, scratch / "auto")
        said = ", ".join(f"{kind} {cost:,.0f}" for kind, cost in costs.items())
        run.reporter.note(f"index.kind auto is {wish.kind}; comparisons a query: {said}")
        found["costs"] = {kind: round(cost) for kind, cost in costs.items()}
    kinds.check_memory(wish.kind, rows, dimension, wish.memory)
    index = run.layout.indexes / f"{wish.kind}.faiss"
    ids = run.layout.indexes / f"{wish.kind}.ids.parquet"
    last = held.ids if wish.kind == "hnsw" else []
    known = (held.rows, queries, training, rows, scratch / "build")
    with PartWriter(ids, _IDS) as names:
        if wish.kind in ("ivf_flat", "ivf_pq"):
            for batch in _batches(embeddings, live, ["record_id"]):
                names.write(batch.cast(_IDS))
            fill = _Workers(run, progress, embeddings, live, rows, work, wish, held.rows)
            built = build.build_lists(index, wish, fill, *known)
        else:
            blocks = _blocks(embeddings, live, names, frozenset(last))
            built = build.build(index, wish, blocks, *known)
        names.write(pa.RecordBatch.from_arrays([pa.array(last, pa.string())], schema=_IDS))
        written = names.close("ids", work)
    del training, known
    for folder in (scratch, run.layout.staging(_JOB)):  # a run that was cut off may leave the job
        shutil.rmtree(folder, ignore_errors=True)
    found |= {"index": built.kind, "settings": built.settings}
    if built.recall is not None:
        run.reporter.note(f"index is {built}")
        found["measured"] = built.recall.values()
    files = [ListedFile(index.name, index.stat().st_size, sha256_file(index), rows, "faiss")]
    if written.file is not None:
        files.append(ListedFile(ids.name, written.bytes, written.sha256, written.rows, "parquet"))
    return files, found


@dataclass(frozen=True)
class _Workers:
    """Has the parts of an inverted file written as one Beam job."""

    run: Run
    progress: StageProgress
    embeddings: Manifest
    live: Sequence[LivePart]
    rows: int
    work: str
    wish: "Wish"
    held: npt.NDArray[np.int64]

    def __call__(self, lists: "Lists", truth: "Truth") -> "list[Part]":
        """Returns the parts in order."""
        trained = self.run.layout.staging("index") / "trained.npz"
        save_trained(trained, lists, truth.queries, self.held)
        tasks = list_tasks(self.embeddings, self.live, self.rows, self.work, trained)
        job = self.run.plan(_JOB, {}, tasks, staged_only=True)
        self.run.execute("index", job, WriteLists(self.wish, trained), self.progress)
        return collect(job, truth)


def _held_out(embeddings: Manifest, live: Sequence[LivePart], count: int, seed: int) -> _Held:
    """The ``count`` records whose sample keys are smallest; ``sample`` draws the same first."""
    keys, rows = np.empty(0, np.uint64), np.empty(0, np.int64)
    ids: list[str] = []
    first = 0
    for batch in _batches(embeddings, live, ["record_id"], 65536):
        mine = np.concatenate([keys, sample_keys(batch.column("record_id"), seed)])
        places = np.concatenate([rows, np.arange(first, first + batch.num_rows)])
        first += batch.num_rows
        best = np.sort(np.argsort(mine, kind="stable")[:count])
        read = batch.column("record_id")
        ids = [ids[i] if i < len(keys) else read[int(i) - len(keys)].as_py() for i in best]
        keys, rows = mine[best], places[best]
    return _Held(rows, ids, keys)


def _blocks(
    embeddings: Manifest, live: Sequence[LivePart], names: PartWriter, last: frozenset[str]
) -> Iterator[npt.NDArray[np.float32]]:
    """Yields the live vectors in order and writes their ids, but for those that come last."""
    for batch in _batches(embeddings, live, ["record_id", "vector"]):
        ids = batch.select(["record_id"]).cast(_IDS)
        if last:
            ids = ids.filter(pa.array([i not in last for i in ids.column(0).to_pylist()]))
        names.write(ids)
        yield matrix(batch.column("vector"))


def _batches(
    embeddings: Manifest, live: Sequence[LivePart], columns: Sequence[str], rows: int = 1024
) -> Iterator[pa.RecordBatch]:
    """Streams the live rows of all parts in order."""
    for part, dropped in live:
        if part.file is not None:
            yield from live_batches(embeddings.folder / part.file, columns, dropped, rows)
