"""Damage to pictures: literal cases, what each kind must move, and the same for the same seed."""

import functools
import io
import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import skimage
from PIL import Image, ImageFile

from shardwright.errors import UserError
from shardwright.quality.corruptions import images
from shardwright.quality.corruptions.images import IMAGES, corrupt_image
from shardwright.quality.corruptions.registry import corruptions
from shardwright.quality.image_statistics import measure_image

PHOTOGRAPHS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "page.png"]
DOSES = (0.05, 0.2, 0.5, 1.0)
# page.png is grey
FINE = [
    (kind, name)
    for kind in IMAGES
    for name in PHOTOGRAPHS
    if (kind, name[:4]) != ("channel_swap", "page")
]


@functools.cache
def photograph(name: str) -> Any:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return np.asarray(image.convert("RGB"))


def damaged(kind: str, pixels: Any, seed: int = 0, dose: float = 0.5) -> Any:
    found = corrupt_image(kind, pixels, seed, dose)
    assert found is not None
    return found


def scores(pixels: Any, *names: str) -> Any:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    found = measure_image(names, out.getvalue())
    return found[names[0]] if len(names) == 1 else found


def change(one: Any, other: Any) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (40, 60)) -> Any:
    return np.full((*size, 3), colour, np.uint8)


def test_kinds_are_registered() -> None:
    assert corruptions("image") == IMAGES
    assert set(IMAGES) == set(images._KINDS)
    for name, kind in IMAGES.items():
        assert (kind.name, kind.modality, kind.group) == (name, "image", "image")
        assert kind.languages is None
        assert kind.parseable
        assert kind.description
    families = [kind.family for kind in IMAGES.values()]
    assert families.count("sharpness") == 3
    assert families.count("colour") == 2


@pytest.mark.parametrize(("kind", "name"), FINE)
def test_real_pictures(kind: str, name: str) -> None:
    pixels = photograph(name)
    before = pixels.copy()
    found = damaged(kind, pixels, 3)
    assert found.shape == pixels.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert not np.shares_memory(found, pixels)
    np.testing.assert_array_equal(pixels, before)
    assert change(found, pixels) > 0
    np.testing.assert_array_equal(damaged(kind, np.asfortranarray(pixels), 3), found)


@pytest.mark.parametrize("kind", sorted(set(IMAGES) - {"jpeg", "gaussian_blur"}))
def test_seeds_differ(kind: str) -> None:
    pixels = photograph("coffee.png")[:120, :160]
    results = {damaged(kind, pixels, seed).tobytes() for seed in range(12)}
    at_least = {"channel_swap": 4, "exposure": 2, "resampling": 4, "motion_blur": 6}.get(kind, 12)
    assert len(results) >= at_least


def test_draws_differ_by_picture() -> None:
    pixels = photograph("coffee.png")[:64, :64]
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    one, two = (damaged("noise", p).astype(int) - p for p in (pixels, other))
    assert (one[8:] != two[8:]).mean() > 0.5
    tall, wide = plain((90, 90, 90), (10, 20)), plain((90, 90, 90), (20, 10))
    assert (damaged("noise", tall).ravel() != damaged("noise", wide).ravel()).mean() > 0.5


@pytest.mark.parametrize(("kind", "name"), FINE)
def test_more_dose_more_damage(kind: str, name: str) -> None:
    pixels = photograph(name)[:256, :256]
    for seed in range(3):
        changes = [change(damaged(kind, pixels, seed, dose), pixels) for dose in DOSES]
        if kind == "channel_swap":
            assert len(set(changes)) == 1
            continue
        for less, more in itertools.pairwise(changes):
            assert more > less
        assert changes[-1] > 1.2 * changes[0]


