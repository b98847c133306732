"""Near duplicates of code and images, and the image filters, against the peers and brute force.

Prints Markdown tables. Each side is a process of its own, start-up included, on the same two cores:
seconds, peak memory of the process and its children, and what it found of the truth. Code is real
source files of the standard library and of site-packages, whole folders at a time; pictures are
those of ``make .cache/pictures``. ``benchmarks/peers.txt`` says how to install the peers.

    python benchmarks/duplicates.py [--quick] [--only code|image]
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import rounds
from duplicate_peers import HOT, NGRAM, RADIUS, THRESHOLD, WORKERS
from duplicate_truth import (
    Truth,
    check_oracle,
    code_corpus,
    image_corpus,
    pairs_within,
    pictures,
    true_pairs,
    unlike,
)
from end_to_end import measured

from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.quality.image_statistics import FILTERS
from shardwright.quality.shingles import shingle_hashes

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".cache" / "peers" / "bin" / "python"
INGEST = "Shardwright, stage `ingest`"
STAGE = "Shardwright, stage `duplicates`"
DATATROVE = "datatrove, stages 1 to 3"
SPEED_GOAL = 10.0
FILTER_GOAL = 0.8
UNLIKE = 0.15
"""More than what any planted variant differs by."""
LARGE = 500_000
"""Pixels from which on the filters' goal holds."""


@dataclass(frozen=True)
class Reading:
    """A competitor's run: seconds, peak bytes, and what it gave; or why it gave nothing."""

    seconds: float
    peak: int
    result: dict[str, Any]

    @property
    def reason(self) -> str:
        """Why there is no figure; empty if there is one."""
        if "missing" in self.result:
            return "not installed"
        return f"failed: {self.result['failed'][:80]}" if "failed" in self.result else ""


def run_peer(name: str, folder: Path, work: Path) -> Reading:
    """Runs a competitor of ``duplicate_peers`` on a folder."""
    python = str(PEERS) if PEERS.exists() else sys.executable
    script = str(Path(__file__).with_name("duplicate_peers.py"))
    seconds, peak = measured([python, script, name, str(folder), str(work)])
    reading = Reading(seconds, peak, json.loads((work / f"{name}.json").read_text()))
    if reading.reason and name.startswith("shardwright"):
        sys.exit(f"{name}: {reading.reason}")
    return reading


def curate(recipe: str, folder: Path, output: Path, stage: str, *settings: str) -> Reading:
    """Runs a stage through the command line."""
    command = [sys.executable, "-m", "shardwright.pipelines.cli", "curate"]
    command += [str(ROOT / "recipes" / recipe), "--input", str(folder), "--output", str(output)]
    command += ["--stage", stage, "--set", "limits.reject_threshold=0.5"]
    for setting in settings:
        command += ["--set", setting]
    return Reading(*measured(command), {})


