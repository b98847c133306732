"""``cluster``: spherical k-means, trained on a seeded sample, assigned part by part.

k-means is imported where it runs, so that a curation that has nothing to cluster, or has its
clusters already, does not wait for torch.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.sampling import sample_keys
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import CLUSTERS, centroids
from shardwright.pipelines.alive import (
    LivePart,
    alive_parts,
    dropped_since_embed,
    live_batches,
)
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Clusters, Recipe
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import column, matrix

VERSION = "2"
# The sample that centroids are trained on: FAISS's own 256 points a centroid, and never more than
# this many vectors, which bounds the driver's memory.
_POINTS_PER_CENTROID = 256
_LARGEST_SAMPLE = 262_144


@dataclass(frozen=True)
class AssignPart:
    """Finds the nearest centroid of each vector of a part.

    Attributes:
        centroids: The file of the table ``centroids``.
        settings: The recipe's section ``clusters``.
        driver: The process that made this.
    """

    centroids: Path
    settings: Clusters
    driver: int = field(default_factory=os.getpid)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["embeddings"]`` into ``clusters``."""
        if payload["embeddings"] is None:
            return
        import torch

        from shardwright.embeddings.kmeans import KMeans

        if os.getpid() != self.driver:
            # worker processes share the cores: OpenMP's threads would wait for each other's turn,
            # which takes ten times as long; labels do not depend on it
            torch.set_num_threads(1)
        centres = matrix(pq.read_table(self.centroids).column("vector").combine_chunks())
        precision, device = self.settings.precision, self.settings.device
        kmeans = KMeans(len(centres), precision=precision, device=device)
        path, dropped = Path(payload["embeddings"]), payload["dropped"]
        for batch in live_batches(path, ["record_id", "vector"], dropped, rows=4096):
            labels, distances = kmeans.assign(matrix(batch.column("vector")), centres)
            columns = [
                batch.column("record_id"),
                pa.array(labels.astype(np.int32)),
                pa.array(distances),
            ]
            output.write("clusters", pa.RecordBatch.from_arrays(columns, schema=CLUSTERS))


def sample(
    embeddings: Manifest, live: Sequence[LivePart], size: int, seed: int
) -> np.ndarray[Any, Any]:
    """The vectors of the ``size`` records whose keyed hash is smallest, as float32 [size, d].

    Which records those are depends on their ids and the seed alone, and so does their order.
    Reads ids once and vectors once; holds ``size`` vectors and as many keys.
    """
    keys = np.empty(0, np.uint64)
    for path, dropped in _files(embeddings, live):
        for batch in live_batches(path, ["record_id"], dropped):
            keys = np.concatenate([keys, sample_keys(batch.column("record_id"), seed)])
            if len(keys) > 4 * size:
                keys = np.partition(keys, size - 1)[:size]
    keys = np.unique(keys)[:size]
    dimension = embeddings.schema.field("vector").type.list_size
    chosen = np.empty((len(keys), dimension), np.float32)
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


def check_device(recipe: Recipe) -> None:
    """Raises UserError if the recipe asks for a device that is not there."""
    if recipe.embedding is not None and recipe.clusters.device == "cuda":
        resolve_device("cuda", "clusters.device")


def parameters(settings: Clusters, k: int) -> dict[str, Any]:
    """What decides the centroids and labels of given vectors, for fingerprints and manifests.

    The device is no part of it. With ``precision: exact`` the same vectors have the same centroids
    and labels on every device, and with ``fast`` that name says that near ties may fall either way.
    """
    return {**settings.model_dump(mode="json", exclude={"device"}), "k": k}


def train(run: Run, embeddings: Manifest, live: Sequence[LivePart], k: int) -> Manifest:
    """Commits ``centroids``, unless the committed ones are of the same vectors and settings."""
    started = time.time()
    settings = parameters(run.recipe.clusters, k)
    dimension = embeddings.schema.field("vector").type.list_size
    schema = centroids(dimension)
    gone = [dropped for _, dropped in live]
    work = fingerprint(
        version=VERSION, embeddings=embeddings.content_sha256, dropped=gone, **settings
    )
    task = Task("centroids", work, {}, embeddings.bytes)
    job = run.plan("centroids", {"centroids": schema}, [task])
    if job.todo:
        rows = embeddings.rows - sum(map(len, gone))
        size = min(rows, max(_POINTS_PER_CENTROID * k, 4096), _LARGEST_SAMPLE)
        from shardwright.embeddings.kmeans import KMeans

        vectors = sample(embeddings, live, size, settings["seed"])
        clustering = KMeans(**settings, device=run.recipe.clusters.device).fit(vectors)
        output = Output(job.folder, task, job.schemas)
        columns = [
            pa.array(np.arange(k, dtype=np.int32)),
            column(clustering.centroids, schema.field("vector").type),
        ]
        output.write("centroids", pa.RecordBatch.from_arrays(columns, schema=schema))
        output.close(started)
    inputs = [embeddings, *dropped_since_embed(run, "cluster")]
    origin = run.origin("cluster", VERSION, settings, inputs, started)
    return run.commit(job, origin)["centroids"]


def plan(
    embeddings: Manifest, live: Sequence[LivePart], centres: Manifest, precision: str
) -> Iterator[Task]:
    """A part of assignments for each part of vectors."""
    for part, dropped in live:
        file = None if part.file is None else str(embeddings.folder / part.file)
        yield Task(
            part.key,
            fingerprint(
                stage="cluster",
                version=VERSION,
                embeddings=part.sha256,
                dropped=dropped,
                centroids=centres.content_sha256,
                precision=precision,
            ),
            {"embeddings": file, "dropped": dropped},
            part.bytes,
        )


def run_cluster(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    if run.recipe.embedding is None:
        run.drop("centroids")
        run.drop("clusters")
        return
    started = time.time()
    embeddings = run.layout.need("embeddings", "embed")
    live = list(alive_parts(run, embeddings, "cluster"))
    k = min(run.recipe.clusters.k, embeddings.rows - sum(len(dropped) for _, dropped in live))
    if k < run.recipe.clusters.k:
        run.reporter.note(
            f"clusters.k {run.recipe.clusters.k} falls to {k}: so many records are alive"
        )
    if k == 0:
        run.drop("centroids")
        run.drop("clusters")
        return
    settings = run.recipe.clusters
    centres = train(run, embeddings, live, k)
    tasks = plan(embeddings, live, centres, settings.precision)
    job = run.plan("cluster", {"clusters": CLUSTERS}, tasks)
    run.execute("cluster", job, AssignPart(centres.files()[0], settings), progress)
    used = parameters(settings, k)
    inputs = [embeddings, centres, *dropped_since_embed(run, "cluster")]
    origin = run.origin("cluster", VERSION, used, inputs, started)
    table = run.commit(job, origin)["clusters"]
    progress.records, progress.bytes = table.rows, embeddings.bytes
