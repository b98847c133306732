import sysconfig
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.quality.candidates import pairs_of
from shardwright.quality.minhash import (
    EMPTY,
    LARGEST_SIZE,
    Banding,
    _salts,
    band_keys,
    banding,
    sketch,
)
from shardwright.quality.shingles import jaccards, mix64, shingle_hashes


def random_sets(seed, shared, left, right):
    values = np.random.default_rng(seed).integers(0, 2**64, shared + left + right, np.uint64)
    return values[: shared + left], np.concatenate([values[:shared], values[shared + left :]])


def slow_sketch(values, size):
    # The paper's algorithm, round by round and element by element.
    salts = _salts(size).tolist()
    best = [None] * size
    for number in range(2 * size):
        if None not in best:
            break
        empty = [place is None for place in best]
        for value in values:
            hashed = int(mix64(np.array([value ^ salts[number]], np.uint64))[0])
            place = ((hashed >> 32) * size >> 32) if number < size else number - size
            winner = (number << 48) | (hashed & (2**48 - 1))
            if empty[place] and (best[place] is None or winner < best[place]):
                best[place] = winner
    return [int(mix64(np.array([winner], np.uint64))[0]) >> 32 for winner in best]


@settings(deadline=None)
@given(st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=12), st.integers(1, 24))
def test_the_sketch_is_that_of_the_plain_algorithm(values, size):
    found = sketch(np.array(sorted(values), np.uint64), size)
    assert found.dtype == np.uint32
    assert found.tolist() == slow_sketch(values, size)


def test_sketches_are_pinned():
    # Sketches are stored, so they must not change from one version or machine to the next.
    # The values were worked out in plain Python integers.
    assert sketch(np.arange(3, dtype=np.uint64), 4).tolist() == [
        2073914316,
        4217738677,
        4088659958,
        1780678709,
    ]


