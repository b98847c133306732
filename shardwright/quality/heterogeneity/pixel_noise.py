"""Noise and its texture in flat patches, and the lattice that a colour filter array leaves.

Noise is taken from the second difference both ways, [1 -2 1; -2 4 -2; 1 -2 1], of Immerkaer (1996),
"Fast noise variance estimation": it wipes out planes and straight edges along the axes, and white
noise of deviation s has 6 s after it. Flat patches are those of 8 x 8 pixels whose mean differs
least from their neighbours' means: what noise does to single pixels does not choose them. They are
the blocks of a JPEG, and differences stay inside of them, so that steps between blocks are none.
"""

import math

import numpy as np
import numpy.typing as npt

_PATCH = 8
_FLAT = 0.25  # of the patches
_FEWEST, _MOST = 16, 256  # flat patches
_DARKEST, _BRIGHTEST = 8, 247  # levels of a patch's mean: nearer to the ends noise is clipped
_GAIN = 6.0  # deviation of the residual of white noise by that of the noise
_QUIET = 2.0  # times the median variance of flat patches: above it there is texture
_APART = 8  # levels between the darker and the brighter half of the patches
_ROUNDING = 1 / 12  # variance that whole levels bring along
_EVERY, _BAND = 32, 18  # rows: of each so many, so many are looked at for what is regular
_BANDS = 8
_LINES = 128
_DETAIL = 64  # levels of a Laplacian, so that a few edges do not outweigh the rest
_MOST_ALIKE = 0.9999  # correlation
_HALF = 0.5  # levels: below, it is rounding
_CAP = 32  # of a residual on the lattice, so that a few edges do not outweigh the rest

Plane = npt.NDArray[np.uint8]
Signed = npt.NDArray[np.int16]
Float64 = npt.NDArray[np.float64]

STATISTICS = (
    ("noise_flat", "noise", "levels", "deviation of the luma in flat patches"),
    ("noise_chroma", "noise", "levels", "deviation of red and blue less green in flat patches"),
    ("noise_slope", "noise", "levels", "growth of the variance with the luma, in flat patches"),
    ("noise_channels", "noise", "correlation", "of the channels' noise in flat patches"),
    ("noise_grain", "noise", "log2", "noise two pixels apart by noise of neighbours"),
    ("lattice_green", "demosaic", "log2", "green on one checkerboard by green on the other"),
    ("lattice_colour", "demosaic", "log2", "red less green on one checkerboard by the other"),
    ("detail_alike", "demosaic", "arctanh", "correlation of the detail of red with that of green"),
    ("detail_colour", "demosaic", "log2", "detail of red less green by that at half the size"),
)


def measure(pixels: Plane, luma: Plane) -> dict[str, float]:
    """The statistics of this module, those that apply.

    Args:
        pixels: uint8 [height, width, 3].
        luma: uint8 [height, width].
    """
    if min(luma.shape) < _PATCH:
        return {}
    red, green, blue = (pixels[..., channel] for channel in range(3))
    values = _lattices(red, green)
    rows, columns = _flat_patches(luma)
    if len(rows) < _FEWEST:
        return values
    chosen = [_patches(plane)[rows, columns] for plane in (red, green, blue, luma)]
    return values | _noise(np.stack([own.transpose(1, 2, 0) for own in chosen], axis=2))


def second_difference(levels: npt.NDArray[np.uint8 | np.int16], step: int = 1) -> Signed:
    """Immerkaer's residual of pixels ``step`` apart, over the first two axes.

    Args:
        levels: [height, width, ...], within 255 of 0.
        step: Pixels from the middle to either side.

    Returns:
        int16 [height - 2 step, width - 2 step, ...].
    """
    wide = levels.astype(np.int16)
    rows = wide[step:-step] * np.int16(-2)
    rows += wide[: -2 * step]
    rows += wide[2 * step :]
    both = rows[:, step:-step] * np.int16(-2)
    both += rows[:, : -2 * step]
    both += rows[:, 2 * step :]
    return both


