"""Maximum mean discrepancy: how far apart two samples lie in the space of a Gaussian kernel.

Gretton et al. 2012, "A Kernel Two-Sample Test" (JMLR 13): the unbiased estimate of the squared MMD
is its eq. 3, the biased one eq. 5, and the bandwidth, the median of the squared distances, its sec.
8. The kernel is k(x, y) = exp(-|x - y|^2 / b), or the mean of those for several b.

**All deals by one matrix product.** With K the kernel matrix of the N pooled rows without its
diagonal, r its row sums, T their sum and z the rows that a deal gives to the first sample::

    s = z'Kz        within the first      a = z'r = s + (across)
    T - 2 a + s     within the second     a - s     across

so z'Kz for all deals Z is all that is needed: the sums of Z * (K Z), of which symmetry saves half.
K is made strip by strip and is never held whole where N is large.

**Error.** Distances, kernels, r, T and the value are float64. The products K Z are float32, of
K - c with c a constant near the mean of K off the diagonal, which changes no unbiased MMD and
leaves little to round. A test finds a deal's MMD within 2e-5 standard deviations of the null of
what float64 gives. A deal that is lower than the observed value by less than 1e-5 of the largest
deal counts as equal; the observed value is computed in the same way to be compared.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.permutation import (
    Float64,
    Outcome,
    Pooled,
    Strata,
    check_permutations,
    deals,
    in_threads,
    outcome,
    pool,
)

Float32: TypeAlias = npt.NDArray[np.float32]

MEDIAN = (1.0,)
"""The median bandwidth alone."""
MULTIPLE = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Five bandwidths around the median, as factors of it."""
_MEDIAN_ROWS = 2048
"""Rows whose distances the median is taken of; of more, a seeded sample of so many."""
_STRIP = 256
"""Rows of the kernel matrix that are made at once."""
_DEALT = 1 << 25
"""Labels, deals times rows, that are held as float32: for more the kernel matrix is made again."""
_SLACK = 1e-5


def mmd(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    factors: Sequence[float] = MEDIAN,
    biased: bool = False,
    permutations: int = 999,
    seed: int = 0,
    strata: Strata | None = None,
) -> Outcome:
    """The squared MMD of two samples, with a permutation test.

    Two effect sizes are given. ``deviation``, over the standard deviation of the null, says how
    sure it is, and grows with the samples. ``effect_size`` is the unbiased squared MMD over the
    spread within the samples, 1 - (mean kernel within x + mean kernel within y) / 2: squared
    distance of means over variance, in the kernel's space, as Cohen's d^2 is on a line. It does
    not depend on how many rows there are, and so compares pairs of groups of different sizes; it
    is about 0 for equal groups and may be negative.

    Args:
        x: Numbers [n, d], finite.
        y: Numbers [m, d], likewise.
        factors: Bandwidths as factors of the median of the squared distances of all pooled rows
            (of 2,048 of them at most, a sample); the kernel is the mean over them.
        biased: Whether the value is the biased estimate.
        permutations: How many deals; at least 1.
        seed: Of the deals; not negative.
        strata: The strata of the rows of x and y within which labels are dealt.

    Raises:
        ValueError: see ``pool``; or there is no permutation, or no positive factor.
    """
    check_permutations(permutations)
    both = pool(x, y, strata)
    rows = both.rows - both.rows.mean(axis=0)  # distances stay, cancellation goes
    near, bandwidth = _median(rows, seed)
    widths = _widths([bandwidth * factor for factor in factors])
    shift = _mean_kernel(near, widths)
    n, m = both.counts
    found = []
    for number, labels in enumerate(_dealt(both, permutations, seed)):
        within, own, total, inner = _quadratic(rows, near, widths, shift, labels)
        found.append(_estimate(within, own, total, n, m, shift, biased))
        if not number:
            exact = inner, float(own[0]), total
    inner, across, total = exact
    outer = total - 2 * across + inner
    spread = 1 - shift - (inner / (n * (n - 1)) + outer / (m * (m - 1))) / 2
    unbiased = float(_estimate(*exact, n, m, shift, False))
    value = float(_estimate(*exact, n, m, shift, biased))
    # the first of all are the labels as they are, and are compared as the others were computed
    observed, null = float(found[0][0]), np.concatenate(found)[1:]
    effect = unbiased / spread if spread > 0 else 0.0
    return outcome(value, observed, null, effect, _SLACK)


def median_bandwidth(x: npt.ArrayLike, y: npt.ArrayLike, seed: int = 0) -> float:
    """The median of the squared distances of the pooled rows that ``mmd`` takes.

    Returns:
        It; where more than half of the pairs are equal, the mean distance; 1 if all are.
    """
    rows = pool(x, y).rows
    return _median(rows - rows.mean(axis=0), seed)[1]


def mmd_squared(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    bandwidths: Sequence[float],
    *,
    biased: bool = False,
) -> float:
    """The squared MMD without a test, for any number of rows.

    Args:
        x: [n, d], finite, n >= 2. If both are float32 or float16, ``kernels.kernel_sum`` adds the
            kernels up, with the same bits on every device; else float64 strips do.
        y: [m, d], likewise.
        bandwidths: b of exp(-|x - y|^2 / b); the kernel is the mean over them.
        biased: Whether to give the biased estimate.
    """
    widths = _widths(bandwidths)
    both = pool(x, y)
    n, m = both.counts
    if {np.asarray(x).dtype, np.asarray(y).dtype} <= {np.dtype("f4"), np.dtype("f2")}:
        from shardwright.kernels import kernel_sum

        gammas = (1 / widths).tolist()
        narrow = both.rows.astype(np.float32)
        a, b = narrow[both.first], narrow[~both.first]
        inner, outer, across = (
            float(np.mean(kernel_sum(*pair, gammas)[0])) for pair in ((a, a), (b, b), (a, b))
        )
        inner, outer = inner - n, outer - m  # without the diagonals, which are exactly 1
        exact = inner, inner + across, inner + outer + 2 * across
        return float(_estimate(*exact, n, m, 0.0, biased))
    rows = both.rows - both.rows.mean(axis=0)
    labels = both.first[None].astype(np.float32)
    _, own, total, within = _quadratic(rows, None, widths, 0.0, labels)
    return float(_estimate(within, float(own[0]), total, n, m, 0.0, biased))


