"""Does training gain from pruning? ``python benchmarks/pruning_training.py [--device cuda]``.

Projects are held out before anything is scored. A tenth of the other files is damaged, every method
scores them, and a fifth of them goes by each method. A small language model trains from scratch on
what is left, on as many tokens whatever was pruned, and is judged by bits per byte on the clean
files that were held out. A seed is a trial: its damage, its scores, its tokenizer, its weights at
the start and its order of the data, all the same for all methods; differences are between runs of
one seed. The question that the design is made for is whether ``damage`` beats ``none``; all other
intervals are 95% each, without a correction for their number.

Five arms are no methods: ``none`` prunes nothing; ``again`` is ``none`` in another order, whose
differences say before all else how small an effect can be seen; ``length_matched`` is random, with
as many files of each length as ``damage`` keeps; ``random`` is drawn anew in each seed;
``pristine`` prunes what was damaged and nothing else: the most that can be won by finding damage.

Runs are written into ``.cache/pruning-training`` and not run again; the tables are made of them.
They know the files, the selection, the settings and torch, but not this code: delete them after a
change of it.
``--check`` tests the benchmark itself, on few files.
"""

import argparse
import hashlib
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pruning
import pruning_model
import torch
from pruning_corpus import File, corpus_sha256, read_corpus
from pruning_model import PRESETS, Difference, Settings, Windows, difference, judge, order
from scipy.stats import rankdata

NONE, AGAIN, PRISTINE, MATCHED, RANDOM = "none", "again", "pristine", "length_matched", "random"
METHODS = (RANDOM, "length", MATCHED, "scip", "perplexity", "scip_probe", "damage")
HELD, LARGEST = 0.2, 1 / 3
"""Share of a language's projects that is held out; a project with more of its files never is."""
THREADS = 1
"""Of torch; on one number of threads a run repeats to the bit. Seeds run beside each other."""
FILES, WINDOWS = 8, 4
"""Judged of a project, and of a file, at most."""
BANDS = {"below 2 kB": (0, 2_000), "2 to 8 kB": (2_000, 8_000), "over 8 kB": (8_000, 10**9)}
LENGTHS = 20
"""Bands of length, each with as many files, in which ``length_matched`` matches."""
FITTED = 1_500
"""Files that the tokenizer learns from."""


def split(corpus: Sequence[File]) -> tuple[list[File], list[File]]:
    """Files to prune and train on, and files to judge by, which are of other projects."""
    languages: dict[str, dict[str, list[File]]] = {}
    for file in corpus:
        languages.setdefault(file.language, {}).setdefault(file.project, []).append(file)
    held: dict[str, list[File]] = {}
    for language, projects in sorted(languages.items()):
        most = LARGEST * sum(map(len, projects.values()))
        fit = sorted(name for name, members in projects.items() if len(members) <= most)
        count = min(len(fit), max(2, round(HELD * len(projects))))
        for name in random.Random(f"held out {language}").sample(fit, count):
            held[name] = projects[name]
    judged = [
        file
        for name, members in held.items()
        for file in random.Random(name).sample(members, min(FILES, len(members)))
    ]
    pool = [file for file in corpus if file.project not in held]
    return pool, sorted(judged, key=lambda file: file.name)


@dataclass(frozen=True)
class Trial:
    """Files with damage, and their scores.

    Attributes:
        seed: What it was drawn by.
        kinds: Of damage, empty for none.
        contents: Of the files, after the damage.
        scores: Of each method, float64 [n], higher is kept first.
    """

    seed: int
    kinds: list[str]
    contents: list[bytes]
    scores: dict[str, Any]

    @property
    def sizes(self) -> Any:
        """Bytes of the files, int64 [n]."""
        return np.array([len(data) for data in self.contents])


