"""Training k-means on a sample of the live vectors, for the stages that cluster."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.rows import new_rows
from shardwright.embeddings.sampling import automatic_k, sample_keys, sample_size
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import centroids
from shardwright.pipelines.alive import LivePart, dropped_since_embed, live_batches
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import column, matrix

VERSION = "3"


def cluster_count(run: Run, key: str, wanted: int | str, rows: int) -> int:
    """The number of clusters for so many live records: as asked, ``auto``, or fewer."""
    k = automatic_k(rows) if isinstance(wanted, str) else wanted
    if k > rows:
        run.reporter.note(f"{key} {k} falls to {rows}: so many records are alive")
    return min(k, rows)


def train(
    run: Run,
    stage: str,
    table: str,
    embeddings: Manifest,
    live: Sequence[LivePart],
    settings: Mapping[str, Any],
    device: Literal["auto", "cpu", "cuda"],
) -> Manifest:
    """Commits a table of centroids, unless it is there for the same vectors and settings.

    Args:
        run: The run.
        stage: Stage that asks.
        table: Table that is committed.
        embeddings: The vectors.
        live: The rows of them that are alive.
        settings: Arguments of ``KMeans`` but for the device; the sample of ``sample_size`` vectors
            that it is trained on is drawn by its ``seed``.
        device: Where it computes; no part of what decides the result.
    """
    started = time.time()
    dimension = embeddings.schema.field("vector").type.list_size
    schema = centroids(dimension)
    gone = [dropped for _, dropped in live]
    size = sample_size(embeddings.rows - sum(map(len, gone)), settings["k"])
    decisive = {**settings, "sample": size}
    work = fingerprint(
        version=VERSION, embeddings=embeddings.content_sha256, dropped=gone, **decisive
    )
    task = Task("centroids", work, {}, embeddings.bytes)
    job = run.plan(table, {table: schema}, [task])
    if job.todo:
        from shardwright.embeddings.hierarchical import fit_centroids
        from shardwright.embeddings.kmeans import KMeans

        scratch = job.folder / "sample.bin"
        vectors = sample(embeddings, live, size, settings["seed"], scratch)
        found = fit_centroids(vectors, KMeans(**settings, device=device))
        del vectors
        scratch.unlink(missing_ok=True)
        output = Output(job.folder, task, job.schemas)
        columns = [
            pa.array(np.arange(len(found), dtype=np.int32)),
            column(found, schema.field("vector").type),
        ]
        output.write(table, pa.RecordBatch.from_arrays(columns, schema=schema))
        output.close(started)
    inputs = [embeddings, *dropped_since_embed(run, stage)]
    origin = run.origin(stage, VERSION, decisive, inputs, started)
    return run.commit(job, origin)[table]


def share_cores(driver: int) -> None:
    """Leaves torch one thread in every process but the driver.

    Worker processes share the cores: OpenMP's threads would wait for each other's turn, which takes
    ten times as long. What the kernels answer does not depend on it.
    """
    if os.getpid() != driver:
        import torch

        torch.set_num_threads(1)


def read_centroids(path: Path) -> np.ndarray[Any, Any]:
    """The vectors of a table of centroids, float32 [k, d]."""
    return matrix(pq.read_table(path).column("vector").combine_chunks()).copy()


def sample(
    embeddings: Manifest, live: Sequence[LivePart], size: int, seed: int, scratch: Path
) -> np.ndarray[Any, Any]:
    """The vectors of the ``size`` records whose keyed hash is smallest, as float32 [size, d].

    Which records those are depends on their ids and the seed alone, and so does their order.
    Reads ids once and vectors once; holds as many keys, and the vectors unless they are so many
    that they are written to the file ``scratch`` and mapped.
    """
    keys = np.empty(0, np.uint64)
    for path, dropped in _files(embeddings, live):
        for batch in live_batches(path, ["record_id"], dropped):
            keys = np.concatenate([keys, sample_keys(batch.column("record_id"), seed)])
            if len(keys) > 4 * size:
                keys = np.partition(keys, size - 1)[:size]
    keys = np.unique(keys)[:size]
    dimension = embeddings.schema.field("vector").type.list_size
    shape = (len(keys), dimension)
    chosen = new_rows(shape, np.float32, scratch)
    for path, dropped in _files(embeddings, live):
        for batch in live_batches(path, ["record_id", "vector"], dropped):
            mine = sample_keys(batch.column("record_id"), seed)
            place = np.searchsorted(keys, mine)
            hit = (place < len(keys)) & (keys[np.minimum(place, len(keys) - 1)] == mine)
            chosen[place[hit]] = matrix(batch.column("vector"))[hit]
    return chosen


def _files(embeddings: Manifest, live: Sequence[LivePart]) -> Iterator[tuple[Path, list[int]]]:
    for part, dropped in live:
        if part.file is not None:
            yield embeddings.folder / part.file, dropped
