"""Code as a set of token shingles, and how much of their sets two texts share.

A token is a maximal run of word bytes: ASCII letters, digits, the underscore, and every byte of a
character outside ASCII. White space and punctuation separate tokens and count for nothing, which is
the convention of BigCode's near-deduplication. A shingle is a window of consecutive tokens (Broder,
"On the resemblance and containment of documents", SEQUENCES 1997), kept as a 64-bit hash. A set of
shingles is a sorted array of distinct hashes.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, made odd: the step of SplitMix64."""

_MASK = 2**64 - 1
_ONE_BYTE_WORDS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_IS_WORD = bytes(byte >= 0x80 or byte in _ONE_BYTE_WORDS for byte in range(256))
_BASE = 0xD1342543DE82EF95
_INVERSE_BASE = pow(_BASE, -1, 2**64)
_STEP = np.uint64(0xA0761D6478BD642F)
_CHUNK = 2**15
_BLOCK = 2**18


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads each value over all 64 bits, one to one: the output function of SplitMix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

    Args:
        values: uint64 of any shape.

    Returns:
        uint64 of the same shape. 0 stays 0.
    """
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def hash_sequences(columns: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Hashes of many sequences of one length, each element at its place.

    Args:
        columns: One or more arrays of one shape: all first elements, all second ones, and so on.

    Returns:
        uint64 of that shape.
    """
    hashes = columns[0].copy()
    for column in columns[1:]:
        hashes *= _STEP
        hashes += column
    return mix64(hashes)


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """base^0 .. base^(count - 1) modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)


_SYMBOLS = mix64(GOLDEN * np.arange(1, 257, dtype=np.uint64))
_POWERS = _powers(_BASE, _CHUNK)
_INVERSES = _powers(_INVERSE_BASE, _CHUNK)


def token_hashes(data: bytes) -> NDArray[np.uint64]:
    """Hashes every token of a text.

    The hash of bytes c_0 c_1 .. is the polynomial sum of R[c_i] B^i modulo 2^64, R a fixed random
    table, mixed with the token's length. All tokens are differences of one running sum over the
    text; B is odd and so has an inverse, which takes out where in the text the token stands.

    Args:
        data: UTF-8 text; other bytes do no harm.

    Returns:
        uint64 [tokens], in the order of the text.
    """
    word = np.frombuffer(b"\0%b\0" % data.translate(_IS_WORD), np.uint8)
    edges = np.flatnonzero(word[1:] != word[:-1])
    sums = _sums_before(data, edges)
    starts, stops = edges[::2], edges[1::2]
    hashes = sums[1::2] - sums[::2]
    hashes *= _INVERSES[starts % _CHUNK]
    chunks = -(-len(data) // _CHUNK)
    hashes *= _powers(pow(_INVERSE_BASE, _CHUNK, 2**64), chunks)[starts // _CHUNK]
    hashes += (stops - starts).astype(np.uint64) * GOLDEN
    return mix64(hashes)


def _sums_before(data: bytes, positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Sum of R[data[i]] B^i over i < p, for each p of ``positions`` (ascending, 0 to len(data)).

    Goes through the text in chunks, so that the tables of powers stay small and the running sums
    stay in the processor's cache.
    """
    symbols = np.frombuffer(data, np.uint8)
    sums = np.empty(len(positions), np.uint64)
    running = np.zeros(min(len(data), _CHUNK) + 1, np.uint64)
    before, scale = 0, 1
    for start in range(0, len(data), _CHUNK):
        terms = _SYMBOLS[symbols[start : start + _CHUNK]]
        terms *= _POWERS[: len(terms)]
        np.cumsum(terms, out=running[1 : len(terms) + 1])
        low = np.searchsorted(positions, start, "left")
        high = np.searchsorted(positions, start + len(terms), "right")
        inside = running[positions[low:high] - start]
        sums[low:high] = inside * np.uint64(scale) + np.uint64(before)
        before = (before + scale * int(running[len(terms)])) & _MASK
        scale = scale * pow(_BASE, _CHUNK, 2**64) & _MASK
    return sums


