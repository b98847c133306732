"""The jobs of the semantic duplicates; what they do is in ``quality.semantic``.

torch is imported where they run.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.sampling import sample_keys
from shardwright.metadata.bucketed import open_listed, write_bucketed
from shardwright.metadata.files import fingerprint
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.clustering import read_centroids, share_cores
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.sections import Semantic
from shardwright.pipelines.vectors import matrix

if TYPE_CHECKING:
    from shardwright.embeddings.search import SearchIndex
    from shardwright.quality.close_pairs import Narrow
    from shardwright.quality.semantic import Bucket, Sample

_ROWS = 4096
_CLOSE = pa.schema([("vertex", pa.int64()), ("earlier", pa.string()), ("similarity", pa.float32())])


@dataclass(frozen=True)
class AssignPart:
    """Finds the clusters of a part's vectors, and writes the vectors to the buckets of these.

    Attributes:
        settings: The recipe's ``duplicates.semantic``.
        centroids: File of the table ``semantic_centroids``.
        vertices: File of (part, row, vertex) of the records that are compared.
        buckets: How many buckets there are.
        sampled: Share of the records that stands for all.
        driver: The process that made this.
    """

    settings: Semantic
    centroids: Path
    vertices: Path
    buckets: int
    sampled: float
    driver: int = field(default_factory=os.getpid)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["embeddings"]``."""
        import torch

        from shardwright.quality.semantic import assign, bucket_of, moved_schema

        share_cores(self.driver)
        places = pq.read_table(self.vertices, filters=[("part", "=", payload["part"])])
        rows, vertices = places.column("row").to_numpy(), places.column("vertex").to_numpy()
        device = resolve_device(self.settings.clusters.device)
        centroids = torch.from_numpy(read_centroids(self.centroids)).to(device)
        path = Path(payload["embeddings"])
        empty = moved_schema(pq.read_schema(path).field("vector").type).empty_table()
        moved, sampled = [empty], [empty]
        offset = 0
        for batch in read_batches(path, ["record_id", "vector"], rows=_ROWS):
            here = slice(*np.searchsorted(rows, [offset, offset + batch.num_rows]).tolist())
            live = batch.take(pa.array(rows[here] - offset))
            offset += batch.num_rows
            if live.num_rows:
                vectors = live.column("vector")
                found = assign(vertices[here], vectors, centroids, self.settings.clusters.probes)
                keys = sample_keys(live.column("record_id"), self.settings.clusters.seed)
                chosen = np.flatnonzero(keys <= np.uint64(self.sampled * (2**64 - 2**12)))
                moved.append(found)
                sampled.append(found.take(pa.array(chosen)))
        table = pa.concat_tables(moved)
        file, sample = output.file(".vectors.parquet"), output.file(".sample.parquet")
        write_bucketed(file, table, bucket_of(table.column("cluster").to_numpy(), self.buckets))
        pq.write_table(pa.concat_tables(sampled), sample)
        output.result = {"file": file.name, "sample": sample.name}


