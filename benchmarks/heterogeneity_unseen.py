"""Operators that attribution was never tried on before it was judged, one or two of each stage."""

import io

import numpy as np
from heterogeneity_devices import Operator, Pixels, Random, jpeg, rounded, table
from PIL import Image
from scipy.ndimage import convolve, convolve1d, gaussian_filter, median_filter

from shardwright.quality.heterogeneity import changes
from shardwright.quality.heterogeneity.device_statistics import LIGHT

# what Klein, Silverstein and Carney (1992) measured that eyes tell apart; mozjpeg's table 6
_KLEIN = (
    *(10, 12, 14, 19, 26, 38, 57, 86, 12, 18, 21, 28, 35, 41, 54, 76),
    *(14, 21, 25, 32, 44, 63, 92, 136, 19, 28, 32, 41, 54, 75, 107, 157),
    *(26, 35, 44, 54, 70, 95, 132, 190, 38, 41, 63, 75, 95, 125, 170, 239),
    *(57, 54, 92, 107, 132, 170, 227, 255, 86, 76, 136, 157, 190, 239, 255, 255),
)
_REC2020_FROM_SRGB = (
    (0.627404, 0.329283, 0.043313),
    (0.069097, 0.919540, 0.011362),
    (0.016391, 0.088013, 0.895595),
)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_XYZ_FROM_SRGB = np.array(
    [[0.412456, 0.357576, 0.180437], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]]
)


def unseen(stage: str, rng: Random) -> tuple[str, Operator]:
    """A change that neither attribution nor who made it had tried."""
    choices = {
        "white_balance": (_daylight, _neutral_gains),
        "tone": (_toe_and_shoulder, _equalised),
        "noise": (_dark_current, _coloured_grain),
        "sharpness": (_defocus, _wide_mask, _enlarged),
        "compression": (_eye_tables, _jpeg_2000),
        "demosaic": (_five_by_five, _median_differences),
        "gamut": (_rec2020, _vibrance),
    }[stage]
    return choices[rng.integers(len(choices))](rng)


def _daylight(rng: Random) -> tuple[str, Operator]:
    """Daylight of another temperature, by Bradford's cones; Illuminant D of CIE 15."""
    kelvin = rng.uniform(4000, 5200) if rng.uniform() < 0.5 else rng.uniform(8500, 14000)
    low = (0.244063, 99.11, 2.9678e6, -4.6070e9)
    high = (0.237040, 247.48, 1.9018e6, -2.0064e9)
    terms = low if kelvin <= 7000 else high
    x = sum(term / kelvin**power for power, term in enumerate(terms))
    y = -3 * x**2 + 2.87 * x - 0.275
    light = np.array([x / y, 1, (1 - x - y) / y])
    gains = (_BRADFORD @ light) / (_BRADFORD @ _XYZ_FROM_SRGB.sum(axis=1))
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD
    matrix = np.linalg.inv(_XYZ_FROM_SRGB) @ adapted @ _XYZ_FROM_SRGB
    return f"daylight {kelvin:.0f} K", lambda p, s: changes.colour_matrix(p, matrix)


def _neutral_gains(rng: Random) -> tuple[str, Operator]:
    """Gains of light that keep the luminance, clipped before the curve as raw converters do."""
    stops = rng.choice([-1, 1]) * rng.uniform(0.2, 0.5)
    gains = 2 ** (stops * np.array([1.0, 0.0, -0.7]))
    gains /= gains @ np.array([0.2126, 0.7152, 0.0722])
    return f"gains at one luminance {stops:.2f}", lambda p, s: changes.colour_matrix(
        p, np.diag(gains)
    )


def _toe_and_shoulder(rng: Random) -> tuple[str, Operator]:
    """Black lifted and highlights rolled off, as faded prints."""
    lift, roll = rng.uniform(0.04, 0.12), rng.uniform(0.6, 1.4)
    x = np.arange(256) / 255
    curve = lift + (0.97 - lift) * (1 - np.exp(-roll * 2 * x)) / (1 - np.exp(-roll * 2))
    return f"toe {lift:.2f} and shoulder {roll:.1f}", table(curve)


