"""The CUDA sources, executed on a host card that checks what they do (see emulator/).

Inputs are small integers, so that every product is exact and answers can be compared for equality;
they tie often, which fills lists.
"""

import ctypes

import numpy as np
import pytest
import torch
from emulator.emulator import EmulatedCard, EmulatorError
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.kernels import scan
from shardwright.kernels.scan import Halves, Product, Ranges

PATHS = pytest.mark.parametrize("hopper", [True, False], ids=["hopper", "portable"])
LAST = 2**24


def halves(numbers):
    ones = torch.ones(len(numbers), dtype=torch.float64)
    return Halves(torch.from_numpy(numbers).half(), ones, ones, ones)


def product_of(rng, rows, columns, depth, slack, bias):
    """Integer rows and columns, and their scores as float64."""
    x = rng.integers(-3, 4, (rows, depth)) * (rng.random((rows, depth)) < 0.3)
    y = rng.integers(-3, 4, (columns, depth)) * (rng.random((columns, depth)) < 0.3)
    ones = torch.ones(rows, dtype=torch.float64)
    scores = (x @ y.T).astype(np.float64)
    scale = shift = None
    if bias:
        scale = torch.from_numpy(2.0 ** rng.integers(-2, 3, rows)).float()
        shift = torch.full((columns + 256,), torch.nan)
        shift[:columns] = torch.from_numpy(rng.integers(-5, 6, columns)).float()
        scores = scores * scale.numpy()[:, None] + shift[:columns].numpy()
    slacks = torch.full((rows,), float(slack))
    return Product(halves(x), halves(y), ones, slacks, scale, shift), scores


def ranges_of(rng, kind, rows, columns):
    """Ranges, and which (row, column) they hold."""
    if kind == "all":
        return None, np.ones((rows, columns), bool)
    if kind == "random":
        lo, hi = np.sort(rng.integers(0, columns + 1, (2, rows)), axis=1)
        lo = np.minimum(lo, hi)
    elif kind == "few":
        hi = np.sort(rng.integers(0, columns + 1, rows))
        lo = np.maximum.accumulate(np.maximum(hi - 5, 0))
    else:
        lo, hi = np.zeros(rows, int), np.full(rows, 0 if kind == "none" else columns)
    columns_at = np.arange(columns)
    seen = (columns_at >= lo[:, None]) & (columns_at < hi[:, None])
    return Ranges(torch.from_numpy(lo).int(), torch.from_numpy(hi).int()), seen


def check_candidates(card, product, scores, k, ranges, seen, floor):
    """Every list holds all that its bound lets pass, and the bound is not too high."""
    slack = product.slack
    score, column, count, bound = scan.list_candidates(card, product, k, floor, ranges, slack)
    capacity = scan.capacity_of(k)
    scores = np.where(seen, scores, -np.inf)
    for i in range(len(scores)):
        lowest, size = bound[i].item(), count[i].item()
        best = np.sort(scores[i])[::-1]
        kth = best[k - 1] if len(best) >= k else -np.inf
        allowed = max(floor[i].item(), kth - slack[i].item())
        assert lowest <= allowed, (i, lowest, allowed)
        assert lowest >= floor[i].item()
        if size < 0:
            assert (scores[i] >= lowest).sum() >= capacity
            continue
        assert 0 <= size <= capacity
        if k == 1:
            assert lowest == allowed
        listed = column[i, :size].numpy()
        assert len(set(listed)) == size
        assert (score[i, :size].numpy() == scores[i, listed]).all()
        assert set(np.flatnonzero(scores[i] >= max(lowest, -LAST))) <= set(listed)
    return count


@st.composite
def scans(draw):
    """What a scan is given."""
    return {
        "rows": draw(st.one_of(st.integers(1, 40), st.integers(200, 600))),
        "columns": draw(st.one_of(st.integers(1, 40), st.integers(100, 700))),
        "depth": 8 * draw(st.integers(1, 25)),
        "ranges": draw(st.sampled_from(["all", "all", "random", "few", "none", "full"])),
        "bias": draw(st.booleans()),
        "slack": draw(st.sampled_from([0.0, 1.0, 4.0])),
        "floor": draw(st.sampled_from([-np.inf, 0.0, 12.0])),
        "processors": draw(st.sampled_from([2, 3, 4, 6])),
        "seed": draw(st.integers(0, 10**6)),
    }


