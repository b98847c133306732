"""Sliced Wasserstein distance: the mean over directions of the distance of two samples on a line.

Bonneel, Rabin, Peyre, Pfister 2015, "Sliced and Radon Wasserstein Barycenters of Measures". On a
line the p-Wasserstein distance is that of the quantile functions (Villani 2003, "Topics in Optimal
Transportation", th. 2.18)::

    W_p^p = integral over u from 0 to 1 of |Qx(u) - Qy(u)|^p

Of samples both are steps, at multiples of 1/n and of 1/m, so the integral is a sum over at most
n + m - 1 pieces, which are the same for every direction and every deal: unequal n need no
approximation.
"""

from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.permutation import (
    Bool,
    Float64,
    Outcome,
    Strata,
    check_permutations,
    deals,
    in_threads,
    outcome,
    pool,
)

Int64: TypeAlias = npt.NDArray[np.int64]

DIRECTIONS = 64


def sliced_wasserstein(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    order: int = 1,
    directions: int = DIRECTIONS,
    permutations: int = 999,
    seed: int = 0,
    strata: Strata | None = None,
) -> Outcome:
    """Sliced Wasserstein distance of two samples, with a permutation test.

    It is not 0 for equal groups, so the effect size is what it exceeds the mean of the null by, in
    standard deviations within the groups (the root of their mean variance over the directions).

    Args:
        x: Numbers [n, d], finite.
        y: Numbers [m, d], likewise.
        order: 1 for the mean of W_1 over directions, 2 for the root of the mean of W_2^2.
        directions: How many, drawn evenly from the sphere.
        permutations: How many deals; at least 1.
        seed: Of directions and deals; not negative.
        strata: The strata of the rows of x and y within which labels are dealt.

    Raises:
        ValueError: see ``pool``; or there is no direction or permutation, or another order.
    """
    check_permutations(permutations)
    if order not in (1, 2) or directions < 1:
        raise ValueError(f"order {order} must be 1 or 2, and directions {directions} at least 1")
    both = pool(x, y, strata)
    axes = np.random.default_rng([seed, 1]).normal(size=(directions, both.rows.shape[1]))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    centred = both.rows - both.rows.mean(axis=0)
    (lines,) = in_threads(lambda those: centred @ those.T, [axes])
    sequence = np.argsort(lines, axis=0, kind="stable")
    ranked = np.take_along_axis(lines, sequence, axis=0)
    pieces = _pieces(*both.counts)
    dealt = chain([both.first[None]], deals(both.first, both.cells, permutations, seed))
    own, *found = in_threads(lambda z: _distances(z, sequence, ranked, pieces, order), dealt)
    value, null = float(own[0]), np.concatenate(found)
    within = [lines[side].var(axis=0, ddof=1).mean() for side in (both.first, ~both.first)]
    spread = float(np.sqrt(np.mean(within)))
    effect = (value - float(null.mean())) / spread if spread > 0 else 0.0
    return outcome(value, value, null, effect)


def _pieces(n: int, m: int) -> tuple[Int64, Int64, Float64]:
    """Pieces on which both quantile functions are constant: the rows they show, and widths.

    Returns:
        int64 [k], int64 [k] and float64 [k], which sum up to 1.
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1 / (n m)
    widths = np.diff(ends, prepend=0)
    return (ends - 1) // m, (ends - 1) // n, widths / (n * m)


def _distances(
    labels: Bool,
    sequence: npt.NDArray[np.intp],
    ranked: Float64,
    pieces: tuple[Int64, Int64, Float64],
    order: int,
) -> Float64:
    """The distances of deals [P, N].

    Args:
        labels: bool [P, N].
        sequence: int [N, L], the rows along each direction.
        ranked: float64 [N, L], where they lie.
        pieces: Of ``_pieces``.
        order: 1 or 2.
    """
    of_x, of_y, widths = pieces
    total = np.zeros(len(labels))
    same = len(of_x) * 2 == labels.shape[1]  # equal n: one piece a row
    for rows, places in zip(sequence.T, ranked.T, strict=True):
        marked = labels[:, rows]
        everywhere = np.broadcast_to(places, marked.shape)
        xs = everywhere[marked].reshape(len(labels), -1)
        ys = everywhere[~marked].reshape(len(labels), -1)
        apart = xs - ys if same else xs[:, of_x] - ys[:, of_y]
        total += (np.abs(apart) if order == 1 else apart * apart) @ widths
    total /= sequence.shape[1]
    found: Float64 = total if order == 1 else np.sqrt(total)
    return found
