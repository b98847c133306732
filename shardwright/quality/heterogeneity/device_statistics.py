"""Statistics of a picture that track the stages of the pipeline that made it, one at a time.

Each is chosen to move with its own stage and to stay where another stage changes; what it still
owes to what the picture shows is for whoever compares groups to match. Pixels are never resized,
which would wipe the traces out: of a large picture the middle, at most 1024 x 1024 at full
resolution and on the grid of 16 pixels of a JPEG's coded units, is what all of them are taken from.
Same pixels, same bits, whatever else is measured; between machines the last ones may differ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from shardwright.quality.heterogeneity import pixel_blocks, pixel_edges, pixel_noise
from shardwright.quality.heterogeneity.provenance import Provenance

SIDE = 1024
"""Pixels each way of the middle that is measured."""

IN_HEADER = (
    *("icc_tagged", "icc_area", "exposure", "aperture", "iso", "size", "maker_note"),
    *("jpeg_quality", "jpeg_chroma_quality", "jpeg_rmse", "jpeg_chroma_share", "jpeg_progressive"),
)
"""Statistics that come from what the file says, and not from pixels."""

STAGES = ("white_balance", "tone", "noise", "sharpness", "compression", "demosaic", "gamut")

_GRID = 16  # pixels of a coded unit with colour at half the size
_UNSATURATED = 250  # levels: of all channels, below
_LIT = 8  # levels: of the greatest channel, from
_TONES = (1, 5, 25, 50, 75, 95, 99)
_FEWEST = 16  # pixels for colours
_LEAST_DEPTH = 0.05  # stops
_BRIGHT = 40  # levels of the greatest channel, from which ratios of channels are not rounding
_PUREST = 1.0  # percent of the pixels
_GREY = 0.01  # added to the ratio of the channels: below it all colours are as pure

Pixels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

_LEVELS = np.arange(256) / 255
LIGHT = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4)
"""Linear light of each level (IEC 61966-2-1), float64 [256]."""

_LOG_LIGHT = np.log2(LIGHT + LIGHT[16])  # what is all but black or out of range weighs little


@dataclass(frozen=True)
class Statistic:
    """One column of ``device_statistics``.

    Attributes:
        name: Of the column.
        stage: The stage that it tracks, one of ``STAGES``; None for facts of no stage.
        unit: Of its values.
        description: One line.
    """

    name: str
    stage: str | None
    unit: str
    description: str


def measure(pixels: Pixels, facts: Provenance | None = None) -> dict[str, float]:
    """All statistics of one picture.

    Args:
        pixels: uint8 [height, width, 3], RGB as stored.
        facts: What the file says; without it, what comes from the header is NaN.

    Returns:
        Value by name, in the order of ``STATISTICS``; NaN where one does not apply, as on pictures
        too small for it or without a pixel that it could be taken from.

    Raises:
        ValueError: pixels of another shape or type, or none.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not uint8 [height, width, 3]")
    own = np.ascontiguousarray(middle(pixels))
    light = Image.fromarray(own).convert("L")
    luma = np.asarray(light)
    values = _header(facts) | _tone(np.array(light.histogram()))
    green = Image.fromarray(np.ascontiguousarray(own[..., 1]))
    values |= _comb(np.array(green.histogram()))
    values |= _balance(np.ascontiguousarray(own[pixel_noise.thinned(len(own))]))
    values |= _colours(own, luma)
    values |= pixel_noise.measure(own, luma)
    values |= pixel_edges.measure(luma, values.get("noise_flat", math.nan))
    values |= pixel_blocks.measure(luma)
    return {one.name: values.get(one.name, math.nan) for one in STATISTICS}


