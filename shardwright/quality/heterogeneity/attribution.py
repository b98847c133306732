"""Which stages of the pipeline make two groups of images differ, and how much each takes away.

Known changes of each stage are tried on the groups' own images. The set of stages that explains the
difference of their statistics best is sought from one stage on: the best sets are made in pixels,
on the side that can be brought to the other, and every further stage is tried on what comes of it,
since a later stage wipes out traces of an earlier one. The stages of the best set are undone one
after another, and the share of a stage is what the distance of the groups loses at its turn. Where
labels dealt at random give as much, nothing is attributed.

What the images show is the only other thing in which groups differ. It enters as chance: the
larger the groups, the smaller the differences that are taken as a stage's. Groups of unlike content
should be matched first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shardwright.quality.heterogeneity.device_statistics import Pixels, measure
from shardwright.quality.heterogeneity.fit_features import LEAST, Float64, features
from shardwright.quality.heterogeneity.fit_model import (
    Candidate,
    Difference,
    Model,
    candidates,
    difference,
)
from shardwright.quality.heterogeneity.fit_responses import (
    FEW,
    VARIANTS,
    Curve,
    Move,
    coded,
    mean_move,
    recoded_features,
    respond,
    synthesise,
)
from shardwright.quality.heterogeneity.permutation import deals, p_value

NOT_ENOUGH = "not enough data"

_GRID = 16


@dataclass(frozen=True)
class Settings:
    """How groups are looked at.

    Attributes:
        least: Images that a group needs.
        images: Of each group, on how many changes are tried.
        side: Pixels each way of the middle that changes are tried on.
        alpha: The p up to which there is something to attribute.
        permutations: Deals of the labels.
        seed: Of noise and deals; not negative.
    """

    least: int = 30
    images: int = 16
    side: int = 512
    alpha: float = 0.05
    permutations: int = 199
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """A row of ``device_attribution``, less the names of the groups.

    Attributes:
        rank: From 1.
        stage: One of ``STAGES``.
        share: Of the distance of the groups, what goes when this stage is normalised too.
        moves: What normalises it: variants of ``fit_responses`` and amounts.
        moved: ``a`` or ``b``, the group that is changed.
    """

    rank: int
    stage: str
    share: float
    moves: tuple[Move, ...]
    moved: str


@dataclass(frozen=True)
class Attribution:
    """What makes two groups differ.

    Attributes:
        parts: By rank; empty where nothing is attributed.
        p_value: Of the best single stage, by permutation; NaN where nothing was tested.
        distance: Of the groups' mean features, in deviations of chance.
        left: The same after all parts are normalised.
        note: Why there are no parts; empty where there are.
    """

    parts: tuple[Part, ...]
    p_value: float
    distance: float
    left: float
    note: str = ""

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, by rank."""
        return tuple(part.stage for part in self.parts)


def attribute(
    statistics_a: Sequence[Mapping[str, float]],
    statistics_b: Sequence[Mapping[str, float]],
    images_a: Sequence[Pixels],
    images_b: Sequence[Pixels],
    *,
    paired: bool = False,
    settings: Settings | None = None,
) -> Attribution:
    """Names the stages in which two groups differ.

    Args:
        statistics_a: Of each image of group a, as ``measure`` gives them.
        statistics_b: Of group b.
        images_a: uint8 [height, width, 3] of some images of group a, at best of different scenes;
            changes are tried on the first ``settings.images``.
        images_b: Of group b.
        paired: Whether image i of one group shows the same as image i of the other.
        settings: How groups are looked at.

    Raises:
        ValueError: pairs of different number, or a group without images.
    """
    chosen = settings or Settings()
    if paired and len(statistics_a) != len(statistics_b):
        raise ValueError(f"{len(statistics_a)} and {len(statistics_b)} images are no pairs")
    if not images_a or not images_b:
        raise ValueError("changes are tried on images: each group needs some")
    fewest = min(len(statistics_a), len(statistics_b))
    if fewest < chosen.least:
        note = f"{NOT_ENOUGH}, {fewest} images"
        return Attribution((), float("nan"), float("nan"), float("nan"), note)
    pair = difference(features(statistics_a), features(statistics_b), paired)
    trial = Trial.of(images_a, images_b, chosen)
    return explain(pair, trial, chosen)


