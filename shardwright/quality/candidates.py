"""Pairs worth comparing: from equal keys to pairs, and keys for a Hamming radius."""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

LARGEST_RADIUS = 16

_NEIGHBOURS = 8
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


def pairs_of(
    keys: NDArray[np.uint64], vertices: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """All pairs of vertices that share a key.

    A key that more than ``most`` vertices share is hot: as a rule boilerplate, and the number of
    its pairs would grow with the square of its vertices. There each vertex is paired with the 8
    lowest of the group, the likeliest to be kept, and with the 8 that come next before it and after
    it, as copies tend to stand side by side.

    Args:
        keys: uint64 [n].
        vertices: int64 [n], 0 to 2^32 - 1. A vertex's number is its rank: the lowest is preferred
            for keeping. A vertex may stand under many keys, and under one more than once.
        most: Most distinct vertices of a key for which all pairs are made, 2 or more.

    Returns:
        a int64 [p] and b int64 [p], distinct pairs with a < b, ascending by (a, b); and how many
        distinct vertices stand under a hot key. p is at most n * max(most / 2, 16), and memory a
        few times 8 bytes for each pair of each key.

    Raises:
        ValueError: ``most`` or a vertex is out of range.
    """
    if most < 2:
        raise ValueError(f"most must be 2 or more, not {most}")
    if len(vertices) and not 0 <= vertices.min() <= vertices.max() < 2**32:
        raise ValueError("vertices must be numbered from 0 to 2^32 - 1")
    members, starts = _groups(keys, vertices)
    sizes = np.diff(starts)
    codes = [np.empty(0, np.uint64)]
    for size in np.unique(sizes[(sizes > 1) & (sizes <= most)]).tolist():
        groups = members[starts[:-1][sizes == size][:, None] + np.arange(size)]
        a, b = np.triu_indices(size, 1)
        codes.append(np.unique(groups[:, a] << _HALF | groups[:, b]))
    hot = members[np.repeat(sizes > most, sizes)]
    codes += _hot_codes(hot, sizes[sizes > most])
    pairs = np.unique(np.concatenate(codes))
    return (pairs >> _HALF).view(np.int64), (pairs & _LOW).view(np.int64), len(np.unique(hot))


def _groups(
    keys: NDArray[np.uint64], vertices: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Vertices uint64 of the keys that occur twice, ascending for each key, and their offsets."""
    # Most keys stand alone: a sort that leaves ties in any order weeds them out first.
    order = np.argsort(keys)
    sizes = np.diff(_run_offsets(keys[order]))
    repeated = np.repeat(sizes > 1, sizes)
    groups = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)[repeated]
    members = np.unique(groups << _HALF | vertices[order][repeated].astype(np.uint64))
    return members & _LOW, _run_offsets(members >> _HALF)


def _run_offsets(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where runs of equal values begin, and where the last one ends."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return np.concatenate([[0], changes, [len(values)]])


def _hot_codes(
    members: NDArray[np.uint64], sizes: NDArray[np.int64]
) -> Iterator[NDArray[np.uint64]]:
    place = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    for back in range(_NEIGHBOURS):
        upper = np.flatnonzero(place > back)
        for lower in (upper - 1 - back, upper - place[upper] + back):
            yield members[lower] << _HALF | members[upper]


def hamming_keys(hashes: NDArray[np.uint64], radius: int) -> NDArray[np.uint64]:
    """Keys of which any two hashes within a Hamming radius share at least one.

    The 64 bits are cut into radius + 2 blocks, and each pair of blocks makes a key. ``radius``
    differing bits lie in at most ``radius`` blocks, so two blocks are equal, and so is their key:
    the search is exact (Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling",
    WWW 2007, section 3). The keys are told apart by their number, without collisions.

    For a radius r these are (r + 1)(r + 2) / 2 keys of about 128 / (r + 2) bits: 15 of 21 bits for
    4. Multi-index hashing by single blocks (Norouzi, Punjani and Fleet, "Fast search in Hamming
    space with multi-index hashing", CVPR 2012) has r + 1 keys of 64 / (r + 1) bits, too short to
    tell a million images apart (5 of 13 bits), or, with r // 2 + 1 blocks of which one may differ
    in one bit, 64 keys at any radius, and 8 times the false candidates at 4 (keys of 20 bits).
    Above a radius of 8 the keys are so short that comparing all pairs soon costs less.

    Args:
        hashes: uint64 [n].
        radius: Most bits that differ, 0 to ``LARGEST_RADIUS``. 0 gives one key, the hash.

    Returns:
        uint64 [n, m].

    Raises:
        ValueError: ``radius`` is out of range.
    """
    if not 0 <= radius <= LARGEST_RADIUS:
        raise ValueError(f"the radius must be 0 to {LARGEST_RADIUS} bits, not {radius}")
    cuts = [64 * block // (radius + 2) for block in range(radius + 3)]
    blocks = [
        (hashes >> np.uint64(start) & np.uint64(2 ** (stop - start) - 1), np.uint64(stop - start))
        for start, stop in pairwise(cuts)
    ]
    keys = np.empty((len(hashes), (radius + 1) * (radius + 2) // 2), np.uint64)
    for number, ((low, width), (high, _)) in enumerate(combinations(blocks, 2)):
        # Two blocks of three or more have at most 43 bits; two of two have all, and the number 0.
        keys[:, number] = high << width | low | np.uint64(number << 56)
    return keys


def hamming(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """In how many bits each hash differs from its partner: uint64 [n], uint64 [n] -> int64 [n]."""
    bits: NDArray[np.int64] = np.bitwise_count(a ^ b).astype(np.int64)
    return bits
