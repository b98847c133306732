"""The scores that need vectors again: similarity within clusters, and D4's second clustering.

torch is imported where it runs.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.sampling import sample_size
from shardwright.metadata.bucketed import list_bucketed, open_listed, write_bucketed
from shardwright.metadata.catalog import file_literal
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import CLUSTERS, SIMILARITIES
from shardwright.pipelines.alive import LivePart, alive_parts, live_batches, parts_without
from shardwright.pipelines.clustering import cluster_count, sample, share_cores
from shardwright.pipelines.jobs import Job, Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import commit_query, resting
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Clusters
from shardwright.pipelines.vectors import matrix

VERSION = "1"
_ROWS = 4096


@dataclass(frozen=True)
class MovePart:
    """Writes the vectors of a part to the buckets of their clusters.

    Attributes:
        buckets: How many buckets there are.
    """

    buckets: int

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["embeddings"]`` beside ``payload["clusters"]``, row by row."""
        from shardwright.quality.semantic import bucket_of

        assigned = pq.read_table(payload["clusters"], schema=CLUSTERS)
        path = Path(payload["embeddings"])
        batches = [
            _packed(matrix(batch.column("vector")))
            for batch in live_batches(path, ["vector"], payload["dropped"], _ROWS)
        ]
        table = assigned.append_column("vector", pa.chunked_array(batches))
        file = output.file(".vectors.parquet")
        write_bucketed(file, table, bucket_of(table.column("cluster").to_numpy(), self.buckets))
        output.result = {"file": file.name}


@dataclass(frozen=True)
class CompareBucket:
    """Finds the greatest similarity of each record to those before it in its cluster.

    Attributes:
        listing: List of the bucketed files.
        driver: The process that made this.
    """

    listing: Path
    driver: int = field(default_factory=os.getpid)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads bucket ``payload["bucket"]``."""
        from shardwright.quality.pruning.similarity import earlier_similarity

        share_cores(self.driver)
        table = open_listed(self.listing).read(payload["bucket"]).combine_chunks()
        ids = table.column("record_id").to_numpy().astype("S32")
        cluster, distance = (table.column(name).to_numpy() for name in ("cluster", "distance"))
        found = earlier_similarity(_unpacked(table.column("vector")), cluster, distance, ids)
        columns = [table.column("record_id"), pa.array(found)]
        file = output.file(".similarities.parquet")
        pq.write_table(pa.table(columns, schema=SIMILARITIES), file)
        output.result = {"file": file.name}


@dataclass(frozen=True)
class AssignAgain:
    """Finds the nearest of the centroids that were trained on the survivors.

    Attributes:
        centroids: A file of them, float32 [k, d].
        settings: The recipe's section ``clusters``.
        driver: The process that made this.
    """

    centroids: Path
    settings: Clusters
    driver: int = field(default_factory=os.getpid)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["embeddings"]``."""
        from shardwright.embeddings.kmeans import KMeans

        share_cores(self.driver)
        centres = np.load(self.centroids)
        kmeans = KMeans(
            len(centres), precision=self.settings.precision, device=self.settings.device
        )
        file = output.file(".clusters.parquet")
        with pq.ParquetWriter(file, CLUSTERS) as writer:
            path, dropped = Path(payload["embeddings"]), payload["dropped"]
            for batch in live_batches(path, ["record_id", "vector"], dropped, _ROWS):
                labels, distances = kmeans.assign(matrix(batch.column("vector")), centres)
                columns = [
                    batch.column("record_id"),
                    pa.array(labels.astype(np.int32)),
                    pa.array(distances),
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=CLUSTERS))
        output.result = {"file": file.name}


