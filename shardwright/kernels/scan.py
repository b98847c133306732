"""The host side of a scan on a CUDA card: float16 operands, error bounds, launches, candidates.

The filter is the float16 tensor core product. Rows are scaled first (by powers of two, or to
unit length), rounded to float16, and what the rounding lost is measured. With x' and y' the
scaled rows and x^, y^ their roundings, a score s^ = fl(x^ . y^) errs by at most

    e = |x' - x^| max|y^|  +  |x'| max|y' - y^|  +  g |x^| max|y^|,     g = (d + 64) 2^-22

The first two terms are exact (Cauchy-Schwarz); the last covers the tensor core, which aligns the
16 products of an instruction and the accumulator to the largest and truncates them to no fewer
than 24 bits: 18 truncations of 2^-23 for each of d / 16 instructions are below 0.57 d 2^-22. The
64 cover roundings of the epilogue and of the scaling. A column whose score lies more than 2 e
below the best (k-th best) score cannot be the answer (among the answers).
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shardwright.kernels import rbf

_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_BLOCKS = 2
"""Blocks of a cluster: ``BLOCKS`` of hopper.cu."""
_ROWS = 256
"""Rows of an item, on either path."""
_ENTRIES = 1 << 24
"""Entries of the lists held at once."""
_ROOM = 1 << 22
"""Pairs that a launch has room for before their number is known."""
_MOST_PAIRS = 1 << 26
"""Pairs of a launch, unless a single row has more."""
_LARGEST_SCALE = 60
"""Power of two past which one of the two terms of an ``l2`` score is far below the bound."""


class _Scan(ctypes.Structure):
    """``struct Scan`` of scan.cuh."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("scale", "bias", "slack", "floor", "lo", "hi")],
        *[(name, ctypes.c_void_p) for name in ("order", "list", "count", "bound", "pairs")],
        ("total", ctypes.c_void_p),
        ("room", ctypes.c_ulonglong),
        *[(name, ctypes.c_int) for name in ("rows", "columns", "depth", "items", "k", "capacity")],
    ]


class _Constants(ctypes.Structure):
    """``struct Constants`` of rbf.cu."""

    _fields_ = [
        *[(name, ctypes.c_double) for name in ("log2_e", "ln2_high", "ln2_low", "round")],
        ("smallest", ctypes.c_double),
        ("polynomial", ctypes.c_double * 10),
    ]


@dataclass(frozen=True)
class Halves:
    """Rows as the tensor cores take them.

    Attributes:
        numbers: float16 [n, width], width a multiple of 8.
        factors: float64 [n]: ``numbers`` is about the rows times these.
        norms: float64 [n], of the scaled rows before they were rounded.
        lost: float64 [n], norms of what the rounding changed.
    """

    numbers: Tensor
    factors: Tensor
    norms: Tensor
    lost: Tensor


@dataclass(frozen=True)
class Product:
    """All that a scan of x against y needs.

    Attributes:
        x: the rows, y: the columns.
        unit: float64 [n]: a score is the real one times this: x . y, for ``l2``
            x . y - |y|^2 / 2.
        slack: float32 [n], twice the bound of a score's error.
        scale: float32 [n] and bias: float32 [columns + 256] for ``l2``, else None.
    """

    x: Halves
    y: Halves
    unit: Tensor
    slack: Tensor
    scale: Tensor | None
    bias: Tensor | None


@dataclass(frozen=True)
class Ranges:
    """Columns ``lo[i]`` to ``hi[i] - 1`` that row i sees: int32 [n], both non-decreasing."""

    lo: Tensor
    hi: Tensor


def row_squares(card: Any, rows: Tensor) -> Tensor:
    """Squared norms float64 [n] of rows [n, d], in the canonical order."""
    squares = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    _by_warps(card, "row_squares", len(rows), *_matrix(rows), squares)
    return squares


