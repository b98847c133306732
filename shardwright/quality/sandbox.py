"""Decodes images of strangers in a child process that can be killed.

A decoder in C may crash, hang or eat all memory, and nothing inside the process can stop it. The
child speaks length-prefixed frames over two pipes: a request is the encoded image, a reply is
JSON. It answers in order, so the first image without a reply is the one that a dying child died
of. Several images are in flight at a time, which hides the pipes' latency.

The child ends itself: at the end of its stdin (the parent is gone), and by an alarm when one image
takes too long (even where the parent is gone and the decoder hangs).
"""

import collections
import contextlib
import importlib
import json
import os
import resource
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import BinaryIO, Generic, TypeVar

from shardwright.quality.faults import Fault
from shardwright.quality.images import ImageFacts

T = TypeVar("T")

_DECODER = "shardwright.quality.images:decode_image"
_LENGTH = struct.Struct("<Q")
_IN_FLIGHT = 16
_IN_FLIGHT_BYTES = 32_000_000
_GRACE_SECONDS = 5.0  # the child's own alarm comes first; this is for a child that blocks it
_START_SECONDS = 120.0


@dataclass
class _Pending(Generic[T]):
    item: T
    data: bytes | None
    first_try: bool = True
    answer: ImageFacts | Fault | None = None


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    unsent: collections.deque[memoryview] = field(default_factory=collections.deque)
    received: bytearray = field(default_factory=bytearray)
    answered: int = 0


