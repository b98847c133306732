"""``scip_probe``: how corrupted a record looks, by embeddings alone.

SCIP (Yang et al. 2023, arXiv 2312.02418) reads two signs of damage off the embeddings: small
clusters, and distance from the centroid. The probe, which is our own, is told what damage looks
like: it is trained on pairs of a record and a copy damaged on purpose. Damage is local and a mean
over a file hides it, so it looks at windows of a record too. It must find kinds of damage that it
never saw, so everything that can be chosen is chosen by leaving whole families of damage out.

It sees a record as five numbers: how unlikely the document and its windows (their mean, and the
most unlikely one) are for the component they belong to of mixtures of Gaussians fitted to records
as they are, and how far document and windows lie in the direction that damage moves vectors, if
that helps with unseen families. What is unlikely never speaks for a record: those weights are not
negative. Mixtures are fitted in two folds, and no record is judged by one that has read it.
"""

import zlib
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

_COMPONENTS = 30
_ROWS_PER_COMPONENT = 50
# The covariance of a component counts as so many rows of the covariance within all of them, and
# this share of its mean variance is added to its diagonal.
_PRIOR_ROWS = 300
_RIDGE = 0.5
_LEAST_VARIANCE = 1e-9
# With fewer rows in a fold, all of them are learned from and say what is usual too.
_LEAST_ROWS = 20
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

    @property
    def counts(self) -> Int64:
        """Windows of each record, int64 [n]."""
        return np.diff(np.append(self.starts, len(self.windows)))

    def take(self, rows: Int64) -> "Vectors":
        """The records in ``rows``."""
        counts = self.counts[rows]
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

    def likeliest(self, x: Float32) -> tuple[Float64, Int64]:
        """-2 log likelihood of rows [n, d], a constant dropped, and the component of which it is.

        Returns:
            float64 [n] and int64 [n].
        """
        best, which = np.full(len(x), np.inf), np.zeros(len(x), np.int64)
        components = list(zip(self.means, self.whiteners, self.offsets, strict=True))
        for first in range(0, len(x), _BLOCK):
            part = slice(first, first + _BLOCK)
            block = x[part].astype(np.float64)
            for j, (mean, whitener, offset) in enumerate(components):
                far = (((block - mean) @ whitener.T) ** 2).sum(axis=1) + offset
                nearer = far < best[part]
                which[part][nearer] = j
                best[part][nearer] = far[nearer]
        return best, which


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
class Usual:
    """What rows are like, learned in two folds: rows are likelier to a mixture that has read them.

    Attributes:
        mixtures: For each fold one that has read the other fold.
        gauges: For each fold, where a row lies among the rows of the fold, by component: components
            differ in how tight they are, and in what is usual in them.
    """

    mixtures: tuple[Mixture, Mixture]
    gauges: tuple[Gauge, Gauge]

    def novelty(self, x: Float32, folds: Int64) -> Float64:
        """How unlikely rows [n, d] are for their likeliest component: normal scores float64 [n].

        Args:
            x: The rows.
            folds: int64 [n], the fold of each, 0 or 1; either for rows that were not learned from.
        """
        found = np.empty(len(x))
        for fold, (mixture, gauge) in enumerate(zip(self.mixtures, self.gauges, strict=True)):
            rows = folds == fold
            found[rows] = gauge.scores(*_placed(mixture, x[rows]))[:, 0]
        return found


def fit_usual(x: Float32, folds: Int64) -> Usual:
    """Learns from unit rows float32 [n, d], in folds 0 and 1; from all where one has too few."""
    own = [x[folds == fold] for fold in (0, 1)]
    if min(map(len, own)) < _LEAST_ROWS:
        own = [x, x]
    mixtures = fit_mixture(own[1], 0), fit_mixture(own[0], 0)
    return Usual(
        mixtures,
        (fit_gauge(*_placed(mixtures[0], own[0])), fit_gauge(*_placed(mixtures[1], own[1]))),
    )


def _placed(mixture: Mixture, x: Float32) -> tuple[Float64, list[str]]:
    """What a gauge takes: -2 log likelihoods float64 [n, 1], and names of the components."""
    unlikely, component = mixture.likeliest(x)
    return unlikely[:, None], [str(j) for j in component]


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

    documents: Usual
    windows: Usual
    direction: Float64
    gauge: Gauge
    weights: Float64
    bias: float

    def judge(self, vectors: Vectors, folds: Int64 | None = None) -> Float64:
        """Log odds that records are damaged, float64 [n]; even odds are 0.

        Args:
            vectors: Of n records.
            folds: int64 [n], the fold of each by ``folds_of``; given for copies, which belong to
                the fold of what they are copies of.
        """
        own = folds_of(vectors.documents) if folds is None else folds
        plain = _novelties(vectors, own, self.documents, self.windows)
        found = np.column_stack([plain, _displaced(vectors, self.direction)])
        judged: Float64 = self.gauge.scores(found, [None] * len(found)) @ self.weights + self.bias
        return judged


def fit_probe(
    documents: Float32,
    clean: Vectors,
    damaged: Vectors,
    pairs: Int64,
    families: Sequence[str],
) -> Probe:
    """Trains a probe on pairs of clean and damaged records.

    Args:
        documents: float32 [r, d], what documents are like.
        clean: n clean records, which say what windows are like.
        damaged: m damaged ones.
        pairs: int64 [m], the clean record that each damaged one was made of.
        families: m names of families of damage.
    """
    named = np.array(families)
    own = folds_of(clean.documents)
    usual = fit_usual(documents, folds_of(documents))
    usual_windows = fit_usual(clean.windows, np.repeat(own, clean.counts))
    plain = _novelties(clean, own, usual, usual_windows)
    novel = _novelties(damaged, own[pairs], usual, usual_windows)
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


def folds_of(documents: Float32) -> Int64:
    """The fold of each record, 0 or 1, by a checksum of its vector: equal ones share it."""
    sums = [zlib.crc32(row.tobytes()) for row in documents]
    return np.array(sums, np.int64) >> 16 & 1


def _novelties(vectors: Vectors, folds: Int64, documents: Usual, windows: Usual) -> Float64:
    """float64 [n, 3]: novelty of the document, mean and greatest novelty of its windows."""
    inner = windows.novelty(vectors.windows, np.repeat(folds, vectors.counts))
    mean = np.add.reduceat(inner, vectors.starts) / vectors.counts
    most = np.maximum.reduceat(inner, vectors.starts)
    return np.column_stack([documents.novelty(vectors.documents, folds), mean, most])


def _displaced(vectors: Vectors, direction: Float64) -> Float64:
    """float64 [n, 2]: how far the document, and its farthest window, lie in a direction."""
    axis = direction.astype(np.float32)
    inner = np.maximum.reduceat(vectors.windows @ axis, vectors.starts)
    return np.column_stack([vectors.documents @ axis, inner]).astype(np.float64)
