"""``damage``: all views of a record together say how likely it was damaged.

No single view sees all damage: a parser sees missing brackets and no flipped condition, a language
model sees the reverse. So a generalised additive model (Hastie and Tibshirani 1986) adds up what
the views say: how far out the record lies among undamaged ones of its language, on the side that
looks damaged. Kinds of damage that calibration never saw may show in views that it had no use for;
for these the views that stick out most count once more, whichever they are. The sum can be taken
apart again, and a view never speaks for a record by being worse.

It is calibrated on records that were damaged on purpose. What it must find are kinds of damage that
it never saw, so its penalty is chosen by leaving whole families out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardwright.quality.calibration import Bool, Float64, Gauge, even, fit_gauge, fit_logistic
from shardwright.quality.evaluation import area

_TOPS = (1, 3)
"""So many views that stick out most count once more."""
_USUAL = 0.5
"""How far from the median a view of which both ends are odd must lie to look damaged."""
_PENALTIES = (1e-2, 3e-2, 1e-1)


@dataclass(frozen=True)
class Damage:
    """A calibrated model.

    Attributes:
        names: The views.
        odd: bool [m], for which views both ends are odd.
        gauge: Where values lie among those of undamaged records, by language.
        weights: float64 [m], of each view's excess; not negative.
        tops: float64 [2], of the rarest view and of the three rarest; not negative.
        bias: Log odds where all views are average or better.
    """

    names: tuple[str, ...]
    odd: Bool
    gauge: Gauge
    weights: Float64
    tops: Float64
    bias: float

    def contributions(self, values: Float64, groups: Sequence[str | None]) -> Float64:
        """What each view adds to the log odds.

        Args:
            values: float64 [n, m], the views; NaN where one does not apply, which adds nothing.
            groups: n languages.

        Returns:
            float64 [n, m], not negative.
        """
        excess = _excess(self.gauge.scores(values, groups), self.odd)
        added: Float64 = excess * self.weights
        for weight, rarity in zip(self.tops, _tops(excess), strict=True):
            added = added + weight * rarity
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
    good = _features(gauge.scores(clean, clean_groups), both)
    bad = _features(gauge.scores(damaged, damaged_groups), both)
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
    count = len(names)
    return Damage(tuple(names), both, gauge, weights[:count], weights[count:], bias)


def _features(scores: Float64, odd: Bool) -> Float64:
    """float64 [n, m + 2]: what ``fit_logistic`` learns weights of."""
    excess = _excess(scores, odd)
    return np.column_stack([excess, *(rarity.sum(axis=1) for rarity in _tops(excess))])


def _excess(scores: Float64, odd: Bool) -> Float64:
    """How far normal scores [n, m] lie out on the side that looks damaged, 0 or more."""
    return np.maximum(np.where(odd, np.abs(scores) - _USUAL, scores), 0)


def _tops(excess: Float64) -> list[Float64]:
    """For each of ``_TOPS`` float64 [n, m]: -log of the tail's share, of so many rarest views."""
    from scipy.special import log_ndtr

    rarity = -log_ndtr(-excess) - np.log(2)
    order = np.argsort(-rarity, axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")
    return [np.where(place < top, rarity, 0.0) for top in _TOPS]
