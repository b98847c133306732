"""Hashes of pictures: known ones, a slow oracle, and what must and must not change them."""

import hashlib
import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import skimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image, ImageEnhance

from shardwright.errors import DataError
from shardwright.quality.perceptual import perceptual_hash, pixel_sha256

FOLDER = Path(skimage.__file__).parent / "data"
PHOTOGRAPHS = [
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png"),
    *("coins.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("page.png", "retina.jpg", "rocket.jpg", "text.png"),
]


def encoded(picture: Any, form: str = "PNG", **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def photograph(name: str) -> Image.Image:
    with Image.open(FOLDER / name) as image:
        return image.convert("RGB")


def hashed(picture: Any, form: str = "PNG", **options: Any) -> int:
    value = perceptual_hash(encoded(picture, form, **options))
    assert value is not None
    return value


def apart(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def drawn(height: int, width: int, turn: int = 3) -> Any:
    """A picture of whole numbers alone, so that it is the same everywhere."""
    y, x = np.mgrid[:height, :width]
    return ((x * x * turn // width + y * (x + 7 * turn) // height * 5) % 256).astype(np.uint8)


KNOWN = {
    (32, 32, 3, 1): 0x2D29A9695A955557,
    (90, 200, 5, 1): 0x0E0007C7872F5EFD,
    (28, 20, 5, 25): 0x3626A5AD1AD596AA,
}


@pytest.mark.parametrize("shape", KNOWN)
def test_known_hashes(shape: tuple[int, int, int, int]) -> None:
    height, width, turn, enlarge = shape
    square = np.ones((enlarge, enlarge), np.uint8)
    picture = Image.fromarray(np.kron(drawn(height, width, turn), square))
    assert f"{hashed(picture):016x}" == f"{KNOWN[shape]:016x}"
    assert hashed(picture.convert("RGB"), "WEBP", lossless=True) == KNOWN[shape]


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (1, 1), (9, 8, 7)),
        Image.new("RGB", (400, 300), (9, 8, 7)),
        Image.new("RGBA", (40, 30)),
        Image.linear_gradient("L"),
        Image.radial_gradient("L"),
        Image.fromarray(np.tile(np.uint8([[99, 100], [100, 99]]), (64, 64))),
        Image.fromarray(np.kron(np.uint8([[0, 255], [255, 0]]), np.ones((32, 32), np.uint8))),
    ],
    ids=["pixel", "plain", "clear", "gradient", "disc", "fine grid", "four squares"],
)
def test_plain_and_symmetric_pictures_have_no_hash(picture: Image.Image) -> None:
    assert perceptual_hash(encoded(picture)) is None


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG": lambda image: encoded(image, "JPEG"),
    "JPEG at quality 50": lambda image: encoded(image, "JPEG", quality=50),
    "smaller by a tenth": lambda image: encoded(
        image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
    ),
    "larger by a tenth": lambda image: encoded(
        image.resize((image.width * 11 // 10, image.height * 11 // 10), Image.Resampling.BICUBIC)
    ),
    "brighter by a tenth": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.1)),
    "half as large, and a WebP": lambda image: encoded(image.reduce(2), "WEBP"),
    "grey": lambda image: encoded(image.convert("L")),
    "a palette": lambda image: encoded(image.quantize(64), "GIF"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_stays_near(change: str) -> None:
    distances = {}
    for name in PHOTOGRAPHS:
        picture = photograph(name)
        value = perceptual_hash(CHANGES[change](picture))
        assert value is not None
        distances[name] = apart(hashed(picture), value)
    assert max(distances.values()) <= 10, distances
    assert sum(distances.values()) <= 4 * len(PHOTOGRAPHS), distances


def test_different_scenes_are_far() -> None:
    hashes = [hashed(photograph(name)) for name in PHOTOGRAPHS]
    assert min(apart(a, b) for a, b in combinations(hashes, 2)) >= 16
    picture = photograph("coffee.png")
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert apart(hashed(picture), hashed(mirrored)) >= 16


@pytest.mark.parametrize("size", [(300, 270), (1203, 805)])
def test_reduced_decoding_stays_near(size: tuple[int, int]) -> None:
    for name in PHOTOGRAPHS:
        data = encoded(photograph(name).resize(size, Image.Resampling.LANCZOS), "JPEG")
        whole = hashed(Image.open(io.BytesIO(data)))
        reduced = perceptual_hash(data)
        assert reduced is not None
        assert apart(whole, reduced) <= 4


@given(arrays(np.uint8, (32, 32), elements=st.integers(0, 255)))
def test_bits_are_those_of_a_slow_transform(levels: Any) -> None:
    waves = scipy.fft.dctn(levels.astype(np.float64), norm="ortho")
    chosen = [waves[u, v] for u in range(9) for v in range(9) if 0 < u * u + v * v <= 72]
    assert len(chosen) == 64
    above = np.array(chosen) - np.median(chosen)
    clear = np.abs(above) > 3.2  # a wave of a fifth of a level
    value = perceptual_hash(encoded(levels))
    near = np.abs(np.abs(above) - 3.2) < 0.01
    assert value is None if clear.sum() < 32 - near.sum() else True
    assert value is not None if clear.sum() >= 32 + near.sum() else True
    if value is not None:
        bits = np.array([value >> place & 1 for place in range(63, -1, -1)])
        sure = np.abs(above) > 0.05
        assert (bits[sure] == (above > 0)[sure]).all()


@given(st.integers(1, 63), st.integers(1, 63), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_pixels_count_by_their_area(height: int, width: int, times: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    larger = np.kron(levels, np.ones((times, times), np.uint8))
    assert perceptual_hash(encoded(levels)) == perceptual_hash(encoded(larger))


def with_orientation(image: Image.Image, orientation: int, form: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(image, form, exif=exif)


TURNED = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, 1),  # stored so; a viewer turns it to the right
    7: lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_picture_is_hashed_the_way_it_is_shown(orientation: int, form: str) -> None:
    shown = photograph("rocket.jpg").crop((0, 0, 500, 400))
    stored = Image.fromarray(np.ascontiguousarray(TURNED[orientation](np.asarray(shown))))
    data = with_orientation(stored, orientation, form)
    assert pixel_sha256(data) == pixel_sha256(encoded(shown))
    value = perceptual_hash(data)
    assert value is not None
    assert apart(value, hashed(shown)) <= 2
    camera = perceptual_hash(with_orientation(stored, orientation, "JPEG"))
    assert camera is not None
    assert apart(camera, hashed(shown)) <= 4


def test_broken_exif_breaks_nothing() -> None:
    picture = photograph("rocket.jpg")
    data = encoded(picture, exif=b"Exif\0\0broken")
    assert perceptual_hash(data) == hashed(picture)
    assert pixel_sha256(data) == pixel_sha256(encoded(picture))


def test_transparency_goes_onto_white() -> None:
    picture = photograph("coffee.png").resize((200, 150))
    clear = picture.convert("RGBA")
    clear.paste((255, 0, 0, 0), (50, 0, 100, 150))
    flat = picture.copy()
    flat.paste((255, 255, 255), (50, 0, 100, 150))
    assert apart(hashed(clear), hashed(flat)) <= 2
    assert hashed(picture.convert("RGBA")) == hashed(picture)


MODES = {
    "inks": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "RGB inside a JPEG": lambda image: encoded(image, "JPEG", keep_rgb=True),
    "grey and alpha": lambda image: encoded(image.convert("LA")),
    "16 bits": lambda image: encoded(np.asarray(image.convert("L")).astype(np.uint16) << 8),
    "floats": lambda image: encoded(np.asarray(image.convert("L")).astype(np.float32), "TIFF"),
    "an animation": lambda image: encoded(
        image, "WEBP", save_all=True, append_images=[Image.new("RGB", image.size)]
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_all_modes_have_hashes(mode: str) -> None:
    picture = photograph("chelsea.png")
    data = MODES[mode](picture)
    value = perceptual_hash(data)
    assert value is not None
    assert apart(value, hashed(picture)) <= 6
    assert len(pixel_sha256(data)) == 64


def sha256(head: str, pixels: bytes) -> str:
    return hashlib.sha256(head.encode() + pixels).hexdigest()


def test_pixel_hashes_of_known_pixels() -> None:
    rgb = bytes([1, 2, 3, 4, 5, 6])
    assert pixel_sha256(encoded(Image.frombytes("RGB", (2, 1), rgb))) == sha256("RGB 2 1\n", rgb)
    assert pixel_sha256(encoded(Image.frombytes("RGB", (1, 2), rgb))) == sha256("RGB 1 2\n", rgb)
    grey = Image.frombytes("L", (2, 1), b"\x07\x09")
    assert pixel_sha256(encoded(grey)) == sha256("RGB 2 1\n", b"\x07\x07\x07\x09\x09\x09")
    deep = encoded(np.array([[1, 770]], np.uint16))
    assert pixel_sha256(deep) == sha256("I;16 2 1\n", b"\x01\x00\x02\x03")
    assert pixel_sha256(encoded(np.array([[0.5]], np.float32), "TIFF")) == sha256(
        "F 1 1\n", b"\0\0\0?"
    )
    inks = Image.frombytes("CMYK", (1, 1), b"\x01\x02\x03\x04")
    assert pixel_sha256(encoded(inks, "TIFF")) == sha256("CMYK 1 1\n", b"\x01\x02\x03\x04")
    clear = Image.frombytes("RGBA", (2, 1), bytes([1, 2, 3, 0, 4, 5, 6, 7]))
    assert pixel_sha256(encoded(clear)) == sha256("RGBA 2 1\n", bytes([0, 0, 0, 0, 4, 5, 6, 7]))


def test_one_picture_in_many_files() -> None:
    picture = photograph("chelsea.png").quantize(200)
    rgb = picture.convert("RGB")
    files = [
        encoded(picture),
        encoded(picture, "GIF"),
        encoded(rgb),
        encoded(rgb, compress_level=1),
        encoded(rgb, "BMP"),
        encoded(rgb, "TIFF", compression="tiff_lzw"),
        encoded(rgb, "WEBP", lossless=True),
        encoded(rgb.convert("RGBA")),
        encoded(picture, "GIF", save_all=True, append_images=[Image.new("P", picture.size)]),
    ]
    assert len(set(files)) == len(files)
    assert len({pixel_sha256(data) for data in files}) == 1
    cut = picture.copy()
    cut.info["transparency"] = 3
    clear = cut.convert("RGBA")
    assert pixel_sha256(encoded(clear)) == pixel_sha256(encoded(cut, transparency=3))
    assert pixel_sha256(encoded(clear, "WEBP", lossless=True)) == pixel_sha256(encoded(clear))


def test_other_pictures_have_other_pixel_hashes() -> None:
    pixels = np.arange(72, dtype=np.uint8)
    pictures = [pixels.reshape(shape) for shape in [(24, 3), (4, 6, 3), (6, 4, 3), (12, 2, 3)]]
    pictures += [pixels.reshape(shape) for shape in [(9, 8), (8, 9), (3, 6, 4), (18, 1, 4)]]
    pictures += [pixels.view(np.uint16).reshape(shape) for shape in [(6, 6), (4, 9)]]
    other = pixels.copy()
    other[-1] ^= 1
    pictures.append(other.reshape(6, 4, 3))
    assert len({pixel_sha256(encoded(picture)) for picture in pictures}) == len(pictures)


@pytest.mark.parametrize("function", [perceptual_hash, pixel_sha256])
def test_what_does_not_decode_is_an_error(function: Callable[[bytes], Any]) -> None:
    for data in (b"", b"no image", encoded(photograph("chelsea.png"))[:9000]):
        with pytest.raises(DataError, match="does not decode"):
            function(data)