def shingle_hashes(data: bytes, ngram: int) -> NDArray[np.uint64]:
    """The set of a text's shingles.

    Args:
        data: UTF-8 text.
        ngram: Tokens per shingle, 1 or more.

    Returns:
        uint64 [distinct shingles], ascending. A text of fewer tokens than ``ngram`` has one
        shingle, of all its tokens; a text without tokens has none.

    Raises:
        ValueError: ``ngram`` is less than 1.
    """
    if ngram < 1:
        raise ValueError(f"ngram must be 1 or more, not {ngram}")
    tokens = token_hashes(data)
    width = min(ngram, len(tokens))
    if not width:
        return tokens
    count = len(tokens) - width + 1
    return np.unique(hash_sequences([tokens[i : i + count] for i in range(width)]))


def _shared(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> int:
    both = np.concatenate([a, b])
    both.sort(kind="stable")  # Timsort merges two sorted runs in linear time
    return int(np.count_nonzero(both[1:] == both[:-1]))


def jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """|a and b| / |a or b| of two sets; 0.0 if both are empty.

    Args:
        a: uint64, ascending and distinct.
        b: The same.
    """
    shared = _shared(a, b)
    return shared / max(len(a) + len(b) - shared, 1)


def containment(part: NDArray[np.uint64], whole: NDArray[np.uint64]) -> float:
    """|part and whole| / |part|: how much of one set lies in the other; 0.0 if ``part`` is empty.

    Args:
        part: uint64, ascending and distinct.
        whole: The same.
    """
    return _shared(part, whole) / max(len(part), 1)


def jaccards(
    values: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Jaccard similarity of many pairs of sets, from exact counts.

    Both sets of a pair go into one row of a matrix whose rows are sorted at once; pairs of like
    size stand together. Memory beyond the arguments is some 40 bytes per pair and a block of a few
    megabytes, or of the largest pair.

    Args:
        values: uint64 [total], the sets one after the other, each ascending and distinct.
        offsets: int64 [sets + 1]; set i is ``values[offsets[i] : offsets[i + 1]]``.
        left: int64 [pairs], numbers of sets.
        right: int64 [pairs].

    Returns:
        float64 [pairs]; 0.0 where both sets are empty.
    """
    sizes = np.diff(offsets)
    totals = sizes[left] + sizes[right]
    shared = np.zeros(len(totals), np.int64)
    order = np.argsort(totals)[::-1]
    cuts = [0]
    while cuts[-1] < len(order):
        widest = int(totals[order[cuts[-1]]])
        cuts.append(cuts[-1] + max(_BLOCK // max(widest, 1), 1))
    for start, stop in pairwise(cuts):
        block = order[start:stop]
        shared[block] = _shared_in_rows(values, offsets, left[block], right[block])
    similarities: NDArray[np.float64] = shared / np.maximum(totals - shared, 1)
    return similarities


def _shared_in_rows(
    values: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> NDArray[np.int64]:
    sizes = offsets[left + 1] - offsets[left]
    totals = sizes + offsets[right + 1] - offsets[right]
    rows = np.full((len(left), int(totals.max())), _MASK, np.uint64)
    places = (offsets[left], sizes, offsets[right], totals)
    for row, a, size, b, total in zip(rows, *(place.tolist() for place in places), strict=True):
        row[:size] = values[a : a + size]
        row[size:total] = values[b : b + total - size]
    rows.sort(axis=1, kind="stable")
    # What fills up a row is the greatest value, so the first ``total`` places hold the two sets.
    inside = np.arange(1, rows.shape[1]) < totals[:, None]
    equal = rows[:, 1:] == rows[:, :-1]
    shared: NDArray[np.int64] = np.count_nonzero(equal & inside, axis=1)
    return shared
