"""Synthetic devices for known answers: a change of one, two or three stages of the pipeline.

``known`` operators are those that attribution tries itself. The others change a stage by another
kernel, curve, encoder or matrix: ``seen`` ones were looked at while attribution was made better,
``unseen`` ones (``heterogeneity_unseen``) only judge it.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import convolve, convolve1d, gaussian_filter, median_filter

from shardwright.quality.heterogeneity import changes
from shardwright.quality.heterogeneity.device_statistics import LIGHT

Pixels = npt.NDArray[np.uint8]
Random = np.random.Generator
Operator = Callable[[Pixels, int], Pixels]
"""A device's change of a stage; the seed is that of an image."""


def device(
    stages: Sequence[str], make: Callable[[str, Random], tuple[str, Operator]], rng: Random
) -> tuple[str, Operator]:
    """A device that changes some stages, in the order of the pipeline."""
    made = [make(stage, rng) for stage in changes.PIPELINE if stage in stages]

    def apply(pixels: Pixels, seed: int) -> Pixels:
        for _, operator in made:
            pixels = operator(pixels, seed)
        return pixels

    return ", ".join(name for name, _ in made), apply


# --- known operators: those of changes.py --------------------------------------------------------


def known(stage: str, rng: Random) -> tuple[str, Operator]:
    """A change that attribution tries itself, from just visible to strong."""
    sign = rng.choice([-1.0, 1.0])
    between = rng.uniform
    amount = {
        "white_balance": lambda: sign * between(0.2, 0.6),
        "tone": lambda: between(1.3, 2.0) ** sign,
        "noise": lambda: between(2.0, 10.0),
        "sharpness": lambda: -between(0.6, 1.5) if sign < 0 else between(0.5, 2.0),
        "compression": lambda: float(round(between(30, 90))),
        "demosaic": lambda: between(0.6, 1.0),
        "gamut": lambda: between(0.5, 0.78) if sign < 0 else between(1.3, 1.9),
    }[stage]()
    return f"{stage} {amount:.3g}", lambda pixels, seed: changes.change(pixels, stage, amount, seed)


# --- unknown operators ---------------------------------------------------------------------------


def seen(stage: str, rng: Random) -> tuple[str, Operator]:
    """A change by another operator than attribution tries, which was looked at."""
    choices = {
        "white_balance": (_cross_talk, _level_gains),
        "tone": (_sigmoid, _filmic, _local_contrast),
        "noise": (_shot, _blotches, _denoised),
        "sharpness": (_box, _motion, _edge_filter),
        "compression": (_flat_tables, _tilted_tables, _webp),
        "demosaic": (_nearest, _smooth_hue),
        "gamut": (_display_p3, _adobe),
    }[stage]
    return choices[rng.integers(len(choices))](rng)


def _cross_talk(rng: Random) -> tuple[str, Operator]:
    """Gains with cross-talk between channels, in linear light."""
    red, blue = 2 ** (rng.choice([-1, 1]) * rng.uniform(0.2, 0.6) * np.array([1, -0.8]))
    leak = rng.uniform(0.02, 0.06)
    matrix = np.diag([red, 1, blue]) @ ((1 - 3 * leak) * np.eye(3) + leak)
    return f"wb 3x3 {red:.2f} {blue:.2f}", lambda p, s: changes.colour_matrix(p, matrix)


def _level_gains(rng: Random) -> tuple[str, Operator]:
    """Gains of the levels, not of light."""
    stops = rng.choice([-1, 1]) * rng.uniform(0.1, 0.3)
    gains = 2 ** (stops * np.array([1, 0, -1]))
    return f"wb of levels {gains[0]:.2f}", lambda p, s: rounded(p * gains)


def _sigmoid(rng: Random) -> tuple[str, Operator]:
    steep = rng.uniform(4, 8)
    x = np.arange(256) / 255
    curve = 1 / (1 + np.exp(-steep * (x - 0.45)))
    curve = (curve - curve[0]) / (curve[-1] - curve[0])
    return f"sigmoid {steep:.1f}", table(curve)


