"""Order and thresholds in exact real arithmetic, for the pairs that float64 cannot tell apart.

What is compared are sums of products of float32 numbers, which are exact in float64: the dot
product; for ``l2`` twice the dot product less the column's square (the row's own square is common
to all its pairs); for ``cosine`` the dot product and the column's square, as
``dot |dot| / square``, without a root. Three steps, cheapest first: equal rows tie; a sum whose
every addition was free of error (TwoSum: Knuth, "The Art of Computer Programming", vol. 2, sec.
4.2.2) is exact, as all sums of small integers are; the rest is added up in Python's integers.
"""

from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor

_BLOCK = 1 << 18
"""Float64 numbers per temporary."""
_SMALL = 2.0**26
"""Two fractions of integers up to this differ by more than a rounding of float64, or not at all."""


def runs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Where runs of equal neighbours of [n] start, int64 [R], and the number of each one's run."""
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    return starts.nonzero()[:, 0], starts.cumsum(0) - 1


def distinct(values: Tensor) -> tuple[Tensor, Tensor]:
    """One place of each value of int64 [n], int64 [R], and which of them each value is, [n]."""
    ordered, order = torch.sort(values, stable=True)
    heads, place = runs(ordered)
    which = torch.empty_like(order)
    which[order] = place
    return order[heads], which


def first_equal(rows: Tensor, keys: Tensor) -> Tensor:
    """The lowest index of a row equal to each row: int64 [n].

    Only rows of equal key are compared, and only with the first of their key: of two unequal rows
    with one key, later rows equal to the second go unnoticed, which costs time and is no error.

    Args:
        rows: [n, d] of any floating dtype.
        keys: float64 [n], equal for equal rows.
    """
    index = torch.arange(len(rows), device=rows.device)
    ordered, order = torch.sort(keys, stable=True)
    heads, place = runs(ordered)
    first, later = order[heads][place], order
    if len(heads) == len(rows):
        return index
    first, later = first[first != later], later[first != later]
    for part in _parts(len(first), rows.shape[1]):
        a, b = first[part], later[part]
        index[b] = torch.where((rows[a] == rows[b]).all(1), a, b)
    return index


