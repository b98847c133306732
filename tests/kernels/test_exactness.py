"""Every function of the package against exact arithmetic, on data made to be hard."""

import itertools

import numpy as np
import pytest
import torch
from fraction_oracle import best, is_above, nearness, value
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright import kernels
from shardwright.kernels import cpu, exact, groups

METRICS = st.sampled_from(["cosine", "dot", "l2"])
KINDS = ["plain", "integers", "signs", "near ties", "scales", "edges", "collinear", "offset"]


@st.composite
def matrices(draw, most=14):
    """Rows and columns of one of the hard kinds, with duplicates and zero rows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, most)), draw(st.integers(1, most))
    d = draw(st.sampled_from([1, 2, 3, 8, 17, 40, 257, 300]))
    kind = draw(st.sampled_from(KINDS))
    x, y = rng.standard_normal((2, max(n, m), d))
    if kind == "integers":
        x, y = np.round(2 * x), np.round(2 * y)
    elif kind == "signs":
        x, y = np.sign(x), np.sign(y)
    elif kind == "near ties":
        y = y[:1] * (1 + 1e-7 * rng.integers(-1, 2, y.shape))
    elif kind == "scales":
        x = x * 10.0 ** rng.integers(-30, 30, (len(x), 1))
        y = y * 10.0 ** rng.integers(-30, 30, (len(y), 1))
    elif kind == "edges":
        edges = [np.finfo(np.float32).max, 1e-45, 1e-38, 1.0, 0.0, 1e19]
        x, y = rng.choice(edges, x.shape), rng.choice(edges, y.shape) * np.sign(y)
    elif kind == "collinear":
        y = np.round(3 * y)[rng.integers(0, min(2, len(y)), len(y))] * rng.integers(
            -3, 4, (len(y), 1)
        )
        x = np.round(3 * x)
    elif kind == "offset":
        x, y = 1000 + np.round(2 * x), 1000 + np.round(2 * y)
    x, y = (np.clip(a, -3.4e38, 3.4e38).astype(np.float32) for a in (x, y))
    if draw(st.booleans()):
        y = y[rng.integers(0, len(y), len(y))]
        x[rng.integers(0, len(x))] = y[rng.integers(0, len(y))]
    if draw(st.booleans()):
        x[rng.integers(0, len(x))] = 0
        y[rng.integers(0, len(y))] = 0
    return x[:n], y[:m]


def bits(array):
    return np.ascontiguousarray(array).tobytes()


@settings(max_examples=200, deadline=None)
@given(matrices(), METRICS)
def test_nearest(data, metric):
    x, c = data
    index, found = kernels.nearest(x, c, metric)
    assert index.tolist() == best(nearness(x, c, metric), 1)[:, 0].tolist()
    assert bits(found) == bits(
        np.array([value(a, c[j], metric) for a, j in zip(x, index, strict=True)])
    )


@settings(max_examples=120, deadline=None)
@given(matrices(), METRICS, st.data())
def test_topk(data, metric, more):
    x, y = data
    k = more.draw(st.integers(1, len(y)))
    index, found = kernels.topk(x, y, k, metric)
    assert index.tolist() == best(nearness(x, y, metric), k).tolist()
    assert bits(found) == bits(
        np.array([[value(a, y[j], metric) for j in row] for a, row in zip(x, index, strict=True)])
    )


def draw_offsets(draw, count):
    inner = draw(st.lists(st.integers(0, count), max_size=5))
    return np.array([0, *sorted(inner), count])


@settings(max_examples=120, deadline=None)
@given(matrices(24), METRICS, st.data())
def test_group_max(data, metric, more):
    x, _ = data
    offsets = draw_offsets(more.draw, len(x))
    index, found = kernels.group_max(x, offsets, metric)
    for start, stop in itertools.pairwise(offsets):
        for row in range(start, stop):
            if row == start:
                assert index[row] == -1
                assert found[row] == (np.inf if metric == "l2" else -np.inf)
                continue
            keys = nearness(x[row : row + 1], x[start:row], metric)
            assert index[row] == start + best(keys, 1)[0, 0]
            assert bits(found[row]) == bits(value(x[row], x[index[row]], metric))


@settings(max_examples=120, deadline=None)
@given(matrices(20), METRICS, st.data())
def test_pairs_above(data, metric, more):
    x, _ = data
    offsets = draw_offsets(more.draw, len(x))
    # a threshold that is the value of a pair, to the bit, is the hardest
    a, b = (x[more.draw(st.integers(0, len(x) - 1))] for _ in range(2))
    threshold = more.draw(
        st.sampled_from([value(a, b, metric), 0.0, 0.5, 1.0, -1.0, 2.0, np.inf, -np.inf])
    )
    i, j, found = kernels.pairs_above(x, threshold, offsets, metric)
    expected = []
    for start, stop in itertools.pairwise(offsets):
        group = x[start:stop]
        if np.isinf(threshold):
            above = np.full((len(group),) * 2, (threshold > 0) == (metric == "l2"))
        else:
            above = is_above(group, group, threshold, metric)
        first, second = np.nonzero(np.triu(above, 1))
        expected += zip(start + first, start + second, strict=True)
    assert list(zip(i, j, strict=True)) == sorted(expected)
    assert bits(found) == bits(
        np.array([value(x[a], x[b], metric) for a, b in zip(i, j, strict=True)])
    )


@settings(max_examples=50, deadline=None)
@given(matrices(), METRICS, st.sampled_from(["float16", "bfloat16"]))
def test_narrow_dtypes_are_their_float32_values(data, metric, name):
    x, c = (torch.from_numpy(np.clip(a, -6e4, 6e4)).to(getattr(torch, name)) for a in data)
    narrow = kernels.nearest(x, c, metric)
    mixed = kernels.nearest(x, c.float(), metric)
    wide = kernels.nearest(x.float(), c.float(), metric)
    for result in (narrow, mixed):
        assert torch.equal(result[0], wide[0])
        assert bits(result[1].numpy()) == bits(wide[1].numpy())


def everything(x, y, offsets, metric, threshold):
    return [
        *kernels.nearest(x, y, metric),
        *kernels.topk(x, y, min(3, len(y)), metric),
        *kernels.group_max(x, offsets, metric),
        *kernels.pairs_above(x, threshold, offsets, metric),
    ]


@settings(max_examples=40, deadline=None)
@given(matrices(60), METRICS, st.data())
def test_bits_do_not_depend_on_tiles(data, metric, more):
    x, y = data
    offsets = draw_offsets(more.draw, len(x))
    expected = everything(x, y, offsets, metric, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "_TILE", more.draw(st.sampled_from([1, 40, 300])))
        patch.setattr(cpu, "_WIDTH", more.draw(st.sampled_from([1, 5, 32, 64])))
        patch.setattr(cpu, "_LEAST_ROWS", 1)
        patch.setattr(cpu, "_MOST_ROWS", more.draw(st.sampled_from([1, 7])))
        patch.setattr(cpu, "_BLOCK", 4)
        patch.setattr(exact, "_BLOCK", more.draw(st.sampled_from([1, 1000])))
        patch.setattr(groups, "_STRETCH", 8)
        patch.setattr(groups, "_PIECE", 3)
        patch.setattr(groups, "_BLOCKS", more.draw(st.sampled_from([(2, 4, 8), (8,), ()])))
        found = everything(x, y, offsets, metric, 0.5)
    for a, b in zip(found, expected, strict=True):
        assert bits(a) == bits(b)


def test_cosines_nearer_than_a_rounding():
    # cos^2 = 1 - 1 / (n^2 + 1): sums are exact integers, quotients are equal in float64
    n = float(1 << 20)
    c = np.array([[n, 1], [n + 1, 1], [n - 1, 1], [n + 1, -1]], np.float32)
    x = np.array([[1, 0]], np.float32)
    assert kernels.topk(x, c, 4)[0].tolist() == [[1, 3, 0, 2]]


def test_equal_rows_of_other_groups_are_no_earlier_rows():
    # the groups' share of the keys vanishes beside such norms
    x = np.array([[1e30, 0], [1e30, 1], [1e30, 0], [1e30, 3e29]], np.float32)
    index, _ = kernels.group_max(x, np.array([0, 1, 4]), "dot")
    assert index.tolist() == [-1, -1, 1, 1]
    x[1] = -x[1]
    assert kernels.group_max(x, np.array([0, 1, 4]), "dot")[0].tolist() == [-1, -1, 1, 2]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_sums_that_overflow_float32(metric):
    rng = np.random.default_rng(0)
    x, c = (np.float32(3e38) * rng.choice([-1, 1, 0.5], (6, 300)).astype(np.float32) for _ in "xc")
    index, _ = kernels.topk(x, c, 6, metric)
    assert index.tolist() == best(nearness(x, c, metric), 6).tolist()
    assert kernels.nearest(x, c, metric)[0].tolist() == index[:, 0].tolist()
    assert kernels.group_max(x, np.array([0, 6]), metric)[0][1] == 0
