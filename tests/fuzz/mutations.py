"""Changes to bytes that know nothing of what the bytes are. All are functions of a generator."""

import random
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

Mutation: TypeAlias = Callable[[random.Random, bytes, bytes], bytes]

MOST_BYTES = 2_000_000

# Edges of integers, in both orders and all widths, and lengths that many formats check badly.
NUMBERS = sorted(
    {(1 << bits) + off for bits in (0, 7, 8, 15, 16, 24, 31, 32, 63, 64) for off in (-1, 0, 1)}
)
WORDS = (
    *(b"", b"\0", b"\xff", b"\0" * 16, b"\xff" * 16, b"\n", b"\r\n", b"\xef\xbb\xbf", b"%n%s"),
    *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", "\u202e".encode(), "\u2028".encode()),
    *(b"../", b"/etc/passwd", b"\\..\\", b"file:///etc/passwd", b"://", b"!", b"#0", b"[" * 3000),
    *(b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"PAR1", b"Exif\0\0", b"ustar", b"\x89PNG"),
    *(b"null", b"NaN", b"-1e999", b"9" * 400, b"{}", b"[]", b'""', b"\\ud800", b"*a", b"&a"),
    *(b"'''", b'"""', b"/*", b"*/", b"<!--", b"#!", b"<?php", b"\\", b"(" * 500, b"{" * 500),
)


def flip_bits(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """One to eight bits."""
    if not data:
        return data
    changed = bytearray(data)
    for _unused in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_bytes(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """One to eight bytes, anywhere or in a row."""
    if not data:
        return data
    changed = bytearray(data)
    at = rng.randrange(len(changed))
    for place in range(rng.randint(1, 8)):
        where = (at + place) % len(changed) if rng.random() < 0.5 else rng.randrange(len(changed))
        changed[where] = rng.randrange(256)
    return bytes(changed)


def cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """The end, or the beginning."""
    at = rng.randint(0, len(data))
    return data[:at] if rng.random() < 0.8 else data[at:]


def remove(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A span, mostly a short one."""
    start, length = _span(rng, data)
    return data[:start] + data[start + length :]


def repeat(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A span again, once or many times."""
    start, length = _span(rng, data)
    piece = data[start : start + length]
    times = rng.choice((1, 1, 2, 10, 1000))
    return data[:start] + piece * min(times, 1 + 100_000 // max(1, length)) + data[start:]


def insert(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A word that parsers stumble over."""
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(WORDS) + data[at:]


def overwrite(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """A number at the edge of its type, over what was there."""
    at = rng.randint(0, len(data))
    number = packed(rng)
    return data[:at] + number + data[at + len(number) :]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The beginning of one and the end of the other, or a span of the other within."""
    at = rng.randint(0, len(data))
    if rng.random() < 0.5:
        return data[:at] + other[rng.randint(0, len(other)) :]
    start, length = _span(rng, other)
    return data[:at] + other[start : start + length] + data[at:]


def exchange(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Two spans of one length."""
    start, length = _span(rng, data)
    length = min(length, len(data) // 2)
    other = rng.randint(0, len(data) - length)
    first, second = sorted((start, other))
    if second - first < length:
        return data
    a, b = data[first : first + length], data[second : second + length]
    return data[:first] + b + data[first + length : second] + a + data[second + length :]


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, set_bytes, cut, remove, repeat, insert, overwrite, splice, exchange),
)


def mutated(
    rng: random.Random, data: bytes, other: bytes, mutations: Sequence[Mutation] = MUTATIONS
) -> bytes:
    """One to four changes of a file.

    Args:
        rng: Decides.
        data: The file.
        other: Another one of its kind, for splices.
        mutations: What is chosen from.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(mutations)(rng, data, other)[:MOST_BYTES]
    return data


def mutated_text(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A changed text that is UTF-8 still, so that what reads characters is reached."""
    changed = mutated(rng, data, other, (cut, remove, repeat, insert, splice, exchange))
    return changed.decode("utf-8", "ignore").replace("\0", "").encode()


def packed(rng: random.Random) -> bytes:
    """A number at the edge of its type, in one of the widths and orders that files have."""
    form = rng.choice("<>") + rng.choice("BHIQ")
    most = (1 << 8 * struct.calcsize(form)) - 1
    number = rng.choice(NUMBERS) if rng.random() < 0.8 else rng.randint(0, most)
    return struct.pack(form, number & most)


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    most = len(data) - start
    return start, rng.randint(0, min(most, rng.choice((4, 64, 1024, most))))
