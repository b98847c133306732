"""The greatest similarity of each record to those that stand before it in its cluster.

It is the core of SemDeDup (Abbas, Tirumala, Simig, Ganguli and Morcos 2023, arXiv 2303.09540, sec.
3), computed by ``kernels.group_max``: exact, the same bits on every device. NumPy and torch are all
that it needs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shardwright import kernels
from shardwright.quality.close_pairs import Float64, Int64, Rows

_HELD_BYTES = 1 << 28
"""Vectors that are gathered at a time; a larger cluster is gathered whole."""


def highest_earlier(vectors: Rows, clusters: Int64) -> Float64:
    """The greatest cosine similarity of each row to an earlier row of its cluster.

    Args:
        vectors: rows [n, d], float32 or float16, cluster by cluster, in order of preference; may
            be mapped from a file, or a tensor on any device.
        clusters: int64 [n], ascending.

    Returns:
        float64 [n], -inf for the first row of a cluster.
    """
    bounds = np.append(np.flatnonzero(np.diff(clusters, prepend=-1)), len(clusters))
    if isinstance(vectors, torch.Tensor):
        value: Float64 = kernels.group_max(vectors, torch.from_numpy(bounds))[1].cpu().numpy()
        return value
    return kernels.group_max(vectors, bounds)[1]


def earlier_similarity(
    vectors: Rows,
    clusters: npt.ArrayLike,
    distances: npt.ArrayLike,
    ties: npt.ArrayLike,
    device: str | None = None,
) -> Float64:
    """The greatest cosine similarity of each record to an earlier one of its cluster.

    Earlier is what is farther from the centroid; of equally far ones, what has the lower ``ties``.

    Args:
        vectors: rows [n, d], float32 or float16, in any order; may be mapped from a file, or a
            tensor on any device.
        clusters: int [n], not negative.
        distances: float64 [n], 1 - cosine to the own centroid.
        ties: [n], numbers or strings, all different.
        device: ``cpu`` or ``cuda``; by default where the vectors lie.

    Returns:
        float64 [n], from -1 to 1; -1 for the first record of a cluster. It depends neither on the
        order of the rows nor on the device.

    Raises:
        TypeError, ValueError: see ``kernels.group_max``; or lengths differ.
    """
    labels, far = np.asarray(clusters, np.int64), np.asarray(distances, np.float64)
    last = np.asarray(ties)
    for name, column in {"clusters": labels, "distances": far, "ties": last}.items():
        if column.shape != (len(vectors),):
            raise ValueError(f"{name} has shape {column.shape}: there are {len(vectors)} vectors")
    order = np.lexsort((last, -far, labels))
    labels = labels[order]
    similarity = np.empty(len(order))
    for part in _runs(labels, _row_bytes(vectors)):
        rows = order[part]
        similarity[rows] = highest_earlier(_gathered(vectors, rows, device), labels[part])
    return np.maximum(similarity, -1.0)


def _row_bytes(vectors: Rows) -> int:
    size = vectors.element_size() if isinstance(vectors, torch.Tensor) else vectors.itemsize
    return max(1, size * vectors.shape[1])


def _runs(labels: Int64, row_bytes: int) -> Iterator[slice]:
    """Whole clusters together, as many as may be held at once; ``labels`` ascend."""
    most = max(1, _HELD_BYTES // row_bytes)
    ends = np.append(np.flatnonzero(np.diff(labels)) + 1, len(labels))
    start = 0
    while start < len(labels):
        place = int(np.searchsorted(ends, start + most, "right")) - 1
        stop = int(ends[place]) if place >= 0 and ends[place] > start else 0
        if not stop:  # one cluster is larger
            stop = int(ends[np.searchsorted(ends, start, "right")])
        yield slice(start, stop)
        start = stop


def _gathered(vectors: Rows, rows: Int64, device: str | None) -> Rows:
    if isinstance(vectors, torch.Tensor):
        some = vectors[torch.from_numpy(rows).to(vectors.device)]
        return some if device is None else some.to(device)
    taken: npt.NDArray[Any] = np.asarray(vectors[rows])
    return taken if device in (None, "cpu") else torch.from_numpy(taken).to(device)
