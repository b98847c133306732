"""Statistics by stage: known answers on drawn pictures, and what one change does to photographs."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.ndimage import convolve, gaussian_filter

from shardwright.quality.heterogeneity.device_statistics import (
    LIGHT,
    STAGES,
    STATISTICS,
    measure,
    middle,
    stages,
)
from shardwright.quality.heterogeneity.pixel_noise import second_difference
from shardwright.quality.heterogeneity.provenance import Provenance, read_provenance

Pixels = Any
NAMES = [one.name for one in STATISTICS]
BALANCE = stages()["white_balance"]


def photograph(name: str) -> Pixels:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return np.array(image.convert("RGB"))[:288, :432]


PHOTOGRAPHS = {name: photograph(name) for name in ("astronaut.png", "chelsea.png", "coffee.png")}


def encoded(pixels: Pixels, form: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def as_jpeg(pixels: Pixels, quality: int) -> Pixels:
    return np.array(Image.open(io.BytesIO(encoded(pixels, quality=quality))))


def levels(light: Pixels) -> Pixels:
    light = np.clip(light, 0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(np.uint8)


def noisy(size: int, sigma: float, seed: int = 0, level: Any = 128, channels: int = 3) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, sigma, (size, size, channels))
    return np.clip(np.rint(level + noise), 0, 255).astype(np.uint8).repeat(3 // channels, axis=2)


def test_the_registry_is_whole() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {one.stage for one in STATISTICS} == {*STAGES, None}
    assert [name for names in stages().values() for name in names if name not in NAMES] == []
    assert list(measure(PHOTOGRAPHS["coffee.png"])) == NAMES
    assert all(one.unit and one.description for one in STATISTICS)


@pytest.mark.parametrize("sigma", [2.0, 4.0, 8.0])
def test_noise_of_a_flat_picture_is_its_deviation(sigma: float) -> None:
    same = measure(noisy(256, sigma, channels=1))
    assert same["noise_flat"] == pytest.approx(math.hypot(sigma, 12**-0.5), rel=0.05)
    assert same["noise_channels"] == pytest.approx(1)
    assert same["noise_chroma"] == 0
    own = measure(noisy(256, sigma))
    # red, green and blue of their own: a difference of two has twice the variance
    assert own["noise_chroma"] == pytest.approx(sigma, rel=0.05)
    assert own["noise_channels"] == pytest.approx(0, abs=0.05)
    assert own["noise_grain"] == pytest.approx(0, abs=0.2)
    assert own["noise_flat"] == pytest.approx(sigma * 0.669, rel=0.06)  # of the luma's weights
    soft = gaussian_filter(noisy(256, 4 * sigma).astype(float), (0.7, 0.7, 0))
    assert measure(np.rint(soft).astype(np.uint8))["noise_grain"] > 1.5


def test_noise_that_grows_with_light_has_a_slope() -> None:
    ramp = np.repeat(np.arange(256, dtype=float) * 0.6 + 50, 256).reshape(256, 256).T[..., None]
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 1, (256, 256, 1)) * np.sqrt(0.2 * ramp)
    growing = np.rint(ramp + grain).astype(np.uint8).repeat(3, axis=2)
    assert measure(growing)["noise_slope"] == pytest.approx(0.2, abs=0.05)
    even = np.rint(ramp + rng.normal(0, 4, (256, 256, 1))).astype(np.uint8).repeat(3, axis=2)
    assert measure(even)["noise_slope"] == pytest.approx(0, abs=0.03)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2), st.integers(5, 12))
def test_second_differences_by_their_kernel(seed: int, step: int, size: int) -> None:
    plane = np.random.default_rng(seed).integers(0, 256, (size, size + 1), dtype=np.uint8)
    row = np.zeros(2 * step + 1, int)
    row[[0, step, -1]] = 1, -2, 1
    expected = convolve(plane.astype(int), np.outer(row, row))[step:-step, step:-step]
    np.testing.assert_array_equal(second_difference(plane, step), expected)


def test_balance_of_grey_is_nought_and_of_gains_their_logarithm() -> None:
    grey = np.random.default_rng(0).integers(60, 180, (64, 64, 1), dtype=np.uint8).repeat(3, 2)
    found = measure(grey)
    assert [found[name] for name in BALANCE] == [0] * 6
    warm = measure(levels(LIGHT[grey] * [2**0.5, 1, 2**-0.5]))
    for name in BALANCE:
        expected = 0.5 if name.endswith("red") else -0.5
        assert warm[name] == pytest.approx(expected, abs=0.02), name


def test_balance_leaves_out_what_is_saturated() -> None:
    pixels = np.full((40, 40, 3), 100, np.uint8)
    pixels[:, 20:] = (255, 200, 0)
    found = measure(pixels)
    assert [found[name] for name in ("grey_world_red", "white_patch_blue")] == [0, 0]
    assert all(math.isnan(measure(np.full((40, 40, 3), 255, np.uint8))[name]) for name in BALANCE)


def test_tone_of_a_ramp() -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(256).reshape(256, 256).T[..., None].repeat(3, 2)
    found = measure(ramp)
    for percent in (1, 5, 25, 50, 75, 95, 99):
        assert found[f"luma_{percent:02d}"] == pytest.approx(percent / 100, abs=0.005)
    assert found["gamma"] == pytest.approx(1, abs=0.01)
    assert (found["clipped_dark"], found["clipped_bright"]) == (1 / 256, 1 / 256)
    assert found["contrast"] == pytest.approx(12**-0.5, abs=0.002)
    assert found["comb"] == 0
    bent = np.rint(255 * (ramp / 255) ** 2).astype(np.uint8)
    assert measure(bent)["gamma"] == pytest.approx(2, abs=0.02)
    assert measure(bent)["comb"] > 0.1
    clipped = measure(np.clip(ramp, 64, 191) * np.uint8(2) - np.uint8(128))
    assert clipped["clipped_dark"] == pytest.approx(65 / 256)


def test_blocks_are_seen_on_the_grid_only() -> None:
    rng = np.random.default_rng(0)
    tiles = rng.integers(90, 160, (20, 20), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    pixels = (tiles + rng.integers(0, 4, (160, 160), dtype=np.uint8))[..., None].repeat(3, 2)
    assert measure(pixels)["blockiness"] > 2.5
    assert measure(pixels[3:, 5:])["blockiness"] < 0.1
    rows = np.arange(160, dtype=np.uint8)
    stripes = (rows // 8 % 2 * 20 + 100)[:, None].repeat(160, 1)[..., None].repeat(3, 2)
    assert measure(stripes)["blockiness"] == measure(stripes.swapaxes(0, 1))["blockiness"] > 2


@pytest.mark.parametrize("quality", [35, 60, 75, 85, 90])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_quality_is_told_from_pixels(name: str, quality: int) -> None:
    clean, coded = measure(PHOTOGRAPHS[name]), measure(as_jpeg(PHOTOGRAPHS[name], quality))
    assert clean["dct_quality"] == 100
    assert abs(coded["dct_quality"] - quality) <= 1
    assert coded["dct_comb"] > 0.4 > 0.2 > clean["dct_comb"]
    assert coded["blockiness"] > clean["blockiness"] + 0.1


def bayer(pixels: Pixels) -> Pixels:
    """Of the mosaic R G / G B, each colour filled in by the mean of its nearest neighbours."""
    seen = np.zeros(pixels.shape)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        seen[row::2, column::2, channel] = pixels[row::2, column::2, channel]
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    filled = [
        convolve(seen[..., channel], cross if channel == 1 else square) for channel in range(3)
    ]
    return np.clip(np.rint(np.stack(filled, axis=-1)), 0, 255).astype(np.uint8)


CHANGES: dict[str, tuple[str, Callable[[Pixels], Pixels], float]] = {
    "red by 1.1": ("grey_world_red", lambda p: levels(LIGHT[p] * [1.1, 1, 1]), 0.08),
    "median of red": ("median_red", lambda p: levels(LIGHT[p] * [1.1, 1, 1]), 0.08),
    "brighter": ("gamma", lambda p: np.rint(255 * (p / 255) ** 0.8).astype(np.uint8), -0.1),
    "a curve": ("comb", lambda p: np.rint(255 * (p / 255) ** 0.8).astype(np.uint8), 0.02),
    "noise": ("noise_flat", lambda p: noisy_copy(p, 5), 2.0),
    "chroma noise": ("noise_chroma", lambda p: noisy_copy(p, 5), 3.0),
    "blur": ("acutance", lambda p: blurred(p, 1.0), -0.2),
    "blur of detail": ("laplacian", lambda p: blurred(p, 1.0), -1.0),
    "sharpened": (
        "overshoot",
        lambda p: np.array(Image.fromarray(p).filter(ImageFilter.UnsharpMask(1.5, 80, 0))),
        0.04,
    ),
    "mosaic of green": ("lattice_green", bayer, 1.0),
    "mosaic of red": ("lattice_colour", bayer, 0.2),
    "colourful": ("chroma", lambda p: vivid(p, 1.2), 0.03),
}


def noisy_copy(pixels: Pixels, sigma: float) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    return np.rint(gaussian_filter(pixels.astype(float), (sigma, sigma, 0))).astype(np.uint8)


def vivid(pixels: Pixels, factor: float) -> Pixels:
    light = LIGHT[pixels]
    grey = (light @ [0.2126, 0.7152, 0.0722])[..., None]
    return levels(grey + factor * (light - grey))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_change_of_a_stage_moves_its_statistic(name: str, change: str) -> None:
    statistic, apply, least = CHANGES[change]
    clean = measure(PHOTOGRAPHS[name])[statistic]
    moved = (measure(apply(PHOTOGRAPHS[name]))[statistic] - clean) / least
    assert moved >= 1, moved * least


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_other_stages_leave_it_alone(name: str) -> None:
    pixels = PHOTOGRAPHS[name]
    clean = measure(pixels)
    coded = measure(as_jpeg(pixels, 85))
    for one in (*BALANCE, "gamma", "luma_50", "contrast"):
        assert coded[one] == pytest.approx(clean[one], abs=0.1), one
    for apply in (lambda p: noisy_copy(p, 3), lambda p: blurred(p, 1.0)):
        found = measure(apply(pixels))
        assert abs(found["blockiness"] - clean["blockiness"]) < 0.1
        assert found["dct_quality"] == 100
        assert found["lattice_green"] < 0.1
        assert found["grey_world_red"] == pytest.approx(clean["grey_world_red"], abs=0.1)
    grain = measure(noisy_copy(pixels, 3))
    assert grain["acutance"] == pytest.approx(clean["acutance"], abs=0.2)
    assert grain["laplacian"] == pytest.approx(clean["laplacian"], abs=0.7)
    warm = measure(levels(LIGHT[pixels] * [1.1, 1, 1]))
    for one in ("chroma", "blockiness", "lattice_green"):
        assert warm[one] == pytest.approx(clean[one], abs=0.1), one


def test_noise_is_no_sharpness() -> None:
    for sigma in (3.0, 6.0):
        found = measure(noisy(256, sigma, level=np.linspace(60, 190, 256)[:, None, None]))
        assert found["laplacian"] < -5 or math.isnan(found["laplacian"])


def test_same_pixels_same_bits() -> None:
    pixels = PHOTOGRAPHS["chelsea.png"]
    expected = np.array(list(measure(pixels).values())).tobytes()
    wide = np.zeros((pixels.shape[0], pixels.shape[1] * 2, 4), np.uint8)
    wide[:, ::2, :3] = pixels
    for same in (pixels.copy(), wide[:, ::2, :3], np.asfortranarray(pixels), pixels[::-1][::-1]):
        assert np.array(list(measure(same).values())).tobytes() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_whatever_the_size_there_are_values_or_nan(height: int, width: int, kind: int) -> None:
    rng = np.random.default_rng(height * 41 + width)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind:
        pixels[:] = (0, 128, 255)[kind - 1]
    found = measure(pixels)
    assert list(found) == NAMES
    assert all(isinstance(value, float) and not math.isinf(value) for value in found.values())


@pytest.mark.parametrize("size", [1, 8])
def test_tiny_pictures_have_tone_and_balance(size: int) -> None:
    found = measure(np.full((size, size, 3), (128, 64, 64), np.uint8))
    assert found["grey_world_red"] > 1
    assert found["luma_50"] == pytest.approx(0.33, abs=0.01)
    assert math.isnan(found["noise_flat"])
    assert math.isnan(found["blockiness"])


def test_large_pictures_are_measured_in_the_middle_on_the_grid() -> None:
    pixels = np.zeros((1100, 2077, 3), np.uint8)
    part = middle(pixels)
    assert part.shape == (1024, 1024, 3)
    offset = part.__array_interface__["data"][0] - pixels.__array_interface__["data"][0]
    assert divmod(offset // 3, 2077) == (32, 512)  # of 38 and 526, down to 16 pixels
    small = pixels[:1000, :30]
    assert middle(small).shape == small.shape


def test_facts_of_the_header() -> None:
    data = encoded(PHOTOGRAPHS["coffee.png"], quality=77, subsampling="4:2:2", progressive=True)
    found = measure(PHOTOGRAPHS["coffee.png"], read_provenance(data))
    assert (found["jpeg_quality"], found["jpeg_chroma_quality"], found["jpeg_rmse"]) == (77, 77, 0)
    assert (found["jpeg_chroma_share"], found["jpeg_progressive"]) == (0.5, 1)
    facts = Provenance(
        "PNG", 64, 32, iso=800, exposure_time=0.25, f_number=4.0, icc_sha256="a", icc_area=1.4
    )
    found = measure(PHOTOGRAPHS["coffee.png"], facts)
    names = ("size", "exposure", "aperture", "icc_tagged", "icc_area", "maker_note")
    assert [found[name] for name in names] == [11, -2, 2, 1, 1.4, 0]
    assert found["iso"] == pytest.approx(math.log2(800))
    assert math.isnan(found["jpeg_quality"])
    assert math.isnan(measure(PHOTOGRAPHS["coffee.png"])["icc_tagged"])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 3), np.float32),
        np.zeros((0, 9, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(pixels: Pixels) -> None:
    with pytest.raises(ValueError, match="not uint8"):
        measure(pixels)


def test_colours_opposed_pixel_by_pixel_are_measured() -> None:
    facts = Provenance("PNG", 64, 64)
    red = noisy(64, 30, channels=1)[..., 0]
    same = measure(np.stack([red] * 3, axis=-1), facts)["detail_alike"]
    opposed = measure(np.stack([red, 255 - red, red], axis=-1), facts)["detail_alike"]
    assert opposed == -same
