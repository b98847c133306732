"""Normal scores by their meaning, and logistic regression against scikit-learn and its optimum."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from shardwright.quality.calibration import LEAST_ROWS, even, fit_gauge, fit_logistic

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


def column(values):
    return np.array(values, float)[:, None]


def scores(clean, values):
    """Normal scores of values among one clean column."""
    nobody = [None] * len(clean)
    return fit_gauge(column(clean), nobody).scores(column(values), [None] * len(values))[:, 0]


@given(st.lists(FINITE, min_size=1, max_size=400), st.lists(FINITE, min_size=2, max_size=30))
def test_scores_rise_with_the_value(clean, values):
    ordered = np.sort(values)
    found = scores(clean, ordered)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=300, unique=True))
def test_scores_have_no_side(values):
    """Values turned round have their scores turned round, inside and outside of the sample."""
    clean = np.array(values, float)
    asked = np.concatenate([clean[:20] + 0.3, [-1000.0, 1000.0]])
    np.testing.assert_allclose(scores(-clean, -asked), -scores(clean, asked), atol=1e-12)


@pytest.mark.parametrize("rows", [60, 256, 5000])
def test_the_clean_sample_is_about_normal(rows):
    """Whatever the units and the tail: its scores are symmetric, with quantiles of a normal."""
    clean = np.exp(2 * np.random.default_rng(0).normal(size=rows))
    found = np.sort(scores(clean, clean))
    middle = found[rows // 50 : rows - rows // 50]  # outside of the knots the tail shows
    np.testing.assert_allclose(middle, -middle[::-1], atol=0.06)
    for share, quantile in ((0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0)):
        assert np.quantile(found, share) == pytest.approx(quantile, abs=0.05)
    assert np.abs(found).max() < 5


def test_giants_weigh_no_more_than_they_should():
    """Far out is far out: in what units and how far hardly matters, nor does it ever fall."""
    found = scores(np.arange(1000.0), [999, 2000, 20_000, 200_000])
    assert (np.diff(found) >= 0).all()
    assert 2 < found[0] <= found[-1] < 10


def test_missing_values_are_average():
    values = np.array([[1.0, np.nan, 5.0], [2.0, np.nan, np.nan], [3.0, np.nan, 7.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gauge = fit_gauge(values, ["a", None, "b"])
        found = gauge.scores(np.array([[np.nan, 4.0, np.nan], [9.0, 1.0, 6.5]]), [None, None])
    assert (found[0] == 0).all()
    assert found[1, 1] == 0  # never seen, so nothing is known of it
    assert found[1, 0] > 1
    # what is missing takes no part: the knots are those of the known values
    known = fit_gauge(values[[0, 2]], [None, None]).scores(np.array([[0, 0, 6.5]]), [None])
    assert found[1, 2] == pytest.approx(known[0, 2], abs=1.0)


def test_ties_share_their_middle():
    clean = np.repeat([0.0, 1.0], [500, 500])
    low, high = scores(clean, [0.0, 1.0])
    assert low == pytest.approx(-0.674, abs=0.02)  # the quartiles of a normal
    assert high == pytest.approx(0.674, abs=0.02)


def test_a_constant_column():
    below, same, above = scores(np.full(100, 0.1), [0.0, 0.1, 0.2])
    assert same == 0
    assert below < -1
    assert above > 1
    assert np.isfinite([below, above]).all()


def test_groups_are_judged_among_themselves():
    rng = np.random.default_rng(1)
    large, small = LEAST_ROWS, LEAST_ROWS - 1
    values = np.concatenate([rng.normal(0, 1, large), rng.normal(50, 1, small)])
    groups = ["large"] * large + ["small"] * small
    gauge = fit_gauge(column(values), groups)
    everyone = fit_gauge(column(values), [None] * len(values))
    asked = column([0.0] * 4)
    found = gauge.scores(asked, ["large", None, "small", "unknown"])[:, 0]
    own = fit_gauge(column(values[:large]), [None] * large).scores(asked[:1], [None])[0, 0]
    assert found[0] == own
    assert abs(own) < 0.5
    shared = everyone.scores(asked[:1], [None])[0, 0]
    assert found[1] == shared < -0.4
    assert found[2:].tolist() == [0.0, 0.0]  # what is usual among so few is not known


def test_rows_are_scored_one_by_one():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(200, 3))
    groups = rng.choice(np.array(["a", "b", "rare"]), 200, p=[0.5, 0.48, 0.02]).tolist()
    gauge = fit_gauge(values, groups)
    together = gauge.scores(values, groups)
    alone = np.concatenate([gauge.scores(values[i : i + 1], groups[i : i + 1]) for i in range(200)])
    np.testing.assert_array_equal(together, alone)
    order = rng.permutation(200)
    again = fit_gauge(values[order], [groups[i] for i in order]).scores(values, groups)
    np.testing.assert_array_equal(again, together)


def planted(seed, clean=300, damaged=120):
    """Five features: two of damage, one that falls with it, two of nothing."""
    rng = np.random.default_rng(seed)
    good = rng.normal(size=(clean, 5))
    bad = rng.normal([1.0, 0.5, -0.8, 0.0, 0.0], size=(damaged, 5))
    return good, bad, rng.uniform(0.2, 2.0, damaged)


def objective(good, bad, weights, penalty, found, bias):
    """The penalised loss and its gradient, written out row by row."""
    value, slope = penalty / 2 * (found @ found), np.append(penalty * found, 0.0)
    sides = [(good, -1.0, np.full(len(good), 1 / len(good))), (bad, 1.0, weights / weights.sum())]
    for rows, sign, shares in sides:
        for row, share in zip(rows, shares, strict=True):
            margin = sign * (row @ found + bias)
            value += 0.5 * share * np.log1p(np.exp(-margin))
            slope -= 0.5 * share * sign / (1 + np.exp(margin)) * np.append(row, 1.0)
    return value, slope


@pytest.mark.parametrize("penalty", [1e-3, 1e-1])
def test_regression_is_scikit_learns(penalty):
    good, bad, weights = planted(0)
    found, bias = fit_logistic(good, bad, weights, np.zeros(5, bool), penalty)
    share = np.concatenate([np.full(len(good), 0.5 / len(good)), 0.5 * weights / weights.sum()])
    theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
    x = np.concatenate([good, bad])
    theirs.fit(x, np.arange(len(x)) >= len(good), sample_weight=share)
    np.testing.assert_allclose(found, theirs.coef_[0], atol=2e-3)
    assert bias == pytest.approx(theirs.intercept_[0], abs=2e-3)
    ours = objective(good, bad, weights, penalty, found, bias)[0]
    best = objective(good, bad, weights, penalty, theirs.coef_[0], theirs.intercept_[0])[0]
    assert ours <= best + 1e-7


@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_and_nothing_better_is_within_them(seed):
    """The conditions of Karush, Kuhn and Tucker: no slope inside, only uphill from a bound."""
    good, bad, weights = planted(seed)
    monotone = np.array([True, True, True, True, False])
    found, bias = fit_logistic(good, bad, weights, monotone, 1e-2)
    assert (found[monotone] >= 0).all()
    assert found[2] == 0  # falls with damage, and may not
    assert found[0] > 0.3
    slope = objective(good, bad, weights, 1e-2, found, bias)[1]
    held = np.append(monotone & (found == 0), False)
    assert np.abs(slope[~held]).max() < 1e-4
    assert (slope[held] > -1e-4).all()


def test_both_kinds_count_alike():
    """More of the same clean records, or larger weights all over, change nothing."""
    good, bad, weights = planted(5)
    free = np.zeros(5, bool)
    once = fit_logistic(good, bad, weights, free, 1e-2)
    for other in (
        fit_logistic(np.tile(good, (4, 1)), bad, weights, free, 1e-2),
        fit_logistic(good, bad, 7 * weights, free, 1e-2),
        fit_logistic(
            good, np.concatenate([bad, bad]), np.concatenate([weights, weights]), free, 1e-2
        ),
    ):
        np.testing.assert_allclose(other[0], once[0], atol=2e-3)
        assert other[1] == pytest.approx(once[1], abs=2e-3)


def test_a_weight_is_a_count():
    good, bad, _ = planted(6)
    counts = np.random.default_rng(6).integers(1, 4, len(bad))
    free = np.zeros(5, bool)
    weighed = fit_logistic(good, bad, counts.astype(float), free, 1e-2)
    repeated = np.repeat(bad, counts, axis=0)
    spelled = fit_logistic(good, repeated, np.ones(len(repeated)), free, 1e-2)
    np.testing.assert_allclose(weighed[0], spelled[0], atol=2e-3)


def test_a_feature_that_tells_all_stays_finite():
    good, bad = np.zeros((50, 1)), np.full((50, 1), 40.0)
    found, bias = fit_logistic(good, bad, np.ones(50), np.ones(1, bool), 1e-3)
    assert np.isfinite([found[0], bias]).all()
    assert 40 * found[0] + bias > 2
    assert bias < -2


def test_families_count_alike():
    families = np.array(["a", "b", "a", "c", "a", "b"])
    weights = even(families)
    for family in "abc":
        assert weights[families == family].sum() == pytest.approx(1)
        assert len(set(weights[families == family])) == 1
