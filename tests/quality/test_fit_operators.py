"""Operators that attribution tries beside the ruler's, and the statistics that they are told by."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage
from PIL import Image

from shardwright.quality.heterogeneity import changes
from shardwright.quality.heterogeneity.changes import change
from shardwright.quality.heterogeneity.device_statistics import measure
from shardwright.quality.heterogeneity.fit_responses import FEW, NEUTRAL, VARIANTS, curve, mean_move

Pixels = npt.NDArray[np.uint8]


def picture() -> Pixels:
    with Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png") as image:
        return np.array(image.convert("RGB").resize((192, 192)))


PICTURE = picture()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_neutral_somewhere_and_moves_elsewhere(name: str) -> None:
    one = VARIANTS[name]
    neutral = NEUTRAL.get(name, changes.CHANGES[one.stage].neutral)
    before = PICTURE.copy()
    assert np.array_equal(one.apply(PICTURE, neutral, 1), before)
    away = [abs(amount - neutral) for amount in one.amounts]
    assert away == sorted(away)
    moved = [np.abs(one.apply(PICTURE, a, 1).astype(int) - before).mean() for a in one.amounts]
    assert moved == sorted(moved)
    assert moved[0] > 0.2
    assert np.array_equal(PICTURE, before)


def test_nearest_samples_of_a_mosaic_are_literal() -> None:
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    found = changes.nearest_mosaic(pixels, 1.0)
    # R G R     red of the upper left, green of its own row, blue of the lower right,
    # G B G     within two by two; beyond the border the nearest that there is
    # R G R
    assert found[..., 0].tolist() == [[0, 0, 6], [0, 0, 6], [18, 18, 24]]
    assert found[..., 1].tolist() == [[4, 4, 7], [10, 10, 16], [22, 22, 25]]
    assert found[..., 2].tolist() == [[14, 14, 17], [14, 14, 17], [23, 23, 26]]


def test_a_mosaic_of_differences_leaves_green_and_what_it_holds() -> None:
    found = changes.smooth_hue(PICTURE, 1.0)
    assert np.array_equal(found[..., 1], PICTURE[..., 1])
    assert np.array_equal(found[::2, ::2, 0], PICTURE[::2, ::2, 0])
    assert np.array_equal(found[1::2, 1::2, 2], PICTURE[1::2, 1::2, 2])
    assert not np.array_equal(found[..., 0], PICTURE[..., 0])
    with pytest.raises(ValueError, match="share"):
        changes.smooth_hue(PICTURE, 1.5)


def test_noise_of_colours_leaves_the_luma() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    found = changes.colour_noise(grey, 6.0, 3).astype(float) - 128
    assert found[..., 0].std() == pytest.approx(6, rel=0.1)
    luma = found @ np.array([0.299, 0.587, 0.114])
    assert luma.std() < 0.5


def test_local_contrast_lifts_what_lies_in_the_dark() -> None:
    halves = np.full((96, 192, 3), 60, np.uint8)
    halves[:, 96:] = 200
    found = changes.local_contrast(halves, 0.5)
    assert (found[:, :40] > 60).all()
    assert (found[:, -40:] < 200).all()


def test_purity_sees_primaries_and_neither_gains_nor_gamma() -> None:
    def purity(pixels: Pixels) -> float:
        return measure(pixels)["purity"]

    own = purity(PICTURE)
    assert purity(changes.colour_matrix(PICTURE, changes.P3_FROM_SRGB)) < own - 0.5
    assert purity(change(PICTURE, "noise", 2.0)) == pytest.approx(own, abs=0.4)
    pure = np.zeros((16, 16, 3), np.uint8)
    pure[..., 0] = 200
    assert purity(pure) == pytest.approx(np.log2(100), abs=1e-9)
    assert purity(np.full((16, 16, 3), 99, np.uint8)) == pytest.approx(-np.log2(1.01))
    assert np.isnan(purity(np.full((16, 16, 3), 20, np.uint8)))  # too dark for a ratio


def test_details_tell_mosaics() -> None:
    own = measure(PICTURE)
    bilinear = measure(change(PICTURE, "demosaic", 1.0))
    hue = measure(changes.smooth_hue(PICTURE, 1.0))
    assert bilinear["detail_alike"] < own["detail_alike"] - 0.5
    assert hue["detail_colour"] < own["detail_colour"] - 0.1
    grey = np.repeat(PICTURE[..., 1:2], 3, axis=2)
    assert measure(grey)["detail_alike"] == pytest.approx(np.arctanh(0.9999))


def test_ends_are_left_out_of_mean_moves() -> None:
    moved = np.tile(np.arange(12.0)[:, None], (1, 2))
    moved[11] = 1e6
    moved[0, 1] = np.nan
    assert mean_move(moved)[0] == pytest.approx(5.5)
    assert mean_move(moved[:3]).tolist() == [1.0, 1.5]  # few are all taken, gaps by the median
    assert mean_move(np.full((5, 1), np.nan)).tolist() == [0.0]
    one = VARIANTS["hue"]
    found = curve(one, moved[None])
    assert found.moved[0, 0] == pytest.approx(5.5)
    assert found.few[0, 0] == pytest.approx(mean_move(moved[:FEW])[0])
    assert found.unsure[0, 0] < 2
