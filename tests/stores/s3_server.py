"""A real S3 server on loopback, and a proxy before it that fails as planned.

The server is Versity's gateway over a folder where its program is at hand (``make test-stores``
builds it), and moto's server elsewhere. Credentials reach the code as they reach a user's: by the
environment.
"""

import http.client
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import boto3
import pytest

GATEWAY = Path(__file__).parents[2] / ".cache" / "bin" / "versitygw"
KEY, SECRET = "AKIDPLANTEDKEY000000", "planted+secret/for+tests"


def gateway(program: Path, address: str, folder: Path) -> list[str]:
    """Command line of the gateway over a folder; docker-compose.yml has the same."""
    return [str(program), "--port", address, "--health", "/health", "posix", str(folder)]


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Runs a server that has one bucket, ``bucket``; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if GATEWAY.exists():
        (folder / "bucket").mkdir(parents=True)
        command = gateway(GATEWAY, f"127.0.0.1:{port}", folder)
    else:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process)
        if GATEWAY.exists():
            urllib.request.urlopen(f"{address}/health", timeout=60).close()
        else:
            client = boto3.client(
                "s3",
                endpoint_url=address,
                aws_access_key_id=KEY,
                aws_secret_access_key=SECRET,
                region_name="us-east-1",
            )
            client.create_bucket(Bucket="bucket")
        yield address
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except HTTPError:
            return  # it speaks
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < ends, "the server does not answer"
            time.sleep(0.05)


@contextmanager
def credentials(address: str) -> Iterator[None]:
    """The environment by which s3fs and boto reach a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@dataclass
class Fault:
    """What happens to requests of a method for a path.

    Attributes:
        kind: ``throttle`` (503 SlowDown), ``refuse`` (500), ``reset`` (before the request is passed
            on), ``lost`` (after it: the answer does not come), ``cut`` (half of the answer),
            ``stall`` (no answer for as long as the proxy lives).
        method: HTTP method.
        path: Pattern that the path and query hold.
        times: How often; counted down.
    """

    kind: str
    method: str
    path: str
    times: int = 1


@dataclass
class Plan:
    """Faults that are still to come, those at random, and what was asked."""

    faults: list[Fault] = field(default_factory=list)
    share: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    asked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str, path: str) -> str | None:
        """The fault that a request meets, if one."""
        with self.guard:
            self.asked.append(f"{method} {path}")
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    self.done.append(fault.kind)
                    return fault.kind
            if self.chance.random() < self.share:
                kind = self.chance.choice(("throttle", "refuse", "reset", "lost", "cut"))
                self.done.append(kind)
                return kind
        return None


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, with faults."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.server_host = server.removeprefix("http://")
        self.plan = Plan()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Clients that go away are part of it."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def pass_on(self) -> None:
        body = self._body()
        kind = self.server.plan.take(self.command, self.path)
        if kind in ("throttle", "refuse"):
            self._refuse(kind)
            return
        if kind == "reset":
            self._reset()
            return
        if kind == "stall":
            self.server.over.wait()
            self._reset()
            return
        status, headers, answer = self._ask(body)
        if kind == "lost":
            self._reset()
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        said = length if self.command == "HEAD" and length else str(len(answer))
        self.send_header("Content-Length", said)
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if kind == "cut" else answer)
        if kind == "cut":
            self._reset()

    def do_GET(self) -> None:
        self.pass_on()

    def do_PUT(self) -> None:
        self.pass_on()

    def do_POST(self) -> None:
        self.pass_on()

    def do_DELETE(self) -> None:
        self.pass_on()

    def do_HEAD(self) -> None:
        self.pass_on()

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.server_host, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "transfer-encoding", "connection", "content-length"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    def _refuse(self, kind: str) -> None:
        status, code = (503, "SlowDown") if kind == "throttle" else (500, "InternalError")
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()


@contextmanager
def faulty(server: str) -> Iterator[Proxy]:
    """Runs a proxy before a server."""
    proxy = Proxy(server)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
