"""Float64 values of pairs of rows in one fixed order of additions, and exact choices among them.

A value depends on its two rows and on nothing else: not on the batch, the block size, the number
of threads or the device. The terms of a sum are float64: the product of two float32 numbers is
exact in float64, and a difference of two float32 numbers is rounded once before it is squared.
They are added as a fixed tree (``fold``), whose longest path has ``steps(d)`` additions, so that
a sum errs by at most ``steps(d) u / (1 - steps(d) u)`` times the sum of the terms' magnitudes,
u = 2^-53 (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sec. 4.2). Values
further apart than their bounds are in the order of exact arithmetic; ties.py settles the others.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from shardwright.kernels import ties

_LANES = 256
"""Accumulators of the fold."""
_BLOCK = 1 << 18
"""Float64 numbers per temporary: small enough for a cache, large enough to occupy the cores."""
_UNIT = 2.0**-53
"""Unit roundoff of float64."""


def fold(terms: Tensor) -> Tensor:
    """Sums float64 [n, d] over d in the canonical order: float64 [n].

    With d padded by zeros to a multiple of 256: 256 accumulators take the terms in order of their
    position modulo 256, then the upper half is added onto the lower until one is left. Adding a
    padded zero changes nothing but the sign of a zero, which the last addition settles.
    """

    def fill(block: Tensor, start: int, stop: int) -> None:
        block.copy_(terms[start:stop])

    return _folded(len(terms), terms.shape[1], fill, terms.device)


def steps(dimension: int) -> int:
    """Additions that one term of a ``fold`` of ``dimension`` terms passes through, at most."""
    return -(-dimension // _LANES) + 8


def squared_norms(x: Tensor) -> Tensor:
    """Canonical squared norms float64 [N] of rows float32, float16 or bfloat16 [N, d].

    They overflow for no finite input, so one that is not finite tells of NaN or infinity.
    """
    if x.is_cuda:
        from shardwright.kernels import gpu

        squares: Tensor = gpu.squared_norms(x)
        return squares

    def fill(block: Tensor, start: int, stop: int) -> None:
        block.copy_(x[start:stop]).mul_(block)

    return _folded(len(x), x.shape[1], fill, x.device)


def root(squares: Tensor) -> Tensor:
    """Square roots of float64 [n], correctly rounded on every device.

    On the CPU torch takes them from MKL's vector library, which errs by an ulp now and then.
    """
    return squares.sqrt() if squares.is_cuda else torch.from_numpy(np.sqrt(squares.numpy()))


def norms(x: Tensor, name: str, first: int = 0) -> Tensor:
    """Canonical norms float64 [N] of rows [N, d].

    Args:
        x: float32, float16 or bfloat16 [N, d].
        name: what the caller calls ``x``, for the error.
        first: the caller's number of the first row, for the error.

    Raises:
        ValueError: a row holds NaN or infinity.
    """
    found = root(squared_norms(x))
    bad = (~torch.isfinite(found)).nonzero()
    if len(bad):
        raise ValueError(f"row {first + int(bad[0])} of {name} holds NaN or infinity")
    return found


def pair_values(
    x: Tensor,
    y: Tensor,
    row: Tensor,
    column: Tensor,
    metric: str,
    x_norms: Tensor | None = None,
    y_norms: Tensor | None = None,
) -> Tensor:
    """Canonical values of the pairs ``(x[row], y[column])``.

    Args:
        x: float32, float16 or bfloat16 [N, d].
        y: likewise, or these values in float64 already, [M, d].
        row: int64 [P] into ``x``.
        column: int64 [P] into ``y``.
        metric: ``cosine``, ``dot`` or ``l2`` (the squared distance).
        x_norms: float64 [N], ``norms`` of ``x``; read for ``cosine`` alone.
        y_norms: float64 [M], ``norms`` of ``y``; likewise.

    Returns:
        float64 [P].
    """
    sums = _pair_sums(x, y, row, column, metric == "l2")
    if metric != "cosine":
        return sums
    assert x_norms is not None
    assert y_norms is not None
    scale = x_norms[row] * y_norms[column]
    return torch.where(scale > 0, sums / scale, 0.0).clamp_(-1.0, 1.0)


def select(
    x: Tensor,
    y: Tensor,
    row: Tensor,
    column: Tensor,
    k: int,
    metric: str,
    x_norms: Tensor,
    y_norms: Tensor,
) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of each row's candidates, as exact real arithmetic orders them.

    Args:
        x: float32, float16 or bfloat16 [N, d].
        y: likewise [M, d].
        row: int64 [P] into ``x``, ascending.
        column: int64 [P] into ``y``, ascending within a row, without repeats.
        k: at most the number of candidates of each row that occurs.
        metric: ``cosine``, ``dot`` or ``l2``.
        x_norms: float64 [N], ``norms`` of ``x``; for ``dot`` an upper bound does; not read for l2.
        y_norms: float64 [M], likewise.

    Returns:
        ``index`` int64 and ``value`` float64 [R, k] for the R rows that occur, best first, ties
        by the lowest index. Values are canonical float64: of two pairs whose order only exact
        arithmetic can tell, the better one may show the worse value, by a rounding.
    """
    values = pair_values(x, y, row, column, metric, x_norms, y_norms)
    start, place = ties.runs(row)
    if len(start) == len(row):
        return column[:, None], values[:, None]
    order = torch.argsort(values, stable=True, descending=metric != "l2")
    order = order[torch.argsort(place[order], stable=True)]
    position = torch.arange(len(row), device=row.device) - start[place]

    value, error = values[order], _errors(x, row, column, values, metric, x_norms, y_norms)
    if metric == "dot":  # neighbours tell of all that follow if a row has one bound
        error = torch.zeros_like(start, dtype=error.dtype).scatter_reduce_(0, place, error, "amax")[
            place
        ]
    error = error[order]
    linked = torch.zeros_like(row, dtype=torch.bool)
    linked[1:] = (value[1:] - value[:-1]).abs() <= error[1:] + error[:-1]
    linked &= position > 0
    head, run = ties.runs((~linked).cumsum(0))
    length = torch.diff(head, append=torch.full_like(head[:1], len(row)))
    doubtful = ((length > 1) & (position[head] < k))[run]
    if bool(doubtful.any()):
        pairs = order[doubtful]
        rank = ties.ranks(x, y, row[pairs], column[pairs], run[doubtful], metric)
        # pairs are sorted by row, then column: their number stands for the column
        again = torch.argsort(pairs)
        again = again[torch.argsort(rank[again], stable=True)]
        again = again[torch.argsort(run[doubtful][again], stable=True)]
        order[doubtful] = pairs[again]
    best = order[position < k]
    return column[best].view(-1, k), values[best].view(-1, k)


