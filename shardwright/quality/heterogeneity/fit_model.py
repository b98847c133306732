"""Which few stages explain the difference of two groups' means: a Gaussian model of it.

The difference is the sum of what the stages did and of what chance and content did. What a stage
did is known from trying it (``fit_responses``), but only as far as the operator that was tried is
the one that was used. So in the statistics that track the stage itself it may be off by much; in
those of other stages by a share of what it does to them:

    d ~ N(sum_s r_s, C + diag(least^2) + diag((sum_s k_s |r_s|)^2) + sum_s diag(own_s^2))

How far it may be off is chosen with the amount, from an operator all but the same to another one.
The best set of stages has the largest likelihood over sets, amounts and these, less a price per
stage. Covariance that a set must bring along to explain the difference lowers its likelihood
(MacKay 1992, "Bayesian interpolation": Occam's factor), so sets that explain more than is there
lose.
"""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shardwright.quality.heterogeneity.changes import CHANGES
from shardwright.quality.heterogeneity.device_statistics import STAGES
from shardwright.quality.heterogeneity.fit_features import LEAST, STAGE_OF, Float64, bounded
from shardwright.quality.heterogeneity.fit_responses import NEUTRAL, VARIANTS, Curve, Move

ABROAD = 0.3
"""Share by which a stage's effect on the statistics of other stages may be off."""
AT_HOME = 0.5
"""Likewise on its own."""
FREE = 0.2
"""Of the largest effect on an own statistic: what an unknown operator may do to it."""
_LEASTS = 4.0  # and times the least difference
_PARTS = 3  # amounts between two that were tried
PRICE = 4.5
"""Of a stage, in logarithms of likelihood."""
TRUSTS = (1.0, 0.4)
"""By how much of these an operator may be off: another one than was tried, or one much like it."""
MOST = 3
"""Stages at once."""
_WARMER = (-1.0, -0.7, -0.45, -0.3, -0.15, 0.0, 0.15, 0.3, 0.45, 0.7, 1.0)
_TINTED = (-0.4, -0.2, 0.0, 0.2, 0.4)
_WARM, _TINT = 0.4, 0.25
"""Stops, deviations of gains that are likely: lights differ along warm and cold, less across."""
_SWEEPS = 2
_TRIED = 5  # sets of a size that are made in pixels
_ROUNDS = 2  # of doing so
_WIDTH = 3  # and that are built upon
_FAR = 0.5  # of the best score of its size: below, nothing is built upon a set
_LOST = 2 * PRICE  # below the best of fewer stages, larger sets are not looked at

_HOME = {stage: np.array([own == stage for own in STAGE_OF]) for stage in STAGES}


@dataclass(frozen=True)
class Candidate:
    """One thing that may have been done.

    Attributes:
        moves: Variants of one stage with amounts.
        side: 0 where group a is moved towards b, 1 where b is moved towards a.
        moved: float64 [features], the change of the difference of means (b less a) that it
            explains.
        unsure: float64 [features], variance of that mean, which was taken over few images.
        prior: Logarithm of how likely it is beside others of its stage.
    """

    moves: tuple[Move, ...]
    side: int
    moved: Float64
    unsure: Float64
    prior: float = 0.0


@dataclass(frozen=True)
class Difference:
    """Two groups, as far as the model sees them.

    Attributes:
        mean: float64 [features], that of b less that of a; 0 where one lacks the feature.
        covariance: float64 [features, features], of it by chance; huge where one lacks it.
        rows: float64 [images, features], of both (or pair differences), to deal anew: filled and
            bounded without a look at which group a row is of, or the deals were no test.
        counts: Images of a and of b; of pairs, their number twice.
        paired: Whether rows are differences of pairs.
    """

    mean: Float64
    covariance: Float64
    rows: Float64
    counts: tuple[int, int]
    paired: bool


