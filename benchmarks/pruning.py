"""Planted damage: which methods find it? ``python benchmarks/pruning.py [--half judge]``.

A tenth of a corpus of real files is damaged, each file in one way. Every method scores all files.
Detectors that are calibrated on damage are judged on families of damage that were left out of their
calibration: the families are dealt into folds, and the files of a fold are judged by detectors that
were calibrated on all other families. Trials differ by seed in which files are damaged and how.

Trials are written into ``.cache/pruning`` and not run again; the table is made of all of them.
"""

import argparse
import os
import random
import subprocess
import time
from collections.abc import Iterable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
from pruning_corpus import File, corpus_sha256, read_corpus

from shardwright.embeddings.encoder import load_encoder
from shardwright.embeddings.kmeans import KMeans
from shardwright.pipelines.damage import EXTRA, REFERENCE, with_extra
from shardwright.quality import observations
from shardwright.quality.corruptions import corrupt_text, corruptions
from shardwright.quality.damage import fit_damage
from shardwright.quality.evaluation import Estimate, area, recall
from shardwright.quality.probe import Vectors, fit_probe
from shardwright.quality.pruning.d4 import d4_score
from shardwright.quality.pruning.density import density_score
from shardwright.quality.pruning.prototypes import ssl_prototypes_score
from shardwright.quality.pruning.scip import scip
from shardwright.quality.pruning.semdedup import semdedup_score
from shardwright.quality.pruning.simple import random_score
from shardwright.quality.views import Views, fit
from shardwright.quality.windows import text_windows

ROOT = Path(__file__).parents[1]
FRACTION = 0.2
FOLDS = 4
K = 100
DOCUMENTS, COPIES, FITTED, DOSE = 600, 3, 3000, 0.5
PLAIN = (
    *("scip", "small_clusters", "far", "ssl_prototypes", "semdedup", "d4", "density"),
    *("length", "perplexity", "random"),
)
CALIBRATED = ("scip_probe", "damage")
KINDS = corruptions("code")
FAMILIES = {name: kind.family for name, kind in KINDS.items()}


def damaged(
    data: bytes, language: str, key: str, count: int, dose: float
) -> list[tuple[str, bytes]]:
    """Up to ``count`` damaged copies, of kinds drawn by ``key``."""
    names = list(KINDS)
    random.Random(key).shuffle(names)
    copies: list[tuple[str, bytes]] = []
    for name in names:
        changed = corrupt_text(name, data, language, random.Random(key).getrandbits(32), dose)
        if changed is not None:
            copies.append((name, changed))
        if len(copies) == count:
            break
    return copies


class Worker:
    """Embeds and observes texts in a process of its own."""

    encoder: Any
    models: Views

    @classmethod
    def start(cls, model: str, models: bytes) -> None:
        """Loads what a process needs."""
        path = Path(f"/tmp/models-{os.getpid()}.npz")
        path.write_bytes(models)
        cls.models = Views.load(path)
        path.unlink()
        cls.encoder = load_encoder(
            model, modality="code", device="cpu", dtype="float32", batch_size=64
        )

    @classmethod
    def look(cls, batch: list[tuple[bytes, str, str]]) -> list[tuple[Any, Any, list[float]]]:
        """Vector, vectors of windows, and views of each (text, language, key)."""
        texts = [data.decode() for data, _, _ in batch]
        windows = [text_windows(text) for text in texts]
        documents = cls.encoder.encode(texts)
        inner = cls.encoder.encode([piece for several in windows for piece in several])
        ends = np.cumsum([len(several) for several in windows])
        names = [view.name for view in observations.views("code")]
        found = []
        for place, (data, language, key) in enumerate(batch):
            seen = observations.observe_text(data, language, cls.models, key)
            values = [np.nan if seen[name] is None else seen[name] for name in names]
            pieces = inner[ends[place] - len(windows[place]) : ends[place]]
            found.append((documents[place], pieces, values))
        return found


