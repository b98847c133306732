"""What the five functions take, give, refuse and count; their operators in torch."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from shardwright import kernels

METRICS = ("cosine", "dot", "l2")
OPS = torch.ops.shardwright


def rows(count, dimension, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)


def scores(x, y, metric):
    """All pairs in float64, larger is nearer."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if metric == "l2":
        return 2 * x @ y.T - (y * y).sum(1)
    if metric == "cosine":
        x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    return x @ y.T


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(3000, 700, 24), (60, 20000, 8), (40000, 3, 5), (2, 9000, 300)])
def test_real_shapes(metric, shape):
    x, y = rows(shape[0], shape[2], 1), rows(shape[1], shape[2], 2)
    k = min(5, len(y))
    order = np.argsort(-scores(x, y, metric), axis=1, kind="stable")[:, :k]
    assert (kernels.nearest(x, y, metric)[0] == order[:, 0]).all()
    assert (kernels.topk(x, y, k, metric)[0] == order).all()
    many = min(700, len(y))
    order = np.argsort(-scores(x[:20], y, metric), axis=1, kind="stable")[:, :many]
    assert (kernels.topk(x[:20], y, many, metric)[0] == order).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("largest", [1, 5, 60, 400, 1500])
def test_groups_of_all_sizes(metric, largest):
    rng = np.random.default_rng(largest)
    sizes = rng.integers(0, largest + 1, 4000 // largest + 3)
    sizes[rng.integers(len(sizes))] = largest
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    x = rows(offsets[-1], 12, largest)
    index, _ = kernels.group_max(x, offsets, metric)
    threshold = 4.0 if metric == "l2" else 0.8
    i, j, values = kernels.pairs_above(x, threshold, offsets, metric)
    pairs = []
    for start, stop in itertools.pairwise(offsets):
        group = scores(x[start:stop], x[start:stop], metric)
        visible = np.where(np.tri(stop - start, k=-1, dtype=bool), group, -np.inf)
        expected = visible.argmax(1) + start if stop > start else np.empty(0, int)
        expected[:1] = -1
        assert (index[start:stop] == expected).all()
        if metric == "l2":
            group = (group - (x[start:stop].astype(np.float64) ** 2).sum(1)[:, None]) * -1
        above = group < threshold if metric == "l2" else group > threshold
        first, second = np.nonzero(np.triu(above, 1))
        pairs.append(np.stack([start + first, start + second], 1))
    assert (np.stack([i, j], 1) == np.concatenate(pairs)).all()
    assert len(values) == len(i)


def test_no_group_or_one():
    x = rows(5, 3)
    assert kernels.group_max(x, np.array([0, 5]))[0][0] == -1
    assert len(kernels.pairs_above(x, -2.0)[0]) == 10
    none = x[:0]
    assert kernels.group_max(none, np.array([0]))[0].shape == (0,)
    assert [len(part) for part in kernels.pairs_above(none, 0.5)] == [0, 0, 0]
    assert kernels.topk(none, x, 2)[0].shape == (0, 2)


def test_dimension_zero():
    x = np.empty((3, 0), np.float32)
    for metric in METRICS:
        index, value = kernels.nearest(x, x, metric)
        assert index.tolist() == [0, 0, 0]
        assert value.tolist() == [0, 0, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_fast_is_the_filter_alone(metric):
    x, y = rows(500, 32, 3), rows(200, 32, 4)
    exact = kernels.topk(x, y, 3, metric)
    with kernels.counting() as count:
        fast = kernels.topk(x, y, 3, metric, precision="fast")
        nearest = kernels.nearest(x, y, metric, precision="fast")
        highest = kernels.group_max(x, np.array([0, 500]), metric, precision="fast")
        earlier, later, value = kernels.pairs_above(x, 0.5, metric=metric, precision="fast")
    assert count.rows == 0
    assert (fast[0] == exact[0]).mean() > 0.99
    np.testing.assert_allclose(fast[1], exact[1], rtol=1e-5)
    assert (fast[1] != exact[1]).any(), "values are the filter's"
    assert (nearest[0] == exact[0][:, 0]).all()
    np.testing.assert_allclose(nearest[1], exact[1][:, 0], rtol=1e-5)
    np.testing.assert_allclose(
        highest[1][1:], kernels.group_max(x, np.array([0, 500]), metric)[1][1:], rtol=1e-5
    )
    pairs = kernels.pairs_above(x, 0.5, metric=metric)
    assert (earlier == pairs[0]).all()
    assert (later == pairs[1]).all()
    np.testing.assert_allclose(value, pairs[2], rtol=1e-5)


def test_counts_certified_rows():
    c = rows(50, 16)
    x = np.concatenate([c, c[:1] + c[1:2]])
    with kernels.counting() as count:
        kernels.nearest(c, c)
        assert (count.rows, count.certified, count.share) == (50, 50, 1.0)
        # two columns that float32 cannot tell apart
        near = np.array([[1, 1], [1, 1 + 1e-7]], np.float32)
        kernels.nearest(near, near)
        assert (count.rows, count.certified) == (52, 50)
    kernels.nearest(x, c)
    assert count.rows == 52
    with kernels.counting() as count:
        kernels.topk(c, c, 3)
        kernels.group_max(c, np.array([0, 25, 50]))
        kernels.pairs_above(c, 0.9)
    assert count.rows == 150
    assert 140 < count.certified <= 150


def test_equal_columns_cost_no_doubt():
    c = np.repeat(rows(3, 8), 400, axis=0)
    with kernels.counting() as count:
        index, _ = kernels.nearest(rows(100, 8, 5), c)
    assert count.share == 1
    assert set(index) <= {0, 400, 800}


@pytest.mark.parametrize("metric", METRICS)
def test_masses_of_ties(metric):
    rng = np.random.default_rng(6)
    x = np.sign(rng.standard_normal((2000, 12))).astype(np.float32)
    y = np.sign(rng.standard_normal((300, 12))).astype(np.float32)
    index, _ = kernels.topk(x, y, 20, metric)
    assert (index == np.argsort(-np.round(x @ y.T), axis=1, kind="stable")[:, :20]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_bits_do_not_depend_on_threads(metric):
    x, y = rows(3000, 100, 7), rows(900, 100, 8)
    y[450:] = y[:450] * np.float32(1 + 1e-7)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results = [
                *kernels.nearest(x, y, metric),
                *kernels.topk(x, y, 4, metric),
                *kernels.group_max(x, np.array([0, 7, 2000, 3000]), metric),
                *kernels.pairs_above(x, 0.2, np.array([0, 7, 2000, 3000]), metric),
            ]
            found.append([result.tobytes() for result in results])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_torch_in_torch_out():
    x = torch.eye(3)
    index, value = kernels.nearest(x, x.half().requires_grad_(), "dot")
    assert index.tolist() == [0, 1, 2]
    assert value.tolist() == [1, 1, 1]
    assert index.dtype == torch.int64
    assert kernels.nearest(x.bfloat16(), x)[0].tolist() == [0, 1, 2]
    wide = torch.arange(24.0).view(4, 6)
    index, value = kernels.nearest(wide.T, wide.T.contiguous(), "l2")
    assert index.tolist() == [0, 1, 2, 3, 4, 5]
    assert kernels.nearest(wide[:, ::2], wide[:, 1::2], "l2")[1].tolist() == [3, 3, 3, 3]
    assert kernels.group_max(x, torch.tensor([0, 3]))[0].tolist() == [-1, 0, 0]


def test_read_only_and_reversed_arrays():
    x = rows(4, 3)
    x.flags.writeable = False
    assert kernels.nearest(x, x)[0].tolist() == [0, 1, 2, 3]
    assert kernels.nearest(x[::-1], x)[0].tolist() == [3, 2, 1, 0]


def test_kernel_sum():
    x, y = rows(30, 4), rows(20, 4, 9)
    gammas = [0.1, 2.0]
    total, sums = kernels.kernel_sum(x, y, gammas)
    squares = ((x[:, None].astype(np.float64) - y[None]) ** 2).sum(2)
    expected = np.exp(-np.array(gammas)[:, None, None] * squares).sum(2)
    np.testing.assert_allclose(sums, expected, rtol=1e-9)
    np.testing.assert_allclose(total, expected.sum(1), rtol=1e-9)
    with pytest.raises(ValueError, match="gammas"):
        kernels.kernel_sum(x, y, [-1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_names_the_row_that_is_not_finite(bad):
    x, good, offsets = rows(40, 3), rows(5, 3), np.array([0, 40])
    x[33, 1] = bad
    for call in (
        lambda: kernels.nearest(x, good, "dot"),
        lambda: kernels.nearest(x, good, "cosine"),
        lambda: kernels.topk(x, good, 2, "l2"),
        lambda: kernels.pairs_above(x, 0.5),
        lambda: kernels.group_max(x, offsets),
        lambda: kernels.kernel_sum(x, good, [1.0]),
    ):
        with pytest.raises(ValueError, match="row 33 of x holds NaN or infinity"):
            call()
    with pytest.raises(ValueError, match="row 33 of y holds NaN or infinity"):
        kernels.topk(good, x, 2)


def test_refuses_what_it_cannot_do():
    x = rows(4, 3)
    with pytest.raises(ValueError, match="'hamming' is unknown"):
        kernels.nearest(x, x, "hamming")
    with pytest.raises(ValueError, match="'double' is unknown"):
        kernels.nearest(x, x, precision="double")
    with pytest.raises(ValueError, match="x has 3 dimensions and c has 2"):
        kernels.nearest(x, x[:, :2])
    with pytest.raises(ValueError, match="c has no row"):
        kernels.nearest(x, x[:0])
    with pytest.raises(TypeError, match="c is float64: use float32"):
        kernels.nearest(x, x.astype(np.float64))
    with pytest.raises(TypeError, match=r"y is torch\.int64"):
        kernels.topk(torch.from_numpy(x), torch.ones(3, 3, dtype=torch.int64), 1)
    with pytest.raises(TypeError, match="mix no kinds"):
        kernels.nearest(x, torch.from_numpy(x))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        kernels.nearest(x[0], x)
    with pytest.raises(ValueError, match=r"use one device|move it"):
        kernels.nearest(torch.from_numpy(x), torch.empty(4, 3, device="meta"))
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"k is {k}: y has 4 rows"):
            kernels.topk(x, x, k)
    with pytest.raises(ValueError, match="threshold is NaN"):
        kernels.pairs_above(x, float("nan"))
    for offsets, message in [
        ([0, 3], "run from 0 to 3"),
        ([1, 4], "run from 1 to 4"),
        ([0, 3, 2, 4], "fall after place 1"),
        ([[0, 4]], "shape"),
        ([], "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.group_max(x, np.array(offsets, dtype=np.int64))
    with pytest.raises(TypeError, match=r"offsets are torch\.int32"):
        kernels.group_max(x, np.array([0, 4], dtype=np.int32))


def test_operators():
    x, c, offsets = torch.randn(20, 5), torch.randn(7, 5), torch.tensor([0, 8, 20])
    gammas = torch.tensor([0.5], dtype=torch.float64)
    for operator, arguments in [
        (OPS.nearest, (x, c, "cosine", True)),
        (OPS.topk, (x, c, 3, "l2", True)),
        (OPS.group_max, (x, offsets, "dot", False)),
        (OPS.pairs_above, (x, 0.1, offsets, "cosine", True)),
        (OPS.kernel_sum, (x, c, gammas)),
    ]:
        torch.library.opcheck(operator.default, arguments)


def test_imports_torch_only_when_used():
    script = (
        "import sys, shardwright.kernels\n"
        "heavy = ('torch', 'apache_beam', 'pyarrow', 'faiss', 'pydantic')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "shardwright.kernels.nearest\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "print(dir(shardwright.kernels))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines()[:2] == ["[]", "['torch']"]
    assert "'pairs_above'" in found.stdout
    with pytest.raises(AttributeError, match="nonsense"):
        _ = kernels.nonsense
