"""Distances in exact arithmetic: Python's integers, every float as a multiple of 2^-149."""

from fractions import Fraction

import numpy as np


def integers(rows):
    """Rows [n, d] of float32 or float16 as Python integers, times 2^149."""
    mantissas, exponents = np.frexp(rows.astype(np.float64))
    whole = (mantissas * 2.0**53).astype(np.int64).astype(object)
    shifts = exponents.astype(object) + (149 - 53)
    return np.where(shifts >= 0, whole << np.maximum(shifts, 0), whole >> np.maximum(-shifts, 0))


def nearness(x, y, metric):
    """Exact numbers [N, M], larger is nearer, comparable within a row of ``x``."""
    x, y = integers(x), integers(y)
    dots = x.dot(y.T)
    squares = (y * y).sum(1)
    if metric == "dot":
        return dots
    if metric == "l2":
        return 2 * dots - squares[None]
    keys = np.empty_like(dots)
    for place, dot in np.ndenumerate(dots):
        keys[place] = Fraction(int(dot * abs(dot)), int(squares[place[1]])) if dot else Fraction(0)
    return keys


def is_above(x, y, threshold, metric):
    """bool [N, M]: strictly above a threshold (``l2``: squared distance strictly below it)."""
    level, one = Fraction(threshold), 1 << 298
    a, b = integers(x), integers(y)
    dots = a.dot(b.T)
    xs, ys = (a * a).sum(1), (b * b).sum(1)
    found = np.empty(dots.shape, bool)
    for (i, j), dot in np.ndenumerate(dots):
        if metric == "dot":
            found[i, j] = dot > level * one
        elif metric == "l2":
            found[i, j] = xs[i] + ys[j] - 2 * dot < level * one
        else:
            found[i, j] = dot * abs(dot) > level * abs(level) * int(xs[i]) * int(ys[j])
            if not xs[i] * ys[j]:
                found[i, j] = level < 0
    return found


def best(keys, k):
    """Indices [N, k] of the largest keys [N, M] of each row, ties by the lowest index."""
    return np.array([sorted(range(len(row)), key=lambda j: (-row[j], j))[:k] for row in keys])


def canonical(terms):
    """The sum of float64 terms [d] in the documented order."""
    padded = np.zeros(-(-max(len(terms), 1) // 256) * 256)
    padded[: len(terms)] = terms
    lanes = padded[:256].copy()
    for start in range(256, len(padded), 256):
        lanes = lanes + padded[start : start + 256]
    width = 128
    while width:
        lanes[:width] = lanes[:width] + lanes[width : 2 * width]
        width //= 2
    return lanes[0] + 0.0


def value(a, b, metric):
    """The canonical float64 value of a pair of rows."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "l2":
        return canonical((a - b) * (a - b))
    dot = canonical(a * b)
    if metric == "dot":
        return dot
    norms = np.sqrt(canonical(a * a)) * np.sqrt(canonical(b * b))
    return min(max(dot / norms, -1.0), 1.0) if norms else 0.0
