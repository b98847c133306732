"""Synthetic damage to pictures: what lenses, sensors, encoders, networks and screens do to them.

Each kind is a pure function of its name, the picture, a seed and a dose. What is drawn at random (a
direction, a place, the noise itself) does not depend on the dose, so that a greater dose gives more
of the same damage. What happens to light (noise, exposure, white balance, a screen's lines) happens
before the sRGB curve (IEC 61966-2-1) here too; blurs and resizing work on the levels as they are.
"""

import hashlib
import io
import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from shardwright.errors import UserError
from shardwright.quality.corruptions.registry import Corruption

Pixels: TypeAlias = npt.NDArray[np.uint8]
Float32: TypeAlias = npt.NDArray[np.float32]
Sums: TypeAlias = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Damage: TypeAlias = Callable[[Pixels, np.random.Generator, float], Pixels]

_BLUR = 0.02  # standard deviation by the longer side
_MOTION = 0.06  # length of the path by the longer side
_SHRINK = 8  # times, each side
_SHOT = 0.15  # standard deviation of a white pixel's light, by that light
_READ = 0.03  # standard deviation of a black pixel's light, by a white one's
_WORST, _BEST = 3, 50  # quality as Pillow counts it
_STOPS = 3.0
_CAST = 1.0  # stops between the gain of a channel and an even one
_COVERED = 0.5  # share of the area
_SHAPES = 4
_LINES = 0.6  # of the light is lost where the lines of a screen are darkest

_GREY = 128  # where a JPEG has no data
_JPEG_SIDE = 65_500  # the longest that Pillow's encoder takes

_LEVELS = np.arange(256) / 255
_LIGHT: Float32 = np.where(
    _LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4
).astype(np.float32)
_STEPS = 65_535  # of light; so fine that a level comes back as it was
_AXIS = np.arange(_STEPS + 1) / _STEPS
_LEVEL: Pixels = np.rint(
    255 * np.where(_AXIS <= 0.0031308, 12.92 * _AXIS, 1.055 * _AXIS ** (1 / 2.4) - 0.055)
).astype(np.uint8)


def _encoded(light: Float32) -> Pixels:
    """Levels of linear light, which is overwritten; above 1 it is clipped, as on a sensor."""
    np.clip(light, 0, 1, out=light)
    light *= _STEPS
    light += 0.5
    return _LEVEL[light.astype(np.uint16)]


