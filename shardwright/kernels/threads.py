"""Work cut into tasks of one thread each, instead of operations cut into threads.

torch runs each operation on all threads and waits for the last of them. For operations of a
fraction of a millisecond that waiting costs as much as the work, and many times as much where
another process wants the cores. Here every thread takes tasks of its own, and the operations in
them take one thread.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_LOCK = Lock()
_running = 0
_threads = 1
"""Calls inside ``in_threads`` now, and torch's threads before the first of them."""


def in_threads(function: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
    """Calls a function for each task, on as many threads as torch has; results keep their order.

    torch's number of threads, which belongs partly to the process and partly to each thread, is
    one while this runs. Results must not depend on it.
    """
    global _running, _threads
    with _LOCK:
        if not _running:
            _threads = torch.get_num_threads()
        _running += 1
        threads = _threads
        torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, tasks))
    finally:
        with _LOCK:
            _running -= 1
            torch.set_num_threads(threads)