def above(
    x: Tensor,
    y: Tensor,
    row: Tensor,
    column: Tensor,
    threshold: float,
    metric: str,
    x_norms: Tensor,
    y_norms: Tensor,
) -> tuple[Tensor, Tensor]:
    """Which pairs are strictly above a threshold (``l2``: strictly below), in exact arithmetic.

    Args:
        x: float32, float16 or bfloat16 [N, d].
        y: likewise [M, d].
        row: int64 [P] into ``x``.
        column: int64 [P] into ``y``.
        threshold: float64, taken as the exact number that it is; may be infinite.
        metric: ``cosine``, ``dot`` or ``l2``.
        x_norms: float64 [N], ``norms`` of ``x``; for ``dot`` an upper bound does; not read for l2.
        y_norms: float64 [M], likewise.

    Returns:
        bool [P], and canonical values float64 [P].
    """
    values = pair_values(x, y, row, column, metric, x_norms, y_norms)
    error = _errors(x, row, column, values, metric, x_norms, y_norms)
    passed = values < threshold if metric == "l2" else values > threshold
    doubtful = ((values - threshold).abs() <= error) & (error > 0)
    pairs = doubtful.nonzero()[:, 0]
    if len(pairs):
        passed[pairs] = ties.above(x, y, row[pairs], column[pairs], threshold, metric)
    return passed, values


