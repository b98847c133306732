"""The functions of this package on a CUDA card: a float16 scan filters, float64 decides.

Same answers, to the bit, as cpu.py: the scan's candidates hold the exact answer (scan.py says
why), and exact.py chooses among them as it does on a CPU. A row whose list holds just its answer
is certified at once; a row whose list overflowed is scanned again, for the pairs at or above the
last threshold that it had.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from shardwright.kernels import exact as decide
from shardwright.kernels import rbf, scan
from shardwright.kernels.device import card_of
from shardwright.kernels.scan import Ranges, take, take_ranges
from shardwright.kernels.ties import first_equal, row_keys


def squared_norms(x: Tensor) -> Tensor:
    """Canonical squared norms float64 [N] of rows on a card."""
    return scan.row_squares(card_of(x.device), x.contiguous())


def pair_sums(x: Tensor, y: Tensor, row: Tensor, column: Tensor, l2: bool) -> Tensor:
    """Canonical dot products, or squared distances if ``l2``, of pairs of rows: float64 [P]."""
    left, right = x.contiguous(), y.contiguous()
    return scan.pair_sums(card_of(x.device), left, right, row.contiguous(), column.contiguous(), l2)


def kernel_sum(x: Tensor, y: Tensor, gammas: Tensor) -> tuple[Tensor, Tensor]:
    """See ``shardwright.kernels.kernel_sum``."""
    return rbf.kernel_sum(x, y, gammas, step=partial(scan.rbf_rows, card_of(x.device)))


class _Operands:
    """Both sides of a call, ready to scan and to decide.

    Attributes:
        x, y: the rows, contiguous; x_norms, y_norms: float64.
        right: the columns of the scan.
    """

    def __init__(self, card: Any, x: Tensor, y: Tensor, metric: str) -> None:
        self.card = card or card_of(x.device)
        self.metric = metric
        self.x = x.contiguous()
        self.y = self.x if y is x else y.contiguous()
        self.x_norms = decide.norms(self.x, "x")
        self.y_norms = self.x_norms if y is x else decide.norms(self.y, "y")
        self.right = scan.round_columns(self.card, self.y, self.y_norms, metric)

    def product(self, start: int, stop: int) -> scan.Product:
        """What to scan for rows ``start`` to ``stop`` - 1; only they are held as float16."""
        x, norms = self.x[start:stop], self.x_norms[start:stop]
        if self.x is self.y:
            left = scan.take_halves(self.right, slice(start, stop))
        else:
            left = scan.round_rows(self.card, x, norms)
        return scan.multiply(left, self.right, norms, self.y_norms, self.metric)

    def values(self, row: Tensor, column: Tensor) -> Tensor:
        """Canonical values float64 [P] of pairs."""
        return decide.pair_values(
            self.x, self.y, row, column, self.metric, self.x_norms, self.y_norms
        )

    def select(self, row: Tensor, column: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` nearest of each row's candidates: index and value [rows, k]."""
        return decide.select(
            self.x, self.y, row, column, k, self.metric, self.x_norms, self.y_norms
        )

    def measure(self, score: Tensor, unit: Tensor, row: Tensor) -> Tensor:
        """What scores of rows say of the metric, float64, for ``precision="fast"``."""
        real = torch.where(unit > 0, score.double() / unit, 0.0)
        if self.metric == "l2":
            return (self.x_norms[row] ** 2 - 2 * real).clamp(min=0)
        return real.clamp(-1, 1) if self.metric == "cosine" else real


