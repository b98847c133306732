"""Faults that come from outside of a run: other processes, a disk that is full, a store's network.

Each is a function of the fault, the collection and a folder, in which it leaves ``out`` as a next
run finds it, or as the next run made it.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import draws
import psutil
import s3_server
import scenes
from apache_beam.utils import retry
from draws import Fault
from scenes import Collection, Ended

from shardwright.metadata.mirror import at_hand
from shardwright.pipelines import curate as curation

NOBODY: Final = 65534
_PATIENCE: Final = 900
_WORKERS: Final = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@dataclass(frozen=True)
class Struck:
    """What a fault from outside left.

    Attributes:
        ended: How the run ended that was struck.
        where: What was struck.
        wrong: What went otherwise than it should, one line each.
        again: How the next run ended, where it was run already.
        struck: Whether the fault struck at all.
        whole: Output of a run that nothing disturbed, where it is not the collection's.
    """

    ended: Ended
    where: str
    wrong: list[str] = field(default_factory=list)
    again: Ended | None = None
    struck: bool = True
    whole: Path | None = None


def disk(fault: Fault, collection: Collection, folder: Path) -> Struck:
    """A file system too small for the output; it is larger for the next run."""
    output = folder / "out"
    needed = sum(path.stat().st_size for path in collection.whole.rglob("*") if path.is_file())
    size = int(needed * random.Random(fault.seed).uniform(0.1, 1.3))
    with _mounted(folder / "disk", size) as small:
        ended = scenes.run(collection.command(small / "out"), folder)
        shutil.copytree(small / "out", output)
    where = f"a file system of {size // 1000} kB for {needed // 1000} kB"
    return Struck(ended, where, _one_line(ended, "No space left"), struck=ended.code != 0)


def rights(fault: Fault, collection: Collection, folder: Path) -> Struck:
    """As another user: an output that may not be written to, or an input that may only be read."""
    output = folder / "out"
    if os.getuid() != 0:
        raise AssertionError("only root can be another user")
    # Images are decoded in processes of their own, whose Python another user may not reach.
    if fault.nth % 2 and collection.recipe == "code":  # the input
        output.mkdir()
        _hand_over(folder)
        ended = _as_nobody(collection.command(output), folder)
        wrong = [] if ended.code == 0 else [f"input to be read only: {ended.code}: {ended.last}"]
        return Struck(ended, "an input that may only be read", wrong)
    shutil.copytree(collection.snapshot(fault.state, fault.stage), output)
    _hand_over(folder)
    for path in (output, *output.rglob("*")):
        os.chown(path, 0, 0)
    ended = _as_nobody(collection.command(output), folder)
    wrong = _one_line(ended, "Permission denied")
    wrong += [] if ended.code in (1, 2) else [f"output not to be written to: {ended.code}"]
    return Struck(ended, "an output that may not be written to", wrong)


def _hand_over(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    for path in folder.iterdir():
        os.chown(path, NOBODY, NOBODY)


def _as_nobody(command: list[str], folder: Path) -> Ended:
    def become() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.environ["HOME"] = str(folder)

    return scenes.run(command, folder, first=become)


def together(fault: Fault, collection: Collection, folder: Path) -> Struck:
    """A second run on the same output while the first is in the middle of a stage."""
    output = folder / "out"
    shutil.copytree(collection.snapshot(fault.state, fault.stage), output)
    if fault.state == "forced":
        (output / "croissant.json").unlink()
    commands = collection.command(output), collection.command(output, "--force")
    ended, wrong = _two(*commands, fault.stage, folder)
    return Struck(ended, f"two runs, one in {fault.stage}", wrong)


def _two(first: list[str], second: list[str], stage: str, folder: Path) -> tuple[Ended, list[str]]:
    """How a run ends that begins while another is in a stage, and what is wrong with the two."""
    mark, go = folder / "mark", folder / "go"

    def wait(name: str) -> None:
        if name == stage:
            mark.touch()
            _until(go.exists, "the second run")

    one = scenes.start(first, folder, wait)
    _until(mark.exists, "the first run")
    other = scenes.run(second, folder)
    go.touch()
    ended = one.wait()
    wrong = _one_line(other, "another run is writing here")
    wrong += [] if other.code == 2 else [f"the second run: exit {other.code}: {other.last}"]
    wrong += [] if ended.code == 0 else [f"the first run: exit {ended.code}: {ended.last}"]
    return other, wrong


def process(fault: Fault, collection: Collection, folder: Path) -> Struck:
    """SIGKILL from outside, for the driver or one of two worker processes."""
    chance = random.Random(fault.seed)
    output = folder / "out"
    shutil.copytree(collection.snapshot(fault.state, fault.stage), output)
    workers = fault.nth % 2 == 1 and fault.stage in curation._BEAM_STAGES
    command = collection.disturbed(output, fault.state, fault.stage)
    if workers:
        command = [*command[: command.index("--") + 1], "--runner=FnApiRunner", *_WORKERS]
    since, more = time.time_ns(), chance.randrange(1, 8)
    driver = scenes.start(command, folder, first=os.setsid)
    victim = driver.number
    if workers:
        victim = _until(lambda: _over(driver) or _worker(driver.number), "a worker")
    _until(lambda: _over(driver) or _made(output, since) >= more, "files")
    alive = not _over(driver) and psutil.pid_exists(victim)
    if alive:
        os.kill(victim, signal.SIGKILL)
    wrong = []
    try:
        _until(lambda: _over(driver), "the end")
    except AssertionError:
        wrong.append("a worker was killed, and the run never ended")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(driver.number, signal.SIGKILL)
    ended = driver.wait()
    # The other worker may be starting, and tells in Beam's way that nobody is there any more.
    if workers and ended.code and "a worker process ended" not in ended.last:
        wrong.append(f"exit {ended.code}, and the last line is: {ended.last}")
    where = f"SIGKILL for {'a worker' if workers else 'the driver'} after {more} files"
    return Struck(ended, where, wrong, struck=alive)


def _made(output: Path, since: int) -> int:
    """Files that were made since a moment, in nanoseconds of the epoch, and are there."""
    made = 0
    for path in output.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            made += path.is_file() and path.stat().st_mtime_ns >= since
    return made


def _over(driver: scenes.Started) -> bool:
    return psutil.Process(driver.number).status() == psutil.STATUS_ZOMBIE


def _worker(driver: int) -> int | None:
    """A worker process of a run."""
    try:
        for one in psutil.Process(driver).children(recursive=True):
            if any("sdk_worker" in word for word in one.cmdline()):
                return int(one.pid)
    except psutil.Error:
        pass
    return None


def store(fault: Fault, collection: Collection, folder: Path) -> Struck:
    """A real S3 server behind a network that fails: as output or as input, or two runs on one."""
    chance = random.Random(fault.seed)
    kind = ("output", "input", "cut off", "two runs", "input gone")[fault.nth % 5]
    output = folder / "out"
    with _store(folder / "store") as (address, plan), s3_server.credentials(address):
        if kind.startswith("input"):
            return _from_store(chance, kind == "input gone", collection, folder, plan)
        place = "s3://bucket/out"
        words = ["PUT", "GET", "DELETE"]
        if kind == "two runs":
            first, second = (_in_store(collection, place, folder / name) for name in "ab")
            ended, wrong = _two(first, second, fault.stage, folder)
            met = 1
        else:
            kinds = ("throttle", "refuse", "reset", "lost", "cut")
            if kind == "output":
                plan(0.1, [_fault(chance.choice(kinds), chance.choice(words), "", 3)])
            else:  # gone for good, in the middle of it
                folders = ("records", "embeddings", "clusters", "decisions", "shards", "curated")
                gone = "cut" if chance.random() < 0.3 else "reset"
                plan(0.0, [_fault(gone, "PUT", f"{chance.choice(folders)}/", 10_000)])
            ended = scenes.run(_in_store(collection, place, folder / "a"), folder)
            met, wrong = plan(0.0, []), []
        if kind == "cut off" and ended.code == 0:
            wrong.append("the store took nothing, and the run said that it was done")
        if ended.code != 0 and "Traceback" in ended.said:
            wrong.append(f"exit {ended.code} with a traceback: {ended.last}")
        shutil.rmtree(folder / "a", ignore_errors=True)  # the next run is on another machine
        again = scenes.run(_in_store(collection, place, folder / "b"), folder)
        with at_hand(place) as layout:
            shutil.copytree(layout.root, output)
        where = f"a store as output, {kind}" + (f": {met} requests met a fault" if met > 1 else "")
        return Struck(ended, where, wrong, again, struck=met > 0)


def _in_store(collection: Collection, place: str, work: Path) -> list[str]:
    return collection.command(place, "--work", str(work))


def _from_store(
    chance: random.Random,
    gone: bool,
    collection: Collection,
    folder: Path,
    plan: Callable[..., int],
) -> Struck:
    """The input lies in a store that loses connections, or one for good in the middle of a file."""
    paths = sorted(path for path in collection.source.rglob("*") if path.is_file())
    one = chance.choice(paths).relative_to(collection.source).as_posix()
    faults = [_fault("cut", "GET", one.replace("+", "."), 10_000 if gone else 3)]
    command = collection.command(folder / "out")
    command[command.index("--input") + 1] = "s3://bucket/source"
    plan(0.0, [], collection.source)
    undisturbed = folder / "undisturbed"
    plain = [str(undisturbed) if word == str(folder / "out") else word for word in command]
    alone = scenes.run(plain, folder)
    wrong = [f"undisturbed: exit {alone.code}: {alone.last}"] if alone.code else []
    plan(0.1, faults)
    ended = scenes.run(command, folder, first=_impatient)
    met = plan(0.0, [])
    if ended.code != 0:
        wrong += _one_line(ended, "run the same command again")
    again = scenes.run(command, folder)
    where = f"a store as input, {one} {'is cut off for good' if gone else 'cut off thrice'}"
    where = f"{where}: {met} requests met a fault"
    return Struck(ended, where, wrong, again, met > 0, undisturbed)


def _impatient() -> None:
    """Beam tries a store again for ten minutes, and waits for nearly all of them."""
    retry.Clock.sleep = lambda _, seconds: time.sleep(seconds / 1000)


def _fault(kind: str, method: str, path: str, times: int) -> dict[str, Any]:
    return asdict(s3_server.Fault(kind, method, path, times))


@contextmanager
def _store(folder: Path) -> Iterator[tuple[str, Callable[..., int]]]:
    """A server and its network.

    Yields:
        The address, and what sets the network's faults, which tells how many were met so far.
    """
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("store_server.py")), str(folder)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None

    def plan(share: float, faults: list[dict[str, Any]], upload: Path | str = "") -> int:
        order = {"share": share, "faults": faults, "upload": str(upload)}
        print(json.dumps(order), file=server.stdin, flush=True)
        return int(server.stdout.readline())  # type: ignore[union-attr]

    try:
        yield server.stdout.readline().strip(), plan
    finally:
        server.stdin.close()
        server.wait()


@contextmanager
def _mounted(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory of so many bytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _one_line(ended: Ended, says: str) -> list[str]:
    """What is wrong with how a run said why it ended."""
    if ended.code == 0 or ("Traceback" not in ended.said and says in ended.last):
        return []
    return [f"exit {ended.code}, and the last line is: {ended.last}"]


def _until(holds: Callable[[], Any], what: str) -> Any:
    """The first true value."""
    ends = time.monotonic() + _PATIENCE
    while not (found := holds()):
        if time.monotonic() > ends:
            raise AssertionError(f"{what}: not within {_PATIENCE} s")
        time.sleep(0.05)
    return found


FAMILIES: Final[dict[str, Callable[[Fault, Collection, Path], Struck]]] = {
    "disk": disk,
    "rights": rights,
    "together": together,
    "process": process,
    "store": store,
}
assert set(FAMILIES) == set(draws.OUTSIDE)
