"""How a curation grows: seconds, memory and bytes for N, 4N and 16N records.

    python benchmarks/scale.py [--records 62500] [--recipe light|whole] [--folder DIR]
    python benchmarks/scale.py --narrow 6250000 [--folder DIR]

Records are functions of real files, the standard library's and those of installed packages. Where
there are more records than functions, names in them are changed, so that no two are near
duplicates that were not before (``scale_corpus.py``). ``light`` leaves out of the recipe what takes
milliseconds a record and is independent of all other records (damage, views, language filters);
``whole`` is ``recipes/code.yaml``.

With ``--narrow``, N, 4N and 16N rows of ids and numbers, made up (``scale_narrow.py``): the stages
that are SQL over narrow tables, ``duplicates`` by hashes, ``score`` and ``prune``, below 4 GB. A
stage finds no file in the system's page cache, at any size: the tables of the largest do not fit.
Each stage runs twice, and the faster run counts: a disk that was just written to may be slower.

For every stage: seconds at each size; the last over four times the one before, which is to be at
most 1.1; memory; bytes written for other workers and into the output. The stage that is furthest
from linear is named. Each size is a run of the command line, and outputs go when they are read.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import scale_corpus
import scale_narrow
from rounds import header

Stage = dict[str, Any]

ROOT = Path(__file__).parents[1]
GOAL = 1.1
"""Seconds of the largest size over four times those of the one before."""
SMALL = 1.0
"""Seconds below which a stage's growth is not judged."""
LIGHT = (
    'filters=["max_line_length", "mean_line_length", "alphanumeric_share"]',
    'prune.scores=["scip", "ssl_prototypes", "semdedup", "length", "random"]',
)
NARROW_LIMIT = "4GB"


def run(folder: Path, source: Path, settings: tuple[str, ...], *more: str) -> list[Stage]:
    """The stages of a curation of a folder of Parquet files."""
    output = folder / "out"
    source_is = ("name=scale", "source.kind=parquet", 'source.include=["**/*.parquet"]')
    values = (*source_is, *settings)
    command = [
        *(str(Path(sys.executable).with_name("shardwright")), "curate"),
        *(str(ROOT / "recipes" / "code.yaml"), "--output", str(output), "--input", str(source)),
        *(part for value in values for part in ("--set", value)),
        *more,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    stages = json.loads((output / "metrics.json").read_text())["stages"]
    return [stage for stage in stages if stage["records"]]


def run_narrow(folder: Path, source: Path, name: str) -> Stage:
    """The faster of two runs of a stage, both from cold files."""
    tries = []
    for _ in range(2):
        evict(folder / "out")
        more = ("--stage", name, "--force", "--memory-limit", NARROW_LIMIT)
        stages = run(folder, source, scale_narrow.SETTINGS, *more)
        tries += [stage for stage in stages if stage["stage"] == name]
    print(name, *(f"{one['seconds']:.1f} s" for one in tries), file=sys.stderr, flush=True)
    fastest = min(tries, key=lambda one: float(one["seconds"]))
    return fastest | {"peak_bytes": max(one["peak_bytes"] for one in tries)}


def evict(folder: Path) -> None:
    """Writes a folder's files to the disk and takes them out of the page cache."""
    for path in folder.rglob("*.parquet"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(title: str, sizes: list[int], runs: list[list[Stage]]) -> list[str]:
    """Lines of Markdown."""
    counts = " | ".join(f"{size:,}" for size in sizes)
    lines = [
        f"### {title}",
        "",
        f"| stage | {counts} records: s | to linear | us a record | peak GB | shuffled, B a record "
        "| written, B a record |",
        "|---|" + "---|" * (len(sizes) + 5),
    ]
    ratios = {}
    for last in runs[-1]:
        rows = [next(one for one in stages if one["stage"] == last["stage"]) for stages in runs]
        seconds = [row["seconds"] for row in rows]
        growth = sizes[-1] / sizes[-2]
        ratio = seconds[-1] / seconds[-2] / growth
        judged = seconds[-2] >= SMALL
        if judged:
            ratios[last["stage"]] = ratio
        peak = " / ".join(f"{row['peak_bytes'] / 1e9:.2f}" for row in rows)
        each = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2]) * 1e6
        lines.append(
            f"| {last['stage']} | {' | '.join(f'{s:.1f}' for s in seconds)} "
            f"| {f'{ratio:.2f}' if judged else ''} | {each:.1f} | {peak} "
            f"| {last['shuffled'] / sizes[-1]:.0f} | {last['written'] / sizes[-1]:.0f} |"
        )
    whole = [sum(stage["seconds"] for stage in stages) for stages in runs]
    ratio = whole[-1] / whole[-2] / (sizes[-1] / sizes[-2])
    verdict = "hit" if ratio <= GOAL else "**missed**"
    lines += [
        f"| all | {' | '.join(f'{s:.1f}' for s in whole)} | {ratio:.2f} | | | | |",
        "",
        f"All stages to linear, at most {GOAL}: {verdict} ({ratio:.2f}).",
    ]
    if ratios:
        worst = max(ratios, key=lambda name: ratios[name])
        lines[-1] += f" Furthest from it: `{worst}` ({ratios[worst]:.2f})."
    return lines


def main() -> None:
    """Runs the sizes and prints their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=62_500)
    parser.add_argument("--recipe", choices=("light", "whole"), default="light")
    parser.add_argument("--narrow", type=int, help="rows of the smallest size")
    parser.add_argument("--sizes", type=int, default=3, help="how many, each four times the last")
    parser.add_argument("--folder", type=Path, help="where inputs and outputs are put")
    given = parser.parse_args()
    if given.sizes < 2:
        parser.error("--sizes: growth needs two")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        first = given.narrow or given.records
        sizes = [first * 4**step for step in range(given.sizes)]
        runs = []
        for size in sizes:
            if given.narrow:
                source = folder / "in"
                source.mkdir()
                scale_narrow.make(folder / "out", size)
                found = [run_narrow(folder, source, stage) for stage in scale_narrow.STAGES]
            else:
                source = scale_corpus.make(folder / "in", size)
                found = run(folder, source, LIGHT if given.recipe == "light" else ())
            runs.append(found)
            for used in (source, folder / "out"):
                shutil.rmtree(used)
            print(json.dumps({"records": size, "stages": found}), file=sys.stderr, flush=True)
    title = "Ids and narrow tables" if given.narrow else f"Recipe: {given.recipe}"
    print("\n".join([*header(), "", *table(title, sizes, runs)]))


if __name__ == "__main__":
    main()