def difference(a: Float64, b: Float64, paired: bool = False) -> Difference:
    """The difference of two groups' features [images, features]; gaps are filled."""
    lacking = np.isnan(a).all(axis=0) | np.isnan(b).all(axis=0)
    both = np.where(lacking, 0.0, bounded(np.concatenate([a, b])))
    if paired:
        # bounded together: an image and its pair, cut at unlike ends, would differ by the ends
        rows = both[len(a) :] - both[: len(a)]
        mean = rows.mean(axis=0)
        covariance = np.atleast_2d(np.cov(rows.T)) / len(rows)
    else:
        rows = both
        a, b = (np.where(lacking, 0.0, bounded(one)) for one in (a, b))
        mean = b.mean(axis=0) - a.mean(axis=0)
        covariance = sum(np.atleast_2d(np.cov(one.T)) / len(one) for one in (a, b))
    # correlations of so many features are told badly by few images
    shrink = covariance.shape[0] / (covariance.shape[0] + len(rows))
    covariance = (1 - shrink) * covariance + shrink * np.diag(np.diag(covariance))
    covariance[lacking, lacking] = 1e6
    return Difference(mean, covariance, rows, (len(a), len(b)), paired)


def candidates(
    curves: Sequence[Sequence[Curve]],
) -> dict[str, list[Candidate]]:
    """What may have been done, by stage.

    Args:
        curves: Of group a and of group b.
    """
    found: dict[str, list[Candidate]] = {stage: [] for stage in STAGES}
    balance: dict[str, tuple[int, Float64, Float64]] = {}
    for side, of_group in enumerate(curves):
        sign = 1 if side == 0 else -1
        for curve in of_group:
            variant = VARIANTS[curve.variant]
            if variant.stage == "white_balance":
                unit = curve.amounts[0]
                balance[curve.variant] = (
                    side,
                    sign * curve.moved[0] / unit,
                    curve.unsure[0] / unit**2,
                )
                continue
            neutral = NEUTRAL.get(curve.variant, CHANGES[variant.stage].neutral)
            amounts = np.array([neutral, *curve.amounts])
            none = np.zeros((1, curve.moved.shape[1]))
            moved = np.concatenate([none, sign * curve.moved])
            unsure = np.concatenate([none, curve.unsure])
            for step in range(1, _PARTS * len(curve.amounts) + 1):
                low, part = divmod(step, _PARTS)
                high = min(low + 1, len(amounts) - 1)
                weight = part / _PARTS
                amount = float((1 - weight) * amounts[low] + weight * amounts[high])
                own, variance = (
                    (1 - weight) * one[low] + weight * one[high] for one in (moved, unsure)
                )
                found[variant.stage].append(
                    Candidate(((curve.variant, amount),), side, own, variance)
                )
    if balance:
        for warm in _WARMER:
            for tint in _TINTED:
                if warm or tint:
                    side, per_warm, warm_unsure = balance["warm"]
                    _, per_tint, tint_unsure = balance["tint"]
                    found["white_balance"].append(
                        Candidate(
                            (("warm", warm), ("tint", tint)),
                            side,
                            warm * per_warm + tint * per_tint,
                            warm**2 * warm_unsure + tint**2 * tint_unsure,
                            -((warm / _WARM) ** 2 + (tint / _TINT) ** 2) / 2,
                        )
                    )
    return {stage: own for stage, own in found.items() if own}


