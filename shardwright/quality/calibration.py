"""Several measures of a record become one: normal scores, and logistic regression on them.

Measures have units and tails of their own. What a measure says of a record is how far out it lies
among records as they are: its quantile there, written as a normal score (van der Waerden 1952). A
few giants then weigh no more than they should, and languages become comparable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float64: TypeAlias = npt.NDArray[np.float64]
Bool: TypeAlias = npt.NDArray[np.bool_]

_KNOTS = 256
LEAST_ROWS = 15
"""Of a group with fewer rows it is not known what is usual."""
_BEYOND = 2.0
"""Most that a score grows beyond the outermost knots."""
ALL = ""
"""Name of the group of all rows."""


@dataclass(frozen=True)
class Gauge:
    """Where values of measures lie among those of ordinary records, by group.

    Attributes:
        knots: Group -> float64 [m, q]: quantiles of each measure, ascending; NaN where a measure
            was missing throughout.
    """

    knots: Mapping[str, Float64]

    def scores(self, values: Float64, groups: Sequence[str | None]) -> Float64:
        """Normal scores float64 [n, m] of values [n, m]: 0 is the median.

        It is 0 for NaN too, and for groups of which too little is known; None is all rows.
        """
        names = np.array([ALL if g is None else g for g in groups], dtype=object)
        scores = np.zeros(values.shape)
        for name in sorted(set(names.tolist()) & set(self.knots)):
            rows = np.flatnonzero(names == name)
            for j, knots in enumerate(self.knots[name]):
                if not np.isnan(knots[0]):
                    scores[rows, j] = _normal(values[rows, j], knots)
        return scores


def fit_gauge(values: Float64, groups: Sequence[str | None]) -> Gauge:
    """Learns a gauge from ordinary records: values float64 [n, m] and the group of each."""
    names = np.array([ALL if g is None else g for g in groups], dtype=object)
    counted = {name: int((names == name).sum()) for name in sorted(set(names.tolist()))}
    large = [name for name, count in counted.items() if name != ALL and count >= LEAST_ROWS]
    return Gauge(
        {ALL: _knots(values)} | {name: _knots(values[names == name]) for name in large},
    )


def _knots(values: Float64) -> Float64:
    """Quantiles (i + 1/2) / q of each column, q of at most 256 and the number of rows."""
    q = max(1, min(_KNOTS, len(values)))
    knots = np.full((values.shape[1], q), np.nan)
    for j, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if len(known):
            knots[j] = np.quantile(known, (np.arange(q) + 0.5) / q)
    return knots


def _normal(values: Float64, knots: Float64) -> Float64:
    """Normal scores of values [n] among knots [q]; ties in the middle, NaN at 0.

    Beyond the last knots the score goes on growing, but slowly: by the logarithm of the distance
    in spans of the knots, and by 2 at the most.
    """
    from scipy.special import ndtri

    low = np.searchsorted(knots, values, "left")
    high = np.searchsorted(knots, values, "right")
    q = len(knots)
    place = np.clip((low + high) / (2 * q), 0.5 / q, 1 - 0.5 / q)
    score: Float64 = ndtri(place)
    span = max(float(knots[-1] - knots[0]), 1e-12)
    score += np.minimum(np.log1p(np.maximum(values - knots[-1], 0) / span), _BEYOND)
    score -= np.minimum(np.log1p(np.maximum(knots[0] - values, 0) / span), _BEYOND)
    return np.where(np.isnan(values), 0.0, score)


def fit_logistic(
    good: Float64, bad: Float64, weights: Float64, monotone: Bool, penalty: float = 1e-3
) -> tuple[Float64, float]:
    """Logistic regression in which both kinds count alike and weights can be held at zero or more.

    Args:
        good: float64 [n, m], features of clean records.
        bad: float64 [b, m], of damaged ones.
        weights: float64 [b], how much each damaged one counts.
        monotone: bool [m], whether a coefficient must not be negative.
        penalty: Weight of half the sum of squares of the coefficients, against the mean loss.

    Returns:
        Coefficients float64 [m], and the bias: the minimum, by L-BFGS-B (Byrd et al. 1995).
    """
    from scipy.optimize import minimize

    x = np.concatenate([good, bad])
    sign = np.repeat([-1.0, 1.0], [len(good), len(bad)])
    share = np.concatenate([np.full(len(good), 0.5 / len(good)), 0.5 * weights / weights.sum()])

    def loss(w: Float64) -> tuple[float, Float64]:
        margin = sign * (x @ w[:-1] + w[-1])
        slope = -share * sign / (1 + np.exp(np.minimum(margin, 500)))
        value = share @ np.logaddexp(0, -margin) + penalty / 2 * (w[:-1] @ w[:-1])
        return float(value), np.append(slope @ x + penalty * w[:-1], slope.sum())

    bounds = [(0.0, None) if up else (None, None) for up in monotone] + [(None, None)]
    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x[:-1], float(found.x[-1])


def even(families: npt.NDArray[np.str_]) -> Float64:
    """Weights [n] with which each family counts alike."""
    _, place, counts = np.unique(families, return_inverse=True, return_counts=True)
    share: Float64 = 1 / counts[place]
    return share
