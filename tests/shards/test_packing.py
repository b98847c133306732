"""Sequences against the stream written out whole, from any range and in chunks of any sizes."""

import hashlib
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate

from shardwright.errors import DataError
from shardwright.shards import mds
from shardwright.shards.packing import (
    SEQUENCES,
    Documents,
    Open,
    count_documents,
    pack,
    sequence_bytes,
    unpack,
)

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)
FILL = 7


def documents(lengths: list[int], chunk: int = 1000) -> list[Documents]:
    """Documents of these lengths; token ``t`` of the stream is ``t + 100``."""
    found, before = [], 0
    for first in range(0, len(lengths), chunk):
        some = lengths[first : first + chunk]
        total = sum(some)
        found.append(
            Documents(
                before,
                [record_id(number) for number in range(first, first + len(some))],
                np.array(some, np.int64),
                np.arange(before, before + total, dtype=np.int32) + 100,
            )
        )
        before += total
    return found


def record_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def written_out(lengths: list[int], length: int) -> list[dict[str, object]]:
    """The sequences, a token at a time."""
    stream = [(n, place) for n, size in enumerate(lengths) for place in range(size)]
    rows = []
    for number, first in enumerate(range(0, len(stream), length)):
        here = stream[first : first + length]
        owners = sorted({n for n, _ in here})
        ends = [sum(1 for n, _ in here if n <= owner) for owner in owners]
        tokens = [100 + first + t for t in range(len(here))] + [FILL] * (length - len(here))
        rows.append(
            {
                "record_id": f"train-{number:012d}",
                "tokens": np.array(tokens, "<i4").tobytes(),
                "boundaries": np.array([0, *ends], "<i4").tobytes(),
                "record_ids": " ".join(record_id(n) for n in owners),
                "offset": here[0][1],
            }
        )
    return rows


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(2, 20), st.integers(1, 7), st.integers(1, 9))
def test_any_range_is_that_of_the_whole(
    lengths: list[int], length: int, count: int, chunk: int
) -> None:
    expected = written_out(lengths, length)
    found: list[dict[str, object]] = []
    for first in range(0, len(expected), count):
        here = min(count, len(expected) - first)
        found += pack("train", first, here, length, FILL, documents(lengths, chunk)).to_pylist()
    assert found == expected


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(2, 20), st.integers(1, 9))
def test_counts_are_those_of_the_sequences(lengths: list[int], length: int, chunk: int) -> None:
    state, found = Open(), []
    for first in range(0, len(lengths), chunk):
        counts, state = count_documents(np.array(lengths[first : first + chunk]), length, state)
        found += counts.tolist()
    if state.tokens:
        found.append(state.documents)
    expected = written_out(lengths, length)
    assert found == [len(str(row["record_ids"]).split()) for row in expected]
    assert state.tokens == sum(lengths) % length
    table = pa.Table.from_pylist(expected, SEQUENCES)
    columns = mds.columns_for(SEQUENCES)
    planned = sequence_bytes(np.array(found, np.int64), length, "train")
    sizes = mds.sample_sizes(columns, len(found), planned)
    assert sizes.tolist() == mds.batch_sizes(table, columns).tolist()


def test_missing_documents_are_noticed() -> None:
    parts = documents([5, 6, 7, 8], chunk=1)
    for wrong in ([*parts[:1], *parts[2:]], parts[1:], parts[:2]):
        with pytest.raises(DataError, match="documents of sequences 0 to 6 missing"):
            pack("train", 0, 7, 4, FILL, wrong)
    assert pack("train", 0, 7, 4, FILL, parts).num_rows == 7


def test_unpacked_sequences_collate() -> None:
    lengths = [3, 9, 1, 4]
    samples = [unpack(row) for row in written_out(lengths, 8)]
    batch = default_collate(samples)
    assert batch["tokens"].tolist()[0] == [100, 101, 102, 103, 104, 105, 106, 107]
    assert batch["documents"].tolist() == [
        [0, 0, 0, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 2, 2, 2],
        [0, -1, -1, -1, -1, -1, -1, -1],
    ]
    assert batch["positions"].tolist() == [
        [0, 1, 2, 0, 1, 2, 3, 4],
        [0, 1, 2, 3, 0, 0, 1, 2],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    for row in written_out(lengths, 8):
        bounds = np.frombuffer(row["boundaries"], "<i4")  # type: ignore[call-overload]
        assert all(low < high for low, high in pairwise(bounds))
