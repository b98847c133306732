"""``kernel_sum``: exact slices, its own exp, and sums whose bits nothing but the input decides."""

import subprocess
import sys
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright import kernels
from shardwright.kernels import rbf
from shardwright.kernels.exact import fold

DIGITS = Context(prec=60)
GAMMAS = torch.tensor([0.0, 0.25, 1.0, 7.5], dtype=torch.float64)


def rows_of(seed, count, dimension, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, dimension, generator=generator) * scale).to(dtype)


def squared_distances(x, y):
    """Exact squared distances, fractions [N][M]."""
    exact = [[[Fraction(v) for v in row] for row in part.double().tolist()] for part in (x, y)]
    return [
        [sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in exact[1]] for p in exact[0]
    ]


def check(x, y, gammas=GAMMAS):
    """Row sums against exact distances and 60 digits, within the bound of the module."""
    total, rows = rbf.kernel_sum(x, y, gammas)
    assert total.dtype == rows.dtype == torch.float64
    assert total.shape == (len(gammas),)
    assert rows.shape == (len(gammas), len(x))
    s = np.ceil(np.log2(x.shape[1]) / 2)
    norms = [part.double().norm(dim=1).tolist() for part in (x, y)]
    for i, distances in enumerate(squared_distances(x, y)):
        for g, gamma in enumerate(gammas.tolist()):
            expected, slack = Decimal(0), 0.0
            for j, squared in enumerate(distances):
                wide = DIGITS.divide(Decimal(squared.numerator), Decimal(squared.denominator))
                value = DIGITS.exp(DIGITS.multiply(Decimal(-gamma), wide))
                expected = DIGITS.add(expected, value)
                reach = norms[0][i] + norms[1][j]
                dropped = 2.0 ** (2 * s - 51) * reach
                error = 2 * float(wide) ** 0.5 * dropped + dropped**2 + 2.0**-50 * reach**2
                slack += min(
                    1.0, float(value) * np.expm1(min(700, gamma * (error + float(wide) * 2**-52)))
                )
                slack += float(value) * 2.0**-48 + 1e-300
            assert abs(float(Decimal(rows[g, i].item()) - expected)) <= slack
    assert torch.equal(total, fold(rows))
    return total, rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dimension", [1, 2, 3, 64, 300])
def test_agrees_with_exact_arithmetic(dimension, dtype):
    x = rows_of(1, 7, dimension, dimension**-0.5, dtype)
    check(x, rows_of(2, 9, dimension, dimension**-0.5, dtype))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(-18, 18), st.integers(0, 18), st.integers(0, 2**32 - 1))
def test_any_scale_and_any_spread_within_a_row(dimension, power, spread, seed):
    rng = np.random.default_rng(seed)
    x, y = (
        rng.standard_normal((n, dimension))
        * 10.0 ** rng.uniform(power - spread, power, (n, dimension))
        for n in (4, 5)
    )
    y[0] = x[0]
    y[1] = x[1] * (1 + 1e-6)
    x, y = (torch.from_numpy(v.astype(np.float32)) for v in (x, y))
    unit = 1 / max(float(torch.cdist(x.double(), y.double()).square().median()), 1e-300)
    check(x, y, torch.tensor([0.1, 1, 30], dtype=torch.float64) * min(unit, 1e300))


@pytest.mark.parametrize("dimension", [3, 64, 700])
@pytest.mark.parametrize("spread", [0, 12])
def test_products_of_slices_are_exact(dimension, spread):
    """Sums of the slices' products in integers equal the BLAS product, bit for bit."""
    rng = np.random.default_rng(dimension)
    values = rng.standard_normal((2, 6, dimension)) * 10.0 ** -rng.uniform(
        0, spread, (2, 6, dimension)
    )
    values[:, 0] = np.float32(1) - np.float32(2**-24)  # every slice as large as it can be
    values[:, 1] = 0
    shift = 26 - int(np.ceil(np.log2(dimension) / 2))
    x, y = (rbf._slices(torch.from_numpy(v.astype(np.float32)), shift) for v in values)
    for a, b in ((x.high, y.high), (x.low, y.low), (x.both, y.both)):
        product = torch.mm(a, b.T).tolist()
        for p, row in zip(a.tolist(), product, strict=True):
            for q, value in zip(b.tolist(), row, strict=True):
                exact = sum(Fraction(u) * Fraction(v) for u, v in zip(p, q, strict=True))
                assert Fraction(value) == exact


