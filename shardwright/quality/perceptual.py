"""Two names for what a picture shows: a hash that survives small changes, and an exact one.

Both are taken from the first frame as a viewer sees it: turned the way its EXIF says, the palette
looked up. Colour profiles are not applied.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from shardwright.embeddings.pixels import decode_rgb, opened
from shardwright.quality.exif import upright

_CELLS = 32  # luminance is averaged over so many cells each way
_FINE = 4 * _CELLS  # pixels each way that are kept to average over
_STEPS = 16  # in so many steps each of the 255 levels of an average is told
_SCALE = 2**14  # of the cosines, so that the transform is one of whole numbers
_RADIUS = 72  # of frequencies: u^2 + v^2 at most this leaves 64 of them besides the mean
_CLEAR = _SCALE**2 * _STEPS * (_CELLS // 2) ** 2 // 5  # a wave of a fifth of a level
_LEAST_CLEAR = 32  # bits

_WAVES = math.isqrt(_RADIUS) + 1
_COSINES = np.array(
    [
        [
            round(_SCALE * math.sqrt(1 if u else 0.5) * math.cos(math.pi * u * (x + 0.5) / _CELLS))
            for x in range(_CELLS)
        ]
        for u in range(_WAVES)
    ],
    dtype=np.int64,
)
_FREQUENCIES = tuple(
    np.array(
        [(u, v) for u in range(_WAVES) for v in range(_WAVES) if 0 < u * u + v * v <= _RADIUS]
    ).T
)

_PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # modes of eight bits in levels of light

Integers = npt.NDArray[np.int64]


def perceptual_hash(data: bytes) -> int | None:
    """A hash of 64 bits, of which few change when a picture is scaled, brightened or recompressed.

    The DCT hash of Zauner (2010), "Implementation and benchmarking of perceptual image hash
    functions": luminance averaged over 32 x 32 cells, its DCT, and one bit for each low frequency,
    set where the coefficient is above the median. Two things differ. The 64 frequencies are those
    nearest to zero, u^2 + v^2 <= 72, row by row from the highest bit on, with those of rows and of
    columns alone, which Zauner leaves out: without them the layers of a landscape count for
    nothing. And all is computed in whole numbers, so that the same decoded pixels have the same
    hash on every machine. Transparency goes onto white; a mirrored picture is another one.

    Args:
        data: The encoded bytes, in any format that Pillow opens.

    Returns:
        The hash, in 0..2**64 - 1, or None where fewer than half of the coefficients stand clear of
        the median, by a fifth of a level of luminance: plain pictures, and small symmetric ones.
        Noise alone would set their bits.

    Raises:
        DataError: the bytes are no image that Pillow can decode.
    """
    waves = _COSINES @ _luminance(data) @ _COSINES.T
    doubled = 2 * waves[_FREQUENCIES]
    median = np.sort(doubled)[31:33].sum() // 2
    if np.count_nonzero(np.abs(doubled - median) > 2 * _CLEAR) < _LEAST_CLEAR:
        return None
    return int.from_bytes(np.packbits(doubled > median).tobytes(), "big")


def pixel_sha256(data: bytes) -> str:
    """The identity of a picture's pixels, whatever format holds them.

    What is hashed is ``MODE WIDTH HEIGHT``, a line feed, and the pixels row by row. Pictures of
    eight bits (grey, palette, RGB, with and without alpha) are RGB where all is opaque, else RGBA
    with the invisible colours under full transparency set to zero; 16 bits are ``I;16`` and 32 bits
    ``I`` or ``F``, little-endian; other modes (CMYK) are as Pillow decodes them. So a grey PNG and
    its lossless WebP, which is RGB, are the same picture. Of 16 bits per channel in colour Pillow
    decodes the upper eight.

    Args:
        data: The encoded bytes, in any format that Pillow opens.

    Returns:
        64 hex digits.

    Raises:
        DataError: the bytes are no image that Pillow can decode.
    """
    with opened(data) as image:
        image.load()
        mode, pixels = _canonical(upright(image, image, data))
        digest = hashlib.sha256(f"{mode} {pixels.shape[1]} {pixels.shape[0]}\n".encode())
        digest.update(pixels.tobytes())
        return digest.hexdigest()


def _canonical(image: Image.Image) -> tuple[str, npt.NDArray[np.generic]]:
    """The name of the form that is hashed, and its pixels [height, width, ...]."""
    if image.mode.startswith("I;16"):
        return "I;16", np.asarray(image).astype("<u2")
    if image.mode in ("I", "F"):
        return image.mode, np.asarray(image).astype("<i4" if image.mode == "I" else "<f4")
    if image.mode not in _PLAIN:
        return image.mode, np.asarray(image)
    if image.has_transparency_data:
        pixels = np.array(image.convert("RGBA"))
        if pixels[..., 3].min() < 255:
            pixels[pixels[..., 3] == 0] = 0
            return "RGBA", pixels
        return "RGB", pixels[..., :3]
    return "RGB", np.asarray(image.convert("RGB"))


def _luminance(data: bytes) -> Integers:
    """Mean luminance (Rec. 601) of each cell in sixteenths of a level, int64 [32, 32]."""
    with opened(data) as loaded:
        loaded.draft("L", (_FINE, _FINE))
        loaded.load()
        image = loaded if loaded.mode in (*_PLAIN, "CMYK") else decode_rgb(data)
        image = image.convert("RGBA" if image.has_transparency_data else "L")
        image = image.reduce((max(1, image.width // _FINE), max(1, image.height // _FINE)))
        if image.mode == "RGBA":
            ground = Image.new("RGB", image.size, (255, 255, 255))
            ground.paste(image, mask=image)
            image = ground.convert("L")
        levels = np.asarray(upright(image, loaded, data)).astype(np.int64)
    area = levels.size
    return (2 * _STEPS * _cell_sums(_cell_sums(levels).T).T + area) // (2 * area)


def _cell_sums(rows: Integers) -> Integers:
    """Sums over 32 bands of equal height, a row cut by an edge counting in part.

    Args:
        rows: int64 [height, width].

    Returns:
        32 times the sums, which makes them whole; int64 [32, width].
    """
    whole, part = np.divmod(np.arange(_CELLS + 1) * len(rows), _CELLS)
    nothing = np.zeros_like(rows[:1])
    above = np.concatenate([nothing, np.cumsum(rows, axis=0)])
    cut = np.concatenate([rows, nothing])
    return np.diff(_CELLS * above[whole] + part[:, None] * cut[whole], axis=0)
