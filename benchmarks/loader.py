"""Loaders of training jobs: ours against mosaicml-streaming, litdata, webdataset and Parquet.

    python benchmarks/loader.py [--quick] [--only rates|resume|order|waits] [--kind text|jpeg]

Prints Markdown tables. All read the same samples, each in its own format (ours and
mosaicml-streaming the same files), from 16 files that are in the page cache, shuffled, in batches
of 64 through a DataLoader whose workers are kept. Each reading is a process of its own, competitors
take turns, figures are medians. The first epoch is not counted; ours hashes all shards before it
(``dataset.check()``), once for all workers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import loader_data
import pyarrow.compute as pc
import rounds
from loader_readers import IN_MEMORY, READERS
from throttled import throttled

LATENCY, RATE = 0.1, 50e6
DECODING = "decoding alone"
OURS = "shardwright"
NARROW = "shardwright, window=2"
TEN_BILLION = 10**10
Result = dict[str, Any]


def read(*arguments: object) -> Result:
    """One reading of ``loader_readers``; ``failed`` says why there is none."""
    script = str(Path(__file__).with_name("loader_readers.py"))
    try:
        done = subprocess.run(
            [sys.executable, script, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
        )
    except subprocess.TimeoutExpired:
        return {"failed": "ten minutes were not enough"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or [done.stderr]
        return {"failed": lines[-1].strip()[:100]}
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def table(header: list[str], lines: list[list[str]]) -> None:
    """Prints a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for line in lines:
        print("| " + " | ".join(line + [""] * (len(header) - len(line))) + " |")
    print(flush=True)


def median(results: list[Result], key: str) -> float | str:
    """Median of all readings of one kind, or why there is none."""
    failed = [result["failed"] for result in results if "failed" in result]
    if failed:
        return f"failed: {failed[0]}"
    values: list[float] = []
    for result in results:
        values += result[key] if isinstance(result[key], list) else [result[key]]
    return statistics.median(values)


def goal(hit: bool) -> str:
    """In words."""
    return "hit" if hit else "**missed**"


def rates(kind: str, folder: Path, count: int, each: float, turns: int, epochs: int) -> None:
    """Samples and megabytes a second for 0, 1 and 2 workers."""
    title = {"text": "Texts as they are", "jpeg": "JPEG, decoded to pixels"}[kind]
    print(f"## {title}\n\n{count:,} samples of {each:,.0f} bytes on average.\n")
    names = [name for name in READERS if name != NARROW]
    names += [IN_MEMORY, DECODING] if kind == "jpeg" else []
    for workers in (0, 1, 2):
        found: dict[str, list[Result]] = {name: [] for name in names}
        for _ in range(turns):
            for name in names:
                found[name].append(read("rates", name, kind, folder, "", workers, epochs))
        middle = {name: median(found[name], "rates") for name in names}
        lines, ours = [], middle[OURS]
        assert isinstance(ours, float), ours
        for name in names:
            rate = middle[name]
            if isinstance(rate, str):
                lines.append([name, rate])
                continue
            given = {number for result in found[name] for number in result["samples"]}
            share = f"{min(given):,}" if max(given) < count else "all"
            lines.append([name, f"{rate:,.0f}", f"{rate * each / 1e6:,.1f}"])
            lines[-1] += [f"{rate / ours:.2f}", share]
        print(f"### {workers} workers\n")
        table(["", "samples/s", "MB/s", "rate / shardwright", "samples of an epoch"], lines)
        figures = {name: rate for name, rate in middle.items() if isinstance(rate, float)}
        if kind == "text":
            best = max(rate for name, rate in figures.items() if name != OURS)
            print(f"Goal, at least the fastest of them: {goal(ours >= best)} ({ours / best:.2f})\n")
        elif DECODING in figures:
            share_of = ours / figures[DECODING]
            print(f"Goal, 0.98 of decoding alone: {goal(share_of >= 0.98)} ({share_of:.3f})")
            print(f"Of {IN_MEMORY}: {ours / figures[IN_MEMORY]:.3f}\n")


def resumes(folders: dict[str, Path], turns: int) -> None:
    """Seconds to the first batch."""
    print(
        "## Resume in the middle of an epoch\n\n"
        "Seconds from the checkpoint to the first batch, in a process that has the library "
        "imported. Ours hashes the shards of its first window. webdataset and plain Parquet have "
        "no resume but reading on.\n"
    )
    lines = []
    for kind, folder in folders.items():
        for workers in (0, 2):
            for name in (OURS, "mosaicml-streaming", "litdata"):
                results = [read("resume", name, kind, folder, "", workers, 0) for _ in range(turns)]
                seconds = median(results, "seconds")
                told = seconds if isinstance(seconds, str) else f"{seconds:.2f}"
                lines.append([kind, str(workers), name, told])
                if name == OURS and isinstance(seconds, float):
                    lines[-1].append(f"at most 1 s: {goal(seconds <= 1)}")
    table(["", "workers", "", "s", "goal"], lines)


