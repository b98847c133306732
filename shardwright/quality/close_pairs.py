"""All pairs of rows of one cluster that are more similar than a threshold, exactly.

Most pairs of a cluster are far below the threshold, and a few numbers of each row tell so. Write a
unit row as x = a c + u, c the direction of its cluster's centroid, and let the rows of P be m
orthonormal directions in which the rests u are large. By Cauchy and Schwarz, with r = |u - P'P u|,

    <x, y> = a_x a_y + <u_x, u_y>  <=  a_x a_y + <P u_x, P u_y> + r_x r_y :

the inner product of the narrow rows (a, P u, r), of m + 2 numbers, is never less than the
similarity. Pairs whose bound is above the threshold are then measured whole, in exact arithmetic.
How many directions pay is tried on some rows; it decides the time and never the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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
Found: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""The same, where they were computed."""

SMALL = 128
"""Rows of a group that is compared together with others."""
_TOGETHER = 1 << 14
"""Most groups that are compared together."""
TILE = 1024
"""Rows of a large group that are compared with as many at a time."""
_BLOCK = 512
"""Rows whose products with a tile are held at a time; on a CPU they fit a cache."""
_HELD_PAIRS = 1 << 22
"""Pairs that are held before they are handed on."""
_SLACK = 1e-5
"""How much less than the bound a product of narrow rows can be. Rounding them to float32 takes less
than 2^-22, and a float32 product of at most 130 numbers less than 131 * 2^-24 = 7.9e-6 of the norms
(Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sec. 3.1)."""
_PROJECTED = {"cpu": 1024, "cuda": 1 << 18}
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
            if bool(mine[0] == mine[-1]):  # of one cluster, as labels ascend: nothing is copied
                mine = mine[:1]
            scale = rows.norm(dim=1).clamp_(min=1e-300).reciprocal_()
            along = torch.linalg.vecdot(rows, centres[mine]) * scale
            # P u = P x - a P c, and |u|^2 = 1 - a^2
            inside = (rows @ directions.T) * scale[:, None] - along[:, None] * turned[mine]
            left = (1 - along.square() - inside.square().sum(1)).clamp_(min=0)
            narrow[part, 0] = along.float()
            narrow[part, 1:-1] = inside.float()
            # what rounding leaves of the differences of squares is below 1e-12
            narrow[part, -1] = left.add_(1e-12).sqrt_().float()
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

    What is yielded together belongs together: all pairs of some whole clusters, or, of a large
    cluster, all pairs of a tile of later rows with some earlier ones: the later tiles in order, for
    each its earlier rows in order, itself last. So whoever adds them up in this order knows all
    about the earlier rows when the later ones come.

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
        ends = bounds[largest], bounds[largest + 1] - 1
        some = np.unique(np.linspace(*ends, _TRIED).astype(np.int64))
        tried = _placed(x[some], device), _placed(labels[some], device)
        width = narrow.best_width(*tried, threshold)
    first = 0
    while first < len(sizes):
        small = np.concatenate([sizes[first : first + _TOGETHER] <= SMALL, [False]])
        last = first + int(small.argmin())
        if last == first:
            last += 1
        part = slice(int(bounds[first]), int(bounds[last]))
        if part.stop - part.start > last - first:  # groups of one row have no pair
            rows, named = _placed(x[part], device), _placed(labels[part], device)
            few, least = None, threshold
            if narrow is not None and width is not None:
                few = narrow.rows(rows, named, width)
                least = threshold - _SLACK
            if sizes[first] <= SMALL:
                offsets = _placed(bounds[first : last + 1] - part.start, device)
                found = iter([_together(rows, few, offsets, threshold, least)])
            else:
                found = _tiled(rows, few, threshold, least)
            for i, j, value in found:
                earlier: Int64 = i.cpu().numpy() + part.start
                later: Int64 = j.cpu().numpy() + part.start
                yield earlier, later, value.cpu().numpy()
        first = last


def _placed(values: Rows, device: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.to(device)
    return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(device)


def _together(
    x: torch.Tensor,
    few: torch.Tensor | None,
    offsets: torch.Tensor,
    threshold: float,
    least: float,
) -> Found:
    """The pairs of many small groups."""
    if few is not None:
        i, j, _ = kernels.pairs_above(few, least, offsets, "dot")
        if _WHOLE * len(i) <= float((offsets.diff().double() ** 2).sum()) / 2:
            return _measured(x, i, j, threshold)
    return kernels.pairs_above(x, threshold, offsets)


def _tiled(
    x: torch.Tensor, few: torch.Tensor | None, threshold: float, least: float
) -> Iterator[Found]:
    """The pairs of one large group, tile against tile; held until they are many."""
    for start in range(0, len(x), TILE):
        stop = min(start + TILE, len(x))
        held: list[Found] = []
        for earlier in range(0, stop, TILE):
            held.append(_between(x, few, slice(start, stop), earlier, threshold, least))
            if sum(len(found[0]) for found in held) > _HELD_PAIRS and earlier < start:
                yield _joined(held)
                held = []
        yield _joined(held)


def _joined(found: list[Found]) -> Found:
    i, j, value = (torch.cat(side) for side in zip(*found, strict=True))
    return i, j, value


def _between(
    x: torch.Tensor,
    few: torch.Tensor | None,
    later: slice,
    earlier: int,
    threshold: float,
    least: float,
) -> Found:
    """The pairs of a tile of later rows with the tile of rows from ``earlier``, or with itself."""
    tile = slice(earlier, min(earlier + TILE, later.stop))
    same = tile == later
    if few is not None:
        i, j = _reaching(few[tile], few[later], least, same)
        pairs = (tile.stop - tile.start) * (later.stop - later.start) / (1 + same)
        if _WHOLE * len(i) <= pairs:
            return _measured(x, i + earlier, j + later.start, threshold)
    if same:
        i, j, value = kernels.pairs_above(x[tile], threshold)
        return i + earlier, j + earlier, value
    i, j, value = kernels.pairs_above(torch.cat([x[tile], x[later]]), threshold)
    size = tile.stop - tile.start
    across = (i < size) & (j >= size)
    return i[across] + earlier, j[across] - size + later.start, value[across]


def _measured(x: torch.Tensor, i: torch.Tensor, j: torch.Tensor, threshold: float) -> Found:
    """Those of the pairs of rows of ``x`` that are above the threshold, in exact arithmetic."""
    numbers, places = torch.unique(torch.cat([i, j]), return_inverse=True)
    rows = x[numbers]
    norms = exact.norms(rows, "x")
    pairs = places[: len(i)], places[len(i) :]
    passed, value = exact.above(rows, rows, *pairs, threshold, "cosine", norms, norms)
    return i[passed], j[passed], value[passed]


def _reaching(
    earlier: torch.Tensor, later: torch.Tensor, threshold: float, same: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows int64 [p] of two tiles whose product is above a threshold; of one tile each pair once.

    On a card products are float64, which a global setting does not round.
    """
    if earlier.is_cuda:
        earlier, later = earlier.double(), later.double()
    found = [(torch.empty(0, dtype=torch.int64, device=later.device),) * 2]
    for start in range(0, len(later), _BLOCK):
        stop = min(start + _BLOCK, len(later))
        right = earlier[: stop if same else None]
        scores = later[start:stop] @ right.T
        rows = (scores.amax(1) > threshold).nonzero()[:, 0]
        row, i = (scores[rows] > threshold).nonzero(as_tuple=True)
        j = rows[row] + start
        below = i < j if same else slice(None)
        found.append((i[below], j[below]))
    i, j = (torch.cat(side) for side in zip(*found, strict=True))
    return i, j