@pytest.mark.parametrize("count", [1, 2, 10, 300, 5000])
def test_order_and_repeats_change_nothing(count):
    values, _ = random_sets(0, count, 0, 0)
    shuffled = np.random.default_rng(1).permutation(np.concatenate([values, values[: count // 2]]))
    np.testing.assert_array_equal(sketch(values, 256), sketch(shuffled, 256))


@pytest.mark.parametrize(
    ("shared", "left", "right"),
    [
        (1, 0, 0),
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 1),
        (7, 1, 2),
        (9, 91, 0),
        (50, 25, 25),
        (200, 28, 28),
        (700, 150, 150),
        (2000, 2000, 1000),
        (0, 5000, 5000),
    ],
)
def test_agreement_estimates_jaccard(shared, left, right):
    truth = shared / (shared + left + right)
    estimates = [
        np.mean(sketch(a, 256) == sketch(b, 256))
        for a, b in (random_sets(seed, shared, left, right) for seed in range(200))
    ]
    # 256 independent places would scatter by this much; the mean of 200 by a fourteenth of it.
    deviation = np.sqrt(truth * (1 - truth) / 256)
    assert abs(np.mean(estimates) - truth) <= 5 * deviation / np.sqrt(200)
    assert np.std(estimates) <= 1.2 * deviation


def test_the_empty_set_has_the_sentinel():
    assert sketch(np.empty(0, np.uint64), 3).tolist() == [EMPTY] * 3


@pytest.mark.parametrize("size", [0, -1, LARGEST_SIZE + 1])
def test_size_is_checked(size):
    with pytest.raises(ValueError, match=f"not {size}"):
        sketch(np.arange(3, dtype=np.uint64), size)


def test_the_largest_sketch_has_a_winner_everywhere():
    one = sketch(np.array([5], np.uint64), LARGEST_SIZE)
    assert len(np.unique(one)) > LARGEST_SIZE - 5


def test_bandings():
    assert banding(0.7) == Banding(bands=29, rows=5)
    assert banding(0.85) == Banding(bands=25, rows=10)
    assert banding(1.0) == Banding(bands=1, rows=256)
    assert banding(0.5, size=128, recall=0.9) == Banding(bands=18, rows=3)


@given(st.floats(0.05, 1), st.integers(1, 300), st.floats(0.01, 0.999))
def test_banding_has_most_rows_and_then_fewest_bands(threshold, size, recall):
    def found(bands, rows):
        return 1 - (1 - threshold**rows) ** bands

    reach = [rows for rows in range(1, size + 1) if found(size // rows, rows) >= recall]
    if not reach:
        with pytest.raises(ValueError, match="cannot find"):
            banding(threshold, size, recall)
        return
    choice = banding(threshold, size, recall)
    assert choice.rows == max(reach)
    assert choice.bands * choice.rows <= size
    assert choice.recall(threshold) == found(choice.bands, choice.rows) >= recall
    assert choice.bands == 1 or found(choice.bands - 1, choice.rows) < recall


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_threshold_is_checked(threshold):
    with pytest.raises(ValueError, match="the threshold must"):
        banding(threshold)


@pytest.mark.parametrize("recall", [0, 1, float("nan")])
def test_recall_is_checked(recall):
    with pytest.raises(ValueError, match="the recall must"):
        banding(0.7, recall=recall)


def test_unreachable_recall_is_said():
    with pytest.raises(ValueError, match="larger sketches"):
        banding(0.01, size=16)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_band_keys_are_equal_where_number_and_rows_are(bands, rows, data):
    width = bands * rows + data.draw(st.integers(0, 3))
    row = st.lists(st.sampled_from([0, 1, 2**32 - 1]), min_size=width, max_size=width)
    sketches = np.array(data.draw(st.lists(row, min_size=1, max_size=6)), np.uint32)
    keys = band_keys(sketches, Banding(bands, rows))
    assert keys.shape == (len(sketches), bands)
    assert keys.dtype == np.uint64
    meaning = [
        (band, *one[band * rows : (band + 1) * rows])
        for one in sketches.tolist()
        for band in range(bands)
    ]
    assert len(set(meaning)) == len(set(keys.ravel().tolist()))
    assert len(set(meaning)) == len(set(zip(meaning, keys.ravel().tolist(), strict=True)))


def test_band_keys_of_no_sketches():
    assert band_keys(np.empty((0, 256), np.uint32), banding(0.7)).shape == (0, 29)


def lightly_edited(text, rng):
    # Renames, deletes and repeats a share of the lines that differs from file to file.
    lines = text.splitlines(keepends=True)
    share = rng.choice([0.005, 0.02, 0.05, 0.1])
    for index in np.flatnonzero(rng.random(len(lines)) < share).tolist():
        line = lines[index]
        lines[index] = ["", line * 2, line.replace("self", "this"), f"new_{index} = {index}\n"][
            int(rng.integers(4))
        ]
    return "".join(lines)


def test_recall_on_the_standard_library():
    rng = np.random.default_rng(0)
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(
        path
        for path in root.rglob("*.py")
        if "site-packages" not in path.parts and 0 < path.stat().st_size <= 20_000
    )[:1000]
    texts = [path.read_text("utf-8", "replace") for path in paths]
    texts += [lightly_edited(text, rng) for text in texts[: len(texts) // 3] for _ in range(2)]
    sets = [shingle_hashes(text.encode(), 5) for text in texts]
    sets = [one for one in sets if len(one)]
    values, offsets = np.concatenate(sets), np.cumsum([0, *map(len, sets)])

    # Brute force: mark the elements of one set, and count the marked ones in every other.
    distinct, ranks = np.unique(values, return_inverse=True)
    sizes = np.diff(offsets)
    truth = set()
    for a, (start, stop) in enumerate(pairwise(offsets)):
        marked = np.zeros(len(distinct), bool)
        marked[ranks[start:stop]] = True
        shared = np.add.reduceat(marked[ranks[stop:]], offsets[a + 1 : -1] - stop, dtype=np.int64)
        similarity = shared / (sizes[a] + sizes[a + 1 :] - shared)
        truth |= {(a, a + 1 + int(b)) for b in np.flatnonzero(similarity >= 0.7)}

    choice = banding(0.7)
    keys = band_keys(np.stack([sketch(one, 256) for one in sets]), choice)
    vertices = np.repeat(np.arange(len(sets)), choice.bands)
    left, right, hot = pairs_of(keys.ravel(), vertices, most=1000)
    above = jaccards(values, offsets, left, right) >= 0.7
    found = set(zip(left[above].tolist(), right[above].tolist(), strict=True))
    assert hot == 0
    assert len(sets) > 500
    assert len(truth) > 200
    assert found <= truth
    assert len(found) >= 0.98 * len(truth)
    assert len(left) < 10 * len(truth)  # far fewer comparisons than the million pairs there are
