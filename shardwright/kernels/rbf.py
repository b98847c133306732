"""Sums of Gaussian (RBF) kernels: the same bits for any tile, any number of threads, any device.

``kernel_sum`` needs a float64 dot product of every pair, and a BLAS adds in an order of its
own. So no addition that a BLAS does here may round: rows are cut into slices of few bits, and the
matrix product of two slices is exact in float64 (Ozaki, Ogita, Oishi, Rump, "Error-free
transformations of matrix multiplication", Numerical Algorithms 59, 2012, sec. 3).

**Slices.** For a row x of dimension d let 2^e be the power of two above its norm (at most twice
it), and s the least integer with 2^s >= sqrt(d). With B = 25 and c = B + 1 - s::

    high = x rounded to a multiple of 2^(e - B)
    low  = (x - high) 2^c, rounded to a multiple of 2^(e - B)

In units of 2^(e - B) both are integers, |high| <= 2^B + sqrt(d)/2 and, since no element of
x - high exceeds half a unit, |low| <= 2^c sqrt(d)/2 + sqrt(d)/2 <= 2^B + sqrt(d)/2. By Cauchy
and Schwarz every partial sum, in any order and with or without fused multiply-add, of a product
of two such rows is at most 2^50 (1 + sqrt(d)/2^26)^2, and of two rows high + low at most four
times that: integers below 2^53 for d <= 2^20, hence exact. (The float64 norm behind e may err by
d 2^-53 of itself; the margin takes that too.)

**Dot product.** With x' = high + low 2^-c, three products give x'.y' (Karatsuba's saving)::

    hh = high.high    ll = low.low    ss = (high + low).(high + low)
    x'.y' = hh + ((ss - hh - ll) + ll 2^-c) 2^-c

where only the two additions round: within 2^-52 |x| |y|. What the slices drop is
|x - x'| <= 2^(2s - 51) |x|, 2^-41 |x| for 256 < d <= 1024, and it is nothing where every element
of a float32 row is 0 or at least 2^(s - 27) |x| in magnitude. Where both ``low`` are zero the
first product is the answer; float16 rows of unit norm are such rows, being multiples of 2^-24.

**Squared distance.** n(x) + n(y) - 2 x'.y', clamped at 0, with n(x) = x'.x' by the same formula.
It is |x' - y'|^2 within 2^-50 (|x| + |y|)^2, and x' - y' is x - y within 2^(2s - 51) (|x| + |y|).
Equal rows have equal slices: their distance is exactly 0 and their kernel exactly 1. An absolute
error h of the squared distance is a relative error g h of exp(-g ...), besides the 2^-52 of
``exp`` itself and g |x - y|^2 2^-53 of the rounded argument.

**Sums.** The kernel values of one x are added over y in blocks of 256 (zeros fill the last), each
block by halves (acc[j] += acc[j + w], w = 128 ... 1), block sums one after the other.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from shardwright.kernels.exact import fold, squared_norms

BLOCK = 256
"""Rows of ``y`` whose kernel values are added by halves."""
_Y_TILE = 2048
"""Rows of ``y`` per tile, a multiple of ``BLOCK``."""
_X_TILE = 512
"""Rows of ``x`` per tile."""
_STRIP = 120
"""Columns that one thread takes through ``exp``: 256 x 120 numbers stay in its cache, and torch
splits no operation on fewer than 2^15, whose many barriers would cost more than the work."""
_BITS = 25
"""B of the module's docstring."""

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN2_HIGH = float.fromhex("0x1.62e42feep-1")
LN2_LOW = float.fromhex("0x1.a39ef35794p-33")
"""ln 2 = LN2_HIGH + LN2_LOW within 2^-75; 32 and 39 bits, so that an integer below 2^11 times
either is exact and a fused multiply-add changes nothing."""
ROUND = 1.5 * 2.0**52
"""Added to a float64 below 2^51, leaves the nearest integer in the low bits of the mantissa."""
EXP_SMALLEST = -708.0
"""Below it ``exp`` gives 0: no result is subnormal, whatever a device does with those."""
EXP_POLYNOMIAL = tuple(
    map(
        float.fromhex,
        (
            "0x1.0000000000001p-1",
            "0x1.5555555555556p-3",
            "0x1.5555555553d68p-5",
            "0x1.11111111109b5p-7",
            "0x1.6c16c17889f3cp-10",
            "0x1.a01a01a7c2f2cp-13",
            "0x1.a019b914881bap-16",
            "0x1.71de0db2eb873p-19",
            "0x1.28917c9f3a495p-22",
            "0x1.af389eea54156p-26",
        ),
    )
)
"""q of exp(r) = 1 + r + r^2 q(r), constant first: interpolates at the ten Chebyshev nodes of
|r| <= ln(2)/2; relative error 1.6e-17 with the coefficients as rounded here."""

