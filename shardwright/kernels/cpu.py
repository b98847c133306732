"""The functions of this package on the CPU: a float32 matrix product filters, float64 decides.

A float32 product is fast, but its last bits depend on the BLAS, on the number of threads and on
the shape of the tile. So it only tells which columns *can* be the answer: those whose score lies
within twice the bound of bounds.py of the best, or at or above the threshold less the bound.
exact.py chooses among them. Scores exist one tile at a time; of each tile the maxima of short
blocks of columns are taken, and only blocks that reach the row's threshold are looked into.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor

from shardwright.kernels import exact as decide
from shardwright.kernels.bounds import (
    Columns,
    Rows,
    band,
    columns_of,
    measure,
    product,
    row_bounds,
    rows_of,
    scaled_rows,
)
from shardwright.kernels.groups import Chunk, Stretch, plan, scores_of
from shardwright.kernels.threads import in_threads
from shardwright.kernels.ties import first_equal, row_keys, runs

Pairs = tuple[Tensor, Tensor, Tensor]
"""Row and column int64 [P], sorted, and score float32 [P]."""

_TILE = 1 << 21
"""Scores held at once."""
_WIDTH = 1 << 13
"""Columns of a tile."""
_LEAST_ROWS, _MOST_ROWS = 1 << 9, 1 << 15
"""Rows of a tile."""
_BLOCK = 64
"""Columns of a block whose maximum is taken."""
_CODE = 1 << 12
"""More than the blocks of a tile and the columns of a block."""
_STRETCHES = 16
"""Stretches of rows of groups that a thread takes at a time."""
_FEW = 1 << 22
"""Numbers of the right side that are held in float64 too."""


@dataclass(frozen=True)
class _Operands:
    """What is compared, and what was learned of it once.

    Attributes:
        x: rows [N, d].
        side: their norms and error bounds.
        columns: what they are compared with.
        exact: whether float64 decides, or the scores alone.
    """

    x: Tensor
    side: Rows
    columns: Columns
    exact: bool

    def slack(self) -> Tensor:
        """How far below the best score the answer's can lie: float64 [N]."""
        return 2 * self.side.error if self.exact else torch.zeros_like(self.side.error)

    def left(self, part: slice) -> Tensor:
        """Some of the rows, made ready for the product: float32 [n, d]."""
        return scaled_rows(self.x[part], self.side, part)

    def values(self, row: Tensor, column: Tensor, score: Tensor) -> Tensor:
        """Float64 [P] of pairs: canonical, or what float32 scores [P] say."""
        columns = self.columns
        if not self.exact:
            return measure(score, self.side, row, columns.metric)
        return decide.pair_values(
            self.x, columns.rows, row, column, columns.metric, self.side.norms, columns.norms
        )

    def choose(self, row: Tensor, column: Tensor, score: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` best candidates of each row: index and value [R, k]."""
        columns = self.columns
        if self.exact:
            return decide.select(
                self.x, columns.rows, row, column, k, columns.metric, self.side.norms, columns.norms
            )
        heads, place = runs(row)
        order = torch.argsort(score, stable=True, descending=True)
        order = order[torch.argsort(place[order], stable=True)]
        best = order[torch.arange(len(row)) - heads[place] < k]
        values = self.values(row[best], column[best], score[best])
        return column[best].view(-1, k), values.view(-1, k)


def nearest(x: Tensor, c: Tensor, metric: str, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.nearest``; also how many rows were certified at once, int64."""
    norms = decide.norms(c, "c")
    # of equal columns the first wins: the others need not take part
    first = first_equal(c, row_keys(c, norms))
    kept = (first == torch.arange(len(c))).nonzero()[:, 0]
    if len(kept) < len(c):
        c, norms = c[kept], norms[kept]
    index, value, certified = _search(x, columns_of(c, norms, metric), 1, exact)
    return kept[index[:, 0]], value[:, 0], certified


def topk(x: Tensor, y: Tensor, k: int, metric: str, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.topk``; also how many rows were certified at once, int64."""
    return _search(x, columns_of(y, decide.norms(y, "y"), metric), k, exact)


def group_max(
    x: Tensor, offsets: Tensor, metric: str, exact: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.group_max``; also how many rows were certified at once, int64."""
    worst = torch.inf if metric == "l2" else -torch.inf
    index = torch.full((len(x),), -1, dtype=torch.int64)
    value = torch.full((len(x),), worst, dtype=torch.float64)
    sure = torch.full((len(x),), exact)
    if not len(x):
        return index, value, sure.sum()
    operands, starts = _with_itself(x, metric, exact), _starts(offsets)
    side, slack = operands.side, operands.slack()
    # of equal rows of a group the first wins: the others need not be found
    first = first_equal(x, row_keys(x, side.norms + 0.618 * starts))
    repeated = (first < torch.arange(len(x))) & (first >= starts)

    def scan(stretches: list[Stretch]) -> Iterator[Pairs]:
        for stretch in stretches:
            here = slice(stretch.start, stretch.stop)
            chunks = scores_of(stretch, operands.left(here), side, operands.columns, starts, _WIDTH)
            row, column, score = _candidates(chunks, slack[here], 1, side.silent[here])
            kept = ~repeated[column]
            row, column, score = stretch.start + row[kept], column[kept], score[kept]
            sure[row[1:][row[1:] == row[:-1]]] = False
            yield row, column, score

    def search(stretches: list[Stretch]) -> None:
        for row, column, score in _gathered(scan(stretches)):
            found = operands.choose(row, column, score, 1)
            place = row[runs(row)[0]]
            index[place], value[place] = found[0][:, 0], found[1][:, 0]

    in_threads(search, _batches(starts))
    # a zero row is as similar to one row as to another
    silent = (side.silent & (starts < torch.arange(len(x)))).nonzero()[:, 0]
    index[silent], value[silent] = starts[silent], 0.0
    return index, value, sure.sum()


def pairs_above(
    x: Tensor, threshold: float, offsets: Tensor, metric: str, exact: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``shardwright.kernels.pairs_above``; also how many rows were certified at once, int64.

    Certified is a row all of whose earlier rows the product alone put on either side.
    """
    none = torch.empty(0, dtype=torch.int64)
    sure = torch.full((len(x),), exact)
    if not len(x):
        return none, none.clone(), none.double(), sure.sum()
    operands, starts = _with_itself(x, metric, exact), _starts(offsets)
    side = operands.side
    lowest, highest = band(side, threshold, metric, exact)

    def scan(stretches: list[Stretch]) -> Iterator[Pairs]:
        for stretch in stretches:
            here = slice(stretch.start, stretch.stop)
            left = operands.left(here)
            for first, scores in scores_of(stretch, left, side, operands.columns, starts, _WIDTH):
                row, column, score = _reaching(scores, *_maxima(scores, 1), lowest[here])
                column, row = column + first[row], row + stretch.start
                sure[row[score <= highest[row]]] = False
                yield row, column, score

    def search(stretches: list[Stretch]) -> list[Pairs]:
        found = []
        for row, column, score in _gathered(scan(stretches)):
            if exact:
                passed, value = decide.above(
                    x, x, row, column, threshold, metric, side.norms, side.norms
                )
                found.append((row[passed], column[passed], value[passed]))
            else:
                found.append((row, column, operands.values(row, column, score)))
        return found

    batches = in_threads(search, _batches(starts))
    later, earlier, value = _join([(none, none, none.double()), *chain.from_iterable(batches)])
    order = torch.argsort(earlier * len(x) + later)
    return earlier[order], later[order], value[order], sure.sum()


def _with_itself(x: Tensor, metric: str, exact: bool) -> _Operands:
    """Rows [N, d], N >= 1, on both sides."""
    norms = decide.norms(x, "x")
    columns = columns_of(x, norms, metric)
    return _Operands(x, rows_of(norms, x.shape[1], columns), columns, exact)


def _batches(starts: Tensor) -> Iterator[list[Stretch]]:
    """The stretches of rows with group starts int64 [N], some for each task of a thread."""
    stretches = plan(starts, _TILE)
    while batch := list(islice(stretches, _STRETCHES)):
        yield batch


def _search(x: Tensor, columns: Columns, k: int, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The ``k`` nearest columns: index and value [N, k], and how many rows were certified."""
    # what a score says of a distance takes the row's own square
    bounds = columns.metric == "dot" or (exact and columns.metric == "l2")
    norms = row_bounds(x, "x") if bounds else decide.norms(x, "x")
    share = max(1, -(-len(x) // torch.get_num_threads()))
    if len(x) * len(columns.rows) < _TILE:
        share = max(1, len(x))

    def search(cut: slice) -> tuple[Tensor, Tensor, Tensor]:
        side = rows_of(norms[cut], x.shape[1], columns)
        return _search_rows(_Operands(x[cut], side, columns, exact), k)

    cuts = [slice(start, start + share) for start in range(0, max(1, len(x)), share)]
    index, value, certified = zip(*in_threads(search, cuts), strict=True)
    return torch.cat(index), torch.cat(value), torch.stack(certified).sum()


def _search_rows(operands: _Operands, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """``_search`` for some of the rows."""
    side, columns, count = operands.side, operands.columns, len(operands.x)
    total, slack = len(columns.rows), operands.slack()
    index = torch.empty(count, k, dtype=torch.int64)
    value = torch.empty(count, k, dtype=torch.float64)
    sure = torch.full((count,), operands.exact)
    width = -(-total // -(-total // _WIDTH))
    padded = -(-width // _BLOCK) * _BLOCK
    size = max(1, min(_MOST_ROWS, max(_LEAST_ROWS, _TILE // padded), count))
    alone = operands.exact and k == 1 and width == total

    def scan() -> Iterator[Pairs]:
        # the product never writes the columns beyond the last one: they stay out of the question
        buffer = torch.empty(size, padded)
        buffer[:, width:] = -torch.inf
        for start in range(0, count, size):
            here = slice(start, min(start + size, count))
            left = operands.left(here)
            chunks = _chunks(left, side.shift[here], columns, width, buffer[: len(left)])
            if alone:
                scores = next(chunks).scores
                index[here, 0], row, column = _lone(scores, slack[here], side.silent[here])
                score = scores[row, column]
            else:
                row, column, score = _candidates(chunks, slack[here], k, side.silent[here])
            row += start
            sure[row[k:][row[k:] == row[:-k]]] = False
            yield row, column, score

    for row, column, score in _gathered(scan()):
        place = row[runs(row)[0]]
        index[place], value[place] = operands.choose(row, column, score, k)
    # zero rows: as similar to the first columns as to any
    index[side.silent], value[side.silent] = torch.arange(k), 0.0
    if alone:
        rows = columns.rows.double() if columns.rows.numel() <= _FEW else columns.rows
        value[:, 0] = decide.pair_values(
            operands.x,
            rows,
            torch.arange(count),
            index[:, 0],
            columns.metric,
            side.norms,
            columns.norms,
        )
    return index, value, sure.sum()


def _gathered(found: Iterable[Pairs]) -> Iterator[Pairs]:
    """Pairs of whole rows, joined until they are many enough to be worth a call."""
    held: list[Pairs] = []
    count = 0
    for pairs in found:
        held.append(pairs)
        count += len(pairs[0])
        if count > _TILE // 8:
            yield _join(held)
            held, count = [], 0
    if count:
        yield _join(held)


def _lone(scores: Tensor, slack: Tensor, silent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The column of each row that has one candidate, and the candidates of the other rows.

    Nearly all rows have one, so it is found without a list of candidates: a product of zeros and
    ones with 2^12 + j, exact in float32, both counts entries and tells the number of a single one.

    Args:
        scores: float32 [n, w], w a multiple of the block, at most 2^12 of them.
        slack: float64 [n], see ``_candidates``.
        silent: bool [n], rows to leave out.

    Returns:
        Column int64 [n], any column for the other rows; row and column int64 [P], sorted.
    """
    blocks = scores.view(len(scores), -1, _BLOCK)
    maxima = blocks.amax(2)
    floor = (maxima.amax(1).double() - slack).float()
    place, one = _single(maxima, floor)
    parts = scores.view(-1, _BLOCK).index_select(
        0, torch.arange(0, maxima.numel(), maxima.shape[1]) + place
    )
    inner, alone = _single(parts, floor)
    left = (~(one & alone | silent)).nonzero()[:, 0]
    row, column, _ = _reaching(scores[left], maxima[left], _BLOCK, floor[left])
    return place * _BLOCK + inner, left[row], column


def _single(values: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Place int64 [n] of the entry of [n, w] that reaches ``floor`` [n], and if it is the only one.

    The place is 0 where it is not.
    """
    reaching = torch.empty_like(values)
    torch.ge(values, floor[:, None], out=reaching)
    code = torch.mv(reaching, torch.arange(_CODE, _CODE + values.shape[1], dtype=torch.float32))
    one = (code >= _CODE) & (code < 2 * _CODE)
    return torch.where(one, code - _CODE, 0.0).long(), one


def _chunks(
    left: Tensor, shift: Tensor, columns: Columns, width: int, buffer: Tensor
) -> Iterator[Chunk]:
    """Scores of a tile against all columns, ``width`` at a time, in ``buffer`` [n, >= width]."""
    for first in range(0, len(columns.scaled), width):
        part = slice(first, min(first + width, len(columns.scaled)))
        buffer[:, part.stop - first : width] = -torch.inf
        product(left, shift, columns, part, buffer[:, : part.stop - first])
        yield Chunk(torch.full((len(left),), first), buffer)


def _candidates(chunks: Iterable[Chunk], slack: Tensor, k: int, silent: Tensor) -> Pairs:
    """The pairs whose score is within ``slack`` of the k-th best score of their row, or above.

    Args:
        chunks: the scores of n rows; columns ascend.
        slack: float64 [n].
        k: how many best columns are wanted.
        silent: bool [n], rows to leave out.

    Returns:
        row and column int64 [P], sorted, and score float32 [P].
    """
    found: list[Pairs] = []
    best, held, several = torch.empty(len(slack), 0), 0, False
    least = torch.where(silent, torch.inf, torch.finfo(torch.float32).min)
    floor = least
    for first, scores in chunks:
        maxima, block = _maxima(scores, k)
        if k == 1:
            best = torch.cat([best, maxima.amax(1, keepdim=True)], 1).amax(1, keepdim=True)
        else:
            best = torch.cat([best, maxima.topk(min(k, maxima.shape[1])).values], 1)
            best = best.topk(min(k, best.shape[1])).values
        if best.shape[1] == k:
            # the k-th best maximum of a block is no better than the k-th best score
            floor = torch.maximum((best[:, -1].double() - slack).float(), least)
        row, column, score = _reaching(scores, maxima, block, floor)
        several = bool(found)
        found.append((row, column + first[row], score))
        held += len(row)
        if held > _TILE:
            found = [_above(_join(found), floor)]
            held = len(found[0][0])
    row, column, score = _above(_join(found), floor)
    if several:
        order = torch.argsort(row, stable=True)
        row, column, score = row[order], column[order], score[order]
    return row, column, score


def _maxima(scores: Tensor, k: int) -> tuple[Tensor, int]:
    """Maxima [n, w / block] of blocks of scores [n, w], and the block: 1 where none would help."""
    count, width = scores.shape
    if width % _BLOCK or width // _BLOCK < 8 * k:
        return scores, 1
    return scores.view(count, width // _BLOCK, _BLOCK).amax(2), _BLOCK


def _reaching(scores: Tensor, maxima: Tensor, block: int, floor: Tensor) -> Pairs:
    """Entries of scores [n, w] at or above ``floor`` [n]: row and place, sorted, and score."""
    row, place = (maxima >= floor[:, None]).nonzero(as_tuple=True)
    if block == 1:
        return row, place, scores[row, place]
    parts = scores.view(-1, block).index_select(0, row * maxima.shape[1] + place)
    reaching = parts >= floor[row, None]
    part, inner = reaching.nonzero(as_tuple=True)
    return row[part], place[part] * block + inner, parts[reaching]


def _above(pairs: Pairs, floor: Tensor) -> Pairs:
    """The pairs whose score is at or above ``floor`` [n]."""
    row, column, score = pairs
    kept = score >= floor[row]
    return row[kept], column[kept], score[kept]


def _join(found: list[Pairs]) -> Pairs:
    row, column, score = (torch.cat(part) for part in zip(*found, strict=True))
    return row, column, score


def _starts(offsets: Tensor) -> Tensor:
    """The first row of each row's group: int64 [N], from offsets [G + 1]."""
    return offsets[:-1].repeat_interleave(offsets.diff())
