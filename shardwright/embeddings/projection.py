"""Vectors as points of a plane in which neighbours stay neighbours."""

import os
from importlib import import_module
from math import isqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from shardwright.kernels import topk

_DIMENSIONS: Final = 50
_NEIGHBOURS: Final = 15
_FEW: Final = 16
"""So many vectors have no neighbourhoods to speak of."""
_MANY: Final = 20_000
"""Up to so many vectors, each is compared with all others."""
_PROBED: Final = 64
_EARLY, _LATE = 125, 375
_EXAGGERATION: Final = 12.0

Vectors = npt.NDArray[Any]


def project(vectors: Vectors) -> npt.NDArray[np.float32]:
    """Lays vectors out in a plane by t-SNE from a start by principal components.

    Neighbours are the 15 nearest by the first 50 principal components, each as strong as the
    others; of more than 20,000 vectors those nearest that an inverted file finds. Gradients are
    those of FIt-SNE above 2,000 vectors and of Barnes and Hut below. On one machine the same
    vectors give the same places, on any number of cores.

    Args:
        vectors: (n, d), float16 or float32, finite.

    Returns:
        (n, 2), float32, centred; up to 16 vectors by their principal components alone.

    Source: van der Maaten and Hinton 2008, *Visualizing data using t-SNE*; Linderman et al. 2019,
    *Fast interpolation-based t-SNE*; Kobak and Berens 2019 for the start; Böhm et al. 2022,
    *Attraction-repulsion spectrum in neighbor embeddings*, for the affinities; by openTSNE.
    """
    reduced = _principal(np.asarray(vectors, dtype=np.float32), _DIMENSIONS)
    count = len(reduced)
    if count <= _FEW:
        places = np.zeros((count, 2), dtype=np.float32)
        places[:, : min(2, reduced.shape[1])] = reduced[:, :2]
        return places
    from openTSNE import TSNEEmbedding, initialization
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    wanted, cores = min(count - 1, _NEIGHBOURS), len(os.sched_getaffinity(0))
    known = PrecomputedNeighbors(*_neighbours(reduced, wanted))
    start = np.zeros((count, 2))
    start[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    with threadpool_limits(1):  # of BLAS, whose sums would come in any order
        places = TSNEEmbedding(
            initialization.rescale(start) if start.any() else start,
            Uniform(knn_index=known, k_neighbors=wanted, n_jobs=cores),
            negative_gradient_method="fft" if count > 2000 else "bh",
            n_jobs=cores,
            random_state=0,
        )
        places = places.optimize(_EARLY, exaggeration=_EXAGGERATION, momentum=0.5)
        places = places.optimize(_LATE, momentum=0.8)
    found = np.asarray(places, dtype=np.float32)
    centred: npt.NDArray[np.float32] = found - found.mean(axis=0)
    return centred


def _principal(vectors: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.float32]:
    """The first principal components, each with its largest weight positive."""
    if not len(vectors):
        return np.zeros((0, 2), dtype=np.float32)
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    products = centred.T.astype(np.float64) @ centred if len(centred) < 4096 else _products(centred)
    weights = np.linalg.eigh(products)[1][:, ::-1][:, :most]
    largest = np.abs(weights).argmax(axis=0)
    weights *= np.sign(weights[largest, np.arange(weights.shape[1])])
    reduced: npt.NDArray[np.float32] = centred @ weights.astype(np.float32)
    return reduced


def _products(centred: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """X'X in float64, without a copy of all of X in it."""
    products = np.zeros((centred.shape[1],) * 2)
    for first in range(0, len(centred), 4096):
        piece = centred[first : first + 4096].astype(np.float64)
        products += piece.T @ piece
    return products


def _neighbours(
    vectors: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Indices and Euclidean distances of the nearest others, a vector's own copies included."""
    if len(vectors) <= _MANY:
        found = topk(vectors, vectors, count + 1, "l2", precision="fast")
        indices, squared = (np.asarray(part) for part in found)
    else:
        squared, indices = _probed(vectors, count + 1)
    own = indices == np.arange(len(vectors))[:, None]
    own[~own.any(axis=1), -1] = True  # enough copies came before it
    others = (~own).reshape(-1)
    shape = (len(vectors), count)
    distances = np.sqrt(np.maximum(squared.reshape(-1)[others].reshape(shape), 0.0))
    return indices.reshape(-1)[others].reshape(shape).astype(np.int64), distances.astype(np.float64)


def _probed(
    vectors: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Squared distances and indices of near vectors by an inverted file.

    Its lists are around vectors spread evenly over all, so that nothing is trained.
    """
    faiss: Any = import_module("faiss")
    rows = np.ascontiguousarray(vectors)
    lists = 4 * isqrt(len(rows))
    coarse = faiss.IndexFlatL2(rows.shape[1])
    coarse.add(rows[np.linspace(0, len(rows) - 1, lists).astype(np.int64)])
    index = faiss.IndexIVFFlat(coarse, rows.shape[1], lists)
    index.is_trained, index.nprobe = True, _PROBED
    index.add(rows)
    squared, indices = index.search(rows, count)
    short = (indices < 0).any(axis=1)
    if short.any():  # lists of next to nothing, as of very many copies
        found = topk(rows[short], rows, count, "l2", precision="fast")
        indices[short], squared[short] = (np.asarray(part) for part in found)
    return squared, indices
