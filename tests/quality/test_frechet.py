"""Frechet distance against the formula, its guard, and its bias."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import kstest
from threadpoolctl import threadpool_limits

from shardwright.quality.heterogeneity.frechet import frechet, frechet_distance
from shardwright.quality.heterogeneity.permutation import deals, p_value, pool


def samples(seed, n=40, d=6, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mixing, rng.normal(size=(n, d)) @ mixing + shift


def formula(x, y):
    a, b = np.cov(x.T), np.cov(y.T)
    apart = x.mean(axis=0) - y.mean(axis=0)
    return apart @ apart + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real


def test_it_is_the_formula():
    x, y = samples(1, shift=0.5)
    assert frechet_distance(x, y) == pytest.approx(formula(x, y), rel=1e-7)
    assert frechet(x, y, permutations=1).value == frechet_distance(x, y)


def test_threads_change_no_bit():
    x, y = np.random.default_rng(333).standard_normal((2, 333, 77)) + np.array([[[0]], [[0.05]]])
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            found.append((frechet(x, y, permutations=9), frechet_distance(x, y)))
    assert found[0] == found[1] == found[2]


def test_known_gaussians():
    """Rows whose mean and covariance are exact: mean 0 or 3, standard deviations 1, 2 and 4, 1."""
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)
    x, y = corners * [1, 2], corners * [4, 1] + [3, 0]
    assert frechet_distance(x, y) == pytest.approx(9 + 9 + 1, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(5, 20), (20, 20), (21, 20), (300, 20)])
def test_few_rows_or_rows_in_a_plane(n, d):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, n, d))
    # the nuclear norm of the product of the roots is the trace
    a, b = (part - part.mean(axis=0) for part in (x, y))
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum() / (n - 1)
    apart = x.mean(axis=0) - y.mean(axis=0)
    wanted = apart @ apart + ((a**2).sum() + (b**2).sum()) / (n - 1) - 2 * trace
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-6)
    flat = np.concatenate([x, np.zeros((n, 3)), x[:, :2]], axis=1)
    other = np.concatenate([y, np.zeros((n, 3)), y[:, :2]], axis=1)
    svd = np.linalg.svd((flat - flat.mean(0)) @ (other - other.mean(0)).T, compute_uv=False)
    total = (flat.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)).sum()
    gap = flat.mean(axis=0) - other.mean(axis=0)
    wanted = gap @ gap + total - 2 * svd.sum() / (n - 1)
    assert frechet_distance(flat, other) == pytest.approx(wanted, rel=1e-5)


def test_equal_samples_are_no_distance_apart():
    x, _ = samples(2, n=100, d=12)
    assert frechet_distance(x, x[::-1]) < 1e-6 * x.var(axis=0).sum()


def test_unequal_sizes_are_refused():
    x, y = samples(3)
    for measure in (frechet, frechet_distance):
        with pytest.raises(ValueError, match="samples of 40 and 39 rows"):
            measure(x, y[:-1])


def test_null_is_that_of_a_loop():
    x, y = samples(4, n=20, d=3, shift=0.4)
    kinds = np.arange(20) % 2, np.arange(20) % 2
    found = frechet(x, y, permutations=60, seed=2, strata=kinds)
    both = pool(x, y, kinds)
    loop = np.array(
        [
            formula(both.rows[labels], both.rows[~labels])
            for block in deals(both.first, both.cells, 60, 2)
            for labels in block
        ]
    )
    assert found.null_mean == pytest.approx(loop.mean(), rel=1e-7)
    assert found.null_sd == pytest.approx(loop.std(), rel=1e-6)
    assert found.p_value == p_value(formula(x, y), loop)
    assert 1 / 61 < found.p_value < 1


def test_bias_is_in_the_null_and_not_in_the_effect():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 100, 50))
    found = frechet(x, y, permutations=39)
    assert found.value > 10
    assert abs(found.effect_size) < 0.03
    assert found.p_value > 0.05
    moved = frechet(x, y + 0.3, permutations=39)
    assert moved.p_value == 1 / 40
    assert moved.effect_size > 0.04


def test_order_of_rows_and_samples_changes_nothing():
    x, y = samples(6)
    wanted = frechet(x, y, permutations=20)
    assert frechet(y, x, permutations=20) == wanted
    assert frechet(x[::-1], y, permutations=20) == wanted


def test_equal_groups_give_uniform_p():
    rng = np.random.default_rng(30)
    found = []
    for repeat in range(200):
        x, y = samples(5000 + repeat, n=10, d=2)
        found.append(frechet(x, y, permutations=29, seed=repeat).p_value)
    assert kstest(np.array(found) - rng.random(200) / 30, "uniform").pvalue > 0.01
