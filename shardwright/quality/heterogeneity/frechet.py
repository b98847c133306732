"""Frechet distance of two Gaussians fitted to samples, at equal n only, against its null.

Dowson and Landau 1982, "The Frechet Distance between Multivariate Normal Distributions"::

    |mu_x - mu_y|^2 + tr(S_x) + tr(S_y) - 2 tr((S_x S_y)^(1/2))

The estimate is biased upwards by an amount that depends on n and on the covariances and that is
often many times the signal, so it is worth nothing by itself: it is refused for samples of unequal
size and is given with what it is when labels are dealt anew at the same n.
"""

from itertools import chain

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.permutation import (
    Float64,
    Outcome,
    Strata,
    check_permutations,
    deals,
    in_threads,
    outcome,
    pool,
)


def frechet(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    permutations: int = 199,
    seed: int = 0,
    strata: Strata | None = None,
) -> Outcome:
    """Frechet distance of two samples of equal size, with a permutation test.

    The effect size is what it exceeds the mean of the null by, over the total variance within the
    groups: tr(S_x + S_y) / 2.

    Args:
        x: Numbers [n, d], finite.
        y: Numbers [n, d], likewise.
        permutations: How many deals; at least 1. Each costs a decomposition of d x d numbers.
        seed: Of the deals; not negative.
        strata: The strata of the rows of x and y within which labels are dealt.

    Raises:
        ValueError: the samples differ in size; see ``pool``; or there is no permutation.
    """
    check_permutations(permutations)
    _check_sizes(len(np.asarray(x)), len(np.asarray(y)))
    both = pool(x, y, strata)
    rows = both.rows - both.rows.mean(axis=0)
    dealt = chain([both.first], *deals(both.first, both.cells, permutations, seed))
    value, *found = in_threads(lambda z: _distance(rows[z], rows[~z]), dealt)
    null = np.array(found)
    within = [rows[side].var(axis=0, ddof=1).sum() for side in (both.first, ~both.first)]
    spread = float(np.mean(within))
    effect = (value - float(null.mean())) / spread if spread > 0 else 0.0
    return outcome(value, value, null, effect, 1e-7)


def frechet_distance(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Frechet distance of two samples [n, d] of equal size, without a null: biased upwards.

    Raises:
        ValueError: the samples differ in size; or see ``pool``.
    """
    _check_sizes(len(np.asarray(x)), len(np.asarray(y)))
    both = pool(x, y)
    rows = both.rows - both.rows.mean(axis=0)
    (value,) = in_threads(lambda z: _distance(rows[z], rows[~z]), [both.first])
    return value


def _check_sizes(n: int, m: int) -> None:
    if n != m:
        raise ValueError(
            f"samples of {n} and {m} rows: the bias of the Frechet distance depends on the size, "
            "so it compares equal sizes only; take a sample of the larger"
        )


def _distance(x: Float64, y: Float64) -> float:
    """Frechet distance of rows [n, d] and [n, d]."""
    apart = x.mean(axis=0) - y.mean(axis=0)
    a, b = (part - part.mean(axis=0) for part in (x, y))
    freedom = len(x) - 1
    variances = (float((a * a).sum()) + float((b * b).sum())) / freedom
    # not below 0 but for rounding
    return max(0.0, float(apart @ apart) + variances - 2 * _root_trace(a, b) / freedom)


def _root_trace(a: Float64, b: Float64) -> float:
    """Trace of (A B)^(1/2), A = a'a and B = b'b, of centred rows [n, d] each.

    A B has the eigenvalues of M M' for M = R b', with any R such that R'R = A: those of a matrix
    that is symmetric and not negative. So no root of an unsymmetric matrix is taken, and rounding
    can make no eigenvalue complex; one that it makes negative is 0. An error of 2^-53 of the
    largest is one of 2^-26.5 of its root: the trace is good to some 1e-7 of itself.
    """
    if len(a) <= a.shape[1]:
        product = a @ b.T
        small = product @ product.T
    else:
        covariance = a.T @ a
        try:
            root = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:  # rows that lie in a plane
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.maximum(values, 0))
        right = b @ root
        small = right.T @ right
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(small), 0)).sum())
