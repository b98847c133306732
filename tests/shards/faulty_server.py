"""A real HTTP server in a thread, that does what it is told to a file's next answers."""

import contextlib
import hashlib
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

from shardwright.metadata.filelist import ListedFile


class FaultyServer(ThreadingHTTPServer):
    """Serves ``files``; ``faults[path]`` are used up by requests for it, one each.

    A fault is a status, or one of: ``wrong`` (a byte differs), ``long`` (a byte more), ``short`` (a
    byte less, and that is said), ``cut`` (half, less than was said), ``reset`` (half, and the
    connection is reset), ``stall`` (half, and the rest when ``go_on`` is set).
    """

    daemon_threads = True
    # The default of 5 makes a burst of connections wait for a second.
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[int | str]] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        self.busy = self.most_busy = 0
        self.go_on = threading.Event()
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/shards"

    def add(self, path: str, size: int) -> ListedFile:
        """Puts a file of random bytes there."""
        data = self.files[path] = Random(path).randbytes(size)
        return ListedFile(path, size, hashlib.sha256(data).hexdigest(), 10, "mds")

    def handle_error(self, *_: object) -> None:
        """Clients that go away are part of it."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        path = self.path.removeprefix("/shards/")
        with server.guard:
            server.asked[path] += 1
            server.busy += 1
            server.most_busy = max(server.busy, server.most_busy)
            fault = server.faults[path].pop(0) if server.faults[path] else None
        try:
            self._answer(server.files.get(path), fault)
        finally:
            with server.guard:
                server.busy -= 1

    def _answer(self, data: bytes | None, fault: int | str | None) -> None:
        if isinstance(fault, int) or data is None:
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        half = len(data) // 2
        if fault == "wrong":
            data = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        elif fault == "long":
            data += b"x"
        elif fault == "short":
            data = data[:-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault not in ("cut", "reset", "stall"):
            self.wfile.write(data)
            return
        self.wfile.write(data[:half])
        self.wfile.flush()
        if fault == "stall":
            self.server.go_on.wait(30)
            self.wfile.write(data[half:])
            return
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True


@contextlib.contextmanager
def faulty_server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