def nearest(
    x: Tensor, c: Tensor, metric: str, exact: bool, card: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.nearest``; also how many rows were certified at once, int64."""
    # of equal columns the first wins: the others need not take part
    first = first_equal(c, row_keys(c, decide.norms(c, "c")))
    kept = (first == torch.arange(len(c), device=c.device)).nonzero()[:, 0]
    columns = c if len(kept) == len(c) else c[kept]
    index, value, certified = topk(x, columns, 1, metric, exact, card)
    return kept[index[:, 0]], value[:, 0], certified


def topk(
    x: Tensor, y: Tensor, k: int, metric: str, exact: bool, card: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.topk``; also how many rows were certified at once, int64."""
    return _best(_Operands(card, x, y, metric), k, None, exact)


def group_max(
    x: Tensor, offsets: Tensor, metric: str, exact: bool, card: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.group_max``; also how many rows were certified at once, int64."""
    if not len(x):
        return _empty(x, torch.int64), _empty(x, torch.float64), torch.zeros_like(offsets[0])
    ranges = _earlier(x, offsets)
    index, value, certified = _best(_Operands(card, x, x, metric), 1, ranges, exact)
    return index[:, 0], value[:, 0], certified


def pairs_above(
    x: Tensor, threshold: float, offsets: Tensor, metric: str, exact: bool, card: Any = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.pairs_above``; also how many rows were certified at once, int64.

    Certified is a later row none of whose pairs lies within the scan's error of the threshold.
    """
    if not len(x):
        none = _empty(x, torch.int64)
        return none, none.clone(), _empty(x, torch.float64), torch.zeros_like(offsets[0])
    ranges = _earlier(x, offsets)
    side = _Operands(card, x, x, metric)
    product = side.product(0, len(x))
    unit, error = product.unit, 0.5 * product.slack.double()
    bounded = max(-(2.0**600), min(2.0**600, threshold))  # beyond any value; 0 times it is 0
    level = 0.5 * (side.x_norms**2 - bounded) if metric == "l2" else bounded
    floor = unit * level
    if not exact:
        error = torch.zeros_like(error)
    floor = _downwards(floor - error - 2.0**-22 * floor.abs())
    found = []
    unsure = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    sign = -0.5 if metric == "l2" else 1.0
    for row, column in scan.list_pairs(side.card, product, floor, ranges):
        if exact:
            above, value = decide.above(
                side.x, side.y, row, column, threshold, metric, side.x_norms, side.y_norms
            )
            unsure[row[unit[row] * sign * (value - threshold) <= product.slack[row]]] = True
            row, column, value = row[above], column[above], value[above]
        else:
            value = side.values(row, column)
        found.append((column, row, value))
    first, second, value = (torch.cat(part) for part in zip(*found, strict=True))
    order = (first * len(x) + second).argsort()
    return first[order], second[order], value[order], (~unsure & exact).sum()


def _best(
    side: _Operands, k: int, ranges: Ranges | None, exact: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The ``k`` nearest columns of each row, out of those that its range holds.

    Returns:
        Index int64 and value float64 [n, k], and the number of rows certified at once. A row that
        sees no column has index -1 and the worst value.
    """
    rows, device = len(side.x), side.x.device
    worst = torch.inf if side.metric == "l2" else -torch.inf
    index = torch.full((rows, k), -1, dtype=torch.int64, device=device)
    value = torch.full((rows, k), worst, dtype=torch.float64, device=device)
    certified = torch.zeros((), dtype=torch.int64, device=device)
    for start, stop in scan.windows(rows, k):
        certified += _best_of_window(side, k, ranges, exact, start, stop, index, value)
    return index, value, certified


def _best_of_window(
    side: _Operands,
    k: int,
    ranges: Ranges | None,
    exact: bool,
    start: int,
    stop: int,
    index: Tensor,
    value: Tensor,
) -> Tensor:
    """Fills rows ``start`` to ``stop`` - 1 of ``index`` and ``value``; how many were certified."""
    window = slice(start, stop)
    product, ranges = side.product(start, stop), take_ranges(ranges, window)
    slack = product.slack if exact else torch.zeros_like(product.slack)
    # a zero row has the same score with all columns: the first ones win, unseen
    silent = (side.x_norms[window] == 0) & (side.metric != "l2")
    floor = torch.where(silent, torch.inf, -torch.inf).float()
    score, column, count, bound = scan.list_candidates(side.card, product, k, floor, ranges, slack)
    first = torch.zeros_like(count) if ranges is None else ranges.lo
    silent &= True if ranges is None else ranges.hi > ranges.lo
    zeros = silent.nonzero()[:, 0]
    index[start + zeros] = first[zeros, None].long() + torch.arange(k, device=floor.device)
    value[start + zeros] = 0.0

    listed = torch.arange(score.shape[1], device=floor.device) < count[:, None]
    score = torch.where(listed, score, -torch.inf)
    best = score.amax(1) if k == 1 else score.topk(k, dim=1).values[:, -1]
    listed &= score >= torch.maximum(bound, best - slack)[:, None]
    candidates = listed.sum(1)
    certain = candidates == k

    if exact and k == 1:
        rows = certain.nonzero()[:, 0]
        chosen = column[rows].gather(1, score[rows].argmax(1, keepdim=True))[:, 0].long()
        index[start + rows, 0] = chosen
        value[start + rows, 0] = side.values(start + rows, chosen)
        undecided = candidates > 1
    else:
        undecided = candidates >= k
    rows = undecided.nonzero()[:, 0]
    if exact and len(rows):
        row, columns = _pairs(rows, column[rows], listed[rows])
        index[start + rows], value[start + rows] = side.select(start + row, columns, k)
    elif len(rows):
        index[start + rows], best = _by_score(score[rows], column[rows], listed[rows], k)
        unit = product.unit[rows, None]
        value[start + rows] = side.measure(best, unit, (start + rows)[:, None])

    rows = (count < 0).nonzero()[:, 0]
    if len(rows):
        again = take(product, rows), bound[rows], take_ranges(ranges, rows)
        for row, columns in scan.list_pairs(side.card, *again):
            here = start + rows[torch.unique_consecutive(row)]
            index[here], value[here] = side.select(start + rows[row], columns, k)
    return (certain & exact).sum() + len(zeros)


def _pairs(rows: Tensor, column: Tensor, listed: Tensor) -> tuple[Tensor, Tensor]:
    """Listed entries [n, capacity] of ``rows`` [n] as pairs sorted by row, then column."""
    last = torch.iinfo(torch.int32).max
    column = torch.where(listed, column, last).sort(1).values
    listed = column != last
    return rows[listed.nonzero()[:, 0]], column[listed].long()


def _by_score(score: Tensor, column: Tensor, listed: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` best entries of lists [n, capacity], as index int64 and score float32 [n, k]."""
    column, order = column.sort(1)
    score = torch.where(listed, score, -torch.inf).gather(1, order)
    score, order = score.sort(dim=1, descending=True, stable=True)
    return column.gather(1, order[:, :k]).long(), score[:, :k]


def _earlier(x: Tensor, offsets: Tensor) -> Ranges:
    """For each row the earlier rows of its group."""
    sizes = offsets.diff()
    start = offsets[:-1].repeat_interleave(sizes).int()
    return Ranges(start, torch.arange(len(x), dtype=torch.int32, device=x.device))


def _downwards(values: Tensor) -> Tensor:
    """float32 values no larger than the float64 ones."""
    single = values.float()
    return torch.nextafter(single, torch.full_like(single, -torch.inf))


def _empty(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(0, dtype=dtype, device=x.device)