def pair_sums(
    card: Any, x: Tensor, y: Tensor, row: Tensor, column: Tensor, squared: bool
) -> Tensor:
    """Inner products, or squared distances, float64 [P] of pairs, in the canonical order."""
    sums = torch.empty(len(row), dtype=torch.float64, device=x.device)
    _by_warps(
        card,
        "pair_sums",
        len(row),
        *(x, ctypes.c_int(_KINDS[x.dtype]), y, ctypes.c_int(_KINDS[y.dtype])),
        *(ctypes.c_int(x.shape[1]), row, column),
        *(ctypes.c_longlong(len(row)), ctypes.c_int(squared), sums),
    )
    return sums


def rbf_rows(card: Any, squared: Tensor, gammas: Tensor, rows: Tensor) -> None:
    """``rbf.rbf_rows`` on a card: adds kernel values of ``squared`` [m, n] to ``rows`` [G, n]."""
    count, columns = squared.shape
    constants = _Constants(rbf.LOG2_E, rbf.LN2_HIGH, rbf.LN2_LOW, rbf.ROUND, rbf.EXP_SMALLEST)
    constants.polynomial[:] = rbf.EXP_POLYNOMIAL
    sizes = ctypes.c_int(count), ctypes.c_int(columns)
    totals = rows, ctypes.c_longlong(rows.stride(0))
    given = gammas, ctypes.c_int(len(gammas))
    blocks = -(-columns // 32)
    card.launch("rbf.cu", "rbf_rows", blocks, 256, 0, squared, *sizes, *given, *totals, constants)


def round_columns(card: Any, y: Tensor, norms: Tensor, metric: str) -> Halves:
    """The columns of a scan, or both sides of one of rows with themselves.

    Args:
        card: where the tensors lie.
        y: float32, float16 or bfloat16 [m, d], contiguous and finite, m >= 1.
        norms: float64 [m].
        metric: ``cosine``, ``dot`` or ``l2``.
    """
    if metric == "cosine":
        return _halves(card, y, norms, torch.where(norms > 0, 1 / norms, 0.0))
    return _scaled(card, y, norms, norms.max().expand_as(norms))


def round_rows(card: Any, x: Tensor, norms: Tensor) -> Halves:
    """The rows of a scan; arguments as for ``round_columns``."""
    return _scaled(card, x, norms, norms)


def multiply(left: Halves, right: Halves, x_norms: Tensor, y_norms: Tensor, metric: str) -> Product:
    """Bounds the error of the scores of both sides for a metric.

    Args:
        left: rows x.
        right: columns y.
        x_norms: float64 [n], of the rows as given.
        y_norms: float64 [m], likewise.
        metric: ``cosine``, ``dot`` or ``l2``.
    """
    unit = left.factors * (x_norms if metric == "cosine" else right.factors[0])
    reach = (right.norms + right.lost).max()
    gamma = (left.numbers.shape[1] + 64) * 2.0**-22
    error = left.lost * reach + left.norms * right.lost.max()
    error += gamma * (left.norms + left.lost) * reach
    scale = bias = None
    if metric == "l2":  # in the unit of |y|^2, which is the same for all rows
        shared = right.factors[0]
        exponent = torch.frexp(shared / left.factors)[1] - 1
        ratio = _powers_of_two(exponent.clamp(-_LARGEST_SCALE, _LARGEST_SCALE))
        unit = ratio * left.factors * shared
        half = 0.5 * (y_norms * shared) ** 2
        error = ratio * error + 2.0**-22 * half.max()
        scale = ratio.float()
        bias = torch.nn.functional.pad(-half.float(), (0, 256), value=-torch.inf)
    return Product(left, right, unit, _upwards(2 * error), scale, bias)


def list_candidates(
    card: Any, product: Product, k: int, floor: Tensor, ranges: Ranges | None, slack: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The columns that can be among the ``k`` best of each row, in lists.

    Args:
        card: where the tensors lie.
        product: what to scan.
        k: at least 1.
        floor: float32 [n], scores below which nothing is listed.
        ranges: the columns that each row sees; None: all.
        slack: float32 [n], how far below the k-th best score a candidate can lie.

    Returns:
        ``score`` float32 and ``column`` int32 [n, capacity]; ``count`` int32 [n] of entries, or -1
        where there were too many; ``bound`` float32 [n]: candidates score no less.
    """
    rows, device = len(floor), floor.device
    capacity = capacity_of(k)
    lists = torch.empty(rows, capacity, 2, dtype=torch.int32, device=device)
    count = torch.empty(rows, dtype=torch.int32, device=device)
    bound = torch.empty(rows, dtype=torch.float32, device=device)
    scan = _Scan(k=k, capacity=capacity)
    scan.list, scan.count, scan.bound = lists.data_ptr(), count.data_ptr(), bound.data_ptr()
    _launch(card, "best" if k == 1 else "several", product, scan, floor, ranges, slack)
    return lists.view(torch.float32)[..., 0], lists[..., 1], count, bound


def list_pairs(
    card: Any, product: Product, floor: Tensor, ranges: Ranges | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs that score at least the row's floor, a part of the rows at a time.

    Args:
        card: where the tensors lie.
        product: what to scan.
        floor: float32 [n].
        ranges: the columns that each row sees; None: all.

    Yields:
        ``row`` and ``column`` int64 [P], sorted by row, then column; rows rise from one yield to
        the next.
    """
    waiting = [(0, len(floor))]
    room = _ROOM
    while waiting:
        start, stop = waiting.pop()
        pairs = torch.empty(room, 2, dtype=torch.int32, device=floor.device)
        total = torch.zeros(1, dtype=torch.int64, device=floor.device)
        scan = _Scan(room=room, pairs=pairs.data_ptr(), total=total.data_ptr())
        rows = slice(start, stop)
        part, seen = take(product, rows), take_ranges(ranges, rows)
        _launch(card, "all", part, scan, floor[rows], seen, part.slack)
        found = int(total)
        if found > room and (found <= _MOST_PAIRS or stop - start == 1):
            room = found
            waiting.append((start, stop))
        elif found > room:
            middle = (start + stop) // 2
            waiting += [(middle, stop), (start, middle)]
        else:
            row, column = pairs[:found].long().unbind(1)
            order = (row * len(product.y.norms) + column).argsort()
            yield row[order] + start, column[order]


def capacity_of(k: int) -> int:
    """Entries of a row's list for the ``k`` best: a power of two with room for near ties."""
    return 16 if k == 1 else max(64, 1 << (2 * k - 1).bit_length())


def windows(rows: int, k: int) -> Iterator[tuple[int, int]]:
    """Bounds of the windows of rows whose lists are held at once."""
    size = max(_ROWS, _ENTRIES // capacity_of(k) // _ROWS * _ROWS)
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def take(product: Product, rows: Tensor | slice) -> Product:
    """The product for some rows of x."""
    scale = None if product.scale is None else product.scale[rows]
    left = take_halves(product.x, rows)
    return Product(left, product.y, product.unit[rows], product.slack[rows], scale, product.bias)


def take_halves(halves: Halves, rows: Tensor | slice) -> Halves:
    """Some of the rows."""
    return Halves(halves.numbers[rows], halves.factors[rows], halves.norms[rows], halves.lost[rows])


def take_ranges(ranges: Ranges | None, rows: Tensor | slice) -> Ranges | None:
    """The ranges of some rows; a tensor of rows must rise."""
    return None if ranges is None else Ranges(ranges.lo[rows], ranges.hi[rows])


def _launch(
    card: Any,
    keep: str,
    product: Product,
    scan: _Scan,
    floor: Tensor,
    ranges: Ranges | None,
    slack: Tensor,
) -> None:
    """Runs a scan over all rows of ``product``; fills what ``scan`` lacks."""
    left, right = product.x.numbers, product.y.numbers
    scan.rows, scan.columns, scan.depth = len(left), len(right), left.shape[1] // 8
    scan.items = -(-len(left) // _ROWS)
    order = _order(ranges, len(left))
    optional = {"scale": product.scale, "bias": product.bias, "order": order}
    if ranges is not None:
        optional |= {"lo": ranges.lo, "hi": ranges.hi}
    for name, tensor in {"floor": floor, "slack": slack, **optional}.items():
        if tensor is not None:
            setattr(scan, name, tensor.data_ptr())
    suffix = "" if product.bias is None else "_bias"
    if card.hopper:
        width = 128 if len(right) <= 128 or ranges is not None else 256
        stages = 6 if width == 128 else 4
        memory = 1024 + stages * (128 + width) * 128 + 128 * 8 + stages * 16
        maps = card.tensor_map(left, 128), card.tensor_map(right, width // _BLOCKS)
        clusters = max(1, min(scan.items, card.processors // _BLOCKS))
        name = f"scan_{keep}_{width}{suffix}"
        card.launch("hopper.cu", name, clusters * _BLOCKS, 384, memory, *maps, scan)
    else:
        memory = 1024 + 3 * (256 + 128) * 64 + 256 * 8
        blocks = min(scan.items, card.processors)
        card.launch("portable.cu", f"scan_{keep}{suffix}", blocks, 256, memory, left, right, scan)


def _order(ranges: Ranges | None, rows: int) -> Tensor | None:
    """Items by falling work int32, so that the last ones to finish are small; None: all equal."""
    if ranges is None:
        return None
    first = torch.arange(0, rows, _ROWS, device=ranges.lo.device)
    last = (first + _ROWS - 1).clamp(max=rows - 1)
    work = ranges.hi[last] - ranges.lo[first]
    return work.argsort(descending=True, stable=True).int()


def _scaled(card: Any, rows: Tensor, norms: Tensor, sizes: Tensor) -> Halves:
    """Rows times powers of two that bring ``sizes`` float64 [n] to 1/2..1, as float16.

    Rows that are float16 already, and lie as the copy engine can read them, stay as they are.
    """
    width = rows.shape[1]
    if rows.dtype == torch.float16 and width and width % 8 == 0 and rows.data_ptr() % 16 == 0:
        return Halves(rows, torch.ones_like(norms), norms, torch.zeros_like(norms))
    return _halves(card, rows, norms, _powers_of_two(-torch.frexp(sizes)[1]))


def _halves(card: Any, rows: Tensor, norms: Tensor, factors: Tensor) -> Halves:
    """Rows times ``factors`` float64 [n] as float16, with what was lost."""
    count, width = rows.shape
    stride = max(8, -(-width // 8) * 8)
    numbers = torch.empty(count, stride, dtype=torch.float16, device=rows.device)
    lost = torch.empty_like(norms)
    factors = factors.contiguous()
    tail = ctypes.c_int(stride), factors, numbers, lost
    _by_warps(card, "row_halves", count, *_matrix(rows), *tail)
    return Halves(numbers, factors, norms * factors, lost.sqrt())


def _powers_of_two(exponents: Tensor) -> Tensor:
    """2^exponents float64, exact, for exponents of normal numbers (torch.ldexp passes float32)."""
    return (exponents.long() + 1023 << 52).view(torch.float64)


def _upwards(values: Tensor) -> Tensor:
    """float32 values no smaller than the float64 ones."""
    return torch.nextafter(values.float(), torch.full_like(values, torch.inf).float())


def _matrix(rows: Tensor) -> tuple[Any, ...]:
    """A matrix as kernels of rows.cu take it."""
    kind = ctypes.c_int(_KINDS[rows.dtype])
    return rows, kind, ctypes.c_longlong(len(rows)), ctypes.c_int(rows.shape[1])


def _by_warps(card: Any, kernel: str, tasks: int, *arguments: Any) -> None:
    """Runs a kernel of rows.cu with a warp for each task."""
    if tasks:
        blocks = min(-(-tasks // 8), card.processors * 8)
        card.launch("rows.cu", kernel, blocks, 256, 0, *arguments)
