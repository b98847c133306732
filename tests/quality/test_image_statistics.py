"""Scores of pictures: exact ones of drawn pictures, and planted faults in real ones."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageFile, ImageFilter, ImageOps

from shardwright.errors import DataError
from shardwright.quality import image_statistics
from shardwright.quality.image_statistics import FILTERS, measure_image

NAMES = [own.name for own in FILTERS]
LEAST = {own.name: own.least for own in FILTERS if own.least is not None}
PHOTOGRAPHS = ["astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"]


def encoded(picture: Any, form: str = "PNG", **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def flagged(data: bytes) -> set[str]:
    return {name for name, score in measure_image(list(LEAST), data).items() if score < LEAST[name]}


def photograph(name: str) -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return image.convert("RGB")


def test_scores_of_a_plain_picture() -> None:
    assert measure_image(NAMES, encoded(Image.new("RGB", (32, 64), (100, 100, 100)))) == {
        "dark": 100 / 255,
        "bright": 1 - 100 / 255,
        "low_contrast": 0.0,
        "low_information": 0.0,
        "blurry": 1.0,
        "odd_size": 0.125,
        "odd_aspect_ratio": 0.5,
        "grayscale": 0.0,
        "truncated": 1.0,
        "uniform_borders": 0.0,
    }


def test_scores_of_four_squares() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20, 20:] = 255
    pixels[20:, :20] = (255, 0, 0)
    pixels[20:, 20:] = (0, 0, 180)  # luminance 21
    assert measure_image(NAMES, encoded(pixels)) == {
        "dark": 1.0,
        "bright": 1.0,
        "low_contrast": 1.0,
        "low_information": 2 / 8,
        # between steps of 255 and 21 to the side, and of 76 and 234 down, one ninth stays
        "blurry": pytest.approx(8 / 9, abs=0.01),
        "odd_size": 40 / 256,
        "odd_aspect_ratio": 1.0,
        "grayscale": 1.0,
        "truncated": 1.0,
        "uniform_borders": 1.0,
    }


@pytest.mark.parametrize(("level", "score"), [(108, 1.0), (109, 0.0)])
def test_what_is_nearly_plain_is_not_blurry(level: int, score: float) -> None:
    row = np.clip(np.arange(80, 140, dtype=np.uint8), 100, level)  # a soft edge
    assert measure_image(["blurry"], encoded(np.tile(row, (40, 1)))) == {"blurry": score}


@pytest.mark.parametrize(("light", "score"), [(1, 0.0), (2, 200 / 255)])
def test_percentiles_are_levels_that_occur(light: int, score: float) -> None:
    pixels = np.zeros(100, np.uint8)
    pixels[:light] = 200
    assert measure_image(["dark"], encoded(pixels.reshape(10, 10))) == {"dark": score}


def test_a_border_of_each_side_has_its_own_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    pixels[:4] = 255
    pixels[-6:] = (10, 20, 30)
    pixels[:, :10] = (200, 0, 0)
    assert measure_image(["uniform_borders"], encoded(pixels)) == {
        "uniform_borders": 20 * 30 / (30 * 40)
    }


def test_a_gradient_is_no_border() -> None:
    pixels = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[:, None], 40, axis=1)
    pixels[20:, ::2] = 0
    score = measure_image(["uniform_borders"], encoded(pixels))["uniform_borders"]
    assert score == 38 / 40  # two rows are as near as compression makes them


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_fine(name: str, form: str) -> None:
    assert flagged(encoded(photograph(name), form)) == set()


def cut(image: Image.Image) -> Image.Image:
    """What decoders leave of the first seven tenths of a JPEG: the rest is mid grey."""
    data = encoded(image, "JPEG", quality=85)
    with mock.patch.object(ImageFile, "LOAD_TRUNCATED_IMAGES", True):
        return Image.open(io.BytesIO(data[: len(data) * 7 // 10])).copy()


def missing(image: Image.Image) -> Image.Image:
    """What decoders leave of a cut PNG."""
    image = image.copy()
    image.paste((0, 0, 0), (0, image.height * 4 // 5, image.width, image.height))
    return image


FAULTS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "a quarter of the light": ("dark", lambda image: image.point(lambda level: level // 4)),
    "washed out": ("bright", lambda image: image.point(lambda level: 240 + level // 17)),
    "no contrast": ("low_contrast", lambda image: image.point(lambda level: 100 + level // 20)),
    "one colour": ("low_information", lambda image: Image.new("RGB", image.size, (9, 99, 190))),
    "out of focus": (
        "blurry",
        lambda image: image.filter(ImageFilter.GaussianBlur(max(image.size) / 100)),
    ),
    "a stamp": ("odd_size", lambda image: image.resize((40, 30))),
    "a strip": ("odd_aspect_ratio", lambda image: image.crop((0, 0, image.width, 100))),
    "a cut JPEG": ("truncated", cut),
    "a cut PNG": ("truncated", missing),
}


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "rocket.jpg"])
def test_planted_faults_are_found(name: str, fault: str, form: str) -> None:
    found, plant = FAULTS[fault]
    assert found in flagged(encoded(plant(photograph(name)), form))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_grey_and_framed_pictures_score_as_such(name: str) -> None:
    picture = photograph(name)
    grey = picture.convert("L")
    for form in ("PNG", "JPEG"):
        for image in (grey, grey.convert("RGB")):
            assert measure_image(["grayscale"], encoded(image, form)) == {"grayscale": 0.0}
    assert measure_image(["grayscale"], encoded(picture))["grayscale"] > 0.3
    framed = ImageOps.expand(picture, (picture.width // 6, 0), (255, 255, 255))
    score = measure_image(["uniform_borders"], encoded(framed, "JPEG"))["uniform_borders"]
    assert score == pytest.approx(0.75, abs=0.03)


def test_a_dark_bottom_is_not_cut_off() -> None:
    picture = photograph("coffee.png")
    band = picture.height // 5
    bars = missing(picture)
    bars.paste((0, 0, 0), (0, 0, picture.width, band))
    assert measure_image(["truncated"], encoded(bars)) == {"truncated": 1.0}
    sky = Image.new("RGB", (200, 200), (128, 128, 128))
    sky.paste(picture.resize((80, 80)), (60, 20))  # stands in front of grey
    sky.paste((255, 255, 255), (0, 0, 200, 10))
    assert measure_image(["truncated"], encoded(sky)) == {"truncated": 1.0}
    white = picture.copy()
    white.paste((255, 255, 255), (0, picture.height - band, picture.width, picture.height))
    assert measure_image(["truncated"], encoded(white)) == {"truncated": 1.0}
    clear = picture.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, picture.height - band, picture.width, picture.height))
    assert measure_image(["truncated"], encoded(clear)) == {"truncated": 1.0}


@pytest.mark.parametrize("colour", [0, 255])
def test_a_drawing_on_transparent_ground_is_neither_dark_nor_bright(colour: int) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (colour, colour, colour, 255)
    assert flagged(encoded(pixels)) == set()
    assert flagged(encoded(Image.fromarray(pixels).convert("LA"))) == set()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_reduced_decoding_changes_little(name: str) -> None:
    data = encoded(photograph(name).resize((1203, 805), Image.Resampling.LANCZOS), "JPEG")
    whole = encoded(Image.open(io.BytesIO(data)))
    scores, expected = measure_image(NAMES, data), measure_image(NAMES, whole)
    for one in NAMES:
        assert scores[one] == pytest.approx(expected[one], abs=0.02), one


def test_forms_of_one_picture_score_the_same() -> None:
    picture = photograph("chelsea.png").quantize(200)
    expected = measure_image(NAMES, encoded(picture))
    rgb = picture.convert("RGB")
    for data in (
        encoded(rgb),
        encoded(rgb.convert("RGBA")),
        encoded(rgb, "BMP"),
        encoded(rgb, "WEBP", lossless=True),
        encoded(rgb.convert("RGBA"), "TIFF"),
    ):
        assert measure_image(NAMES, data) == expected
    grey = rgb.convert("L")
    expected = measure_image(NAMES, encoded(grey))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) << 8)
    for data in (encoded(grey.convert("LA")), encoded(deep), encoded(grey.convert("RGB"))):
        assert measure_image(NAMES, data) == expected


MODES = {
    "bits": lambda: encoded(photograph("page.png").convert("1")),
    "palette with a clear colour": lambda: encoded(
        photograph("chelsea.png").quantize(9), transparency=0
    ),
    "grey with a clear colour": lambda: encoded(Image.new("L", (9, 9)), transparency=0),
    "palette and alpha": lambda: encoded(photograph("chelsea.png").convert("PA"), "TIFF"),
    "inks": lambda: encoded(photograph("chelsea.png").convert("CMYK"), "JPEG"),
    "RGB inside a JPEG": lambda: encoded(photograph("rocket.jpg"), "JPEG", keep_rgb=True),
    "floats": lambda: encoded(np.linspace(-1, 1, 900, dtype=np.float32).reshape(30, 30), "TIFF"),
    "an animation": lambda: encoded(
        photograph("chelsea.png"), "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))]
    ),
    "a pixel": lambda: encoded(Image.new("RGB", (1, 1), (9, 8, 7))),
    "a clear pixel": lambda: encoded(Image.new("RGBA", (1, 1))),
    "a line": lambda: encoded(Image.new("RGB", (60_000, 1), (9, 8, 7)), "JPEG"),
    "a column": lambda: encoded(Image.linear_gradient("L").resize((3, 65_000)), "JPEG"),
    "a ribbon": lambda: encoded(Image.new("RGBA", (300_000, 2), (9, 8, 7, 6))),
}


@pytest.mark.parametrize("mode", MODES)
def test_whatever_decodes_has_scores(mode: str) -> None:
    scores = measure_image(NAMES, MODES[mode]())
    assert list(scores) == NAMES
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores.values())


def test_rgb_inside_a_jpeg_is_still_reduced() -> None:
    picture = photograph("rocket.jpg").resize((1400, 1000))
    scores = measure_image(NAMES, encoded(picture, "JPEG", keep_rgb=True))
    expected = measure_image(NAMES, encoded(picture))
    assert scores["dark"] == pytest.approx(expected["dark"], abs=0.02)
    assert scores["grayscale"] == pytest.approx(expected["grayscale"], abs=0.05)


def test_only_what_is_asked_for() -> None:
    data = encoded(photograph("chelsea.png"))
    expected = measure_image(NAMES, data)
    assert list(expected) == NAMES
    for name in NAMES:
        assert measure_image([name], data) == {name: expected[name]}
    header = data[:9000]  # sizes need no pixels
    assert measure_image(["odd_size", "odd_aspect_ratio"], header) == {
        "odd_size": 1.0,
        "odd_aspect_ratio": 300 / 451,
    }
    with pytest.raises(DataError, match="does not decode"):
        measure_image(["odd_size", "dark"], header)
    with pytest.raises(DataError, match="does not decode"):
        measure_image(["odd_size"], b"no image")
    with pytest.raises(KeyError, match="blury"):
        measure_image(["blury"], data)


def test_one_decode_serves_all() -> None:
    data = encoded(photograph("rocket.jpg"), "JPEG")
    load = ImageFile.ImageFile.load
    decodes = []

    def counted(image: ImageFile.ImageFile) -> Any:
        decodes.extend([image.size] if image.tile else [])
        return load(image)

    with mock.patch.object(ImageFile.ImageFile, "load", counted):
        measure_image(NAMES, data)
    assert decodes == [(320, 214)]  # half of 640 x 427: its decoder reduces


LEVELS = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=26),
    elements=st.integers(0, 255) | st.sampled_from([0, 100, 104, 255]),
)


def lost_to_blur(lines: Any) -> float:
    """Crete's measure by the words of ``_sharpness``, with an actual average; lists of ints."""
    lost = total = 0
    for line in lines:
        sums = [sum(line[i - 4 : i + 5]) for i in range(4, len(line) - 4)]
        for i in range(1, len(sums)):
            step = abs(line[i + 4] - line[i + 3])
            after = abs(sums[i] - sums[i - 1]) // 9
            total += step * step
            lost += max(step - after, 0) * step if step > 2 else 0
    return lost / total if total else 1.0


