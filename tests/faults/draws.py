"""Faults, each drawn from a seed: what strikes, where, when."""

import errno
import os
import random
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from scenes import Collection

INSIDE: Final = {"kill": 27, "power": 14, "io": 26, "bytes": 20, "clock": 2}
OUTSIDE: Final = {"disk": 2, "rights": 2, "together": 2, "process": 2, "store": 3}
"""Families of faults, in a process and from outside of it: how many of a hundred are of each."""
_DAY: Final = 86_400
_CHANGING: Final = ("create", "write", "rename", "sync", "mkdir", "unlink")
# Renames decide what is seen; a folder that is made is mostly there.
_WEIGHTS: Final = {"create": 2, "write": 3, "rename": 5, "sync": 1, "mkdir": 1, "unlink": 2}
_FULL: Final = ("create", "write", "mkdir", "truncate")
_CLOSED: Final = ("create", "mkdir", "rename", "unlink", "truncate")
# Error, what it strikes first, and what goes on failing.
_ERRORS: Final = (
    (errno.ENOSPC, ("create", "write", "mkdir"), _FULL),
    (errno.ENOSPC, ("write",), _FULL),
    (errno.EIO, ("write", "sync", "rename", "unlink"), ()),
    (errno.EIO, ("write", "sync"), ("write", "sync")),
    (errno.EMFILE, ("create",), ()),
    (errno.EACCES, ("create", "rename", "unlink", "mkdir"), ()),
    (errno.EROFS, ("create", "mkdir", "rename", "unlink"), _CLOSED),
)
_DAMAGES: Final = ("flip", "cut", "longer", "empty")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        number: The how-manieth of its seed.
        family: One of ``INSIDE`` or ``OUTSIDE``.
        collection: Name of what is curated.
        state: The output that it strikes, of ``scenes.STATES``.
        stage: The stage that it strikes.
        action: As of ``shim``; empty where nothing strikes the run.
        kind: Kind of operation.
        at: The how-manieth of its kind that the stage does.
        error: Of ``errno``, by name.
        later: Kinds that go on failing.
        damage: What is done to bytes of a file between the runs.
        shift: Seconds that the clock goes back: when the fault strikes, or, where it is negative,
            in the run after the one that is struck.
        seed: Of what else is drawn.
        nth: Faults of its family before it, for families from outside: kinds take turns.
    """

    number: int
    family: str
    collection: str
    state: str
    stage: str
    action: str = ""
    kind: str = ""
    at: int = 0
    error: str = ""
    later: tuple[str, ...] = ()
    damage: str = ""
    shift: int = 0
    seed: int = field(default=0, repr=False)
    nth: int = 0

    def __str__(self) -> str:
        strikes = f"{self.error or self.action} at {self.kind} {self.at}" if self.action else ""
        what = " ".join(one for one in (strikes, self.damage) if one)
        return f"{self.collection} {self.state} {self.stage}: {self.family}, {what}"


def draw(seed: int, number: int, collections: Sequence[Collection]) -> Fault:
    """The fault of a seed and number."""
    chance = random.Random(f"{seed}/{number}")
    family = _family(seed, number)
    among = collections[:2] if family in OUTSIDE else collections
    collection = chance.choices(among, (5, 3, 2)[: len(among)])[0]
    state = chance.choice(collection.states)
    # Stages that have nothing to do only write down their metrics, as all do: they are left out.
    stages = {name: steps for name, steps in collection.steps[state].items() if len(steps) > 5}
    stage = chance.choices(sorted(stages), [len(stages[name]) ** 0.5 for name in sorted(stages)])[0]
    steps = stages[stage]
    own = chance.getrandbits(32)
    if family in OUTSIDE:
        nth = [_family(seed, before) for before in range(number)].count(family)
        return Fault(number, family, collection.name, state, stage, nth=nth, seed=own)
    if family == "bytes" and chance.random() < 0.4:  # of an output that is whole
        return Fault(
            number, family, collection.name, "forced", "", damage=chance.choice(_DAMAGES), seed=own
        )
    error, kinds, later = "", _CHANGING, ()
    action = chance.choice(("kill before", "kill after", "tear"))
    if family == "power":
        action = "kill before"
    elif family == "clock":
        action = "clock"
    elif family == "io" and chance.random() < 0.12:
        action, kinds = "short", ("write",)
    elif family == "io":
        number_of, kinds, later = chance.choice(_ERRORS)
        action, error = "fail", errno.errorcode[number_of]
    if action == "tear":
        kinds = ("write",)
    present = sorted({step.kind for step in steps} & set(kinds))
    kind = (
        chance.choices(present, [_WEIGHTS[one] for one in present])[0] if present else steps[0].kind
    )
    candidates = [step for step in steps if step.kind == kind]
    commits = [step for step in candidates if _commits(step.path, step.other)]
    chosen = chance.choice(commits if commits and chance.random() < 0.4 else candidates)
    damage = chance.choice(_DAMAGES) if family == "bytes" else ""
    finished = [step for step in steps if _finishes(step.path, step.other)]
    if family == "bytes" and finished and chance.random() < 0.6:
        action, kind, chosen = "kill after", "rename", chance.choice(finished)
    shift = 0
    if family == "clock":
        shift = _DAY
    elif family == "kill" and chance.random() < 0.2:
        shift = -_DAY  # a clock that is a day ahead, and right in the next run
    return Fault(
        number, family, collection.name, state, stage,
        action, kind, chosen.number, error, later, damage, shift, own,
    )  # fmt: skip


def _family(seed: int, number: int) -> str:
    return _families(seed)[number % 100]


@cache
def _families(seed: int) -> list[str]:
    """Families of a hundred faults in a seeded order; the first of each come before all others."""
    deck = [name for name, count in (INSIDE | OUTSIDE).items() for _ in range(count - 1)]
    random.Random(seed).shuffle(deck)
    return [*INSIDE, *OUTSIDE, *deck]


def possible(family: str) -> bool:
    """Whether faults of a family can be made here: only root mounts disks and is another user."""
    if family == "disk":
        return os.getuid() == 0 and _mounts()
    return family != "rights" or os.getuid() == 0


@cache
def _mounts() -> bool:
    """Whether a file system can be mounted; in a container root may not."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def _commits(path: Path, other: Path | None) -> bool:
    """Whether a step makes something visible, or takes it away."""
    name = (other or path).name
    return name in ("_manifest.json", "croissant.json") or (
        "tables" in path.parts and ".staging" not in path.parts
    )