def test_equal_rows_have_distance_zero():
    x = rows_of(3, 40, 257, 1e3)
    y = x[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    huge = torch.tensor([1e300], dtype=torch.float64)
    total, rows = rbf.kernel_sum(x, y, huge)
    assert (rows == 1).all()
    assert total.tolist() == [40.0]
    # and whatever the dtype that holds them
    half = x.bfloat16()
    assert (rbf.kernel_sum(half, half.float(), huge)[1] == 1).all()


def test_close_rows_far_from_the_origin_do_not_exceed_one():
    # the expansion of the square cancels to something on either side of 0
    x = rows_of(14, 60, 33, 1e4)
    y = x.clone()
    smallest = x.abs().argmin(1, keepdim=True)
    y.scatter_(1, smallest, x.gather(1, smallest) * (1 + 2**-20))
    gammas = torch.tensor([1e5], dtype=torch.float64)
    for i in range(60):
        assert rbf.kernel_sum(x[i : i + 1], y[i : i + 1], gammas)[1].item() <= 1


def test_one_side_in_one_slice_and_the_other_in_two():
    x = torch.nn.functional.normalize(rows_of(15, 5, 48)).half()
    y = rows_of(16, 6, 48)
    shift = 23
    assert rbf._slices(x, shift).single
    assert not rbf._slices(y, shift).single
    check(x, y)
    check(y, x)


def test_symmetric():
    x, y = rows_of(4, 1, 90), rows_of(5, 1, 90)
    gammas = torch.tensor([0.01], dtype=torch.float64)
    assert torch.equal(rbf.kernel_sum(x, y, gammas)[1], rbf.kernel_sum(y, x, gammas)[1])


def test_gamma_zero_counts_and_huge_gamma_gives_zero():
    x, y = rows_of(6, 5, 8), rows_of(7, 700, 8)
    gammas = torch.tensor([0.0, 1e308, 1e5], dtype=torch.float64)
    total, rows = rbf.kernel_sum(x, y, gammas)
    assert rows[0].tolist() == [700.0] * 5
    assert (rows[1:] == 0).all()
    assert total.tolist() == [3500.0, 0, 0]


@pytest.mark.parametrize("largest", [3.4028234663852886e38, 1e-45])
def test_largest_and_smallest_floats(largest):
    x = torch.tensor([[largest, 1.0, 0.0], [0, 0, 0], [-largest, largest, 1e-45]])
    gammas = torch.tensor([0.0, 1 / (3 * largest * largest + 1e-80)], dtype=torch.float64)
    _, rows = check(x, x, gammas)
    assert rows[0].tolist() == [3.0] * 3
    assert torch.isfinite(rows).all()


def test_empty_inputs():
    x = rows_of(8, 3, 5)
    total, rows = rbf.kernel_sum(x, x[:0], GAMMAS)
    assert rows.tolist() == [[0.0] * 3] * 4
    assert total.tolist() == [0.0] * 4
    total, rows = rbf.kernel_sum(x[:0], x, GAMMAS)
    assert rows.shape == (4, 0)
    assert total.tolist() == [0.0] * 4
    assert rbf.kernel_sum(x[:, :0], x[:, :0], GAMMAS)[1].tolist() == [[3.0] * 3] * 4


def test_numpy_and_torch_through_the_public_function():
    x, y = rows_of(9, 3, 6), rows_of(10, 4, 6)
    expected = rbf.kernel_sum(x, y, GAMMAS)
    found = kernels.kernel_sum(x.numpy(), y.numpy(), GAMMAS.tolist())
    for array, tensor, sums in zip(found, kernels.kernel_sum(x, y, GAMMAS), expected, strict=True):
        assert isinstance(array, np.ndarray)
        assert array.tobytes() == tensor.numpy().tobytes() == sums.numpy().tobytes()
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be finite and not negative"):
            kernels.kernel_sum(x, y, [1.0, bad])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bits_do_not_depend_on_tiles(dtype, monkeypatch):
    x, y = rows_of(10, 150, 70, 0.2, dtype), rows_of(11, 900, 70, 0.2, dtype)
    x[0] = 0
    expected = rbf.kernel_sum(x, y, GAMMAS)
    for tall, wide in [(256, 1), (512, 31), (1024, 150)]:
        monkeypatch.setattr(rbf, "_Y_TILE", tall)
        monkeypatch.setattr(rbf, "_X_TILE", wide)
        for found, sums in zip(rbf.kernel_sum(x, y, GAMMAS), expected, strict=True):
            assert torch.equal(found, sums)
    parts = [rbf.kernel_sum(x[i : i + 13], y, GAMMAS)[1] for i in range(0, 150, 13)]
    assert torch.equal(torch.cat(parts, 1), expected[1])
    wide = rbf.kernel_sum(x.float(), y.float(), GAMMAS)
    assert torch.equal(wide[1], expected[1])


def test_row_sums_add_blocks_of_256_by_halves():
    squared = torch.rand(600, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gammas = torch.tensor([0.5, 3.0], dtype=torch.float64)
    rows = torch.full((2, 3), 0.125, dtype=torch.float64)
    rbf.rbf_rows(squared, gammas, rows)
    for g, gamma in enumerate(gammas.tolist()):
        for i in range(3):
            values = rbf.exp(squared[:, i] * -gamma).tolist() + [0.0] * 168
            total = 0.125
            for start in range(0, 768, 256):
                block = values[start : start + 256]
                while len(block) > 1:
                    half = len(block) // 2
                    block = [block[j] + block[j + half] for j in range(half)]
                total += block[0]
            assert rows[g, i].item() == total


def test_another_step_takes_the_place_of_rbf_rows():
    x, y = rows_of(12, 600, 4), rows_of(13, 2100, 4)
    seen = []

    def step(squared, gammas, rows):
        seen.append(tuple(squared.shape))
        rbf.rbf_rows(squared, gammas, rows)

    found = rbf.kernel_sum(x, y, GAMMAS, step=step)
    assert seen == [(2048, 512), (2048, 88), (52, 512), (52, 88)]
    assert torch.equal(found[1], rbf.kernel_sum(x, y, GAMMAS)[1])


def test_exp_is_within_one_ulp():
    rng = np.random.default_rng(0)
    edges = np.arange(0, 708, 0.5) * np.log(2)
    arguments = -np.concatenate(
        [rng.random(20_000) * 2, rng.random(20_000) * 708, 10 ** rng.uniform(-30, 0, 2000), edges]
    ).clip(0, 708)
    found = rbf.exp(torch.from_numpy(arguments)).numpy()
    expected = np.exp(arguments.astype(np.longdouble))
    assert (np.abs(found - expected) < np.spacing(found)).all()


def test_exp_at_its_ends():
    arguments = [0.0, -0.0, -5e-324, -708.0, -708.0000000000001, -1e5, -1e308, -np.inf]
    found = rbf.exp(torch.tensor(arguments, dtype=torch.float64)).tolist()
    assert found[:3] == [1, 1, 1]
    assert found[3] == pytest.approx(np.exp(-708), rel=1e-15)
    assert found[4:] == [0, 0, 0, 0]
    assert not np.signbit(found).any()


def test_exp_is_the_stated_operations():
    """One IEEE operation after the other in Python floats: no fused multiply-add crept in."""
    rng = np.random.default_rng(1)
    for argument in -np.concatenate([rng.random(2000), rng.random(2000) * 700]):
        t = float(argument)
        z = t * rbf.LOG2_E + rbf.ROUND
        k = z - rbf.ROUND
        assert Fraction(k * rbf.LN2_HIGH) == Fraction(k) * Fraction(rbf.LN2_HIGH)
        assert Fraction(k * rbf.LN2_LOW) == Fraction(k) * Fraction(rbf.LN2_LOW)
        r = (t - k * rbf.LN2_HIGH) - k * rbf.LN2_LOW
        p = rbf.EXP_POLYNOMIAL[9]
        for coefficient in rbf.EXP_POLYNOMIAL[8::-1]:
            p = p * r + coefficient
        p = ((p * r) * r + r) + 1
        expected = p * 2.0**k
        assert rbf.exp(torch.tensor([t], dtype=torch.float64)).item() == expected


def test_bits_do_not_depend_on_threads():
    script = (
        "import hashlib, torch; from shardwright.kernels import rbf\n"
        "generator = torch.Generator().manual_seed(0)\n"
        "x = torch.randn(1500, 300, generator=generator) / 17\n"
        "total, rows = rbf.kernel_sum(x[:600], x, torch.tensor([0.5, 2.0]).double())\n"
        "print(hashlib.sha256(total.numpy().tobytes() + rows.numpy().tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"OMP_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path), **library},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        # other instruction sets add in other orders
        for threads, library in [
            ("1", {}),
            ("2", {}),
            ("2", {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
        ]
    }
    assert len(digests) == 1
