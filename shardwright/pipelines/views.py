"""The table ``views``: what is observed of each live record, and how the detectors judge it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shardwright.metadata.catalog import connect, scan
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import views
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.alive import alive_parts, drops_query
from shardwright.pipelines.damage import JudgePart, Models
from shardwright.pipelines.encoding import encoding
from shardwright.pipelines.jobs import Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run
from shardwright.quality import observations

VERSION = "1"
_SLOWNESS = 1000
"""A byte takes about so many times as long as in a stage that only reads and writes."""


def commit_views(
    run: Run,
    records: Manifest,
    embeddings: Manifest,
    clusters: Manifest,
    progress: StageProgress,
) -> Manifest:
    """Observes and judges every live record, a part for each part of ``records``."""
    started = time.time()
    detectors = run.layout.need("detectors", "study")
    inputs = [records, embeddings, clusters, detectors, *drops_query(run, "score")[1]]
    names = [view.name for view in observations.views(run.recipe.modality)]
    tasks = _tasks(run, records, embeddings, clusters, detectors)
    job = run.plan("views", {"views": views(names)}, tasks)
    models, calibrated = _unpacked(detectors, job.folder)
    sizes = job.folder / "sizes.npy"
    np.save(sizes, _sizes(run, clusters))
    with encoding(run) as settings:
        run.execute("score", job, JudgePart(settings, Models(models), calibrated, sizes), progress)
    parameters = {"encoder_fingerprint": run.encoder.fingerprint}
    return run.commit(job, run.origin("score", VERSION, parameters, inputs, started))["views"]


def _tasks(
    run: Run, records: Manifest, embeddings: Manifest, clusters: Manifest, detectors: Manifest
) -> Iterator[Task]:
    """A part of views for each part of records; vectors and clusters have the same keys."""
    vectors = {part.key: (part, gone) for part, gone in alive_parts(run, embeddings, "score")}
    assigned = {part.key: part for part in clusters.parts()}
    for part, dropped in alive_parts(run, records, "score"):
        held = vectors.get(part.key)
        placed = assigned.get(part.key)
        payload: dict[str, Any] = {
            "records": _path(records, part.file),
            "dropped": dropped,
            "embeddings": None if held is None else _path(embeddings, held[0].file),
            "without_vectors": [] if held is None else held[1],
            "clusters": None if placed is None else _path(clusters, placed.file),
        }
        work = fingerprint(
            stage="views",
            version=VERSION,
            records=part.sha256,
            dropped=dropped,
            clusters=clusters.content_sha256,
            detectors=detectors.content_sha256,
            encoder=run.encoder.fingerprint,
        )
        yield Task(part.key, work, payload, part.bytes * _SLOWNESS)


def _path(table: Manifest, file: str | None) -> str | None:
    return None if file is None else str(table.folder / file)


def _unpacked(detectors: Manifest, folder: Path) -> tuple[Path | None, Path]:
    """Files of the models of texts, if there are any, and of the detectors."""
    paths: dict[str, Path] = {}
    for file in detectors.files():
        for batch in read_batches(file, ["name", "data"], rows=1):
            name = batch.column("name")[0].as_py()
            paths[name] = folder / f"{name}-{detectors.content_sha256[:16]}.npz"
            paths[name].write_bytes(batch.column("data")[0].as_buffer())
    return paths.get("models"), paths["detectors"]


def _sizes(run: Run, clusters: Manifest) -> Any:
    """How many live records each cluster holds, int64 [k]."""
    with connect(run.layout, tables=()) as connection:
        counts = connection.execute(
            f"SELECT cluster, count(*) FROM {scan(clusters)} GROUP BY cluster"
        ).fetchall()
    k = run.layout.need("centroids", "cluster").rows
    sizes = np.zeros(k, np.int64)
    for cluster, count in counts:
        sizes[cluster] = count
    return sizes