@pytest.mark.parametrize("kind", ["gaussian_blur", "motion_blur", "resampling"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_sharpness_falls(kind: str, name: str) -> None:
    pixels = photograph(name)
    found = [scores(pixels, "blurry")]
    found += [scores(damaged(kind, pixels, 1, dose), "blurry") for dose in (0.1, 0.4, 1.0)]
    # a path along the lines of a text leaves what it crosses, as a step in both is asked for
    assert found[-1] < found[0]
    if kind != "motion_blur":
        assert found == sorted(found, reverse=True)
        assert found[-1] < 0.5


def test_noise_is_of_the_right_size() -> None:
    """In linear light: shot and read noise add up, and both are there at half the dose by half."""
    light = images._LIGHT
    for level in (60, 128, 188):
        pixels = plain((level, level, level), (256, 256))
        for dose in (0.25, 0.5):
            found = light[damaged("noise", pixels, 1, dose)].astype(np.float64)
            expected = dose * np.sqrt(0.15**2 * light[level] + 0.03**2)
            if light[level] > 3 * expected:  # else black cuts off some
                assert found.std() == pytest.approx(expected, rel=0.02)
                assert found.mean() == pytest.approx(light[level], rel=0.01)


def test_light_is_that_of_the_standard() -> None:
    np.testing.assert_array_equal(images._encoded(images._LIGHT.copy()), np.arange(256))
    assert images._LIGHT[[0, 10, 11, 188, 255]] == pytest.approx(
        [0, 0.003035, 0.003347, 0.502886, 1], abs=1e-6
    )


def test_exposure_by_hand() -> None:
    """A stop and a half: light by 2.83 or its inverse."""
    pixels = plain((0, 0, 0), (1, 4))
    pixels[0] = np.array([[0] * 3, [100] * 3, [188] * 3, [255] * 3])
    found = {tuple(damaged("exposure", pixels, seed)[0, :, 0].tolist()) for seed in range(20)}
    assert found == {(0, 162, 255, 255), (0, 60, 117, 160)}


def test_exposure_goes_where_there_is_room() -> None:
    for seed in range(8):
        assert damaged("exposure", plain((255, 255, 255)), seed, 1.0).max() == 99
    assert corrupt_image("exposure", plain((0, 0, 0)), 1) is None


def test_colour_cast_keeps_the_mean_of_logarithms() -> None:
    pixels = plain((120, 120, 120))
    for seed in range(5):
        found = damaged("colour_cast", pixels, seed, 1.0)
        assert (found == found[0, 0]).all()
        stops = np.log2(images._LIGHT[found[0, 0]] / images._LIGHT[120])
        assert stops.sum() == pytest.approx(0, abs=0.05)
        assert np.abs(stops).max() == pytest.approx(1, abs=0.03)


def test_channels_are_swapped() -> None:
    pixels = plain((1, 2, 3))
    found = {tuple(damaged("channel_swap", pixels, seed)[0, 0].tolist()) for seed in range(60)}
    assert found == {(1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)}
    for seed in range(6):  # an order that changes something is found where there is one
        assert set(damaged("channel_swap", plain((5, 5, 9)), seed)[0, 0].tolist()) == {5, 9}


def test_a_path_by_hand() -> None:
    """A white point becomes a line of the path's length, centred, that holds the same light."""
    pixels = plain((0, 0, 0), (101, 101))
    pixels[50, 50] = 255
    for seed in range(20):
        found = damaged("motion_blur", pixels, seed, 1.0)[..., 0].astype(int)
        rows, columns = np.nonzero(found)
        assert len(rows) in (9, 8, 7)  # 2 * (1 + 3) + 1 steps; roundings may lay two on one
        assert max(np.ptp(rows), np.ptp(columns)) == 8
        assert abs(rows.mean() - 50) <= 1
        assert abs(columns.mean() - 50) <= 1
        assert found.sum() == pytest.approx(255, abs=9)


@pytest.mark.parametrize("size", [(37, 200), (300, 1), (64, 64)])
def test_a_path_against_single_steps(size: tuple[int, int]) -> None:
    """Doubled sums are sums: the mean over whole pictures shifted, up to the roundings' places."""
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1])) // 2
    pixels = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
    found = damaged("motion_blur", pixels, 5, 1.0)
    inner = (slice(8, -8) if size[0] > 20 else slice(None), slice(8, -8))
    if size[1] > 20:  # the mean of a ramp over a centred path is the ramp
        assert np.abs(found[inner].astype(int) - pixels[inner]).max() <= 2


def test_long_paths_do_not_overflow() -> None:
    pixels = plain((250, 251, 252), (2, 5000))
    assert corrupt_image("motion_blur", pixels, 0, 1.0) is None
    pixels[:, ::2] = 0
    found = damaged("motion_blur", pixels, 0, 1.0)
    assert found.mean() == pytest.approx(125.5, abs=4)


