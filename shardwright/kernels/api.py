"""The five functions: checks of arguments, NumPy in and out, and the counter of certified rows.

Exact (the default) means the answer that exact real arithmetic on the given inputs gives, ties
to the lowest index. Values are float64, computed in one order of additions: the same bits on CPU
and CUDA, for any tile and any number of threads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardwright.kernels import ops

Metric = Literal["cosine", "dot", "l2"]
Precision = Literal["exact", "fast"]
Array: TypeAlias = npt.NDArray[Any] | Tensor
A = TypeVar("A", npt.NDArray[Any], Tensor)

_WIDEST = 1 << 20
"""Dimensions up to which the error bounds of the filters stay far from 1."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass
class Count:
    """What ``counting`` saw.

    Attributes:
        rows: rows that were asked for in exact calls.
        certified: those of them that the filter decided alone.
    """

    rows: int = 0
    certified: int = 0

    @property
    def share(self) -> float:
        """Share of rows certified at once; 1 if none was asked for."""
        return self.certified / self.rows if self.rows else 1.0


_COUNTS: ContextVar[tuple[Count, ...]] = ContextVar("counts", default=())


@contextmanager
def counting() -> Iterator[Count]:
    """Counts the rows that exact calls of this thread inside the block certify at once.

    Blocks may stand inside each other: each counts what happens in it.
    """
    count = Count()
    token = _COUNTS.set((*_COUNTS.get(), count))
    try:
        yield count
    finally:
        _COUNTS.reset(token)


def nearest(
    x: A, c: A, metric: Metric = "cosine", *, precision: Precision = "exact"
) -> tuple[A, A]:
    """Finds for every row of ``x`` the nearest row of ``c``.

    Args:
        x: float32, float16 or bfloat16 [N, d], a NumPy array or a torch tensor on CPU or CUDA.
        c: likewise [K, d], K >= 1; its dtype may differ from that of ``x``.
        metric: ``cosine`` (similarity, largest wins; a zero row has similarity 0 to everything),
            ``dot`` (inner product, largest wins) or ``l2`` (squared distance, smallest wins).
        precision: ``exact``, or ``fast`` for the answer of the filter alone: near ties may go
            wrong, and values are the filter's too, good to about six digits on the CPU and three
            on CUDA.

    Returns:
        ``index`` int64 [N] into ``c``, and ``value`` float64 [N], the metric of the pair: NumPy
        arrays or tensors on the device of ``x``, as ``x`` is.

    Raises:
        TypeError: an input has another dtype, or NumPy and torch are mixed.
        ValueError: shapes or devices do not fit, ``c`` has no row, a row holds NaN or infinity,
            the dimension exceeds 2^20, or the metric or the precision is unknown.
    """
    exact = _exact(metric, precision)
    rows, columns = _both(x, c, "c")
    if not len(columns):
        raise ValueError("c has no row: there is nothing to be nearest to")
    index, value, certified = ops.nearest(rows, columns, metric, exact)
    _add(len(rows), certified, exact)
    return _like(x, index), _like(x, value)


def topk(
    x: A, y: A, k: int, metric: Metric = "cosine", *, precision: Precision = "exact"
) -> tuple[A, A]:
    """Finds for every row of ``x`` the ``k`` nearest rows of ``y``.

    Args:
        x: float32, float16 or bfloat16 [N, d], a NumPy array or a torch tensor on CPU or CUDA.
        y: likewise [M, d].
        k: how many, 1 <= k <= M.
        metric: see ``nearest``.
        precision: see ``nearest``.

    Returns:
        ``index`` int64 [N, k] into ``y`` and ``value`` float64 [N, k], best first. Two values
        whose order only exact arithmetic can tell may stand the other way round by a rounding.

    Raises:
        TypeError, ValueError: see ``nearest``; or ``k`` does not fit.
    """
    exact = _exact(metric, precision)
    rows, columns = _both(x, y, "y")
    if not 1 <= k <= len(columns):
        raise ValueError(
            f"k is {k}: y has {len(columns)} rows, so it must lie in 1..{len(columns)}"
        )
    index, value, certified = ops.topk(rows, columns, k, metric, exact)
    _add(len(rows), certified, exact)
    return _like(x, index), _like(x, value)


def pairs_above(
    x: A,
    threshold: float,
    offsets: A | None = None,
    metric: Metric = "cosine",
    *,
    precision: Precision = "exact",
) -> tuple[A, A, A]:
    """Finds all pairs of rows of one group that are more similar than a threshold.

    Args:
        x: float32, float16 or bfloat16 [N, d], a NumPy array or a torch tensor on CPU or CUDA.
        threshold: pairs strictly above it are found; for ``l2`` those whose squared distance is
            strictly below it. Taken as the exact float64 number that it is.
        offsets: int64 [G + 1] from 0 to N, non-decreasing: group g is the rows from offsets[g] to
            offsets[g + 1] - 1. One group of all rows by default.
        metric: see ``nearest``.
        precision: see ``nearest``.

    Returns:
        ``i`` int64 [P], ``j`` int64 [P] and ``value`` float64 [P], i < j, sorted by (i, j).

    Raises:
        TypeError, ValueError: see ``nearest``; or offsets or threshold do not fit.
    """
    exact = _exact(metric, precision)
    rows = _matrix(x, "x")
    if np.isnan(threshold):
        raise ValueError("threshold is NaN: no pair can be above it")
    bounds = _offsets(offsets, rows)
    first, second, value, certified = ops.pairs_above(rows, float(threshold), bounds, metric, exact)
    _add(len(rows), certified, exact)
    return _like(x, first), _like(x, second), _like(x, value)


