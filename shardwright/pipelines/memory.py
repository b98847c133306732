"""Memory that a run's processes on this machine hold, and how many workers fit below a limit.

Only memory of their own is counted: pages of mapped files go when the machine needs them.
"""

import threading
from types import TracebackType
from typing import Final

import psutil

SAMPLE_SECONDS: Final = 0.2
_THREAD: Final = 400_000_000
_PROCESS: Final = 900_000_000
"""What a worker takes at most: measured over all stages of the recipes of this repository."""


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


class Peak:
    """The most that was held while it is entered, looked up every so often."""

    def __init__(self) -> None:
        self.bytes = held()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, held())

    def _follow(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, held())