Step = Callable[[Tensor, Tensor, Tensor], None]
"""``rbf_rows`` or a device's kernel that does the same."""


def kernel_sum(
    x: Tensor, y: Tensor, gammas: Tensor, *, step: Step | None = None
) -> tuple[Tensor, Tensor]:
    """Sums k(x_i, y_j) = exp(-gamma |x_i - y_j|^2) over all j, and over all i and j.

    Plain torch: it runs on the device of its inputs.

    Args:
        x: float32, float16 or bfloat16 [N, d], finite, d <= 2^20.
        y: [M, d], likewise; M may be 0.
        gammas: float64 [G] of bandwidths, finite and not negative.
        step: stands in for ``rbf_rows``; must give the same bits.

    Returns:
        ``total`` float64 [G], the ``fold`` of the row sums, and ``rows`` float64 [G, N].
    """
    dimension = x.shape[1]
    shift = _BITS + 1 - math.ceil(math.log2(max(dimension, 1)) / 2)
    rows = torch.zeros(len(gammas), len(x), dtype=torch.float64, device=x.device)
    products = torch.empty(3, _Y_TILE, _X_TILE, dtype=torch.float64, device=x.device)
    for top in range(0, len(y), _Y_TILE):
        below = _slices(y[top : top + _Y_TILE], shift)
        for left in range(0, len(x), _X_TILE):
            right = _slices(x[left : left + _X_TILE], shift)
            squared = _squared_distances(below, right, shift, products)
            (step or rbf_rows)(squared, gammas, rows[:, left : left + _X_TILE])
    return fold(rows), rows


def rbf_rows(squared: Tensor, gammas: Tensor, rows: Tensor) -> None:
    """Adds the kernel values of a tile to the row sums, block after block.

    Args:
        squared: float64 [m, n], squared distances of m rows of ``y``, from a multiple of 256 on,
            to n rows of ``x``.
        gammas: float64 [G].
        rows: float64 [G, n], the sums over all rows of ``y`` before these; changed in place.
    """
    strips = [
        (squared[:, start : start + _STRIP], rows[:, start : start + _STRIP])
        for start in range(0, squared.shape[1], _STRIP)
    ]
    bandwidths = gammas.tolist()
    if squared.is_cuda or len(strips) == 1:
        for strip in strips:
            _add_strip(*strip, bandwidths)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for done in [pool.submit(_add_strip, *strip, bandwidths) for strip in strips]:
            done.result()


def _add_strip(squared: Tensor, rows: Tensor, gammas: list[float]) -> None:
    """``rbf_rows`` of a few columns, without a thread of torch's own."""
    scratch = torch.empty(3, BLOCK, squared.shape[1], dtype=torch.float64, device=squared.device)
    argument, power, value = scratch
    for block in torch.split(squared, BLOCK):
        count, last = len(block), float(block.max())
        for gamma, total in zip(gammas, rows, strict=True):
            torch.mul(block, -gamma, out=argument[:count])
            underflows = gamma * last > -EXP_SMALLEST
            _exp(argument[:count], power[:count], value[:count], underflows)
            value[count:] = 0
            width = BLOCK // 2
            while width:
                value[:width] += value[width : 2 * width]
                width //= 2
            total += value[0]


