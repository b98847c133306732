"""Runs an iterator ahead of its consumer, in a thread."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


class _End:
    """Stands behind the last item."""


def read_ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yields ``items`` in order while a thread makes the next ones.

    What the items cost is spent beside the consumer's own work where it releases the
    interpreter's lock: reading Parquet, tokenising, decoding pictures, a model's pass.

    Args:
        items: iterated in the thread, from start to end, and by nobody else.
        depth: most items that are made and not yet taken; one more can be in the making.

    Raises:
        Exception: whatever ``items`` raises, where its item would have come. A consumer that
            stops early (``close``, or an error of its own) stops the thread before it goes on.
    """
    made: queue.Queue[T | _End] = queue.Queue(depth)
    stopped = threading.Event()
    faults: list[BaseException] = []

    def hand_over(item: T | _End) -> bool:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not hand_over(item):
                    return
        except BaseException as error:  # raised again in the consumer's thread
            faults.append(error)
        hand_over(_End())

    thread = threading.Thread(target=run, name="read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _End):
            yield item
        if faults:
            raise faults[0]
    finally:
        stopped.set()
        thread.join()