def _errors(
    x: Tensor,
    row: Tensor,
    column: Tensor,
    values: Tensor,
    metric: str,
    x_norms: Tensor,
    y_norms: Tensor,
) -> Tensor:
    """How far canonical values float64 [P] can lie from the exact ones: float64 [P].

    Sums err by ``steps(d)`` roundings, relative to the sum of magnitudes, which is at most the
    product of the norms. A squared difference has three roundings of its own. A cosine has those
    of its sum, half as many of each norm with one for the root, one for the product and one for
    the quotient. The rest allows for second order, for the norms' own errors as bounds, and for
    the arithmetic on these bounds. Zero where the value is exact because its terms are zero.
    """
    rounding = (steps(x.shape[1]) + 8) * _UNIT
    if metric == "l2":
        return values * rounding
    scale = x_norms[row] * y_norms[column]
    return scale * rounding if metric == "dot" else (scale > 0).double() * (2 * rounding)


def _pair_sums(x: Tensor, y: Tensor, row: Tensor, column: Tensor, l2: bool) -> Tensor:
    """Dot products, or squared distances if ``l2``, of the pairs: float64 [P]."""
    if x.is_cuda:
        from shardwright.kernels import gpu

        sums: Tensor = gpu.pair_sums(x, y, row, column, l2)
        return sums
    count, dimension = len(row), x.shape[1]
    size = min(_rows_per_block(dimension), count)
    x_rows = torch.empty(size, dimension, dtype=x.dtype)
    y_rows = torch.empty(size, dimension, dtype=y.dtype)
    y_wide = y_rows if y.dtype == torch.float64 else y_rows.double()
    # most often one pair per row: then x is read as it lies
    whole = count == len(x) and torch.equal(row, torch.arange(count))

    def fill(block: Tensor, start: int, stop: int) -> None:
        n = stop - start
        if whole:
            block.copy_(x[start:stop])
        else:
            block.copy_(torch.index_select(x, 0, row[start:stop], out=x_rows[:n]))
        right = torch.index_select(y, 0, column[start:stop], out=y_rows[:n])
        if right.dtype != torch.float64:
            right = y_wide[:n].copy_(right)
        if l2:
            right = block.sub_(right)
        block.mul_(right)

    return _folded(count, dimension, fill, x.device)


def _folded(
    count: int, dimension: int, fill: Callable[[Tensor, int, int], None], device: torch.device
) -> Tensor:
    """Canonical sums float64 [count] of terms that come block by block.

    Args:
        count: sums.
        dimension: terms of each.
        fill: writes the terms of sums ``start`` to ``stop`` - 1 into a block float64 [n, d].
        device: where.
    """
    sums = torch.zeros(count, dtype=torch.float64, device=device)
    size = min(_rows_per_block(dimension), count)
    block = sums.new_empty(size, dimension)
    additions = _additions(block)
    for start, stop in _blocks(count if dimension else 0, size):
        if stop - start < size:  # the last block
            block = block[: stop - start]
            additions = _additions(block)
        fill(block, start, stop)
        for onto, addend in additions:
            onto.add_(addend)
        torch.add(block[:, 0], 0.0, out=sums[start:stop])
    return sums


def _additions(terms: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Views of [n, d] in which ``fold`` adds each second one onto the first, in order."""
    width, views = terms.shape[1], []
    for start in range(_LANES, width, _LANES):
        views.append((min(_LANES, width - start), start))
    width, half = min(width, _LANES), _LANES // 2
    while half:
        if width > half:
            views.append((width - half, half))
            width = half
        half //= 2
    return [(terms[:, :size], terms[:, start : start + size]) for size, start in views]


def _rows_per_block(dimension: int) -> int:
    return max(1, _BLOCK // max(1, dimension))


def _blocks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Bounds (start, stop) of consecutive blocks of at most ``size`` out of ``count``."""
    for start in range(0, count, max(1, size)):
        yield start, min(start + size, count)
