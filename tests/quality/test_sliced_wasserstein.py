"""Sliced Wasserstein against distances on a line, its null against a loop."""

import numpy as np
import pytest
from scipy.stats import kstest, wasserstein_distance
from threadpoolctl import threadpool_limits

from shardwright.quality.heterogeneity.permutation import deals, p_value, pool
from shardwright.quality.heterogeneity.wasserstein import _pieces, sliced_wasserstein


def samples(seed, n=24, m=18, d=4, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def on_a_line(x, y, order):
    """Both samples repeated to the same length, sorted, and compared place by place."""
    length = np.lcm(len(x), len(y))
    a, b = (np.sort(np.repeat(part, length // len(part))) for part in (x, y))
    return np.mean(np.abs(a - b) ** order)


def sliced(x, y, order, axes):
    found = np.mean([on_a_line(x @ axis, y @ axis, order) for axis in axes])
    return found if order == 1 else np.sqrt(found)


def directions(count, d, seed):
    axes = np.random.default_rng([seed, 1]).normal(size=(count, d))
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def test_threads_change_no_bit():
    x, y = samples(500, 500, 500, d=130, shift=0.05)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            found.append(sliced_wasserstein(x, y, permutations=29))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("n", "m"), [(2, 2), (7, 5), (12, 18), (30, 30), (2, 31)])
def test_on_a_line_it_is_the_distance_of_quantile_functions(n, m):
    x, y = samples(n + m, n, m, d=1, shift=0.3)
    found = sliced_wasserstein(x, y, directions=3, permutations=1)
    assert found.value == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-12)
    square = sliced_wasserstein(x, y, order=2, directions=3, permutations=1)
    assert square.value == pytest.approx(np.sqrt(on_a_line(x[:, 0], y[:, 0], 2)), rel=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("m", [18, 24])
def test_value_and_null_are_those_of_a_loop(order, strata, m):
    x, y = samples(3, m=m, shift=0.0)
    kinds = (np.arange(24) % 3, np.arange(m) % 3) if strata else None
    found = sliced_wasserstein(
        x, y, order=order, directions=9, permutations=120, seed=4, strata=kinds
    )
    axes = directions(9, 4, 4)
    value = sliced(x, y, order, axes)
    both = pool(x, y, kinds)
    loop = np.array(
        [
            sliced(both.rows[labels], both.rows[~labels], order, axes)
            for block in deals(both.first, both.cells, 120, 4)
            for labels in block
        ]
    )
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.null_mean == pytest.approx(loop.mean(), rel=1e-12)
    assert found.null_sd == pytest.approx(loop.std(), rel=1e-10)
    assert found.p_value == p_value(value, loop)
    assert 2 / 121 < found.p_value < 0.9
    spread = np.sqrt(np.mean([(part @ axes.T).var(axis=0, ddof=1).mean() for part in (x, y)]))
    assert found.effect_size == pytest.approx((value - loop.mean()) / spread, rel=1e-9)


def test_pieces_cover_the_line():
    for n, m in [(1, 1), (3, 3), (4, 6), (5, 7)]:
        of_x, of_y, widths = _pieces(n, m)
        assert widths.sum() == pytest.approx(1)
        assert np.allclose(np.bincount(of_x, widths), 1 / n)
        assert np.allclose(np.bincount(of_y, widths), 1 / m)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 27)])
def test_order_of_rows_and_samples_changes_nothing(n, m):
    x, y = samples(9, n, m)
    wanted = sliced_wasserstein(x, y, permutations=50)
    assert sliced_wasserstein(y, x, permutations=50) == wanted
    order = np.random.default_rng(0).permutation(n)
    assert sliced_wasserstein(x[order], y[::-1], permutations=50) == wanted


def test_planted_shift_is_found():
    found = sliced_wasserstein(*samples(1, 200, 150, shift=0.4), permutations=199)
    assert found.p_value == 1 / 200
    assert 0.1 < found.effect_size < 0.5
    wide, narrow = samples(2, 80, 80)
    spread = sliced_wasserstein(3 * wide, narrow)
    assert spread.p_value == 1 / 1000


@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_equal_groups_give_uniform_p(order, strata):
    rng = np.random.default_rng(21)
    found = []
    for repeat in range(200):
        x, y = samples(3000 + repeat, 13, 10, d=3)
        kinds = None
        if strata:
            kinds = np.arange(13) % 2, np.arange(10) % 2
            x, y = x + 5 * kinds[0][:, None], y + 5 * kinds[1][:, None]
        outcome = sliced_wasserstein(
            x, y, order=order, directions=8, permutations=99, seed=repeat, strata=kinds
        )
        found.append(outcome.p_value)
    assert kstest(np.array(found) - rng.random(200) / 100, "uniform").pvalue > 0.01


def test_wrong_settings_are_named():
    x, y = samples(0)
    with pytest.raises(ValueError, match="order 3"):
        sliced_wasserstein(x, y, order=3)
    with pytest.raises(ValueError, match="directions 0"):
        sliced_wasserstein(x, y, directions=0)
