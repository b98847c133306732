"""Planted damage: which methods find it? ``python benchmarks/pruning.py [--half judge]``.

A tenth of a corpus of real files is damaged, each file in one way, and every method scores all
files, as ``shardwright evaluate`` does it on a corpus of one's own; see
``shardwright/quality/trials.py``. Trials differ by seed in which files are damaged and how.

Trials are written into ``.cache/pruning`` and not run again; the table is made of all of them.
"""

import argparse
import hashlib
import os
import subprocess
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from pruning_corpus import File, corpus_sha256, read_corpus

from shardwright.embeddings.encoder import load_encoder
from shardwright.quality import observations, trials
from shardwright.quality.evaluation import Estimate
from shardwright.quality.probe import Vectors
from shardwright.quality.pruning import classifier
from shardwright.quality.trials import Looked, Trial
from shardwright.quality.trials_scores import CALIBRATED as DETECTORS
from shardwright.quality.trials_scores import CLUSTERED, PLAIN, Rules, overlaps, score
from shardwright.quality.trials_summary import ALL, summarise, worst
from shardwright.quality.views import Views, fit
from shardwright.quality.windows import text_windows

ROOT = Path(__file__).parents[1]
RULES = Rules(fraction=0.2, k=100)
FOLDS = 4
FITTED = 3000
FAMILIES = trials.families_of("code")
FOLD_OF = trials.deal(FAMILIES.values(), FOLDS)
CALIBRATED = (*DETECTORS, "classifier")


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
    def embed(cls, batch: list[bytes]) -> list[tuple[Any, Any]]:
        """Vector, and vectors of windows, of each text."""
        texts = [data.decode() for data in batch]
        windows = [text_windows(text) for text in texts]
        documents = cls.encoder.encode(texts)
        inner = cls.encoder.encode([piece for several in windows for piece in several])
        ends = np.cumsum([len(several) for several in windows])
        return [
            (documents[place], inner[ends[place] - len(windows[place]) : ends[place]])
            for place in range(len(batch))
        ]

    @classmethod
    def observe(cls, batch: list[tuple[bytes, str, str]]) -> list[list[float]]:
        """Views of each (text, language, key)."""
        names = [view.name for view in observations.views("code")]
        found = []
        for data, language, key in batch:
            seen = observations.observe_text(data, language, cls.models, key)
            found.append([np.nan if seen[name] is None else seen[name] for name in names])
        return found


EMBEDDED: dict[bytes, tuple[Any, Any]] = {}
"""Vectors by the hash of a text; those of undamaged files are the same in all trials."""


def look_at(model: str, models: bytes, files: Sequence[tuple[bytes, str, str]]) -> tuple[Any, Any]:
    """Vectors and views [n, m] of texts, by as many processes as there are cores."""
    hashes = [hashlib.sha256(data).digest() for data, _, _ in files]
    contents = {key: data for key, (data, _, _) in zip(hashes, files, strict=True)}
    new = {key: data for key, data in contents.items() if key not in EMBEDDED}
    texts = list(new.values())
    with get_context("fork").Pool(os.cpu_count(), Worker.start, (model, models)) as pool:
        found = pool.imap(Worker.embed, [texts[i : i + 32] for i in range(0, len(texts), 32)])
        EMBEDDED.update(zip(new, (one for several in found for one in several), strict=True))
        batches = [list(files[i : i + 32]) for i in range(0, len(files), 32)]
        values = [one for several in pool.imap(Worker.observe, batches) for one in several]
    pairs = [EMBEDDED[key] for key in hashes]
    counts = np.array([len(pieces) for _, pieces in pairs])
    vectors = Vectors(
        np.stack([document for document, _ in pairs]).astype(np.float32),
        np.concatenate([pieces for _, pieces in pairs]).astype(np.float32),
        np.cumsum(counts) - counts,
    )
    return vectors, np.array(values)


def plant(corpus: Sequence[File], seed: int, share: float) -> tuple[list[str], list[bytes]]:
    """Damages a share of the files: the kind of damage of each, empty for none, and contents."""
    trial = Trial("code", len(corpus), seed, share)
    planted = [trial.plant(i, f.name, f.data, f.language) for i, f in enumerate(corpus)]
    return [kind for kind, _ in planted], [content for _, content in planted]


def run_trial(
    corpus: list[File], seed: int, share: float, model: str, documents: int = 600
) -> dict[str, Any]:
    """Damages a share of the corpus and scores every file by every method."""
    trial = Trial("code", len(corpus), seed, share, documents=documents)
    kinds, contents = plant(corpus, seed, share)
    rows = [(data, file.language, file.name) for data, file in zip(contents, corpus, strict=True)]
    began = time.time()
    models = fit([(rows[i][2], rows[i][0], rows[i][1]) for i in trial.order[:FITTED]])
    path = Path(f"/tmp/models-{os.getpid()}.npz")
    models.save(path)
    packed = path.read_bytes()
    path.unlink()
    print(f"  models {time.time() - began:.0f} s", flush=True)
    copies, sources, taught = [], [], []
    for i, (data, language, name) in enumerate(rows):
        for kind, changed in trial.teach(i, name, data, language):
            copies.append((changed, language, name))
            sources.append(i)
            taught.append(kind)
    print(f"  study {time.time() - began:.0f} s", flush=True)
    vectors, values = look_at(model, packed, rows + copies)
    print(f"  looked {time.time() - began:.0f} s", flush=True)
    names = [file.name for file in corpus]
    looked = Looked(
        [f"{place:032x}" for place in np.argsort(np.argsort(names))],
        np.array(kinds),
        np.array([len(data) for data in contents]),
        np.array(sources),
        np.array(taught),
        vectors,
        values,
        [language for _, language, _ in rows + copies],
        np.array([len(data) for data, _, _ in rows + copies]),
    )
    scores = score(trial, looked, RULES, FOLDS, (*PLAIN, *DETECTORS))
    texts = [data.decode() for data, _, _ in rows + copies]
    scores["classifier"] = classified(trial, looked, texts)
    print(f"  scored {time.time() - began:.0f} s", flush=True)
    seen = {"names": np.array(names), "values": values[: len(corpus)]}
    return {"kinds": looked.kinds, **scores, **seen}


