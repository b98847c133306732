"""Scores of a picture's looks, all from one decode: dark, blurry, cut off, and so on.

Every score lies in 0..1 and low is bad, as in CleanVision (Cleanlab), whose definitions ``dark``,
``bright`` and ``odd_aspect_ratio`` follow; ``low_information`` is its entropy, but of the luminance
alone, and ``low_contrast`` has the percentiles of scikit-image's ``is_low_contrast``. The bounds of
``dark`` and ``odd_aspect_ratio`` are CleanVision's; the others were chosen on 2,000 real pictures,
with and without planted faults. Sizes relative to a collection are a query over width and height.

Scores that need pixels are taken from a working picture: the first frame as it is stored, not
turned by EXIF, halved until it has at most 2**17 pixels, and halved once more for all but
``blurry`` where that has more than 2**16. A JPEG is halved by its decoder, which is what makes this
cheaper than decoding it whole. Transparency goes onto mid grey, neither dark nor bright, so that a
picture is judged by what it draws. Scores are ratios of whole numbers, or rounded: the same on
every machine.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from shardwright.embeddings.pixels import decode_rgb, opened
from shardwright.quality.filters import Filter

_PIXELS = 2**17
_FEW_PIXELS = 2**16
_GREY = 128
_ROOMY = 256  # pixels of the shorter side from which size is no question
_REACH = 4  # half the width, in pixels, of the blur that sharpness is tested against
_NOISE = 2  # steps of so few levels come from rounding and compression, not from edges
_FLAT = 8  # levels that a plain border may vary by, as compression makes it
_CODED_ROWS = 34  # that a JPEG leaves half filled where it was cut, and then was saved again
_VIVID = 64  # levels between the channels of a plainly coloured pixel

Plane = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


class _Picture:
    """A picture that is decoded when a score first asks for its pixels."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        with opened(data) as image:
            self.size = image.size

    @functools.cached_property
    def _decoded(self) -> tuple[Image.Image, bool]:
        return _decode(self._data, _halvings(self.size, _PIXELS))

    @property
    def shown(self) -> Image.Image:
        """The working picture, mode L or RGB."""
        return self._decoded[0]

    @property
    def opaque(self) -> bool:
        """Whether nothing of the picture is transparent."""
        return self._decoded[1]

    @functools.cached_property
    def small(self) -> Image.Image:
        """The small picture, mode L or RGB."""
        step = _halvings(self.shown.size, _FEW_PIXELS)
        return self.shown.reduce(step) if step > 1 else self.shown

    @functools.cached_property
    def light(self) -> Image.Image:
        """Luminance (Rec. 601) of the small picture, mode L."""
        return self.small.convert("L")

    @functools.cached_property
    def colour(self) -> Image.Image:
        """Greatest less least channel of the small picture, mode L."""
        if self.small.mode == "L":
            return Image.new("L", self.small.size)
        red, green, blue = self.small.split()
        most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
        return ImageChops.subtract(most, ImageChops.darker(ImageChops.darker(red, green), blue))

    @functools.cached_property
    def lights(self) -> Counts:
        """Pixels at each of the 256 levels of luminance."""
        return np.array(self.light.histogram())

    @functools.cached_property
    def colours(self) -> Counts:
        """Pixels at each of the 256 levels of colour."""
        return np.array(self.colour.histogram())

    @functools.cached_property
    def planes(self) -> tuple[Plane, Plane]:
        """Luminance and colour, uint8 [height, width]."""
        return np.asarray(self.light), np.asarray(self.colour)


