"""What known changes of each stage do to all features, on a group's own images.

A camera compresses last. So what was compressed is compressed again, at the quality that its
pixels show, after a change of another stage: else each change would seem to undo compression too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import fractional_matrix_power

from shardwright.quality.heterogeneity import changes
from shardwright.quality.heterogeneity.device_statistics import Pixels, measure
from shardwright.quality.heterogeneity.fit_features import NAMES, Float64, features

_CODED = 97.0  # quality by the pixels: from here on no second coding is needed
_HARDEST = 10
_CUT = 10  # of so many images one is left out at either end
_ENDS = 4  # images, from which ends are left out
FEW = 4
"""Images that show what stages do to each other."""
_QUALITY = NAMES.index("dct_quality")

Images = Sequence[Pixels]
Move = tuple[str, float]
"""Name of a variant of a stage, and its amount."""


@dataclass(frozen=True)
class Variant:
    """One way of changing a stage.

    Attributes:
        name: Of its own.
        stage: That it changes.
        amounts: From weak to strong; 0, or neutral, is left out.
        apply: Pixels, amount and seed -> pixels.
        both: Whether the change only goes one way, so that each group needs its own.
    """

    name: str
    stage: str
    amounts: tuple[float, ...]
    apply: Callable[[Pixels, float, int], Pixels]
    both: bool = False


def _known(stage: str) -> Callable[[Pixels, float, int], Pixels]:
    return lambda pixels, amount, seed: changes.change(pixels, stage, amount, seed)


def _seedless(apply: Callable[[Pixels, float], Pixels]) -> Callable[[Pixels, float, int], Pixels]:
    return lambda pixels, amount, seed: apply(pixels, amount)


def _primaries(pixels: Pixels, amount: float, seed: int) -> Pixels:
    """Colours of Display P3 read as sRGB, so many times over; the other way round below 0."""
    return changes.colour_matrix(pixels, fractional_matrix_power(changes.P3_FROM_SRGB, amount))


VARIANTS: Mapping[str, Variant] = {
    one.name: one
    for one in (
        Variant("noise", "noise", (1.0, 2.5, 6.0, 14.0), _known("noise"), True),
        Variant("grain", "noise", (2.0, 6.0), changes.grain, True),
        Variant("blotches", "noise", (3.0, 9.0), changes.colour_noise, True),
        Variant("mosaic", "demosaic", (0.4, 1.0), _known("demosaic"), True),
        Variant("nearest", "demosaic", (1.0,), _seedless(changes.nearest_mosaic), True),
        Variant("hue", "demosaic", (1.0,), _seedless(changes.smooth_hue), True),
        Variant("warm", "white_balance", (0.4,), _known("white_balance")),
        Variant(
            "tint",
            "white_balance",
            (0.4,),
            lambda pixels, amount, _: changes.white_balance(pixels, amount, amount),
        ),
        Variant("dull", "gamut", (0.7, 0.4), _known("gamut")),
        Variant("vivid", "gamut", (1.35, 1.9), _known("gamut")),
        Variant("wide", "gamut", (1.0, 2.0), _primaries),
        Variant("narrow", "gamut", (-1.0, -2.0), _primaries),
        Variant("dark", "tone", (1.25, 1.8), _known("tone")),
        Variant("bright", "tone", (0.8, 0.55), _known("tone")),
        Variant("steep", "tone", (1.3, 1.9), _seedless(changes.contrast)),
        Variant("flat", "tone", (0.8, 0.6), _seedless(changes.contrast)),
        Variant("even", "tone", (0.3, 0.7), _seedless(changes.local_contrast)),
        Variant("blur", "sharpness", (-0.5, -0.8, -1.5), _known("sharpness"), True),
        Variant("crisp", "sharpness", (0.4, 1.2, 2.5), _known("sharpness")),
        Variant("jpeg", "compression", (95.0, 85.0, 70.0, 45.0, 25.0), _known("compression"), True),
    )
}
"""All variants, in the order of the pipeline."""

NEUTRAL = {"wide": 0.0, "narrow": 0.0, "even": 0.0}
"""Amounts that change nothing, where that of the stage's change is another."""


