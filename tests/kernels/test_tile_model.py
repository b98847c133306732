"""The model of a scan against exact integers: candidates always hold the exact answer."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_model import candidates, filter_products, scan


def exact_order(x, c):
    """Columns [m] from best to worst inner product, in exact arithmetic, ties to the lowest."""
    x, c = ([list(map(Fraction, row)) for row in rows.astype(float)] for rows in (x[None], c))
    products = [sum(a * b for a, b in zip(x[0], row, strict=True)) for row in c]
    return sorted(range(len(c)), key=lambda column: (-products[column], column))


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n, m, d = draw(st.integers(1, 6)), draw(st.integers(1, 90)), draw(st.sampled_from([1, 5, 40]))
    x, c = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    kind = draw(st.sampled_from(["plain", "near ties", "repeated"]))
    if kind == "near ties":
        c = c[:1] * (1 + 10.0 ** draw(st.integers(-7, -2)) * rng.integers(-2, 3, (m, d)))
    elif kind == "repeated":
        c = c[rng.integers(0, 1 + m // 10, m)]
    c = c / np.linalg.norm(c, axis=1, keepdims=True) * 0.99
    hi = np.sort(rng.integers(0, m + 1, n)) if draw(st.booleans()) else np.full(n, m)
    lo = np.minimum(np.sort(rng.integers(0, m + 1, n)), hi) if draw(st.booleans()) else 0 * hi
    return x.astype(np.float32), c.astype(np.float32), lo, hi


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from([1, 1, 2, 4]), st.sampled_from([8, 32]), st.sampled_from([4, 8]))
def test_candidates_hold_the_exact_answer(problem, k, width, capacity):
    x, c, lo, hi = problem
    filtered = filter_products(x, c)
    rows = scan(filtered, k, capacity, width, lo, hi)
    for i, row in enumerate(rows):
        found = candidates(filtered, row, i, lo[i], hi[i])
        answer = [lo[i] + column for column in exact_order(x[i], c[lo[i] : hi[i]])[:k]]
        assert set(answer) <= set(found)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_scores_err_less_than_half_the_slack(problem):
    x, c, _, _ = problem
    filtered = filter_products(x, c)
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    factors = np.exp2(-np.frexp(norms)[1].astype(np.float64))
    exact = x.astype(np.float64) @ c.astype(np.float64).T * factors[:, None]
    assert (np.abs(filtered.scores - exact) <= filtered.slack[:, None] / 2 + 1e-15).all()


def test_lists_overflow_and_are_looked_at_again():
    x, c = np.ones((1, 8), np.float32), np.full((50, 8), 0.3, np.float32)
    filtered = filter_products(x, c)
    (row,) = scan(filtered, 1, 8, 16, np.array([0]), np.array([50]))
    assert row.overflowed
    assert candidates(filtered, row, 0, 0, 50).tolist() == list(range(50))