def look_at(model: str, models: bytes, files: Sequence[tuple[bytes, str, str]]) -> tuple[Any, Any]:
    """Vectors and views [n, m] of texts, by as many processes as there are cores."""
    batches = [list(files[i : i + 32]) for i in range(0, len(files), 32)]
    with get_context("fork").Pool(os.cpu_count(), Worker.start, (model, models)) as pool:
        found = [one for several in pool.imap(Worker.look, batches) for one in several]
    counts = np.array([len(pieces) for _, pieces, _ in found])
    vectors = Vectors(
        np.stack([document for document, _, _ in found]).astype(np.float32),
        np.concatenate([pieces for _, pieces, _ in found]).astype(np.float32),
        np.cumsum(counts) - counts,
    )
    return vectors, np.array([values for _, _, values in found])


def plant(corpus: Sequence[File], seed: int, share: float) -> tuple[list[str], list[bytes]]:
    """Damages a share of the files: the kind of damage of each, empty for none, and contents."""
    chosen = random.Random(f"trial {seed}").sample(range(len(corpus)), round(share * len(corpus)))
    kinds, contents = [""] * len(corpus), [file.data for file in corpus]
    for i in chosen:
        key = f"{seed} {corpus[i].name}"
        for copy in damaged(corpus[i].data, corpus[i].language, key, 1, DOSE):
            kinds[i], contents[i] = copy
    return kinds, contents


def run_trial(corpus: list[File], seed: int, share: float, model: str) -> dict[str, Any]:
    """Damages a share of the corpus and scores every file by every method."""
    kinds, contents = plant(corpus, seed, share)
    languages = [file.language for file in corpus]
    keys = [file.name for file in corpus]
    rows = list(zip(contents, languages, keys, strict=True))
    order = list(range(len(corpus)))
    random.Random(f"order {seed}").shuffle(order)
    began = time.time()
    models = fit([(rows[i][2], rows[i][0], rows[i][1]) for i in order[:FITTED]])
    path = Path(f"/tmp/models-{os.getpid()}.npz")
    models.save(path)
    packed = path.read_bytes()
    path.unlink()
    print(f"  models {time.time() - began:.0f} s", flush=True)
    study: list[tuple[bytes, str, str]] = []
    sources, taught = [], []
    for number, i in enumerate(order[:DOCUMENTS]):
        study.append(rows[i])
        sources.append(number)
        taught.append("")
        if number % REFERENCE:
            key = f"study {seed} {corpus[i].name}"
            for kind, changed in damaged(rows[i][0], languages[i], key, COPIES, DOSE):
                study.append((changed, languages[i], keys[i]))
                sources.append(number)
                taught.append(kind)
    print(f"  study {time.time() - began:.0f} s", flush=True)
    vectors, values = look_at(model, packed, rows)
    study_vectors, study_values = look_at(model, packed, study)
    print(f"  looked {time.time() - began:.0f} s", flush=True)
    scores, cluster, distance, centroids = plain_scores(
        vectors, values, [file.name for file in corpus], [len(data) for data in contents]
    )
    sizes = np.bincount(cluster, minlength=len(centroids))
    study_cluster, study_distance = KMeans(len(centroids)).assign(
        study_vectors.documents, centroids
    )
    calibrated = calibrate(
        Looked(vectors, values, languages, sizes[cluster], distance, list(map(len, contents))),
        Looked(
            study_vectors,
            study_values,
            [language for _, language, _ in study],
            np.maximum(sizes[study_cluster], 1),
            study_distance,
            [len(data) for data, _, _ in study],
        ),
        np.array(sources),
        np.array(taught),
    )
    print(f"  scored {time.time() - began:.0f} s", flush=True)
    return {"kinds": np.array(kinds), **scores, **calibrated, "values": values}


