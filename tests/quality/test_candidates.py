from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.quality.candidates import LARGEST_RADIUS, hamming, hamming_keys, pairs_of

keyed = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), max_size=60)


def pairs(rows, most):
    keys, vertices = ([row[side] for row in rows] for side in (0, 1))
    a, b, hot = pairs_of(np.array(keys, np.uint64), np.array(vertices, np.int64), most)
    assert a.dtype == b.dtype == np.int64
    return list(zip(a.tolist(), b.tolist(), strict=True)), hot


def groups(rows):
    members = {}
    for key, vertex in rows:
        members.setdefault(key, set()).add(vertex)
    return [sorted(group) for group in members.values()]


def test_pairs_by_hand():
    rows = [(7, 4), (9, 1), (7, 2), (8, 2), (8, 4), (2**64 - 1, 0), (7, 9), (9, 1)]
    assert pairs(rows, 10) == ([(2, 4), (2, 9), (4, 9)], 0)
    assert pairs([], 10) == ([], 0)
    assert pairs([(0, 5)], 10) == ([], 0)
    assert pairs([(0, 2**32 - 1), (0, 0)], 10) == ([(0, 2**32 - 1)], 0)


@given(keyed)
def test_pairs_are_those_of_brute_force(rows):
    expected = {pair for group in groups(rows) for pair in combinations(group, 2)}
    assert pairs(rows, 13) == (sorted(expected), 0)


@given(keyed, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert pairs(shuffled, 3) == pairs(rows, 3)


def expected_with_hot(rows, most):
    found, hot = set(), set()
    for group in groups(rows):
        cold = len(group) <= most
        hot |= set() if cold else set(group)
        for i, j in combinations(range(len(group)), 2):
            if cold or i < 8 or j - i <= 8:
                found.add((group[i], group[j]))
    return sorted(found), len(hot)


@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(2, 60))
def test_hot_groups_pair_neighbours_and_the_lowest(seed, count, most):
    rng = np.random.default_rng(seed)
    keys, vertices = rng.integers(0, 3, count), rng.integers(0, 100, count)
    rows = list(zip(keys.tolist(), vertices.tolist(), strict=True))
    assert pairs(rows, most) == expected_with_hot(rows, most)


def test_a_hot_group_grows_with_its_vertices_and_not_their_square():
    rows = [(5, vertex) for vertex in range(1000)] + [(6, 3), (6, 999), (7, 1500), (7, 1501)]
    found, hot = pairs(rows, 100)
    assert (found, hot) == expected_with_hot(rows, 100)
    assert hot == 1000
    assert len(found) < 16 * 1000
    assert (1500, 1501) in found


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="most"):
        pairs([(0, 1)], 1)
    for vertex in (-1, 2**32):
        with pytest.raises(ValueError, match="vertices"):
            pairs([(0, vertex)], 2)


def sharing(keys_a, keys_b):
    return (keys_a == keys_b).any(axis=1)


@pytest.mark.parametrize("radius", range(LARGEST_RADIUS + 1))
def test_no_pair_within_the_radius_is_missed(radius):
    rng = np.random.default_rng(radius)
    hashes = rng.integers(0, 2**64, 4000, np.uint64)
    flips = np.zeros(len(hashes), np.uint64)
    for row in range(len(hashes)):
        # Bits anywhere; next to each other; and one in each block of as many as there are.
        start = int(rng.integers(64))
        bits = [
            rng.choice(64, radius, replace=False),
            (start + np.arange(radius)) % 64,
            (start + np.arange(radius) * 64 // max(radius, 1)) % 64,
        ][row % 3]
        flips[row] = sum(1 << int(bit) for bit in bits)
    near = hashes ^ flips
    assert hamming(hashes, near).tolist() == [radius] * len(hashes)
    assert sharing(hamming_keys(hashes, radius), hamming_keys(near, radius)).all()


@pytest.mark.parametrize("radius", [1, 2])
def test_every_way_to_flip_bits_within_the_radius_is_found(radius):
    flips = [sum(1 << bit for bit in bits) for bits in combinations(range(64), radius)]
    hashes = np.full(len(flips), 0xDEADBEEF_12345678, np.uint64)
    near = hashes ^ np.array(flips, np.uint64)
    assert sharing(hamming_keys(hashes, radius), hamming_keys(near, radius)).all()


@pytest.mark.parametrize("radius", [0, 1, 3, 4, 8, 16])
def test_an_equal_key_means_two_equal_blocks(radius):
    # No two keys of unlike number or blocks are the same, so that no candidate comes by accident.
    blocks = radius + 2
    cuts = [64 * block // blocks for block in range(blocks + 1)]
    hashes = [0, 2**64 - 1, *np.random.default_rng(1).integers(0, 2**64, 200, np.uint64).tolist()]
    keys = hamming_keys(np.array(hashes, np.uint64), radius)
    assert keys.shape == (len(hashes), blocks * (blocks - 1) // 2)
    meaning = {}
    for value, row in zip(hashes, keys.tolist(), strict=True):
        parts = [(value >> low) % (1 << (high - low)) for low, high in pairwise(cuts)]
        for (i, j), key in zip(combinations(range(blocks), 2), row, strict=True):
            assert meaning.setdefault(key, (i, j, parts[i], parts[j])) == (i, j, parts[i], parts[j])
    assert len(set(meaning.values())) == len(meaning)


def test_all_pairs_within_a_radius_on_clustered_hashes():
    rng = np.random.default_rng(3)
    centres = rng.integers(0, 2**64, 60, np.uint64)
    hashes = np.repeat(centres, 20)
    for bit in range(64):
        hashes ^= (rng.random(len(hashes)) < 0.04).astype(np.uint64) << np.uint64(bit)
    a, b = np.triu_indices(len(hashes), 1)
    close = hamming(hashes[a], hashes[b]) <= 6
    truth = list(zip(a[close].tolist(), b[close].tolist(), strict=True))
    assert len(truth) > 1000

    keys = hamming_keys(hashes, 6)
    vertices = np.repeat(np.arange(len(hashes)), keys.shape[1])
    left, right, hot = pairs_of(keys.ravel(), vertices, most=1200)
    kept = hamming(hashes[left], hashes[right]) <= 6
    assert hot == 0
    assert list(zip(left[kept].tolist(), right[kept].tolist(), strict=True)) == truth


@pytest.mark.parametrize("radius", [-1, LARGEST_RADIUS + 1])
def test_radius_is_checked(radius):
    with pytest.raises(ValueError, match=f"not {radius}"):
        hamming_keys(np.zeros(1, np.uint64), radius)


@given(st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 2), max_size=20))
def test_hamming_counts_differing_bits(rows):
    a, b = (np.array([row[side] for row in rows], np.uint64) for side in (0, 1))
    assert hamming(a, b).tolist() == [(x ^ y).bit_count() for x, y in rows]
