"""``nearest`` against a float64 oracle: near ties, duplicates, extreme scales, any tiling."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.kernels import cpu, nearest

METRICS = ("cosine", "dot", "l2")


def brute_force(x, c, metric):
    """All pairs in long double: values [N, K] whose errors are far below float64's."""
    x, c = x.astype(np.longdouble), c.astype(np.longdouble)
    if metric == "l2":
        return ((x[:, None] - c[None]) ** 2).sum(-1)
    dots = (x[:, None] * c[None]).sum(-1)
    if metric == "dot":
        return dots
    norms = np.sqrt((x**2).sum(-1))[:, None] * np.sqrt((c**2).sum(-1))[None]
    return np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)


def tolerance(x, c, metric):
    """What float64 can tell apart, [N, 1]: a few roundings of the terms' magnitude."""
    x, c = x.astype(np.float64), c.astype(np.float64)
    a, b = np.linalg.norm(x, axis=1)[:, None], np.linalg.norm(c, axis=1).max()
    scale = {"cosine": np.ones_like(a), "dot": a * b, "l2": (a + b) ** 2}[metric]
    return 32 * 2.0**-53 * scale


def check(x, c, metric):
    index, value = nearest(x, c, metric)
    assert index.dtype == np.int64
    assert value.dtype == np.float64
    values = brute_force(x, c, metric)
    signed = -values if metric == "l2" else values
    best = signed.max(axis=1, keepdims=True)
    rows = np.arange(len(x))
    slack = tolerance(x, c, metric)
    assert (signed[rows, index] >= (best - slack)[:, 0]).all()
    np.testing.assert_array_less(np.abs(value - values[rows, index]), slack[:, 0] + 1e-300)
    return index, value


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [1, 2, 3, 31, 256, 300])
def test_agrees_with_the_oracle(metric, dimension):
    rng = np.random.default_rng(dimension)
    x = rng.standard_normal((70, dimension), dtype=np.float32)
    c = rng.standard_normal((37, dimension), dtype=np.float32)
    check(x, c, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_tells_near_ties_apart_that_float32_cannot(metric):
    # one centroid is better by 1e-8 out of about 230: a thousandth of a float32 rounding
    rng = np.random.default_rng(1)
    x = np.abs(rng.standard_normal((200, 128), dtype=np.float32)) + np.float32(1)
    x[:, 0] = 1e-5
    c = np.ones((40, 128), dtype=np.float32)
    c[:, 0] = 0
    better = rng.integers(1, 40)
    c[better, 0] = 1e-3
    index, _ = nearest(x, c, "dot")
    assert (index == better).all()
    check(x, c, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lowest_index(metric):
    rng = np.random.default_rng(2)
    c = rng.standard_normal((20, 64), dtype=np.float32)
    c = np.concatenate([c, c[::-1], c])
    x = np.concatenate([c, rng.standard_normal((50, 64), dtype=np.float32)])
    index, _ = check(x, c, metric)
    assert index.max() < 20
    if metric != "dot":
        assert (index[:60] % 20 == np.r_[np.arange(20), 19 - np.arange(20), np.arange(20)]).all()


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(METRICS),
    st.integers(-20, 20),
    st.integers(-20, 20),
    st.integers(0, 2**32 - 1),
)
def test_any_scale(metric, x_power, c_power, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((12, 24)) * 10.0**x_power
    c = rng.standard_normal((9, 24)) * 10.0**c_power
    x[rng.integers(12)] *= 1e-10
    c[rng.integers(9)] *= 10.0 ** rng.integers(-15, 15)
    x[rng.integers(12)] = 0
    check(x.astype(np.float32), c.astype(np.float32), metric)


@pytest.mark.parametrize("metric", METRICS)
def test_largest_and_smallest_floats(metric):
    edge = np.array([np.finfo(np.float32).max, 1e-45, 1.0, 0.0], dtype=np.float32)
    rows = np.stack(np.meshgrid(edge, edge, -edge), axis=-1).reshape(-1, 3)
    index, value = check(rows, rows, metric)
    assert np.isfinite(value).all()
    if metric == "l2":
        assert (value == 0).all()
        assert (rows[index] == rows).all()


@pytest.mark.parametrize("metric", METRICS)
def test_rows_close_to_a_centroid_far_from_the_origin(metric):
    # l2 by the norms' expansion cancels here; the value must come from the differences
    rng = np.random.default_rng(3)
    c = (1000 + rng.integers(-3, 4, (30, 16))).astype(np.float32)
    x = c[rng.permutation(30)]
    index, value = check(x, c, metric)
    if metric == "l2":
        assert (value == 0).all()
        assert (c[index] == x).all()


def test_zero_rows_have_cosine_zero():
    x = np.array([[0, 0], [1, 0]], dtype=np.float32)
    c = np.array([[0, 0], [-1, 0], [0, 2]], dtype=np.float32)
    index, value = nearest(x, c)
    assert index.tolist() == [0, 0]
    assert value.tolist() == [0, 0]
    assert nearest(x, np.zeros((3, 2), np.float32), "l2")[1].tolist() == [0, 1]


def test_cosine_stays_within_one():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((300, 5), dtype=np.float32)
    _, value = nearest(x, x)
    assert value.max() <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_float16(metric):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((80, 48)).astype(np.float16)
    c = rng.standard_normal((11, 48)).astype(np.float16)
    index, value = check(x, c, metric)
    wide_index, wide_value = nearest(x.astype(np.float32), c.astype(np.float32), metric)
    assert (index == wide_index).all()
    assert value.tobytes() == wide_value.tobytes()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dimension", [2, 7, 64, 257])
def test_bits_do_not_depend_on_batch_or_layout(metric, dimension):
    rng = np.random.default_rng(dimension)
    c = rng.standard_normal((19, dimension), dtype=np.float32)
    c[10:] = c[:9] * np.float32(1 + 1e-7)
    x = c[rng.integers(0, 19, 150)] + rng.standard_normal((150, dimension)).astype(np.float32) / 9
    index, value = nearest(x, c, metric)
    for step in (1, 13):
        parts = [nearest(x[i : i + step], c, metric) for i in range(0, len(x), step)]
        assert np.concatenate([p[1] for p in parts]).tobytes() == value.tobytes()
        assert np.concatenate([p[0] for p in parts]).tobytes() == index.tobytes()
    order = rng.permutation(len(x))
    fortran = nearest(np.asfortranarray(x[order]), np.asfortranarray(c), metric)
    assert fortran[1].tobytes() == value[order].tobytes()


def test_bits_do_not_depend_on_threads():
    script = (
        "import hashlib, numpy as np; from shardwright.kernels import nearest\n"
        "rng = np.random.default_rng(0)\n"
        "c = rng.standard_normal((500, 200), dtype=np.float32); c[250:] = c[:250] * 1.0000001\n"
        "x = c[rng.integers(0, 500, 3000)] + rng.standard_normal((3000, 200), dtype=np.float32)\n"
        "i, v = nearest(x, c)\n"
        "print(hashlib.sha256(i.tobytes() + v.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"OMP_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_a_row_without_a_wrong_candidate_is_not_decided_by_float32():
    # the filter sees equal scores; only the candidates' float64 values differ
    x = np.full((1, 3), 1, dtype=np.float32)
    c = np.array([[1, 1, 0], [1, 1, 2**-30], [1, 1, 2**-40]], dtype=np.float32)
    index, value = nearest(x, c, "dot")
    assert index.tolist() == [1]
    assert value.tolist() == [2 + 2**-30]


def test_empty_input():
    index, value = nearest(np.empty((0, 4), np.float32), np.ones((2, 4), np.float32))
    assert index.shape == value.shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_names_the_row_that_is_not_finite(bad, monkeypatch):
    monkeypatch.setattr(cpu, "_MOST_ROWS", 1)
    x = np.ones((40, 3), np.float32)
    c = np.ones((5, 3), np.float32)
    x[33, 1] = bad
    with pytest.raises(ValueError, match="row 33 of x holds NaN or infinity"):
        nearest(x, c)
    c[2, 0] = bad
    with pytest.raises(ValueError, match="row 2 of c holds NaN or infinity"):
        nearest(x, c)
