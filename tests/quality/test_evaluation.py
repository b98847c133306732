"""Areas and recalls against counting by hand, DeLong's equations, and draws of whole files."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.quality.evaluation import Z95, Estimate, area, recall

ROWS = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 7), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


def columns(rows):
    scores, damaged, files, trials = zip(*rows, strict=True)
    return np.array(scores, float), np.array(damaged), np.array(files), np.array(trials)


def counted(scores, damaged):
    """How many of all pairs of a damaged and a clean row are in the right order."""
    pairs = [(b, g) for b in scores[damaged] for g in scores[~damaged]]
    return sum(1.0 if b < g else 0.5 if b == g else 0.0 for b, g in pairs) / len(pairs)


def placements(scores, damaged):
    """DeLong et al. 1988, equations 3 and 4: V10 of each damaged row and V01 of each clean one."""
    bad, good = scores[damaged], scores[~damaged]
    psi = (bad[:, None] < good[None, :]) + 0.5 * (bad[:, None] == good[None, :])
    return psi.mean(axis=1), psi.mean(axis=0)


def delong(one, two, damaged):
    """Their equations 5 to 7: the covariance of two areas on the same rows."""
    v10, v01 = placements(one, damaged)
    w10, w01 = placements(two, damaged)
    s10 = ((v10 - v10.mean()) * (w10 - w10.mean())).sum() / (len(v10) - 1)
    s01 = ((v01 - v01.mean()) * (w01 - w01.mean())).sum() / (len(v01) - 1)
    return s10 / len(v10) + s01 / len(v01)


def planted(rng, clean, damaged, shift, step=0.0):
    scores = np.concatenate([rng.normal(size=clean), rng.normal(-shift, size=damaged)])
    if step:
        scores = np.round(scores / step) * step
    return scores, np.arange(clean + damaged) >= clean


@given(ROWS)
def test_the_area_counts_pairs(rows):
    scores, damaged, files, _ = columns(rows)
    found = area(scores, damaged, files)
    if damaged.all() or not damaged.any():
        assert math.isnan(found.value)
        assert not found.influence.any()
        assert not math.isfinite(found.low)
        assert not math.isfinite(found.high)
    else:
        assert found.value == pytest.approx(counted(scores, damaged), abs=1e-12)
        assert found.influence.sum() == pytest.approx(0, abs=1e-12)
        assert found.low <= found.value <= found.high
    assert len(found.influence) == files.max() + 1


@given(ROWS)
def test_only_the_order_of_scores_counts(rows):
    scores, damaged, files, _ = columns(rows)
    found, cubed = area(scores, damaged, files), area(scores**3, damaged, files)
    np.testing.assert_array_equal(found.influence, cubed.influence)
    turned = area(-scores, damaged, files)
    if not math.isnan(found.value):
        assert found.value == cubed.value
        assert turned.value == pytest.approx(1 - found.value, abs=1e-12)
        assert turned.error == pytest.approx(found.error, abs=1e-12)


@pytest.mark.parametrize("step", [0.0, 0.7])
@pytest.mark.parametrize(("clean", "damaged"), [(300, 300), (900, 250)])
def test_the_error_is_delongs_where_each_file_has_one_row(clean, damaged, step):
    rng = np.random.default_rng(0)
    scores, bad = planted(rng, clean, damaged, 0.8, step)
    found = area(scores, bad, rng.permutation(len(scores)))
    assert found.error == pytest.approx(math.sqrt(delong(scores, scores, bad)), rel=4e-3)
    assert found.high - found.low == pytest.approx(2 * Z95 * found.error)
    assert pytest.approx(1.959964, abs=1e-6) == Z95


def test_a_difference_is_paired():
    rng = np.random.default_rng(1)
    one, bad = planted(rng, 400, 400, 0.8)
    two = one + rng.normal(scale=0.3, size=len(one))
    files = np.arange(len(one))
    a, b = area(one, bad, files), area(two, bad, files)
    found = a - b
    variance = delong(one, one, bad) + delong(two, two, bad) - 2 * delong(one, two, bad)
    assert found.value == pytest.approx(counted(one, bad) - counted(two, bad), abs=1e-12)
    assert found.error == pytest.approx(math.sqrt(variance), rel=4e-3)
    assert found.error < 0.5 * math.hypot(a.error, b.error)  # what unpaired ones would have
    nothing = a - a
    assert (nothing.value, nothing.error) == (0, 0)


def clustered(rng, files, trials):
    """Files that are odd by themselves; in most trials each is damaged, or in most it is clean."""
    file = np.repeat(np.arange(files), trials)
    damaged = rng.random(len(file)) < np.where(file % 2, 0.9, 0.1)
    scores = 1.5 * rng.normal(size=files)[file] + 0.4 * rng.normal(size=len(file)) - damaged
    return scores, damaged, file, np.tile(np.arange(trials), files)


@pytest.mark.parametrize("measure", ["area", "recall"])
def test_the_error_is_that_of_drawing_files(measure):
    rng = np.random.default_rng(2)
    scores, damaged, files, trials = clustered(rng, 120, 5)
    rows = np.arange(600).reshape(120, 5)

    if measure == "area":
        found = area(scores, damaged, files)
        alone = area(scores, damaged, np.arange(600))
        values = [
            area(scores[drawn], damaged[drawn], files[drawn]).value
            for drawn in (rows[rng.integers(0, 120, 120)].ravel() for _ in range(400))
        ]
    else:  # the cut is given, so what is drawn is which of the damaged rows count
        found = recall(scores, damaged, files, trials, 0.3)
        alone = recall(scores, damaged, np.arange(600), trials, 0.3)
        cut = np.zeros(600, bool)
        for trial in range(5):
            here = np.flatnonzero(trials == trial)
            cut[here[np.argsort(scores[here])[:36]]] = True
        draws = [rows[rng.integers(0, 120, 120)].ravel() for _ in range(400)]
        values = [cut[drawn][damaged[drawn]].mean() for drawn in draws]
    assert found.error == pytest.approx(np.std(values), rel=0.15)
    assert found.error > 1.3 * alone.error  # taking rows for independent is far too sure


@given(ROWS, st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_recall_by_sorting(rows, fraction):
    scores, damaged, files, trials = columns(rows)
    hits = []
    for trial in sorted(set(trials.tolist())):
        mine = [i for i in range(len(rows)) if trials[i] == trial]
        gone = sorted(mine, key=lambda i: (scores[i], i))[: round(fraction * len(mine))]
        hits += [i in gone for i in mine if damaged[i]]
    found = recall(scores, damaged, files, trials, fraction)
    assert len(found.influence) == files.max() + 1
    assert found.influence.sum() == pytest.approx(0, abs=1e-12)
    if hits:
        assert found.value == pytest.approx(sum(hits) / len(hits), abs=1e-12)
    else:
        assert math.isnan(found.value)


def test_each_trial_is_cut_by_itself():
    scores = np.array([0.0, 1, 2, 3, 10, 11, 12, 13])
    damaged = np.array([True, False, False, False] * 2)
    trials = np.repeat([0, 1], 4)
    assert recall(scores, damaged, np.arange(8), trials, 0.25).value == 1.0
    assert recall(scores, damaged, np.arange(8), np.zeros(8, int), 0.25).value == 0.5


def test_of_equal_scores_the_first_go():
    damaged = np.arange(1000) < 200
    zeros = np.zeros(1000, int)
    found = recall(zeros.astype(float), damaged, np.arange(1000), zeros, 0.1)
    assert found.value == 0.5
    mixed = np.where(np.arange(1000) % 3 == 0, -1.0, 1.0)  # 334 of them
    assert recall(mixed, damaged, np.arange(1000), zeros, 0.2).value == 67 / 200


def test_no_rows_at_all():
    nothing = np.zeros(0, int)
    for found in (
        area(np.zeros(0), np.zeros(0, bool), nothing),
        recall(np.zeros(0), np.zeros(0, bool), nothing, nothing, 0.2),
    ):
        assert math.isnan(found.value)
        assert len(found.influence) == 0


def test_an_error_by_hand():
    found = Estimate(0.5, np.array([0.3, -0.1, -0.2]))
    assert found.error == pytest.approx(math.sqrt(0.14))