def _equalised(rng: Random) -> tuple[str, Operator]:
    """Part of the way to a flat histogram of the luma, image by image."""
    part = rng.uniform(0.4, 0.8)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        counts = np.bincount(
            np.asarray(Image.fromarray(pixels).convert("L")).ravel(), minlength=256
        )
        flat = (np.cumsum(counts) - counts / 2) / counts.sum()
        curve = (1 - part) * np.arange(256) / 255 + part * flat
        return rounded(255 * curve)[pixels]

    return f"equalised by {part:.2f}", apply


def _dark_current(rng: Random) -> tuple[str, Operator]:
    """Noise of the sensor's readout in light, of its rows too, so that shadows have most of it."""
    sigma = rng.uniform(0.004, 0.02)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        own = np.random.default_rng(seed)
        noise = own.normal(0, sigma, pixels.shape)
        noise += own.normal(0, sigma / 4, (len(pixels), 1, 1))
        light = np.clip(LIGHT[pixels] + noise, 0, 1)
        curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        return rounded(255 * curve)

    return f"readout noise {sigma:.3f}", apply


def _coloured_grain(rng: Random) -> tuple[str, Operator]:
    """Unlike noise in each channel, most of it blue, and a little wider than a pixel."""
    sigma = rng.uniform(3, 9)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        noise = np.random.default_rng(seed).laplace(0, 1, pixels.shape)
        noise = gaussian_filter(noise, (0.5, 0.5, 0))
        noise *= sigma * np.array([0.8, 0.4, 1.3]) / noise.std()
        return rounded(pixels + noise)

    return f"coloured grain {sigma:.1f}", apply


def _defocus(rng: Random) -> tuple[str, Operator]:
    """The disk of a lens out of focus."""
    radius = rng.uniform(1.0, 2.2)
    reach = np.arange(-3, 4)
    away = np.hypot(*np.meshgrid(reach, reach))
    kernel = np.clip(radius + 0.5 - away, 0, 1)
    kernel /= kernel.sum()

    def apply(pixels: Pixels, seed: int) -> Pixels:
        return rounded(convolve(pixels.astype(np.float32), kernel[..., None], mode="nearest"))

    return f"defocus {radius:.1f}", apply


def _wide_mask(rng: Random) -> tuple[str, Operator]:
    """An unsharp mask of the luma alone, two pixels wide, with a threshold."""
    strength = rng.uniform(0.6, 1.6)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        luma = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
        detail = luma - gaussian_filter(luma, 1.8)
        detail = np.sign(detail) * np.maximum(np.abs(detail) - 1.5, 0)
        return rounded(pixels + strength * detail[..., None])

    return f"wide unsharp mask {strength:.2f}", apply


def _enlarged(rng: Random) -> tuple[str, Operator]:
    """Made smaller and larger again, as digital zooms do."""
    part = rng.uniform(0.5, 0.8)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        image = Image.fromarray(pixels)
        small = image.resize((round(part * image.width), round(part * image.height)), 3)
        return np.array(small.resize(image.size, Image.Resampling.BICUBIC))

    return f"enlarged from {part:.2f}", apply


def _eye_tables(rng: Random) -> tuple[str, Operator]:
    """Tables by what eyes tell apart, colours at half the width alone."""
    scale = rng.uniform(0.25, 1.2)
    steps = [int(np.clip(round(scale * step), 1, 255)) for step in _KLEIN]
    return f"JPEG, Klein's tables by {scale:.2f}", jpeg([steps, steps], 1)


