"""Scores between the rows of ragged groups and the earlier rows of their group, tile by tile.

Rows come in stretches of 512. If all groups that a stretch touches are small, it is cut into
blocks of 32 or 128 rows, and one batched product scores each block against itself and the
block before it, which hold every earlier row of its groups; so millions of tiny groups cost a few
large calls. Otherwise rows are cut where groups begin and scored against slices of their columns.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from shardwright.kernels.bounds import Columns, Rows, product
from shardwright.kernels.ties import runs

_STRETCH, _PIECE = 512, 128
"""Rows that are planned as one, and the fewest before a cut between groups."""
_BLOCKS = (32, 128)
"""Rows of a block of a batched product."""

_EVEN = 64
"""Scores of a row come in multiples of it, the last ones -inf."""


class Chunk(NamedTuple):
    """Scores [n, w] of n rows; entry (i, j) belongs to column ``first[i] + j``, -inf to none."""

    first: Tensor
    scores: Tensor


class Stretch(NamedTuple):
    """Rows ``start`` to ``stop`` - 1, to score in blocks of ``block`` rows (0: in slices)."""

    start: int
    stop: int
    block: int


def plan(starts: Tensor, most: int) -> Iterator[Stretch]:
    """Cuts rows into stretches.

    Args:
        starts: int64 [N], the first row of each row's group.
        most: scores that a batched product may make.
    """
    count = len(starts)
    total = -(-count // _STRETCH)
    block = torch.zeros(total, dtype=torch.int64)
    for size in reversed(_BLOCKS):
        begins = torch.arange(0, count, size)
        fits = torch.ones(total * (_STRETCH // size), dtype=torch.bool)
        fits[: len(begins)] = starts[::size] >= begins - size
        block[fits.view(total, -1).all(1)] = size
    heads, _ = runs(block)
    for first, end, size in zip(
        heads.tolist(), [*heads.tolist()[1:], total], block[heads].tolist(), strict=True
    ):
        if not size:
            yield from _cut(starts, first * _STRETCH, min(end * _STRETCH, count))
            continue
        step = max(1, most // (2 * size * _STRETCH))
        for begin in range(first, end, step):
            yield Stretch(begin * _STRETCH, min(min(begin + step, end) * _STRETCH, count), size)


def _cut(starts: Tensor, first: int, end: int) -> Iterator[Stretch]:
    """Cuts rows of large groups, where one begins if that leaves no piece too small."""
    heads = (first + runs(starts[first:end])[0]).tolist()
    heads.append(end)
    begin, place = first, 0
    while begin < end:
        stop = min(begin + _STRETCH, end)
        while place < len(heads) and heads[place] < begin + _PIECE:
            place += 1
        if place < len(heads):
            stop = min(stop, heads[place])
        yield Stretch(begin, stop, 0)
        begin = stop


def scores_of(
    stretch: Stretch, left: Tensor, side: Rows, columns: Columns, starts: Tensor, width: int
) -> Iterator[Chunk]:
    """Scores the rows of a stretch.

    Args:
        stretch: which rows.
        left: float32 [n, d], the scaled rows of the stretch.
        side: what is known of all rows.
        columns: all rows as columns.
        starts: int64 [N], the first row of each row's group.
        width: columns of a slice.
    """
    start, stop, block = stretch
    rows, shift = torch.arange(start, stop), side.shift[start:stop]
    if block:
        yield _batched(rows, block, left, shift, columns, starts[start:stop])
        return
    least = int(starts[start])
    one = least == int(starts[stop - 1])  # one group
    buffer = torch.empty(len(rows) * (min(width, stop - least) + _EVEN))
    for first in range(least, stop, width):
        part = slice(first, min(first + width, stop))
        size = part.stop - first
        padded = -(-size // _EVEN) * _EVEN
        scores = buffer[: len(rows) * padded].view(len(rows), padded)
        scores[:, size:] = -torch.inf
        product(left, shift, columns, part, scores[:, :size])
        shown = max(first, start if one else least)  # nothing is hidden from there back
        if shown < part.stop:
            number = torch.arange(shown, part.stop)
            hidden = (number < starts[start:stop, None]) | (number >= rows[:, None])
            scores[:, shown - first : size].masked_fill_(hidden, -torch.inf)
        yield Chunk(torch.full_like(rows, first), scores)


def _batched(
    rows: Tensor, block: int, left: Tensor, shift: Tensor, columns: Columns, starts: Tensor
) -> Chunk:
    """Scores of blocks of consecutive rows against their own and the previous block."""
    count, start = len(rows), int(rows[0])
    total = -(-count // block)
    # whole blocks, and one before the first: zeros stand for rows that there are not
    before = slice(max(0, start - block), start + count)
    right = _padded(columns.scaled[before], start - block, before.start, (total + 1) * block)
    blocks = _padded(left, 0, 0, total * block).view(total, block, -1)
    scores = torch.bmm(blocks, _pairs(right, block).mT).view(total * block, 2 * block)[:count]
    first = rows - (rows - start) % block - block
    if columns.metric == "l2":
        halves = columns.halves[before, None]
        halves = _padded(halves, start - block, before.start, (total + 1) * block)
        scores += (
            shift[:, None] * _pairs(halves, block)[:, :, 0].repeat_interleave(block, 0)[:count]
        )
    number = torch.arange(2 * block)
    hidden = (number < (starts - first)[:, None]) | (number >= (rows - first)[:, None])
    return Chunk(first, scores.masked_fill_(hidden, -torch.inf))


def _padded(rows: Tensor, wanted: int, first: int, count: int) -> Tensor:
    """Rows [., d] that begin at ``first`` among [count, d] that begin at ``wanted``, else zeros."""
    padded = rows.new_zeros(count, rows.shape[1])
    padded[first - wanted : first - wanted + len(rows)] = rows
    return padded


def _pairs(rows: Tensor, block: int) -> Tensor:
    """Views [t, 2 block, d] of rows [(t + 1) block, d]: each block with the one after it."""
    total, dimension = len(rows) // block - 1, rows.shape[1]
    return rows.as_strided((total, 2 * block, dimension), (block * dimension, dimension, 1))
