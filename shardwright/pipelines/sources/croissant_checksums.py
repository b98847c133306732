"""Whether files are those that a Croissant describes: their bytes against the hash it gives."""

import hashlib
import os
import re
import threading
from collections.abc import Sequence

from shardwright.pipelines.sources.storage import (
    IsNoFileError,
    explain,
    is_remote,
    open_file,
)
from shardwright.pipelines.sources.types import Refusal, Unit

_BLOCK = 1 << 20
_STATED = re.compile(r" ((?:sha256|md5):\S*?)(?::\d+)?$")

# A file of many row groups is read by many parts: its hash is made once in a process.
_made: dict[tuple[str, ...], str] = {}
_locks: dict[tuple[str, ...], threading.Lock] = {}
_guard = threading.Lock()


def with_checksum(state: str, checksum: str | None) -> str:
    """The state of a unit with what its bytes must hash to."""
    return state if checksum is None else f"{state} {checksum}"


def checksum_of(unit: Unit) -> str | None:
    """What the file of a unit must hash to; a row group's state has its number behind it."""
    stated = _STATED.search(unit.state)
    return None if stated is None else stated.group(1)


def wrong_bytes(data: bytes, path: str, checksum: str) -> Refusal | None:
    """A refusal of bytes that are not those of the checksum."""
    algorithm = checksum.partition(":")[0]
    return _compared(path, checksum, hashlib.new(algorithm, data).hexdigest())


def wrong_file(units: Sequence[Unit], path: str) -> Refusal | None:
    """A refusal of a file whose bytes are not those that its units name.

    Reads the file whole, once in a process for as long as it does not change.
    """
    unit = units[0]
    checksum = checksum_of(unit)
    if checksum is None:
        return None
    algorithm = checksum.partition(":")[0]
    try:
        return _compared(path, checksum, _digest(unit, algorithm))
    except IsNoFileError as error:
        return Refusal(path, "not_regular_file", str(error))
    except OSError as error:
        return Refusal(path, "unreadable", explain(error))


def _digest(unit: Unit, algorithm: str) -> str:
    key = (algorithm, unit.location, _version(unit))
    with _guard:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        if key not in _made:
            with open_file(unit.location) as file:
                hashed = hashlib.new(algorithm)
                while block := file.read(_BLOCK):
                    hashed.update(block)
                _made[key] = hashed.hexdigest()
        return _made[key]


def _version(unit: Unit) -> str:
    """What changes when the file does."""
    if is_remote(unit.location):
        stated = _STATED.search(unit.state)
        return unit.state if stated is None else unit.state[: stated.end(1)]
    status = os.stat(unit.location, follow_symlinks=False)
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _compared(path: str, checksum: str, found: str) -> Refusal | None:
    algorithm, _, stated = checksum.partition(":")
    if stated == found:
        return None
    message = f"its {algorithm} is {found}, the document says {stated[:100]}"
    return Refusal(path, "wrong_hash", message)
