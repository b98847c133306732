"""A keyed bijection on ``[0, n)`` for any ``n``: a shuffle that needs no table for any part of it.

The generalised Feistel cipher of Black and Rogaway ("Ciphers with Arbitrary Finite Domains",
CT-RSA 2002, section 5) on ``[0, a) x [0, b)`` with ``a b >= n``, and their cycle walking (section
4): a value outside ``[0, n)`` is enciphered again until it falls inside. Sides near the root of
``n`` leave fewer than ``a`` values outside, so that walks are rare and short. A round adds a hash
of one half to the other, modulo the other's side; the hash is the multiply and xorshift of
splitmix64 (Steele, Lea and Flood 2014). It is a shuffle, not a secret.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shardwright.errors import UserError

Words = NDArray[np.uint64]

_ROUNDS: Final = 16
"""With 8 rounds some orders of 5 places come visibly more often than others, with 16 none does."""
_LIMIT: Final = 2**62
_CHUNK: Final = 16_384
"""Values in work at a time: they stay in the processor's cache, and memory stays bounded."""
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_SALTS: Final = [np.uint64(0x9E3779B97F4A7C15 * (i + 1) % 2**64) for i in range(_ROUNDS)]


def permute(
    places: NDArray[np.integer[Any]],
    n: int | NDArray[np.integer[Any]],
    key: int | NDArray[np.integer[Any]],
) -> NDArray[np.int64]:
    """Where a shuffle of ``[0, n)`` sends each place.

    Args:
        places: ``(k,)``, each in ``[0, n)``.
        n: Number of places, one for all or ``(k,)``; at most ``2**62``.
        key: Names the shuffle, one for all or ``(k,)``; its lowest 64 bits count.

    Returns:
        ``(k,)``, int64, each in ``[0, n)``: for one ``n`` and key no two places go to one.

    Raises:
        UserError: A place lies outside ``[0, n)``, or ``n`` is too large.
    """
    return _walk(places, n, key, _encipher)


def invert(
    values: NDArray[np.integer[Any]],
    n: int | NDArray[np.integer[Any]],
    key: int | NDArray[np.integer[Any]],
) -> NDArray[np.int64]:
    """The places that ``permute`` sends to ``values``; arguments and errors as there."""
    return _walk(values, n, key, _decipher)


def mix(words: Words) -> Words:
    """The finaliser of splitmix64: one-to-one, every bit depends on every bit."""
    words = (words ^ words >> np.uint64(30)) * _FIRST
    words = (words ^ words >> np.uint64(27)) * _SECOND
    return words ^ words >> np.uint64(31)


def _walk(
    places: NDArray[np.integer[Any]],
    n: int | NDArray[np.integer[Any]],
    key: int | NDArray[np.integer[Any]],
    cipher: Callable[[Words, Words, Words, Words], Words],
) -> NDArray[np.int64]:
    counts = np.atleast_1d(np.asarray(n, np.int64))
    keys = np.atleast_1d(
        np.array([key % 2**64], np.uint64) if isinstance(key, int) else key.astype(np.uint64)
    )
    outside = (places < 0) | (places >= counts)
    if outside.any():
        place = places[np.argmax(outside)]
        raise UserError(f"place {place} is none of the places of a shuffle of {np.max(counts)}")
    if len(places) and int(counts.max()) > _LIMIT:
        raise UserError(f"a shuffle of {counts.max()} places is too large; at most {_LIMIT}")
    found = np.empty(len(places), np.int64)
    for start in range(0, len(places), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        total = (counts if len(counts) == 1 else counts[chunk]).astype(np.uint64)
        salt = keys if len(keys) == 1 else keys[chunk]
        words = places[chunk].astype(np.uint64)
        rows, columns = _sides(total)
        words = cipher(words, rows, columns, salt)
        astray = np.flatnonzero(words >= total)
        while len(astray):
            again = cipher(words[astray], *(_of(x, astray) for x in (rows, columns, salt)))
            words[astray] = again
            astray = astray[again >= _of(total, astray)]
        found[chunk] = words
    return found


def _of(values: Words, chosen: NDArray[np.intp]) -> Words:
    return values if len(values) == 1 else values[chosen]


def _sides(total: Words) -> tuple[Words, Words]:
    """Sides ``a`` (the root of ``n``, up to the next even number) and ``b = ceil(n / a)``.

    Turning an odd number of values is an even permutation whatever the turn, so on two odd sides
    the cipher would reach even permutations only.
    """
    rows = np.sqrt(total.astype(np.float64)).astype(np.uint64)
    rows += rows * rows < total
    rows -= (rows > 1) & ((rows - np.uint64(1)) * (rows - np.uint64(1)) >= total)
    rows = np.maximum(rows + rows % np.uint64(2), np.uint64(2))
    return rows, (total + rows - np.uint64(1)) // rows


def _steps(half: Words, salt: Words, number: int, side: Words) -> Words:
    """Round ``number``: how far it turns the other half, which has ``side`` values."""
    words = (half ^ mix(salt + _SALTS[number])) * _FIRST
    words = (words ^ words >> np.uint64(32)) * _SECOND
    # The upper half as a fraction of 2**32, times the side: a modulus without a division.
    return (((words ^ words >> np.uint64(29)) >> np.uint64(32)) * side) >> np.uint64(32)


def _encipher(words: Words, rows: Words, columns: Words, salt: Words) -> Words:
    left, right = words // columns, words % columns
    for number in range(0, _ROUNDS, 2):
        left = left + _steps(right, salt, number, rows)
        left = np.where(left >= rows, left - rows, left)
        right = right + _steps(left, salt, number + 1, columns)
        right = np.where(right >= columns, right - columns, right)
    return left * columns + right


def _decipher(words: Words, rows: Words, columns: Words, salt: Words) -> Words:
    left, right = words // columns, words % columns
    for number in range(_ROUNDS - 2, -1, -2):
        right = right + columns - _steps(left, salt, number + 1, columns)
        right = np.where(right >= columns, right - columns, right)
        left = left + rows - _steps(right, salt, number, rows)
        left = np.where(left >= rows, left - rows, left)
    return left * columns + right