def _gaussian_blur(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    radius = 0.5 + dose * _BLUR * max(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _motion_blur(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """The mean of the picture over a straight path, a pixel at a time."""
    half = 1 + round(dose * _MOTION / 2 * max(pixels.shape[:2]))
    length = 2 * half + 1
    angle = rng.uniform(0, np.pi)
    mirrored = angle > np.pi / 2  # so that the path always leads down and to the right
    down, right = float(np.sin(angle)), float(abs(np.cos(angle)))
    down, right = down / max(down, right), right / max(down, right)
    pixels = pixels[:, ::-1] if mirrored else pixels
    rows, columns = round(down * half), round(right * half)
    # the roundings below add up to a few pixels
    room = [(rows, rows + 8), (columns, columns + 8), (0, 0)]
    padded = np.pad(pixels, room, mode="edge")
    one: Sums = padded.astype(np.uint16) if length < 257 else padded.astype(np.uint32)
    total, taken = one, 1
    for bit in bin(length)[3:]:  # the sum over n steps doubled, and one step more for a set bit
        total, taken = _added(total, total, down * taken, right * taken), 2 * taken
        if bit == "1":
            total, taken = _added(total, one, down * taken, right * taken), taken + 1
    total = total[: pixels.shape[0], : pixels.shape[1]]
    mean: Pixels = ((total + length // 2) // length).astype(np.uint8)
    return mean[:, ::-1] if mirrored else mean


def _added(values: Sums, others: Sums, down: float, right: float) -> Sums:
    """Values and those of others at an offset from them, where there are both."""
    others = others[round(down) :, round(right) :]
    height, width = min(len(values), len(others)), min(values.shape[1], others.shape[1])
    total: Sums = values[:height, :width] + others[:height, :width]
    return total


def _resampling(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    filters = Image.Resampling
    down = (filters.BOX, filters.BILINEAR, filters.LANCZOS)[rng.integers(3)]
    up = (filters.BILINEAR, filters.BICUBIC)[rng.integers(2)]
    height, width = pixels.shape[:2]
    factor = 1 + dose * (_SHRINK - 1)
    few = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = Image.fromarray(pixels).resize(few, down)
    return np.asarray(small.resize((width, height), up))


def _noise(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """Shot noise, its variance in proportion to light, and read noise, the same everywhere."""
    light = _LIGHT[pixels]
    deviation = dose * np.sqrt(_SHOT**2 * _LIGHT + _READ**2)
    noise = rng.standard_normal(pixels.shape, np.float32)
    noise *= deviation.astype(np.float32)[pixels]
    light += noise
    return _encoded(light)


def _jpeg(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    quality = round(_BEST - dose * (_BEST - _WORST))
    if max(pixels.shape[:2]) > _JPEG_SIDE:
        return pixels
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(out))


def _exposure(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """Too much light or too little; the other where white or black leaves no room for one."""
    for sign in rng.permutation([-1, 1]):
        levels = _encoded(_LIGHT * np.float32(2 ** (sign * dose * _STOPS)))
        exposed = levels[pixels]
        if not np.array_equal(exposed, pixels):
            break
    return exposed


def _colour_cast(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """Gains of the channels whose logarithms add up to nothing, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    stops = np.cos(angle + 2 * np.pi / 3 * np.arange(3))
    stops *= dose * _CAST / np.abs(stops).max()
    tables = _encoded(np.multiply.outer(np.exp2(stops).astype(np.float32), _LIGHT))
    return np.stack([tables[channel][pixels[..., channel]] for channel in range(3)], axis=-1)


def _channel_swap(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """Channels in another order, all of it at any dose."""
    for order in rng.permutation(list(itertools.permutations(range(3)))[1:]):
        swapped: Pixels = pixels[..., order]
        if not np.array_equal(swapped, pixels):
            break
    return swapped


def _truncation(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """What decoders leave of a JPEG that ends early: its minimum coded units from there on grey."""
    side = int(rng.choice([8, 16]))  # of a unit: full colour, or a quarter of it
    share = rng.uniform(0.5, 1)
    height, width = pixels.shape[:2]
    across = -(-width // side)
    units = -(-height // side) * across
    lost = min(max(1, round(dose * share * units)), units - 1)
    row, column = divmod(units - lost, across)
    cut = pixels.copy()
    cut[row * side : (row + 1) * side, column * side :] = _GREY
    cut[(row + 1) * side :] = _GREY
    return cut


def _occlusion(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """Rectangles, and strips from side to side, plain or mottled; their middles stay in place."""
    height, width = pixels.shape[:2]
    count = int(rng.integers(1, _SHAPES + 1))
    share = dose * _COVERED / count
    hidden = pixels.copy()
    for _ in range(count):
        middle = rng.uniform(0, 1, 2) * (height, width)
        sides = np.sqrt(share) * np.exp2(rng.uniform(-1, 1) * np.array([1, -1]))
        lying, strip, mottled = rng.random(3) < (0.5, 0.3, 0.5)
        if strip:
            sides = np.array([share, 2.0]) if lying else np.array([2.0, share])
        first = np.maximum(np.rint(middle - sides * (height, width) / 2), 0).astype(int)
        last = np.rint(middle + sides * (height, width) / 2).astype(int)
        colour = rng.integers(0, 256, 3)
        spots = np.clip(colour + rng.normal(0, 40, (8, 8, 1)), 0, 255).astype(np.uint8)
        where = (slice(first[0], last[0]), slice(first[1], last[1]))
        if mottled:
            cloth = Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)
            hidden[where] = np.asarray(cloth)[where]
        else:
            hidden[where] = colour
    return hidden


def _moire(pixels: Pixels, rng: np.random.Generator, dose: float) -> Pixels:
    """Beats between the grid of a screen and that of the sensor that photographs it.

    In each channel light is lost along two crossed sets of waves, slightly turned, bent by the
    lens, and shifted from channel to channel as a screen's red, green and blue stripes are.
    """
    height, width = pixels.shape[:2]
    waves = np.exp2(rng.uniform(2, 5, 2))  # pixels a wave: 4 to 32
    turn, bend = rng.uniform(-0.2, 0.2), rng.uniform(0, 2)
    start = rng.uniform(0, 2 * np.pi, 2)
    y, x = np.arange(height) - height / 2, np.arange(width) - width / 2
    curve = bend * np.pi / max(height, width) ** 2
    stripes = 2 * np.pi / 3 * np.arange(3)
    lit = np.full((height, width * 3), 1 - dose * _LINES / 2, np.float32)
    ways = ((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn)))
    for wave, first, (along, across) in zip(waves, start, ways, strict=True):
        by_row = 2 * np.pi / wave * across * y + curve * y**2 + first
        by_column = 2 * np.pi / wave * along * x + curve * x**2
        by_column = np.add.outer(by_column, stripes).ravel()
        strength = dose * _LINES / 4
        for row, column in (  # cos(p + q), without a cosine for each pixel
            (np.cos(by_row), strength * np.cos(by_column)),
            (-np.sin(by_row), strength * np.sin(by_column)),
        ):
            lit += np.multiply.outer(row.astype(np.float32), column.astype(np.float32))
    light = lit.reshape(pixels.shape)
    light *= _LIGHT[pixels]
    return _encoded(light)


_KINDS: dict[str, tuple[str, str, Damage]] = {
    "gaussian_blur": ("sharpness", "out of focus", _gaussian_blur),
    "motion_blur": ("sharpness", "the camera moved along a straight line", _motion_blur),
    "resampling": ("sharpness", "made smaller and larger again", _resampling),
    "noise": ("noise", "shot and read noise of a sensor", _noise),
    "jpeg": ("compression", "JPEG of low quality, colour at half the size", _jpeg),
    "exposure": ("exposure", "too much or too little light", _exposure),
    "colour_cast": ("colour", "wrong white balance", _colour_cast),
    "channel_swap": ("colour", "red, green and blue in another order", _channel_swap),
    "truncation": ("truncation", "a JPEG cut short: the rest is grey", _truncation),
    "occlusion": ("occlusion", "rectangles and strips in front, plain or mottled", _occlusion),
    "moire": ("moire", "photographed from a screen", _moire),
}

IMAGES: dict[str, Corruption] = {
    name: Corruption(name, "image", "image", family, None, True, description)
    for name, (family, description, _) in _KINDS.items()
}


def corrupt_image(name: str, pixels: Pixels, seed: int, dose: float = 0.5) -> Pixels | None:
    """Damages a picture.

    Args:
        name: A kind, one of ``IMAGES``.
        pixels: uint8 [height, width, 3], sRGB.
        seed: With the name and the pixels it determines all that is random.
        dose: Strength, in (0, 1]; docs/corruptions.md says what 1 is for each kind.

    Returns:
        uint8 [height, width, 3], a new array; None where nothing changes, as no blur changes a
        picture of a single colour.

    Raises:
        UserError: a kind that is not known, or a dose out of range.
        ValueError: pixels of another shape or type.
    """
    if name not in _KINDS:
        raise UserError(
            f"corruption {name!r} is unknown for images: use one of {', '.join(_KINDS)}"
        )
    if not 0 < dose <= 1:
        raise UserError(f"dose {dose} is out of range: use a strength above 0 and at most 1")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not uint8 [height, width, 3]")
    if not pixels.size:
        return None
    pixels = np.ascontiguousarray(pixels)
    key = hashlib.sha256(f"{name} {seed} {pixels.shape}\n".encode())
    key.update(pixels.data)
    rng = np.random.default_rng(int.from_bytes(key.digest()))
    damaged = _KINDS[name][2](pixels, rng, dose)
    return None if np.array_equal(damaged, pixels) else np.array(damaged, order="C")