class ImageDecoder:
    """Decodes images in a child process that is started again whenever one kills it.

    Use as a context manager; the child lives from the first image to the end of the block.

    Args:
        max_pixels: Most pixels of an image.
        seconds: Most seconds that one image may take.
        memory_bytes: Most address space of the child.
        decoder: ``module:function`` of what the child runs, called with the encoded image and
            ``max_pixels``, returning ``ImageFacts`` or ``Fault``.
    """

    def __init__(
        self,
        max_pixels: int,
        seconds: float,
        memory_bytes: int = 4 << 30,
        decoder: str = _DECODER,
    ) -> None:
        self._seconds = seconds
        self._arguments = [decoder, str(max_pixels), repr(seconds), str(memory_bytes)]
        self._child: _Child | None = None

    def __enter__(self) -> "ImageDecoder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child and waits for it."""
        if self._child is not None:
            self._end(self._child)

    def decode(self, data: bytes) -> ImageFacts | Fault:
        """Decodes one image."""
        ((_, answer),) = self.decode_all([(None, data)])
        assert answer is not None
        return answer

    def decode_all(
        self, items: Iterable[tuple[T, bytes | None]]
    ) -> Iterator[tuple[T, ImageFacts | Fault | None]]:
        """Decodes images, several of them in flight.

        Args:
            items: Anything, with the encoded image or with None where there is none to decode.

        Yields:
            Every item in order, with its facts, its fault, or None.

        Raises:
            RuntimeError: The child could not be started.
        """
        source = iter(items)
        waiting: collections.deque[_Pending[T]] = collections.deque()  # not yet yielded, in order
        flying: collections.deque[_Pending[T]] = collections.deque()  # with the child, in order
        weight = 0
        exhausted = False
        try:
            while waiting or not exhausted:
                while not exhausted and len(waiting) < _IN_FLIGHT and weight < _IN_FLIGHT_BYTES:
                    try:
                        item, data = next(source)
                    except StopIteration:
                        exhausted = True
                        break
                    pending = _Pending(item, data)
                    waiting.append(pending)
                    if data is not None:
                        weight += len(data)
                        flying.append(pending)
                        self._send(data)
                while waiting and (waiting[0].data is None or waiting[0].answer is not None):
                    done = waiting.popleft()
                    weight -= len(done.data or b"")
                    yield done.item, done.answer
                if waiting:
                    self._receive(flying)
        finally:
            if flying and self._child is not None:  # the caller stopped half-way
                self._kill(self._child)

    def _send(self, data: bytes) -> None:
        child = self._child or self._start()
        child.unsent.append(memoryview(_LENGTH.pack(len(data))))
        child.unsent.append(memoryview(data))
        self._child = child

    def _receive(self, flying: "collections.deque[_Pending[T]]") -> None:
        """Waits until the child has answered, or has ended and its verdict is known."""
        child = self._child
        assert child is not None
        deadline = time.monotonic() + self._seconds + _GRACE_SECONDS
        alive = _exchange(child, deadline)
        while (reply := _reply(child)) is not None:
            answer = _answer(reply)
            child.answered += 1
            flying.popleft().answer = answer
            if isinstance(answer, Fault) and answer.reason == "decoder_memory":
                # the child ends by itself; none of those behind is to blame
                self._end(child)
                self._resend(flying)
                return
        if alive:
            return
        if alive is None:
            self._kill(child)
            fault = _timeout(self._seconds)
        else:
            fault = self._verdict(child)
        culprit = flying.popleft()
        if fault.reason == "decoder_crashed" and child.answered and culprit.first_try:
            culprit.first_try = False  # an image before it may have broken the child: ask again
            flying.appendleft(culprit)
        else:
            culprit.answer = fault
        self._resend(flying)

    def _verdict(self, child: _Child) -> Fault:
        self._child = None
        code = child.process.wait()
        _close_pipes(child)
        if code == -signal.SIGALRM:
            return _timeout(self._seconds)
        if code < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-code).name
                return Fault("decoder_crashed", f"the decoder died of {name}")
        return Fault("decoder_crashed", f"the decoder ended with status {code}")

    def _resend(self, flying: "collections.deque[_Pending[T]]") -> None:
        for pending in flying:
            if pending.data is not None:
                self._send(pending.data)

    def _start(self) -> _Child:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "shardwright.quality.sandbox", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which then closes our stdin
            bufsize=0,
        )
        child = _Child(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(process.stdout.fileno(), False)
        deadline = time.monotonic() + _START_SECONDS
        while (hello := _reply(child)) is None and _exchange(child, deadline):
            pass
        if hello is None:
            process.kill()
            problem = process.stderr.read().decode("utf-8", "replace").strip()
            process.wait()
            _close_pipes(child)
            raise RuntimeError(f"the image decoder's process did not start: {problem}")
        return child

    def _end(self, child: _Child) -> None:
        self._child = None
        assert child.process.stdin is not None
        child.process.stdin.close()
        try:
            child.process.wait(1.0)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        _close_pipes(child)

    def _kill(self, child: _Child) -> None:
        self._child = None
        child.process.kill()
        child.process.wait()
        _close_pipes(child)


def _timeout(seconds: float) -> Fault:
    return Fault("decoder_timeout", f"not decoded within {seconds:g} seconds")


def _close_pipes(child: _Child) -> None:
    for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _exchange(child: _Child, deadline: float) -> bool | None:
    """Writes what is unsent and reads what has come.

    Returns:
        True when something came, False when the child has ended, None at the deadline.
    """
    stdin, stdout = child.process.stdin, child.process.stdout
    assert stdin is not None
    assert stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        writes = False
        while True:
            if child.unsent and not writes:
                selector.register(stdin, selectors.EVENT_WRITE)
                writes = True
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            for key, _ in ready:
                if key.fileobj is stdout:
                    chunk = os.read(stdout.fileno(), 65536)
                    child.received += chunk
                    return bool(chunk)
            if not _write(child, stdin.fileno()):
                selector.unregister(stdin)
                child.unsent.clear()
                writes = False


def _write(child: _Child, descriptor: int) -> bool:
    """Writes as much as the pipe takes; False when all is written or the child has gone."""
    while child.unsent:
        view = child.unsent[0]
        try:
            written = os.write(descriptor, view)
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        if written == len(view):
            child.unsent.popleft()
        else:
            child.unsent[0] = view[written:]
    return False


def _reply(child: _Child) -> bytes | None:
    if len(child.received) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(child.received)[0]
    if len(child.received) < end:
        return None
    body = bytes(child.received[_LENGTH.size : end])
    del child.received[:end]
    return body


def _answer(reply: bytes) -> ImageFacts | Fault:
    fields = json.loads(reply)
    return Fault(**fields) if "reason" in fields else ImageFacts(**fields)


def _serve(decoder: str, max_pixels: int, seconds: float, memory_bytes: int) -> None:
    """The child: answers every frame on stdin until it ends."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    module, _, function = decoder.partition(":")
    decode = getattr(importlib.import_module(module), function)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    decode(b"", max_pixels)  # loads what the decoder loads at first use
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        memory_bytes = min(memory_bytes, most)
    with contextlib.suppress(ValueError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send_frame(replies, b"{}")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # decoders print; the pipes are ours
        os.dup2(nothing, descriptor)
    while header := requests.read(_LENGTH.size):
        try:
            data = requests.read(_LENGTH.unpack(header)[0])
            signal.setitimer(signal.ITIMER_REAL, seconds)
            answer = decode(data, max_pixels)
        except MemoryError:
            answer = Fault("decoder_memory", "the decoder ran out of memory")
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send_frame(replies, json.dumps(asdict(answer)).encode())
        if isinstance(answer, Fault) and answer.reason == "decoder_memory":
            return  # a fresh process owes nothing to what this image left behind


def _send_frame(pipe: BinaryIO, body: bytes) -> None:
    pipe.write(_LENGTH.pack(len(body)) + body)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