def _finishes(path: Path, other: Path | None) -> bool:
    """Whether a step commits a staged part, which the next run takes as it is."""
    named = other is not None and other.name.startswith("part-") and other.suffix == ".json"
    return named and ".staging" in path.parts


def damage_one(fault: Fault, output: Path) -> Path:
    """Does a fault's damage to a file of an output, drawn among kinds of files first.

    After a run that was cut off, two of three files are of those that it had staged, if there are
    any, and of these half are parts.
    """
    chance = random.Random(fault.seed)
    files = sorted(
        path
        for path in output.rglob("*")
        if path.is_file() and path.name != "lock" and path.stat().st_size
    )
    kinds: dict[str, list[Path]] = {}
    for path in files:
        kinds.setdefault(_kind(path.relative_to(output)), []).append(path)
    staged = [name for name in kinds if name.startswith(".staging")]
    among = staged if fault.action and staged and chance.random() < 0.67 else kinds
    kind = chance.choice(sorted(among))
    if among is staged and ".staging .parquet" in staged and chance.random() < 0.5:
        kind = ".staging .parquet"
    path = chance.choice(kinds[kind])
    data = bytearray(path.read_bytes())
    if fault.damage == "flip":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif fault.damage == "cut":
        del data[chance.randrange(len(data)) :]
    elif fault.damage == "longer":
        data += chance.randbytes(chance.randrange(1, 100))
    else:
        data.clear()
    path.write_bytes(data)
    return path


def lose(fault: Fault, files: Sequence[Path]) -> None:
    """What a power cut does to bytes that were not synced: gone, cut off, or zeros."""
    chance = random.Random(fault.seed)
    for path in files:
        size = path.stat().st_size
        kept = chance.choice((0, 0, size // 2, size))
        os.truncate(path, kept)
        if kept and chance.random() < 0.5:
            os.truncate(path, size)


def _kind(path: Path) -> str:
    """Kind of a file of an output: where it lies, and what it is."""
    top = path.parts[0]
    if top in (".staging", "tables"):
        name = "manifest" if path.name.startswith("_manifest") else path.suffix
        return f"{top} {name}"
    return top
