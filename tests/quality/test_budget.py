"""What repeated data is worth: published values, limits, and fits that find planted constants."""

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.errors import UserError
from shardwright.quality import budget_fit
from shardwright.quality.budget import (
    FilteringLaw,
    Pool,
    RepetitionLaw,
    describe,
    plan,
)
from shardwright.quality.budget_fit import Curve, Run, fit_pool, fit_pools, fit_repetition

LAW = RepetitionLaw()
COUNTS = st.floats(1e3, 1e13)

# As its authors publish them: buckets by T-MARS of 12.8 million samples each, error on ImageNet.
SIZE = 12.8e6
UTILITY = FilteringLaw("utility", 0.025, 0.1)
UTILITY_POOLS = [
    Pool(-0.16, 6.7272727272727275),
    Pool(-0.125, 8.545454545454547),
    Pool(-0.1, 5.2727272727272725),
    Pool(-0.085, 2.2727272727272725),
]
DATA = FilteringLaw("data", 0.022, 0.1)
DATA_POOLS = [
    Pool(-0.18227272727272728, 4.0),
    Pool(-0.14484848484848487, 4.363636363636363),
    Pool(-0.13530303030303031, 2.909090909090909),
    Pool(-0.09757575757575758, 1.4545454545454546),
]
# Accuracy that their code predicts for the best one to four buckets, and the best number of them.
PREDICTED: list[tuple[FilteringLaw, list[Pool], float, list[float], int]] = [
    (UTILITY, UTILITY_POOLS, 32e6, [0.1825, 0.1584, 0.1342, 0.1168], 1),
    (UTILITY, UTILITY_POOLS, 64e6, [0.2462, 0.2330, 0.2040, 0.1799], 1),
    (UTILITY, UTILITY_POOLS, 128e6, [0.2873, 0.2960, 0.2677, 0.2413], 2),
    (UTILITY, UTILITY_POOLS, 640e6, [0.3118, 0.3855, 0.3756, 0.3514], 2),
    (DATA, DATA_POOLS, 32e6, [0.1825, 0.1714, 0.1598, 0.1391], 1),
    (DATA, DATA_POOLS, 64e6, [0.2458, 0.2442, 0.2323, 0.2083], 1),
    (DATA, DATA_POOLS, 128e6, [0.2863, 0.3053, 0.2955, 0.2694], 2),
    (DATA, DATA_POOLS, 640e6, [0.3077, 0.3902, 0.4009, 0.3792], 3),
]


def test_published_losses() -> None:
    """The two models that the authors compare in the README of their code."""
    assert LAW.loss(6.34e9, 242e9, 25e9) == pytest.approx(2.2256440889984477, rel=1e-12)
    assert LAW.loss(8.67e9, 178e9, 25e9) == pytest.approx(2.2269634075087867, rel=1e-12)
    both = LAW.loss(np.array([6.34e9, 8.67e9]), np.array([242e9, 178e9]), 25e9)
    np.testing.assert_allclose(both, [2.2256440889984477, 2.2269634075087867], rtol=1e-12)


def test_published_optimum() -> None:
    """Theirs is the best point of a coarse grid."""
    best = LAW.optimum(1e22, 25e9)
    assert best.tokens == pytest.approx(237.34e9, rel=1e-3)
    assert best.parameters == pytest.approx(7.022e9, rel=1e-3)
    assert best.epochs == pytest.approx(9.49, abs=0.01)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e22, rel=1e-12)
    assert best.loss == pytest.approx(float(LAW.loss(best.parameters, best.tokens, 25e9)))


@pytest.mark.parametrize("flops", [1e12, 1e18, 1e22, 1e26])
@pytest.mark.parametrize("unique", [1e6, 1e9, 1e15])
def test_nothing_is_better_than_the_optimum(flops: float, unique: float) -> None:
    best = LAW.optimum(flops, unique)
    parameters = np.exp(np.linspace(0, math.log(flops / 6), 20_011))
    losses = LAW.loss(parameters, flops / 6 / parameters, unique)
    assert losses.min() >= best.loss * (1 - 1e-12)
    near = best.parameters * np.array([0.99, 1.01])
    assert (LAW.loss(near, flops / 6 / near, unique) >= best.loss * (1 - 1e-12)).all()


