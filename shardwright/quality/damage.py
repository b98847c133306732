"""``damage``: all views of a record together say how likely it was damaged.

No single view sees all damage: a parser sees missing brackets and no flipped condition, a language
model sees the reverse. A generalised additive model (Hastie and Tibshirani 1986) adds up what each
view says: a convex, rising function of how far out the record lies among undamaged ones of its
language. So the sum can be taken apart again, and a view never speaks for a record by being worse.

It is calibrated on records that were damaged on purpose. What it must find are kinds of damage that
it never saw, so its penalty is chosen by leaving whole families out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardwright.quality.calibration import Bool, Float64, Gauge, even, fit_gauge, fit_logistic
from shardwright.quality.evaluation import area

_BENDS = (1.0, 2.0)
"""Normal scores from which the function of a view may rise more steeply."""
_PENALTIES = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Damage:
    """A calibrated model.

    Attributes:
        names: The views.
        odd: bool [m], for which views both ends are odd.
        gauge: Where values lie among those of undamaged records, by language.
        weights: float64 [m, 3], of what lies above 0, 1 and 2; not negative.
        bias: Log odds where all views are average or better.
    """

    names: tuple[str, ...]
    odd: Bool
    gauge: Gauge
    weights: Float64
    bias: float

    def contributions(self, values: Float64, groups: Sequence[str | None]) -> Float64:
        """What each view adds to the log odds.

        Args:
            values: float64 [n, m], the views; NaN where one does not apply, which adds nothing.
            groups: n languages.

        Returns:
            float64 [n, m], not negative.
        """
        bent = _bent(self.gauge.scores(values, groups), self.odd)
        added: Float64 = np.einsum("nmb,mb->nm", bent, self.weights)
        return added

    def judge(self, values: Float64, groups: Sequence[str | None]) -> Float64:
        """Log odds float64 [n] that records are damaged; arguments as for ``contributions``."""
        judged: Float64 = self.contributions(values, groups).sum(axis=1) + self.bias
        return judged


def fit_damage(
    names: Sequence[str],
    odd: Sequence[bool],
    clean: Float64,
    clean_groups: Sequence[str | None],
    damaged: Float64,
    damaged_groups: Sequence[str | None],
    families: Sequence[str],
) -> Damage:
    """Calibrates the model.

    Args:
        names: m views.
        odd: For which of them both ends are odd.
        clean: float64 [n, m] of undamaged records, NaN where a view does not apply.
        clean_groups: Their languages.
        damaged: float64 [d, m] of damaged ones.
        damaged_groups: Their languages.
        families: The family of the damage of each.
    """
    both = np.array(odd, bool)
    gauge = fit_gauge(clean, clean_groups)
    good = _bent(gauge.scores(clean, clean_groups), both)
    bad = _bent(gauge.scores(damaged, damaged_groups), both)
    shape = good.shape[1:]
    good, bad = good.reshape(len(good), -1), bad.reshape(len(bad), -1)
    named = np.array(families)
    monotone = np.ones(good.shape[1], bool)

    def train(penalty: float, taught: Bool) -> tuple[Float64, float]:
        return fit_logistic(good, bad[taught], even(named[taught]), monotone, penalty)

    def unseen(penalty: float) -> float:
        """Mean area over families, each judged by a model that never saw it."""
        areas = []
        for family in sorted(set(families)):
            held = named == family
            if held.all():
                continue
            weights, _ = train(penalty, ~held)
            scores = -np.concatenate([good @ weights, bad[held] @ weights])
            rows = np.arange(len(scores))
            areas.append(area(scores, rows >= len(good), rows).value)
        return float(np.mean(areas)) if areas else 0.5

    penalty = max(_PENALTIES, key=unseen)
    weights, bias = train(penalty, np.ones(len(named), bool))
    return Damage(tuple(names), both, gauge, weights.reshape(shape), bias)


def _bent(scores: Float64, odd: Bool) -> Float64:
    """float64 [n, m, 3]: normal scores above 0, 1 and 2, or how far from 0 they are."""
    far = np.where(odd, np.abs(scores), scores)
    return np.stack([np.maximum(far - bend, 0) for bend in (0.0, *_BENDS)], axis=-1)
