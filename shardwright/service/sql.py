"""Queries of strangers, each in a process that may be killed.

DuckDB bounds its own memory and opens nothing but the tables (``metadata.query``). What could still
go on for ever, or take memory past DuckDB's account, ends with the process: after a time that the
parent watches, and at a bound on its memory that the kernel keeps.
"""

import json
import os
import queue
import resource
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shardwright.errors import DataError, UserError
from shardwright.service.settings import Limits

_WORKERS = 2
_BYTES = 20_000_000
"""Of a result."""
_LENGTH = struct.Struct("<Q")
_OURS = 400_000_000
"""Memory of the interpreter and its libraries."""


@dataclass(frozen=True)
class Result:
    """What a query gave.

    Attributes:
        columns: Names.
        types: DuckDB's results as Arrow types, in words.
        rows: Values as JSON knows them.
        whole: Whether these are all rows.
    """

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    whole: bool


class QueryPool:
    """Two processes that answer queries, started when they are needed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(_WORKERS):
            self._idle.put(None)

    def answer(self, folder: Path, sql: str) -> Result:
        """Answers one query; waits for its turn first.

        Raises:
            UserError: The query is wrong, would do more than read, or takes too much.
            DataError: A file of the tables is missing or damaged.
        """
        with self._worker() as worker:
            said = worker.ask({"folder": str(folder), "sql": sql}, self._limits.sql_seconds)
        if "wrong" in said:
            raise UserError(said["wrong"])
        if "damaged" in said:
            raise DataError(said["damaged"])
        return Result(**said)

    @contextmanager
    def _worker(self) -> Iterator["_Worker"]:
        try:
            idle = self._idle.get(timeout=2 * self._limits.sql_seconds)
        except queue.Empty:
            raise UserError("query: too many queries are running; try again") from None
        worker = idle
        try:
            if worker is None or worker.ended:
                worker = _Worker(self._limits)
            yield worker
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """Ends the processes."""
        while not self._idle.empty():
            worker = self._idle.get()
            if worker is not None:
                worker.end()


class _Worker:
    """A process that answers one query after the other."""

    def __init__(self, limits: Limits) -> None:
        settings = {"rows": limits.sql_rows, "memory": limits.sql_bytes}
        command = [sys.executable, "-m", "shardwright.service.sql", json.dumps(settings)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._limits = limits
        self._read(60.0)  # it says that it is there once it has loaded its libraries

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Sends a question and waits so long for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            return self._read(seconds)
        except TimeoutError:
            self.end()
            raise UserError(f"query: took longer than {seconds:g} s") from None
        except (EOFError, BrokenPipeError):
            self.end()
            most = f"{self._limits.sql_bytes / 1e6:,.0f} MB"
            raise UserError(f"query: takes more memory than there is for one ({most})") from None

    def _read(self, seconds: float) -> dict[str, Any]:
        ends = time.monotonic() + seconds
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, ends))
        said: dict[str, Any] = json.loads(self._exactly(length, ends))
        return said

    def _exactly(self, count: int, ends: float) -> bytes:
        assert self._process.stdout is not None
        data = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while len(data) < count:
                if not selector.select(max(0.0, ends - time.monotonic())):
                    raise TimeoutError
                piece = os.read(self._process.stdout.fileno(), count - len(data))
                if not piece:
                    raise EOFError
                data += piece
        return bytes(data)

    def end(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()


def _answers(folder: str, sql: str, rows: int, memory: int) -> dict[str, Any]:
    from shardwright.metadata.layout import opened
    from shardwright.metadata.query import plain, query

    try:
        table = query(opened(Path(folder)), sql, f"{memory}B", rows=rows + 1, size=_BYTES)
    except UserError as error:
        return {"wrong": str(error)}
    except DataError as error:
        return {"damaged": str(error)}
    values = [column.to_pylist(maps_as_pydicts="lossy") for column in table.columns]
    found = [[plain(value) for value in row] for row in zip(*values, strict=True)]
    return {
        "columns": table.column_names,
        "types": [str(kind) for kind in table.schema.types],
        "rows": found[:rows],
        "whole": len(found) <= rows and table.nbytes < _BYTES,
    }


def _serve(questions: BinaryIO, answers: BinaryIO, settings: dict[str, Any]) -> None:
    import shardwright.metadata.query  # noqa: F401 - loaded before memory is bounded

    most = 2 * settings["memory"] + _OURS
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    def say(said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        answers.write(_LENGTH.pack(len(data)) + data)
        answers.flush()

    say({"ready": True})
    for line in questions:
        say(_answers(**json.loads(line), **settings))


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer, json.loads(sys.argv[1]))
