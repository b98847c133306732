"""Semantic duplicates bucket by bucket: what a worker does between one file and the next.

Vectors move twice. A part's vectors are assigned to clusters and written by bucket, each bucket the
clusters of about 64 MB of vectors; and a bucket is gathered from the files of all parts, cluster by
cluster, in order of preference. All that is here needs NumPy, pyarrow and torch alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from shardwright import kernels
from shardwright.embeddings.rows import new_rows
from shardwright.embeddings.sampling import mixed
from shardwright.kernels import exact
from shardwright.metadata.bucketed import BucketedFiles
from shardwright.quality.close_pairs import Float64, Int64, Narrow, close_pairs, narrow_basis
from shardwright.quality.pruning.similarity import highest_earlier
from shardwright.quality.semdedup import MEANINGS, Meaning, Verdicts

SAMPLE = 4096
"""Records, about, by which directions are found; every fourth tells what borders part."""
ITERATIONS = 10
"""Moves of k-means: for clusters that are only to bring the close together few will do."""
VERDICTS = pa.schema(
    [
        ("vertex", pa.int64()),
        ("ranked", pa.int64()),
        ("ranked_similarity", pa.float64()),
        ("greedy", pa.int64()),
        ("greedy_similarity", pa.float64()),
        ("components", pa.int64()),
        ("components_similarity", pa.float64()),
    ]
)
"""A row that goes under some meaning: for each the row that it goes for, null if it stays, and
their similarity. For ``ranked`` that is the closest earlier row, which may go itself."""

_BUCKET_BYTES = 64_000_000
_WIDTH = 128
_EACH = 4
_ROWS = 4096
_SLACK = 1e-4
"""Far more than float32 products of unit rows can err by."""


def bucket_count(rows: int, dimension: int, clusters: int) -> int:
    """Buckets for the vectors of so many rows: of 64 MB as float32, no more than clusters."""
    return max(1, min(clusters, 4 * rows * dimension // _BUCKET_BYTES))


def bucket_of(clusters: npt.NDArray[np.int32], buckets: int) -> npt.NDArray[np.int32]:
    """Bucket of each cluster; neighbours go apart, so that buckets are alike."""
    keys = mixed(clusters.astype(np.uint64), 0)
    return (keys % np.uint64(buckets)).astype(np.int32)


def moved_schema(vector: pa.FixedSizeListType) -> pa.Schema:
    """Columns of the bucketed table, for vectors of a type.

    A vector moves as its bytes, which Parquet copies; lists it takes apart into numbers.
    """
    dtype = np.dtype(vector.value_type.to_pandas_dtype())
    return pa.schema(
        [
            pa.field("vertex", pa.int64()),
            pa.field("cluster", pa.int32()),
            pa.field("home", pa.bool_()),
            pa.field("distance", pa.float64()),
            pa.field(
                "vector",
                pa.binary(vector.list_size * dtype.itemsize),
                metadata={"dtype": dtype.name},
            ),
        ]
    )


def assign(
    vertices: Int64, vectors: pa.FixedSizeListArray, centroids: torch.Tensor, probes: int
) -> pa.Table:
    """Rows with the clusters that they belong to.

    Args:
        vertices: int64 [n], the rows' numbers in order of preference.
        vectors: n vectors.
        centroids: float32 [k, d], on the device that computes.
        probes: 1 for the nearest centroid, 2 for the two nearest.

    Returns:
        Columns of ``moved_schema``: n rows whose cluster is that of the nearest centroid, their
        home; with two probes n further rows with the second one. ``distance`` is 1 - cosine to the
        nearest centroid in either case.
    """
    rows = matrix(vectors)
    x = torch.from_numpy(rows).to(centroids.device)
    probes = min(probes, len(centroids))
    if probes == 1:
        index, value = kernels.nearest(x, centroids)
        clusters, nearest = index[:, None].cpu().numpy(), value.cpu().numpy()
    else:
        found, values = kernels.topk(x, centroids, probes)
        clusters, nearest = found.cpu().numpy(), values[:, 0].cpu().numpy()
    schema = moved_schema(vectors.type)
    data = pa.Array.from_buffers(schema.field("vector").type, len(rows), [None, pa.py_buffer(rows)])
    columns = [
        np.tile(vertices, probes),
        clusters.T.reshape(-1).astype(np.int32),
        np.repeat(np.arange(probes) == 0, len(vertices)),
        np.tile((1 - nearest).clip(min=0), probes),
        pa.concat_arrays([data] * probes),
    ]
    return pa.table(columns, schema=schema)


@dataclass(frozen=True, eq=False)
class Sample:
    """Some rows with their clusters, by vertex.

    Attributes:
        vertices: int64 [s], ascending.
        clusters: int64 [s].
        distances: float64 [s].
        vectors: [s, d], as they are stored.
    """

    vertices: Int64
    clusters: Int64
    distances: Float64
    vectors: npt.NDArray[Any]

    @staticmethod
    def read(files: Sequence[Path]) -> "Sample":
        """Reads tables of ``moved_schema``."""
        table = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("vertex")
        return Sample(
            table.column("vertex").to_numpy(),
            table.column("cluster").to_numpy().astype(np.int64),
            table.column("distance").to_numpy(),
            _moved(table.column("vector"), table.schema),
        )

    def narrow(self, centroids: npt.NDArray[np.float32]) -> Narrow:
        """What rules most pairs out."""
        width = min(_WIDTH, self.vectors.shape[1])
        return narrow_basis(self.vectors, self.clusters, centroids, width)


@dataclass(frozen=True, eq=False)
class Bucket:
    """The rows of a bucket, cluster by cluster, in order of preference.

    Attributes:
        vertices: int64 [n].
        clusters: int64 [n], ascending.
        distances: float64 [n], to the nearest centroid.
        home: bool [n], whether the cluster is that of the nearest centroid.
        vectors: [n, d] as they are stored, in memory or mapped from a file.
    """

    vertices: Int64
    clusters: Int64
    distances: Float64
    home: npt.NDArray[np.bool_]
    vectors: npt.NDArray[Any]

    def verdicts(self, threshold: float, chosen: Meaning, narrow: Narrow, device: str) -> pa.Table:
        """Compares each cluster with itself: columns of ``VERDICTS``.

        Of ``components`` similarities are measured only if it is the meaning that was chosen.
        """
        verdicts = Verdicts(len(self.vertices))
        for pairs in close_pairs(self.vectors, self.clusters, threshold, narrow, device):
            verdicts.add(*pairs)
        first = verdicts.representatives("components")
        first[first == np.arange(len(first))] = -1
        closest = {
            "ranked": verdicts.earlier,
            "greedy": verdicts.survivor,
            "components": (first, self._similarity(first, measured=chosen == "components")),
        }
        gone = np.flatnonzero((closest["ranked"][0] >= 0) | (first >= 0))
        columns = [pa.array(self.vertices[gone])]
        for meaning in MEANINGS:
            index, value = (part[gone] for part in closest[meaning])
            columns.append(pa.array(self.vertices[index], mask=index < 0))
            columns.append(pa.array(value, mask=(index < 0) | np.isnan(value)))
        return pa.table(columns, schema=VERDICTS)

    def _similarity(self, other: Int64, *, measured: bool) -> Float64:
        """Cosine of each row to the row ``other`` [n] of it; NaN where that is -1."""
        value = np.full(len(other), np.nan)
        rows = np.flatnonzero(other >= 0)
        if measured and len(rows):
            x = torch.from_numpy(self.vectors)
            lengths = exact.norms(x, "x")
            pairs = torch.from_numpy(rows), torch.from_numpy(other[rows])
            value[rows] = exact.pair_values(x, x, *pairs, "cosine", lengths, lengths)
        return value

    def highest(self) -> Float64:
        """The greatest similarity of each row to an earlier one of its cluster, -inf for none."""
        return highest_earlier(self.vectors, self.clusters)

    def crossing(self, sample: Sample, threshold: float, keep: str) -> Int64:
        """Vertices of the sample that a row of another cluster, to be preferred, is close to.

        Of the sample every fourth row is asked for.
        """
        some = slice(None, None, _EACH)
        mine, clusters = sample.vertices[some], sample.clusters[some]
        rank = ranks(keep, sample.distances)[some]
        own = ranks(keep, self.distances)
        left = torch.from_numpy(sample.vectors[some])
        lengths = exact.norms(left, "sample")
        unit = _unit(left, lengths)
        found = [np.empty(0, np.int64)]
        for start in range(0, len(self.vertices), _ROWS):
            right = torch.from_numpy(self.vectors[start : start + _ROWS])
            norms = exact.norms(right, "rows")
            scores = unit @ _unit(right, norms).T
            i, j = (part.numpy() for part in (scores > threshold - _SLACK).nonzero(as_tuple=True))
            k = j + start
            prior = (own[k] < rank[i]) | ((own[k] == rank[i]) & (self.vertices[k] < mine[i]))
            asked = np.flatnonzero(prior & self.home[k] & (self.clusters[k] != clusters[i]))
            pairs = torch.from_numpy(i[asked]), torch.from_numpy(j[asked])
            close, _ = exact.above(left, right, *pairs, threshold, "cosine", lengths, norms)
            found.append(mine[i[asked][close.numpy()]])
        return np.unique(np.concatenate(found))


def asked(sample: Sample) -> Int64:
    """Vertices of the rows that ``Bucket.crossing`` asks for."""
    return sample.vertices[::_EACH]


def ranks(keep: str, distances: Float64) -> Float64:
    """What rows are ordered by before their vertex, the lower the better to keep: float64 [n].

    Vertices themselves are in the order of every other value of ``keep``.
    """
    return {"farthest": -1.0, "nearest": 1.0}.get(keep, 0.0) * distances


def gather(files: BucketedFiles, number: int, keep: str, scratch: Path) -> Bucket:
    """Reads a bucket: first all but the vectors, for the order; then these, each to its place.

    Vectors that are too many to be held are mapped from the file ``scratch``.
    """
    columns = ["vertex", "cluster", "distance", "home"]
    narrow = pa.concat_tables(files.groups(number, columns))
    vertices, clusters, distances, home = (narrow.column(name).to_numpy() for name in columns)
    order = np.lexsort((vertices, ranks(keep, distances), clusters))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    dtype = _dtype(files.schema)
    shape = (len(order), files.schema.field("vector").type.byte_width // dtype.itemsize)
    vectors = new_rows(shape, dtype, scratch)
    start = 0
    for part in files.groups(number, ["vector"]):
        rows = _moved(part.column("vector"), files.schema)
        vectors[place[start : start + len(rows)]] = rows
        start += len(rows)
    return Bucket(
        vertices[order],
        clusters[order].astype(np.int64),
        distances[order],
        home[order],
        vectors,
    )


def _dtype(moved: pa.Schema) -> np.dtype[Any]:
    return np.dtype(moved.field("vector").metadata[b"dtype"].decode())


def _moved(vectors: pa.ChunkedArray, moved: pa.Schema) -> npt.NDArray[Any]:
    """Vectors that moved as bytes, as rows [n, d]."""
    array = vectors.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunk
        array = pa.array([], moved.field("vector").type)
    width = array.type.byte_width
    data = array.buffers()[1][array.offset * width : (array.offset + len(array)) * width]
    dtype = _dtype(moved)
    return np.frombuffer(bytearray(data), dtype).reshape(len(array), width // dtype.itemsize)


def matrix(vectors: pa.FixedSizeListArray) -> npt.NDArray[Any]:
    """The vectors as rows [n, d] of their own type, in memory that may be written to."""
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    rows: npt.NDArray[Any] = flat.reshape(len(vectors), vectors.type.list_size)
    return rows.copy()


def _unit(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return (x.double() / lengths.clamp(min=1e-300)[:, None]).float()
