"""Exact nearest rows on the CPU: a float32 matrix product filters, float64 decides.

A float32 product is fast, but its last bits depend on the BLAS, on the number of threads and on
the shape of the tile. So it only tells which centroids *can* be nearest: with u = 2^-24, any
order of summation and any use of fused multiply-add keep ``|fl(x.c) - x.c| <= g |x| |c|`` with
``g = d u / (1 - d u)`` (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sec.
3.1). Whatever lies within twice that bound of the best is a candidate, and candidates are
compared by float64 values whose every rounding is spelled out here, so that they depend on the
two rows and on nothing else.
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Metric = Literal["cosine", "dot", "l2"]
Rows: TypeAlias = "npt.NDArray[np.float32] | npt.NDArray[np.float16] | torch.Tensor"
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_TILE = 1 << 20
"""Entries of the filter (rows times centroids) held at once."""
_BLOCK = 1 << 16
"""Float64 numbers per temporary of the exact part: small enough for the cache of a core."""
_WIDEST = 1 << 20
"""Dimensions up to which the error bound below stays far from 1."""


def nearest(x: Rows, c: Rows, metric: Metric = "cosine") -> tuple[Int64, Float64]:
    """Finds for every row of ``x`` the nearest row of ``c``.

    The answer is that of comparing float64 values of all pairs: no candidate is missed. Ties go
    to the lowest index. A row's answer has the same bits for any tile, batch or thread count.

    Args:
        x: float32 or float16 [N, d], a NumPy array or a torch tensor on the CPU.
        c: float32 or float16 [K, d], K >= 1, likewise.
        metric: ``cosine`` (similarity, largest wins; a zero row has similarity 0 to everything),
            ``dot`` (inner product, largest wins) or ``l2`` (squared distance, smallest wins).

    Returns:
        ``index`` int64 [N] into ``c``, and ``value`` float64 [N], the metric of the pair.

    Raises:
        TypeError: an input is neither float32 nor float16.
        ValueError: shapes do not fit, ``c`` has no row, a row holds NaN or infinity, the
            dimension exceeds 2^20, or the metric is unknown.
    """
    if metric not in ("cosine", "dot", "l2"):
        raise ValueError(f"metric {metric!r} is unknown: use 'cosine', 'dot' or 'l2'")
    queries, targets = _matrix(x, "x"), _matrix(c, "c")
    count, dimension = queries.shape
    if dimension != targets.shape[1]:
        raise ValueError(
            f"x has {dimension} dimensions and c has {targets.shape[1]}: they must agree"
        )
    if not len(targets):
        raise ValueError("c has no row: there is nothing to be nearest to")
    if dimension > _WIDEST:
        raise ValueError(f"{dimension} dimensions are too many: at most {_WIDEST}")
    centroids = _Centroids(_float32(targets, "c", 0), metric)
    index = np.empty(count, dtype=np.int64)
    value = np.empty(count, dtype=np.float64)
    for start, stop in _blocks(count, max(16, _TILE // len(targets))):
        rows = _float32(queries[start:stop], "x", start)
        index[start:stop], value[start:stop] = _nearest_tile(rows, centroids)
    return index, value


class _Centroids:
    """The right side, scaled once for the float32 filter.

    Attributes:
        rows: float32 [K, d], as given.
        norms: float64 [K].
        scaled: float32 [K, d] of norm at most 1: unit rows for ``cosine``, else ``rows`` times
            the power of two 2^-``exponent``, which changes no bit but those that underflow.
        half_squares: float32 [K], half the squared norms of ``scaled``, for ``l2``.
    """

    def __init__(self, rows: Float32, metric: Metric) -> None:
        self.metric = metric
        self.rows = rows
        self.norms = _norms(rows)
        self.exponent = int(np.frexp(self.norms.max())[1])
        if metric == "cosine":
            scale = np.divide(1.0, self.norms, out=np.zeros_like(self.norms), where=self.norms > 0)
        else:
            scale = np.full(len(rows), np.ldexp(1.0, -self.exponent))
        self.scaled = _scale(rows, scale)
        self.half_squares = (0.5 * (self.norms * scale) ** 2).astype(np.float32)


def _nearest_tile(x: Float32, c: _Centroids) -> tuple[Int64, Float64]:
    """The nearest centroid of a tile of finite rows float32 [n, d]: index and value [n]."""
    norms = _norms(x)
    scores, slack = _filter(x, norms, c)
    # float32 on both sides; the rounding of this difference is part of the slack
    threshold = scores.max(axis=1) - slack
    pairs = np.flatnonzero(scores >= threshold[:, None])
    row, candidate = np.divmod(pairs, len(c.rows))
    values = np.empty(len(pairs), dtype=np.float64)
    for start, stop in _blocks(len(pairs), _rows_per_block(x.shape[1])):
        i, j = row[start:stop], candidate[start:stop]
        values[start:stop] = _exact(x[i], c.rows[j], norms[i], c.norms[j], c.metric)
    best = np.minimum if c.metric == "l2" else np.maximum
    # every row has a candidate (its own best score), and pairs are sorted by row, then candidate
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    winner = best.reduceat(values, starts) if len(pairs) else values
    ties = np.flatnonzero(values == winner[row])
    first = ties[np.flatnonzero(np.diff(row[ties], prepend=-1))]
    return candidate[first], values[first]


def _filter(x: Float32, norms: Float64, c: _Centroids) -> tuple[Float32, Float32]:
    """Float32 scores [n, K], larger is nearer, and how far below its best [n] a winner can lie.

    Rows are scaled by powers of two to norms below 1, so that nothing overflows and what
    underflows is far below the bound. The bound counts d + 8 roundings: d of the product, the
    others for the scaled centroids, the ``l2`` term, the threshold and the float64 values.
    """
    mantissas, exponents = np.frexp(norms)
    dimension = x.shape[1]
    bound = (dimension + 8) * 2.0**-24 / (1 - (dimension + 8) * 2.0**-24)
    if c.metric != "l2":
        scores = _scale(x, np.ldexp(1.0, -exponents)) @ c.scaled.T
        return scores, (2 * bound * mantissas).astype(np.float32)
    # |x - c|^2 = |x|^2 - 2 (x.c - |c|^2 / 2), and with x = 2^m x', c = 2^b c' the bracket is
    # 2^(m+b) (x'.c' - 2^(b-m) |c'|^2 / 2); m >= b keeps the last factor from overflowing
    exponents = np.where(norms > 0, np.maximum(exponents, c.exponent), c.exponent)
    shift = np.ldexp(1.0, c.exponent - exponents)
    scores = _scale(x, np.ldexp(1.0, -exponents)) @ c.scaled.T
    scores -= shift.astype(np.float32)[:, None] * c.half_squares
    # a float64 value errs by its own size, which can dwarf the bracket when |x| >> |c|
    exact = (dimension + 8) * 2.0**-53 * (norms + c.norms.max()) ** 2
    exact = np.ldexp(exact, -(exponents + c.exponent))
    slack = 2 * (bound * (np.ldexp(norms, -exponents) + shift) + exact)
    # a slack past float32 means that every centroid is a candidate, as infinity does
    return scores, np.minimum(slack, np.finfo(np.float32).max).astype(np.float32)


def _exact(x: Float32, c: Float32, x_norms: Float64, c_norms: Float64, metric: Metric) -> Float64:
    """The metric of n pairs of rows float32 [n, d]: float64 [n], bits fixed by the rows alone."""
    if metric == "l2":
        difference = np.subtract(x, c, dtype=np.float64)
        return _fold(np.multiply(difference, difference, out=difference))
    dots = _fold(np.multiply(x, c, dtype=np.float64))
    if metric == "dot":
        return dots
    norms = x_norms * c_norms
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return np.clip(cosines, -1.0, 1.0, out=cosines)


def _fold(terms: Float64) -> Float64:
    """Sums float64 [n, d] over d, the upper half onto the lower until one column is left.

    The order of the additions is this loop's and not a library's, so a row's sum does not depend
    on the other rows, on NumPy's build or on the machine. Overwrites ``terms``.
    """
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0].copy() if width else np.zeros(len(terms))


def _norms(rows: Float32) -> Float64:
    """Euclidean norms float64 [n] of float32 [n, d]."""
    norms = np.empty(len(rows), dtype=np.float64)
    for start, stop in _blocks(len(rows), _rows_per_block(rows.shape[1])):
        block = rows[start:stop]
        norms[start:stop] = np.sqrt(_fold(np.multiply(block, block, dtype=np.float64)))
    return norms


def _scale(rows: Float32, factors: Float64) -> Float32:
    """Rows float32 [n, d] times factors float64 [n], rounded once to float32."""
    scaled = np.empty_like(rows)
    for start, stop in _blocks(len(rows), _rows_per_block(rows.shape[1])):
        factor = factors[start:stop, None]
        np.multiply(rows[start:stop], factor, out=scaled[start:stop], casting="same_kind")
    return scaled


def _matrix(values: Rows, name: str) -> npt.NDArray[np.floating[Any]]:
    """A float32 or float16 matrix [n, d] from an array or a CPU tensor."""
    if "torch" in sys.modules:  # whoever passes a tensor has imported torch
        import torch

        if isinstance(values, torch.Tensor):
            if values.device.type != "cpu":
                raise ValueError(f"{name} lies on {values.device}: move it with .cpu() first")
            if values.dtype not in (torch.float32, torch.float16):
                raise TypeError(f"{name} is {values.dtype}: use float32 or float16")
            values = values.detach().numpy()
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float16):
        raise TypeError(f"{name} is {array.dtype}: use float32 or float16")
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}: it must be [rows, dimension]")
    return array


def _float32(rows: npt.NDArray[np.floating[Any]], name: str, first: int) -> Float32:
    """Contiguous float32 rows, all finite; ``first`` is the number of the first one."""
    converted = np.ascontiguousarray(rows, dtype=np.float32)
    finite = np.isfinite(converted)
    if not finite.all():
        row = int(np.flatnonzero(~finite.all(axis=1))[0])
        raise ValueError(f"row {first + row} of {name} holds NaN or infinity")
    return converted


def _rows_per_block(dimension: int) -> int:
    return max(1, _BLOCK // max(1, dimension))


def _blocks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Bounds (start, stop) of consecutive blocks of at most ``size`` out of ``count``."""
    for start in range(0, count, size):
        yield start, min(start + size, count)