def plain_scores(
    vectors: Vectors, values: Any, names: list[str], lengths: list[int]
) -> tuple[dict[str, Any], Any, Any, Any]:
    """Scores of the methods that are not calibrated; clusters, distances and centroids."""
    ids = [f"{place:032x}" for place in np.argsort(np.argsort(names))]
    found = KMeans(K, seed=0).fit(vectors.documents)
    cluster, distance = found.labels, found.distances
    columns = {"record_id": ids, "cluster": cluster.astype(np.int32), "distance": distance}
    table = pa.table(columns)

    def by_scip(alpha: float) -> Any:
        ranked = scip(table, FRACTION, alpha).sort_by("record_id")
        order = np.argsort(ids)
        scores = np.empty(len(ids))
        scores[order] = ranked.column("scip").to_numpy()
        return scores

    cloze = values[
        :, [view.name for view in observations.views("code")].index(observations.SURPRISE)
    ]
    return (
        {
            "scip": by_scip(0.8),
            "small_clusters": by_scip(1.0),
            "far": -distance,
            "ssl_prototypes": ssl_prototypes_score(ids, cluster, distance, FRACTION),
            "semdedup": semdedup_score(ids, vectors.documents, cluster, distance),
            "d4": d4_score(ids, vectors.documents, cluster, distance, FRACTION, KMeans(K).fit),
            "density": density_score(ids, cluster, distance, found.centroids, FRACTION),
            "length": np.array(lengths, np.float64),
            "perplexity": -np.where(np.isnan(cloze), np.nanmedian(cloze), cloze),
            "random": random_score(ids),
        },
        cluster,
        distance,
        found.centroids,
    )


class Looked:
    """What is known of some texts."""

    def __init__(
        self,
        vectors: Vectors,
        values: Any,
        languages: list[str],
        sizes: Any,
        distances: Any,
        lengths: list[int],
    ) -> None:
        self.vectors, self.values, self.languages = vectors, values, languages
        self.sizes, self.distances, self.lengths = sizes, distances, np.array(lengths)

    def with_probe(self, probed: Any) -> Any:
        """All views of ``damage``."""
        return with_extra(self.values, probed, self.sizes, self.distances, self.lengths)


def fold_of(family: str) -> int:
    """The fold in which a family is held out."""
    return sorted(set(FAMILIES.values())).index(family) % FOLDS


def calibrate(corpus: Looked, study: Looked, sources: Any, taught: Any) -> dict[str, Any]:
    """Scores [n, folds] of the calibrated methods, each fold's without its families."""
    clean = np.flatnonzero(taught == "")
    plain = sources[clean] % REFERENCE == 0
    pairs = clean[~plain]
    place = np.full(len(clean), -1)
    place[np.flatnonzero(~plain)] = np.arange(len(pairs))
    draw = np.random.default_rng(1).permutation(len(corpus.languages))[:4096]
    names = [view.name for view in observations.views("code")] + list(EXTRA)
    odd = [view.odd for view in observations.views("code")] + [n == "length" for n in EXTRA]
    scores: dict[str, list[Any]] = {name: [] for name in CALIBRATED}
    for fold in range(FOLDS):
        bad = np.flatnonzero([t != "" and fold_of(FAMILIES[t]) != fold for t in taught])
        families = [FAMILIES[taught[i]] for i in bad]
        probe = fit_probe(
            corpus.vectors.documents[draw],
            study.vectors.take(clean[plain]).windows,
            study.vectors.take(pairs),
            study.vectors.take(bad),
            place[sources[bad]],
            families,
        )
        full = study.with_probe(probe.judge(study.vectors))
        languages = np.array(study.languages, dtype=object)
        damage = fit_damage(
            names,
            odd,
            full[pairs],
            languages[pairs].tolist(),
            full[bad],
            languages[bad].tolist(),
            families,
        )
        probed = probe.judge(corpus.vectors)
        scores["scip_probe"].append(-probed)
        scores["damage"].append(-damage.judge(corpus.with_probe(probed), corpus.languages))
    return {name: np.stack(several, axis=1) for name, several in scores.items()}