def _widths(bandwidths: Sequence[float]) -> Float64:
    widths = np.asarray(bandwidths, np.float64)
    if widths.ndim != 1 or not len(widths) or not (np.isfinite(widths) & (widths > 0)).all():
        raise ValueError(f"bandwidths {list(bandwidths)} must be positive and finite")
    return widths


def _median(rows: Float64, seed: int) -> tuple[Float64 | None, float]:
    """Squared distances [N, N] of all rows if they are few, else None; and their median."""
    chosen = rows
    if len(rows) > _MEDIAN_ROWS:
        chosen = rows[np.random.default_rng([seed, 0]).permutation(len(rows))[:_MEDIAN_ROWS]]
    strips = (chosen[start : start + _STRIP] for start in range(0, len(chosen), _STRIP))
    squared = np.concatenate(in_threads(partial(_squared, b=chosen), strips))
    pairs = squared[np.tri(len(squared), k=-1, dtype=np.bool_)]
    median = float(np.median(pairs))
    if median <= 0:
        median = float(pairs.mean()) or 1.0
    return (squared if chosen is rows else None), median


def _squared(a: Float64, b: Float64) -> Float64:
    """Squared distances float64 [n, m], not negative."""
    product = a @ b.T
    product *= -2
    product += np.einsum("ij,ij->i", a, a)[:, None]
    product += np.einsum("ij,ij->i", b, b)
    return np.maximum(product, 0, out=product)


def _kernel(squared: Float64, widths: Float64) -> Float64:
    """The mean over bandwidths of exp(-squared / b), float64 of the same shape."""
    total = np.exp(squared * (-1 / widths[0]))
    for width in widths[1:]:
        total += np.exp(squared * (-1 / width))
    mean: Float64 = total / len(widths)
    return mean


def _mean_kernel(squared: Float64 | None, widths: Float64) -> float:
    """A constant near the mean kernel off the diagonal; any would do."""
    if squared is None:
        return float(np.exp(-1.0))
    step = max(1, len(squared) // 64)
    few = _kernel(squared[::step], widths)
    return float((few.sum() - len(few)) / (few.size - len(few)))


def _quadratic(
    rows: Float64, near: Float64 | None, widths: Float64, shift: float, labels: Float32
) -> tuple[Float64, Float64, float, float]:
    """The numbers of the module's docstring for K - shift, strip by strip.

    Returns:
        For all deals [P, N] z'Kz, by float32 products, and z'r: float64 [P] each; T; and z'Kz of
        the first deal in float64.
    """
    first = labels[0].astype(np.float64)

    def strip_of(start: int) -> tuple[Float64, Float64, float]:
        """What rows from ``start`` on and the columns up to theirs add."""
        stop = min(start + _STRIP, len(rows))
        squared = (
            _squared(rows[start:stop], rows[:stop]) if near is None else near[start:stop, :stop]
        )
        strip = _kernel(squared, widths)
        strip -= shift
        strip[np.arange(stop - start), np.arange(start, stop)] = 0
        left = strip[:, :start]
        sums = np.zeros(stop)
        sums[:start] = left.sum(axis=0)
        sums[start:] = strip.sum(axis=1)
        left *= 2  # once for an element and once for its mirror image
        products = labels[:, :stop] @ strip.astype(np.float32).T
        products *= labels[:, start:stop]
        exact = float(first[start:stop] @ (strip @ first[:stop]))
        return products.sum(axis=1, dtype=np.float64), sums, exact

    within, sums, exact = np.zeros(len(labels)), np.zeros(len(rows)), 0.0
    for part, own_sums, inner in in_threads(strip_of, range(0, len(rows), _STRIP)):
        within += part
        sums[: len(own_sums)] += own_sums
        exact += inner

    def own_of(some: Float32) -> Float64:
        found: Float64 = some.astype(np.float64) @ sums
        return found

    # the labels as they are by themselves: the same bits however many deals there are
    parts = (labels[:1], *(labels[top : top + _STRIP] for top in range(1, len(labels), _STRIP)))
    own = np.concatenate(in_threads(own_of, parts))
    return within, own, float(sums.sum()), exact


def _dealt(both: Pooled, count: int, seed: int) -> Iterator[Float32]:
    """Labels float32 [P, N] in groups that fit into memory: those there are, then the deals."""
    held: list[Float32] = [both.first[None].astype(np.float32)]
    most = max(_STRIP, _DEALT // len(both.first))
    for block in deals(both.first, both.cells, count, seed):
        if sum(map(len, held)) + len(block) > most:
            yield np.concatenate(held)
            held = []
        held.append(block.astype(np.float32))
    yield np.concatenate(held)


def _estimate(within: Any, own: Any, total: Any, n: int, m: int, shift: float, biased: bool) -> Any:
    """The squared MMD from z'Kz, z'r and T of K - shift without its diagonal."""
    second = total - 2 * own + within
    across = (within - own) * (2 / (n * m))
    if not biased:  # shifts cancel
        return within / (n * (n - 1)) + second / (m * (m - 1)) + across
    first = (within + n) / n**2 + (second + m) / m**2
    return first + across - shift * (1 / n + 1 / m)