def test_optimum_without_repetition_is_the_compute_optimal_one() -> None:
    best = LAW.optimum(1e21, 1e15)
    assert best.epochs < 1
    assert best.parameters == pytest.approx(float(LAW.optimal_parameters(best.tokens)), rel=1e-6)
    assert math.exp(LAW.log_a) == pytest.approx(520.82, abs=0.01)
    assert math.exp(LAW.log_b) == pytest.approx(1487.72, abs=0.01)
    g = math.sqrt(float(LAW.optimal_parameters(1.0)))
    assert g == pytest.approx(0.225802, abs=1e-6)


@pytest.mark.parametrize(
    ("epochs", "worth"),
    [(1, 1.0), (2, 1.968), (4, 3.726), (8, 6.624), (16, 10.58), (40, 15.17), (100, 16.36)],
)
def test_worth_by_epochs(epochs: int, worth: float) -> None:
    assert LAW.effective_data(1e9, epochs * 1e9) / 1e9 == pytest.approx(worth, rel=5e-4)


def test_what_is_not_reached_makes_no_model_larger() -> None:
    assert LAW.loss(1e9, 1e8, 1e12) == LAW.loss(1e9, 1e8, 1e8)


def test_worth_has_a_limit() -> None:
    assert LAW.effective_data(1e9, 1e30) == pytest.approx((1 + LAW.data_decay) * 1e9)
    assert LAW.effective_data(1e9, 4e8) == 4e8, "what is not reached does not count"


@given(unique=COUNTS, seen=COUNTS, more=st.floats(1, 100))
def test_worth_by_its_definition(unique: float, seen: float, more: float) -> None:
    worth = float(LAW.effective_data(unique, seen))
    used = min(unique, seen)
    repeats = seen / used - 1
    star = LAW.data_decay
    assert worth == pytest.approx(used + used * star * (1 - math.exp(-repeats / star)))
    assert worth <= seen * (1 + 1e-12)
    assert worth <= float(LAW.effective_data(unique, seen * more)) * (1 + 1e-12)
    assert worth <= float(LAW.effective_data(unique * more, seen)) * (1 + 1e-12)


@given(parameters=COUNTS, unique=COUNTS)
def test_excess_parameters_by_their_definition(parameters: float, unique: float) -> None:
    worth = float(LAW.effective_parameters(parameters, unique))
    base = min(parameters, float(LAW.optimal_parameters(unique)))
    excess, star = parameters / base - 1, LAW.parameter_decay
    assert worth == pytest.approx(base + base * star * (1 - math.exp(-excess / star)))
    assert worth <= parameters * (1 + 1e-12)


@pytest.mark.parametrize(("flops", "unique"), [(6.0, 1e9), (1e20, 0.0), (math.nan, 1.0)])
def test_no_optimum(flops: float, unique: float) -> None:
    with pytest.raises(UserError, match="more than 6"):
        LAW.optimum(flops, unique)


