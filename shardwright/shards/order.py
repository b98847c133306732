"""Which sample stands where: the global order, the splits, the cuts between shards.

Pure functions of ids, sizes and a seed. A record's order key and split depend on nothing but the
record (or its group) and the seed, so that adding records moves no other record between splits.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shardwright.errors import DataError, UserError

_GOLDEN: Final = 0x9E3779B97F4A7C15
_WORD: Final = 2**64 - 1
_ID_DIGITS: Final = 32
_KEY_DIGITS: Final = 16
_ORDER, _SPLIT = 1, 2
_NIBBLES: Final = np.full(256, 255, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True)
class CutState:
    """Where a stream of samples was cut so far; the default is the start of a stream.

    Attributes:
        shard: Number of the open shard.
        position: Samples in it.
        bytes: Their sizes' sum.
    """

    shard: int = 0
    position: int = 0
    bytes: int = 0


def id_keys(record_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """The first 16 hex digits of each record id as a number.

    Args:
        record_ids: Strings ``(n,)`` of 32 lower-case hex digits.

    Returns:
        Keys ``(n,)``, uint64; they order as the ids do.

    Raises:
        DataError: A value is null or no record id.
    """
    count = len(record_ids)
    if count == 0:
        return np.empty(0, np.uint64)
    if record_ids.null_count:
        raise DataError("a record_id is null; run the ingest stage again with --force")
    ids = record_ids.cast(pa.large_string())
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    _, offsets, data = ids.buffers()
    bounds = np.frombuffer(offsets, np.int64)[ids.offset : ids.offset + count + 1]
    wrong = np.flatnonzero(np.diff(bounds) != _ID_DIGITS)
    if len(wrong) == 0:
        text = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]].reshape(count, _ID_DIGITS)
        wrong = np.flatnonzero((_NIBBLES[text] == 255).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{ids[wrong[0]].as_py()!r} is no record_id (32 lower-case hex digits); "
            "run the ingest stage again with --force"
        )
    nibbles = _NIBBLES[text[:, :_KEY_DIGITS]]
    octets = np.ascontiguousarray(nibbles[:, 0::2] << 4 | nibbles[:, 1::2])
    keys: NDArray[np.uint64] = octets.view(">u8")[:, 0].astype(np.uint64)
    return keys


def name_keys(names: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """A 64-bit key of each name: the first 8 bytes of its sha256, equal for equal names.

    Args:
        names: Strings ``(n,)``, such as repositories; each distinct name is hashed once.

    Returns:
        Keys ``(n,)``, uint64.

    Raises:
        DataError: A name is null (give such rows a name of their own, such as their record id).
    """
    if names.null_count:
        raise DataError("a group name is null; use the record_id where there is no group")
    if isinstance(names, pa.ChunkedArray):
        names = names.cast(pa.large_string()).combine_chunks()
    coded = names.dictionary_encode()
    hashes: list[int] = [
        int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        for name in coded.dictionary.to_pylist()
    ]
    indices: NDArray[np.int32] = np.asarray(coded.indices)
    return np.array(hashes, np.uint64)[indices]


def order_keys(record_ids: pa.Array | pa.ChunkedArray, seed: int) -> NDArray[np.uint64]:
    """The global order of records: sort by this key, and equal keys by record id.

    For each seed the key is a one-to-one function of the id's first 64 bits, so two records share a
    key only if their ids share these.

    Args:
        record_ids: Strings ``(n,)`` of 32 hex digits.
        seed: Any integer; its lowest 64 bits count.

    Returns:
        Keys ``(n,)``, uint64, evenly spread over their range.

    Raises:
        DataError: A value is null or no record id.
    """
    return _keyed(id_keys(record_ids), seed, _ORDER)


def assign_split(
    keys: NDArray[np.uint64], fractions: Mapping[str, float], seed: int
) -> NDArray[np.int32]:
    """Splits by hash: equal keys never straddle two splits.

    Splits take adjoining ranges of the hash in the order of ``fractions``; raising the last one's
    fraction at the cost of the one before only moves keys from that one to the last.

    Args:
        keys: ``(n,)``, from ``id_keys``, or from ``name_keys`` where groups must stay together.
        fractions: Share of each split, by name.
        seed: Any integer; its lowest 64 bits count.

    Returns:
        Codes ``(n,)``, int32: indexes into ``list(fractions)``.

    Raises:
        UserError: A fraction is negative, or they do not sum to 1 (within 1e-9).
    """
    for name, fraction in fractions.items():
        if not 0 <= fraction <= 1:
            raise UserError(f"shards.split.{name} is {fraction}; it must be between 0 and 1")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-9:
        raise UserError(f"shards.split sums to {total}; the fractions must sum to 1")
    shares = list(fractions.values())
    ends = [math.fsum(shares[: i + 1]) for i in range(len(shares) - 1)]
    # 53 bits, because a float64 holds them exactly.
    bounds = np.array([min(round(end * 2**53), 2**53) for end in ends], np.uint64)
    places = _keyed(keys, seed, _SPLIT) >> np.uint64(11)
    return np.searchsorted(bounds, places, side="right").astype(np.int32)


def cut(
    sizes: NDArray[np.int64], limit: int, start: CutState, overhead: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], CutState]:
    """Cuts samples in order into shards: each takes samples as long as its file stays in ``limit``.

    A sample that is too large for any shard gets one of its own. A stream may come in chunks of any
    sizes: the cuts are the same.

    Args:
        sizes: Bytes ``(n,)`` that each sample adds to its file, from ``mds.sample_sizes``.
        limit: Greatest size of a shard file in bytes.
        start: The state that the chunk before returned, or ``CutState()``.
        overhead: Bytes of a shard file without samples, from ``mds.shard_overhead``.

    Returns:
        Shard numbers ``(n,)`` int32, positions in their shards ``(n,)`` int32, and the state to
        carry on with.

    Raises:
        UserError: ``limit`` leaves no room for samples.
    """
    room = limit - overhead
    if room <= 0:
        raise UserError(f"shards.size is {limit} bytes; it must be above {overhead}, the header")
    count = len(sizes)
    shards, positions = np.empty(count, np.int32), np.empty(count, np.int32)
    ends = np.cumsum(sizes, dtype=np.int64)
    shard, position, used = start.shard, start.position, start.bytes
    first, before = 0, 0
    while first < count:
        last = int(np.searchsorted(ends, before + room - used, side="right"))
        if last <= first and position:
            shard, position, used = shard + 1, 0, 0
            continue
        last = max(last, first + 1)
        shards[first:last] = shard
        positions[first:last] = np.arange(position, position + last - first)
        position += last - first
        used += int(ends[last - 1]) - before
        first, before = last, int(ends[last - 1])
    return shards, positions, CutState(shard, position, used)


def _keyed(keys: NDArray[np.uint64], seed: int, stream: int) -> NDArray[np.uint64]:
    """Keys mixed with the seed; each stream is independent of the others."""
    salt = np.array([(seed + stream * _GOLDEN) & _WORD], np.uint64)
    return _mix(keys ^ _mix(salt))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014; Vigna's code), one-to-one."""
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