def exp(argument: Tensor) -> Tensor:
    """Exp of float64 arguments from -infinity to 0: within 1 ulp; 0 below -708.

    The order of the operations below is part of the contract: each is one IEEE float64 operation
    rounded to nearest (or one on the bits), so NumPy, torch and CUDA give the same bits. With
    k = round(t / ln 2), r = t - k ln 2 (Cody and Waite) and q = ``EXP_POLYNOMIAL``::

        z = t * LOG2_E + ROUND;  k = z - ROUND
        r = (t - k * LN2_HIGH) - k * LN2_LOW            both products are exact
        p = q[9];  p = p * r + q[j] for j = 8 ... 0     product rounded, then sum
        p = ((p * r) * r + r) + 1
        bits(p) += bits(z) << 52                        2^k, exact: no result is subnormal
        0 where t < -708

    Args:
        argument: float64 of any shape.
    """
    argument = argument.clone()
    power, value = torch.empty_like(argument), torch.empty_like(argument)
    _exp(argument, power, value, underflows=True)
    return value


def _exp(argument: Tensor, power: Tensor, value: Tensor, underflows: bool) -> None:
    """``exp`` into ``value``; destroys the others. Not ``underflows``: no argument is < -708."""
    if underflows:
        zero = argument < EXP_SMALLEST
        argument.clamp_(min=EXP_SMALLEST)
    torch.mul(argument, LOG2_E, out=power)
    power.add_(ROUND)
    torch.sub(power, ROUND, out=value)
    # one operation each instead of two: with exact products it rounds once, fused or not
    argument.sub_(value, alpha=LN2_HIGH)
    argument.sub_(value, alpha=LN2_LOW)
    torch.mul(argument, EXP_POLYNOMIAL[-1], out=value)
    for coefficient in EXP_POLYNOMIAL[-2::-1]:
        value.add_(coefficient).mul_(argument)
    value.mul_(argument).add_(argument).add_(1.0)
    bits = power.view(torch.int64)
    value.view(torch.int64).add_(bits.bitwise_left_shift_(52))
    if underflows:
        value.masked_fill_(zero, 0.0)


class _Slices(NamedTuple):
    """Rows cut as the module's docstring says, float64 [n, d] each, and n(x) float64 [n]."""

    high: Tensor
    low: Tensor
    both: Tensor
    squares: Tensor
    single: bool


def _slices(rows: Tensor, shift: int) -> _Slices:
    """Cuts rows [n, d] of any of the dtypes; depends on the values of each row alone."""
    # squared norm < 2^E, from its bits: the norm is below 2^e with e = ceil(E / 2)
    exponents = ((squared_norms(rows).view(torch.int64) >> 52) - 1021) >> 1
    # 1.5 * 2^(52 + e - B): adding and subtracting it rounds to multiples of 2^(e - B)
    biased = (exponents + (1023 + 52 - _BITS)) << 52
    rounder = (biased | (1 << 51)).view(torch.float64)[:, None]
    wide = rows.to(torch.float64)
    high = (wide + rounder).sub_(rounder)
    low = (wide - high).mul_(2.0**shift).add_(rounder).sub_(rounder)
    both = high + low
    # exact in every order, as the products of matrices are
    hh, ll, ss = ((part * part).sum(1) for part in (high, low, both))
    return _Slices(high, low, both, _join(hh, ll, ss, shift), not bool(low.any()))


def _squared_distances(y: _Slices, x: _Slices, shift: int, products: Tensor) -> Tensor:
    """Squared distances float64 [m, n] of two tiles; ``products`` is scratch [3, >= m, >= n]."""
    high, low, both = (part[: len(y.high), : len(x.high)] for part in products)
    torch.mm(y.high, x.high.T, out=high)
    if y.single and x.single:  # the others are zeros: same bits, a third of the work
        dots = high
    else:
        torch.mm(y.low, x.low.T, out=low)
        torch.mm(y.both, x.both.T, out=both)
        dots = _join(high, low, both, shift)
    sums = y.squares[:, None] + x.squares
    return sums.sub_(dots, alpha=2.0).clamp_(min=0.0)


def _join(high: Tensor, low: Tensor, both: Tensor, shift: int) -> Tensor:
    """Gives hh + ((ss - hh - ll) + ll 2^-c) 2^-c; destroys ``low`` and ``both``."""
    both.sub_(high).sub_(low).add_(low.mul_(2.0**-shift)).mul_(2.0**-shift)
    return both.add_(high)