@dataclass(frozen=True)
class SampleBucket:
    """Writes how close each row of a bucket is to an earlier one of its cluster.

    Attributes:
        settings: The recipe's ``duplicates.semantic``.
        listing: List of the bucketed files.
        driver: The process that made this.
    """

    settings: Semantic
    listing: Path
    driver: int = field(default_factory=os.getpid)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads bucket ``payload["bucket"]``."""
        share_cores(self.driver)
        path = output.file(".npy")
        np.save(path, _gathered(self.listing, payload, self.settings, path).highest())
        output.result = {"file": path.name}


@dataclass(frozen=True)
class CompareBucket:
    """Compares each cluster of a bucket with itself, and the sample with the other clusters.

    Attributes:
        settings: The recipe's ``duplicates.semantic``.
        threshold: Similarity above which two records are close.
        listing: List of the bucketed files.
        samples: List of the files of the sample.
        centroids: File of the table ``semantic_centroids``.
        driver: The process that made this.
    """

    settings: Semantic
    threshold: float
    listing: Path
    samples: Path
    centroids: Path
    driver: int = field(default_factory=os.getpid)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name not in ("sample", "narrow")
        }

    @cached_property
    def sample(self) -> "Sample":
        """The sample, read once in a worker."""
        from shardwright.quality.semantic import Sample

        return Sample.read([Path(file) for file in json.loads(self.samples.read_text())])

    @cached_property
    def narrow(self) -> "Narrow":
        """What rules most pairs out, found once in a worker."""
        return self.sample.narrow(read_centroids(self.centroids))

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads bucket ``payload["bucket"]``."""
        share_cores(self.driver)
        file, crossed = output.file(".verdicts.parquet"), output.file(".crossed.npy")
        bucket = _gathered(self.listing, payload, self.settings, file)
        device = resolve_device(self.settings.clusters.device)
        meaning = self.settings.semantics
        pq.write_table(bucket.verdicts(self.threshold, meaning, self.narrow, device), file)
        np.save(crossed, bucket.crossing(self.sample, self.threshold, str(self.settings.keep)))
        output.result = {"file": file.name, "crossed": crossed.name}


@dataclass(frozen=True)
class SearchPart:
    """Searches the index of an earlier curation for records that are close to those of a part.

    Attributes:
        earlier: Output of the earlier curation; what it kept counts.
        threshold: Similarity above which two records are close.
        vertices: File of (part, row, vertex) of the records that are compared.
    """

    earlier: Path
    threshold: float
    vertices: Path

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "index"}

    @cached_property
    def index(self) -> "SearchIndex":
        """The index, opened once in a worker."""
        from shardwright.embeddings.search import open_index

        return open_index(self.earlier, kept=True)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["embeddings"]``."""
        places = pq.read_table(self.vertices, filters=[("part", "=", payload["part"])])
        rows, vertices = places.column("row").to_numpy(), places.column("vertex").to_numpy()
        path = output.file(".close.parquet")
        offset = 0
        with pq.ParquetWriter(path, _CLOSE) as writer:
            for batch in read_batches(Path(payload["embeddings"]), ["vector"], rows=_ROWS):
                here = slice(*np.searchsorted(rows, [offset, offset + batch.num_rows]).tolist())
                live = batch.take(pa.array(rows[here] - offset))
                offset += batch.num_rows
                if live.num_rows:
                    ids, similarity = self.index.search(matrix(live.column("vector")), 1)
                    close = similarity[:, 0] > self.threshold
                    found = [vertices[here][close], ids[close, 0], similarity[close, 0]]
                    writer.write_table(pa.table([pa.array(f) for f in found], schema=_CLOSE))
        output.result = {"file": path.name}


def _gathered(listing: Path, payload: dict[str, Any], settings: Semantic, beside: Path) -> "Bucket":
    """The bucket; vectors that are not held lie in a file that goes when they do."""
    from shardwright.quality.semantic import gather

    scratch = beside.with_suffix(".scratch")
    bucket = gather(open_listed(listing), payload["bucket"], str(settings.keep), scratch)
    scratch.unlink(missing_ok=True)  # what is mapped stays until it is mapped no more
    return bucket


def part_tasks(job: str, work: str, files: Sequence[Path | None]) -> Iterator[Task]:
    """A task for each part of embeddings that has rows."""
    for part, file in enumerate(files):
        if file is not None:
            payload = {"part": part, "embeddings": str(file)}
            size = file.stat().st_size
            yield Task(f"{part:08d}", fingerprint(job=job, work=work, part=part), payload, size)


def bucket_tasks(job: str, work: str, buckets: Iterable[int]) -> Iterator[Task]:
    """A task for each bucket."""
    for bucket in buckets:
        named = fingerprint(job=job, work=work, bucket=bucket)
        yield Task(f"{bucket:08d}", named, {"bucket": bucket})