def rows(output: Path, query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers over the tables of a curation."""
    with connect(Layout(output)) as connection:
        return connection.execute(query).fetchall()


def table(header: list[str], lines: list[list[str]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for line in lines:
        print("| " + " | ".join(line + [""] * (len(header) - len(line))) + " |")
    print(flush=True)


def write_jsonl(corpus: Path, folder: Path) -> None:
    """Every second file to each of the tasks of datatrove, which splits no file."""
    folder.mkdir()
    files = [(folder / f"{task:05d}.jsonl").open("w") for task in range(WORKERS)]
    for number, path in enumerate(sorted(corpus.iterdir())):
        document = {"id": str(number), "text": path.read_bytes().decode()}
        files[number % WORKERS].write(json.dumps(document) + "\n")
    for file in files:
        file.close()


def code(count: int, checked: int, work: Path) -> None:
    """The table of near code."""
    corpus = work / "corpus"
    corpus.mkdir()
    print(f"## Code\n\n- {code_corpus(corpus, count)}")
    sets = [shingle_hashes(path.read_bytes(), NGRAM) for path in sorted(corpus.iterdir())]
    check_oracle(sets[:checked], THRESHOLD)
    started = time.monotonic()
    truth = Truth.of(true_pairs(sets, THRESHOLD))
    print(
        f"- truth: {len(truth.pairs):,} pairs of Jaccard similarity >= {THRESHOLD} over shingles "
        f"of {NGRAM} tokens, by counting what all pairs share, in {time.monotonic() - started:.0f} "
        f"s; the same as the double loop finds on {checked:,} of the files\n"
        f"- greedy removal by path, from the true pairs: {len(truth.greedy()):,} records\n"
        "- a side that removes records has found a pair if one of the two goes; false is then a "
        "record that is near to nothing\n"
        "- datatrove: its defaults, 14 x 8 hashes of 5 words (spaCy's English rules, lower case, "
        "no punctuation), so that its similarity is another one; rensa: 16 x 8 hashes of our "
        "shingles, pairs by its own estimate\n"
    )
    del sets
    readings = code_readings(corpus, work)
    base = readings[STAGE]
    scores = {name: code_score(reading, truth) for name, reading in readings.items()}
    lines = []
    for name, reading in readings.items():
        cells = [name, reading.reason]
        if not reading.reason:
            cells = [name, *costs(reading, base)]
        if score := scores[name]:
            cells.append(f"{score['found'] / max(len(truth.pairs), 1):.4f}")
            columns = ("found", "missed", "false", "removed", "alone")
            cells += [f"{score[key]:,}" if key in score else "" for key in columns]
        lines.append(cells)
    header = ["", "seconds", "peak MB", "time / stage `duplicates`", "recall", "pairs found"]
    header += ["missed", "false", "records removed", "of them near to none kept"]
    table(header, lines)
    peer = readings[DATATROVE]
    if peer.reason:
        return
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in peer.result["seconds"].items())
    speed = peer.seconds / base.seconds
    both = peer.seconds / (base.seconds + readings[INGEST].seconds)
    ours, theirs = scores[STAGE]["missed"], scores[DATATROVE]["missed"]
    print(
        f"- datatrove: {steps}\n"
        f"- goal: {SPEED_GOAL:g} times datatrove's speed at equal or better recall: "
        f"{verdict(speed >= SPEED_GOAL and ours <= theirs)} ({speed:.1f} times, {both:.1f} with "
        f"`ingest`; pairs missed {ours:,} and {theirs:,})\n"
    )


def code_readings(corpus: Path, work: Path) -> dict[str, Reading]:
    """Runs all sides on code, one after the other."""
    output = work / "curation"
    near = f"duplicates.near={{threshold: {THRESHOLD}, ngram: {NGRAM}}}"
    readings = {
        INGEST: curate("code.yaml", corpus, output, "ingest", near),
        STAGE: curate("code.yaml", corpus, output, "duplicates", near),
        f"Shardwright, library, keys of > {HOT} cut": run_peer("shardwright_pairs", corpus, work),
        "Shardwright, library, all pairs": run_peer("shardwright_all_pairs", corpus, work),
    }
    query = """SELECT path FROM duplicates JOIN records USING (record_id)
        WHERE record_id <> representative_id"""
    removed = [int(Path(path).stem) for (path,) in rows(output, query)]
    readings[STAGE].result["removed"] = removed
    write_jsonl(corpus, work / "jsonl")
    readings[DATATROVE] = run_peer("datatrove", corpus, work)
    if not readings[DATATROVE].reason:
        fourth = run_peer("datatrove_filter", corpus, work)
        readings["datatrove, stage 4 (writes what stays)"] = fourth
    readings["rensa"] = run_peer("rensa", corpus, work)
    readings["semhash, `builtin:hashing`, 0.9"] = run_peer("semhash", corpus, work)
    return readings


def code_score(reading: Reading, truth: Truth) -> dict[str, int]:
    """What a side found; empty if it was not to find anything."""
    if "pairs" in reading.result:
        return truth.score_pairs(reading.result["pairs"])
    if "removed" in reading.result:
        return truth.score_removed(set(reading.result["removed"]))
    return {}


def costs(reading: Reading, base: Reading) -> list[str]:
    """Seconds, megabytes, and the ratio of seconds."""
    ratio = reading.seconds / base.seconds
    return [f"{reading.seconds:.1f}", f"{reading.peak / 1e6:,.0f}", f"{ratio:.2f}"]


def verdict(hit: bool) -> str:
    """Hit, or missed in bold."""
    return "hit" if hit else "**missed**"


def images(count: int, bases: int, work: Path) -> None:
    """The table of near pictures."""
    corpus = work / "pictures"
    corpus.mkdir()
    planted = image_corpus(corpus, count, bases)
    base = run_peer("shardwright_images", corpus, work)
    hashes = base.result["hashes"]
    truth = Truth.of(pairs_within(hashes, RADIUS))
    score = truth.score_pairs(base.result["pairs"])
    blank = sum(hashes[a] is None or hashes[b] is None for a, b in planted.tolist())
    lines = []
    for name, reading in {
        "Shardwright, library": base,
        "imagededup, PHash": run_peer("imagededup", corpus, work),
        "cleanvision": run_peer("cleanvision", corpus, work),
    }.items():
        if reading.reason:
            lines.append([name, reading.reason])
            continue
        pairs = {(a, b) for a, b in reading.result["pairs"]}
        found = [sum((a, b) in pairs for a, b in planted[kind::3].tolist()) for kind in range(3)]
        cells = [*map(str, found), str(sum(found)), str(len(planted) - sum(found))]
        cells += [f"{len(pairs):,}", f"{unlike(corpus, pairs, UNLIKE):,}"]
        lines.append([name, *costs(reading, base), *cells])
    known = len(hashes) - hashes.count(None)
    print(
        f"## Images\n\n- {len(hashes) - len(planted):,} pictures, and {len(planted)} variants of "
        f"{len(planted) // 3} of them; near: at most {RADIUS} of 64 bits differ\n"
        f"- Shardwright against brute force over its {known:,} hashes: {score['found']:,} pairs "
        f"found, {score['missed']:,} missed, {score['false']:,} false; the rest is too plain for a "
        f"hash, {blank} planted pairs among it\n"
        f"- unlike: pairs whose pixels differ by {UNLIKE:.0%} and more of the full range\n"
    )
    header = ["", "seconds", "peak MB", "time / Shardwright", "JPEG", "smaller", "brighter"]
    table([*header, "planted found", "missed", "pairs", "of them unlike"], lines)


def filters(count: int, work: Path) -> None:
    """The table of the image filters' rate, on large pictures as they are and as JPEG."""
    print(
        "## Image filters\n\n"
        f"- pictures above {LARGE / 1e6:g} megapixels, in memory; one thread, processor time, "
        "medians of 3 turns\n"
        f"- filters: {', '.join(item.name for item in FILTERS)}\n"
    )
    found: dict[str, list[bytes]] = {}
    for suffix, data, image in pictures():
        if image.width * image.height > LARGE and len(found.get(suffix, ())) < count:
            found.setdefault(suffix, []).append(data)
            encoded = io.BytesIO()
            image.convert("RGB").save(encoded, "JPEG", quality=90)
            found.setdefault("all, saved as JPEG of quality 90", []).append(encoded.getvalue())
    lines = []
    for place, (name, contents) in enumerate(found.items()):
        folder = work / f"large-{place}"
        folder.mkdir()
        suffix = name if name.startswith(".") else ".jpg"
        for number, data in enumerate(contents):
            (folder / f"{number:05d}{suffix}").write_bytes(data)
        reading = run_peer("rates", folder, work)
        if reading.reason:
            lines.append([name, str(len(contents)), reading.reason])
            continue
        rate = reading.result
        share = rate["measure"] / rate["decode"]
        cells = [name, str(len(contents)), f"{rate['decode']:.1f}", f"{rate['measure']:.1f}"]
        cells += [f"{share:.2f}", verdict(share >= FILTER_GOAL)]
        theirs = rate.get("cleanvision")
        figures = [f"{theirs:.1f}", f"{rate['measure'] / theirs:.1f}"] if theirs else []
        cells += figures or ["not installed"]
        lines.append(cells)
    header = ["", "pictures", "decoded/s", "`measure_image`/s", "of decoding"]
    header += [f"goal {FILTER_GOAL:g}", "cleanvision/s", "`measure_image` / cleanvision"]
    table(header, lines)


def bad_files(work: Path) -> None:
    """The table of what one bad file among good ones costs."""
    good = [(suffix, data) for suffix, data, _ in islice(pictures(), 20)]
    image = next(image for _, _, image in pictures() if min(image.size) >= 128).convert("RGB")
    whole, grey = io.BytesIO(), io.BytesIO()
    image.save(whole, "JPEG")
    image.convert("LA").save(grey, "PNG")
    bad = {
        "a PNG with grey and alpha": (".png", grey.getvalue()),
        "a truncated JPEG": (".jpg", whole.getvalue()[: len(whole.getvalue()) // 2]),
    }
    print(f"## One bad file among {len(good)} good ones\n")
    names = "filters=[" + ", ".join(item.name for item in FILTERS) + "]"
    lines: dict[str, list[str]] = {}
    for place, one in enumerate(bad.values()):
        folder, output = work / f"bad-{place}", work / f"checked-{place}"
        folder.mkdir()
        for number, (suffix, data) in enumerate([*good, one]):
            (folder / f"{number:05d}{suffix}").write_bytes(data)
        for stage in ("ingest", "filter"):
            curate("images.yaml", folder, output, stage, names)
        ((scored,),) = rows(output, "SELECT count(*) FROM filter_scores")
        refused = rows(output, "SELECT reason FROM rejects")
        said = "".join(f", 1 refused: {reason}" for (reason,) in refused)
        lines.setdefault("Shardwright", []).append(f"{scored} checked{said}")
        for name in ("cleanvision_checks", "imagededup"):
            reading = run_peer(name, folder, work)
            done = reading.result.get("checked", reading.result.get("hashed"))
            lines.setdefault(name.split("_")[0], []).append(reading.reason or f"{done} checked")
    table(["", *bad], [[name, *cells] for name, cells in lines.items()])


def main() -> None:
    """Runs all and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="600 files, 200 pictures")
    parser.add_argument("--only", choices=("code", "image"))
    arguments = parser.parse_args()
    quick = arguments.quick
    # all libraries and all their processes get the same cores; peers import the package from here
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:WORKERS])
    os.environ["PYTHONPATH"] = str(ROOT)
    warnings.filterwarnings("ignore", module="PIL")
    print("\n".join(f"- {line}" for line in [*rounds.header(), f"all sides on {WORKERS} cores"]))
    print()
    with tempfile.TemporaryDirectory() as work:
        if arguments.only != "image":
            code(600 if quick else 15_000, 200 if quick else 1_000, Path(work))
        if arguments.only != "code":
            images(200 if quick else 5_000, 10 if quick else 100, Path(work))
            filters(5 if quick else 1_000, Path(work))
            bad_files(Path(work))


if __name__ == "__main__":
    main()
