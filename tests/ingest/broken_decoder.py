"""A decoder that does, in its child process, what the image tells it to. For tests only."""

import os
import signal
import sys
import time

from shardwright.quality.faults import Fault
from shardwright.quality.images import ImageFacts

_CALLS = []


def decode(data: bytes, max_pixels: int) -> ImageFacts | Fault:
    _CALLS.append(data)
    if data == b"segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"abort":
        os.abort()
    if data == b"exit":
        os._exit(0)
    if data == b"raise":
        raise KeyError("a bug in the decoder")
    if data == b"hang":
        while True:
            time.sleep(1)
    if data == b"hang-deaf":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    if data == b"memory":
        bytearray(3 << 30)
    if data == b"poisoned" and b"poison" in _CALLS:
        os.abort()
    if data == b"print":
        print("noise" * 100_000)
        print("noise" * 100_000, file=sys.stderr)
    if data.startswith(b"sleep"):
        time.sleep(0.05)
    return ImageFacts(len(data), os.getpid(), "TEST")