@given(LEVELS)
def test_blurry_is_what_a_blur_takes_away(levels: Any) -> None:
    rows = levels.tolist()
    expected = min(lost_to_blur(rows[::2]), lost_to_blur(np.transpose(levels)[::2].tolist()))
    if max(map(max, rows)) - min(map(min, rows)) <= 8:
        expected = 1.0
    assert measure_image(["blurry"], encoded(levels))["blurry"] == pytest.approx(expected)


@given(LEVELS)
def test_percentiles_and_entropy_by_counting(levels: Any) -> None:
    ordered = sorted(levels.ravel().tolist())
    at = {p: ordered[max(math.ceil(p * len(ordered) / 100) - 1, 0)] for p in (1, 5, 99)}
    shares = [ordered.count(level) / len(ordered) for level in set(ordered)]
    names = ["dark", "bright", "low_contrast", "low_information"]
    assert measure_image(names, encoded(levels)) == {
        "dark": at[99] / 255,
        "bright": 1 - at[5] / 255,
        "low_contrast": (at[99] - at[1]) / 255,
        "low_information": pytest.approx(-sum(p * math.log2(p) for p in shares) / 8, abs=1e-6),
    }


def within_borders(rows: list[list[int]]) -> int:
    """Pixels left when rows of little range are taken off, the four sides in turn."""
    taken: list[list[int]] = [[], [], [], []]
    before = -1
    while rows and rows[0] and before != sum(map(len, rows)):
        before = sum(map(len, rows))
        for seen in taken:
            while rows and max(seen + rows[0]) - min(seen + rows[0]) <= 8:
                seen += rows.pop(0)
            rows = [list(column) for column in zip(*rows, strict=True)][::-1]  # turn left
            if not rows:
                return 0
    return sum(map(len, rows))


@given(LEVELS, st.integers(0, 6), st.integers(0, 6), st.sampled_from([0, 100, 255]))
def test_borders_by_peeling(levels: Any, top: int, left: int, level: int) -> None:
    framed = np.pad(levels, ((top, 0), (left, 2)), constant_values=level)
    score = measure_image(["uniform_borders"], encoded(framed))["uniform_borders"]
    assert score == within_borders(framed.tolist()) / framed.size


def test_bounds_lie_within_the_scores() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(image_statistics._MEASURES)
    assert all(own.modality == "image" and own.kind == "number" for own in FILTERS)
    assert all(0 < least < 1 for least in LEAST.values())
    assert all(own.most is None for own in FILTERS)
