"""A campaign of mutated inputs: ``PYTHONPATH=tests python -m fuzz.campaign --inputs 10000``.

Inputs have numbers, and a number is the same input whenever the seeds are the same. They are read
in child processes by batches, with a limit on memory and on processor time, so that whatever dies,
hangs or eats all memory is seen, named and saved, and the others are read all the same. What has
been read stands in a ledger; the same command goes on where an earlier one ended.
"""

import argparse
import collections
import errno
import faulthandler
import functools
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzz import seeds
from fuzz.kinds import KINDS, LIMITS, Files, Told, inputs, read_input, warm_up

from shardwright import plugins
from shardwright.quality.sandbox import ImageDecoder

_BATCH = 200
_PROCESSOR_SECONDS = 30  # of one input; beyond it is a hang
_CLOCK_SECONDS = 900.0  # without a sign; for what waits and uses no processor
_MEMORY_BYTES = 2 << 30  # address space beyond what an idle child has

Reader = Callable[[str, Path, Files, ImageDecoder], Told]


@dataclass
class Batch:
    """What became of a range of inputs of one kind.

    Attributes:
        kind: Of source.
        first: Number of the first input.
        count: How many.
        outcomes: Inputs by outcome.
        reasons: Rejects by reason.
        findings: What is wrong, each with number, what and where.
        processor: Seconds, those of processes that decode pictures and of starting them included.
        slowest: Processor seconds of the slowest input, and its number.
        commit: Of the code.
    """

    kind: str
    first: int
    count: int
    outcomes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    processor: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)
    commit: str = ""


def run_batch(
    kind: str, seed: int, numbers: range, findings: Path, read: Reader | None = None
) -> Batch:
    """Reads a range of inputs in child processes; one that dies is followed by another.

    Args:
        kind: Of source.
        seed: Of the campaign.
        numbers: Of the inputs.
        findings: Where inputs that something is wrong with are saved.
        read: What reads an input, for tests of this module.
    """
    batch = Batch(kind, numbers.start, len(numbers))
    rest = numbers
    while rest:
        at, end = _run_child(kind, seed, rest, batch, read or _read)
        if at is not None:  # it ended in the middle of this one
            _count(batch.outcomes, end)
            batch.findings.append({"number": at, "what": end})
        rest = range(numbers.stop if at is None else at + 1, numbers.stop)
    wrong = {finding["number"] for finding in batch.findings}
    for number, files in inputs(kind, seed, numbers) if wrong else ():
        if number in wrong:
            _save(findings / f"{kind}-{number}", files)
    return batch


def _read(kind: str, folder: Path, files: Files, decoder: ImageDecoder) -> Told:
    return read_input(KINDS[kind], folder, files, decoder)


def _run_child(
    kind: str, seed: int, numbers: range, batch: Batch, read: Reader
) -> tuple[int | None, str]:
    """Runs a child to its end; returns the input that it ended in, and how."""
    receiver, sender = os.pipe()
    with tempfile.TemporaryFile() as trace:
        child = os.fork()
        if not child:
            os.close(receiver)
            try:
                _serve(kind, seed, numbers, os.fdopen(sender, "w", buffering=1), trace, read)
            finally:
                os._exit(70)  # only what has gone wrong in here itself gets to this
        os.close(sender)
        current: int | None = None
        ended = ""
        for line in _lines(receiver):
            if line is None:
                ended = f"no sign within {_CLOCK_SECONDS:g} seconds"
                os.kill(child, signal.SIGKILL)
                break
            said = json.loads(line)
            if "start" in said:
                current = said["start"]
                continue
            _note(batch, said)
            current = None
        os.close(receiver)
        _, status, used = os.wait4(child, 0)
        batch.processor = round(batch.processor + used.ru_utime + used.ru_stime, 3)
        if current is None and status:
            raise RuntimeError(f"the child of {kind} {numbers} ended between inputs: {status}")
        if not ended:
            ended = _death(status)
            trace.seek(0)
            ended += _last_place(trace.read().decode("utf-8", "replace"))
    return current, ended


