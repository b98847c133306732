"""What a scan does and why its answer is exact, in NumPy: a model of cuda/scan.cuh and gpu.py.

Rows are scaled by powers of two and rounded to float16. Items of 256 rows walk through their
columns tile by tile. Each row has a threshold and a list:

1. a score below the threshold is dropped; the others are appended to the row's list;
2. the threshold rises to (best so far) - slack, for the k nearest when a list is compacted, to
   (k-th best so far) - slack; slack is twice the bound of a score's error, so that no column of
   the exact answer ever lies below the threshold;
3. a full list is compacted: what lies below the threshold goes. If nothing does, the row has
   overflowed: its threshold so far bounds a second look at all columns.

What is left of the list and not below the last threshold holds the exact answer; float64 decides.
"""

from dataclasses import dataclass

import numpy as np

ROWS = 256


@dataclass(frozen=True)
class Filter:
    """Scores with errors, and how large those can be.

    Attributes:
        scores: float32 [n, m], as a tensor core gives them.
        slack: float64 [n], twice the bound of |score - unit * exact product|.
    """

    scores: np.ndarray
    slack: np.ndarray


def halves(x):
    """float16 rows, powers of two [n] that scale them, and norms [n] of what rounding lost."""
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    factors = np.exp2(-np.frexp(norms)[1].astype(np.float64))
    scaled = x * factors[:, None]
    rounded = scaled.astype(np.float16)
    return rounded, factors, np.linalg.norm(scaled - rounded, axis=1)


def truncated(values, bits):
    """Values cut to ``bits`` significant bits, towards zero."""
    mantissas, exponents = np.frexp(values)
    return np.ldexp(np.trunc(np.ldexp(mantissas, bits)), exponents - bits)


def tensor_core(x, y):
    """x y^T as tensor cores add: 16 products and the sum so far, cut to 2^-24 of the largest."""
    sums = np.zeros((len(x), len(y)))
    for start in range(0, x.shape[1], 16):
        a, b = x[:, start : start + 16].astype(float), y[:, start : start + 16].astype(float)
        terms = np.concatenate([a[:, None] * b[None], sums[..., None]], axis=2)
        unit = np.exp2(np.frexp(np.abs(terms).max(2))[1] - 25.0)
        sums = truncated((np.trunc(terms / unit[..., None]) * unit[..., None]).sum(2), 24)
    return sums.astype(np.float32)


def filter_products(x, c):
    """The filter for inner products of float32 rows x [n, d] and c [m, d] of norms 0.5 to 1."""
    left, factors, lost = halves(x)
    right = c.astype(np.float16)
    right_lost = np.linalg.norm(c.astype(np.float64) - right, axis=1).max()
    norms = np.linalg.norm(x.astype(np.float64), axis=1) * factors
    reach = np.linalg.norm(right.astype(np.float64), axis=1).max()
    gamma = (x.shape[1] + 64) * 2.0**-22
    error = lost * reach + norms * right_lost + gamma * (norms + lost) * reach
    return Filter(tensor_core(left, right), 2 * error)


@dataclass
class Row:
    """A row's threshold and list while its item walks through the columns."""

    slack: float
    k: int
    capacity: int
    threshold: float
    entries: list[tuple[float, int]]
    overflowed: bool = False

    def visit(self, scores, first):
        """Takes the scores of one tile, columns from ``first`` on."""
        if scores.max(initial=-np.inf) < self.threshold:
            return  # the common path: one comparison for a whole tile
        if self.k == 1:
            self.threshold = max(self.threshold, scores.max() - self.slack)
        for column in np.flatnonzero(scores >= self.threshold):
            if self.overflowed:
                return
            if len(self.entries) == self.capacity:
                self.compact()
            if not self.overflowed and scores[column] >= self.threshold:
                self.entries.append((float(scores[column]), first + int(column)))

    def compact(self):
        """Makes room in a full list."""
        best = sorted((score for score, _ in self.entries), reverse=True)
        self.threshold = max(self.threshold, best[self.k - 1] - self.slack)
        self.entries = [entry for entry in self.entries if entry[0] >= self.threshold]
        self.overflowed = len(self.entries) == self.capacity


def scan(filtered, k, capacity, width, lo, hi):
    """Runs all items; the rows' states. Row i sees columns lo[i] to hi[i] - 1."""
    n, m = filtered.scores.shape
    rows = [Row(slack, k, capacity, -np.inf, []) for slack in filtered.slack]
    for first in range(0, n, ROWS):
        last = min(first + ROWS, n) - 1
        for base in range(lo[first] & ~7, hi[last], width):
            for i in range(first, last + 1):
                start, stop = max(base, lo[i]), min(base + width, hi[i], m)
                if start < stop:
                    rows[i].visit(filtered.scores[i, start:stop], start)
    return rows


def candidates(filtered, row, i, lo, hi):
    """Columns that can belong to the exact answer of row i."""
    if row.overflowed:  # the second look
        return lo + np.flatnonzero(filtered.scores[i, lo:hi] >= row.threshold)
    best = sorted((score for score, _ in row.entries), reverse=True)
    kth = best[row.k - 1] if len(best) >= row.k else -np.inf
    least = max(row.threshold, kth - row.slack)
    return np.array(sorted(column for score, column in row.entries if score >= least), dtype=int)