def group_max(
    x: A, offsets: A, metric: Metric = "cosine", *, precision: Precision = "exact"
) -> tuple[A, A]:
    """Finds for every row the nearest of the earlier rows of its group.

    This is the core of SemDeDup (Abbas et al., arXiv 2303.09540, sec. 3).

    Args:
        x: float32, float16 or bfloat16 [N, d], a NumPy array or a torch tensor on CPU or CUDA.
        offsets: int64 [G + 1] from 0 to N, non-decreasing, see ``pairs_above``.
        metric: see ``nearest``.
        precision: see ``nearest``.

    Returns:
        ``index`` int64 [N] into ``x``, -1 for the first row of a group, and ``value`` float64 [N],
        there -inf (``l2``: +inf).

    Raises:
        TypeError, ValueError: see ``nearest``; or offsets do not fit.
    """
    exact = _exact(metric, precision)
    rows = _matrix(x, "x")
    index, value, certified = ops.group_max(rows, _offsets(offsets, rows), metric, exact)
    _add(len(rows), certified, exact)
    return _like(x, index), _like(x, value)


def kernel_sum(x: A, y: A, gammas: A | Sequence[float]) -> tuple[A, A]:
    """Sums the kernels exp(-gamma |x_i - y_j|^2) over all pairs, for several bandwidths.

    Args:
        x: float32, float16 or bfloat16 [N, d], a NumPy array or a torch tensor on CPU or CUDA.
        y: likewise [M, d].
        gammas: [G], finite and not negative.

    Returns:
        ``total`` float64 [G], the sum over all pairs, and ``rows`` float64 [G, N], over j alone.

    Raises:
        TypeError, ValueError: see ``nearest``; or a gamma is negative, NaN or infinite.
    """
    left, right = _both(x, y, "y")
    _check_finite(left, "x")
    _check_finite(right, "y")
    widths = torch.as_tensor(gammas, dtype=torch.float64, device=left.device)
    if widths.ndim != 1:
        raise ValueError(f"gammas have shape {tuple(widths.shape)}: they must be [bandwidths]")
    if not bool((torch.isfinite(widths) & (widths >= 0)).all()):
        raise ValueError(f"gammas {widths.tolist()} must be finite and not negative")
    total, rows = ops.kernel_sum(left, right, widths)
    return _like(x, total), _like(x, rows)


def _exact(metric: str, precision: str) -> bool:
    """Whether the precision asked for is ``exact``, once both names are known to be known."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric {metric!r} is unknown: use 'cosine', 'dot' or 'l2'")
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is unknown: use 'exact' or 'fast'")
    return precision == "exact"


def _matrix(values: Array, name: str) -> Tensor:
    """A float32, float16 or bfloat16 matrix [n, d] from an array or a tensor."""
    found: Any = values.dtype if isinstance(values, Tensor) else np.asarray(values).dtype
    if found not in (*_DTYPES, np.float32, np.float16):
        raise TypeError(f"{name} is {found}: use float32, float16 or (torch only) bfloat16")
    matrix = _tensor(values)
    if matrix.ndim != 2:
        raise ValueError(f"{name} has shape {tuple(matrix.shape)}: it must be [rows, dimension]")
    if matrix.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} lies on {matrix.device}: move it to the CPU or to CUDA first")
    if matrix.shape[1] > _WIDEST:
        raise ValueError(f"{matrix.shape[1]} dimensions are too many: at most {_WIDEST}")
    return matrix.contiguous()


def _both(x: Array, y: Array, name: str) -> tuple[Tensor, Tensor]:
    """Two matrices that fit each other; ``name`` is the second's."""
    left, right = _matrix(x, "x"), _matrix(y, name)
    if isinstance(x, Tensor) != isinstance(y, Tensor):
        raise TypeError(f"x is a {type(x).__name__} and {name} a {type(y).__name__}: mix no kinds")
    if left.device != right.device:
        raise ValueError(f"x lies on {left.device} and {name} on {right.device}: use one device")
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"x has {left.shape[1]} dimensions and {name} has {right.shape[1]}: they must agree"
        )
    return left, right


def _offsets(offsets: Array | None, rows: Tensor) -> Tensor:
    """Offsets int64 [G + 1] on the device of ``rows`` [N, d]: from 0 to N, non-decreasing."""
    count = len(rows)
    if offsets is None:
        return torch.tensor([0, count], device=rows.device)
    bounds = _tensor(offsets)
    if bounds.dtype != torch.int64:
        raise TypeError(f"offsets are {bounds.dtype}: use int64")
    if bounds.ndim != 1 or not len(bounds):
        raise ValueError(f"offsets have shape {tuple(bounds.shape)}: they must be [groups + 1]")
    if int(bounds[0]) != 0 or int(bounds[-1]) != count:
        raise ValueError(
            f"offsets run from {bounds[0]} to {bounds[-1]}: they must from 0 to {count}"
        )
    falling = (bounds.diff() < 0).nonzero()
    if len(falling):
        raise ValueError(f"offsets fall after place {int(falling[0])}: they must not")
    return bounds.to(rows.device).contiguous()


def _check_finite(rows: Tensor, name: str) -> None:
    bad = (~torch.isfinite(rows).all(1)).nonzero()
    if len(bad):
        raise ValueError(f"row {int(bad[0])} of {name} holds NaN or infinity")


def _tensor(values: Array) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.ascontiguousarray(values)
    # torch takes no read-only or byte-swapped memory without a word of warning
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _like(x: A, result: Tensor) -> A:
    return result if isinstance(x, Tensor) else result.numpy()


def _add(rows: int, certified: Tensor, exact: bool) -> None:
    """Adds a call to the counters that run; if none does, nothing waits for the device."""
    for count in _COUNTS.get() if exact else ():
        count.rows += rows
        count.certified += int(certified)
