"""``scip_probe``: how corrupted a record looks, by embeddings alone.

SCIP (Yang et al. 2023, arXiv 2312.02418) reads two signs of damage off the embeddings: small
clusters, and distance from the centroid. The probe, which is our own, is told what damage looks
like: it is trained on pairs of a record and a copy damaged on purpose. Damage is local and a mean
over a file hides it, so it looks at windows of a record too. It must find kinds of damage that it
never saw, so everything that can be chosen is chosen by leaving whole families of damage out.

It sees a record as five numbers: how unlikely the document and its windows (their mean, and the
most unlikely one) are under mixtures of Gaussians fitted to records as they are, and how far
document and windows lie in the direction that damage moves vectors, if that helps with unseen
families. What is unlikely never speaks for a record: those weights are not negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.calibration import Gauge, even, fit_gauge, fit_logistic
from shardwright.quality.evaluation import area

Float64: TypeAlias = npt.NDArray[np.float64]
Float32: TypeAlias = npt.NDArray[np.float32]
Int64: TypeAlias = npt.NDArray[np.int64]

_COMPONENTS = 10
_ROWS_PER_COMPONENT = 50
# The covariance of a component counts as so many rows of the covariance within all of them, and
# this share of its mean variance is added to its diagonal.
_PRIOR_ROWS = 100
_RIDGE = 0.05
_LEAST_VARIANCE = 1e-9
# Ridges of the direction of damage, as shares of the mean variance; None leaves the direction out.
_DIRECTIONS = (None, 3.0, 0.3, 0.03)
_BLOCK = 8192
_MONOTONE = np.array([True, True, True, False, False])


@dataclass(frozen=True)
class Vectors:
    """Vectors of records and of their windows.

    Attributes:
        documents: float32 [n, d].
        windows: float32 [w, d], those of a record side by side, in the order of the records.
        starts: int64 [n], place of the first window of each record; each has one at least.
    """

    documents: Float32
    windows: Float32
    starts: Int64

    def take(self, rows: Int64) -> "Vectors":
        """The records in ``rows``."""
        stops = np.append(self.starts[1:], len(self.windows))
        counts = stops[rows] - self.starts[rows]
        starts = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(self.starts[rows] - starts, counts)
        return Vectors(self.documents[rows], self.windows[places], starts)


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians, whose components are found by k-means.

    Attributes:
        means: float64 [k, d].
        whiteners: float64 [k, d, d]; |whitener (x - mean)|^2 is the squared Mahalanobis distance.
        offsets: float64 [k], the logarithms of the determinants of the covariances.
    """

    means: Float64
    whiteners: Float64
    offsets: Float64

    def novelty(self, x: Float32) -> Float64:
        """How unlikely rows [n, d] are: -2 log of the likeliest component, a constant dropped."""
        best = np.full(len(x), np.inf)
        for first in range(0, len(x), _BLOCK):
            block = x[first : first + _BLOCK].astype(np.float64)
            here = best[first : first + _BLOCK]
            for mean, whitener, offset in zip(
                self.means, self.whiteners, self.offsets, strict=True
            ):
                far = (((block - mean) @ whitener.T) ** 2).sum(axis=1) + offset
                np.minimum(here, far, out=here)
        return best


