"""The shim's face: built where the campaign runs, loaded before Python, armed in a forked child."""

import ctypes
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KINDS: Final = (
    *("create", "write", "rename", "sync", "mkdir", "unlink", "truncate", "link"),
    *("look", "read"),
)
ACTIONS: Final = ("count", "kill before", "kill after", "tear", "fail", "short", "clock")


@dataclass(frozen=True)
class Operation:
    """Something that a process did to a file.

    Attributes:
        kind: One of ``KINDS``.
        number: The how-manieth of its kind.
        path: The file.
        other: Its new name, of a rename or a link.
        hit: Whether the fault struck here.
    """

    kind: str
    number: int
    path: Path
    other: Path | None
    hit: bool


def build(folder: Path) -> Path:
    """Compiles the shim with the C compiler that is there, or PyPI's ziglang."""
    folder.mkdir(parents=True, exist_ok=True)
    named = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    compiler = (named,) if named else (sys.executable, "-m", "ziglang", "cc")
    source, library = Path(__file__).with_suffix(".c"), folder / "shim.so"
    flags = ("-O2", "-fPIC", "-shared", "-o", str(library), str(source), "-ldl")
    subprocess.run([*compiler, *flags], check=True)
    return library


def preloaded(library: Path) -> None:
    """Starts this program again with the shim before all else, unless it is."""
    if os.environ.get("LD_PRELOAD") != str(library):
        command = [sys.executable, *sys.orig_argv[1:]]
        # OpenMP's threads wait for each other by turning: a tenth of the time without them.
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        settings = {"LD_PRELOAD": str(library), "HF_HUB_OFFLINE": "1"} | one_thread
        os.execve(sys.executable, command, os.environ | settings)


def arm(
    below: Path,
    log: Path,
    kind: str = "write",
    at: int = 0,
    action: str = "count",
    *,
    error: int = 0,
    later: tuple[str, ...] = (),
    shift: int = 0,
) -> None:
    """From here on this process, and what it forks, counts and meets the fault.

    Args:
        below: Folder of the files that count.
        log: Where each operation goes that changes something, a line each.
        kind: Kind of operation that the fault strikes.
        at: The how-manieth of that kind.
        action: One of ``ACTIONS``.
        error: What fails, of ``errno``.
        later: Kinds that go on failing after the first.
        shift: Seconds by which the clock is behind: from the fault on where that is ``clock``, and
            at once elsewhere.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    mask = sum(1 << KINDS.index(name) for name in later)
    numbers = (KINDS.index(kind), ctypes.c_long(at), ACTIONS.index(action), error, mask)
    _library().faults_arm(os.fsencode(below), *numbers, ctypes.c_long(shift), handle)


def disarm() -> None:
    """Passes everything on again."""
    _library().faults_disarm()


def counts() -> dict[str, int]:
    """Operations of each kind so far."""
    return {kind: _library().faults_count(number) for number, kind in enumerate(KINDS)}


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ["LD_PRELOAD"])


def operations(log: Path) -> list[Operation]:
    """What a log tells, in order."""
    found = []
    for line in log.read_text(errors="surrogateescape").splitlines():
        kind, number, path, other, hit = line.split("\t")
        place = Path(other) if other else None
        found.append(Operation(kind, int(number), Path(path), place, hit == "1"))
    return found


def unsynced(done: list[Operation]) -> list[Path]:
    """Files of which a power cut may lose what was written.

    The names that files have are taken to be as they were last, as ext4 and xfs keep the order of
    such changes; the bytes of a file are there for certain once it was synced.
    """
    dirty: set[Path] = set()
    for step in done:
        if step.kind in ("create", "write", "truncate"):
            dirty.add(step.path)
        elif step.kind == "sync" or step.kind == "unlink":
            dirty.discard(step.path)
        elif step.kind == "rename" and step.other is not None:
            moved = {path for path in dirty if path == step.path or step.path in path.parents}
            dirty -= moved | {step.other}
            dirty |= {step.other / path.relative_to(step.path) for path in moved}
    return sorted(path for path in dirty if path.is_file())
