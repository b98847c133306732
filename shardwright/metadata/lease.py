"""One writer of a folder in an object store, which has no locks: a numbered file that beats.

Whoever creates ``lease-<n+1>`` has the folder; a store that creates only what is not there gives it
to one. The holder rewrites its file again and again. One that has stood still for as long as a
lease is taken for dead, and the next number is taken. A holder that was only asleep finds that
number and stops. No clock is compared with another, and nothing else of the store is needed.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shardwright.errors import DataError, UserError
from shardwright.metadata.bucket import Bucket

_FOLDER = ".staging/lease"
_NAME = re.compile(r"lease-(\d{8})\.json")


@dataclass(frozen=True)
class Pace:
    """How a lease is kept and watched.

    Attributes:
        beat: Seconds from one rewriting to the next.
        dead: Seconds without a beat after which the holder is taken for dead, some beats long.
    """

    beat: float = 10.0
    dead: float = 60.0


class Lease:
    """The folder is ours, as far as is known."""

    def __init__(self, bucket: Bucket, number: int, pace: Pace) -> None:
        self._bucket, self._number, self._pace = bucket, number, pace
        self._owner = os.urandom(8).hex()
        self._beats = 0
        self._stopped = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def take(self) -> bool:
        """Tries to be the first with this number."""
        if not self._bucket.create(_path(self._number), self._text(held=True)):
            return False
        self._thread.start()
        return True

    def check(self) -> None:
        """Asks, before something is committed, whether the folder is still ours.

        Raises:
            DataError: Another run took it, or the store could not be asked.
        """
        if self._lost is None:
            self._look()
        if self._lost is not None:
            raise DataError(self._lost)

    def release(self) -> None:
        """Gives the folder back. The number stays, so that none is used twice."""
        self._stopped.set()
        self._thread.join()
        if self._lost is None:
            self._bucket.write(_path(self._number), self._text(held=False))

    def _look(self) -> None:
        latest = max(_numbers(self._bucket), default=0)
        if latest != self._number:
            self._lost = (
                f"{self._bucket.location}: another run took over, as this one had stood still for "
                f"{self._pace.dead:g} s or its lease was removed; what it committed stays: run the "
                "same command again when the other is done"
            )

    def _beat(self) -> None:
        while not self._stopped.wait(self._pace.beat) and self._lost is None:
            try:
                self._look()
                if self._lost is None:
                    self._beats += 1
                    self._bucket.write(_path(self._number), self._text(held=True))
            except DataError:
                continue  # the store is away; `check` raises it where it matters

    def _text(self, held: bool) -> bytes:
        state = {"owner": self._owner, "beats": self._beats, "held": held}
        return json.dumps(state).encode()


@contextmanager
def leased(
    bucket: Bucket, pace: Pace | None = None, note: Callable[[str], None] = lambda _: None
) -> Iterator[Lease]:
    """Holds a folder of a store for one run.

    Args:
        bucket: The folder.
        pace: How the lease is kept; the same for all runs.
        note: Told when a holder has to be watched, which takes as long as a lease.

    Raises:
        UserError: Another run holds it.
    """
    pace = pace or Pace()
    numbers = sorted(_numbers(bucket))
    latest = numbers[-1] if numbers else 0
    if latest and _held(bucket.read(_path(latest))):
        note(f"{bucket.location}: a run held this folder; watching for {pace.dead:g} s if it lives")
        if _alive(bucket, latest, pace):
            raise _taken(bucket)
    lease = Lease(bucket, latest + 1, pace)
    if not lease.take():
        raise _taken(bucket)
    try:
        bucket.delete(_path(number) for number in numbers)
        yield lease
    finally:
        lease.release()


def _alive(bucket: Bucket, number: int, pace: Pace) -> bool:
    """Whether a lease beats, or another takes its place, before it counts as dead."""
    first, ends = bucket.read(_path(number)), time.monotonic() + pace.dead
    while time.monotonic() < ends:
        time.sleep(min(pace.beat, max(0.0, ends - time.monotonic())))
        now = bucket.read(_path(number))
        if not _held(now):
            return max(_numbers(bucket), default=number) != number
        if now != first:
            return True
    return False


def _held(text: bytes | None) -> bool:
    return text is not None and bool(json.loads(text)["held"])


def _taken(bucket: Bucket) -> UserError:
    return UserError(
        f"{bucket.location}: another run is writing here; wait for it or choose another --output"
    )


def _numbers(bucket: Bucket) -> Iterator[int]:
    for path in bucket.files(_FOLDER):
        match = _NAME.fullmatch(path.rpartition("/")[2])
        if match:
            yield int(match[1])


def _path(number: int) -> str:
    return f"{_FOLDER}/lease-{number:08d}.json"
