"""Known changes of one stage of the pipeline, by an amount with a unit.

Each is a pure function of pixels, amount and seed. At its neutral amount it gives the pixels back
as they are, bit for bit. Gains and saturation act on linear light (IEC 61966-2-1), the rest on
levels. They are what the ruler is made of, and what normalises one of two groups.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import convolve1d, gaussian_filter1d

from shardwright.quality.heterogeneity.device_statistics import LIGHT, Pixels

Float32 = npt.NDArray[np.float32]

NOT_CODED = 101.0
"""The neutral amount of ``compression``: pixels that were not coded at all."""

_LIGHT = LIGHT.astype(np.float32)
_STEPS = 1 << 14  # of linear light, so fine that every level comes back as itself
_RED, _GREEN, _BLUE = 0.2126, 0.7152, 0.0722  # luminance of sRGB
_RADIUS = 1.0  # pixels, of the unsharp mask
_AROUND = 16.0  # pixels, of what shadows are lifted by
_BAYER = (((0, 0),), ((0, 1), (1, 0)), ((1, 1),))  # places of red, green and blue


def _curve() -> Pixels:
    light = np.arange(_STEPS + 1) / _STEPS
    level = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    rounded: Pixels = np.rint(255 * level).astype(np.uint8)
    return rounded


_LEVEL = _curve()

# linear light of Display P3 from that of sRGB: what P3 pixels hold of the same colours
P3_FROM_SRGB = (
    (0.822462, 0.177538, 0.0),
    (0.033194, 0.966806, 0.0),
    (0.017083, 0.072397, 0.910520),
)
"""Colours coded for Display P3 and read as sRGB (SMPTE EG 432-1 and IEC 61966-2-1, both D65)."""


@dataclass(frozen=True)
class Change:
    """A change of one stage.

    Attributes:
        stage: One of ``STAGES``.
        unit: Of the amount.
        neutral: The amount that changes nothing.
        marks: Amounts from weak to strong, away from the neutral one, in the direction in which
            the change always can be made.
        back: Amounts in the other direction; empty where there is none.
        apply: Pixels uint8 [h, w, 3], amount and seed -> changed pixels.
    """

    stage: str
    unit: str
    neutral: float
    marks: tuple[float, ...]
    back: tuple[float, ...]
    apply: Callable[[Pixels, float, int], Pixels]


def change(pixels: Pixels, stage: str, amount: float, seed: int = 0) -> Pixels:
    """Changes one stage.

    Args:
        pixels: uint8 [height, width, 3].
        stage: One of ``CHANGES``.
        amount: In the unit of the stage.
        seed: Of the noise; the others do not look at it.

    Returns:
        Pixels of the same shape; the same array where the amount is neutral.

    Raises:
        ValueError: pixels of another shape or type, or an amount that the stage does not have.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not uint8 [height, width, 3]")
    if not np.isfinite(amount):
        raise ValueError(f"amount {amount} of {stage} is no number")
    known = CHANGES[stage]
    return pixels if amount == known.neutral else known.apply(pixels, amount, seed)


def white_balance(pixels: Pixels, red: float, blue: float) -> Pixels:
    """Gains of red and blue in stops, in linear light; green stays."""
    if red == blue == 0:
        return pixels
    changed = pixels.copy()
    for channel, stops in ((0, red), (2, blue)):
        changed[..., channel] = _levels(_LIGHT * np.float32(2.0**stops))[pixels[..., channel]]
    return changed


def contrast(pixels: Pixels, slope: float) -> Pixels:
    """A curve in the form of an S: logistic in the levels, steep or flat in the middle.

    Args:
        pixels: uint8 [height, width, 3].
        slope: Of the curve at its middle by that of a straight line, above 0; 1 changes nothing.
    """
    if slope <= 0:
        raise ValueError(f"slope {slope} must be above 0")
    if slope == 1:
        return pixels
    level = np.arange(256) / 255
    if slope > 1:
        ends = 1 - np.abs(2 * level - 1)
        curve = np.where(level < 0.5, ends**slope, 2 - ends**slope) / 2
    else:
        curve = 0.5 + (level - 0.5) * slope
    table: Pixels = np.rint(255 * np.clip(curve, 0, 1)).astype(np.uint8)
    return table[pixels]