def broken_at(pixels: Any, unit: int) -> tuple[int, int] | None:
    """Row and column of the first unit from which on, line by line, all is grey."""
    height, width = pixels.shape[:2]
    grey = (pixels == 128).all(axis=2)
    rows, columns = -(-height // unit), -(-width // unit)
    flags = [
        bool(grey[r * unit : (r + 1) * unit, c * unit : (c + 1) * unit].all())
        for r in range(rows)
        for c in range(columns)
    ]
    if not flags[-1]:
        return None
    first = len(flags) - flags[::-1].index(False)
    return divmod(first, columns)


def test_truncation_is_what_a_decoder_leaves() -> None:
    pixels = photograph("chelsea.png")  # 300 x 451: not whole units
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling="4:2:0")
    with mock.patch.object(ImageFile, "LOAD_TRUNCATED_IMAGES", True):
        cut = Image.open(io.BytesIO(out.getvalue()[: len(out.getvalue()) // 2]))
        real = np.asarray(cut.convert("RGB"))
    assert broken_at(real, 16) is not None
    places = set()
    for seed in range(12):
        found = damaged("truncation", pixels, seed)
        place = broken_at(found, 16) if seed else None
        same = (found == pixels).all(axis=2)
        grey = (found == 128).all(axis=2)
        assert (same | grey).all()
        assert same[0].any()
        lost = grey.mean()
        assert 0.23 < lost < 0.52  # half the dose: a quarter to a half
        places.add(place)
    assert len({place[1] for place in places if place}) > 3, "it breaks inside of lines"


@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "rocket.jpg"])
def test_truncation_is_found(name: str) -> None:
    found = [
        scores(damaged("truncation", photograph(name), 2, dose), "truncated")
        for dose in (0.3, 0.6, 1.0)
    ]
    assert max(found) < 0.95
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(10))
def test_occlusions_grow_and_cover_half_at_most(seed: int) -> None:
    pixels = photograph("coffee.png")
    before = np.zeros(pixels.shape[:2], bool)
    for dose in (0.1, 0.3, 0.6, 1.0):
        found = damaged("occlusion", pixels, seed, dose)
        covered = (found != pixels).any(axis=2)
        lost = before & ~covered  # a colour may equal what it covers
        assert lost.mean() < 0.001
        assert covered.mean() <= 0.5 * dose + 0.01
        before = covered
    assert before.mean() > 0.04


def test_moire_takes_light_in_waves() -> None:
    pixels = plain((200, 200, 200), (256, 256))
    found = damaged("moire", pixels, 4, 1.0)
    share = images._LIGHT[found] / images._LIGHT[200]
    assert 0.4 - 0.01 <= share.min() < 0.45
    assert 0.95 < share.max() <= 1.001
    spectrum = np.abs(np.fft.fft2(share[..., 0] - share[..., 0].mean()))
    strongest = np.sort(spectrum.ravel() ** 2)[::-1]
    assert strongest[:60].sum() > 0.5 * strongest.sum(), "few waves, not noise"
    assert change(found[..., 0], found[..., 1]) > 5, "channels are apart"


def test_jpeg_has_blocks_and_half_the_colour() -> None:
    pixels = photograph("astronaut.png")
    found = damaged("jpeg", pixels, 0, 1.0)
    steps = np.abs(np.diff(found[..., 1].astype(int), axis=1)).mean(axis=0)
    at_edges = steps[7::8].mean()
    assert at_edges > 3 * np.delete(steps, np.s_[7::8]).mean()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=3, subsampling=2)
    np.testing.assert_array_equal(found, np.asarray(Image.open(out)))


def test_a_smaller_picture_and_back() -> None:
    pixels = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None].repeat(3, axis=2)
    for seed in range(6):
        found = damaged("resampling", pixels, seed, 1.0)
        assert scores(found, "low_contrast") < 0.2, "stripes of a pixel are gone"


SAME = ["gaussian_blur", "motion_blur", "resampling", "channel_swap"]


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("level", [0, 1, 77, 128, 254, 255])
def test_nothing_to_blur_or_to_swap(kind: str, level: int) -> None:
    for seed in range(4):
        assert corrupt_image(kind, plain((level, level, level)), seed, 1.0) is None


@pytest.mark.parametrize("kind", ["exposure", "colour_cast", "moire"])
def test_no_light_no_change(kind: str) -> None:
    assert corrupt_image(kind, plain((0, 0, 0)), 0, 1.0) is None


def test_nothing_left_to_cut() -> None:
    assert corrupt_image("truncation", plain((128, 128, 128)), 0) is None
    assert corrupt_image("truncation", plain((9, 9, 9), (8, 8)), 0) is None


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (1, 1), (1, 7), (9, 1), (2, 2), (3, 300)])
def test_small_pictures(kind: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for seed in range(3):
        for dose in (1e-9, 0.5, 1.0):
            found = corrupt_image(kind, pixels, seed, dose)
            assert found is None or found.shape == pixels.shape
            assert found is None or (found != pixels).any()
            assert found is None or pixels.size


def test_too_long_for_a_jpeg() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 65_501, 3), dtype=np.uint8)
    assert corrupt_image("jpeg", pixels, 0) is None
    assert corrupt_image("jpeg", pixels[:, :65_500], 0) is not None


def test_wrong_arguments() -> None:
    pixels = plain((1, 2, 3))
    with pytest.raises(UserError, match=r"'blur' is unknown.*gaussian_blur"):
        corrupt_image("blur", pixels, 0)
    for dose in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(UserError, match="out of range"):
            corrupt_image("jpeg", pixels, 0, dose)
    for wrong in (pixels[..., 0], pixels.astype(np.float32), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            corrupt_image("jpeg", wrong, 0)