def commit_similarities(
    run: Run, embeddings: Manifest, clusters: Manifest, progress: StageProgress
) -> Manifest:
    """Commits ``similarities``: for each record the greatest similarity to an earlier one."""
    inputs = [embeddings, clusters]

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        from shardwright.quality.semantic import bucket_count

        work = fingerprint(version=VERSION, inputs=[table.content_sha256 for table in inputs])
        assigned = {part.key: part for part in clusters.parts()}
        live = alive_parts(run, embeddings, "cluster")
        tasks = _part_tasks(
            "score-move",
            work,
            embeddings,
            live,
            {
                key: str(clusters.folder / part.file)
                for key, part in assigned.items()
                if part.file is not None
            },
        )
        dimension = embeddings.schema.field("vector").type.list_size
        k = run.layout.need("centroids", "cluster").rows
        buckets = bucket_count(clusters.rows, dimension, k)
        job = _run(run, "score-move", tasks, MovePart(buckets), progress)
        files = [job.folder / left["file"] for _, left in job.results()]
        listing = list_bucketed(files, buckets, job.folder)
        tasks = (
            Task(
                f"{bucket:08d}",
                fingerprint(job="score-compare", work=work, bucket=bucket),
                {"bucket": bucket},
            )
            for bucket in open_listed(listing).buckets.tolist()
        )
        job = _run(run, "score-compare", tasks, CompareBucket(listing), progress)
        _read_in(connection, "found", job)

    return commit_query(
        run,
        "score",
        VERSION,
        {"similarities": (SIMILARITIES, "SELECT * FROM found ORDER BY record_id")},
        parameters={},
        inputs=inputs,
        prepare=prepare,
    )["similarities"]


def cluster_again(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    embeddings: Manifest,
    survivors: str,
    progress: StageProgress,
) -> None:
    """Makes ``clusters_again(record_id, cluster, distance)`` of the records that a query yields."""
    from shardwright.embeddings.hierarchical import fit_centroids
    from shardwright.embeddings.kmeans import KMeans

    gone = f"SELECT record_id FROM embeddings ANTI JOIN ({survivors}) AS s USING (record_id)"
    live = list(parts_without(connection, embeddings, gone))
    rows = embeddings.rows - sum(len(dropped) for _, dropped in live)
    settings = run.recipe.clusters
    k = cluster_count(run, "d4: clusters.k", settings.k, rows)
    folder = run.layout.staging("score-again")
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "sample.bin"
    drawn = sample(embeddings, live, sample_size(rows, k), settings.seed, scratch)
    kmeans = KMeans(
        k,
        start=settings.start,
        seed=settings.seed,
        precision=settings.precision,
        device=settings.device,
    )
    centroids = fit_centroids(drawn, kmeans)
    scratch.unlink(missing_ok=True)
    work = fingerprint(
        version=VERSION,
        embeddings=embeddings.content_sha256,
        dropped=[dropped for _, dropped in live],
        centroids=centroids.tobytes().hex(),
    )
    path = folder / f"centroids-{work[:16]}.npy"
    np.save(path, centroids)
    tasks = _part_tasks("score-again", work, embeddings, live, None)
    with resting(connection):
        job = _run(run, "score-again", tasks, AssignAgain(path, settings), progress)
    _read_in(connection, "clusters_again", job)


def _part_tasks(
    job: str,
    work: str,
    embeddings: Manifest,
    live: Sequence[LivePart] | Iterator[LivePart],
    clusters: dict[str, str] | None,
) -> Iterator[Task]:
    """A task for each part of vectors that has live rows."""
    for part, dropped in live:
        if part.file is not None and part.rows > len(dropped):
            payload = {"embeddings": str(embeddings.folder / part.file), "dropped": dropped}
            if clusters is not None:
                payload["clusters"] = clusters[part.key]
            named = fingerprint(job=job, work=work, part=part.key)
            yield Task(part.key, named, payload, part.bytes)


def _packed(vectors: npt.NDArray[np.float32]) -> pa.Array:
    """Rows [n, d] as bytes, which Parquet copies; lists it takes apart into numbers."""
    width = vectors.shape[1] * vectors.itemsize
    data = pa.py_buffer(np.ascontiguousarray(vectors))
    return pa.Array.from_buffers(pa.binary(width), len(vectors), [None, data])


def _unpacked(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Rows float32 [n, d] of a column of one chunk."""
    array = column.chunk(0)
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1], np.uint8)
    rows = data[array.offset * width : (array.offset + len(array)) * width]
    return rows.view(np.float32).reshape(len(array), -1)


def _run(run: Run, name: str, tasks: Iterator[Task], work: Any, progress: StageProgress) -> Job:
    job = run.plan(name, {}, tasks, staged_only=True)
    run.execute("score", job, work, progress)
    return job


def _read_in(connection: duckdb.DuckDBPyConnection, name: str, job: Job) -> None:
    files = ", ".join(file_literal(job.folder / left["file"]) for _, left in job.results())
    connection.execute(f"CREATE VIEW {name} AS FROM read_parquet([{files}])")
