"""Known changes: identity at the neutral amount, what each does, and its own stage."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.quality.heterogeneity import changes
from shardwright.quality.heterogeneity.changes import CHANGES, PIPELINE, change
from shardwright.quality.heterogeneity.device_statistics import LIGHT, STAGES, measure

Pixels = npt.NDArray[np.uint8]


def scene(seed: int = 0, size: int = 96) -> Pixels:
    """Soft colours with edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 235, (size // 16, size // 16, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))


def noise(seed: int = 0, size: int = 32) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_every_stage_has_a_change_and_a_place() -> None:
    assert tuple(CHANGES) == STAGES
    assert sorted(PIPELINE) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_neutral_amounts_give_the_same_bits(stage: str) -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for pixels in (every, noise()):
        before = pixels.copy()
        assert np.array_equal(change(pixels, stage, CHANGES[stage].neutral), before)
        assert np.array_equal(pixels, before)


def test_what_is_computed_is_neutral_too() -> None:
    every = noise(size=64)
    for stage in ("white_balance", "tone", "noise", "demosaic", "gamut"):
        same = CHANGES[stage].apply(every, CHANGES[stage].neutral, 0)
        assert np.array_equal(same, every), stage
    assert np.array_equal(changes.colour_matrix(every, np.eye(3)), every)
    assert np.array_equal(changes.contrast(every, 1), every)
    assert np.array_equal(changes.grain(every, 0), every)


@pytest.mark.parametrize("stage", STAGES)
def test_marks_lead_away_from_neutral_and_leave_the_input(stage: str) -> None:
    known = CHANGES[stage]
    pixels = scene()
    before = pixels.copy()
    for marks in filter(None, (known.marks, known.back)):
        distances = [abs(amount - known.neutral) for amount in marks]
        assert distances == sorted(set(distances))
        moved = [np.abs(change(pixels, stage, a, 3).astype(int) - pixels).sum() for a in marks]
        assert all(moved)
        assert moved[-1] == max(moved)
    assert np.array_equal(pixels, before)
    strong = change(pixels, stage, known.marks[-1], 3)
    assert strong.dtype == np.uint8
    assert strong.shape == pixels.shape
    assert np.array_equal(strong, change(pixels, stage, known.marks[-1], 3))


def test_noise_has_its_deviation_and_its_seed() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    noisy = change(grey, "noise", 5.0, seed=1)
    assert np.std(noisy.astype(float) - 128) == pytest.approx(5, rel=0.02)
    assert not np.array_equal(noisy, change(grey, "noise", 5.0, seed=2))
    soft = changes.grain(grey, 5.0).astype(float) - 128
    assert soft.std() == pytest.approx(5, rel=0.02)
    assert np.array_equal(soft[..., 0], soft[..., 2])


@given(st.integers(0, 255), st.floats(-0.8, 0.8))
@settings(max_examples=30, deadline=None)
def test_balance_is_a_gain_of_light(level: int, stops: float) -> None:
    grey = np.full((1, 1, 3), level, np.uint8)
    red, green, blue = change(grey, "white_balance", stops)[0, 0]
    assert green == level
    for found, gain in ((red, stops), (blue, -stops)):
        wanted = min(1.0, LIGHT[level] * 2**gain)
        nearest = np.argmin(np.abs(LIGHT - wanted))
        assert abs(int(found) - int(nearest)) <= 1


def test_gamma_and_its_inverse() -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    dark = change(ramp, "tone", 2.0)
    assert dark[8, 0, 0] == round(255 * (128 / 255) ** 2)
    back = change(dark, "tone", 0.5).astype(int)
    assert np.abs(back - ramp)[4:].max() <= 4
    steep = changes.contrast(ramp, 1.6).astype(int)
    assert (np.diff(steep[..., 0].ravel()) >= 0).all()
    assert np.abs(steep + steep[::-1, ::-1] - 255).max() <= 1


def test_gamut_leaves_grey_and_primaries_turn() -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for amount in (0.5, 1.8):
        assert np.array_equal(change(ramp, "gamut", amount), ramp)
    grey = change(noise(), "gamut", 0.0).astype(int)
    assert np.ptp(grey, axis=2).max() <= 1
    assert np.array(changes.P3_FROM_SRGB).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_mosaic_keeps_what_it_sampled() -> None:
    pixels = noise()
    filled = change(pixels, "demosaic", 1.0)
    assert np.array_equal(filled[::2, ::2, 0], pixels[::2, ::2, 0])
    assert np.array_equal(filled[::2, 1::2, 1], pixels[::2, 1::2, 1])
    assert np.array_equal(filled[1::2, 1::2, 2], pixels[1::2, 1::2, 2])
    mean = pixels[4, [3, 5], 1].sum() + pixels[[3, 5], 4, 1].sum()
    assert abs(filled[4, 4, 1] - mean / 4) <= 0.5
    flat = np.full((17, 31, 3), 77, np.uint8)
    assert np.array_equal(change(flat, "demosaic", 1.0), flat)


@pytest.mark.parametrize(
    ("stage", "amount", "statistic", "sign"),
    [
        ("white_balance", 0.4, "grey_world_red", 1),
        ("tone", 1.6, "gamma", 1),
        ("noise", 4.0, "noise_flat", 1),
        ("sharpness", -0.9, "acutance", -1),
        ("sharpness", 1.0, "overshoot", 1),
        ("compression", 45.0, "dct_comb", 1),
        ("demosaic", 1.0, "lattice_green", 1),
        ("gamut", 0.65, "chroma", -1),
    ],
)
def test_a_change_moves_the_statistic_of_its_stage(
    stage: str, amount: float, statistic: str, sign: int
) -> None:
    textured = change(scene(size=192), "noise", 3.0)
    textured = change(textured, "sharpness", -0.5)
    before, after = measure(textured), measure(change(textured, stage, amount))
    assert sign * (after[statistic] - before[statistic]) > 0.02


@pytest.mark.parametrize(
    ("stage", "amount"),
    [("tone", 0.0), ("noise", -1.0), ("compression", 0.0), ("demosaic", 1.5), ("gamut", -0.1),
     ("tone", float("nan"))],
)  # fmt: skip
def test_amounts_that_a_stage_does_not_have(stage: str, amount: float) -> None:
    with pytest.raises(ValueError, match=r"amount|gamma|noise|quality|share|saturation"):
        change(noise(), stage, amount)


def test_other_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="not uint8"):
        change(np.zeros((4, 4), np.uint8), "tone", 1.5)
    with pytest.raises(ValueError, match="above 0"):
        changes.contrast(noise(), 0)