def prepared(given_):
    rng = np.random.default_rng(given_["seed"])
    size = given_["rows"], given_["columns"]
    product, scores = product_of(rng, *size, given_["depth"], given_["slack"], given_["bias"])
    ranges, seen = ranges_of(rng, given_["ranges"], *size)
    return product, scores, ranges, seen, torch.full((size[0],), given_["floor"])


@PATHS
@settings(max_examples=12, deadline=None)
@given(given_=scans(), k=st.sampled_from([1, 1, 2, 10, 100]))
def test_lists_hold_every_candidate(hopper, given_, k):
    product, scores, ranges, seen, floor = prepared(given_)
    card = EmulatedCard(hopper, given_["processors"], given_["seed"])
    check_candidates(card, product, scores, k, ranges, seen, floor)


@PATHS
@settings(max_examples=8, deadline=None)
@given(given_=scans())
def test_pairs_are_all_that_reach_the_floor(hopper, given_):
    product, scores, ranges, seen, _ = prepared(given_)
    rng = np.random.default_rng(given_["seed"] + 1)
    floor = rng.integers(0, 30, given_["rows"]).astype(np.float32)
    card = EmulatedCard(hopper, given_["processors"], given_["seed"])
    found = list(scan.list_pairs(card, product, torch.from_numpy(floor), ranges))
    expected = np.nonzero((scores >= floor[:, None]) & seen)
    for side, wanted in zip(zip(*found, strict=True), expected, strict=True):
        np.testing.assert_array_equal(torch.cat(side).numpy(), wanted)


@PATHS
@pytest.mark.parametrize("k", [1, 40])
def test_lists_that_overflow_say_so(hopper, k):
    rng = np.random.default_rng(1)
    product, scores = product_of(rng, 70, 500, 64, 9.0, False)
    card = EmulatedCard(hopper, 4)
    floor, seen = torch.full((70,), -torch.inf), np.ones((70, 500), bool)
    count = check_candidates(card, product, scores, k, None, seen, floor)
    assert (count < 0).any()


@PATHS
def test_scores_err_less_than_the_slack(hopper):
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.standard_normal((90, 1000)) * np.exp(rng.normal(0, 3, (90, 1))))
    y = torch.from_numpy(rng.standard_normal((80, 1000)))
    x, y = x.float(), y.float()
    card = EmulatedCard(hopper, 2)
    norms = scan.row_squares(card, x).sqrt(), scan.row_squares(card, y).sqrt()
    for metric in ("cosine", "dot", "l2"):
        right = scan.round_columns(card, y, norms[1], metric)
        product = scan.multiply(scan.round_rows(card, x, norms[0]), right, *norms, metric)
        real = x.double() @ y.double().T
        if metric == "cosine":
            real = real / norms[0][:, None] / norms[1]
        elif metric == "l2":
            real = real - norms[1] ** 2 / 2
        real *= product.unit[:, None]
        floor = torch.full((90,), -torch.inf)
        slack = torch.full((90,), 1e30)
        score, column, count, _ = scan.list_candidates(card, product, 60, floor, None, slack)
        assert (count == 80).all()
        error = score[:, :80].double() - real.gather(1, column[:, :80].long())
        assert (error.abs() <= product.slack[:, None].double() / 2).all()
        assert (error.abs() > 0).any()


# ---- faults planted in a copy of the sources ----

H, S, P = "hopper.cu", "scan.cuh", "portable.cu"
WAIT_FULL = "barrier_wait(&ring.full[turn.stage], turn.parity);"
FAULTS = {
    "reads before the copy": (H, WAIT_FULL, WAIT_FULL.replace("parity", "parity ^ 1")),
    "releases what is still read": (H, "products_wait<1>();", "products_wait<2>();"),
    "never releases": (H, "if (lane < BLOCKS) barrier_arrive(&ring.empty[last], lane);", ""),
    "copies for one block only": (H, "(1 << BLOCKS) - 1);", "1 << rank);"),
    "descriptor of other rows": (H, "(1024ull >> 4) << 32", "(512ull >> 4) << 32"),
    "leaves while the other writes": (H, "  cluster_sync();  // no block", "  // no block"),
    "drops the last tile": (S, "(end - begin + width - 1) / width", "(end - begin) / width"),
    "another lane's columns": (S, "(lane & 3) * 2 + (each", "(lane & 3) + (each"),
    "overflow unseen": (S, "count_of[row] = full ? -1 : kept", "count_of[row] = kept"),
    "misaligned pairs": (S, "p.lo[first] & ~7", "p.lo[first]"),
    "waits for one copy too few": (P, "copies_wait<STAGES - 2>", "copies_wait<STAGES - 1>"),
    "refills what is still read": (P, "    __syncthreads();  // the ring is free", "    // the"),
    "races in the list": (
        S,
        "      __syncwarp();  // a vote orders no memory: all must have read before any writes\n",
        "",
    ),
}


