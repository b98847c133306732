"""Two samples as one, and the labels that chance could have dealt to its rows.

Every measure of this package is tested in the same way: where two groups are alike, which row has
which label is chance, so the measure is taken again with labels dealt anew, and p is the share of
deals that give as much. Rows may change labels only with rows of the same stratum (class, cluster),
where strata are given. The test is exact for any sample size (Fisher 1935; Phipson and Smyth 2010,
"Permutation p-values should never be zero", for the added one).

The pooled rows come in an order of their own, and the sample that deals are counted for is chosen
by its rows, so neither the order of rows nor which sample is called the first changes a bit.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_info, threadpool_limits

Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]
Strata: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike]
"""The strata of the rows of two samples: any labels that sort."""
T = TypeVar("T")
R = TypeVar("R")

_BLOCK = 256
"""Deals per seed. It is part of what a seed means."""


@dataclass(frozen=True)
class Pooled:
    """Two samples as one.

    Attributes:
        rows: float64 [N, d], by stratum and then by value.
        first: bool [N], the rows of the smaller sample; of equally large ones, of that whose rows
            come first.
        cells: int64 [N], the stratum of each row, ascending.
        from_y: Whether ``first`` marks the second sample that was given.
        places: int64 [N], the place of each row in x, or that in y plus the length of x.
    """

    rows: Float64
    first: Bool
    cells: Int64
    from_y: bool
    places: Int64

    @property
    def counts(self) -> tuple[int, int]:
        """Rows of the sample that ``first`` marks, and of the other."""
        n = int(self.first.sum())
        return n, len(self.first) - n


def pool(x: npt.ArrayLike, y: npt.ArrayLike, strata: Strata | None = None) -> Pooled:
    """Pools two samples.

    Args:
        x: Numbers [n, d], finite, n >= 2.
        y: Numbers [m, d], likewise.
        strata: The strata of the n and of the m rows; None is one stratum.

    Raises:
        ValueError: shapes do not fit, a sample has fewer than two rows, or a row holds NaN or
            infinity.
    """
    a, b = _matrix(x, "x"), _matrix(y, "y")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"x has {a.shape[1]} dimensions and y has {b.shape[1]}: they must agree")
    rows = np.concatenate([a, b])
    cells = np.zeros(len(rows), np.int64)
    if strata is not None:
        of_x, of_y = (np.asarray(part) for part in strata)
        if of_x.shape != (len(a),) or of_y.shape != (len(b),):
            raise ValueError(
                f"strata of {of_x.shape} and {of_y.shape} for {len(a)} and {len(b)} rows: "
                "each row must have one"
            )
        cells = np.unique(np.concatenate([of_x, of_y]), return_inverse=True)[1]
    # bytes that sort as the numbers do, column after column
    keys = np.concatenate([cells[:, None].astype(np.float64), rows + 0.0], axis=1).view(np.uint64)
    top = np.uint64(1 << 63)
    keys = np.ascontiguousarray(np.where(keys & top, ~keys, keys | top), ">u8")
    flat = keys.view(np.dtype((np.void, 8 * keys.shape[1])))[:, 0]
    order = np.argsort(flat, kind="stable")
    runs = np.cumsum(np.append(False, (keys[order[1:]] != keys[order[:-1]]).any(axis=1)))
    of_x = order < len(a)
    surplus = np.bincount(runs, np.where(of_x, 1, -1))
    decisive = surplus[surplus != 0]
    from_y = len(a) > len(b) or (len(a) == len(b) and bool(len(decisive)) and decisive[0] < 0)
    # rows of equal values: those of the marked sample first
    order = order[np.lexsort((of_x == from_y, runs))]
    return Pooled(rows[order], (order < len(a)) != from_y, cells[order], from_y, order)


def deals(first: Bool, cells: Int64, count: int, seed: int) -> Iterator[Bool]:
    """Deals the labels anew, each arrangement with the same probability.

    Args:
        first: bool [N], the labels as they are.
        cells: int64 [N]; labels change places within a cell.
        count: How many deals.
        seed: Not negative.

    Yields:
        bool [B, N], deals as rows; together ``count``.
    """
    order = np.argsort(cells, kind="stable")
    bounds = np.flatnonzero(np.diff(cells[order])) + 1
    groups = [(part, int(first[part].sum())) for part in np.split(order, bounds)]
    for block in range(-(-count // _BLOCK)):
        rng = np.random.default_rng([seed, block])
        keys = rng.integers(0, 2**32, (_BLOCK, len(first)), dtype=np.uint32)
        dealt = np.broadcast_to(first, keys.shape).copy()
        for part, marked in groups:
            if 0 < marked < len(part):
                whole = len(part) == len(first)
                dealt[:, part] = _smallest(keys if whole else keys[:, part], marked)
        yield dealt[: count - block * _BLOCK]


def _smallest(keys: npt.NDArray[np.uint32], marked: int) -> Bool:
    """Marks the ``marked`` smallest of each row of keys; of equal ones the first."""
    bound = np.partition(keys, marked - 1, axis=1)[:, marked - 1 : marked]
    found: Bool = keys <= bound
    for row in np.flatnonzero(found.sum(axis=1) != marked):
        found[row] = False
        found[row, np.argsort(keys[row], kind="stable")[:marked]] = True
    return found


@dataclass(frozen=True)
class Outcome:
    """What a measure says of two samples.

    Attributes:
        value: The measure.
        effect_size: The measure without a scale, as its function defines it; it does not grow with
            the samples.
        null_mean: Mean of the measure over the deals.
        null_sd: Standard deviation of it over the deals.
        p_value: (1 + deals with at least as large a measure) / (1 + deals).
        permutations: How many deals.
    """

    value: float
    effect_size: float
    null_mean: float
    null_sd: float
    p_value: float
    permutations: int

    @property
    def deviation(self) -> float:
        """How many standard deviations of the null the value lies above its mean.

        It grows with the samples: it says how sure, not how large. NaN where the null is constant.
        """
        return (self.value - self.null_mean) / self.null_sd if self.null_sd else float("nan")


def outcome(
    value: float, observed: float, null: Float64, effect_size: float, slack: float = 1e-10
) -> Outcome:
    """Sums up a null distribution.

    Args:
        value: The measure.
        observed: The same, computed as the null was, to compare with it.
        null: float64 [P], P >= 1, the measure for each deal.
        effect_size: For the result.
        slack: A deal counts as equal that is lower by at most this share of the largest of the
            null: the error that the arithmetic may make.
    """
    return Outcome(
        value,
        effect_size,
        float(null.mean()),
        float(null.std()),
        p_value(observed, null, slack),
        len(null),
    )


def p_value(observed: float, null: Float64, slack: float = 1e-10) -> float:
    """(1 + #{null >= observed}) / (1 + P), with the slack of ``outcome``."""
    bound = observed - slack * float(np.abs(null).max())
    return (1 + int((null >= bound).sum())) / (1 + len(null))


def in_threads(function: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
    """Calls a function for each task, on as many threads as BLAS has; results keep their order.

    BLAS has one thread inside: the tasks' products and decompositions are too small for more,
    which would wait for each other most of the time, and no result depends on their number.
    """
    libraries = [each for each in threadpool_info() if each["user_api"] == "blas"]
    count = max((each["num_threads"] for each in libraries), default=1)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as threads:
        return list(threads.map(function, tasks))


def check_permutations(count: int) -> None:
    """Raises ValueError for a number of deals that gives no p."""
    if count < 1:
        raise ValueError(f"{count} permutations give no p: use at least 1")


def _matrix(values: npt.ArrayLike, name: str) -> Float64:
    """A finite float64 matrix of at least two rows."""
    given: npt.NDArray[Any] = np.asarray(values)
    if given.ndim != 2 or not given.shape[1]:
        raise ValueError(f"{name} has shape {given.shape}: it must be [rows, dimensions]")
    if len(given) < 2:
        raise ValueError(f"{name} has {len(given)} rows: two at least are needed")
    matrix = given.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise ValueError(f"row {int(bad[0])} of {name} holds NaN or infinity")
    return matrix
