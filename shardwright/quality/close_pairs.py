"""All pairs of rows of one cluster that are more similar than a threshold, exactly.

Most pairs of a cluster are far below the threshold, and a few numbers of each row tell so. Write a
unit row as x = a c + u, c the direction of its cluster's centroid, and let the rows of P be m
orthonormal directions in which the rests u are large. By Cauchy and Schwarz, with r = |u - P'P u|,

    <x, y> = a_x a_y + <u_x, u_y>  <=  a_x a_y + <P u_x, P u_y> + r_x r_y :

the inner product of the narrow rows (a, P u, r), of m + 2 numbers, is never less than the
similarity. Pairs whose bound is above the threshold are then measured whole, in exact arithmetic.
How many directions pay is tried on some rows; it decides the time and never the result.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from shardwright import kernels
from shardwright.kernels import exact

Rows: TypeAlias = npt.NDArray[Any] | torch.Tensor
Int64: TypeAlias = npt.NDArray[np.int64]
Float64: TypeAlias = npt.NDArray[np.float64]
Pairs: TypeAlias = tuple[Int64, Int64, Float64]
"""Earlier row, later row, cosine similarity."""

TILE = 2048
"""Rows of a large group that are compared with as many at a time."""
_BATCH_PAIRS = 1 << 24
"""Pairs that one call compares, unless a group has more."""
_SLACK = 1e-6
"""Narrow rows are rounded to float32, each number by less than 2^-24 of it, so that the product of
two of them, whose norms are at most 1 + 2^-20, is off by less than 2^-22 = 2.4e-7."""
_PROJECTED = {"cpu": 512, "cuda": 1 << 18}
"""Rows that are made narrow at a time; on a CPU they fit a cache."""
_WIDTHS = (16, 32, 64, 96, 128)
"""Numbers of directions that are tried."""
_TRIED = 1024
"""Rows that they are tried on."""
_WHOLE = 100.0
"""What measuring one pair whole costs, beside its share of measuring all pairs at once."""


@dataclass(frozen=True, eq=False)
class Narrow:
    """The directions that narrow rows consist of; see ``narrow_basis``.

    Attributes:
        centroids: float32 [k, d], unit rows.
        directions: float64 [m, d], orthonormal rows.
    """

    centroids: npt.NDArray[np.float32]
    directions: Float64

    def rows(self, x: torch.Tensor, labels: torch.Tensor, width: int | None = None) -> torch.Tensor:
        """Narrow rows float32 [n, width + 2] of rows [n, d] of the clusters ``labels`` int64 [n].

        Of the directions the first ``width`` are taken, or all.
        """
        centres = torch.from_numpy(self.centroids).to(x.device).double()
        centres /= centres.norm(dim=1, keepdim=True).clamp_(min=1e-300)
        directions = torch.from_numpy(self.directions[:width]).to(x.device)
        turned = centres @ directions.T
        narrow = torch.empty(len(x), len(directions) + 2, device=x.device)
        step = _PROJECTED[x.device.type]
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            rows, mine = x[part].double(), labels[part]
            lengths = rows.norm(dim=1).clamp_(min=1e-300)
            along = torch.linalg.vecdot(rows, centres[mine]) / lengths
            # P u = P x - a P c, and |u|^2 = |x|^2 - a^2
            inside = (rows @ directions.T) / lengths[:, None] - along[:, None] * turned[mine]
            left = (rows.square().sum(1) / lengths.square()) - along.square()
            left -= inside.square().sum(1)
            narrow[part, 0] = along.float()
            narrow[part, 1:-1] = inside.float()
            # what rounding leaves of the differences of squares is below 1e-13
            narrow[part, -1] = left.clamp_(min=0).add_(1e-13).sqrt_().float()
        return narrow

    def best_width(self, x: torch.Tensor, labels: torch.Tensor, threshold: float) -> int | None:
        """How many directions cost least for rows of one cluster; None if measuring whole does."""
        best, least = None, 1.0
        for width in (w for w in _WIDTHS if w <= len(self.directions)):
            few = self.rows(x, labels, width)
            close = int((few @ few.T > threshold - _SLACK).sum()) - len(x)
            share = max(0, close) / max(1, len(x) * (len(x) - 1))
            cost = (width + 2) / x.shape[1] + _WHOLE * share
            if cost < least:
                best, least = width, cost
        return best


def narrow_basis(
    x: npt.NDArray[Any], labels: Int64, centroids: npt.NDArray[np.float32], width: int
) -> Narrow:
    """Finds the directions in which rows differ most from their centroids.

    They are the first eigenvectors of the sum of u u' over a sample: any orthonormal directions
    would do for a bound, and these make it tight.

    Args:
        x: sample of rows [n, d], float32 or float16.
        labels: int64 [n], their clusters.
        centroids: float32 [k, d].
        width: number of directions, at most d.
    """
    rows = x.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    mine = centroids[labels].astype(np.float64)
    mine /= np.maximum(np.linalg.norm(mine, axis=1, keepdims=True), 1e-300)
    rest = rows - (rows * mine).sum(1, keepdims=True) * mine
    _, vectors = np.linalg.eigh(rest.T @ rest)
    return Narrow(centroids, np.ascontiguousarray(vectors[:, ::-1][:, :width].T))


def close_pairs(
    x: Rows,
    labels: Int64,
    threshold: float,
    narrow: Narrow | None = None,
    device: str = "cpu",
) -> Iterator[Pairs]:
    """Yields all pairs of rows of one cluster whose cosine similarity is above a threshold.

    What is yielded together belongs together: all pairs of some whole clusters, or, of a cluster
    of more than ``TILE`` rows, the pairs between a tile of later rows and a tile of earlier ones,
    the later tiles in order and for each its earlier tiles in order, itself last. So whoever adds
    them up in this order knows all about the earlier rows when the later ones come.

    Args:
        x: rows [n, d], float32 or float16; may be mapped from a file, or a tensor on any device.
        labels: int64 [n], ascending: the cluster of each row.
        threshold: pairs strictly above it are found, in exact arithmetic.
        narrow: what to rule most pairs out by; without it all are measured whole.
        device: ``cpu`` or ``cuda``.
    """
    bounds = np.append(np.flatnonzero(np.diff(labels, prepend=-1)), len(labels))
    sizes = np.diff(bounds)
    width = None
    if narrow is not None and len(x):
        largest = int(sizes.argmax())
        some = np.linspace(bounds[largest], bounds[largest + 1] - 1, _TRIED).astype(np.int64)
        some = np.unique(some)
        width = narrow.best_width(
            _placed(x[some], device), _placed(labels[some], device), threshold
        )
    search = partial(_search, threshold=threshold, narrow=narrow, width=width)
    first = 0
    while first < len(sizes):
        if sizes[first] > TILE:
            yield from _tiled(x, labels, bounds[first : first + 2], search, device)
            first += 1
            continue
        pairs = np.cumsum(sizes[first:] ** 2)
        fits = (sizes[first:] <= TILE) & (pairs <= max(_BATCH_PAIRS, int(pairs[0])))
        last = first + (len(fits) if fits.all() else int(fits.argmin()))
        start, stop = int(bounds[first]), int(bounds[last])
        if pairs[last - first - 1] > stop - start:  # groups of one row have no pair
            offsets = bounds[first : last + 1] - start
            i, j, value = search(
                _placed(x[start:stop], device),
                _placed(labels[start:stop], device),
                _placed(offsets, device),
            )
            yield i + start, j + start, value
        first = last


def _tiled(
    x: Rows, labels: Int64, bounds: Int64, search: Callable[..., Pairs], device: str
) -> Iterator[Pairs]:
    """The pairs of one group, tile against tile."""
    begin, end = int(bounds[0]), int(bounds[1])
    for later in range(begin, end, TILE):
        mine = np.arange(later, min(later + TILE, end))
        for earlier in [*range(begin, later, TILE), later]:
            same = earlier == later
            rows = mine if same else np.concatenate([np.arange(earlier, earlier + TILE), mine])
            i, j, value = search(
                _placed(x[rows], device),
                _placed(labels[rows], device),
                _placed(np.array([0, len(rows)]), device),
            )
            across = np.full(len(i), True) if same else (i < TILE) & (j >= TILE)
            yield rows[i[across]], rows[j[across]], value[across]


def _placed(values: Rows, device: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.to(device)
    return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)


def _search(
    x: torch.Tensor,
    labels: torch.Tensor,
    offsets: torch.Tensor,
    *,
    threshold: float,
    narrow: Narrow | None,
    width: int | None,
) -> Pairs:
    """The pairs of groups that one call holds."""
    if narrow is not None and width is not None:
        few = narrow.rows(x, labels, width)
        i, j, _ = kernels.pairs_above(few, threshold - _SLACK, offsets, "dot")
        if _WHOLE * len(i) <= float((offsets.diff().double() ** 2).sum()) / 2:
            norms = exact.norms(x, "x")
            passed, value = exact.above(x, x, i, j, threshold, "cosine", norms, norms)
            return i[passed].cpu().numpy(), j[passed].cpu().numpy(), value[passed].cpu().numpy()
    i, j, value = kernels.pairs_above(x, threshold, offsets)
    return i.cpu().numpy(), j.cpu().numpy(), value.cpu().numpy()