def scan_twice(card):
    """Two scans that take every turn: ragged tiles, odd ranges, several items, full lists."""
    for rows, columns, depth, kind, bias, slack in [
        (530, 101, 128, "random", True, 1.0),
        (300, 400, 136, "all", False, 9.0),
    ]:
        rng = np.random.default_rng(columns)
        product, scores = product_of(rng, rows, columns, depth, slack, bias)
        ranges, seen = ranges_of(rng, kind, rows, columns)
        floor = torch.full((rows,), -torch.inf)
        check_candidates(card, product, scores, 1, ranges, seen, floor)


def look_for(fault):
    hopper = fault[0] != P
    for seed in range(8):
        scan_twice(EmulatedCard(hopper, 2 if hopper else 1, seed, (fault,)))


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault):
    with pytest.raises((EmulatorError, AssertionError)):
        look_for(FAULTS[fault])


def test_a_report_says_where_threads_wait():
    card = EmulatedCard(True, 2, 0, (FAULTS["never releases"],))
    with pytest.raises(
        EmulatorError, match=r"deadlock:\n.* wait for barrier_wait at hopper.cu:\d+"
    ):
        scan_twice(card)


# ---- rows.cu ----


def canonical(terms):
    """``fold`` for terms [n, d]: the order of additions that all devices share."""
    padded = np.pad(terms, ((0, 0), (0, -terms.shape[1] % 256)))
    sums = padded[:, :256].copy()
    for start in range(256, padded.shape[1], 256):
        sums += padded[:, start : start + 256]
    width = 128
    while width:
        sums = sums[:, :width] + sums[:, width : 2 * width]
        width //= 2
    return sums[:, 0] + 0.0


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])


@DTYPES
@pytest.mark.parametrize("width", [1, 7, 31, 256, 257, 700])
def test_sums_of_rows_and_pairs_are_canonical(dtype, width):
    rng = np.random.default_rng(width)
    scale = np.exp(rng.normal(0, 2, (30, width)))
    x, y = (torch.from_numpy(rng.standard_normal((30, width)) * scale).to(dtype) for _ in "xy")
    card = EmulatedCard(False, 2)
    wide = x.double().numpy(), y.double().numpy()
    squares = scan.row_squares(card, x).numpy()
    assert squares.tobytes() == canonical(wide[0] * wide[0]).tobytes()
    row, column = (torch.from_numpy(rng.integers(0, 30, 41)) for _ in "xy")
    a, b = wide[0][row], wide[1][column]
    dots = scan.pair_sums(card, x, y, row, column, False).numpy()
    assert dots.tobytes() == canonical(a * b).tobytes()
    distances = scan.pair_sums(card, x, y, row, column, True).numpy()
    assert distances.tobytes() == canonical((a - b) * (a - b)).tobytes()


@DTYPES
def test_rows_are_rounded_to_halves_and_padded(dtype):
    rng = np.random.default_rng(0)
    exponents = rng.uniform(-30, 15, (50, 13))
    x = torch.from_numpy(rng.standard_normal((50, 13)) * 2.0**exponents).to(dtype)
    factors = torch.from_numpy(2.0 ** rng.integers(-3, 1, 50) * 1.1)
    rounded = torch.empty(50, 24, dtype=torch.float16)
    lost = torch.empty(50, dtype=torch.float64)
    card = EmulatedCard(False, 2)
    sizes = ctypes.c_int({torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}[dtype])
    numbers = ctypes.c_longlong(50), ctypes.c_int(13), ctypes.c_int(24)
    card.launch("rows.cu", "row_halves", 3, 256, 0, x, sizes, *numbers, factors, rounded, lost)
    scaled = x.double() * factors[:, None]
    expected = torch.zeros(50, 24, dtype=torch.float16)
    expected[:, :13] = scaled.float().half()
    assert torch.equal(rounded.view(torch.int16), expected.view(torch.int16))
    torch.testing.assert_close(lost, ((scaled - expected[:, :13].double()) ** 2).sum(1))
