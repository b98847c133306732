"""A store that is far away: files of a folder over HTTP, after a delay and through a thin line.

    python benchmarks/throttled.py FOLDER [--latency 0.1] [--rate 50e6]

Every request waits ``latency`` seconds before its answer begins, and all answers together pass at
``rate`` bytes a second. Serves ``GET`` and ``HEAD``, whole and by range, with what clients of S3
want to see, so that ``http://HOST:PORT`` is also an endpoint that reads ``s3://BUCKET/KEY`` from
``FOLDER/BUCKET/KEY`` (path style; there is no listing, and credentials are not checked).
"""

import argparse
import email.utils
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_BLOCK = 64 * 1024


class Line:
    """The bandwidth that all connections share.

    Bytes are sent in the order in which they asked to be, each block when those before it would
    be through.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0
        self._lock = threading.Lock()

    def pass_through(self, count: int) -> None:
        """Waits until ``count`` bytes are through."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / self._rate
            through = self._free
        time.sleep(max(0.0, through - time.monotonic()))


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    folder: Path
    latency: float
    line: Line

    def do_GET(self) -> None:
        """Answers with a file or a range of it."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answers with what a file is like."""
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _answer(self, body: bool) -> None:
        time.sleep(self.latency)
        path = self.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if not path.resolve().is_relative_to(self.folder) or not path.is_file():
            self._refuse(HTTPStatus.NOT_FOUND, "NoSuchKey", body)
            return
        size = path.stat().st_size
        first, last, partial = 0, size - 1, False
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked and asked[0] != "bytes=-":
            partial = True
            if asked[1]:
                first, last = int(asked[1]), min(int(asked[2] or last), last)
            else:
                first = max(0, size - int(asked[2]))
            if first > last:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange", body)
                return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}-{size:x}"')
        self.send_header("Last-Modified", email.utils.formatdate(path.stat().st_mtime, usegmt=True))
        self.end_headers()
        if body:
            self._send(path, first, last + 1 - first)

    def _send(self, path: Path, first: int, count: int) -> None:
        with path.open("rb") as file, suppress(ConnectionError):
            file.seek(first)
            while count and (block := file.read(min(_BLOCK, count))):
                self.line.pass_through(len(block))
                self.wfile.write(block)
                count -= len(block)

    def _refuse(self, status: HTTPStatus, code: str, body: bool) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if body:
            self.wfile.write(text)


@contextmanager
def throttled(folder: Path, latency: float = 0.1, rate: float = 50e6) -> Iterator[str]:
    """Serves a folder from a process of its own, so that it takes no time from a reader's.

    Args:
        folder: What to serve.
        latency: Seconds before each answer.
        rate: Bytes a second of all answers.

    Yields:
        The address, ``http://127.0.0.1:PORT``.
    """
    command = [sys.executable, __file__, str(folder)]
    command += ["--latency", str(latency), "--rate", str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def main() -> None:
    """Serves until it is ended; prints the address first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds before each answer")
    parser.add_argument("--rate", type=float, default=50e6, help="bytes a second of all answers")
    arguments = parser.parse_args()
    settings = {
        "folder": arguments.folder.resolve(),
        "latency": arguments.latency,
        "line": Line(arguments.rate),
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Throttled", (Handler,), settings))
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
