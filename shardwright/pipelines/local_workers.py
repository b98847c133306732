"""Worker processes of Beam's FnApiRunner: one that dies ends the run.

Beam itself prints a traceback in a thread and waits for the dead worker for ever.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from shardwright.errors import DataError

_STARTER = "run_worker"
"""Beam's name for the thread that waits for a worker process."""


@worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class MortalWorker(worker_handlers.SubprocessSdkWorkerHandler):
    """A worker process whose end fails what waits for it."""

    def start_worker(self) -> None:
        """Starts it, and a thread that waits for its end."""
        super().start_worker()
        threading.Thread(target=self._watch, name="watch_worker", daemon=True).start()

    def _watch(self) -> None:
        self.worker_thread.join()
        lost = DataError(
            "a worker process ended in the middle of its work (killed, or out of memory?); run the "
            "same command again: it goes on from here, and with fewer workers takes less memory"
        )
        push = self.control_conn.push

        def refuse(request: Any) -> Any:
            future = push(request)
            if future is not None:
                future.abort(lost)
            return future

        # At the orderly end of a job nothing waits any more, and nothing more is asked.
        self.control_conn.push = refuse  # type: ignore[method-assign, assignment]
        self.control_conn.abort(lost)


@contextmanager
def told_once() -> Iterator[None]:
    """Keeps threads and logs quiet about a worker that is gone; the error says it."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        named = args.thread is not None and args.thread.name == _STARTER
        if not named and not isinstance(args.exc_value, grpc.RpcError):
            before(args)

    logger = logging.getLogger("apache_beam.runners.worker.data_plane")
    threading.excepthook = hook
    logger.addFilter(_is_no_reading)
    try:
        yield
    finally:
        threading.excepthook = before
        logger.removeFilter(_is_no_reading)


def _is_no_reading(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Failed to read inputs")
