"""Memory that a run's processes on this machine hold, and how many workers fit below a limit.

Only memory of their own is counted: pages of mapped files go when the machine needs them.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psutil

SAMPLE_SECONDS: Final = 0.2
_THREAD: Final = 400_000_000
_PROCESS: Final = 900_000_000
"""What is reckoned for a worker. No bound: what a run held is measured, and told if it is more."""


def workers_below(limit: int, wanted: int, *, processes: bool) -> int:
    """How many workers fit beside what is held now: at least one.

    Args:
        limit: Bytes.
        wanted: Workers at most.
        processes: Whether each is a process of its own, with libraries of its own.
    """
    fit = (limit - held()) // (_PROCESS if processes else _THREAD)
    return max(1, min(wanted, fit))


def held() -> int:
    """Bytes of this process and all that it started, files that they map left out."""
    driver = psutil.Process()
    return sum(_own(process) for process in [driver, *driver.children(recursive=True)])


def _own(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.Error:  # it ended meanwhile
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))  # Linux tells them apart


@dataclass
class Peak:
    """The most that was held so far, in bytes."""

    bytes: int


@contextmanager
def watched() -> Iterator[Peak]:
    """Follows what is held while it is entered, looked up every so often."""
    peak = Peak(held())
    stop = threading.Event()

    def follow() -> None:
        pause = SAMPLE_SECONDS
        while not stop.wait(pause):
            started = time.thread_time()
            peak.bytes = max(peak.bytes, held())
            # Where many processes run, a look takes long: at most 2% of a core go to it.
            pause = max(SAMPLE_SECONDS, 50 * (time.thread_time() - started))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        peak.bytes = max(peak.bytes, held())
