"""What every pruning method says of the records of a trial, in memory."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardwright.quality import observations
from shardwright.quality.calibrate import (
    DOCUMENTS,
    Float64,
    Int64,
    Observed,
    calibrate,
    judge,
)
from shardwright.quality.probe import Float32
from shardwright.quality.pruning.prototypes import Keep
from shardwright.quality.trials import Looked, Trial, deal, families_of, study_rows

Scores: TypeAlias = dict[str, Float64]

CLUSTERED = ("scip", "small_clusters", "far", "ssl_prototypes", "semdedup", "d4", "density")
"""Plain methods that look at clusters; ``small_clusters`` and ``far`` are the two rules of scip."""
PLAIN = (*CLUSTERED, "length", "perplexity", "random")
CALIBRATED = ("scip_probe", "damage")


@dataclass(frozen=True)
class Rules:
    """Settings of the methods; see ``prune`` and ``clusters`` of a recipe.

    Attributes:
        fraction: Share of the records that is pruned.
        k: How many clusters there are, no more than records.
        cluster_seed: Of k-means.
        alpha: Of scip.
        keep: Of ssl_prototypes.
        balance: Of ssl_prototypes.
        dedup: Of d4.
        tau: Of density.
        min_samples: Of density.
        random_seed: Of random.
    """

    fraction: float = 0.2
    k: int = 100
    cluster_seed: int = 0
    alpha: float = 0.8
    keep: Keep = "hard"
    balance: float = 0.0
    dedup: float = 0.75
    tau: float = 0.1
    min_samples: int = 1
    random_seed: int = 0


def score(
    trial: Trial, looked: Looked, rules: Rules, folds: int, methods: Collection[str]
) -> Scores:
    """Scores the records of a trial.

    Args:
        trial: The trial.
        looked: What was seen of its records and copies.
        rules: Settings of the methods.
        folds: See ``deal``.
        methods: Of ``PLAIN`` and ``CALIBRATED``.

    Returns:
        By method float64 [n], or [n, folds] of a calibrated one: by fold, without its families.

    Raises:
        UserError: No copy is left to calibrate a fold on.
    """
    from shardwright.embeddings.kmeans import KMeans

    records = np.arange(len(looked.ids))
    documents = looked.vectors.documents[records]
    found = KMeans(rules.k, seed=rules.cluster_seed).fit(documents)
    scores = plain_scores(
        [name for name in methods if name in PLAIN],
        looked.ids,
        documents,
        looked.extents,
        surprise(trial.modality, looked.values[records]),
        (found.labels, found.distances, found.centroids),
        rules,
    )
    wanted = [name for name in CALIBRATED if name in methods]
    if not wanted:
        return scores
    sizes = np.bincount(found.labels, minlength=len(found.centroids))
    copies = np.arange(len(records), len(looked.values))
    cluster, distance = KMeans(len(found.centroids)).assign(
        looked.vectors.documents[copies], found.centroids
    )
    everything = Observed(
        looked.vectors,
        looked.values,
        looked.languages,
        np.maximum(sizes[np.concatenate([found.labels, cluster])], 1),
        np.concatenate([found.distances, distance]),
        looked.lengths,
    )
    rows, sources, kinds = study_rows(trial, looked)
    judged = calibrated_scores(
        trial.modality, _taken(everything, records), _taken(everything, rows), sources, kinds, folds
    )
    return scores | {name: judged[name] for name in wanted}


def _taken(observed: Observed, rows: Int64) -> Observed:
    return Observed(
        observed.vectors.take(rows),
        observed.values[rows],
        [observed.languages[row] for row in rows],
        observed.sizes[rows],
        observed.distances[rows],
        observed.lengths[rows],
    )


def surprise(modality: str, values: Float64) -> Float64 | None:
    """Bits a token float64 [n], the median where they are unknown; None for pictures."""
    names = [view.name for view in observations.views(modality)]
    if observations.SURPRISE not in names:
        return None
    bits = values[:, names.index(observations.SURPRISE)]
    unknown = np.isnan(bits)
    usual = 0.0 if unknown.all() else float(np.nanmedian(bits))
    return np.where(unknown, usual, bits)


def plain_scores(
    methods: Collection[str],
    ids: Sequence[str],
    documents: Float32,
    extents: Int64,
    bits: Float64 | None,
    clusters: tuple[Int64, Float64, Float32],
    rules: Rules,
) -> Scores:
    """Scores of methods that are not calibrated, in memory.

    Args:
        methods: Of ``PLAIN``.
        ids: n record ids.
        documents: float32 [n, d].
        extents: int64 [n], bytes or pixels.
        bits: float64 [n], bits a token; only ``perplexity`` asks.
        clusters: Labels int64 [n], distances float64 [n] and centroids float32 [k, d].
        rules: Settings.

    Returns:
        float64 [n] by method, in the order of ``PLAIN``.
    """
    from shardwright.embeddings.kmeans import Clustering, KMeans
    from shardwright.quality.pruning.d4 import d4_score
    from shardwright.quality.pruning.density import density_score
    from shardwright.quality.pruning.prototypes import ssl_prototypes_score
    from shardwright.quality.pruning.semdedup import semdedup_score
    from shardwright.quality.pruning.simple import random_score

    cluster, distance, centroids = clusters
    fraction = rules.fraction

    def again(vectors: Any) -> Clustering[Any]:
        return KMeans(min(rules.k, len(vectors))).fit(vectors)

    def one(method: str) -> Float64:
        match method:
            case "scip":
                return _scip(ids, cluster, distance, fraction, rules.alpha)
            case "small_clusters":
                return _scip(ids, cluster, distance, fraction, 1.0)
            case "far":
                return -distance
            case "ssl_prototypes":
                return ssl_prototypes_score(
                    ids, cluster, distance, fraction, rules.keep, rules.balance
                )
            case "semdedup":
                return semdedup_score(ids, documents, cluster, distance)
            case "d4":
                return d4_score(ids, documents, cluster, distance, fraction, again, rules.dedup)
            case "density":
                return density_score(
                    ids, cluster, distance, centroids, fraction, rules.tau, rules.min_samples
                )
            case "length":
                return extents.astype(np.float64)
            case "perplexity":
                assert bits is not None
                return -bits
            case _:
                return random_score(ids, rules.random_seed)

    return {name: one(name) for name in PLAIN if name in methods}


def _scip(
    ids: Sequence[str], cluster: Int64, distance: Float64, fraction: float, alpha: float
) -> Float64:
    from shardwright.quality.pruning.scip import scip

    columns = {"record_id": ids, "cluster": cluster.astype(np.int32), "distance": distance}
    ranked = scip(pa.table(columns), fraction, alpha).sort_by("record_id")
    scores = np.empty(len(ids))
    scores[np.argsort(ids)] = ranked.column("scip").to_numpy()
    return scores


def calibrated_scores(
    modality: str,
    records: Observed,
    study: Observed,
    sources: Int64,
    kinds: npt.NDArray[np.str_],
    folds: int,
) -> Scores:
    """Scores float64 [n, folds] of the calibrated methods, each fold's without its families.

    Args:
        modality: ``code`` or ``image``.
        records: n records.
        study: What detectors are calibrated on; see ``calibrate``, as for the next two.
        sources: Of the study.
        kinds: Of the study.
        folds: See ``deal``.

    Raises:
        UserError: No copy is left to calibrate a fold on.
    """
    draw = np.random.default_rng(1).permutation(len(records.languages))[:DOCUMENTS]
    documents = records.vectors.documents[draw]
    by_fold: dict[int, list[str]] = {}
    for family, fold in deal(families_of(modality).values(), folds).items():
        by_fold.setdefault(fold, []).append(family)
    scores: dict[str, list[Float64]] = {name: [] for name in CALIBRATED}
    for fold in sorted(by_fold):
        detectors = calibrate(modality, documents, study, sources, kinds, by_fold[fold])
        probed, judged, _ = judge(detectors, records)
        scores["scip_probe"].append(-probed)
        scores["damage"].append(-judged)
    return {name: np.stack(columns, axis=1) for name, columns in scores.items()}


def overlaps(
    methods: Collection[str],
    ids: Sequence[str],
    documents: Float32,
    rules: Rules,
    seeds: Sequence[int],
) -> dict[str, float]:
    """How much of what a method prunes it prunes again when k-means starts elsewhere.

    Args:
        methods: Of ``CLUSTERED``; others are passed over.
        ids: n record ids.
        documents: float32 [n, d].
        rules: Settings; ``cluster_seed`` is not used.
        seeds: Two or more, of k-means.

    Returns:
        By method the Jaccard overlap of two pruned sets, its mean over all pairs of seeds; 1 where
        nothing is pruned.
    """
    from shardwright.embeddings.kmeans import KMeans
    from shardwright.quality.pruning.cut import pruned

    gone: dict[str, list[npt.NDArray[np.bool_]]] = {}
    for seed in seeds:
        found = KMeans(rules.k, seed=seed).fit(documents)
        clusters = found.labels, found.distances, found.centroids
        wanted = [name for name in methods if name in CLUSTERED]
        extents = np.zeros(len(ids), np.int64)
        for name, values in plain_scores(
            wanted, ids, documents, extents, None, clusters, rules
        ).items():
            gone.setdefault(name, []).append(pruned(ids, values, rules.fraction))
    return {
        name: float(np.mean([_jaccard(one, other) for one, other in combinations(sets, 2)]))
        for name, sets in gone.items()
    }


def _jaccard(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0
