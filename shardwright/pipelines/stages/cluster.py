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

from shardwright.embeddings.device import resolve_device
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import CLUSTERS
from shardwright.pipelines.alive import (
    LivePart,
    alive_parts,
    dropped_since_embed,
    live_batches,
)
from shardwright.pipelines.clustering import (
    cluster_count,
    read_centroids,
    share_cores,
    train,
)
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Clusters
from shardwright.pipelines.vectors import matrix

VERSION = "2"


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
        from shardwright.embeddings.kmeans import KMeans

        share_cores(self.driver)
        centres = read_centroids(self.centroids)
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
    settings = run.recipe.clusters
    rows = embeddings.rows - sum(len(dropped) for _, dropped in live)
    k = cluster_count(run, "clusters.k", settings.k, rows)
    if k == 0:
        run.drop("centroids")
        run.drop("clusters")
        return
    used = parameters(settings, k)
    centres = train(run, "cluster", "centroids", embeddings, live, used, settings.device)
    tasks = plan(embeddings, live, centres, settings.precision)
    job = run.plan("cluster", {"clusters": CLUSTERS}, tasks)
    run.execute("cluster", job, AssignPart(centres.files()[0], settings), progress)
    inputs = [embeddings, centres, *dropped_since_embed(run, "cluster")]
    origin = run.origin("cluster", VERSION, used, inputs, started)
    table = run.commit(job, origin)["clusters"]
    progress.records, progress.bytes = table.rows, embeddings.bytes