def fit_mixture(x: Float32, seed: int) -> Mixture:
    """Fits a mixture to unit rows float32 [n, d]; small components lean on what all share."""
    from shardwright.embeddings.kmeans import KMeans

    k = max(1, min(_COMPONENTS, len(x) // _ROWS_PER_COMPONENT))
    labels = KMeans(k, seed=seed, device="cpu").fit(x).labels
    rows = x.astype(np.float64)
    _, labels = np.unique(labels, return_inverse=True)  # equal rows can leave clusters empty
    k = int(labels.max()) + 1
    means = np.stack([rows[labels == j].mean(axis=0) for j in range(k)])
    apart = rows - means[labels]
    shared = apart.T @ apart / len(rows)
    whiteners, offsets = [], []
    for j in range(k):
        own = apart[labels == j]
        covariance = (own.T @ own + _PRIOR_ROWS * shared) / (len(own) + _PRIOR_ROWS)
        ridge = _RIDGE * np.trace(covariance) / len(shared) + _LEAST_VARIANCE
        covariance[np.diag_indices_from(covariance)] += ridge
        root = np.linalg.cholesky(covariance)
        whiteners.append(np.linalg.inv(root))
        offsets.append(2 * np.log(np.diag(root)).sum())
    return Mixture(means, np.stack(whiteners), np.array(offsets))


@dataclass(frozen=True)
class Probe:
    """A calibrated probe.

    Attributes:
        documents: What documents are like.
        windows: What windows are like.
        direction: float64 [d], the direction that damage moves vectors; zero if it does not help.
        gauge: Where its features lie among those of clean records.
        weights: float64 [5], of the features' normal scores.
        bias: Log odds where all features are average.
    """

    documents: Mixture
    windows: Mixture
    direction: Float64
    gauge: Gauge
    weights: Float64
    bias: float

    def judge(self, vectors: Vectors) -> Float64:
        """Log odds that records are damaged, float64 [n]; even odds are 0."""
        plain = _novelties(vectors, self.documents, self.windows)
        found = np.column_stack([plain, _displaced(vectors, self.direction)])
        judged: Float64 = self.gauge.scores(found, [None] * len(found)) @ self.weights + self.bias
        return judged


def fit_probe(
    documents: Float32,
    windows: Float32,
    clean: Vectors,
    damaged: Vectors,
    pairs: Int64,
    families: Sequence[str],
) -> Probe:
    """Trains a probe on pairs of clean and damaged records.

    Args:
        documents: float32 [r, d], what documents are like: of other records than the pairs, as a
            record is always more likely to a model that has seen it.
        windows: float32 [s, d], what windows are like, of other records too.
        clean: n clean records.
        damaged: m damaged ones.
        pairs: int64 [m], the clean record that each damaged one was made of.
        families: m names of families of damage.
    """
    usual, usual_windows = fit_mixture(documents, 0), fit_mixture(windows, 0)
    named = np.array(families)
    plain = _novelties(clean, usual, usual_windows)
    novel = _novelties(damaged, usual, usual_windows)
    covariance = np.cov(documents.T.astype(np.float64))

    def direction(ridge: float | None, taught: npt.NDArray[np.bool_]) -> Float64:
        if ridge is None or not taught.any():
            return np.zeros(len(covariance))
        before = clean.documents[pairs[taught]].astype(np.float64)
        moved = (damaged.documents[taught] - before).mean(axis=0)
        shrunk = covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(
            len(covariance)
        )
        found: Float64 = np.linalg.solve(shrunk, moved)
        return found / max(float(np.linalg.norm(found)), 1e-30)

    def train(ridge: float | None, taught: npt.NDArray[np.bool_]) -> tuple[Probe, Float64, Float64]:
        """A probe, and how it judges the clean and all damaged records."""
        axis = direction(ridge, taught)
        good = np.column_stack([plain, _displaced(clean, axis)])
        bad = np.column_stack([novel, _displaced(damaged, axis)])
        gauge = fit_gauge(good, [None] * len(good))
        good = gauge.scores(good, [None] * len(good))
        bad = gauge.scores(bad, [None] * len(bad))
        weights, bias = fit_logistic(good, bad[taught], even(named[taught]), _MONOTONE)
        probe = Probe(usual, usual_windows, axis, gauge, weights, bias)
        return probe, good @ weights, bad @ weights

    def unseen(ridge: float | None) -> float:
        """Mean area over families, each judged by a probe that never saw it."""
        areas = []
        for family in sorted(set(named)):
            held = named == family
            if held.all():
                continue
            _, good, bad = train(ridge, ~held)
            scores = -np.concatenate([good, bad[held]])
            rows = np.arange(len(scores))
            areas.append(area(scores, rows >= len(good), rows).value)
        return float(np.mean(areas)) if areas else 0.5

    ridge = max(_DIRECTIONS, key=unseen)
    return train(ridge, np.ones(len(named), bool))[0]


def _novelties(vectors: Vectors, documents: Mixture, windows: Mixture) -> Float64:
    """float64 [n, 3]: novelty of the document, mean and greatest novelty of its windows."""
    inner = windows.novelty(vectors.windows)
    counts = np.diff(np.append(vectors.starts, len(inner)))
    mean = np.add.reduceat(inner, vectors.starts) / counts
    most = np.maximum.reduceat(inner, vectors.starts)
    return np.column_stack([documents.novelty(vectors.documents), mean, most])


def _displaced(vectors: Vectors, direction: Float64) -> Float64:
    """float64 [n, 2]: how far the document, and its farthest window, lie in a direction."""
    axis = direction.astype(np.float32)
    inner = np.maximum.reduceat(vectors.windows @ axis, vectors.starts)
    return np.column_stack([vectors.documents @ axis, inner]).astype(np.float64)