def orders() -> None:
    """Memory and speed of an order over ten billion samples."""
    print(
        "## An order over 10 billion samples\n\n"
        "Growth of the process's peak memory while it makes the order and a million places of it.\n"
    )
    lines = []
    for shards in (156_250, 1_562_500):
        found = read("order", shards, "", "", "", 0, TEN_BILLION)
        if "failed" in found:
            lines.append([f"{shards:,}", f"failed: {found['failed']}"])
            continue
        size, seconds = found["megabytes"], found["seconds"]
        lines.append([f"{shards:,}", f"{size:.0f}", f"{seconds:.2f}", f"{found['rate']:,.0f}"])
        lines[-1].append(f"under 100 MB: {goal(size < 100)}")
    table(["shards", "MB", "s to make", "places/s", "goal"], lines)


def waits(folder: Path, size: float, speed: float, turns: int) -> None:
    """Share of the time that a consumer waits for a store that is far away."""
    print(
        f"## A store {LATENCY * 1e3:.0f} ms away, {RATE / 1e6:.0f} MB/s\n\n"
        f"One epoch of {size / 1e6:.0f} MB of JPEG, not decoded, into an empty cache; the consumer "
        f"takes {speed / 1e6:.0f} MB/s. Its share of waiting counts from the making of the loader "
        f"on; the first batch is part of it. webdataset, datasets and ours over HTTP, "
        "mosaicml-streaming and litdata over S3; pyarrow reads no such store by itself.\n"
    )
    names = [name for name in READERS if name != "Parquet, pyarrow"]
    with throttled(folder, LATENCY, RATE) as where:
        for workers in (0, 2):
            found: dict[str, list[Result]] = {name: [] for name in names}
            for _ in range(turns):
                for name in names:
                    found[name].append(read("waits", name, "jpeg", folder, where, workers, speed))
            shares = {name: median(found[name], "share") for name in names}
            lines = []
            for name, share in shares.items():
                first = median(found[name], "first")
                if isinstance(share, str) or isinstance(first, str):
                    lines.append([name, str(share)])
                else:
                    lines.append([name, f"{share:.1%}", f"{first:.2f}"])
            print(f"### {workers} workers\n")
            table(["", "waits", "s to the first batch"], lines)
            figures = {name: share for name, share in shares.items() if isinstance(share, float)}
            theirs = min(s for name, s in figures.items() if name not in (OURS, NARROW))
            for name in (OURS, NARROW):
                if name in figures:
                    told = f"{figures[name]:.1%} against {theirs:.1%}"
                    print(
                        f"Goal, {name} lower than theirs: {goal(figures[name] < theirs)} ({told})"
                    )
            print()


def main() -> None:
    """Makes the data and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, each reader once")
    parser.add_argument("--only", choices=["rates", "resume", "order", "waits"])
    parser.add_argument("--kind", choices=["text", "jpeg"], action="append", help="both by default")
    arguments = parser.parse_args()
    quick, only = arguments.quick, arguments.only
    texts, pictures, turns, epochs = (10_000, 1_000, 1, 3) if quick else (60_000, 8_000, 3, 1)
    print(f"# Loaders{', quick' if quick else ''}\n")
    load = "load before the run {:.1f} {:.1f} {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg())
    print("\n".join(f"- {line}" for line in [*rounds.header(), load]) + "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="loaders-") as made:
        folders, counts, sizes = {}, {}, {}
        for kind, count in (("text", texts), ("jpeg", pictures)):
            samples = loader_data.texts(count) if kind == "text" else loader_data.jpegs(count)
            folders[kind] = Path(made) / kind
            loader_data.write(samples, folders[kind])
            payload = samples[loader_data.PAYLOAD[kind]]
            counts[kind], sizes[kind] = count, pc.sum(pc.binary_length(payload)).as_py()
            del samples, payload
        if only in (None, "rates"):
            for kind, folder in folders.items():
                if arguments.kind is not None and kind not in arguments.kind:
                    continue
                rates(kind, folder, counts[kind], sizes[kind] / counts[kind], turns, epochs)
        if only in (None, "resume"):
            resumes(folders, 1 if quick else 3)
        if only in (None, "order"):
            orders()
        if only in (None, "waits"):
            waits(folders["jpeg"], sizes["jpeg"], 5e6 if quick else 25e6, turns)
    print("load after it {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
