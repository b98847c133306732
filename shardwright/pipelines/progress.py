"""Progress on stderr: one line a stage, live where stderr is a terminal."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from shardwright.pipelines.energy import Energy, Meter
from shardwright.pipelines.memory import watched

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class StageMetrics:
    """What a stage did in this run.

    Attributes:
        stage: Its name.
        records: Records that it read.
        bytes: Bytes that its jobs read.
        shuffled: Bytes that its workers wrote for other workers to read.
        written: Bytes of the files of the output that it made.
        parts: Parts of its jobs.
        reused: Those that were not made again.
        seconds: By the wall clock.
        rejects: Inputs that it refused.
        cached: Records whose result was found and not computed again.
        peak_bytes: The most memory that the run's processes on this machine held meanwhile, mapped
            files left out.
        device: Where its model ran, if it ran one.
        energy: What the machine's counters saw meanwhile.
        details: What else it counted.
    """

    stage: str
    records: int
    bytes: int
    shuffled: int
    written: int
    parts: int
    reused: int
    seconds: float
    rejects: int
    cached: int
    peak_bytes: int
    device: str | None
    energy: Energy
    details: dict[str, int] = field(default_factory=dict)


@dataclass
class Reporter:
    """Shows stages as they run and remembers what each did."""

    console: Console = field(default_factory=lambda: Console(stderr=True))
    metrics: list[StageMetrics] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Prints a line that the user should see."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator["StageProgress"]:
        """Times a stage and prints its line at the end."""
        with watched() as peak:
            progress = StageProgress(name, self.console)
            yield progress
        done = progress.done(peak.bytes)
        self.metrics.append(done)
        if not done.records and not done.parts:  # the recipe leaves it out
            return
        if done.parts and done.reused == done.parts:
            self.note(f"{name:<10} {done.records:>11,} records, all parts reused")
            return
        rate = done.records / max(done.seconds, 1e-9)
        speed = done.bytes / 1e6 / max(done.seconds, 1e-9)
        reused = f", {done.reused} of {done.parts} parts reused" if done.reused else ""
        self.note(
            f"{name:<10} {done.records:>11,} records {rate:>11,.0f}/s {speed:>8,.1f} MB/s "
            f"{done.seconds:>7.1f} s{reused}"
        )


class StageProgress:
    """Counts of one stage."""

    def __init__(self, name: str, console: Console) -> None:
        self._name = name
        self._console = console
        self._started = time.monotonic()
        self.records = 0
        self.bytes = 0
        self.shuffled = 0
        self.written = 0
        self.parts = 0
        self.reused = 0
        self.rejects = 0
        self.cached = 0
        self.device: str | None = None
        self.details: dict[str, int] = {}
        self._meter = Meter()

    def done(self, peak_bytes: int) -> StageMetrics:
        """The counts so far."""
        return StageMetrics(
            self._name,
            self.records,
            self.bytes,
            self.shuffled,
            self.written,
            self.parts,
            self.reused,
            time.monotonic() - self._started,
            self.rejects,
            self.cached,
            peak_bytes,
            self.device,
            self._meter.energy(),
            self.details,
        )

    @contextmanager
    def watch(self, folder: Path, todo: int) -> Iterator[None]:
        """Counts the sidecars that appear in a job's folder while its Beam job runs."""
        if not todo or not self._console.is_terminal:
            yield
            return
        seen = {path.name for path in folder.glob("part-*.json")}
        stop = threading.Event()
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} parts"),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(self._name, total=todo, rates="")
            started = time.monotonic()
            records = size = 0

            def update() -> None:
                nonlocal records, size
                for path in folder.glob("part-*.json"):
                    if path.name in seen:
                        continue
                    seen.add(path.name)
                    parts = json.loads(path.read_bytes())["parts"].values()
                    records += max((part["rows"] for part in parts), default=0)
                    size += sum(part["bytes"] for part in parts)
                    seconds = time.monotonic() - started
                    speed = f"{size / 1e6 / seconds:,.1f} MB/s"
                    rates = f"{records / seconds:,.0f} records/s {speed}"
                    bar.update(task, advance=1, rates=rates)

            def follow() -> None:
                while not stop.wait(_POLL_SECONDS):
                    update()

            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
                update()