def row_keys(rows: Tensor, more: Tensor) -> Tensor:
    """Keys float64 [n] for ``first_equal``, from eight of the columns and ``more`` float64 [n]."""
    keys, dimension = more.clone(), rows.shape[1]
    for place in range(min(8, dimension)):
        keys += rows[:, place * dimension // min(8, dimension)].double() * (place + 0.618)
    return keys


def ranks(x: Tensor, y: Tensor, row: Tensor, column: Tensor, run: Tensor, metric: str) -> Tensor:
    """Ranks of pairs within their run, nearest first; equal ranks are exact ties.

    Args:
        x: float32, float16 or bfloat16 [N, d].
        y: likewise [M, d].
        row: int64 [P] into ``x``, one row per run.
        column: int64 [P] into ``y``.
        run: int64 [P], ascending.
        metric: ``cosine``, ``dot`` or ``l2``.

    Returns:
        int64 [P]; only ranks of one run compare.
    """
    places, target = distinct(column)
    targets = column[places]
    rows = _directions(y[targets]) if metric == "cosine" else y[targets]
    kind = first_equal(rows, row_keys(rows, rows.double().square().sum(1)))[target]
    # one pair stands for all of its run whose columns are equal rows
    stand_in, pair = distinct(run * len(targets) + kind)
    run, row, kind = run[stand_in], row[stand_in], kind[stand_in]
    rank = torch.zeros_like(run)
    same = run[1:] == run[:-1]
    shared = torch.zeros_like(rank, dtype=torch.bool)
    shared[1:] = same
    shared[:-1] |= same
    if not bool(shared.any()):
        return rank[pair]

    number = shared.nonzero()[:, 0]
    run, x_rows, y_rows = run[number], row[number], targets[kind[number]]
    sums, certain = _sums(x, y, x_rows, y_rows, metric)
    keys, squares = -sums, None
    if metric == "cosine":
        squares, sure = _sums(y, y, y_rows, y_rows, "dot")
        keys, small = _small_ratio(sums, squares)
        certain &= sure & small
    run = runs(run)[1]
    unsure = torch.zeros(int(run.max()) + 1, dtype=torch.bool, device=run.device)
    unsure[run[~certain]] = True
    hard = unsure[run]
    order = torch.argsort(keys, stable=True)
    order = order[torch.argsort(run[order], stable=True)]
    step = torch.ones_like(order)
    step[1:] = (keys[order][1:] != keys[order][:-1]) | (run[order][1:] != run[order][:-1])
    rank[number[order]] = step.cumsum(0)

    members: dict[int, list[tuple[Fraction, int]]] = {}
    for place in hard.nonzero()[:, 0].tolist():
        key = _key(x[x_rows[place]], y[y_rows[place]], metric)
        members.setdefault(int(run[place]), []).append((key, int(number[place])))
    for found in members.values():
        levels = {key: level for level, key in enumerate(sorted({key for key, _ in found}))}
        for key, place in found:
            rank[place] = levels[key]
    return rank[pair]


def above(
    x: Tensor, y: Tensor, row: Tensor, column: Tensor, threshold: float, metric: str
) -> Tensor:
    """Which pairs are strictly above a finite ``threshold`` (``l2``: strictly below).

    Args:
        x: float32, float16 or bfloat16 [N, d].
        y: likewise [M, d].
        row: int64 [P] into ``x``.
        column: int64 [P] into ``y``.
        threshold: taken as the exact number that it is.
        metric: ``cosine`` (no zero row among the pairs), ``dot`` or ``l2``.

    Returns:
        bool [P].
    """
    level = Fraction(threshold)
    if metric != "cosine":
        sums, certain = _sums(x, y, row, column, "distance" if metric == "l2" else "dot")
        passed = sums < threshold if metric == "l2" else sums > threshold
        for place in (~certain).nonzero()[:, 0].tolist():
            if metric == "l2":
                passed[place] = _sum(x[row[place]], y[column[place]], "distance") < level
            else:
                passed[place] = _sum(x[row[place]], y[column[place]], "dot") > level
        return passed

    level *= abs(level)
    # rows of one direction have similarity 1, and their sums would seldom say so
    passed = torch.full_like(row, level < 1, dtype=torch.bool)
    alike = torch.empty_like(passed)
    for part in _parts(len(row), x.shape[1]):
        alike[part] = (_directions(x[row[part]]) == _directions(y[column[part]])).all(1)
    left = (~alike).nonzero()[:, 0]
    row, column = row[left], column[left]
    parts = [_sums(x, y, row, column, "dot"), _sums(x, x, row, row, "dot")]
    parts.append(_sums(y, y, column, column, "dot"))
    certain = torch.stack([sure for _, sure in parts]).all(0)
    sums = torch.stack([found for found, _ in parts], 1)
    verdicts: dict[tuple[float, float, float], bool] = {}
    for place, (dot, square, other) in zip(
        left[certain].tolist(), sums[certain].tolist(), strict=True
    ):
        found = dot, square, other
        if found not in verdicts:
            verdicts[found] = _steeper(Fraction(dot), Fraction(square), Fraction(other), level)
        passed[place] = verdicts[found]
    for place in (~certain).nonzero()[:, 0].tolist():
        a, b = x[row[place]], y[column[place]]
        passed[left[place]] = _steeper(
            _sum(a, b, "dot"), _sum(a, a, "dot"), _sum(b, b, "dot"), level
        )
    return passed


def _steeper(dot: Fraction, square: Fraction, other: Fraction, level: Fraction) -> bool:
    """Whether a cosine is above the signed root of ``level``."""
    return dot * abs(dot) > level * square * other


def _key(a: Tensor, b: Tensor, metric: str) -> Fraction:
    """What ranks row [d] ``b`` for row [d] ``a``, smallest first."""
    dot = _sum(a, b, metric)
    if metric == "cosine" and dot:
        dot *= abs(dot) / _sum(b, b, "dot")
    return -dot


def _small_ratio(sums: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Keys -dot |dot| / square float64 [n], and where rounding keeps their order and ties."""
    powers = sums * sums.abs()
    small = (powers.abs() <= _SMALL) & (squares <= _SMALL)
    small &= (sums == sums.round()) & (squares == squares.round())
    return -torch.where(sums != 0, powers / squares, 0.0), small


def _directions(rows: Tensor) -> Tensor:
    """Rows [n, d] times powers of two that bring their largest magnitudes into [0.5, 1)."""
    wide = rows.double()
    if not rows.shape[1]:
        return wide
    _, exponents = torch.frexp(wide.abs().amax(1, keepdim=True))
    # a power of two by its bits: no library's rounding of 2^x can matter
    return wide * ((1023 - exponents.long()) << 52).view(torch.float64)


def _sums(x: Tensor, y: Tensor, row: Tensor, column: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Sums float64 [P] of the terms of pairs, and bool [P]: whether no addition was rounded."""
    sums = torch.empty(len(row), dtype=torch.float64, device=row.device)
    certain = torch.empty_like(sums, dtype=torch.bool)
    for part in _parts(len(row), 3 * x.shape[1]):
        terms = _terms(x[row[part]], y[column[part]], kind)
        exact = torch.ones_like(certain[part])
        while (width := terms.shape[1]) > 1:
            half = width // 2
            a, b = terms[:, :half], terms[:, half : 2 * half]
            total = a + b
            shadow = total - a
            exact &= ((a - (total - shadow)) + (b - shadow) == 0).all(1)
            terms = torch.cat([total, terms[:, 2 * half :]], 1)
        sums[part], certain[part] = terms.sum(1), exact
    return sums, certain


def _sum(a: Tensor, b: Tensor, kind: str) -> Fraction:
    """The exact sum of the terms of a pair of rows [d]."""
    mantissas, exponents = torch.frexp(_terms(a[None], b[None], kind)[0])
    whole = (mantissas * 2.0**53).long().tolist()
    shifts = exponents.tolist()
    least = min(shifts, default=0)
    total = sum(number << (shift - least) for number, shift in zip(whole, shifts, strict=True))
    return Fraction(total) * Fraction(2) ** (least - 53)


def _terms(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Exact float64 products [n, .] of rows [n, d] whose sum ranks a pair, or is its distance."""
    a, b = a.double(), b.double()
    if kind == "l2":
        return torch.cat([2 * a * b, -b * b], 1)
    if kind == "distance":
        return torch.cat([a * a, b * b, -2 * a * b], 1)
    return a * b


def _parts(count: int, dimension: int) -> Iterator[slice]:
    """Slices that cover ``count`` rows in blocks of bounded size."""
    size = max(1, _BLOCK // max(1, dimension))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
