"""Effects of damage: by hand, and the sign test against scipy."""

import math
import warnings

import numpy as np
import pytest
from scipy.stats import binomtest, wilcoxon

from shardwright.quality.study import Effect, Places, study

FAMILIES = {"cut": "truncation", "swap": "logic", "drop": "logic"}


def places(cluster, size, distance):
    return Places(np.array(cluster), np.array(size), np.array(distance, float))


def one_kind(size_before, size_after, before, after):
    """The effect of a single kind, whose records all stay in their clusters."""
    same = np.zeros(len(before), int)
    found = study(
        places(same, size_before, before),
        places(same, size_after, after),
        ["swap"] * len(before),
        FAMILIES,
    )
    assert len(found) == 1
    return found[0]


def test_effects_by_hand():
    before = places([0, 1, 0, 2, 1], [10, 20, 10, 5, 20], [0.1, 0.2, 0.3, 0.4, 0.5])
    after = places([1, 1, 2, 2, 0], [20, 20, 5, 5, 10], [0.2, 0.2, 0.6, 0.3, 0.6])
    swap, cut = "swap", "cut"
    found = study(before, after, [swap, swap, cut, swap, cut], FAMILIES)
    assert [(e.corruption, e.family, e.pairs) for e in found] == [
        ("cut", "truncation", 2),
        ("swap", "logic", 3),
    ]
    first, second = found
    assert first.moved == 1
    assert second.moved == pytest.approx(1 / 3)
    assert first.size == pytest.approx(-math.log(2))  # 10 -> 5 and 20 -> 10
    assert second.size == pytest.approx(math.log(2) / 3)
    assert second.size_effect == pytest.approx(1 / math.sqrt(3))  # changes a, 0, 0
    assert (first.size_p, second.size_p) == (pytest.approx(0.5), pytest.approx(1.0))
    assert first.distance == pytest.approx(0.2)
    assert first.distance_effect == pytest.approx(0.2 / math.sqrt(0.02))
    assert second.distance == pytest.approx(0, abs=1e-12)
    assert second.distance_p == pytest.approx(1.0)


@pytest.mark.parametrize(("pairs", "up"), [(5, 5), (30, 21), (30, 9), (200, 120), (1, 0)])
def test_the_sign_test(pairs, up):
    rng = np.random.default_rng(pairs)
    changes = rng.uniform(0.01, 0.2, pairs) * np.where(np.arange(pairs) < up, 1, -1)
    zeros = np.zeros(17)  # do not count, but for the mean
    before = np.full(pairs + 17, 0.5)
    after = before + rng.permutation(np.concatenate([changes, zeros]))
    ones = np.ones(len(before), int)
    found = one_kind(ones, ones, before, after)
    assert found.distance_p == pytest.approx(binomtest(up, pairs).pvalue)
    assert found.distance == pytest.approx((after - before).mean())
    # a test of the same hypothesis by ranks agrees on which side of 5% it is, where it is clear
    if pairs == 200:
        assert wilcoxon(changes).pvalue < 0.05
        assert found.distance_p < 0.05


def test_no_change_at_all():
    ones = np.ones(4, int)
    found = one_kind(ones, ones, [0.3] * 4, [0.3] * 4)
    assert found == Effect("swap", "logic", 4, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0)


def test_a_single_pair():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = one_kind([4], [8], [0.5], [0.75])
    assert found.pairs == 1
    assert found.size == pytest.approx(math.log(2))
    assert found.distance == 0.25
    assert (found.size_effect, found.distance_effect) == (0.0, 0.0)  # no spread is known
    assert (found.size_p, found.distance_p) == (1.0, 1.0)


@pytest.mark.parametrize(("low", "high"), [(8, 9), (3, 7)])
def test_what_is_standardised_has_no_unit(low, high):
    """Ten times the sizes or the distances: the same effects."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(low, high, (2, 50))
    distances = rng.uniform(0, 0.1, (2, 50))
    one = one_kind(*sizes, *distances)
    ten = one_kind(*(10 * sizes), *(10 * distances))
    assert ten.distance_effect == pytest.approx(one.distance_effect)
    assert ten.distance == pytest.approx(10 * one.distance)
    assert (ten.distance_p, ten.size_p) == (one.distance_p, one.size_p)
    assert ten.size == pytest.approx(one.size)
    assert ten.size_effect == pytest.approx(one.size_effect)