def estimates(
    trials: Sequence[dict[str, Any]], method: str, families: Iterable[str] | None
) -> tuple[Estimate, Estimate]:
    """Area and recall over trials, for the damage of some families (None: of all).

    Each fold's damaged files are held against all undamaged ones under the fold's scores.
    """
    areas, recalls, weights = [], [], []
    for fold in range(FOLDS):
        wanted = {f for f in set(FAMILIES.values()) if fold_of(f) == fold}
        wanted &= wanted if families is None else set(families)
        scores, bad, files, number = [], [], [], []
        for trial, found in enumerate(trials):
            family = np.array([FAMILIES.get(kind, "") for kind in found["kinds"]])
            column = found[method][:, fold] if method in CALIBRATED else found[method]
            hit = np.isin(family, sorted(wanted))
            rows = hit | (family == "")
            scores.append(column[rows])
            bad.append(hit[rows])
            files.append(np.flatnonzero(rows))
            number.append(np.full(rows.sum(), trial))
        count = sum(int(b.sum()) for b in bad)
        if count:
            joined = [np.concatenate(each) for each in (scores, bad, files, number)]
            areas.append(area(*joined[:3]))
            recalls.append(recall(joined[0], joined[1], joined[2], joined[3], FRACTION))
            weights.append(count)
    size = len(trials[0]["kinds"])
    return _mean(areas, weights, size), _mean(recalls, weights, size)


def _mean(several: list[Estimate], weights: list[int], size: int) -> Estimate:
    share = np.array(weights) / sum(weights)
    influence = np.zeros(size)
    for part, one in zip(share, several, strict=True):
        influence[: len(one.influence)] += part * one.influence
    return Estimate(float(sum(p * o.value for p, o in zip(share, several, strict=True))), influence)


def report(trials: Sequence[dict[str, Any]]) -> None:
    """Prints the tables."""
    print(
        "\n| method | ROC-AUC, pooled | worst family | recall in the pruned 20% |"
        "\n|---|---|---|---|"
    )
    families = sorted(set(FAMILIES.values()))
    table = {}
    for method in (*PLAIN, *CALIBRATED):
        pooled, found = estimates(trials, method, None)
        each = {family: estimates(trials, method, [family])[0] for family in families}
        table[method] = each
        worst = min(each, key=lambda family: each[family].value)
        print(
            f"| `{method}` | {shown(pooled)} | {each[worst].value:.3f} {worst} | {shown(found)} |",
            flush=True,
        )
    shown_methods = ("scip", "far", "perplexity", *CALIBRATED)
    print(f"\n| family | {' | '.join(shown_methods)} |\n|---|{'---|' * len(shown_methods)}")
    for family in families:
        cells = " | ".join(shown(table[method][family]) for method in shown_methods)
        print(f"| {family} | {cells} |")


def shown(estimate: Estimate) -> str:
    """The value with its interval."""
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def main() -> None:
    """Runs the trials that are missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=("develop", "judge"), default="develop")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--model", default="builtin:hashing")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "pruning")
    given = parser.parse_args()
    corpus = read_corpus(given.half, given.files)
    name = corpus_sha256(corpus)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    print(
        f"commit {commit}, {time.strftime('%Y-%m-%d')}; corpus {name[:16]}, {len(corpus):,} files"
    )
    given.cache.mkdir(parents=True, exist_ok=True)
    trials = []
    for seed in range(given.seeds):
        stem = (
            f"{name[:16]}-{given.model.rsplit('/', 1)[-1].replace(':', '-')}-{given.share}-{seed}"
        )
        path = given.cache / f"{stem}.npz"
        if not path.exists():
            print(f"trial {seed}", flush=True)
            staged = path.with_suffix(".staged.npz")
            np.savez(staged, **run_trial(corpus, seed, given.share, given.model))
            staged.rename(path)
        trials.append(dict(np.load(path)))
    report(trials)


if __name__ == "__main__":
    main()