def middle(pixels: Pixels) -> Pixels:
    """The part that is measured: a view, at most 1024 x 1024, from a multiple of 16 pixels on."""
    rows, columns = (max(0, (size - SIDE) // 2) // _GRID * _GRID for size in pixels.shape[:2])
    return pixels[rows : rows + SIDE, columns : columns + SIDE]


def _header(facts: Provenance | None) -> dict[str, float]:
    if facts is None:
        return {}
    values = {
        "icc_tagged": float(facts.icc_sha256 is not None),
        "icc_area": math.nan if facts.icc_area is None else facts.icc_area,
        "exposure": _log(facts.exposure_time),
        "aperture": _log(facts.f_number),
        "iso": _log(facts.iso),
        "size": math.log2(facts.width * facts.height),
        "maker_note": float(facts.maker_note),
    }
    if facts.jpeg is not None:
        jpeg = facts.jpeg
        values |= {
            "jpeg_quality": float(jpeg.quality),
            "jpeg_chroma_quality": float(jpeg.chroma_quality or math.nan),
            "jpeg_rmse": jpeg.rmse,
            "jpeg_chroma_share": jpeg.chroma_share or math.nan,
            "jpeg_progressive": float(jpeg.progressive),
        }
    return values


def _log(value: float | None) -> float:
    return math.nan if value is None else math.log2(value)


def _levels(counts: Counts, shares: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Levels below which shares of the pixels lie, each level spread evenly over its step."""
    above = np.cumsum(counts)
    targets = np.asarray(shares, np.float64) * above[-1]
    level = np.searchsorted(above, targets)
    below = above[level] - counts[level]
    found: npt.NDArray[np.float64] = level + (targets - below) / counts[level] - 0.5
    return found


def _tone(counts: Counts) -> dict[str, float]:
    total = int(counts.sum())
    shown = _levels(counts, np.array(_TONES) / 100) / 255
    quantiles = {f"luma_{p:02d}": float(level) for p, level in zip(_TONES, shown, strict=True)}
    levels = np.arange(256)
    mean = float((counts * levels).sum()) / total
    variance = float((counts * levels**2).sum()) / total - mean**2
    median = min(max(quantiles["luma_50"], 1 / 512), 1 - 1 / 512)
    return quantiles | {
        "gamma": math.log(median) / math.log(0.5),
        "clipped_dark": float(counts[0]) / total,
        "clipped_bright": float(counts[255]) / total,
        "contrast": math.sqrt(max(variance, 0.0)) / 255,
    }


def _comb(counts: Counts) -> dict[str, float]:
    """Each level against the mean of its neighbours: stretching leaves gaps, squeezing heaps."""
    inner = np.flatnonzero(counts[1:-1]) + 1
    if not len(inner) or inner[-1] - inner[0] < 16:
        return {}
    span = counts[inner[0] : inner[-1] + 1].astype(np.float64)
    around = (span[:-2] + span[2:]) / 2
    return {"comb": float(np.abs(span[1:-1] - around).sum() / (span[1:-1] + around).sum())}


def _balance(pixels: Pixels) -> dict[str, float]:
    """Ratios of the channels' light."""
    most = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    usable = (most < _UNSATURATED) & (most >= _LIT)
    if not usable.any():
        return {}
    mask = Image.fromarray(usable.view(np.uint8) * np.uint8(255))
    counts = np.array(Image.fromarray(pixels).histogram(mask)).reshape(3, 256)
    total = int(counts[0].sum())
    mean = [math.fsum((own * LIGHT).tolist()) / total for own in counts]
    white = [float(np.interp(_levels(own, 0.99) / 255, _LEVELS, LIGHT)) for own in counts]
    values = {}
    for name, light in (("grey_world", mean), ("white_patch", white)):
        for colour, one in (("red", light[0]), ("blue", light[2])):
            ratio = one and light[1]
            values[f"{name}_{colour}"] = math.log2(one / light[1]) if ratio else math.nan
    return values


def _colours(pixels: Pixels, luma: Pixels) -> dict[str, float]:
    """Where the colours lie, and how far apart by how far apart the lights are.

    In stops: logarithms turn gains of the channels into shifts, which spreads do not see, and by
    the spread of the luma a power of the levels cancels too.
    """
    rows, columns = (pixel_noise.thinned(size) for size in luma.shape)
    few = np.dstack([pixels[rows, columns], luma[rows, columns]]).reshape(-1, 4).T
    few = np.ascontiguousarray(few)
    most = few[:3].max(axis=0)
    places = np.flatnonzero((most < _UNSATURATED) & (most >= _LIT))
    if len(places) < _FEWEST:
        return {}
    few, most = few.take(places, axis=1), most[places]
    red, green, blue, tone = _LOG_LIGHT[few]
    redness, blueness = red - green, blue - green
    values = {"median_red": float(np.median(redness)), "median_blue": float(np.median(blueness))}
    depth = _spread(tone)
    if depth > _LEAST_DEPTH:
        values["chroma"] = math.hypot(_spread(redness), _spread(blueness)) / depth
    bright = most >= _BRIGHT
    if np.count_nonzero(bright) >= _FEWEST:
        least = few[:3].min(axis=0)
        ratio = LIGHT[least[bright]] / LIGHT[most[bright]]
        values["purity"] = float(-np.log2(np.percentile(ratio, _PUREST) + _GREY))
    return values


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Mean distance from the mean, which a few colours move less than they do the deviation."""
    return float(np.abs(values - values.mean()).mean())


def _tones() -> list[tuple[str, str, str, str]]:
    unit = "share of white"
    return [
        (f"luma_{p:02d}", "tone", unit, f"percentile {p} of the luma (Rec. 601)") for p in _TONES
    ]


STATISTICS: tuple[Statistic, ...] = tuple(
    Statistic(*one)
    for one in [
        ("grey_world_red", "white_balance", "stops", "mean red by mean green, of light"),
        ("grey_world_blue", "white_balance", "stops", "mean blue by mean green, of light"),
        ("white_patch_red", "white_balance", "stops", "99th percentile of red by that of green"),
        ("white_patch_blue", "white_balance", "stops", "99th percentile of blue by that of green"),
        ("median_red", "white_balance", "stops", "median of red by green, of light"),
        ("median_blue", "white_balance", "stops", "median of blue by green, of light"),
        ("gamma", "tone", "exponent", "log of the median luma by log of one half"),
        *_tones(),
        ("clipped_dark", "tone", "share", "pixels of luma 0"),
        ("clipped_bright", "tone", "share", "pixels of luma 255"),
        ("contrast", "tone", "share of white", "standard deviation of the luma"),
        ("comb", "tone", "share", "roughness of the histogram of green"),
        *pixel_noise.STATISTICS,
        *pixel_edges.STATISTICS,
        ("jpeg_quality", "compression", "quality", "of the header's table of luma"),
        ("jpeg_chroma_quality", "compression", "quality", "of the header's table of chroma"),
        ("jpeg_rmse", "compression", "steps", "of the table of luma from the nearest standard one"),
        ("jpeg_chroma_share", "compression", "share", "samples of chroma by those of luma"),
        ("jpeg_progressive", "compression", "yes or no", "coded in several passes"),
        *pixel_blocks.STATISTICS,
        ("icc_tagged", "gamut", "yes or no", "has an ICC profile"),
        ("icc_area", "gamut", "sRGB", "area of the profile's primaries in x, y"),
        ("chroma", "gamut", "ratio", "spread of red and of blue by green, by that of the luma"),
        ("purity", "gamut", "stops", "greatest by least channel of the purest colours, of light"),
        ("iso", None, "log2", "EXIF sensitivity"),
        ("exposure", None, "log2 s", "EXIF exposure time"),
        ("aperture", None, "log2", "EXIF f-number"),
        ("maker_note", None, "yes or no", "EXIF has a maker's note"),
        ("size", None, "log2 pixels", "width times height"),
    ]
)
"""Every statistic, in the order of the columns."""


def stages() -> Mapping[str, tuple[str, ...]]:
    """Names of the statistics of each stage."""
    return {stage: tuple(one.name for one in STATISTICS if one.stage == stage) for stage in STAGES}
