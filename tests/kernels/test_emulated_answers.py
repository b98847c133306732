"""gpu.py from end to end on emulated cards: the same bits as cpu.py (which exact tests check)."""

import numpy as np
import pytest
import torch
from emulator.emulator import EmulatedCard
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.kernels import cpu, gpu, rbf, scan

PATHS = pytest.mark.parametrize("hopper", [True, False], ids=["hopper", "portable"])
METRICS = st.sampled_from(["cosine", "dot", "l2"])
DTYPES = st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16])
KINDS = st.sampled_from(["plain", "integers", "near ties", "scales", "repeated", "far away"])
SEEDS = st.integers(0, 10**6)
SIZES = st.one_of(st.integers(1, 20), st.integers(250, 600))


def rows_of(rng, kind, count, width, dtype):
    """Rows [count, width] of a kind that is hard in its own way, some of them zero."""
    x = rng.standard_normal((count, width))
    if kind == "integers":
        x = np.round(x)
    elif kind == "near ties":
        x = 1 + 1e-4 * np.round(x)
    elif kind == "scales":
        x = x * 2.0 ** rng.integers(-30, 30, (count, 1))
    elif kind == "repeated":
        x = x[rng.integers(0, 1 + count // 40, count)]
    elif kind == "far away":
        x = 100 + np.round(x)
    x = x * (rng.random((count, 1)) > 0.02)
    found = torch.from_numpy(x).to(dtype)
    return torch.where(found.isfinite(), found, 1.0)


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.numpy().tobytes() == b.numpy().tobytes(), (a, b)


@PATHS
@settings(max_examples=6, deadline=None)
@given(SIZES, SIZES, st.integers(1, 140), KINDS, METRICS, DTYPES, DTYPES, st.integers(1, 70), SEEDS)
def test_topk(hopper, n, m, width, kind, metric, left, right, k, seed):
    rng = np.random.default_rng(seed)
    x, y = rows_of(rng, kind, n, width, left), rows_of(rng, kind, m, width, right)
    card = EmulatedCard(hopper, 2 * rng.integers(1, 4), seed)
    for number in (1, min(k, m)):
        found = gpu.topk(x, y, number, metric, True, card)
        assert_same(found[:2], cpu.topk(x, y, number, metric, True)[:2])


@PATHS
@settings(max_examples=5, deadline=None)
@given(SIZES, st.integers(1, 140), KINDS, METRICS, DTYPES, SEEDS)
def test_groups(hopper, n, width, kind, metric, dtype, seed):
    rng = np.random.default_rng(seed)
    x = rows_of(rng, kind, n, width, dtype)
    offsets = torch.tensor([0, *sorted(rng.integers(0, n + 1, rng.integers(0, 5))), n])
    card = EmulatedCard(hopper, 4, seed)
    found = gpu.group_max(x, offsets, metric, True, card)
    assert_same(found[:2], cpu.group_max(x, offsets, metric, True)[:2])
    threshold = float(rng.choice([-0.5, 0.5, 0.9, 1.0, 10.0, 1e4]))
    found = gpu.pairs_above(x, threshold, offsets, metric, True, card)
    assert_same(found[:3], cpu.pairs_above(x, threshold, offsets, metric, True)[:3])


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 9), SEEDS)
def test_kernel_values(columns, count, gammas, seed):
    rng = np.random.default_rng(seed)
    squared = torch.from_numpy(np.exp(rng.normal(0, 4, (count, columns))) * rng.integers(0, 2, 1))
    exponents = torch.from_numpy(np.exp(rng.normal(0, 3, gammas)))
    before = torch.from_numpy(rng.random((gammas, columns)))
    expected, found = before.clone(), before.clone()
    rbf.rbf_rows(squared, exponents, expected)
    scan.rbf_rows(EmulatedCard(False, 2, seed), squared, exponents, found)
    assert_same([found], [expected])