def _lines(descriptor: int) -> Iterator[str | None]:
    """Lines as they come, and None where none has come in time."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], _CLOCK_SECONDS)[0]:
            yield None
            return
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in whole)


def _note(batch: Batch, said: dict[str, Any]) -> None:
    _count(batch.outcomes, said["outcome"])
    for reason, count in said["reasons"].items():
        _count(batch.reasons, reason, count)
    batch.slowest = max(batch.slowest, (said["processor"], said["number"]))
    if "where" in said:
        where = {"number": said["number"], "what": said["outcome"], "where": said["where"]}
        batch.findings.append(where)


def _count(counts: dict[str, int], key: str, more: int = 1) -> None:
    counts[key] = counts.get(key, 0) + more


def _death(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"died: status {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    if number == signal.SIGPROF:
        return f"hung: more than {_PROCESSOR_SECONDS} seconds of the processor"
    return f"died of {signal.Signals(number).name}"


def _last_place(trace: str) -> str:
    """The innermost line of Python in what faulthandler wrote."""
    return next((f" at {line.strip()}" for line in trace.splitlines() if "File" in line), "")


def _serve(
    kind: str, seed: int, numbers: range, out: Any, trace: Any, read: Reader
) -> None:  # pragma: no cover - in a child
    """The child: reads inputs and says what became of each."""
    faulthandler.enable(trace)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES, most))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
    warnings.simplefilter("ignore")
    without_network()
    plugins.entry_points = functools.cache(plugins.entry_points)  # nobody installs anything now
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as folder,
        ImageDecoder(LIMITS.max_pixels, LIMITS.decode_seconds) as decoder,
    ):
        for number, files in inputs(kind, seed, numbers):
            out.write(json.dumps({"start": number}) + "\n")
            signal.setitimer(signal.ITIMER_PROF, _PROCESSOR_SECONDS)
            started = time.process_time()
            said: dict[str, Any] = {"number": number, "reasons": {}}
            try:
                told = read(kind, Path(folder) / "input", files, decoder)
                said |= {"outcome": told.outcome, "reasons": told.reasons}
            except Exception as error:
                said |= {"outcome": type(error).__name__, "where": _where(error)}
            signal.setitimer(signal.ITIMER_PROF, 0)
            said["processor"] = round(time.process_time() - started, 3)
            out.write(json.dumps(said) + "\n")
    os._exit(0)


def _where(error: Exception) -> str:
    own = [f for f in traceback.extract_tb(error.__traceback__) if "/shardwright/" in f.filename]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}: " if own else ""
    return f"{place}{error}"[:300]


def without_network() -> None:
    """No mutated address leaves the machine."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENETUNREACH, "the campaign has no network")

    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, refused)
    socket.getaddrinfo = refused  # type: ignore[assignment]


def _save(folder: Path, files: Files) -> None:
    for place, (name, data) in enumerate(sorted(files.items())):
        folder.mkdir(parents=True, exist_ok=True)
        shown = "".join(c if c.isalnum() or c in "._-" else "_" for c in name.replace("/", "-"))
        (folder / f"{place}-{shown[-60:]}").write_bytes(data)


def run(kinds: Sequence[str], seed: int, count: int, folder: Path, workers: int) -> list[Batch]:
    """Reads what of a campaign has not been read yet; returns all of it.

    Args:
        kinds: Of sources.
        seed: Of the campaign.
        count: Inputs of each kind.
        folder: Of the ledgers.
        workers: How many batches at once.
    """
    folder = folder / f"seed-{seed}-{seeds.digest()}"
    folder.mkdir(parents=True, exist_ok=True)
    done = {(batch.kind, batch.first, batch.count) for batch in _ledger(folder)}
    batches = [
        (kind, range(first, min(first + _BATCH, count)))
        for first in range(0, count, _BATCH)
        for kind in kinds
    ]
    pending = [item for item in batches if (item[0], item[1].start, len(item[1])) not in done]
    commit = _commit()
    children = []
    for share in range(workers):
        child = os.fork()
        if not child:
            try:
                warm_up()
                for kind, numbers in pending[share::workers]:
                    batch = run_batch(kind, seed, numbers, folder / "findings")
                    batch.commit = commit
                    _append(folder / f"{kind}.jsonl", batch)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    if failed:
        raise RuntimeError("a worker of the campaign failed; its traceback stands above")
    wanted = {(kind, numbers.start, len(numbers)) for kind, numbers in batches}
    return [b for b in _ledger(folder) if (b.kind, b.first, b.count) in wanted]


def _append(path: Path, batch: Batch) -> None:
    line = b"\n" + json.dumps(asdict(batch)).encode() + b"\n"  # an unfinished one may stand before
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _ledger(folder: Path) -> list[Batch]:
    """The batches of all kinds; a line that a killed run left unfinished does not count."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                found.append(Batch(**json.loads(line)))
            except ValueError:
                continue
    return found


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, cwd=seeds.ROOT).stdout.strip()


def summary(batches: Sequence[Batch]) -> Iterator[str]:
    """What became of the inputs, kind by kind, and every finding."""
    for kind in dict.fromkeys(batch.kind for batch in batches):
        own = [batch for batch in batches if batch.kind == kind]
        outcomes: collections.Counter[str] = collections.Counter()
        for batch in own:
            outcomes.update(batch.outcomes)
        told = ", ".join(f"{name} {n:,}" for name, n in outcomes.most_common())
        slowest, number = max(batch.slowest for batch in own)
        yield (
            f"{kind}: {sum(batch.count for batch in own):,} inputs: {told}; "
            f"{sum(batch.processor for batch in own):,.0f} s of the processor, "
            f"at most {slowest:.1f} s (input {number})"
        )
    for batch in batches:
        for finding in batch.findings:
            yield f"FINDING {batch.kind} {finding}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=seeds.ROOT / ".cache" / "fuzz")
    given = parser.parse_args()
    started = time.monotonic()
    batches = run(given.kinds, given.seed, given.inputs, given.folder, given.workers)
    for line in summary(batches):
        print(line)
    found = sum(len(batch.findings) for batch in batches)
    print(
        f"{sum(batch.count for batch in batches):,} inputs, {found} findings; "
        f"{time.monotonic() - started:,.0f} s on the clock in this run"
    )
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