def _filmic(rng: Random) -> tuple[str, Operator]:
    """Hable's curve on linear light, at some exposure."""
    exposure = rng.uniform(2.0, 5.0)

    def hable(x: Any) -> Any:
        return (x * (0.15 * x + 0.05) + 0.004) / (x * (0.15 * x + 0.5) + 0.06) - 0.02 / 0.3

    light = hable(exposure * LIGHT) / hable(exposure * 2.0)
    light = np.clip(light, 0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return f"filmic {exposure:.1f}", table(curve)


def _local_contrast(rng: Random) -> tuple[str, Operator]:
    """Shadows lifted by what is around, as phones do."""
    strength = rng.uniform(0.35, 0.7)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        luma = np.asarray(Image.fromarray(pixels).convert("L")) / 255
        around = gaussian_filter(luma, 20)
        gamma = 2.0 ** (strength * (around - 0.6) * 2)
        return rounded(255 * (pixels / 255) ** gamma[..., None])

    return f"local contrast {strength:.2f}", apply


def _shot(rng: Random) -> tuple[str, Operator]:
    """Poisson noise: its variance grows with linear light."""
    electrons = 2 ** rng.uniform(7.5, 11)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        light = np.random.default_rng(seed).poisson(LIGHT[pixels] * electrons) / electrons
        curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        return rounded(255 * curve)

    return f"shot noise {electrons:.0f} e", apply


def _blotches(rng: Random) -> tuple[str, Operator]:
    """Noise of the colour differences, wider than a pixel."""
    sigma = rng.uniform(4, 12)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        noise = np.random.default_rng(seed).normal(0, 1, (*pixels.shape[:2], 2))
        noise = gaussian_filter(noise, (0.6, 0.6, 0))
        noise *= sigma / noise.std()
        red, blue = noise[..., 0], noise[..., 1]
        green = -(0.299 * red + 0.114 * blue) / 0.587
        return rounded(pixels + np.stack([red, green, blue], axis=2))

    return f"colour noise {sigma:.1f}", apply


def _denoised(rng: Random) -> tuple[str, Operator]:
    """Noise and then a median, which leaves some of it, in blotches."""
    sigma = rng.uniform(6, 14)

    def apply(pixels: Pixels, seed: int) -> Pixels:
        noisy = pixels + np.random.default_rng(seed).normal(0, sigma, pixels.shape)
        soft = median_filter(noisy, (3, 3, 1))
        flat = np.abs(noisy - soft) < 3 * sigma
        return rounded(np.where(flat, 0.6 * soft + 0.4 * noisy, noisy))

    return f"denoised noise {sigma:.1f}", apply


def _box(rng: Random) -> tuple[str, Operator]:
    part = rng.uniform(0.3, 1.0)
    kernel = np.array([part, 1, part]) / (1 + 2 * part)
    return f"box blur {part:.2f}", separable(kernel, kernel)


def _motion(rng: Random) -> tuple[str, Operator]:
    length = int(rng.integers(3, 6))
    kernel = np.ones(length) / length
    return f"motion blur {length}", separable(kernel, np.ones(1))


def _edge_filter(rng: Random) -> tuple[str, Operator]:
    """Sharpening by the Laplacian of 3 x 3, as old cameras and editors do."""
    strength = rng.uniform(0.08, 0.3)
    kernel = -strength * np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1.0]])
    kernel[1, 1] = 1 + 8 * strength

    def apply(pixels: Pixels, seed: int) -> Pixels:
        return rounded(convolve(pixels.astype(np.float32), kernel[..., None], mode="nearest"))

    return f"3x3 sharpening {strength:.2f}", apply


def _flat_tables(rng: Random) -> tuple[str, Operator]:
    """The same step for all frequencies."""
    step = int(rng.integers(6, 28))
    return f"JPEG, all steps {step}", jpeg([[step] * 64] * 2)


def _tilted_tables(rng: Random) -> tuple[str, Operator]:
    """Steps that grow with the frequency, unlike the standard ones, at full colour."""
    low, slope = rng.uniform(2, 10), rng.uniform(0.5, 3)
    table = [int(np.clip(low + slope * (u + v), 1, 255)) for u in range(8) for v in range(8)]
    return f"JPEG, steps {low:.0f} + {slope:.1f} f", jpeg([table, table], 0)


def _webp(rng: Random) -> tuple[str, Operator]:
    quality = int(rng.integers(20, 80))

    def apply(pixels: Pixels, seed: int) -> Pixels:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "WEBP", quality=quality, method=2)
        return np.array(Image.open(out).convert("RGB"))

    return f"WebP {quality}", apply