def _halvings(size: tuple[int, int], pixels: int) -> int:
    """The least power of two that divides both sides so that at most ``pixels`` are left."""
    step = 1
    while -(-size[0] // step) * -(-size[1] // step) > pixels:
        step *= 2
    return step


def _decode(data: bytes, step: int) -> tuple[Image.Image, bool]:
    """A picture with sides divided by ``step``, mode L or RGB, and whether all of it is opaque."""
    with opened(data) as image:
        longest = max(image.size)
        image.draft(None, (image.width // step, image.height // step))
        image.load()
        if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"):
            image = decode_rgb(data)  # 16 bits, floats and rarer ones
        left = step // round(longest / max(image.size))  # what no decoder has divided by
        if image.has_transparency_data:
            image = image if image.mode == "RGBA" else image.convert("RGBA")
            if np.asarray(image.getchannel("A")).min() == 255:  # a channel at a time saves a copy
                channels = [image.getchannel(name).reduce(left) for name in "RGB"]
                return Image.merge("RGB", channels), True
        elif image.mode in ("1", "P"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        image = image.reduce(left) if left > 1 else image
        if image.mode == "RGBA":
            ground = Image.new("RGB", image.size, (_GREY, _GREY, _GREY))
            ground.paste(image, mask=image)
            return ground, False
        return image if image.mode in ("L", "RGB") else image.convert("RGB"), True


def _level(counts: Counts, percent: int) -> int:
    """The least level that ``percent`` of the pixels do not exceed."""
    below = np.cumsum(counts)
    return int(np.searchsorted(below * 100, int(below[-1]) * percent))


def _dark(picture: _Picture) -> float:
    return _level(picture.lights, 99) / 255


def _bright(picture: _Picture) -> float:
    return 1 - _level(picture.lights, 5) / 255


def _low_contrast(picture: _Picture) -> float:
    levels = (picture.lights, picture.colours)
    return max(_level(counts, 99) - _level(counts, 1) for counts in levels) / 255


def _low_information(picture: _Picture) -> float:
    counts = [count for count in picture.lights.tolist() if count]
    total = sum(counts)
    entropy = math.fsum(count / total * math.log2(total / count) for count in counts)
    return round(entropy / 8, 6)  # logarithms differ between machines in their last bit


def _blurry(picture: _Picture) -> float:
    light = np.asarray(picture.shown.convert("L"))
    if int(light.max()) - int(light.min()) <= _FLAT:
        return 1.0  # nothing that could be sharp
    # every second line is enough
    return min(_sharpness(np.ascontiguousarray(light[:, ::2])), _sharpness(light[::2].T))


def _sharpness(light: Plane) -> float:
    """How much of the steps from row to row a blur down the columns takes away, 0..1.

    The blur effect of Crete et al. (2007), "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric", with its average over nine pixels and its difference of
    neighbours; what is already blurred loses little. Unlike there, a step counts by its square, so
    that few sharp edges outweigh much that is smooth, and the least steps are noise. After an
    average over n pixels, neighbours differ by an n-th of what the pixels that enter and leave it
    differ by: so no average is taken.
    """
    width = 2 * _REACH + 1
    if len(light) <= width:
        return 1.0
    step = _distance(light[_REACH + 1 : -_REACH], light[_REACH : -_REACH - 1])
    after = _distance(light[width:], light[:-width]) // width
    lost = (step - np.minimum(step, after)) * (step > _NOISE)
    total = _product(step, step)
    return _product(lost, step) / total if total else 1.0


def _distance(a: Plane, b: Plane) -> Plane:
    distance: Plane = np.maximum(a, b) - np.minimum(a, b)
    return distance


def _product(a: Plane, b: Plane) -> int:
    return int(np.multiply(a, b, dtype=np.uint16).sum(dtype=np.int64))


def _odd_size(picture: _Picture) -> float:
    return min(1.0, min(picture.size) / _ROOMY)


def _odd_aspect_ratio(picture: _Picture) -> float:
    return min(picture.size) / max(picture.size)


def _grayscale(picture: _Picture) -> float:
    return min(1.0, _level(picture.colours, 99) / _VIVID)


def _truncated(picture: _Picture) -> float:
    if not picture.opaque:
        return 1.0
    light, colour = picture.planes
    plain = colour.max(axis=1) <= 2
    least, most = light.min(axis=1), light.max(axis=1)
    rows = -(-_CODED_ROWS * len(light) // picture.size[1])
    return min(
        _tail(light, plain & (least >= filler - 2) & (most <= filler + 2), filler, rows)
        for filler in (0, _GREY)
    )


def _tail(light: Plane, filled: npt.NDArray[np.bool_], filler: int, rows: int) -> float:
    """Share of the rows above the filler at the bottom, or 1 where it looks drawn."""
    height = len(filled)
    if filled[0] or not filled[-1]:  # a frame, bars above and below, or no filler
        return 1.0
    kept = height - int(np.argmin(filled[::-1]))
    whole = kept - 1 - rows  # the last row that is surely not cut itself
    if whole < 0:
        return 1.0
    other = np.abs(light[whole].astype(np.int16) - filler) > 2
    if np.count_nonzero(other) * 4 < other.size * 3:  # something that stands on this ground
        return 1.0
    return kept / height


def _uniform_borders(picture: _Picture) -> float:
    planes = np.stack(picture.planes)
    size = planes.size
    ranges = [(np.full((2, 1), 255, np.uint8), np.zeros((2, 1), np.uint8))] * 4
    taken = 1
    while taken:
        taken = 0
        for side, known in enumerate(ranges):  # each side in turn lies on top
            depth, ranges[side] = _margin(planes, known)
            planes = np.rot90(planes[:, depth:], axes=(1, 2))
            taken += depth
            if not planes.size:
                return 0.0
    return float(planes.size / size)


def _margin(planes: Plane, known: tuple[Plane, Plane]) -> tuple[int, tuple[Plane, Plane]]:
    """How many of the upper rows are plain, also beside what has been taken off above them.

    Args:
        planes: uint8 [2, height, width].
        known: Least and greatest levels of what has been taken off, uint8 [2, 1] each.

    Returns:
        The rows, and the least and greatest levels with them.
    """
    for rows in (1, planes.shape[1]):  # in most pictures the first row settles it
        least = np.concatenate([known[0], planes[:, :rows].min(axis=2)], axis=1)
        most = np.concatenate([known[1], planes[:, :rows].max(axis=2)], axis=1)
        least, most = np.minimum.accumulate(least, axis=1), np.maximum.accumulate(most, axis=1)
        plain = (most[:, 1:] - least[:, 1:] <= _FLAT).all(axis=0)
        depth = rows if plain.all() else int(np.argmin(plain))
        if not depth:
            return 0, known
    return depth, (least[:, depth : depth + 1], most[:, depth : depth + 1])


_MEASURES: dict[str, Callable[[_Picture], float]] = {
    "dark": _dark,
    "bright": _bright,
    "low_contrast": _low_contrast,
    "low_information": _low_information,
    "blurry": _blurry,
    "odd_size": _odd_size,
    "odd_aspect_ratio": _odd_aspect_ratio,
    "grayscale": _grayscale,
    "truncated": _truncated,
    "uniform_borders": _uniform_borders,
}


def _filter(name: str, least: float | None, description: str) -> Filter:
    return Filter(name, "image", "number", least, None, description, "looks")


FILTERS: tuple[Filter, ...] = (
    _filter("dark", 0.32, "99th percentile of the luminance"),
    _filter("bright", 0.08, "1 less the 5th percentile of the luminance"),
    _filter("low_contrast", 0.1, "99th less 1st percentile, of luminance or of colour"),
    _filter("low_information", 0.05, "entropy of the luminance in bits, by 8"),
    _filter("blurry", 0.45, "share of the steps between pixels that one more blur takes away"),
    _filter("odd_size", 0.125, f"shorter side by {_ROOMY} pixels, at most 1"),
    _filter("odd_aspect_ratio", 0.35, "shorter by longer side"),
    _filter("grayscale", None, f"99th percentile of the spread between channels by {_VIVID}"),
    _filter("truncated", 0.95, "share of the rows above a tail of black or mid grey"),
    _filter("uniform_borders", None, "share of the area inside of plain borders"),
)


def measure_image(names: Sequence[str], data: bytes) -> dict[str, float]:
    """Scores a picture; what its header cannot tell comes from a single decode.

    Pillow's guard against decompression bombs holds: lift ``Image.MAX_IMAGE_PIXELS`` for pictures
    that were decoded before under limits of their own.

    Args:
        names: Names out of ``FILTERS``.
        data: The encoded bytes, in any format that Pillow opens.

    Returns:
        Each name's score, in 0..1, low being bad.

    Raises:
        DataError: the bytes are no image that Pillow can decode.
        KeyError: a name that is not in ``FILTERS``.
    """
    measures = {name: _MEASURES[name] for name in names}
    picture = _Picture(data)
    return {name: measure(picture) for name, measure in measures.items()}