def _jpeg_2000(rng: Random) -> tuple[str, Operator]:
    """Wavelets, without blocks."""
    rate = rng.uniform(8, 30)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        out = io.BytesIO()
        Image.fromarray(pixels).save(
            out, "JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True
        )
        return np.array(Image.open(out).convert("RGB"))

    return f"JPEG 2000 at 1 to {rate:.0f}", apply


def _five_by_five(rng: Random) -> tuple[str, Operator]:
    """Malvar, He and Cutler (2004): linear, 5 x 5, with the channel that is there (GRBG)."""
    cross = np.zeros((5, 5))
    cross[2] = (-1, 2, 4, 2, -1)
    cross[:, 2] = (-1, 2, 4, 2, -1)
    row = np.array(
        [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0],
         [0, 0, 0.5, 0, 0]]
    )  # fmt: skip
    corner = np.array(
        [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0],
         [0, 0, -1.5, 0, 0]]
    )  # fmt: skip

    def apply(pixels: Pixels, seed: int) -> Pixels:
        found = pixels.astype(np.float64)
        rows, columns = np.indices(pixels.shape[:2]) % 2
        at_red, at_blue = (rows == 0) & (columns == 1), (rows == 1) & (columns == 0)
        green = ~(at_red | at_blue)
        raw = np.where(at_red, found[..., 0], np.where(at_blue, found[..., 2], found[..., 1]))
        of_green, along, across, diagonal = (
            convolve(raw, kernel / 8, mode="mirror") for kernel in (cross, row, row.T, corner)
        )
        planes = [np.where(green, raw, of_green)] * 3
        for channel, own, beside in ((0, at_red, rows == 0), (2, at_blue, rows == 1)):
            near = np.where(beside, along, across)
            planes[channel] = np.where(own, raw, np.where(green, near, diagonal))
        return rounded(np.stack(planes, axis=2))

    return "5 x 5 demosaic", apply


def _median_differences(rng: Random) -> tuple[str, Operator]:
    """Means of neighbours, then a median of the differences from green (Freeman 1988); BGGR."""

    def apply(pixels: Pixels, seed: int) -> Pixels:
        rows, columns = np.indices(pixels.shape[:2]) % 2
        own = [(rows == 1) & (columns == 1), rows != columns, (rows == 0) & (columns == 0)]
        planes = []
        for channel, mask in enumerate(own):
            weights = mask.astype(np.float32)
            sums = [
                convolve1d(convolve1d(x, (0.5, 1, 0.5), axis=0, mode="mirror"), (0.5, 1, 0.5),
                           axis=1, mode="mirror")
                for x in (pixels[..., channel] * weights, weights)
            ]  # fmt: skip
            mean = sums[0] / np.maximum(sums[1], 1e-6)
            planes.append(np.where(mask, pixels[..., channel], mean))
        green = planes[1]
        for channel in (0, 2):
            planes[channel] = green + median_filter(planes[channel] - green, 3)
        return rounded(np.stack(planes, axis=2))

    return "median of differences", apply


def _rec2020(rng: Random) -> tuple[str, Operator]:
    """Colours coded for Rec. 2020 and read as sRGB."""
    part = rng.uniform(0.6, 1.0)
    matrix = part * np.array(_REC2020_FROM_SRGB) + (1 - part) * np.eye(3)
    return f"Rec. 2020 read as sRGB, {part:.2f}", lambda p, s: changes.colour_matrix(p, matrix)


def _vibrance(rng: Random) -> tuple[str, Operator]:
    """Saturation of the levels, most of it where colours are dull."""
    strength = rng.uniform(0.4, 1.0)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        levels = pixels.astype(np.float64)
        luma = levels @ np.array([0.299, 0.587, 0.114])
        colours = levels - luma[..., None]
        dull = 1 - np.ptp(levels, axis=2) / np.maximum(levels.max(axis=2), 1)
        return rounded(luma[..., None] + (1 + strength * dull)[..., None] * colours)

    return f"vibrance {strength:.2f}", apply
