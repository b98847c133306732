"""The kernels on a real card. ``make test-cuda`` runs this file alone, with compute-sanitizer too.

What runs without a card stands in test_emulator.py (the same sources, executed on the host) and
test_cuda_sources.py (the compiler's report).
"""

import numpy as np
import pytest
import torch

from shardwright import kernels
from shardwright.kernels import gpu, scan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")

METRICS = ("cosine", "dot", "l2")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Memory that nothing wrote is full of NaN, or of numbers that no kernel gives."""
    empty = torch.empty

    def poison(*size, **options):
        made = empty(*size, **options)
        return made.fill_(float("nan") if made.is_floating_point() else -77)

    monkeypatch.setattr(torch, "empty", poison)


def draw(rows, width, dtype, seed, spread=1.0):
    """Random rows with duplicates, near ties, a zero row and norms of many sizes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, width))
    x *= np.exp(spread * rng.standard_normal((rows, 1)))
    x[rng.integers(rows, size=rows // 8)] = x[rng.integers(rows, size=rows // 8)]
    x[rng.integers(rows, size=rows // 8)] *= 1 + 1e-6
    x[rng.integers(rows)] = 0
    return torch.tensor(x, dtype=dtype)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu(), b.cpu())  # bit for bit: no value is NaN


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "columns", "width"),
    [(1, 1, 1), (300, 77, 9), (1000, 128, 384), (515, 1000, 768), (5000, 3001, 200)],
)
def test_nearest_and_topk_equal_the_cpu(metric, dtype, rows, columns, width):
    x, y = draw(rows, width, dtype, 1), draw(columns, width, dtype, 2, 0.3)
    assert_same(
        kernels.nearest(x.cuda(), y.cuda(), metric),
        kernels.nearest(x, y, metric),
    )
    for k in {1, min(10, columns), min(100, columns)}:
        assert_same(kernels.topk(x.cuda(), y.cuda(), k, metric), kernels.topk(x, y, k, metric))


def groups(rows, seed):
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.lognormal(3, 2, size=rows).astype(np.int64), rows)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return torch.tensor(np.append(offsets[offsets < rows], rows))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_equal_the_cpu(metric, dtype):
    x, offsets = draw(4000, 136, dtype, 3), groups(4000, 4)
    on_card = x.cuda(), offsets.cuda()
    assert_same(kernels.group_max(*on_card, metric), kernels.group_max(x, offsets, metric))
    threshold = 40.0 if metric == "l2" else 0.25
    assert_same(
        kernels.pairs_above(on_card[0], threshold, on_card[1], metric),
        kernels.pairs_above(x, threshold, offsets, metric),
    )


def test_millions_of_tiny_groups_equal_the_cpu():
    x = draw(1_000_000, 8, torch.float32, 5)
    offsets = torch.arange(0, 1_000_001, 2)
    assert_same(kernels.group_max(x.cuda(), offsets.cuda()), kernels.group_max(x, offsets))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_sums_equal_the_cpu(dtype):
    x, y = draw(700, 96, dtype, 6, 0.1), draw(3000, 96, dtype, 7, 0.1)
    gammas = torch.tensor([0.0, 0.003, 0.05, 3.0], dtype=torch.float64)
    assert_same(
        kernels.kernel_sum(x.cuda(), y.cuda(), gammas.cuda()),
        kernels.kernel_sum(x, y, gammas),
    )


@pytest.mark.parametrize("metric", METRICS)
def test_lists_that_overflow_are_scanned_again(metric, monkeypatch):
    monkeypatch.setattr(scan, "_ROOM", 64)  # and again, with more room
    y = draw(40, 72, torch.float32, 8).repeat(30, 1)
    x = draw(600, 72, torch.float32, 9)
    assert_same(kernels.topk(x.cuda(), y.cuda(), 3, metric), kernels.topk(x, y, 3, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_the_portable_path_gives_the_same(metric, monkeypatch):
    x, y = draw(900, 100, torch.float32, 10), draw(700, 100, torch.float32, 11)
    card = gpu.card_of(torch.device("cuda", torch.cuda.current_device()))
    monkeypatch.setattr(card, "hopper", False)
    assert_same(kernels.nearest(x.cuda(), y.cuda(), metric), kernels.nearest(x, y, metric))
    assert_same(kernels.topk(x.cuda(), y.cuda(), 10, metric), kernels.topk(x, y, 10, metric))
    offsets = groups(900, 12)
    assert_same(
        kernels.group_max(x.cuda(), offsets.cuda(), metric),
        kernels.group_max(x, offsets, metric),
    )


def test_reruns_are_equal_bit_for_bit():
    x, y = draw(20_000, 256, torch.float32, 13).cuda(), draw(9_000, 256, torch.float32, 14).cuda()
    first = kernels.topk(x, y, 10)
    for _ in range(3):
        assert_same(kernels.topk(x, y, 10), first)


def test_the_filter_errs_less_than_its_bound():
    # the tensor core's own arithmetic, against float64, on what the bound was derived for
    x, y = draw(2000, 1536, torch.float32, 15).cuda(), draw(500, 1536, torch.float32, 16).cuda()
    for metric in METRICS:
        card = gpu.card_of(x.device)
        x_norms, y_norms = (rows.double().norm(dim=1) for rows in (x, y))
        left = scan.round_rows(card, x, x_norms)
        right = scan.round_columns(card, y, y_norms, metric)
        product = scan.multiply(left, right, x_norms, y_norms, metric)
        floor = torch.full_like(product.slack, -torch.inf)
        score, column, count, _ = scan.list_candidates(card, product, 1, floor, None, product.slack)
        listed = torch.arange(score.shape[1], device=x.device) < count[:, None]
        row = listed.nonzero()[:, 0]
        left, right = x.double()[row], y.double()[column[listed].long()]
        real = (left * right).sum(1)
        if metric == "l2":
            real -= 0.5 * (right**2).sum(1)
        scale = product.unit[row]
        if metric == "cosine":
            real = torch.nn.functional.cosine_similarity(left, right)
        error = (score[listed].double() - scale * real).abs()
        assert bool((error <= 0.5 * product.slack[row]).all())


def test_most_rows_of_clusters_are_certified_at_once():
    centres = torch.randn(1000, 384, generator=torch.manual_seed(0))
    x = centres[torch.arange(50_000) % 1000] + 0.5 * torch.randn(50_000, 384)
    with kernels.counting() as count:
        kernels.nearest(x.cuda(), centres.cuda())
    assert count.share > 0.99


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad):
    x = draw(50, 16, torch.float32, 17)
    x[33, 5] = bad
    with pytest.raises(ValueError, match="row 33 of x holds NaN or infinity"):
        kernels.nearest(x.cuda(), x[:5].cuda())


def test_fast_labels_are_nearly_the_exact_ones():
    x, y = draw(5000, 128, torch.float32, 18).cuda(), draw(300, 128, torch.float32, 19).cuda()
    exact, fast = kernels.nearest(x, y), kernels.nearest(x, y, precision="fast")
    assert float((exact[0] == fast[0]).double().mean()) > 0.8
    assert float((exact[1] - fast[1]).abs().max()) < 2e-3


def test_operators_pass_opcheck():
    x, offsets = draw(200, 24, torch.float32, 20).cuda(), torch.tensor([0, 90, 200]).cuda()
    operators = torch.ops.shardwright
    torch.library.opcheck(operators.nearest.default, (x, x[:20], "cosine", True))
    torch.library.opcheck(operators.group_max.default, (x, offsets, "cosine", True))