class Model:
    """Likelihoods of sets of stages for one pair of groups.

    Args:
        pair: The two groups.
        choices: What may have been done, by stage.
        trusts: Each candidate is tried with each: multiplies what its stage may be off by.
    """

    def __init__(
        self,
        pair: Difference,
        choices: Mapping[str, Sequence[Candidate]],
        trusts: Sequence[float] = TRUSTS,
    ) -> None:
        self.pair = pair
        self.choices = choices
        self.base = pair.covariance + np.diag(LEAST**2)
        self.moved: dict[str, Float64] = {}
        self.prior: dict[str, Float64] = {}
        self.own: dict[str, Float64] = {}
        self.abroad: dict[str, Float64] = {}
        for stage, own in choices.items():
            moved = np.array([c.moved for c in own])
            unsure = np.array([c.unsure for c in own])
            self.moved[stage] = np.tile(moved, (len(trusts), 1))
            self.prior[stage] = np.tile([c.prior for c in own], len(trusts))
            self.own[stage] = np.concatenate([_own(stage, moved, t) + unsure for t in trusts])
            abroad = np.abs(moved) * ~_HOME[stage]
            self.abroad[stage] = np.concatenate([ABROAD * t * abroad for t in trusts])
        self.nothing = float(_log_likelihood(pair.mean[None], self.base[None])[0])

    def candidate(self, stage: str, index: int) -> Candidate:
        """That of an index, whatever the trust."""
        return self.choices[stage][index % len(self.choices[stage])]

    def first_gains(self, means: Float64) -> Float64:
        """The best that one stage adds to the log likelihood of each of the means [P, p]."""
        none = _many(means, np.zeros(means.shape[1]), self.base)
        best = np.full(len(means), -np.inf)
        for stage, moved in self.moved.items():
            extras = self.abroad[stage] ** 2 + self.own[stage]
            for one, extra, prior in zip(moved, extras, self.prior[stage], strict=True):
                found = prior + _many(means, one, self.base + np.diag(extra))
                np.maximum(best, found, out=best)
        gains: Float64 = best - none
        return gains

    def _sweep(self, rest: Mapping[str, int], stage: str, offset: Float64) -> Float64:
        """Scores with each candidate of a stage beside the chosen ones of others."""
        size = len(self.pair.mean)
        residual = self.pair.mean - offset - self.moved[stage]
        abroad, own = self.abroad[stage], self.own[stage]
        prior = self.prior[stage].copy()
        for other, index in rest.items():
            residual = residual - self.moved[other][index]
            abroad = abroad + self.abroad[other][index]
            own = own + self.own[other][index]
            prior += self.prior[other][index]
        covariance = self.base + (abroad**2 + own)[:, :, None] * np.eye(size)
        found = _log_likelihood(residual, covariance)
        scores: Float64 = found + prior - self.nothing - PRICE * (len(rest) + 1)
        return scores

    def best_of(
        self, stages: Sequence[str], start: Mapping[str, int], offset: Float64 | float = 0.0
    ) -> tuple[dict[str, int], float]:
        """The best candidates of a set of stages, from some on, one stage at a time."""
        chosen = {stage: start[stage] for stage in stages if stage in start}
        score = -np.inf
        for _ in range(_SWEEPS):
            before = dict(chosen)
            for stage in sorted(stages, key=lambda one: one in chosen):
                rest = {s: i for s, i in chosen.items() if s != stage}
                scores = self._sweep(rest, stage, np.zeros(len(self.pair.mean)) + offset)
                chosen[stage] = int(np.argmax(scores))
                score = float(scores[chosen[stage]])
            if chosen == before:
                break
        return chosen, score

    def sum_of(self, chosen: Mapping[str, int]) -> Float64:
        """What candidates move one by one."""
        found = np.zeros(len(self.pair.mean))
        for stage, index in chosen.items():
            found += self.moved[stage][index]
        return found

    def beside(self, stage: str, other: "Model") -> "Model":
        """The same, what one stage does being as in another model."""
        found = copy(self)
        for name in ("moved", "own", "abroad"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(found, name, {**mine, stage: theirs[stage]})
        return found

    def search(self, trial: "Made | None" = None) -> list[tuple[dict[str, int], float]]:
        """Sets of stages, the best first; the empty set has the score 0.

        A set is built upon the best ones of one stage less, by what the further stage does to
        pixels on which those are made already: a coding wipes out what came before it, and noise
        what is coded.

        Args:
            trial: What candidates do to pixels; without it they are taken to add up.
        """
        front = [Set(self, {}, 0.0, np.zeros(len(self.pair.mean)))]
        found = list(front)
        for _ in range(min(MOST, len(self.choices))):
            grown: dict[frozenset[str], Set] = {}
            for start in front:
                near = trial.given(self, start.chosen) if trial and start.chosen else start.model
                for stage in self.choices:
                    if stage not in start.chosen:
                        model = start.model.beside(stage, near)
                        offset = start.moved - model.sum_of(start.chosen)
                        new = model.best_of([*start.chosen, stage], start.chosen, offset)
                        one = Set(model, *new, offset + model.sum_of(new[0]))
                        key = frozenset(one.chosen)
                        if key not in grown or one.score > grown[key].score:
                            grown[key] = one
            front = sorted(grown.values(), key=lambda one: -one.score)[:_TRIED]
            if trial and found[1:]:
                front = [one.made(trial) for one in front]
            front = sorted(front, key=lambda one: -one.score)
            best = max(one.score for one in found)
            found += front
            if front[0].score < best - _LOST:
                break
            least = min(_FAR * front[0].score, front[0].score)
            front = [one for one in front[:_WIDTH] if one.score >= least]
        return [(one.chosen, one.score) for one in sorted(found, key=lambda one: -one.score)]

    def distance(self, explained: Float64) -> float:
        """Mahalanobis distance of the groups less what is explained, in deviations of chance."""
        rest = self.pair.mean - explained
        square = float(rest @ np.linalg.solve(self.base, rest))
        return math.sqrt(max(square, 0.0))


class Made(Protocol):
    """What candidates do to pixels."""

    def made(self, model: Model, chosen: Mapping[str, int]) -> Float64:
        """What they move together."""

    def given(self, model: Model, chosen: Mapping[str, int]) -> Model:
        """A model of what other stages do where these are made already."""


@dataclass(frozen=True)
class Set:
    """A set of stages in the search.

    Attributes:
        model: By which it was chosen.
        chosen: Candidate of each stage.
        score: Of the set.
        moved: float64 [features], what the candidates move together.
    """

    model: Model
    chosen: dict[str, int]
    score: float
    moved: Float64

    def made(self, trial: Made) -> "Set":
        """The best candidates and their score, the set being made in pixels."""
        best: Set | None = None
        chosen = self.chosen
        for _ in range(_ROUNDS):
            seen = trial.made(self.model, chosen)
            offset = seen - self.model.sum_of(chosen)
            new, score = self.model.best_of(list(chosen), chosen, offset)
            if best is None or score > best.score:
                best = Set(self.model, new, score, offset + self.model.sum_of(new))
            if new == chosen:
                break
            chosen = new
        return best or self


def _own(stage: str, moved: Float64, trust: float) -> Float64:
    """Variance that a stage is free to add to its own statistics, [candidates, features]."""
    most = np.abs(moved).max(axis=0)
    free = (AT_HOME * trust * moved) ** 2 + (FREE * trust * most) ** 2
    free = free + (_LEASTS * LEAST) ** 2
    found: Float64 = free * _HOME[stage]
    return found


def _log_likelihood(residual: Float64, covariance: Float64) -> Float64:
    """Of residuals [C, p] under covariances [C, p, p], without the constant.

    With the residual r as one more row and column, the square of the last pivot of the Cholesky
    factor is the corner less r' M^-1 r. The corner is above that, for M has at least LEAST^2.
    """
    count, size = residual.shape
    bordered = np.empty((count, size + 1, size + 1))
    bordered[:, :size, :size] = covariance
    bordered[:, size, :size] = bordered[:, :size, size] = residual
    corner = ((residual / LEAST) ** 2).sum(axis=1) + 1
    bordered[:, size, size] = corner
    pivots = np.diagonal(np.linalg.cholesky(bordered), axis1=1, axis2=2)
    logs = np.log(pivots[:, :size]).sum(axis=1)
    found: Float64 = (pivots[:, size] ** 2 - corner) / 2 - logs
    return found


def _many(means: Float64, moved: Float64, covariance: Float64) -> Float64:
    """Log likelihoods of many means [P, p] under one model."""
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, (means - moved).T)
    found: Float64 = -0.5 * (white**2).sum(axis=0) - np.log(np.diag(factor)).sum()
    return found