def classified(trial: Trial, looked: Looked, texts: Sequence[str]) -> Any:
    """Scores [n, folds] of ``classifier``: records that teach are good, damaged copies bad."""
    rows, _, kinds = trials.study_rows(trial, looked)
    bags, vectors = classifier.bags(texts), looked.vectors.documents
    ours = np.arange(len(looked.ids))
    scores = []
    for fold in range(FOLDS):
        taught = np.array([not kind or fold_of(FAMILIES[kind]) != fold for kind in kinds])
        some = rows[taught]
        good = kinds[taught] == ""
        learned = classifier.fit([texts[row] for row in some], vectors[some], good)
        words = bags[ours] @ learned.words + learned.words_bias
        scores.append((words + vectors[ours] @ learned.weights + learned.bias) / 2)
    return np.stack(scores, axis=1)


def fold_of(family: str) -> int:
    """The fold in which a family is held out."""
    return FOLD_OF[family]


def report(found: Sequence[dict[str, Any]]) -> None:
    """Prints the tables."""
    print(
        "\n| method | ROC-AUC, pooled | worst family | recall in the pruned 20% |"
        "\n|---|---|---|---|"
    )
    rows = summarise(found, (*PLAIN, *CALIBRATED), FAMILIES, FOLD_OF, RULES.fraction)
    table = {(row.method, row.family): row for row in rows}
    for method in (*PLAIN, *CALIBRATED):
        pooled, least = table[method, ALL], worst(rows, method)
        print(
            f"| `{method}` | {shown(pooled.area)} | {least.area.value:.3f} {least.family} | "
            f"{shown(pooled.recall)} |",
            flush=True,
        )
    methods = ("scip", "far", "perplexity", *CALIBRATED)
    print(f"\n| family | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    for family in sorted({row.family for row in rows} - {ALL}):
        cells = " | ".join(shown(table[method, family].area) for method in methods)
        print(f"| {family} | {cells} |")


def side_effects(corpus: Sequence[File], found: dict[str, Any]) -> None:
    """Prints which share of each group of files every method prunes in one trial.

    A calibrated method prunes by the mean rank over its folds.
    """
    lengths = np.array([len(file.data) for file in corpus])
    ends = np.quantile(lengths, [0.25, 0.5, 0.75])
    bands = np.searchsorted(ends, lengths, "left")
    languages = np.array([file.language for file in corpus])
    projects = np.array([file.project for file in corpus])
    groups = {name: languages == name for name in sorted(set(languages.tolist()))}
    groups |= {f"length quarter {band + 1}": bands == band for band in range(4)}
    large = [name for name in sorted(set(projects.tolist())) if (projects == name).sum() >= 20]
    heads = [f"{name} ({rows.sum():,})" for name, rows in groups.items()]
    print(f"\n| prunes of | {' | '.join(heads)} | projects (least, most) |")
    print(f"|---|{'---|' * (len(heads) + 1)}")
    for method in (*PLAIN, *CALIBRATED):
        scores = found[method]
        if scores.ndim == 2:
            scores = np.argsort(np.argsort(scores, axis=0), axis=0).mean(axis=1)
        gone = np.zeros(len(corpus), bool)
        gone[np.argsort(scores, kind="stable")[: round(RULES.fraction * len(corpus))]] = True
        shares = [f"{gone[rows].mean():.1%}" for rows in groups.values()]
        by_project = [gone[projects == name].mean() for name in large]
        print(
            f"| `{method}` | {' | '.join(shares)} | "
            f"{min(by_project):.0%} to {max(by_project):.0%} |"
        )


def stability(corpus: Sequence[File], model: str) -> None:
    """Prints how much of what a method prunes it prunes again when k-means starts elsewhere."""
    encoder = load_encoder(model, modality="code", device="cpu", dtype="float32", batch_size=64)
    documents = np.asarray(encoder.encode([file.data.decode() for file in corpus]), np.float32)
    names = [file.name for file in corpus]
    ids = [f"{place:032x}" for place in np.argsort(np.argsort(names))]
    found = overlaps(CLUSTERED, ids, documents, RULES, range(5))
    print("\n| pruned sets under two of five seeds of k-means | overlap (Jaccard) |\n|---|---|")
    for name, overlap in found.items():
        print(f"| `{name}` | {overlap:.2f} |")


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
    parser.add_argument("--documents", type=int, default=600, help="that teach by damaged copies")
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
    found = []
    for seed in range(given.seeds):
        stem = (
            f"{name[:16]}-{given.model.rsplit('/', 1)[-1].replace(':', '-')}-{given.share}-{seed}"
        )
        path = given.cache / f"{stem}.npz"
        if not path.exists():
            print(f"trial {seed}", flush=True)
            staged = path.with_suffix(".staged.npz")
            np.savez(staged, **run_trial(corpus, seed, given.share, given.model, given.documents))
            staged.rename(path)
        found.append(dict(np.load(path)))
    if given.share:
        report(found)
    side_effects(corpus, found[0])
    stability(corpus, given.model)


if __name__ == "__main__":
    main()
