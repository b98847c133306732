"""Keys for seeded samples."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.embeddings import sample_keys
from shardwright.embeddings.sampling import uniforms


def ids(count):
    return [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(count)]


def slow_key(record_id, seed):
    mask = 2**64 - 1

    def finalise(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return z ^ z >> 31

    golden = 0x9E3779B97F4A7C15
    start = finalise((seed + 1) * golden & mask)
    return finalise((int(record_id[:16], 16) ^ start) + golden & mask)


@settings(max_examples=30, deadline=None)
@given(st.integers(-(2**70), 2**70), st.integers(0, 40))
def test_keys_follow_the_definition_in_any_container(seed, count):
    names = ids(count)
    expected = [slow_key(name, seed) for name in names]
    padded = pa.array(["f" * 32, *names, "0" * 32])
    chunked = pa.chunked_array([names[: count // 2], names[count // 2 :]], pa.string())
    for given_ids in (
        names,
        pa.array(names, pa.string()),
        pa.array(names, pa.large_string()),
        padded.slice(1, count),
        padded.cast(pa.large_string()).slice(1, count),
        chunked,
        pa.array(names, pa.string()).dictionary_encode(),
    ):
        keys = sample_keys(given_ids, seed)
        assert keys.dtype == np.uint64
        assert keys.tolist() == expected


def test_keys_are_spread_evenly_and_unrelated_across_seeds():
    names = ids(20000)
    first, second = sample_keys(names, 0), sample_keys(names, 1)
    for keys in (first, second, first ^ second):
        counts = np.bincount((keys >> np.uint64(60)).astype(int), minlength=16)
        assert np.abs(counts - 1250).max() < 150


@pytest.mark.parametrize("bad", ["f" * 31, "F" * 32, "g" * 32, "", "f" * 33, "f" * 32 + "\n", None])
def test_malformed_ids_are_named(bad):
    with pytest.raises(ValueError, match="record id 1 is "):
        sample_keys(["0" * 32, bad], 0)


def test_uniforms_fill_the_unit_interval_evenly():
    for seed in (0, 1, -5, 2**65):
        drawn = uniforms(20000, seed)
        assert drawn.min() >= 0
        assert drawn.max() < 1
        assert np.abs(np.histogram(drawn, 16, (0, 1))[0] - 1250).max() < 150
    assert np.abs(np.corrcoef(uniforms(20000, 0), uniforms(20000, 1))[0, 1]) < 0.03
