"""Spherical k-means, and the keys by which a seeded sample of records is drawn.

Spherical k-means: Dhillon and Modha 2001, "Concept Decompositions for Large Sparse Text Data
Using Clustering", Machine Learning 42, sec. 3: rows and centroids are unit vectors, a row
belongs to the centroid of largest cosine, a centroid is the normalised sum of its rows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardwright.kernels import nearest

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_BLOCK = 8192
"""Rows summed at once. Part of the order of summation, and so of the bits."""
_UNIT_TOLERANCE = 1e-2
"""How far from 1 a row's norm may lie; half precision stays within 1e-3."""


def spherical_kmeans(x: Float32, k: int, seed: int, iterations: int = 20) -> Float32:
    """Fits ``k`` unit centroids to unit rows.

    Starts from a seeded sample of distinct rows, alternates assignment and update, and stops
    when no label changes. A cluster that loses all its rows takes the row of the largest cluster
    that is farthest from its centroid. The result depends on the rows, their order, ``k``,
    ``seed`` and ``iterations``, not on the number of threads.

    Args:
        x: unit rows float32 [n, d].
        k: number of centroids, 1 <= k <= n. If the rows have fewer than ``k`` distinct values,
            some centroids are equal.
        seed: chooses the rows to start from.
        iterations: updates at most, at least 1.

    Returns:
        Unit rows float32 [k, d].

    Raises:
        ValueError: ``k`` is not in 1..n, ``iterations`` is below 1, or a row is no unit vector.
    """
    if not 1 <= k <= len(x):
        raise ValueError(f"k is {k}: it must lie between 1 and the number of rows, {len(x)}")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}: it must be at least 1")
    _check_unit(x)
    centroids = x[_start(x, k, seed)]
    labels = np.full(len(x), -1, dtype=np.int64)
    for _ in range(iterations):
        assigned, cosines = nearest(x, centroids, "cosine")
        _fill_empty(assigned, cosines, k)
        if (assigned == labels).all():
            break
        labels = assigned
        centroids = _update(x, labels, centroids)
    return centroids


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
    return _keys(_leading_digits(record_ids), seed)


def _start(x: Float32, k: int, seed: int) -> Int64:
    """Numbers [k] of rows to start from: seeded order, distinct values before repeated ones."""
    order = np.argsort(_keys(np.arange(len(x), dtype=np.uint64), seed), kind="stable")
    seen: set[bytes] = set()
    chosen: list[int] = []
    repeated: list[int] = []
    for row in order.tolist():
        if len(chosen) == k:
            break
        value = x[row].tobytes()
        (repeated if value in seen else chosen).append(row)
        seen.add(value)
    return np.array((chosen + repeated)[:k], dtype=np.int64)


def _fill_empty(labels: Int64, cosines: Float64, k: int) -> None:
    """Gives each empty cluster, in order, the worst row of the largest one; ties to the first.

    Changes ``labels`` [n] in place. ``cosines`` [n] are the rows' to the centroids they had.
    """
    sizes = np.bincount(labels, minlength=k)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        members = np.flatnonzero(labels == largest)
        moved = members[cosines[members].argmin()]
        labels[moved] = empty
        sizes[largest] -= 1
        sizes[empty] = 1


def _update(x: Float32, labels: Int64, centroids: Float32) -> Float32:
    """Normalised sums float32 [k, d] of the rows of each label; a sum of zero keeps the old one.

    Blocks of rows are sorted by label and summed in float64, block after block, so the order of
    the additions is fixed and a block is all that is held.
    """
    sums = np.zeros(centroids.shape, dtype=np.float64)
    for start in range(0, len(x), _BLOCK):
        block = labels[start : start + _BLOCK]
        order = np.argsort(block, kind="stable")
        ordered = block[order]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
        rows = x[start + order].astype(np.float64)
        sums[ordered[firsts]] += np.add.reduceat(rows, firsts, axis=0)
    norms = np.sqrt(np.square(sums).sum(axis=1))[:, None]
    unit: Float32 = np.divide(sums, norms, out=sums, where=norms > 0).astype(np.float32)
    return np.where(norms > 0, unit, centroids)


def _check_unit(x: Float32) -> None:
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK].astype(np.float64)
        norms = np.sqrt(np.square(block).sum(axis=1))
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= _UNIT_TOLERANCE))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"row {start + row} has norm {norms[row]:g}: rows must be unit rows")


def _keys(values: UInt64, seed: int) -> UInt64:
    """uint64 [n] mixed with a seed; the seed is mixed first, so near seeds are unrelated."""
    start = np.array([(seed + 1) * _GOLDEN & _MASK], dtype=np.uint64)
    return _finalise((values ^ _finalise(start)) + np.uint64(_GOLDEN))


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
