"""Rows to start k-means from: seeded samples and k-means++."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.embeddings.sampling import mixed, uniforms
from shardwright.embeddings.starts import plus_plus_start, sample_start


def rows(seed, count, dimension, metric, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, dimension))
    x = x[rng.integers(0, count, count)]  # with copies
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return torch.from_numpy(x.astype(np.float32)).to(dtype)


def folded(terms):
    """Sums of rows in the canonical order of the kernels, addition by addition."""
    terms = np.pad(terms, ((0, 0), (0, -terms.shape[1] % 256)))
    total = np.zeros((len(terms), 256))
    for first in range(0, terms.shape[1], 256):
        total = total + terms[:, first : first + 256]
    width = 128
    while width:
        total = total[:, :width] + total[:, width : 2 * width]
        width //= 2
    return total[:, 0]


def slow_plus_plus(x, k, seed):
    """k-means++ as the paper has it: every distance to every drawn row, no filter."""
    x = x.double().numpy()
    draws = uniforms(k, seed)
    chosen = [int(draws[0] * len(x))]
    best = np.full(len(x), np.inf)
    for draw in draws[1:]:
        best = np.minimum(best, folded((x - x[chosen[-1]]) ** 2))
        cumulative = np.cumsum(best)
        if cumulative[-1] == 0:
            break
        chosen.append(int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")))
    return chosen


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 200),
    st.sampled_from([1, 3, 40, 300]),
    st.sampled_from(["cosine", "l2"]),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_plus_plus_is_the_paper_s_with_every_distance_measured(
    seed, count, dimension, metric, dtype
):
    x = rows(seed, count, dimension, metric, dtype)
    k = min(count, 12)
    expected = slow_plus_plus(x, k, seed)
    drawn = plus_plus_start(x, k, seed)
    assert drawn[: len(expected)].tolist() == expected
    assert len(set(drawn.tolist())) == k


@pytest.mark.parametrize("dimension", [3, 5, 30])
@pytest.mark.parametrize("scale", [1e-30, 1.2e19, 1e30])
def test_plus_plus_at_the_ends_of_float32(scale, dimension):
    # at 1.2e19 some products overflow and others of the same row do not
    x = rows(0, 400, dimension, "l2")
    x = x * torch.tensor(scale, dtype=torch.float32)
    assert plus_plus_start(x, 10, 1).tolist() == slow_plus_plus(x, 10, 1)


def test_plus_plus_draws_in_proportion_to_squared_distance():
    angles = np.array([0, 0.4, 0.5, 1.5, 3.0])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    squared = ((x[:, None].astype(float) - x) ** 2).sum(axis=2)
    trials = 6000
    counts = Counter(
        tuple(plus_plus_start(torch.from_numpy(x), 3, seed).tolist()) for seed in range(trials)
    )
    statistic = 0.0
    for a in range(5):
        second = squared[a] / squared[a].sum() / 5
        for b in range(5):
            nearest = np.minimum(squared[a], squared[b])
            third = second[b] * nearest / nearest.sum()
            for c in range(5):
                expected = trials * third[c]
                if a == b or c in (a, b):
                    assert counts[a, b, c] == 0
                else:
                    statistic += (counts[a, b, c] - expected) ** 2 / expected
    # chi-squared of 59 degrees of freedom: mean 59, deviation 11
    assert statistic < 105


def test_plus_plus_with_fewer_values_than_rows_to_draw():
    x = torch.eye(3).repeat(4, 1)
    drawn = plus_plus_start(x, 7, 0)
    assert len(set(drawn.tolist())) == 7
    assert len({tuple(row) for row in x[torch.from_numpy(drawn[:3])].tolist()}) == 3


def test_sample_takes_distinct_values_first_in_seeded_order():
    x = rows(0, 300, 2, "l2")
    for seed in range(5):
        order = np.argsort(mixed(np.arange(300, dtype=np.uint64), seed), kind="stable")
        seen, first, again = set(), [], []
        for row in order.tolist():
            value = tuple(x[row].tolist())
            (again if value in seen else first).append(row)
            seen.add(value)
        for k in (1, len(first) - 1, len(first), len(first) + 3):
            assert sample_start(x, k, seed).tolist() == (first + again)[:k]
