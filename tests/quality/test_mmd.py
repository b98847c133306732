"""MMD against its definition, its permutation test against a loop over the same deals."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.stats import kstest
from threadpoolctl import threadpool_limits

from shardwright.quality.heterogeneity import mmd as module
from shardwright.quality.heterogeneity.mmd import (
    MEDIAN,
    MULTIPLE,
    median_bandwidth,
    mmd,
    mmd_squared,
)
from shardwright.quality.heterogeneity.permutation import deals, p_value, pool


def samples(seed, n=40, m=30, d=5, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def kernel(a, b, bandwidths):
    return np.mean([np.exp(-cdist(a, b, "sqeuclidean") / width) for width in bandwidths], axis=0)


def definition(x, y, bandwidths, biased=False):
    xx, yy, xy = (kernel(a, b, bandwidths) for a, b in ((x, x), (y, y), (x, y)))
    if biased:
        return xx.mean() + yy.mean() - 2 * xy.mean()
    n, m = len(x), len(y)
    inner = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1))
    return inner - 2 * xy.mean()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("factors", [MEDIAN, MULTIPLE])
@pytest.mark.parametrize(("n", "m"), [(2, 3), (40, 40), (17, 60), (300, 280)])
def test_value_is_the_definition(n, m, factors, biased):
    x, y = samples(n, n, m, shift=0.3)
    median = np.median(pdist(np.concatenate([x, y]), "sqeuclidean"))
    assert median_bandwidth(x, y) == pytest.approx(median, rel=1e-12)
    found = mmd(x, y, factors=factors, biased=biased, permutations=3)
    wanted = definition(x, y, [median * factor for factor in factors], biased)
    assert found.value == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biased", [False, True])
def test_value_without_a_test(dtype, biased):
    x, y = (part.astype(dtype) for part in samples(3, 200, 330, shift=0.2))
    wanted = definition(x.astype(np.float64), y.astype(np.float64), [2.0, 9.0], biased)
    assert mmd_squared(x, y, [2.0, 9.0], biased=biased) == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("factors", [MEDIAN, MULTIPLE])
def test_null_is_that_of_a_loop(factors, biased, strata):
    x, y = samples(5, 30, 21, shift=0.25)
    kinds = (np.arange(30) % 3, np.arange(21) % 3) if strata else None
    found = mmd(x, y, factors=factors, biased=biased, permutations=300, seed=7, strata=kinds)
    both = pool(x, y, kinds)
    widths = [median_bandwidth(x, y) * factor for factor in factors]
    loop = np.array(
        [
            definition(both.rows[labels], both.rows[~labels], widths, biased)
            for block in deals(both.first, both.cells, 300, 7)
            for labels in block
        ]
    )
    assert len(loop) == 300
    assert found.null_mean == pytest.approx(loop.mean(), abs=1e-5 * loop.std())
    assert found.null_sd == pytest.approx(loop.std(), rel=1e-5)
    assert found.p_value == p_value(definition(x, y, widths, biased), loop)
    assert 2 / 301 < found.p_value < 0.5
    assert found.deviation == pytest.approx((found.value - loop.mean()) / loop.std(), rel=1e-4)


def test_deals_are_as_exact_as_said():
    x, y = samples(11, 500, 450, d=64)
    both = pool(x, y)
    rows = both.rows - both.rows.mean(axis=0)
    near, width = module._median(rows, 0)
    widths = np.array([width])
    shift = module._mean_kernel(near, widths)
    labels = next(module._dealt(both, 256, 0))
    narrow = module._quadratic(rows, near, widths, shift, labels)
    n, m = both.counts
    found = module._estimate(*narrow[:3], n, m, shift, False)
    wanted = np.array([definition(rows[z > 0], rows[z == 0], widths) for z in labels[:40]])
    assert np.abs(found[:40] - wanted).max() < 2e-5 * found[1:].std()


def test_many_rows_go_by_strips_and_groups_of_deals(monkeypatch):
    x, y = samples(2, 1100, 1200, d=3, shift=0.05)
    whole = mmd(x, y, permutations=300)
    width = median_bandwidth(x, y)
    exact = np.median(pdist(np.concatenate([x, y]), "sqeuclidean"))
    assert width == pytest.approx(exact, rel=0.05)
    assert width != exact
    assert whole.value == pytest.approx(definition(x, y, [width]), abs=1e-13)
    monkeypatch.setattr(module, "_DEALT", 1)
    found = mmd(x, y, permutations=300)
    assert (found.value, found.p_value) == (whole.value, whole.p_value)
    assert found.null_mean == pytest.approx(whole.null_mean, abs=1e-5 * whole.null_sd)
    assert found.null_sd == pytest.approx(whole.null_sd, rel=1e-5)


@pytest.mark.parametrize(("n", "m"), [(25, 25), (25, 31)])
def test_order_of_rows_and_samples_changes_nothing(n, m):
    x, y = samples(8, n, m)
    y[:4] = x[:4]
    kinds = np.arange(n) % 2, np.arange(m) % 2
    wanted = mmd(x, y, permutations=99, strata=kinds)
    assert mmd(y, x, permutations=99, strata=kinds[::-1]) == wanted
    rng = np.random.default_rng(0)
    i, j = rng.permutation(n), rng.permutation(m)
    assert mmd(x[i], y[j], permutations=99, strata=(kinds[0][i], kinds[1][j])) == wanted


def test_threads_change_no_bit():
    x, y = samples(333, 333, 417, d=77, shift=0.02)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            found.append((mmd(x, y, factors=MULTIPLE, permutations=99), median_bandwidth(x, y)))
    assert found[0] == found[1] == found[2]


def test_planted_shift_is_found_and_effect_does_not_grow_with_rows():
    small = mmd(*samples(1, 100, 100, shift=0.5), permutations=199)
    large = mmd(*samples(1, 800, 900, shift=0.5), permutations=199)
    assert small.p_value == large.p_value == 1 / 200
    assert large.deviation > 3 * small.deviation
    assert large.effect_size == pytest.approx(small.effect_size, rel=0.25)
    assert large.effect_size > 0.03


def test_effect_is_squared_distance_over_spread():
    x, y = samples(4, 60, 50, shift=0.4)
    width = [median_bandwidth(x, y)]
    within = [(kernel(a, a, width).sum() - len(a)) / (len(a) * (len(a) - 1)) for a in (x, y)]
    wanted = definition(x, y, width) / (1 - np.mean(within))
    assert mmd(x, y, permutations=9).effect_size == pytest.approx(wanted, rel=1e-10)
    assert mmd(x, y, permutations=9, biased=True).effect_size == pytest.approx(wanted, rel=1e-10)


def test_content_is_no_shift_within_strata():
    rng = np.random.default_rng(3)
    kinds = np.repeat([0, 1], [80, 20]), np.repeat([0, 1], [20, 80])
    x, y = (rng.normal(size=(100, 4)) + 3 * part[:, None] for part in kinds)
    assert mmd(x, y, permutations=199).p_value == 1 / 200
    assert mmd(x, y, permutations=199, strata=kinds).p_value > 0.1


@pytest.mark.parametrize("strata", [False, True])
def test_equal_groups_give_uniform_p(strata):
    rng = np.random.default_rng(12)
    found = []
    for repeat in range(200):
        x, y = samples(1000 + repeat, 14, 11, d=3)
        kinds = None
        if strata:
            kinds = np.arange(14) % 2, np.arange(11) % 2
            x, y = x + 5 * kinds[0][:, None], y + 5 * kinds[1][:, None]
        found.append(mmd(x, y, permutations=99, seed=repeat, strata=kinds).p_value)
    assert kstest(np.array(found) - rng.random(200) / 100, "uniform").pvalue > 0.01


def test_equal_rows_throughout():
    found = mmd(np.ones((5, 2)), np.ones((6, 2)), permutations=19)
    assert (found.value, found.effect_size, found.p_value) == (0, 0, 1)
    assert np.isnan(found.deviation)


def test_wrong_input_is_named():
    x, y = samples(0)
    with pytest.raises(ValueError, match="5 dimensions and y has 4"):
        mmd(x, y[:, :4])
    with pytest.raises(ValueError, match="y has 1 rows"):
        mmd(x, y[:1])
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3 of y holds NaN"):
        mmd(x, y)
    with pytest.raises(ValueError, match="0 permutations"):
        mmd(x, x, permutations=0)
    with pytest.raises(ValueError, match="must be positive"):
        mmd(x, x, factors=())
    with pytest.raises(ValueError, match="each row must have one"):
        mmd(x, x, strata=(np.zeros(3), np.zeros(40)))


def test_deals_keep_counts_and_are_even():
    first = np.array([True, True, False, False, True, False, False, True])
    cells = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    dealt = np.concatenate(list(deals(first, cells, 3000, 5)))
    for cell in range(4):
        inside = dealt[:, cells == cell]
        assert (inside.sum(axis=1) == first[cells == cell].sum()).all()
    assert np.allclose(dealt[:, :3].mean(axis=0), 2 / 3, atol=0.04)
    assert np.allclose(dealt[:, 3:6].mean(axis=0), 1 / 3, atol=0.04)
    again = np.concatenate(list(deals(first, cells, 300, 5)))
    assert (again == dealt[:300]).all()


def test_equal_keys_still_deal_the_right_number():
    from shardwright.quality.heterogeneity.permutation import _smallest

    keys = np.array([[5, 5, 5, 1], [1, 2, 3, 4]], np.uint32)
    wanted = [[True, False, False, True], [True, True, False, False]]
    assert _smallest(keys, 2).tolist() == wanted


def test_pooled_rows_come_in_the_order_of_their_numbers():
    rng = np.random.default_rng(4)
    x, y = rng.integers(-2, 3, size=(2, 30, 3)) / 2.0
    y[0] = [-0.0, -1e-300, 1e300]
    kinds = rng.integers(3, size=(2, 30))
    both = pool(x, y, tuple(kinds))
    wanted = sorted(
        [kind, *row.tolist()]
        for part, of in zip((x, y), kinds, strict=True)
        for kind, row in zip(of, part, strict=True)
    )
    assert np.column_stack([both.cells, both.rows]).tolist() == wanted
    source = np.concatenate([x, y])
    assert (source[both.places] == both.rows).all()
    assert (both.first == ((both.places >= 30) == both.from_y)).all()
