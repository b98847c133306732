"""Samples by pseudo-random numbers that depend on a seed and on what they are for alone.

All come from SplitMix64 (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number
Generators") used as a hash, so a record has its number wherever and in whatever order it is read.
"""

from collections.abc import Sequence
from math import isqrt

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Float64 = npt.NDArray[np.float64]
UInt64 = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_POINTS_PER_CENTROID = 256
_LARGEST_SAMPLE = 1 << 22


def sample_keys(record_ids: Sequence[str] | pa.Array | pa.ChunkedArray, seed: int) -> UInt64:
    """A pseudo-random key per record that depends on its id and the seed only.

    The records of the ``m`` smallest keys are a sample of ``m``; those with keys below
    ``f * 2**64`` are a sample of about the fraction ``f``. Either way neither order nor parts
    matter, and samples of two seeds are unrelated.

    Args:
        record_ids: n ids of 32 lower-case hex digits, as strings or an Arrow string array.
        seed: any integer; taken modulo 2^64.

    Returns:
        uint64 [n]: the first 16 digits of the id, mixed with the seed by the finaliser of
        SplitMix64 (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number Generators").

    Raises:
        ValueError: an id is missing or is not 32 lower-case hex digits.
    """
    return mixed(_leading_digits(record_ids), seed)


def sample_size(rows: int, k: int) -> int:
    """How many of ``rows`` rows k centroids are trained on: 256 each, as FAISS has it."""
    return min(rows, max(_POINTS_PER_CENTROID * k, 4096), _LARGEST_SAMPLE)


def automatic_k(rows: int) -> int:
    """The number of clusters called ``auto``: the root of the number of rows.

    Assigning n rows to k centroids costs n k products, and comparing the rows of each of k equal
    clusters with each other n^2 / (2 k); their sum is least near sqrt(n / 2).
    """
    return max(1, isqrt(rows))


def mixed(values: UInt64, seed: int) -> UInt64:
    """Values uint64 [n] mixed with a seed: different values stay different.

    The seed is mixed first, so the results for near seeds are unrelated.
    """
    start = np.array([(seed + 1) * _GOLDEN & _MASK], dtype=np.uint64)
    return _finalise((values ^ _finalise(start)) + np.uint64(_GOLDEN))


def uniforms(count: int, seed: int) -> Float64:
    """Numbers float64 [count] spread evenly over [0, 1), multiples of 2^-53."""
    keys = mixed(np.arange(count, dtype=np.uint64), seed)
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _finalise(z: UInt64) -> UInt64:
    """SplitMix64's finaliser, a bijection of 64-bit integers."""
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def _leading_digits(record_ids: Sequence[str] | pa.Array | pa.ChunkedArray) -> UInt64:
    """The first 16 of an id's 32 hex digits, as uint64 [n]."""
    array = record_ids
    if not isinstance(array, pa.Array | pa.ChunkedArray):
        array = pa.array(record_ids, pa.large_string())
    array = array.cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    well_formed = pc.fill_null(pc.match_substring_regex(array, "^[0-9a-f]{32}$"), False)
    if not pc.all(well_formed, min_count=0).as_py():
        row = pc.index(well_formed, False).as_py()
        raise ValueError(f"record id {row} is {array[row].as_py()!r}: not 32 lower-case hex digits")
    digits = np.frombuffer(array.buffers()[2] or b"", dtype=np.uint8)
    first = int(np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset]) if array else 0
    digits = digits[first : first + 32 * len(array)].reshape(-1, 32)[:, :16]
    nibbles = np.where(digits >= ord("a"), digits - (ord("a") - 10), digits - ord("0"))
    pairs = np.ascontiguousarray(nibbles[:, ::2] << 4 | nibbles[:, 1::2])
    return pairs.view(">u8")[:, 0].astype(np.uint64)
