"""Rows made ready for a float32 product, and how far that product can lead astray.

With u = 2^-24, a float32 product of two rows satisfies ``|fl(a.b) - a.b| <= g |a| |b|`` with
``g = n u / (1 - n u)``, n the number of terms, for any order of summation and any use of fused
multiply-add (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sec. 3.1).
Products and inputs that underflow, flushed to zero or not, add at most 2^-126 each, relative to
1 or to the other factor. A score is nearer when larger: the dot product; for ``cosine`` the dot
product with the unit row; for ``l2`` the dot product less half the column's square. Rows whose
norms are very large or very small are scaled by powers of two, which loses nothing but to
underflow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shardwright.kernels.exact import norms

_ROUNDING = 2.0**-24
_UNDERFLOW = 2.0**-125
_COMMON = 2.0**30
"""Norms between this and its inverse are safe in float32 as they are: no product of two rows
overflows, and what underflows is far below the bound."""
_BLOCK = 1 << 18
"""Numbers per float64 temporary."""


@dataclass(frozen=True)
class Columns:
    """The right side of the product.

    Attributes:
        rows: [K, d] as given.
        norms: canonical float64 [K].
        scaled: float32 [K, d], of norms at most about 2^30.
        halves: float32 [K], minus half the squared norms of ``scaled``, for ``l2``; else empty.
        exponent: power of two by which ``scaled`` is smaller than ``rows`` (not for ``cosine``).
        longest: upper bound of the norms of ``scaled``.
        highest: upper bound of the magnitudes of ``halves``.
        metric: ``cosine``, ``dot`` or ``l2``.
    """

    rows: Tensor
    norms: Tensor
    scaled: Tensor
    halves: Tensor
    exponent: int
    longest: float
    highest: float
    metric: str


def columns_of(rows: Tensor, found: Tensor, metric: str) -> Columns:
    """Makes rows [K, d] with canonical norms float64 [K] ready, K >= 1."""
    top, none = float(found.max()), torch.empty(0)
    if metric == "cosine":
        scaled = _scale(rows, torch.where(found > 0, 1 / found, 0.0))
        return Columns(rows, found, scaled, none, 0, 1 + 2.0**-20, 0.0, metric)
    exponent = 0 if 1 / _COMMON <= top <= _COMMON else int(torch.frexp(found.max())[1])
    factor = torch.full_like(found, 2.0**-exponent)
    scaled = rows.float() if exponent == 0 else _scale(rows, factor)
    longest = top * 2.0**-exponent * (1 + 2.0**-20)
    if metric == "dot":
        return Columns(rows, found, scaled, none, exponent, longest, 0.0, metric)
    halves = (-0.5 * (found * factor).square()).float()
    return Columns(rows, found, scaled, halves, exponent, longest, 0.5 * longest**2, metric)


@dataclass(frozen=True)
class Rows:
    """What the left side of the product needs to know of its rows.

    Attributes:
        norms: float64 [N] of the rows as given: canonical ones, or upper bounds; zero for zero
            rows alone.
        exponents: int64 [N], powers of two by which the scaled rows are smaller.
        shift: float32 [N], what the columns' ``halves`` are to be multiplied by.
        unit: float64 [N]: how much of a score one of the metric's numbers makes (cosine: the
            norm of the scaled row; dot and l2: the product of both scales).
        error: float64 [N]: how far a score can lie from the exact one.
        silent: bool [N], zero rows where all their similarities are zero.
        common: whether no row has to be scaled.
    """

    norms: Tensor
    exponents: Tensor
    shift: Tensor
    unit: Tensor
    error: Tensor
    silent: Tensor
    common: bool


def rows_of(found: Tensor, dimension: int, columns: Columns) -> Rows:
    """What is to know of rows of norms float64 [N].

    The error counts 24 roundings beside those of the d products: of unit rows, of
    ``halves`` and their product, of thresholds taken from scores, and of this arithmetic itself.
    """
    metric = columns.metric
    unusual = (found > 0) & ((found > _COMMON) | (found < 1 / _COMMON))
    exponents = torch.where(unusual, torch.frexp(found)[1], 0).long()
    if metric == "l2":
        # halves count 2^(b - m) times, for columns scaled by 2^-b and the row by 2^-m
        exponents = exponents.clamp_(min=columns.exponent)
    lengths = found * _power(-exponents)
    shift = _power(columns.exponent - exponents)
    count = dimension + 24
    error = lengths * columns.longest + shift * columns.highest
    error *= count * _ROUNDING / (1 - count * _ROUNDING)
    error += count * _UNDERFLOW * (1 + lengths + columns.longest)
    unit = lengths if metric == "cosine" else _power(-exponents - columns.exponent)
    silent = torch.zeros_like(unusual) if metric == "l2" else found == 0
    common = not bool(exponents.any())
    return Rows(found, exponents, shift.float(), unit, error, silent, common)


def scaled_rows(rows: Tensor, side: Rows, part: slice) -> Tensor:
    """The left side of the product, float32 [n, d], for rows [n, d], ``part`` of ``side``."""
    return rows.float() if side.common else _scale(rows, _power(-side.exponents[part]))


def product(left: Tensor, shift: Tensor, columns: Columns, part: slice, scores: Tensor) -> None:
    """Writes scores float32 [n, w] of rows [n, d], of ``shift`` [n], and a part of the columns."""
    right = columns.scaled[part].T
    if columns.metric != "l2":
        torch.mm(left, right, out=scores)
        return
    halves = columns.halves[part]
    if bool((shift != 1).any()):
        halves = shift[:, None] * halves
    torch.addmm(halves, left, right, out=scores)


def measure(score: Tensor, side: Rows, row: Tensor, metric: str) -> Tensor:
    """What scores [P] of rows int64 [P] say of the metric: float64 [P]."""
    real = torch.where(side.unit[row] > 0, score.double() / side.unit[row], 0.0)
    if metric == "l2":
        return (side.norms[row].square() - 2 * real).clamp_(min=0.0)
    return real.clamp_(-1.0, 1.0) if metric == "cosine" else real


def band(side: Rows, threshold: float, metric: str, exact: bool) -> tuple[Tensor, Tensor]:
    """Scores float32 [n] below which no pair passes a threshold, and above which every pair does.

    Both are the same score for ``exact=False``.
    """
    # beyond any value, and within float64 after scaling
    level = torch.full_like(side.norms, max(-(2.0**600), min(2.0**600, threshold)))
    reach = level.abs()
    if metric == "l2":
        squares = side.norms.square()
        level, reach = 0.5 * (squares - level), squares + reach
    level = side.unit * level
    error = side.error + side.unit * reach * 2.0**-40 if exact else 0.0
    infinity = torch.full((len(level),), torch.inf)
    lowest = torch.nextafter((level - error).float(), -infinity if exact else infinity)
    highest = torch.nextafter((level + error).float(), infinity) if exact else lowest
    # a zero row: all its similarities are zero, and all pass or none does
    lowest[side.silent] = -torch.inf if threshold < 0 else torch.inf
    highest[side.silent] = -torch.inf
    return lowest.clamp_(min=torch.finfo(torch.float32).min), highest


def row_bounds(rows: Tensor, name: str) -> Tensor:
    """Cheap upper bounds of norms, float64 [N], 0 for zero rows alone.

    Args:
        rows: float32, float16 or bfloat16 [N, d].
        name: what the caller calls them, for the error.

    Raises:
        ValueError: a row holds NaN or infinity.
    """
    found = torch.empty(len(rows), dtype=torch.float64)
    step = max(1, 32 * _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        length = torch.linalg.vector_norm(part, dim=1, dtype=torch.float32)
        # between these bounds float32 squares do not overflow, nor matter when they underflow
        if bool(((length > 1 / _COMMON) & (length < _COMMON)).all()):
            found[start : start + step] = length
        else:
            found[start : start + step] = norms(part, name, start)
    return found.mul_(1 + (rows.shape[1] + 8) * _ROUNDING * 1.1)


def _scale(rows: Tensor, factors: Tensor) -> Tensor:
    """Rows [n, d] times factors float64 [n], as float32 rounded at most twice."""
    scaled = torch.empty(rows.shape, dtype=torch.float32)
    safe = factors[factors > 0]
    if bool(((safe > _COMMON**-2) & (safe < _COMMON**2)).all()):
        single = factors.float()[:, None]
        if rows.dtype == torch.float32:
            return torch.mul(rows, single, out=scaled)
        return scaled.copy_(rows).mul_(single)
    # the factor may be out of float32's range where the scaled row is not
    size = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        scaled[part] = rows[part].double() * factors[part, None]
    return scaled


def _power(exponents: Tensor) -> Tensor:
    """2^e float64 for int64 e within float64's normal numbers, exactly."""
    return ((exponents + 1023) << 52).view(torch.float64)