def read_trial(pool: list[File], seed: int, given: argparse.Namespace) -> Trial:
    """A trial of benchmarks/pruning.py on these files, from its cache or run now.

    Raises:
        SystemExit: Its damage is not the damage that is planted here.
    """
    model = given.model.rsplit("/", 1)[-1].replace(":", "-")
    path = given.cache / "pruning" / f"{corpus_sha256(pool)[:16]}-{model}-{given.share}-{seed}.npz"
    if not path.exists():
        print(f"trial {seed}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".staged.npz")
        np.savez(staged, **pruning.run_trial(pool, seed, given.share, given.model))
        staged.rename(path)
    kinds, contents = pruning.plant(pool, seed, given.share)
    with np.load(path) as found:
        if found["kinds"].tolist() != kinds:
            raise SystemExit(f"{path} has other damage than is planted now; delete it")
        scores = {
            name: unseen(found[name], kinds, seed) if name in pruning.CALIBRATED else found[name]
            for name in (*pruning.PLAIN, *pruning.CALIBRATED)
        }
    return Trial(seed, kinds, contents, scores)


def unseen(columns: Any, kinds: Sequence[str], seed: int) -> Any:
    """One score of a calibrated method, in which no damage is judged by who was calibrated on it.

    Args:
        columns: float64 [n, folds], each calibrated without the families of its fold.
        kinds: Of damage.
        seed: Draws the column of each file that has no damage.

    Returns:
        float64 [n]: the rank of each file in its own column, over the number of files.
    """
    draw = np.random.default_rng([seed, 7]).integers(0, columns.shape[1], len(kinds))
    own = [
        pruning.fold_of(pruning.FAMILIES[kind]) if kind else free
        for kind, free in zip(kinds, draw, strict=True)
    ]
    return (rankdata(columns, axis=0) / len(columns))[np.arange(len(own)), own]


def keep(trial: Trial, arm: str, fraction: float, by: str) -> Any:
    """What an arm trains on.

    Args:
        trial: Files and scores.
        arm: A method, or one of the arms that are none.
        fraction: How much goes.
        by: Of what: ``files`` or ``bytes``.

    Returns:
        bool [files].
    """
    sizes = trial.sizes
    if arm in (NONE, AGAIN):
        return np.ones(len(sizes), bool)
    if arm == PRISTINE:
        return np.array([not kind for kind in trial.kinds])
    chance = np.random.default_rng([trial.seed, 8]).random(len(sizes))
    if arm == MATCHED:
        wanted = keep(trial, "damage", fraction, by)
        band = np.argsort(np.argsort(sizes, kind="stable")) * LENGTHS // len(sizes)
        kept = np.zeros(len(sizes), bool)
        for number in range(LENGTHS):
            rows = np.flatnonzero(band == number)
            kept[rows[np.argsort(chance[rows])[: wanted[rows].sum()]]] = True
        return kept
    lowest = np.argsort(chance if arm == RANDOM else trial.scores[arm], kind="stable")
    weight = np.ones(len(sizes)) if by == "files" else sizes.astype(np.float64)
    gone = np.cumsum(weight[lowest]) <= fraction * weight.sum()
    kept = np.ones(len(sizes), bool)
    kept[lowest[gone]] = False
    return kept


@dataclass(frozen=True)
class Prepared:
    """A trial's tokens, which all its runs share."""

    windows: Windows
    judged: Windows
    sizes: Any

    @classmethod
    def of(cls, trial: Trial, held: Sequence[File], settings: Settings) -> "Prepared":
        """Learns the tokenizer from the files as they are before pruning, and cuts all texts."""
        some = random.Random(trial.seed).sample(trial.contents, min(FITTED, len(trial.contents)))
        tokenizer = pruning_model.fit_tokenizer(some, settings.vocabulary)
        return cls(
            pruning_model.cut(tokenizer, trial.contents, settings.context),
            pruning_model.cut(tokenizer, [f.data for f in held], settings.context).spread(WINDOWS),
            pruning_model.token_bytes(tokenizer),
        )


def run(
    trial: Trial, arm: str, kept: Any, prepared: Prepared, settings: Settings, device: str
) -> dict[str, Any]:
    """Trains and judges one arm of a seed."""
    data = trial.seed + (10_000 if arm == AGAIN else 0)
    trained = pruning_model.train(prepared.windows, kept, trial.seed, data, settings, device)
    began = time.perf_counter()
    bits, count = judge(trained.model, prepared.judged, prepared.sizes, settings, device)
    damaged = np.array([bool(kind) for kind in trial.kinds])
    return {
        "arm": arm,
        "seed": trial.seed,
        "settings": asdict(settings),
        "kept": int(kept.sum()),
        "megabytes": float(trial.sizes[kept].sum() / 1e6),
        "damaged": float(damaged[kept].mean()),
        "tokens": trained.tokens,
        "loss": [float(np.mean(part)) for part in np.array_split(np.array(trained.losses), 10)],
        "seconds": trained.seconds,
        "cpu_seconds": trained.cpu_seconds,
        "judging_seconds": time.perf_counter() - began,
        "bits": bits.tolist(),
        "bytes": count.tolist(),
    }


class Runs:
    """Runs by arm and seed, from the cache or run now."""

    def __init__(self, given: argparse.Namespace, corpus: list[File], settings: Settings) -> None:
        self.given, self.settings = given, settings
        self.pool, self.held = split(corpus)
        self.name = corpus_sha256(corpus)
        self.found: dict[tuple[str, int], dict[str, Any]] = {}
        self.trials: dict[int, Trial] = {}

    def add(self, arms: Sequence[str]) -> None:
        """Makes sure of all seeds of some arms."""
        for seed in range(self.given.seeds):
            if seed not in self.trials:
                self.trials[seed] = read_trial(self.pool, seed, self.given)
        with ProcessPoolExecutor(
            self.given.jobs, get_context("spawn"), torch.set_num_threads, (THREADS,)
        ) as pool:
            for of_seed in pool.map(self.of_seed, self.trials, [arms] * len(self.trials)):
                self.found |= of_seed

    def of_seed(self, seed: int, arms: Sequence[str]) -> dict[tuple[str, int], dict[str, Any]]:
        """Runs of one seed."""
        trial, found = self.trials[seed], {}
        prepared: Prepared | None = None
        for arm in arms:
            kept = keep(trial, arm, self.given.fraction, self.given.cut)
            path = self._path(arm, trial, kept)
            if not path.exists():
                prepared = prepared or Prepared.of(trial, self.held, self.settings)
                one = run(trial, arm, kept, prepared, self.settings, self.given.device)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".staged").write_text(json.dumps(one))
                path.with_suffix(".staged").rename(path)
                print(f"  seed {seed} {arm}: {one['seconds']:.0f} s", flush=True)
            found[arm, seed] = json.loads(path.read_text())
        return found

    def _path(self, arm: str, trial: Trial, kept: Any) -> Path:
        """Named by all that the run depends on: files, damage, selection, settings, device."""
        digest = hashlib.sha256("\0".join(file.name for file in self.held).encode())
        digest.update(f"{self.given.device} {torch.__version__}".encode())
        for data in trial.contents:
            digest.update(hashlib.sha256(data).digest())
        digest.update(np.packbits(kept).tobytes())
        stem = f"{self.name[:16]}-{self.settings.name}-{arm}-{trial.seed}-{digest.hexdigest()[:12]}"
        return Path(self.given.cache) / "pruning-training" / f"{stem}.json"

    def table(self, arm: str) -> tuple[Any, Any]:
        """Bits and bytes [seeds, held files]."""
        rows = [self.found[arm, seed] for seed in range(self.given.seeds)]
        return np.array([r["bits"] for r in rows]), np.array([r["bytes"] for r in rows], float)

    def less(self, arm: str, other: str, wanted: Any = None) -> Difference:
        """An arm less another, on all held-out files or on the ``wanted`` (bool) ones."""
        rows = np.arange(len(self.held)) if wanted is None else np.flatnonzero(wanted)
        projects = [file.project for file in self.held]
        return difference(self.table(arm), self.table(other), projects, rows)