def _nearest(rng: Random) -> tuple[str, Operator]:
    """Colours of the nearest samples of the mosaic and green of four neighbours (GBRG)."""

    def apply(pixels: Pixels, seed: int) -> Pixels:
        height, width = (size // 2 * 2 for size in pixels.shape[:2])
        found = pixels[:height, :width].astype(np.float32)
        red, blue = found[1::2, ::2, 0], found[::2, 1::2, 2]
        green = found[..., 1]
        around = convolve(green, np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4, mode="mirror")
        own = np.zeros((height, width), bool)
        own[::2, ::2] = own[1::2, 1::2] = True
        green = np.where(own, green, around)
        planes = [red.repeat(2, 0).repeat(2, 1), green, blue.repeat(2, 0).repeat(2, 1)]
        return rounded(np.stack(planes, axis=2))

    return "nearest colours", apply


def _smooth_hue(rng: Random) -> tuple[str, Operator]:
    """Green by direction of the smaller gradient, colours by their difference from green."""

    def apply(pixels: Pixels, seed: int) -> Pixels:
        found = pixels.astype(np.float32)
        rows, columns = np.indices(pixels.shape[:2])
        at_red = (rows % 2 == 0) & (columns % 2 == 0)
        at_blue = (rows % 2 == 1) & (columns % 2 == 1)
        raw = np.where(at_red, found[..., 0], np.where(at_blue, found[..., 2], found[..., 1]))
        estimates, gradients = [], []
        for axis in (0, 1):
            mean = convolve1d(raw, (0.5, 0, 0.5), axis=axis, mode="mirror")
            bend = convolve1d(raw, (-0.25, 0, 0.5, 0, -0.25), axis=axis, mode="mirror")
            edge = convolve1d(raw, (1, 0, -1), axis=axis, mode="mirror")
            curve = convolve1d(raw, (-1, 0, 2, 0, -1), axis=axis, mode="mirror")
            estimates.append(mean + bend)
            gradients.append(np.abs(edge) + np.abs(curve))
        better = np.where(gradients[0] < gradients[1], estimates[0], estimates[1])
        green = np.where(at_red | at_blue, better, found[..., 1])
        planes = [green, green, green]
        for channel, own in ((0, at_red), (2, at_blue)):
            near = np.where(own, found[..., channel] - green, 0)
            weights = (0.5, 1, 0.5)
            sums = [
                convolve1d(convolve1d(x, weights, axis=0, mode="mirror"), weights, axis=1,
                           mode="mirror")
                for x in (near, own.astype(np.float32))
            ]  # fmt: skip
            planes[channel] = green + sums[0] / np.maximum(sums[1], 1e-6)
        return rounded(np.stack(planes, axis=2))

    return "gradient demosaic", apply


def _display_p3(rng: Random) -> tuple[str, Operator]:
    matrix = np.array(changes.P3_FROM_SRGB)
    return "P3 read as sRGB", lambda p, s: changes.colour_matrix(p, matrix)


def _adobe(rng: Random) -> tuple[str, Operator]:
    """Adobe RGB read as sRGB, or the other way round; all with the curve of sRGB."""
    to_adobe = np.array([[0.7152, 0.2848, 0], [0, 1, 0], [0, 0.0412, 0.9588]])
    if rng.uniform() < 0.5:
        return "Adobe RGB read as sRGB", lambda p, s: changes.colour_matrix(p, to_adobe)
    inverse = np.linalg.inv(to_adobe)
    return "sRGB read as Adobe RGB", lambda p, s: changes.colour_matrix(p, inverse)


def table(curve: npt.NDArray[Any]) -> Operator:
    """A curve of 256 levels from 0 to 1, the same for all channels."""
    levels = rounded(255 * curve)
    return lambda pixels, seed: levels[pixels]


def separable(down: npt.NDArray[Any], across: npt.NDArray[Any]) -> Operator:
    """Two kernels, one along either axis."""

    def apply(pixels: Pixels, seed: int) -> Pixels:
        wide = convolve1d(pixels.astype(np.float32), down, axis=0, mode="nearest")
        return rounded(convolve1d(wide, across, axis=1, mode="nearest"))

    return apply


def jpeg(tables: Sequence[Sequence[int]], subsampling: int = 2) -> Operator:
    """JPEG by tables of luma and chroma."""

    def apply(pixels: Pixels, seed: int) -> Pixels:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", qtables=tables, subsampling=subsampling)
        return np.array(Image.open(out))

    return apply


def rounded(values: npt.NDArray[Any]) -> Pixels:
    """The nearest levels."""
    found: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found
