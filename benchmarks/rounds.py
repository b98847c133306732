"""Timing for benchmarks: competitors take turns, medians, ratios, goals with hit or missed."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from shardwright import kernels

Run = Callable[[int], object]
"""Does the work once; the number of the turn tells which of several inputs to take."""


@dataclass(frozen=True)
class Goal:
    """What an entry is to reach against another of its case.

    Attributes:
        against: the other entry's name.
        rate: work per second at least this times the other's.
        time: seconds at most this times the other's.
    """

    against: str
    rate: float | None = None
    time: float | None = None


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Attributes:
        name: what is measured.
        goals: what it is to reach.
        work: in the case's unit; None for the case's own.
        counted: report the share of rows certified at once.
    """

    name: str
    goals: tuple[Goal, ...] = ()
    work: float | None = None
    counted: bool = False


@dataclass(frozen=True)
class Case:
    """A shape and its competitors: one table.

    Attributes:
        name: for ``--only``.
        title: what the table's heading says.
        work: operations or bytes of one run.
        unit: of work per second, with its size: ``("GFLOP/s", 1e9)``.
        shares: the ratio is of rates (higher is better) and not of times.
        entries: the first is what the others' ratios refer to.
        prepare: makes the data and gives each entry's ``Run``, or a reason why there is none.
    """

    name: str
    title: str
    work: float
    unit: tuple[str, float]
    shares: bool
    entries: tuple[Entry, ...]
    prepare: Callable[[], Mapping[str, Run | str]]


@dataclass(frozen=True)
class Reading:
    """Median seconds of one run; the share certified at once; or why there is neither."""

    seconds: float | None
    share: float | None = None
    reason: str = "not measured"


def seconds_of(run: Run, first: int, count: int, device: str) -> float:
    """Seconds per run of ``count`` runs, by CUDA events or by the clock."""
    if device == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for turn in range(first, first + count):
            run(turn)
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3 / count
    # another library's threads may still spin, waiting for more work: let them fall asleep
    time.sleep(0.05)
    begin = time.perf_counter()
    for turn in range(first, first + count):
        run(turn)
    return (time.perf_counter() - begin) / count


def measure(case: Case, device: str, repeats: int) -> dict[str, Reading]:
    """Runs the entries of a case in turns after a warm-up and takes medians."""
    runs = case.prepare()
    readings: dict[str, Reading] = {}
    counts: dict[str, int] = {}
    for entry in case.entries:
        run = runs[entry.name]
        if isinstance(run, str):
            readings[entry.name] = Reading(None, reason=run)
            continue
        try:
            with kernels.counting() as count:
                run(0)  # compiles, allocates, loads
            warm = seconds_of(run, 1, 1, device)
        except Exception as error:
            # one competitor without memory must not cost the others their figures
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            readings[entry.name] = Reading(None, reason=f"failed: {text[:120]}")
            continue
        least = 0.02 if device == "cuda" else 0.05
        counts[entry.name] = max(1, min(64, round(least / max(warm, 1e-6))))
        share = count.share if entry.counted and count.rows else None
        readings[entry.name] = Reading(0.0, share)
    seconds: dict[str, list[float]] = {name: [] for name in counts}
    for turn in range(repeats):
        for name, count_of_runs in counts.items():
            run = runs[name]
            assert not isinstance(run, str)
            first = turn * count_of_runs
            seconds[name].append(seconds_of(run, first, count_of_runs, device))
    for name, values in seconds.items():
        readings[name] = Reading(statistics.median(values), readings[name].share)
    return readings


def verdict(case: Case, entry: Entry, readings: Mapping[str, Reading]) -> str:
    """The goals of an entry, each with its figure and whether it is hit."""
    work = {other.name: other.work or case.work for other in case.entries}
    parts = []
    for goal in entry.goals:
        wanted = (
            f"rate >= {goal.rate:g} x {goal.against}"
            if goal.rate is not None
            else f"time <= {goal.time:g} x {goal.against}"
        )
        mine = readings[entry.name].seconds
        other = readings[goal.against].seconds
        if mine is None or other is None:
            parts.append(f"{wanted}: not measured")
            continue
        slowdown = mine / other
        if goal.rate is not None:
            figure = work[entry.name] / work[goal.against] / slowdown
            hit = figure >= goal.rate
        else:
            figure = slowdown
            hit = goal.time is not None and figure <= goal.time
        parts.append(f"{wanted}: {'hit' if hit else '**missed**'} ({figure:.2f})")
    return "; ".join(parts)


def table(case: Case, readings: Mapping[str, Reading]) -> str:
    """A Markdown table of a case."""
    unit, size = case.unit
    base = case.entries[0]
    ratio = f"{'rate' if case.shares else 'time'} / {base.name}"
    lines = [
        f"### {case.title}",
        "",
        f"| | ms | {unit} | {ratio} | certified at once | goals |",
        "|---|---|---|---|---|---|",
    ]
    for entry in case.entries:
        reading = readings[entry.name]
        cells = [entry.name, reading.reason, "", "", ""]
        if reading.seconds is not None:
            rate = (entry.work or case.work) / reading.seconds
            cells[1:3] = [f"{reading.seconds * 1e3:.3g}", f"{rate / size:.3g}"]
            zero = readings[base.name].seconds
            if zero is not None:
                share = rate * zero / (base.work or case.work)
                cells[3] = f"{share if case.shares else reading.seconds / zero:.2f}"
            if reading.share is not None:
                cells[4] = f"{100 * reading.share:.2f} %"
        lines.append(f"| {' | '.join(cells)} | {verdict(case, entry, readings)} |")
    return "\n".join(lines) + "\n"


def not_measured(case: Case) -> dict[str, Reading]:
    """Readings of a case whose device is not there."""
    return {entry.name: Reading(None) for entry in case.entries}


def header() -> list[str]:
    """Commit, date and machine."""
    root = Path(__file__).parents[1]
    commit = _output("git", "-C", str(root), "rev-parse", "--short", "HEAD") or "unknown"
    if _output("git", "-C", str(root), "status", "--porcelain"):
        commit += " with changes"
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _text(Path("/proc/cpuinfo")).splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    lines = [
        f"commit {commit}, {datetime.now(UTC):%Y-%m-%d}",
        f"{model}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}",
    ]
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        lines.append(
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
            f"CUDA {torch.version.cuda}, driver {driver or 'unknown'}"
        )
    return lines


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _output(*command: str) -> str:
    """What a command prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