def report(runs: Runs, arms: Sequence[str]) -> None:
    """Prints the tables."""
    print(
        "\n| arm | files | MB | damaged | bits per byte | less no pruning | over seeds "
        "| over projects | apart |\n|---|---|---|---|---|---|---|---|---|"
    )
    for arm in arms:
        rows = [runs.found[arm, seed] for seed in range(runs.given.seeds)]
        mean = {
            name: np.mean([row[name] for row in rows]) for name in ("kept", "megabytes", "damaged")
        }
        value = np.mean([sum(row["bits"]) / sum(row["bytes"]) for row in rows])
        cells = "{kept:,.0f} | {megabytes:.1f} | {damaged:.1%}".format(**mean)
        last = "| | |" if arm == NONE else runs.less(arm, NONE)
        print(f"| `{arm}` | {cells} | {value:.4f} | {last} |")
    for method in (name for name in pruning.CALIBRATED if name in arms):
        print(f"\n| `{method}` less | bits per byte | over seeds | over projects | apart |")
        print("|---|---|---|---|---|")
        for arm in arms:
            if arm != method:
                print(f"| `{arm}` | {runs.less(method, arm)} |")
    languages = np.array([file.language for file in runs.held])
    lengths = np.array([len(file.data) for file in runs.held])
    pieces = {name: languages == name for name in sorted(set(languages.tolist()))}
    pieces |= {name: (low <= lengths) & (lengths < high) for name, (low, high) in BANDS.items()}
    heads = [f"{name} ({wanted.sum()} files)" for name, wanted in pieces.items()]
    for kind in ("seeds", "projects"):
        print(f"\n| less no pruning, over {kind} | {' | '.join(heads)} |")
        print(f"|---|{'---|' * len(pieces)}")
        for arm in arms[1:]:
            line = f"| `{arm}` |"
            for wanted in pieces.values():
                found = runs.less(arm, NONE, wanted)
                low, high = getattr(found, kind)
                line += f" {found.value:+.4f} ({low:+.4f} to {high:+.4f}) |"
            print(line)


