"""Rulers: readings of known changes, marks that are not passed, curves that never fall."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from shardwright.quality.heterogeneity.attribution import Part
from shardwright.quality.heterogeneity.changes import CHANGES, change
from shardwright.quality.heterogeneity.ruler import (
    Reading,
    Ruler,
    goes_back,
    make_ruler,
    rising,
)

Pixels = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]

IMAGES = [np.random.default_rng(i).integers(30, 220, (24, 24, 3), dtype=np.uint8) for i in range(6)]


def log_median(images: Sequence[Pixels]) -> Float64:
    return np.array([[np.log(np.median(one) / 255)] for one in images])


def apart(x: Float64, y: Float64) -> float:
    return float(np.linalg.norm(x.mean(axis=0) - y.mean(axis=0)))


@pytest.mark.parametrize(("gamma", "back"), [(1.2, False), (1.4, False), (0.85, True), (0.7, True)])
def test_a_known_change_is_read_as_itself(gamma: float, back: bool) -> None:
    observed = apart(log_median(IMAGES), log_median([change(i, "tone", gamma) for i in IMAGES]))
    ruler = make_ruler(IMAGES, "tone", log_median, apart, back=back)
    reading = ruler.read(observed)
    assert reading.where == "within"
    assert reading.amount == pytest.approx(gamma, rel=0.03)
    assert reading.stage in str(reading)
    assert reading.unit == "gamma"


def test_nothing_is_read_beyond_the_marks() -> None:
    ruler = make_ruler(IMAGES, "tone", log_median, apart)
    below, above = ruler.read(ruler.shifts[0] / 2), ruler.read(ruler.shifts[-1] * 2)
    assert (below.where, below.amount) == ("below", CHANGES["tone"].marks[0])
    assert (above.where, above.amount) == ("above", CHANGES["tone"].marks[-1])
    assert str(below).startswith("less than tone 1.1")
    assert str(above).startswith("more than")
    for shift, amount in zip(ruler.shifts, ruler.amounts, strict=True):
        assert ruler.read(float(shift)) == Reading("tone", float(amount), "within", "gamma")


def test_a_measure_that_does_not_see_the_stage_gives_no_reading() -> None:
    ruler = make_ruler(IMAGES, "tone", lambda images: np.zeros((len(images), 2)), apart)
    assert ruler.read(0.5).amount is None
    assert "does not move" in str(ruler.read(0.5))


def test_marks_with_equal_shifts_are_read_as_the_weakest() -> None:
    marks, shifts = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 1.0, 2.0])
    ruler = Ruler("noise", marks, shifts, shifts)
    assert ruler.read(1.0).amount == 2.0
    assert ruler.read(1.5).amount == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("moves", "gamma"),
    [((("dark", 1.4),), 1.4), ((("bright", 0.7),), 0.7), ((("steep", 1.5),), 1.4)],
)
def test_the_stage_that_is_named_first_is_read_in_its_direction(
    moves: tuple[tuple[str, float], ...], gamma: float
) -> None:
    part = Part(1, "tone", 0.5, moves, "b")
    observed = apart(log_median(IMAGES), log_median([change(i, "tone", gamma) for i in IMAGES]))
    ruler = make_ruler(IMAGES, "tone", log_median, apart, back=goes_back(part))
    assert ruler.read(observed).amount == pytest.approx(gamma, rel=0.03)


@pytest.mark.parametrize("stage", CHANGES)
def test_every_stage_has_a_ruler(stage: str) -> None:
    reading = make_ruler(IMAGES, stage, log_median, apart).read(0.05)
    assert reading.stage == stage


def test_the_same_bits_again_and_noise_of_its_own_for_each_image() -> None:
    def spread(images: Sequence[Pixels]) -> Float64:
        return np.array([[one.std()] for one in images])

    flat = [np.full((24, 24, 3), 128, np.uint8)] * 4
    first = make_ruler(flat, "noise", spread, apart, seed=5)
    assert np.array_equal(first.measured, make_ruler(flat, "noise", spread, apart, seed=5).measured)
    assert first.measured == pytest.approx(CHANGES["noise"].marks, rel=0.15)
    assert not np.array_equal(
        first.measured, make_ruler(flat, "noise", spread, apart, seed=6).measured
    )


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_rising_is_isotonic_regression(values: list[float]) -> None:
    np.testing.assert_allclose(rising(values), isotonic_regression(values).x, atol=1e-9)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="only be changed one way"):
        make_ruler(IMAGES, "noise", log_median, apart, back=True)
    with pytest.raises(ValueError, match="two marks"):
        make_ruler(IMAGES, "tone", log_median, apart, amounts=(1.5,))
    with pytest.raises(ValueError, match="no number"):
        make_ruler(IMAGES, "tone", log_median, apart).read(float("nan"))
