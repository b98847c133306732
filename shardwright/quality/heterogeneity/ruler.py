"""A ruler for shifts: how much of a known change moves a group's own images as far.

A shift between two groups has no unit that says anything. So the images of one group are changed by
growing amounts of one stage, each time the shift from the images as they are is taken by the same
measure in the same space, and the observed shift is read off: as large as gamma 1.2, as JPEG
quality 50. No shift is read beyond the marks: it is below the first or above the last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.attribution import Part
from shardwright.quality.heterogeneity.changes import CHANGES, change
from shardwright.quality.heterogeneity.device_statistics import Pixels
from shardwright.quality.heterogeneity.permutation import Float64

_OWN = ("noise", "mosaic", "warm", "dull", "vivid", "dark", "bright", "blur", "crisp", "jpeg")
"""Variants of ``fit_responses`` that are the changes of ``CHANGES``."""

Represent = Callable[[Sequence[Pixels]], npt.ArrayLike]
"""Images -> numbers [images, dimensions], an embedding or statistics."""
Shift = Callable[[Float64, Float64], float]
"""The measure of the shift between two samples, [n, d] and [m, d]; larger is further."""


@dataclass(frozen=True)
class Reading:
    """A shift in the unit of a stage.

    Attributes:
        stage: Of the ruler.
        amount: As large a change; where the shift is off the ruler, its nearest mark. None where
            the ruler does not move.
        where: ``within`` the marks, ``below`` the first or ``above`` the last of them.
        unit: Of the amount.
    """

    stage: str
    amount: float | None
    where: Literal["within", "below", "above", "nowhere"]
    unit: str

    def __str__(self) -> str:
        if self.amount is None:
            return f"{self.stage} does not move this measure"
        beyond = {"within": "", "below": "less than ", "above": "more than "}[self.where]
        return f"{beyond}{self.stage} {self.amount:.3g} ({self.unit})"


@dataclass(frozen=True)
class Ruler:
    """The shifts that growing amounts of one stage make.

    Attributes:
        stage: That was changed.
        amounts: float64 [marks], from weak to strong.
        measured: float64 [marks], the shifts as they were measured.
        shifts: float64 [marks], the nearest curve that never falls (least squares).
    """

    stage: str
    amounts: Float64
    measured: Float64
    shifts: Float64

    def read(self, shift: float) -> Reading:
        """The amount that moves as far; between marks by straight lines.

        Raises:
            ValueError: the shift is no number.
        """
        if not np.isfinite(shift):
            raise ValueError(f"shift {shift} is no number")
        unit = CHANGES[self.stage].unit
        if self.shifts[-1] <= self.shifts[0]:
            return Reading(self.stage, None, "nowhere", unit)
        if shift < self.shifts[0]:
            return Reading(self.stage, float(self.amounts[0]), "below", unit)
        if shift > self.shifts[-1]:
            return Reading(self.stage, float(self.amounts[-1]), "above", unit)
        # of marks with equal shifts the weakest
        shifts, first = np.unique(self.shifts, return_index=True)
        amount = float(np.interp(shift, shifts, self.amounts[first]))
        return Reading(self.stage, amount, "within", unit)


def make_ruler(
    images: Sequence[Pixels],
    stage: str,
    represent: Represent,
    shift: Shift,
    *,
    back: bool = False,
    amounts: Sequence[float] | None = None,
    seed: int = 0,
) -> Ruler:
    """Changes a group's images by growing amounts of a stage and measures each shift.

    The images as they are and as they are changed show the same, so the curve begins at no shift
    for a measure that is 0 where samples are the same; a measure that is biased upwards should come
    with the mean of its null taken off, here as in the observed shift.

    Args:
        images: uint8 [height, width, 3] each, of one group.
        stage: One of ``CHANGES``.
        represent: Makes numbers of images.
        shift: The measure, called with the images as they are first.
        back: Whether to go the other way (brighter, sharper, duller), where the stage has one.
        amounts: Marks, from weak to strong; those of the stage if there are none.
        seed: Of noise.

    Raises:
        ValueError: the stage has no other way, or there are fewer than two marks.
    """
    known = CHANGES[stage]
    if back and not known.back and amounts is None:
        raise ValueError(f"{stage} can only be changed one way")
    marks = tuple(amounts if amounts is not None else (known.back if back else known.marks))
    if len(marks) < 2:
        raise ValueError(f"a ruler needs two marks or more, not {len(marks)}")
    own = np.asarray(represent(images), np.float64)
    measured = []
    for amount in marks:
        moved = [change(pixels, stage, amount, seed + i) for i, pixels in enumerate(images)]
        measured.append(shift(own, np.asarray(represent(moved), np.float64)))
    found = np.array(measured)
    return Ruler(stage, np.array(marks), found, rising(found))


def goes_back(part: Part) -> bool:
    """Whether a part of an attribution changes its stage the other way than the marks go.

    Variants that are none of the stage's own change have no direction on its ruler.
    """
    known = CHANGES[part.stage]
    amounts = [amount for name, amount in part.moves if name in _OWN]
    return any(
        (amount - known.neutral) * (mark - known.neutral) > 0
        for amount in amounts
        for mark in known.back[:1]
    )


def rising(values: npt.ArrayLike) -> Float64:
    """The nearest curve that never falls: neighbours that fall are averaged (Ayer et al. 1955)."""
    blocks: list[tuple[float, int]] = []
    for value in np.asarray(values, np.float64):
        mean, count = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean = (before * size + mean * count) / (size + count)
            count += size
        blocks.append((mean, count))
    return np.concatenate([np.full(count, mean) for mean, count in blocks])