def colour_matrix(pixels: Pixels, matrix: npt.ArrayLike) -> Pixels:
    """Linear light times a 3 x 3 matrix."""
    light = _LIGHT[pixels] @ np.asarray(matrix, np.float32).T
    return _levels(light)


def encoded(pixels: Pixels, quality: int, subsampling: int = 2) -> Pixels:
    """Pixels after JPEG: standard tables, chroma at ``subsampling`` (2 is 4:2:0, 0 is 4:4:4)."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(out) as image:
        return np.array(image)


def grain(pixels: Pixels, sigma: float, seed: int = 0) -> Pixels:
    """Noise of the luma alone, two pixels wide, ``sigma`` levels strong."""
    if sigma == 0:
        return pixels
    noise = np.random.default_rng(seed).standard_normal(pixels.shape[:2], np.float32)
    soft = _gaussian(noise, 0.7)
    soft *= np.float32(sigma / max(float(soft.std()), 1e-6))
    return _rounded(pixels + soft[..., None])


def colour_noise(pixels: Pixels, sigma: float, seed: int = 0) -> Pixels:
    """Noise of red and blue, two pixels wide, ``sigma`` levels strong; the luma stays."""
    if sigma == 0:
        return pixels
    noise = np.random.default_rng(seed).standard_normal((*pixels.shape[:2], 2), np.float32)
    red, blue = np.moveaxis(_gaussian(noise, 0.7), 2, 0) * np.float32(sigma / 0.4)
    green = -(np.float32(0.299) * red + np.float32(0.114) * blue) / np.float32(0.587)
    return _rounded(pixels + np.stack([red, green, blue], axis=2))


def local_contrast(pixels: Pixels, stops: float) -> Pixels:
    """Shadows lifted and highlights lowered by what is around: a gamma of 2**-stops to 2**stops."""
    if stops == 0:
        return pixels
    around = _gaussian(np.asarray(Image.fromarray(pixels).convert("L")), _AROUND) / 255
    power = np.exp2(np.float32(stops) * (2 * around - 1))
    return _rounded(255 * (pixels / np.float32(255)) ** power[..., None])


def nearest_mosaic(pixels: Pixels, share: float) -> Pixels:
    """A Bayer mosaic (RGGB) filled in by the nearest sample of the same two by two pixels."""
    _share(share)
    rows, columns = (np.arange(size) // 2 * 2 for size in pixels.shape[:2])
    ends = [size - 1 for size in pixels.shape[:2]]
    filled = pixels.astype(np.float32)
    for channel, places in enumerate(_BAYER):
        row, column = places[0]
        picked = np.minimum(rows + row, ends[0])[:, None], np.minimum(columns + column, ends[1])
        filled[..., channel] = pixels[(*picked, channel)]
    odd = np.arange(pixels.shape[0]) % 2 == 1
    beside = np.minimum(columns, ends[1])  # the second green lies in the first column
    filled[odd, :, 1] = pixels[odd][:, beside, 1]
    return _rounded(pixels + np.float32(share) * (filled - pixels))


def smooth_hue(pixels: Pixels, share: float) -> Pixels:
    """A mosaic of the differences of red and blue from green, filled in by means; green stays."""
    _share(share)
    found = pixels.astype(np.float32)
    filled = found.copy()
    for channel in (0, 2):
        filled[..., channel] = found[..., 1] + _filled(found[..., channel] - found[..., 1], channel)
    return _rounded(found + np.float32(share) * (filled - found))


def _white_balance(pixels: Pixels, amount: float, seed: int) -> Pixels:
    return white_balance(pixels, amount, -amount)


def _tone(pixels: Pixels, amount: float, seed: int) -> Pixels:
    if amount <= 0:
        raise ValueError(f"gamma {amount} must be above 0")
    table: Pixels = np.rint(255 * (np.arange(256) / 255) ** amount).astype(np.uint8)
    return table[pixels]


def _noise(pixels: Pixels, amount: float, seed: int) -> Pixels:
    if amount < 0:
        raise ValueError(f"noise of {amount} levels: it must be at least 0")
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32)
    return _rounded(np.multiply(noise, np.float32(amount), dtype=np.float32) + pixels)


def _sharpness(pixels: Pixels, amount: float, seed: int) -> Pixels:
    soft = _gaussian(pixels, -amount if amount < 0 else _RADIUS)
    if amount < 0:
        return _rounded(soft)
    return _rounded(pixels + np.float32(amount) * (pixels - soft))


def _compression(pixels: Pixels, amount: float, seed: int) -> Pixels:
    if not 1 <= amount <= 100:
        raise ValueError(f"JPEG quality {amount} is not from 1 to 100")
    return encoded(pixels, round(amount))


def _demosaic(pixels: Pixels, amount: float, seed: int) -> Pixels:
    """A Bayer mosaic (RGGB) filled in by means of neighbours, blended in by ``amount``."""
    _share(amount)
    found = pixels.astype(np.float32)
    filled = np.stack([_filled(found[..., c], c) for c in range(3)], axis=2)
    return _rounded(found + np.float32(amount) * (filled - found))


def _share(amount: float) -> None:
    if not 0 <= amount <= 1:
        raise ValueError(f"share {amount} of the mosaic is not from 0 to 1")


def _filled(plane: Float32, channel: int) -> Float32:
    """What a mosaic (RGGB) holds of a channel, and means of neighbours elsewhere."""
    mask = np.zeros((2, 2), np.float32)
    for row, column in _BAYER[channel]:
        mask[row, column] = 1
    height, width = plane.shape
    lattice = np.tile(mask, (-(-height // 2), -(-width // 2)))[:height, :width]
    sums = [
        convolve1d(
            convolve1d(own, (0.5, 1.0, 0.5), axis=0, mode="mirror"),
            (0.5, 1.0, 0.5),
            axis=1,
            mode="mirror",
        )
        for own in (plane * lattice, lattice)
    ]
    found: Float32 = np.where(lattice > 0, plane, sums[0] / np.maximum(sums[1], np.float32(1e-6)))
    return found


def _gamut(pixels: Pixels, amount: float, seed: int) -> Pixels:
    if amount < 0:
        raise ValueError(f"saturation {amount} must be at least 0")
    grey = np.tile([_RED, _GREEN, _BLUE], (3, 1))
    return colour_matrix(pixels, amount * np.eye(3) + (1 - amount) * grey)


def _gaussian(values: npt.NDArray[np.uint8] | Float32, sigma: float) -> Float32:
    """Over the first two axes; the third, if there is one, holds channels."""
    wide = values.astype(np.float32)
    down = gaussian_filter1d(wide, sigma, axis=0, mode="nearest", truncate=3.0)
    both: Float32 = gaussian_filter1d(down, sigma, axis=1, mode="nearest", truncate=3.0)
    return both


def _levels(light: Float32) -> Pixels:
    """Levels of linear light, which is clipped to 0 to 1."""
    steps = np.clip(light, 0, 1) * np.float32(_STEPS) + np.float32(0.5)
    return _LEVEL[steps.astype(np.int32)]


def _rounded(values: Float32) -> Pixels:
    found: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found


CHANGES: Mapping[str, Change] = {
    one.stage: one
    for one in (
        Change("white_balance", "stops of red, and as many less of blue", 0.0,
               (0.1, 0.2, 0.4, 0.8), (-0.1, -0.2, -0.4, -0.8), _white_balance),
        Change("tone", "gamma", 1.0, (1.1, 1.25, 1.6, 2.2), (0.9, 0.8, 0.63, 0.45), _tone),
        Change("noise", "levels", 0.0, (1.0, 2.0, 4.0, 8.0, 16.0), (), _noise),
        Change("sharpness", "unsharp mask; below 0 the sigma of a blur in pixels", 0.0,
               (-0.4, -0.6, -0.9, -1.4, -2.2), (0.25, 0.5, 1.0, 2.0), _sharpness),
        Change("compression", "JPEG quality", NOT_CODED,
               (97.0, 90.0, 80.0, 65.0, 45.0, 25.0), (), _compression),
        Change("demosaic", "share of the mosaic", 0.0, (0.25, 0.5, 1.0), (), _demosaic),
        Change("gamut", "saturation", 1.0, (0.9, 0.8, 0.65, 0.45), (1.1, 1.25, 1.5, 2.0), _gamut),
    )
}  # fmt: skip
"""The change of each stage, in the order of ``STAGES``."""

PIPELINE = ("noise", "demosaic", "white_balance", "gamut", "tone", "sharpness", "compression")
"""Stages in the order in which a camera goes through them."""