def check() -> None:
    """Tests the benchmark itself on few files and a tiny model.

    Raises:
        SystemExit: Something is not as it should be.
    """
    corpus = read_corpus("develop", 300)
    pool, held = split(corpus)
    held = held[::3]
    torch.set_num_threads(1)  # tiny steps
    projects = [file.project for file in held]
    settings = Settings(32, 2, 2, 128, 512, 20_000, 500, 2e-2)
    kinds, contents = pruning.plant(pool, 0, 0.3)
    bad, sizes = np.array([bool(kind) for kind in kinds]), np.array([len(d) for d in contents])
    trial = Trial(0, kinds, contents, {"length": sizes, "damage": ~bad + sizes / 1e9})
    kept = {name: keep(trial, name, 0.2, "files") for name in (NONE, "length", MATCHED, "damage")}
    prepared, twin = (Prepared.of(trial, held, settings) for _ in range(2))
    windows, length = prepared.windows, kept["length"]
    plain, repeated = (
        run(trial, NONE, kept[NONE], data, settings, "cpu") for data in (prepared, twin)
    )
    pruned = run(trial, "length", length, prepared, settings, "cpu")
    places, unpruned = order(windows, length, 0), order(windows, kept[NONE], 0)
    pairs = [(next(places), next(unpruned)) for _ in range(len(windows.owner) // 2)]
    supply = pruning_model.batches(windows, order(windows, length, 0), settings)
    counts = {int((next(supply)[1] != pruning_model.IGNORED).sum()) for _ in range(50)}
    bits, size = (np.array([plain[name]] * 3, float) for name in ("bits", "bytes"))
    shift = difference((bits + size / 2, size), (bits, size), projects, np.arange(len(held)))
    ends = np.quantile(sizes, np.linspace(0, 1, 6))
    shapes = {name: np.histogram(sizes[kept[name]], ends)[0] for name in (MATCHED, "damage")}
    whole = prepared.sizes[windows.tokens[np.repeat(windows.owner, windows.length) == 0]].sum()
    results = {
        "no held-out project is trained on": not {file.project for file in pool} & set(projects),
        "held-out files are as they were": set(held) <= set(corpus) and len(held) > 0,
        "what is damaged is what changed": all(
            (data != file.data) == hit for data, file, hit in zip(contents, pool, bad, strict=True)
        ),
        "lengths are matched": abs(shapes[MATCHED] - shapes["damage"]).max() <= LENGTHS,
        "tokens have all bytes of a file": whole == sizes[0],
        "only kept files are trained on": all(length[windows.owner[i]] for i, _ in pairs),
        "no window comes twice": len({i for i, _ in pairs}) == len(pairs),
        "kept windows keep their place": all(i == j for i, j in pairs if length[windows.owner[j]]),
        "each step has as many tokens": counts == {settings.step_tokens},
        "each arm has as many tokens": plain["tokens"] == pruned["tokens"] == settings.tokens,
        "loss falls": plain["loss"][-1] < plain["loss"][0] - 0.5,
        "a run again is the same": plain["bits"] == repeated["bits"] != pruned["bits"],
        "a known difference is found": np.allclose([shift.value, *shift.projects], 0.5),
    }
    for name, good in results.items():
        print(f"{'ok    ' if good else 'FAILED'} {name}")
    if not all(results.values()):
        raise SystemExit(1)


def main() -> None:
    """Runs what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("develop", "judge"), default="develop")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.1, help="of the files that is damaged")
    parser.add_argument(
        "--fraction", type=float, default=pruning.RULES.fraction, help="that is pruned"
    )
    parser.add_argument("--cut", choices=("files", "bytes"), default="files", help="a fraction of")
    parser.add_argument("--methods", nargs="*", default=METHODS, help="also others that are scored")
    parser.add_argument("--model", default="builtin:hashing")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="small")
    parser.add_argument("--tokens", type=int, help="to train on, instead of the preset's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="seeds that run beside each other")
    parser.add_argument("--cache", type=Path, default=pruning.ROOT / ".cache")
    parser.add_argument("--check", action="store_true", help="test the benchmark itself")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    if given.check:
        return check()
    unknown = set(given.methods) - {RANDOM, MATCHED, *pruning.PLAIN, *pruning.CALIBRATED}
    if unknown or given.seeds < 2:
        parser.error(f"no such methods: {sorted(unknown)}" if unknown else "two seeds at least")
    settings = PRESETS[given.preset]
    if given.tokens:
        settings = replace(settings, tokens=given.tokens)
    corpus = read_corpus(given.half, given.files)
    runs = Runs(given, corpus, settings)
    projects = len({file.project for file in runs.held})
    print(f"{time.strftime('%Y-%m-%d')}; corpus {runs.name[:16]}; {settings}")
    print(
        f"{len(runs.pool):,} files to train on, {len(runs.held)} of {projects} others to judge by"
    )
    runs.add([NONE, AGAIN])
    error = runs.less(AGAIN, NONE).error
    seen = pruning_model.smallest_effect(error, given.seeds)
    print(f"smallest effect to be seen: {seen:.4f} bits per byte; error {error:.4f}", flush=True)
    arms = [NONE, AGAIN, PRISTINE, *given.methods]
    runs.add(arms)
    return report(runs, arms)


if __name__ == "__main__":
    main()
