"""Sketches of sets whose agreement estimates Jaccard similarity, and keys that near sets share.

The sketch is the fast similarity sketch of Dahlgaard, Knudsen and Thorup, "Fast similarity
sketching", FOCS 2017. Like MinHash, two sketches agree in a place with a probability equal to the
Jaccard similarity of the sets, but a sketch of size t costs O(n + t log t) and not O(n t), and its
estimate is concentrated for small sets too.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.shingles import GOLDEN, hash_sequences, mix64

EMPTY = 0xFFFFFFFF
"""Fills the sketch of a set without elements. Such a set has no near duplicates: skip it."""

LARGEST_SIZE = 2**15 - 1

_VALUE_BITS = np.uint64(48)
_VALUE = np.uint64(2**48 - 1)
_NONE = np.uint64(2**64 - 1)
_HALF = np.uint64(32)


@cache
def _salts(size: int) -> NDArray[np.uint64]:
    """What makes the hash function of each round another one: uint64 [2 * size]."""
    return mix64(GOLDEN * np.arange(1, 2 * size + 1, dtype=np.uint64))


def sketch(shingles: NDArray[np.uint64], size: int) -> NDArray[np.uint32]:
    """The fast similarity sketch of a set (Algorithm 1 of the paper).

    In round i every element x is thrown with hash function i: into a random bin for i < size, into
    bin i - size after that. A bin keeps the least (round, value) that it saw, and the rounds end
    when no bin is empty, so that in all about size * ln(size) elements are thrown.

    Args:
        shingles: uint64 [n], the set's elements in any order; repeats count once.
        size: Places of the sketch, 1 to ``LARGEST_SIZE``.

    Returns:
        uint32 [size]: a hash of each bin's winner. Places with unlike winners agree with
        probability 2^-32. All ``EMPTY`` for an empty set.

    Raises:
        ValueError: ``size`` is out of range.
    """
    if not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"the sketch's size must be 1 to {LARGEST_SIZE:,}, not {size}")
    count = len(shingles)
    if not count:
        return np.full(size, EMPTY, np.uint32)
    best = np.full(size, _NONE)
    # Rounds are done several at once; this many throws leave a bin empty once in seven sets.
    rounds = math.ceil(size * (math.log(size) + 2) / count)
    for first in range(0, size, rounds):
        hashes, keys = _throw(shingles, size, np.arange(first, min(first + rounds, size)))
        bins = (hashes >> _HALF) * np.uint64(size) >> _HALF
        np.minimum.at(best, bins.ravel().view(np.int64), keys.ravel())
        if best.max() != _NONE:
            break
    else:
        empty = np.flatnonzero(best == _NONE)
        best[empty] = _throw(shingles, size, empty + size)[1].min(axis=1)
    return (mix64(best) >> _HALF).astype(np.uint32)


def _throw(
    shingles: NDArray[np.uint64], size: int, rounds: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes of every element in every round, and (round, value) in one number: [rounds, n]."""
    hashes = mix64(shingles ^ _salts(size)[rounds][:, None])
    keys = hashes & _VALUE
    keys |= rounds.astype(np.uint64)[:, None] << _VALUE_BITS
    return hashes, keys


@dataclass(frozen=True)
class Banding:
    """How a sketch is cut into keys: ``bands`` keys, each of ``rows`` places."""

    bands: int
    rows: int

    def recall(self, similarity: float) -> float:
        """Probability that two sets of this Jaccard similarity share a key: the S-curve."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def banding(threshold: float, size: int = 256, recall: float = 0.995) -> Banding:
    """Chooses bands and rows for a threshold of Jaccard similarity.

    Sets of similarity s agree in all rows of a band with probability s^r, so they share at least
    one of b bands with 1 - (1 - s^r)^b: an S-curve in s, the steeper the more rows (Leskovec,
    Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4). The choice has the most rows,
    hence the fewest false candidates, and then the fewest bands that reach the recall.

    Args:
        threshold: Jaccard similarity from which on pairs must be found, above 0 and at most 1.
        size: Places of the sketches.
        recall: Least probability that a pair at the threshold is found, between 0 and 1.

    Raises:
        ValueError: An argument is out of range, or no banding of ``size`` places finds so much.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must be above 0 and at most 1, not {threshold}")
    if not 0 < recall < 1:
        raise ValueError(f"the recall must lie between 0 and 1, not {recall}")
    for rows in range(size, 0, -1):
        for bands in range(1, size // rows + 1):
            choice = Banding(bands, rows)
            if choice.recall(threshold) >= recall:
                return choice
    raise ValueError(
        f"{size} places cannot find pairs of similarity {threshold} with recall {recall};"
        " take larger sketches, a higher threshold or a lower recall"
    )


def band_keys(sketches: NDArray[np.uint32], banding: Banding) -> NDArray[np.uint64]:
    """One key per band: a hash of the band's number and its rows.

    Args:
        sketches: uint32 [n, size], of sets that are not empty.
        banding: At most ``size`` places in all; places past them are left out.

    Returns:
        uint64 [n, bands].
    """
    cut = sketches[:, : banding.bands * banding.rows].astype(np.uint64)
    rows = cut.reshape(len(sketches), banding.bands, banding.rows)
    number = np.broadcast_to(
        GOLDEN * np.arange(1, banding.bands + 1, dtype=np.uint64), rows.shape[:2]
    )
    return hash_sequences([number, *(rows[:, :, row] for row in range(banding.rows))])