@dataclass(frozen=True)
class Curve:
    """What a variant does to one group.

    Attributes:
        variant: Its name.
        amounts: Those that were tried, from weak to strong.
        moved: float64 [amounts, features], mean change of the features.
        unsure: float64 [amounts, features], variance of that mean.
        few: float64 [amounts, features], as ``moved``, of the first ``FEW`` images alone.
    """

    variant: str
    amounts: tuple[float, ...]
    moved: Float64
    unsure: Float64
    few: Float64


def respond(images: Images, own: Float64, names: Sequence[str], seed: int = 0) -> tuple[Curve, ...]:
    """Tries variants on images of one group.

    Args:
        images: uint8 [height, width, 3] each.
        own: float64 [images, features], theirs as they are.
        names: Of variants.
        seed: Of noise.
    """
    qualities = [coded(row) for row in own]
    bases = recoded_features(images, own)
    curves = []
    for name in names:
        variant = VARIANTS[name]
        compression = variant.stage == "compression"
        rows = []
        for amount in variant.amounts:
            changed = []
            for place, pixels in enumerate(images):
                new = variant.apply(pixels, amount, seed + place)
                quality = None if compression else qualities[place]
                changed.append(measure(new if quality is None else changes.encoded(new, quality)))
            rows.append(features(changed) - (own if compression else bases))
        curves.append(curve(variant, np.array(rows)))
    return tuple(curves)


def recoded_features(images: Images, own: Float64) -> Float64:
    """Features after a second coding of what was coded; others as they are."""
    bases = own.copy()
    for place, (pixels, row) in enumerate(zip(images, own, strict=True)):
        quality = coded(row)
        if quality is not None:
            bases[place] = features([measure(changes.encoded(pixels, quality))])[0]
    return bases


def curve(variant: Variant, moved: Float64) -> Curve:
    """The curve of what each image did.

    Args:
        variant: That was tried.
        moved: float64 [amounts, images, features]; NaN where an image lacks a feature.
    """
    kept = _kept(moved)
    count, left = moved.shape[1], kept.shape[1]
    # variance of a trimmed mean, by Tukey and McLaughlin (1963): what was cut is moved in
    ends = np.repeat(kept[:, [0, -1]], (count - left) // 2, axis=1)
    square = np.concatenate([kept, ends], axis=1).var(axis=1) * count / max(count - 1, 1)
    unsure = square * count / left**2
    return Curve(
        variant.name, variant.amounts, kept.mean(axis=1), unsure, mean_move(moved[:, :FEW])
    )


def mean_move(moved: Float64) -> Float64:
    """Mean over images, the last axis but one, less the ends; 0 of features that no image has."""
    found: Float64 = _kept(moved).mean(axis=-2)
    return found


def _kept(moved: Float64) -> Float64:
    """Sorted over images and cut at both ends: of few images one may do what no other does."""
    known = ~np.isnan(moved).all(axis=-2, keepdims=True)
    whole = np.where(known, moved, 0.0)
    whole = np.where(np.isnan(whole), np.nanmedian(whole, axis=-2, keepdims=True), whole)
    count = whole.shape[-2]
    cut = -(-count // _CUT) if count >= _ENDS else 0
    found: Float64 = np.sort(whole, axis=-2)[..., cut : count - cut, :]
    return found


def coded(row: Float64) -> int | None:
    """The JPEG quality that the pixels of an image show; None if they show none."""
    quality = float(row[_QUALITY])
    return None if not quality < _CODED else max(_HARDEST, round(quality))


def synthesise(pixels: Pixels, moves: Sequence[Move], quality: int | None, seed: int) -> Pixels:
    """Makes several changes in the order of the pipeline, and codes again what was coded.

    Args:
        pixels: uint8 [height, width, 3].
        moves: Variants and amounts; of white balance both may be there.
        quality: That the pixels show.
        seed: Of noise.
    """
    order = list(VARIANTS)
    for name, amount in sorted(moves, key=lambda one: order.index(one[0])):
        pixels = VARIANTS[name].apply(pixels, amount, seed)
    compressed = any(VARIANTS[name].stage == "compression" for name, _ in moves)
    if moves and quality is not None and not compressed:
        return changes.encoded(pixels, quality)
    return pixels
