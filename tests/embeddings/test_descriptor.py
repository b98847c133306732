"""The image descriptor: odd modes, definitions of its parts, determinism, sane neighbours."""

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from shardwright.embeddings import descriptor
from shardwright.embeddings.descriptor import DescriptorEncoder
from shardwright.embeddings.pixels import decode_rgb
from shardwright.errors import DataError

ENCODER = DescriptorEncoder()


def picture(seed, size=96):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(base).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, w, h = (int(v) for v in rng.integers(0, size, 4))
        draw.ellipse((x, y, x + w // 2, y + h // 2), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def odd_images():
    base = picture(0)
    alpha = Image.linear_gradient("L").resize(base.size)
    rgba = base.copy()
    rgba.putalpha(alpha)
    palette = base.quantize(16)
    wide = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21
    floats = wide.astype(np.float32) / 7
    floats[3, 4] = np.nan
    floats[5, 6] = np.inf
    return {
        "rgb": encoded(base),
        "gray": encoded(base.convert("L")),
        "gray alpha": encoded(rgba.convert("LA")),
        "rgba": encoded(rgba),
        "one bit": encoded(base.convert("1")),
        "palette": encoded(palette),
        "palette transparent": encoded(palette, transparency=3),
        "palette alpha": encoded(palette, transparency=bytes(range(0, 160, 10))),
        "colour key": encoded(base, transparency=(0, 0, 0)),
        "one bit key": encoded(base.convert("1"), transparency=0),
        "sixteen bits": encoded(Image.fromarray(wide)),
        "sixteen bits big-endian": encoded(
            Image.frombytes("I;16B", (64, 48), wide.astype(">u2").tobytes()), "TIFF"
        ),
        "integers": encoded(Image.fromarray(wide.astype(np.int32) * 99), "TIFF"),
        "floats": encoded(Image.fromarray(floats), "TIFF"),
        "no finite float": encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
        "cmyk": encoded(base.convert("CMYK"), "JPEG"),
        "cmyk tiff": encoded(base.convert("CMYK"), "TIFF"),
        "lab": encoded(Image.merge("LAB", base.split()), "TIFF"),
        "ycbcr": encoded(base.convert("YCbCr"), "TIFF", compression="jpeg"),
        "jpeg": encoded(base, "JPEG"),
        "gray jpeg": encoded(base.convert("L"), "JPEG"),
        "webp": encoded(rgba, "WEBP"),
        "bmp": encoded(base, "BMP"),
        "animated": encoded(base, "GIF", save_all=True, append_images=[picture(1)]),
        "animated png": encoded(rgba, "PNG", save_all=True, append_images=[rgba.rotate(90)]),
        "one pixel": encoded(Image.new("RGB", (1, 1), (9, 9, 9))),
        "a line": encoded(Image.new("L", (1, 700), 200), "JPEG"),
    }


@pytest.mark.parametrize("name", odd_images())
def test_every_mode_decodes_and_encodes(name):
    data = odd_images()[name]
    assert decode_rgb(data).mode == "RGB"
    row = ENCODER.encode([data])[0]
    assert np.isfinite(row).all()
    assert abs(np.linalg.norm(row) - 1) < 1e-6


def test_modes_give_the_pixels_they_should():
    def pixel(image, kind="PNG", **options):
        return decode_rgb(encoded(image, kind, **options)).getpixel((0, 0))

    assert pixel(Image.new("RGBA", (2, 2), (255, 0, 0, 0))) == (255, 255, 255)
    assert pixel(Image.new("LA", (2, 2), (0, 51))) == (204, 204, 204)
    assert pixel(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3)) == (255, 255, 255)
    assert pixel(Image.fromarray(np.full((2, 2), 0xABCD, np.uint16))) == (0xAB,) * 3
    big = Image.frombytes("I;16B", (2, 2), bytes.fromhex("abcd" * 4))
    assert pixel(big, "TIFF") == (0xAB,) * 3
    ramp = Image.fromarray(np.array([[-5, 5, 0]], np.int32))
    assert np.asarray(decode_rgb(encoded(ramp, "TIFF")))[0, :, 0].tolist() == [0, 255, 127]
    first, second = Image.new("P", (2, 2), 0), Image.new("P", (2, 2), 1)
    for frame in (first, second):
        frame.putpalette([10, 20, 30, 200, 200, 200])
    assert pixel(first, "GIF", save_all=True, append_images=[second]) == (10, 20, 30)


@pytest.mark.parametrize("data", [b"", b"no image", encoded(picture(0), "JPEG")[:700]])
def test_broken_images_are_named(data):
    with pytest.raises(DataError, match="input 1 of the batch: the image does not decode"):
        ENCODER.encode([encoded(picture(1)), data])


def test_what_is_no_image_is_refused():
    with pytest.raises(TypeError, match="input 0 is str, not bytes"):
        ENCODER.encode(["text"])


def test_orientation_bins_agree_with_angles():
    rng = np.random.default_rng(0)
    luma = rng.integers(0, 256, (3, 64, 64)).astype(np.int32)
    luma[2] = np.arange(64)
    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    expected = np.zeros((3, 4, 4, 8))
    for image in range(3):
        for y in range(64):
            for x in range(64):
                dx = int(padded[image, y + 1, x + 2] - padded[image, y + 1, x])
                dy = int(padded[image, y + 2, x + 1] - padded[image, y, x + 1])
                angle = math.degrees(math.atan2(dy, dx)) % 180
                octant = math.ceil(angle / 22.5) - 1 if angle <= 90 else int(angle / 22.5)
                length = int(16 * math.hypot(dx, dy))
                expected[image, y // 16, x // 16, max(0, octant) % 8] += length
    roots = np.floor(np.sqrt(256 * expected)).reshape(3, -1)
    centred = roots * 128 - roots.sum(axis=1, keepdims=True)
    found = descriptor._orientations(luma)
    # ties at exactly 45 and 135 degrees may fall to either side of the oracle's floats
    assert np.abs(found - centred).max() <= 0.02 * np.abs(centred).max()


def test_opposite_gradients_share_a_bin():
    ramp = np.arange(64, dtype=np.int32) * 3
    right = np.broadcast_to(ramp, (1, 64, 64)).astype(np.int32)
    down = right.transpose(0, 2, 1)
    for image in (right, down):
        flipped = image[:, ::-1, ::-1]
        assert (descriptor._orientations(image) == descriptor._orientations(flipped)).all()
    assert (descriptor._orientations(right) != descriptor._orientations(down)).any()


def test_frequencies_are_those_of_the_cosine_transform():
    luma = np.random.default_rng(1).integers(0, 256, (2, 64, 64)).astype(np.int32)
    u, x = np.arange(8)[:, None], np.arange(64)
    cosines = np.cos(np.pi * (2 * x + 1) * u / 128)
    expected = np.einsum("ux,nxy,vy->nuv", cosines, luma - 128, cosines) * 2.0**8
    expected = (expected * (1 + u + u.T)).reshape(2, -1)
    found = descriptor._frequencies(luma, ENCODER._cosines)
    assert np.abs(found - expected).max() < 3e-3 * np.abs(expected).max()


def test_extreme_thumbnails_stay_exact_and_unit():
    checker = np.indices((64, 64)).sum(axis=0)
    stack = [np.zeros((64, 64)), np.full((64, 64), 255), checker % 2 * 255, checker // 8 % 2 * 255]
    pixels = np.repeat(np.array(stack, dtype=np.uint8)[..., None], 3, axis=-1)
    luma = descriptor._luma(pixels)
    for part in (descriptor._orientations(luma), descriptor._frequencies(luma, ENCODER._cosines)):
        exact = [sum(int(v) ** 2 for v in row) for row in part]
        assert max(exact) < 2**63
    rows = ENCODER._describe(pixels)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-12


def test_bits_do_not_depend_on_batch_order_or_threads(monkeypatch):
    images = [encoded(picture(i), kind) for i in range(5) for kind in ("JPEG", "PNG")]
    rows = ENCODER.encode(images)
    assert ENCODER.encode(images[::-1]).tobytes() == rows[::-1].tobytes()
    assert b"".join(ENCODER.encode([i]).tobytes() for i in images) == rows.tobytes()
    monkeypatch.setattr(descriptor, "_ROWS", 3)
    assert ENCODER.encode(images).tobytes() == rows.tobytes()
    script = (
        "import hashlib, test_descriptor as t\n"
        "images = [t.encoded(t.picture(i), k) for i in range(5) for k in ('JPEG', 'PNG')]\n"
        "print(t.ENCODER.encode(images).tobytes().hex())"
    )
    for threads in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", script],
            env={
                "OMP_NUM_THREADS": threads,
                "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == rows.tobytes().hex()


def test_copies_are_nearer_than_other_pictures():
    pictures = [picture(i, 256) for i in range(12)]
    rows = ENCODER.encode([encoded(p, "JPEG", quality=90) for p in pictures])
    copies = {
        "lossless": [encoded(p) for p in pictures],
        "low quality": [encoded(p, "JPEG", quality=40) for p in pictures],
        "half size": [encoded(p.resize((128, 128)), "WEBP") for p in pictures],
    }
    for images in copies.values():
        similarity = rows @ ENCODER.encode(images).T
        assert np.diag(similarity).min() > 0.95
        np.fill_diagonal(similarity, -1)
        assert similarity.max() < 0.8