@dataclass(frozen=True)
class Trial:
    """Images that changes are tried on, and what the changes do to them.

    Attributes:
        images: Of a and of b.
        own: float64 [images, features] of either.
        bases: The same, what was coded being coded again.
        curves: Of a and of b.
    """

    images: tuple[Sequence[Pixels], Sequence[Pixels]]
    own: tuple[Float64, Float64]
    bases: tuple[Float64, Float64]
    curves: tuple[Sequence[Curve], Sequence[Curve]]

    @classmethod
    def of(cls, a: Sequence[Pixels], b: Sequence[Pixels], settings: Settings) -> "Trial":
        """Tries all changes: those that can be undone on the group that is coded the better."""
        images = [
            [_middle(one, settings.side) for one in group[: settings.images]] for group in (a, b)
        ]
        own = [features([measure(one) for one in group]) for group in images]
        worse = [sum(coded(row) is not None for row in rows) / len(rows) for rows in own]
        if worse[1] < worse[0]:
            return cls.of(b, a, settings).swapped()
        curves = respond(images[0], own[0], list(VARIANTS), settings.seed)
        return cls.beside(images[0], own[0], curves, images[1], own[1], settings)

    @classmethod
    def beside(
        cls,
        images_a: Sequence[Pixels],
        own_a: Float64,
        curves_a: Sequence[Curve],
        images_b: Sequence[Pixels],
        own_b: Float64,
        settings: Settings,
    ) -> "Trial":
        """Tries on group b what only goes one way, all changes having been tried on group a."""
        names = [name for name, one in VARIANTS.items() if one.both]
        curves_b = respond(images_b, own_b, names, settings.seed)
        bases = recoded_features(images_a, own_a), recoded_features(images_b, own_b)
        return cls((images_a, images_b), (own_a, own_b), bases, (curves_a, curves_b))

    def swapped(self) -> "Trial":
        """The same with a called b."""
        return Trial(
            (self.images[1], self.images[0]),
            (self.own[1], self.own[0]),
            (self.bases[1], self.bases[0]),
            (self.curves[1], self.curves[0]),
        )

    def made(self, sides: tuple[list[Move], list[Move]], seed: int) -> Float64:
        """What moves of both groups, made in pixels, explain of the difference of means."""
        found = np.zeros(self.own[0].shape[1])
        for side, (moves, sign) in enumerate(zip(sides, (1, -1), strict=True)):
            if not moves:
                continue
            after = self._after(side, moves, range(len(self.images[side])), seed)
            compressed = any(VARIANTS[name].stage == "compression" for name, _ in moves)
            before = self.own[side] if compressed else self.bases[side]
            found += sign * mean_move(after - before)
        return found

    def given(
        self, sides: tuple[list[Move], list[Move]], seed: int
    ) -> tuple[Sequence[Curve], Sequence[Curve]]:
        """Curves of all other stages, where some moves were made already.

        What moves do to a curve is seen on a few images.
        """
        stages = {VARIANTS[name].stage for moves in sides for name, _ in moves}
        found = []
        for side, moves in enumerate(sides):
            few = range(min(FEW, len(self.images[side])))
            plain = self._after(side, moves, few, seed) if moves else None
            curves = []
            for curve in self.curves[side]:
                stage = VARIANTS[curve.variant].stage
                if plain is not None and stage not in stages:
                    before = plain
                    if stage == "compression":
                        before = plain + self.own[side][few] - self.bases[side][few]
                    rows = [
                        mean_move(self._after(side, [*moves, (curve.variant, amount)], few, seed)
                                  - before)
                        for amount in curve.amounts
                    ]  # fmt: skip
                    curve = replace(curve, moved=curve.moved + np.array(rows) - curve.few)
                curves.append(curve)
            found.append(curves)
        return found[0], found[1]

    def _after(self, side: int, moves: list[Move], places: Sequence[int], seed: int) -> Float64:
        """Features of images after moves."""
        after = []
        for place in places:
            quality = coded(self.own[side][place])
            after.append(
                measure(synthesise(self.images[side][place], moves, quality, seed + place))
            )
        return features(after)