def test_plan() -> None:
    rows = plan(25e9, 100e9, (1.0, 0.5, 0.1))
    assert [row.kept for row in rows] == [1.0, 0.5, 0.1]
    assert [row.unique for row in rows] == [25e9, 12.5e9, 2.5e9]
    assert [row.epochs for row in rows] == [4, 8, 40]
    assert [row.effective / row.unique for row in rows] == pytest.approx(
        [3.726, 6.624, 15.17], rel=5e-4
    )
    assert [row.value for row in rows] == pytest.approx([0.9314, 0.828, 0.3792], abs=2e-4)
    assert [row.gain for row in rows] == pytest.approx(
        [1, 4 * 0.9314 / (8 * 0.828) * 2, 0.9314 / 0.3792], rel=1e-3
    )
    assert [row.kept for row in plan(1e9, 1e9)] == [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


def test_plan_where_the_budget_ends_first() -> None:
    rows = plan(100e9, 20e9, (1.0, 0.2, 0.1))
    assert [row.epochs for row in rows] == pytest.approx([0.2, 1, 2])
    assert [row.effective for row in rows] == pytest.approx([20e9, 20e9, 1.968 * 10e9], rel=5e-4)
    assert [row.gain for row in rows][:2] == pytest.approx([1, 1])


@given(unique=COUNTS, tokens=COUNTS)
def test_less_data_is_worth_less(unique: float, tokens: float) -> None:
    rows = plan(unique, tokens)
    gains = [row.gain for row in rows]
    assert gains[0] == pytest.approx(1)
    assert all(b >= a * (1 - 1e-12) for a, b in itertools.pairwise(gains))
    assert gains[-1] <= 10 * (1 + 1e-9), "a tenth of the data is worth a tenth at least"
    # without a share of 1 the gain is still against all the data
    assert plan(unique, tokens, (0.1,))[0] == rows[-1]


def test_plan_follows_the_law() -> None:
    slow, fast = (plan(1e9, 9e9, (0.5,), RepetitionLaw(data_decay=d))[0] for d in (50, 2))
    assert slow.gain < fast.gain
    assert slow.value > fast.value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1e9), "unique_tokens = 0"),
        ((1e9, -1.0), "budget_tokens = -1.0"),
        ((1e9, math.inf), "budget_tokens = inf"),
        ((1e9, 1e9, (0.5, 0.0)), "fractions: 0.0"),
        ((1e9, 1e9, (1.5,)), "fractions: 1.5"),
    ],
)
def test_plans_that_cannot_be(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(*arguments)


def test_description() -> None:
    assert describe(plan(25e9, 100e9, (1.0, 0.25, 0.001))) == [
        "100.00B tokens of training, 25.00B unique tokens:",
        " kept  unique   epochs    worth  of budget  gain needed",
        "    1  25.00B     4.00   93.14B      93.1%       1.000x",
        " 0.25   6.25B    16.00   66.14B      66.1%       1.408x",
        "0.001  25.00M  4000.00  409.69M       0.4%     227.345x",
    ]
    assert describe([]) == []
    assert describe(plan(999.4, 999_600, (0.5,)))[0] == (
        "1.00M tokens of training, 999 unique tokens:"
    )


@pytest.mark.parametrize(("law", "pools", "samples", "accuracies", "best"), PREDICTED)
def test_published_predictions(
    law: FilteringLaw, pools: list[Pool], samples: float, accuracies: list[float], best: int
) -> None:
    found = law.best_pools(pools[::-1], SIZE, samples)
    assert [1 - error for error in found.errors] == pytest.approx(accuracies, abs=5.1e-5)
    assert found.pools == tuple(pools[:best])
    for number, error in enumerate(found.errors, start=1):
        assert law.error(pools[:number], SIZE, samples) == error


def plainly(law: FilteringLaw, pool: Pool, size: float, samples: float) -> float:
    """The laws for one pool, word by word."""
    ends = [min(size * (k + 1), samples) for k in range(math.ceil(samples / size))]
    m = [law.normaliser * end / 1e5 for end in ends]
    worth = [0.5 ** (k / pool.half_life) for k in range(len(m))]
    if law.form == "data":
        seen = sum((b - a) * w for a, b, w in zip([0, *m], m, worth, strict=False))
        return seen**pool.utility + law.floor
    y = m[0] ** pool.utility + law.floor
    for k in range(1, len(m)):
        y *= (m[k] / m[k - 1]) ** (pool.utility * worth[k])
    return y


@given(
    form=st.sampled_from(["utility", "data"]),
    utility=st.floats(-0.5, -0.01),
    half_life=st.floats(0.2, 20),
    size=st.floats(1e4, 1e8),
    epochs=st.floats(0.01, 30),
)
def test_one_pool_by_definition(
    form: Any, utility: float, half_life: float, size: float, epochs: float
) -> None:
    law, pool = FilteringLaw(form, 0.05, 0.07), Pool(utility, half_life)
    error = law.error([pool], size, size * epochs)
    assert error == pytest.approx(plainly(law, pool, size, size * epochs), rel=1e-9)
    # pools that are all alike are one large pool, in which a sample comes as often
    alike = law.error([pool] * 3, size / 3, size * epochs)
    large = Pool(utility, 3 * half_life)
    assert alike == pytest.approx(plainly(law, large, size, size * epochs), rel=1e-9)


@pytest.mark.parametrize(("pools", "size", "n"), [([], 1, 1), ([Pool(-1, 1)], 0, 1), ([], 0, 0)])
def test_no_error_without_samples(pools: list[Pool], size: float, n: float) -> None:
    for ask in (UTILITY.error, UTILITY.best_pools):
        with pytest.raises(UserError, match="at least one"):
            ask(pools, size, n)


def curve(law: FilteringLaw, pool: Pool, size: float = SIZE, noise: float = 0.0) -> Curve:
    """Errors after 2, 4 ... 10 epochs, as the authors measure them."""
    samples = tuple(size * epochs for epochs in (2, 4, 6, 8, 10))
    rng = np.random.default_rng(round(1000 * pool.half_life))
    errors = [law.error([pool], size, n) + noise * rng.standard_normal() for n in samples]
    return Curve(samples, tuple(errors), size)


@pytest.mark.parametrize(("law", "pools"), [(UTILITY, UTILITY_POOLS), (DATA, DATA_POOLS)])
def test_planted_pools_are_found(law: FilteringLaw, pools: list[Pool]) -> None:
    found = fit_pools([curve(law, pool) for pool in pools], law.form)
    assert found.residual < 1e-9
    assert found.law.normaliser == pytest.approx(law.normaliser, rel=1e-5)
    for one, planted in zip(found.pools, pools, strict=True):
        assert one.utility == pytest.approx(planted.utility, rel=1e-5)
        assert one.half_life == pytest.approx(planted.half_life, rel=1e-5)


@pytest.mark.parametrize(("law", "pools"), [(UTILITY, UTILITY_POOLS), (DATA, DATA_POOLS)])
def test_planted_pools_under_noise(law: FilteringLaw, pools: list[Pool]) -> None:
    found = fit_pools([curve(law, pool, noise=0.0005) for pool in pools], law.form)
    assert 1e-4 < found.residual < 1e-3
    for one, planted in zip(found.pools, pools, strict=True):
        assert one.utility == pytest.approx(planted.utility, rel=0.05)
        assert one.half_life == pytest.approx(planted.half_life, rel=0.15)
    for samples in (32e6, 128e6, 640e6):
        expected = law.best_pools(pools, SIZE, samples)
        choice = found.law.best_pools(found.pools, SIZE, samples)
        assert len(choice.pools) == len(expected.pools)
        assert choice.errors == pytest.approx(expected.errors, abs=0.01)


def test_a_small_pool_has_another_normaliser() -> None:
    law, pool = FilteringLaw("utility", 3.0, 0.1), Pool(-0.3, 4.0)
    data = curve(law, pool, size=1e5)
    found = fit_pool(data.samples, data.errors, 1e5)
    assert found == fit_pools([data])
    assert found.law.normaliser == pytest.approx(3, rel=1e-5)
    assert found.pools[0].utility == pytest.approx(-0.3, rel=1e-5)
    assert found.pools[0].half_life == pytest.approx(4, rel=1e-5)


@pytest.mark.parametrize("form", ["utility", "data"])
def test_grid_is_that_of_its_definition(form: Any) -> None:
    """The sums of squares over the grid, split into products, against point by point."""
    data = curve(UTILITY, UTILITY_POOLS[1])
    data = Curve((5e6, *data.samples), (0.97, *data.errors), SIZE)
    sums = budget_fit._sums_of_squares(data, form, 0.1, budget_fit._NORMALISERS)
    assert sums.shape == (100, 100, 100)
    for a, b, tau in ((12, 30, 60), (99, 0, 0), (0, 99, 99), (50, 50, 3)):
        law = FilteringLaw(form, float(budget_fit._NORMALISERS[a]), 0.1)
        pool = Pool(float(budget_fit._UTILITIES[b]), float(budget_fit._HALF_LIVES[tau]))
        squares = [
            (law.error([pool], SIZE, n) - error) ** 2
            for n, error in zip(data.samples, data.errors, strict=True)
        ]
        assert sums[a, b, tau] == pytest.approx(sum(squares), rel=1e-9, abs=1e-12)


GOOD = curve(UTILITY, UTILITY_POOLS[0])


@pytest.mark.parametrize(
    ("samples", "errors", "message"),
    [
        (GOOD.samples[:3], GOOD.errors[:3], "3 points"),
        (GOOD.samples, GOOD.errors[1:], "5 samples and 4 errors"),
        ((1e6, 2e6, 3e6, 4e6), (0.9, 0.8, 0.7, 0.6), "half-life"),
        ((13e6, 13e6, 26e6, 26e6), (0.9, 0.9, 0.8, 0.8), "half-life"),
        ((*GOOD.samples[1:], -1.0), GOOD.errors, "above 0"),
        (GOOD.samples, (*GOOD.errors[1:], 1.5), "at most 1"),
        (GOOD.samples, (*GOOD.errors[1:], math.nan), "at most 1"),
    ],
)
def test_curves_that_settle_nothing(samples: Any, errors: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"curve 1.*{message}"):
        fit_pools([GOOD, Curve(samples, errors, SIZE)])
    with pytest.raises(UserError, match="no curves"):
        fit_pools([])


def grid_of_runs(law: RepetitionLaw, noise: float = 0.0) -> list[Run]:
    """Models of 30 million to a billion parameters, 1 to 50 epochs of 0.1 to 2 billion tokens."""
    rng = np.random.default_rng(7)
    runs = []
    for size, unique, epochs in itertools.product(
        (3e7, 1e8, 3e8, 1e9), (1e8, 5e8, 2e9), (1, 4, 16, 50)
    ):
        loss = float(law.loss(size, unique * epochs, unique))
        loss *= math.exp(noise * rng.standard_normal())
        runs.append(Run(size, unique * epochs, unique, loss))
    return runs


def test_planted_law_is_found() -> None:
    planted = RepetitionLaw(5.6, 8.1, 0.4, 0.32, 0.39, 8.0, 4.0)
    found = fit_repetition(grid_of_runs(planted))
    assert found.residual < 1e-6
    for name in budget_fit.CONSTANTS:
        assert getattr(found.law, name) == pytest.approx(getattr(planted, name), rel=1e-3), name


def test_planted_decay_under_noise_and_a_failed_run() -> None:
    """Noise of 0.2%; a run that diverged does not count for more than its place."""
    planted = RepetitionLaw(data_decay=7.0)
    runs = grid_of_runs(planted, 0.002)
    found = fit_repetition(runs)
    assert found.residual == pytest.approx(0.002, rel=0.3)
    assert found.law.data_decay == pytest.approx(7, rel=0.1)
    runs[3] = Run(runs[3].parameters, runs[3].tokens, runs[3].unique, 2 * runs[3].loss)
    found = fit_repetition(runs, ("data_decay",))
    assert found.law.data_decay == pytest.approx(7, rel=0.1)
    assert found.law == RepetitionLaw(data_decay=found.law.data_decay)
    assert found.residual > 0.05


def test_standard_errors_are_as_large_as_the_errors() -> None:
    """Over noise drawn anew, estimates lie about the planted value as far as the errors say."""
    planted, free = RepetitionLaw(data_decay=7.0), ("log_b", "data_decay", "parameter_decay")
    runs = grid_of_runs(planted)
    off = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        factors = np.exp(0.003 * rng.standard_normal(len(runs))).tolist()
        noisy = [
            Run(r.parameters, r.tokens, r.unique, r.loss * f)
            for r, f in zip(runs, factors, strict=True)
        ]
        found = fit_repetition(noisy, free)
        assert set(found.errors) == set(free)
        assert found.unsettled == ()
        off.append([(getattr(found.law, n) - getattr(planted, n)) / found.errors[n] for n in free])
    spread = np.sqrt(np.mean(np.square(off), axis=0))
    assert ((spread > 0.6) & (spread < 1.6)).all(), spread
    # a run that diverged leaves them as they are
    broken = [*noisy[:-1], Run(noisy[-1].parameters, 1e9, 1e8, 9 * noisy[-1].loss)]
    assert fit_repetition(broken, free).errors["data_decay"] == pytest.approx(
        found.errors["data_decay"], rel=0.25
    )


def test_variance_of_the_estimator_is_that_of_its_definition() -> None:
    """E psi^2 / (E psi')^2 of normal residuals, by integration; at the ends s^2, pi / 2 s^2."""
    rng = np.random.default_rng(0)
    for scale, least, most in ((1e-5, 0.99, 1.01), (1e-3, 1.05, 1.15), (1.0, 1.56, 1.58)):
        off = scale * rng.standard_normal(400)
        spread = np.median(np.abs(off)) / 0.67448975 * np.sqrt(400 / 398)
        z = np.linspace(-8, 8, 2_000_001) * spread
        weight = np.exp(-((z / spread) ** 2) / 2)
        weight /= weight.sum()
        psi = (np.clip(z, -1e-3, 1e-3) ** 2 * weight).sum()
        slope = ((np.abs(z) < 1e-3) * weight).sum()
        found = budget_fit._huber_variance(off, 2)
        assert found == pytest.approx(psi / slope**2, rel=5e-3)
        assert least < found / spread**2 < most


def test_a_constant_that_the_runs_hardly_tell_is_named() -> None:
    """Models hardly larger than their data can use do not tell the decay of excess."""
    planted, rng = RepetitionLaw(), np.random.default_rng(3)
    runs = []
    for unique, times, epochs in itertools.product((1e8, 5e8, 2e9), (0.3, 1.0, 1.3), (1, 4, 16)):
        size = times * float(planted.optimal_parameters(unique))
        loss = float(planted.loss(size, unique * epochs, unique))
        noise = math.exp(0.003 * rng.standard_normal())
        runs.append(Run(size, unique * epochs, unique, loss * noise))
    found = fit_repetition(runs, ("data_decay", "parameter_decay"))
    assert found.unsettled == ("parameter_decay",)
    assert found.errors["parameter_decay"] > found.law.parameter_decay / 2
    assert found.law.data_decay == pytest.approx(planted.data_decay, rel=0.1)
    assert found.errors["data_decay"] < 0.1 * planted.data_decay


def test_runs_that_settle_nothing() -> None:
    runs = grid_of_runs(LAW)
    with pytest.raises(UserError, match="8 runs do not settle 7 constants: give 9"):
        fit_repetition(runs[:8])
    once = [run for run in runs if run.tokens == run.unique]
    with pytest.raises(UserError, match="settle data_decay"):
        fit_repetition(once, ("data_decay",))
    one_size = [Run(1e6, n, n, float(LAW.loss(1e6, n, n))) for n in np.geomspace(1e8, 1e10, 8)]
    with pytest.raises(UserError, match=r"settle .*(log_a|log_e|alpha)"):
        fit_repetition(one_size, ("log_a", "log_e", "alpha"))
    # nothing is lost by repetition: the decay has no upper end
    free = [Run(r.parameters, r.tokens, r.tokens, r.loss) for r in runs]
    free = [
        Run(r.parameters, r.tokens, q.unique, float(LAW.loss(r.parameters, r.tokens, r.tokens)))
        for r, q in zip(free, runs, strict=True)
    ]
    with pytest.raises(UserError, match="settle data_decay"):
        fit_repetition(free, ("data_decay",))
    with pytest.raises(UserError, match="unknown"):
        fit_repetition(runs, ("unknown",))
    with pytest.raises(UserError, match="nothing"):
        fit_repetition(runs, ())
    with pytest.raises(UserError, match="above 0"):
        fit_repetition([*runs, Run(1e9, 1e9, 1e9, math.nan)])


def test_laws_are_light() -> None:
    code = (
        "import sys, shardwright.quality.budget_fit; "
        "print(*[m for m in ('scipy', 'torch', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