def _patches(plane: Plane) -> Plane:
    """A view of whole patches, [down, across, 8, 8]."""
    down, across = plane.shape[0] // _PATCH, plane.shape[1] // _PATCH
    whole = plane[: down * _PATCH, : across * _PATCH]
    return whole.reshape(down, _PATCH, across, _PATCH).swapaxes(1, 2)


def _flat_patches(luma: Plane) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the flattest patches of those that are neither dark nor bright."""
    down, across = luma.shape[0] // _PATCH, luma.shape[1] // _PATCH
    whole = luma[: down * _PATCH, : across * _PATCH].reshape(down, _PATCH, across * _PATCH)
    starts = np.arange(0, across * _PATCH, _PATCH)
    # at most 64 times 255, and sorted in linear time
    sums = np.add.reduceat(whole.sum(axis=1, dtype=np.int16), starts, axis=1)
    rise = np.zeros_like(sums)
    for mine, own in ((rise, sums), (rise.T, sums.T)):
        step = np.abs(own[1:] - own[:-1])
        np.maximum(mine[1:], step, out=mine[1:])
        np.maximum(mine[:-1], step, out=mine[:-1])
    area = _PATCH * _PATCH
    usable = (sums >= _DARKEST * area) & (sums <= _BRIGHTEST * area)
    places = np.flatnonzero(usable)
    order = np.argsort(rise.ravel()[places], kind="stable")[: round(_FLAT * len(places))]
    chosen = np.sort(places[order])
    return np.divmod(chosen[:: max(1, -(-len(chosen) // _MOST))], across)


def _noise(patches: Plane) -> dict[str, float]:
    """Noise of flat patches, uint8 [8, 8, red and green and blue and luma, patches]."""
    luma = patches[:, :, 3]
    residual = second_difference(patches).astype(np.float64)
    light = residual[:, :, 3]
    power = np.square(light).sum(axis=(0, 1)) / light[..., 0].size / _GAIN**2
    middle = float(np.median(power))
    quiet = np.flatnonzero(power <= _QUIET * middle)
    values = {
        "noise_flat": math.sqrt(middle),
        "noise_slope": _slope(luma.mean(axis=(0, 1), dtype=np.float64), power),
        "noise_grain": _grain(luma[..., quiet], light[..., quiet]),
    }
    colours = residual[:, :, :3].take(quiet, axis=3)
    sums = np.tensordot(colours, colours, ((0, 1, 3), (0, 1, 3))) / colours[:, :, 0].size
    products = {
        a + b: float(sums[row, column]) / _GAIN**2
        for row, a in enumerate("rgb")
        for column, b in enumerate("rgb")
    }
    opposed = products["rr"] + products["bb"] + 2 * products["gg"]
    opposed -= 2 * (products["rg"] + products["gb"])
    values["noise_chroma"] = math.sqrt(max(opposed, 0.0) / 4)
    variances = products["rr"], products["gg"], products["bb"]
    if min(variances) > _ROUNDING:
        pairs = (("rg", "rr", "gg"), ("gb", "gg", "bb"), ("rb", "rr", "bb"))
        values["noise_channels"] = sum(
            products[both] / math.sqrt(products[a] * products[b]) for both, a, b in pairs
        ) / len(pairs)
    return values


def _slope(mean: Float64, power: Float64) -> float:
    """Growth from the darker half to the brighter one; medians, for some patches have texture."""
    dark = mean <= np.median(mean)
    if dark.all() or (apart := float(mean[~dark].mean() - mean[dark].mean())) < _APART:
        return math.nan
    return float(np.median(power[~dark]) - np.median(power[dark])) / apart


def _grain(luma: Plane, near: Float64) -> float:
    """Energy of differences over two pixels by that over one: 0 for white noise."""
    far = second_difference(luma, 2)
    far_power = float(np.square(far, dtype=np.float64).mean()) / _GAIN**2
    near_power = float(np.square(near, dtype=np.float64).mean()) / _GAIN**2
    return math.log2((far_power + _ROUNDING) / (near_power + _ROUNDING))


def _lattices(red: Plane, green: Plane) -> dict[str, float]:
    """Unlike energies on the 2 x 2 lattice.

    An interpolated green pixel is a mean of its neighbours, so that its Laplacian is small, and
    green lies on one checkerboard of every Bayer pattern (Popescu and Farid, 2005, "Exposing
    digital forgeries in color filter array interpolated images"; Gallagher and Chen, 2008).
    """
    level = banded(green)
    colour = banded(red) - level
    of_green, of_colour = laplacian(level), laplacian(colour)
    return {
        "lattice_green": _unlike(of_green),
        "lattice_colour": _unlike(of_colour),
        "detail_alike": _alike(of_green, of_green + of_colour),
        "detail_colour": _fineness(colour, of_colour),
    }


def _alike(a: Signed, b: Signed) -> float:
    """Fisher's z of the correlation: samples filled in from their own colour differ in detail."""
    x, y = (np.clip(one, -_DETAIL, _DETAIL).astype(np.float32) for one in (a, b))
    # whole numbers, of a row below 2**24, and so exact
    of_both, of_x, of_y = (
        float(np.vecdot(*pair).sum(dtype=np.float64)) for pair in ((x, y), (x, x), (y, y))
    )
    product, power = of_both, of_x * of_y
    if not power:
        return math.nan
    return math.atanh(float(np.clip(product / math.sqrt(power), -_MOST_ALIKE, _MOST_ALIKE)))


def _fineness(colour: Signed, detail: Signed) -> float:
    """Mean bend between neighbours by that between means of two by two pixels."""
    rows, columns = (size // 2 * 2 for size in colour.shape[-2:])
    two = colour[..., :rows:2, :columns] + colour[..., 1:rows:2, :columns]
    bend = laplacian(two[..., ::2] + two[..., 1::2])
    near = int(np.abs(detail).sum(dtype=np.uint32)) / detail.size
    far = int(np.abs(bend).sum(dtype=np.uint32)) / bend.size / 4
    return math.log2((near + _HALF) / (far + _HALF))


def banded(plane: Plane) -> Signed:
    """At most 8 times 18 rows, evenly taken, int16 [bands, rows, width]: enough for the regular."""
    height = len(plane)
    if height < _EVERY:
        return plane.astype(np.int16)[None]
    starts = range(0, height - _EVERY + 1, -(-(height // _EVERY) // _BANDS) * _EVERY)
    bands: Signed = np.stack([plane[start : start + _BAND] for start in starts]).astype(np.int16)
    return bands


def thinned(size: int) -> slice:
    """At most 128 lines of ``size``, by an odd step, so that no grid of pixels is in step."""
    return slice(None, None, -(-size // _LINES) | 1)


def laplacian(levels: Signed) -> Signed:
    """Four times each level less its four neighbours, [..., height - 2, width - 2]."""
    found = levels[..., 1:-1, 1:-1] * np.int16(4)
    found -= levels[..., :-2, 1:-1]
    found -= levels[..., 2:, 1:-1]
    found -= levels[..., 1:-1, :-2]
    found -= levels[..., 1:-1, 2:]
    return found


def _unlike(residual: Signed) -> float:
    """How unlike the energies of the two checkerboards are; 0 for alike."""
    rows, columns = (size // 2 * 2 for size in residual.shape[-2:])
    size = np.abs(residual[..., :rows, :columns])
    np.minimum(size, np.int16(_CAP), out=size)
    # at most 64 pairs of rows, so that sums stay below 2**15
    sums = size.reshape(-1, 2, columns).sum(axis=0, dtype=np.int16)
    (a, b), (c, d) = (own.reshape(-1, 2).sum(axis=0, dtype=np.int64).tolist() for own in sums)
    floor = size.size / 8  # half a level each: below, it is rounding
    return abs(math.log2((a + d + floor) / (b + c + floor)))