@dataclass(frozen=True)
class Pixelwise:
    """Candidates of a model, made on the images of a trial."""

    trial: Trial
    seed: int

    def made(self, model: Model, chosen: Mapping[str, int]) -> Float64:
        """What candidates move together."""
        return self.trial.made(_sides(model, chosen), self.seed)

    def given(self, model: Model, chosen: Mapping[str, int]) -> Model:
        """A model of what other stages do where these are made already."""
        return Model(model.pair, candidates(self.trial.given(_sides(model, chosen), self.seed)))


def explain(pair: Difference, trial: Trial, settings: Settings) -> Attribution:
    """Names the stages in which two groups differ, once changes were tried."""
    model = Model(pair, candidates(trial.curves))
    start = model.distance(np.zeros(len(pair.mean)))
    p = significance(model, settings)
    if p > settings.alpha:
        return Attribution((), p, start, start, "labels dealt at random give as much")
    chosen = model.search(Pixelwise(trial, settings.seed))[0][0]
    if not chosen:
        return Attribution((), p, start, start, "no stage explains the difference")
    return _shares(model, trial, chosen, p, start, settings.seed)


def significance(model: Model, settings: Settings) -> float:
    """The p of what the best single stage adds, by labels dealt anew.

    The covariance is that of all rows around one mean, the same for every deal: that within the
    groups as they are would make them look further apart than any deal. For pairs, whose signs are
    dealt, it is the sum over features of the mean's square by the mean square.
    """
    pair = model.pair
    rows, (n_a, n_b) = pair.rows, pair.counts
    if pair.paired:
        rng = np.random.default_rng(settings.seed)
        signs = rng.integers(0, 2, (settings.permutations, len(rows))) * 2.0 - 1
        means = np.concatenate([np.ones((1, len(rows))), signs]) @ rows / len(rows)
        gains = (means**2 / ((rows**2).mean(axis=0) / len(rows) + LEAST**2)).sum(axis=1)
    else:
        first = np.arange(n_a + n_b) < n_a
        cells = np.zeros(n_a + n_b, np.int64)
        dealt = np.concatenate(
            [first[None], *deals(first, cells, settings.permutations, settings.seed)]
        )
        means = np.where(dealt, -1 / n_a, 1 / n_b) @ rows
        covariance = np.atleast_2d(np.cov(rows.T)) * (1 / n_a + 1 / n_b)
        known = replace(pair, mean=means[0], covariance=covariance)
        gains = Model(known, model.choices).first_gains(means)
    return p_value(float(gains[0]), gains[1:])


def _sides(model: Model, chosen: Mapping[str, int]) -> tuple[list[Move], list[Move]]:
    sides: tuple[list[Move], list[Move]] = ([], [])
    for stage, index in chosen.items():
        one = model.candidate(stage, index)
        sides[one.side].extend(_own_moves(one))
    return sides


def _own_moves(one: Candidate) -> list[Move]:
    """Moves that do something."""
    return [(name, amount) for name, amount in one.moves if amount]


def _shares(
    model: Model, trial: Trial, chosen: Mapping[str, int], p: float, start: float, seed: int
) -> Attribution:
    """Normalises stage by stage, each time the one whose normalisation takes most away."""
    left = start
    done: dict[str, int] = {}
    parts: list[Part] = []
    while len(done) < len(chosen):
        trials = {}
        for stage in chosen:
            if stage not in done:
                moved = trial.made(_sides(model, {**done, stage: chosen[stage]}), seed)
                trials[stage] = model.distance(moved)
        stage = min(trials, key=lambda one: trials[one])
        done[stage] = chosen[stage]
        one = model.candidate(stage, chosen[stage])
        share = (left - trials[stage]) / start if start else 0.0
        moves = tuple(_own_moves(one))
        parts.append(Part(len(done), stage, share, moves, "ab"[one.side]))
        left = trials[stage]
    return Attribution(tuple(parts), p, start, left)


def _middle(pixels: Pixels, side: int) -> Pixels:
    rows, columns = (max(0, (size - side) // 2) // _GRID * _GRID for size in pixels.shape[:2])
    return np.ascontiguousarray(pixels[rows : rows + side, columns : columns + side])
