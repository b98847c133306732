"""Known answers: are the stages named that two synthetic devices differ in?

Devices are made from one clean set: photographs made smaller, of which each gives one crop. One
group stays as it is and the other goes through a device that changes one, two or three stages, in
the order of a camera's pipeline; which of the two is called a is chance. Groups show different
photographs, in the paired case the same ones. ``known`` operators are those that attribution tries
itself; ``unknown`` ones are others: a stage's change by another kernel, curve, encoder or matrix.
Those of the half ``develop`` were looked at, those of ``judge`` were not.

    python benchmarks/heterogeneity_attribution.py [--photographs FOLDER] [--half develop|judge]
        [--repeats N] [--images N] [--side N]

Photographs that are smaller than 512 pixels, or drawn, are left out.
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from heterogeneity_devices import Operator, Pixels, Random, device, known, seen
from heterogeneity_unseen import unseen
from PIL import Image
from scipy.stats import binomtest, kstest

from shardwright.quality.heterogeneity import changes
from shardwright.quality.heterogeneity.attribution import (
    Attribution,
    Settings,
    Trial,
    explain,
    significance,
)
from shardwright.quality.heterogeneity.device_statistics import STAGES, measure
from shardwright.quality.heterogeneity.fit_features import LEAST, Float64, features
from shardwright.quality.heterogeneity.fit_model import Model, difference
from shardwright.quality.heterogeneity.fit_responses import (
    VARIANTS,
    Curve,
    Variant,
    curve,
    mean_move,
)

Make = Callable[[str, Random], tuple[str, Operator]]

SEEDS = {"develop": 1, "judge": 19}
MAKERS: Mapping[str, Mapping[str, Make]] = {
    "develop": {"known": known, "unknown": seen},
    "judge": {"known": known, "unknown": unseen},
}
LEAST_SIDE = 512
_VERSIONS = 4  # of each photograph, for pairs that are alike
_TRACED = 10  # images
_TRACE = 3.0  # deviations: what is less was wiped out by later stages
_SEVERAL = 5  # comparisons with two and with three stages in every repeat
_BASE_SIDE = 600  # pixels of the shorter side of what crops are cut from
_SMALLER = 0.8  # at most, of the side as it was: traces of the first camera go


def photographs(folder: Path, side: int) -> list[Pixels]:
    """One clean crop of each photograph."""
    found = []
    signs: list[npt.NDArray[Any]] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in {".jpg", ".jpeg", ".png"}:
            continue
        try:
            with Image.open(path) as image:
                if min(image.size) < LEAST_SIDE or image.mode != "RGB":
                    continue
                if min(image.size) >= 4 * _BASE_SIDE:
                    image.draft("RGB", (2 * _BASE_SIDE, 2 * _BASE_SIDE))
                whole = image.convert("RGB")
        except OSError:
            continue
        scale = min(_SMALLER, _BASE_SIDE / min(whole.size))
        size = [math.ceil(scale * length) for length in whole.size]
        small = whole.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        sign = np.asarray(small.convert("L").resize((16, 16)), float)
        sign = (sign - sign.mean()) / max(float(sign.std()), 1.0)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        crop = np.array(small.crop((left, top, left + side, top + side)))
        if _drawn(crop) or any(np.abs(sign - other).mean() < 0.25 for other in signs):
            continue
        signs.append(sign)
        found.append(crop)
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def _drawn(crop: Pixels) -> bool:
    """Few colours, or large areas of one level."""
    luma = np.asarray(Image.fromarray(crop).convert("L"), np.int16)
    colours = len(np.unique(crop[::4, ::4].reshape(-1, 3), axis=0))
    return bool((np.diff(luma, axis=1) == 0).mean() > 0.5 or colours < 1000)


class Clean:
    """The clean set, with the statistics and responses of each image, which all pairs share."""

    def __init__(self, images: list[Pixels]) -> None:
        self.images = images
        self.own = features([measure(one) for one in images])
        self.moved: dict[tuple[str, int], Float64] = {}

    def curves(self, chosen: Sequence[int], both_only: bool = False) -> list[Curve]:
        """Responses of some images, of all variants or of those that each group needs."""
        found = []
        for variant in VARIANTS.values():
            if variant.both or not both_only:
                own = [self._moved(variant, int(i)) for i in chosen]
                found.append(curve(variant, np.stack(own, axis=1)))
        return found

    def _moved(self, variant: Variant, place: int) -> Float64:
        """What a variant does to one image, [amounts, features]."""
        key = variant.name, place
        if key not in self.moved:
            pixels = self.images[place]
            after = [measure(variant.apply(pixels, amount, place)) for amount in variant.amounts]
            self.moved[key] = features(after) - self.own[place]
        return self.moved[key]


def traces(
    clean: Clean,
    stages: Sequence[str],
    make: Make,
    seed: Sequence[int],
    count: int,
) -> dict[str, float]:
    """How far a device's pictures move if one of its stages is left out.

    In deviations of chance between two groups of the clean set, as ``distance`` is: what a later
    stage wiped out, as a blur does noise, lies near 0 and cannot be told from these statistics.
    """
    few = [int(i) for i in np.arange(len(clean.images))[-_TRACED:]]
    chance = difference(clean.own[:count], clean.own[count : 2 * count])
    whole = chance.covariance + np.diag(LEAST**2)

    def shown(but: str | None) -> Float64:
        rng = np.random.default_rng(seed)
        made = [
            (stage, make(stage, rng)[1]) for stage in changes.PIPELINE if stage in stages
        ]  # every operator is drawn, so that all others stay the same
        statistics = []
        for place in few:
            pixels = clean.images[place]
            for stage, operator in made:
                if stage != but:
                    pixels = operator(pixels, place)
            statistics.append(measure(pixels))
        return features(statistics)

    full = shown(None)
    found = {}
    for stage in stages:
        moved = mean_move(full - shown(stage))
        found[stage] = round(float(np.sqrt(moved @ np.linalg.solve(whole, moved))), 2)
    return found


def pair(
    clean: Clean, count: int, apply: Operator | None, rng: Random, paired: bool, settings: Settings
) -> tuple[Attribution, float]:
    """One comparison, and its seconds less those of making the device."""
    order = rng.permutation(len(clean.images))
    # sorted: changes are tried on the first, so that few images of the clean set are
    a = np.sort(order[:count])
    b = a if paired else np.sort(order[count : 2 * count])
    seed = int(rng.integers(1 << 30))
    if apply is None:
        changed, of_b = None, clean.own[b]
    else:
        changed = [apply(clean.images[i], seed + int(i)) for i in b]
        begin = time.perf_counter()
        of_b = features([measure(one) for one in changed])
        seconds_b = time.perf_counter() - begin
    begin = time.perf_counter()
    few_a, few_b = a[: settings.images], b[: settings.images]
    if changed is None:
        trial = Trial(
            ([clean.images[i] for i in few_a], [clean.images[i] for i in few_b]),
            (clean.own[few_a], clean.own[few_b]),
            (clean.own[few_a], clean.own[few_b]),
            (clean.curves(few_a), clean.curves(few_b, both_only=True)),
        )
        swap = False
    else:
        # clean images answer from what was stored; a real pair measures both sides
        trial = Trial.beside(
            [clean.images[i] for i in few_a],
            clean.own[few_a],
            clean.curves(few_a),
            changed[: settings.images],
            of_b[: settings.images],
            settings,
        )
        swap = bool(rng.integers(2))
    found = difference(clean.own[a], of_b, paired)
    if swap:
        found = difference(of_b, clean.own[a], paired)
        trial = trial.swapped()
    result = explain(found, trial, settings)
    return result, time.perf_counter() - begin + (seconds_b if apply is not None else 0.0)


# --- the tables ----------------------------------------------------------------------------------


def cases(half: str, repeats: int) -> Iterator[tuple[str, int, str, bool, tuple[str, ...]]]:
    """Kind of operators, number, and stages of each comparison; pairs only with one stage."""
    rng = np.random.default_rng([SEEDS[half], 77])
    for repeat in range(repeats):
        for kind in MAKERS[half]:
            for stage in STAGES:
                yield f"{kind} 1", repeat, kind, False, (stage,)
            for number in (2, 3):
                for _ in range(_SEVERAL):
                    chosen = np.sort(rng.choice(len(STAGES), number, replace=False))
                    stages = tuple(STAGES[i] for i in chosen)
                    yield f"{kind} {number}", repeat, kind, False, stages
            if repeat % 3 == 0:
                for stage in STAGES:
                    yield f"{kind} 1, pairs", repeat, kind, True, (stage,)


def run(clean: Clean, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All comparisons; one line of JSON each."""
    settings = Settings(side=arguments.side, images=arguments.tried)
    rows = []
    for place, (case, repeat, kind, paired, stages) in enumerate(
        cases(arguments.half, arguments.repeats)
    ):
        rng = np.random.default_rng([SEEDS[arguments.half], place, repeat])
        make = MAKERS[arguments.half][kind]
        name, apply = device(stages, make, rng)
        result, seconds = pair(clean, arguments.images, apply, rng, paired, settings)
        seed = [SEEDS[arguments.half], place, repeat]
        left = traces(clean, stages, make, seed, arguments.images)
        row = {
            "case": case,
            "stages": stages,
            "device": name,
            "traces": left,
            "found": result.stages,
            "moves": [part.moves for part in result.parts],
            "shares": [round(part.share, 3) for part in result.parts],
            "p": result.p_value,
            "distance": round(result.distance, 2),
            "left": round(result.left, 2),
            "seconds": round(seconds, 2),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def null(clean: Clean, arguments: argparse.Namespace) -> tuple[int, list[float]]:
    """How often something is attributed to two halves of the clean set, and p of each."""
    settings = Settings(side=arguments.side, images=arguments.tried)
    named, found = 0, []
    for repeat in range(arguments.null):
        rng = np.random.default_rng([SEEDS[arguments.half], 99, repeat])
        result, _ = pair(clean, arguments.images, None, rng, False, settings)
        named += bool(result.parts)
        found.append(result.p_value)
    return named, found


def null_of_pairs(clean: Clean, arguments: argparse.Namespace) -> list[float]:
    """P of groups of the same photographs, each made anew by devices that are drawn alike."""
    rng = np.random.default_rng([SEEDS[arguments.half], 98])
    versions = []
    for _ in range(_VERSIONS):
        made = []
        for pixels in clean.images:
            for stage in ("white_balance", "compression"):
                pixels = known(stage, rng)[1](pixels, 0)
            made.append(measure(pixels))
        versions.append(features(made))
    settings, found = Settings(), []
    for repeat in range(arguments.null):
        rng = np.random.default_rng([SEEDS[arguments.half], 97, repeat])
        places = rng.permutation(len(clean.images))[: arguments.images]
        a, b = np.array([rng.permutation(_VERSIONS)[:2] for _ in places]).T
        of_a, of_b = (np.array(versions)[one, places] for one in (a, b))
        pairs = difference(of_a, of_b, paired=True)
        found.append(significance(Model(pairs, {}), replace(settings, seed=repeat)))
    return found


def uniform(name: str, found: Sequence[float], named: int | None = None) -> None:
    """Says whether p of groups that are alike are uniform."""
    low = sum(p <= 0.05 for p in found)
    told = "" if named is None else f"{named} attributed, "
    print(f"{name}: {len(found)} repeats, {told}p <= 0.05 in {low}, "
          f"Kolmogorov-Smirnov p {kstest(found, 'uniform').pvalue:.2f}")  # fmt: skip


def table(rows: list[dict[str, Any]]) -> None:
    """Counts with 95% intervals (Clopper and Pearson)."""

    def line(name: str, hits: int, total: int, extras: int) -> None:
        low, high = binomtest(hits, total).proportion_ci(method="exact")
        print(f"{name:34} {hits:3} of {total:3} ({low:.2f} to {high:.2f})  extra stages {extras}")

    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        for exact in (True, False):
            hits = sum(
                set(row["found"]) == set(row["stages"])
                if exact
                else set(row["found"]) >= set(row["stages"])
                and set(row["found"][: len(row["stages"])]) == set(row["stages"])
                for row in own
            )
            extras = sum(len(set(row["found"]) - set(row["stages"])) for row in own)
            line(f"{case}: {'exactly those' if exact else 'first in rank'}", hits, len(own), extras)
        plain = [row for row in own if min(row["traces"].values()) >= _TRACE]
        if plain:
            hits = sum(set(row["found"]) == set(row["stages"]) for row in plain)
            extras = sum(len(set(row["found"]) - set(row["stages"])) for row in plain)
            line(f"{case}: exactly, all leave traces", hits, len(plain), extras)
        if "1" in case:
            for stage in STAGES:
                part = [row for row in own if row["stages"] == (stage,)]
                hits = sum(row["found"][:1] == (stage,) for row in part)
                wrong = Counter(s for row in part for s in row["found"] if s != stage)
                print(f"    {stage:14} first {hits} of {len(part)}, others {dict(wrong)}")
    seconds = [row["seconds"] for row in rows]
    print(f"seconds per pair: median {np.median(seconds):.1f}, most {max(seconds):.1f}")


def main() -> None:
    """Runs the comparisons and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, default=Path(".cache/photographs"))
    parser.add_argument("--half", choices=SEEDS, default="develop")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--null", type=int, default=200)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--tried", type=int, default=16, help="images that changes are tried on")
    parser.add_argument("--side", type=int, default=400)
    arguments = parser.parse_args()
    images = photographs(arguments.photographs, arguments.side)
    print(f"{len(images)} photographs, {arguments.images} a group, {arguments.side} pixels")
    if len(images) < 2 * arguments.images:
        raise SystemExit("not enough photographs for two groups")
    clean = Clean(images)
    rows = run(clean, arguments)
    if rows:
        table(rows)
    if arguments.null:
        named, found = null(clean, arguments)
        uniform("alike", found, named)
        uniform("alike, the same photographs", null_of_pairs(clean, arguments))


if __name__ == "__main__":
    main()
