"""The keyed bijection: every place once, and no structure that a test would see."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.errors import UserError
from shardwright.shards.permutation import invert, permute

KEYS = [0, 1, 2**63 + 5, 2**64 - 1]


@pytest.mark.parametrize("key", KEYS)
def test_bijection_for_every_small_n(key: int) -> None:
    counts = np.arange(1, 301)
    n = np.repeat(counts, counts)
    places = np.concatenate([np.arange(count) for count in counts])
    values = permute(places, n, key)
    assert values.dtype == np.int64
    for group in np.split(values, np.cumsum(counts)[:-1]):
        assert np.array_equal(np.sort(group), np.arange(len(group)))
    assert np.array_equal(invert(values, n, key), places)


@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1), st.integers(0, 2**32))
def test_samples_of_any_n(n: int, key: int, seed: int) -> None:
    places = np.unique(np.random.default_rng(seed).integers(0, n, 50))
    values = permute(places, n, key)
    assert 0 <= values.min() <= values.max() < n
    assert len(np.unique(values)) == len(places)
    assert np.array_equal(invert(values, n, key), places)
    one_each = permute(places, np.full(len(places), n), np.full(len(places), key, np.uint64))
    assert np.array_equal(one_each, values)


@pytest.mark.parametrize("n", [20_000, 10**6 + 3])
def test_bijection_across_chunks(n: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(n), n, 7)), np.arange(n))


def test_never_changes() -> None:
    assert permute(np.arange(10), 10, 1).tolist() == [8, 6, 9, 0, 7, 4, 5, 3, 2, 1]
    assert permute(np.arange(3), 10**10, 2).tolist() == [4645622658, 9408592563, 1298890572]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_orders_are_equally_likely(n: int) -> None:
    keys = np.random.default_rng(n).integers(0, 2**63, 40 * math.factorial(n) + 4000)
    places = np.tile(np.arange(n), len(keys))
    orders = permute(places, n, np.repeat(keys, n)).reshape(-1, n)
    codes = orders @ n ** np.arange(n)
    counts = [
        np.count_nonzero(codes == np.array(order) @ n ** np.arange(n))
        for order in itertools.permutations(range(n))
    ]
    expected = len(keys) / len(counts)
    freedom = len(counts) - 1
    chi2 = sum((count - expected) ** 2 / expected for count in counts)
    assert (chi2 - freedom) / math.sqrt(2 * freedom) < 5


@pytest.mark.parametrize("n", [7, 8, 9, 25])
def test_odd_orders_come_as_often_as_even_ones(n: int) -> None:
    keys = np.arange(2000)
    orders = permute(np.tile(np.arange(n), 2000), n, np.repeat(keys, n)).reshape(-1, n)
    first, second = np.triu_indices(n, 1)
    odd = (orders[:, first] > orders[:, second]).sum(axis=1) % 2
    assert abs(odd.mean() - 0.5) < 4 * 0.5 / math.sqrt(2000)


@pytest.mark.parametrize("n", [1000, 99_991, 2**20, 10**10])
def test_no_visible_structure(n: int) -> None:
    places = np.arange(min(n, 100_000))
    values = permute(places, n, 11)
    other = permute(places, n, 12)
    share = values / n
    normal = math.sqrt(len(places))

    def related(a: np.ndarray, b: np.ndarray) -> float:
        return abs(float(np.corrcoef(a, b)[0, 1])) * normal

    assert related(share, places) < 4
    assert related(share, other / n) < 4
    for lag in (1, 2, 3, 256):
        assert related(share[lag:], share[:-lag]) < 4
    for bit in range(8):
        assert abs(float(np.mean(values >> bit & 1)) - 0.5) * normal < 4
        assert related(values >> bit & 1, places >> bit & 1) < 4
    steps = np.diff(values)
    assert len(np.unique(steps)) > 0.6 * min(len(steps), 2 * n)
    counts = np.histogram(values[: len(values) // 2], bins=50, range=(0, n))[0]
    assert abs(counts - len(values) / 100).max() < 5 * math.sqrt(len(values) / 100)


def test_refusals() -> None:
    with pytest.raises(UserError, match="place 10 is none"):
        permute(np.array([3, 10]), 10, 0)
    with pytest.raises(UserError, match="place -1 is none"):
        permute(np.array([-1]), 10, 0)
    with pytest.raises(UserError, match="too large"):
        permute(np.array([0]), 2**62 + 1, 0)
    assert len(permute(np.empty(0, np.int64), 10, 0)) == 0
