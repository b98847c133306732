"""``builtin:descriptor``: colours, edge directions and coarse shape of an image.

Three classical descriptors of a 64 x 64 thumbnail, side by side: a joint colour histogram, a
grid of gradient-orientation histograms (Dalal and Triggs 2005, "Histograms of Oriented Gradients
for Human Detection") and the low frequencies of the luma's cosine transform (as in perceptual
hashes). It sees whether two images look alike, not what they show.

From the pixels on, all is integer arithmetic up to one root and a few divisions and products in
float64, so the bits depend on the decoder only; its versions are in the fingerprint.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, features

from shardwright.embeddings.encoder import fingerprint, unit_rows
from shardwright.embeddings.pixels import decode_rgb
from shardwright.errors import DataError

DIMENSION = 256
SIDE = 64
"""Width and height of the thumbnail."""
COLOURS = 64
"""Bins of the colour histogram: four levels of each of three channels."""
CELLS = 4
ORIENTATIONS = 8
FREQUENCIES = 8

_VERSION = "1"
_ROWS = 64
"""Images described at once."""
_WEIGHTS = (0.5, 0.6, 0.6)
"""Lengths of the three parts of a vector: colours, orientations, frequencies."""
_CODECS = ("jpg", "jpg_2000", "zlib", "libtiff")
_MODULES = ("webp", "avif")

Int64 = npt.NDArray[np.int64]


class DescriptorEncoder:
    """``builtin:descriptor``, an ``Encoder`` of images that needs no weights and no GPU.

    The 256 numbers are 64 of colour, 4 x 4 cells of 8 orientations, and 8 x 8 frequencies.
    """

    name = "builtin:descriptor"
    dimension = DIMENSION

    def __init__(self) -> None:
        self.description = {
            "model": self.name,
            "revision": _VERSION,
            "license": "Apache-2.0",
            "device": "cpu",
            "dtype": "float32",
            "decoder": f"Pillow {PIL.__version__}",
        }
        versions = {name: str(features.version_codec(name)) for name in _CODECS}
        versions |= {name: str(features.version_module(name)) for name in _MODULES}
        self.fingerprint = fingerprint(
            {
                "model": self.name,
                "version": _VERSION,
                "pillow": PIL.__version__,
                "libjpeg_turbo": str(features.version_feature("libjpeg_turbo")),
                **versions,
            }
        )
        self._cosines = _cosine_matrix()

    def encode(self, batch: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Encodes images.

        Args:
            batch: n encoded images, in any format and mode that Pillow decodes.

        Returns:
            Unit rows float32 [n, 256] that depend on their own image only. Should all parts
            vanish, which takes every colour bin in equal measure and no edges, the row is the
            first unit vector.

        Raises:
            DataError: an image does not decode; the message says which.
            TypeError: an input is not bytes.
        """
        vectors = np.empty((len(batch), DIMENSION), dtype=np.float32)
        for start in range(0, len(batch), _ROWS):
            images = batch[start : start + _ROWS]
            pixels = np.empty((len(images), SIDE, SIDE, 3), dtype=np.uint8)
            for row, image in enumerate(images):
                if not isinstance(image, bytes):
                    raise TypeError(f"input {start + row} is {type(image).__name__}, not bytes")
                try:
                    pixels[row] = _thumbnail(image)
                except DataError as error:
                    raise DataError(f"input {start + row} of the batch: {error}") from error
            vectors[start : start + len(images)] = self._describe(pixels)
        return vectors

    def _describe(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Unit rows float64 [n, 256] of thumbnails uint8 [n, SIDE, SIDE, 3]."""
        luma = _luma(pixels)
        parts = (_colours(pixels), _orientations(luma), _frequencies(luma, self._cosines))
        blocks = []
        squares = np.zeros(len(pixels))
        for part, weight in zip(parts, _WEIGHTS, strict=True):
            blocks.append(unit_rows(part) * weight)
            squares += np.where(part.any(axis=1), weight * weight, 0.0)
        vectors: npt.NDArray[np.float64] = np.concatenate(blocks, axis=1)
        vectors /= np.sqrt(np.where(squares > 0, squares, 1.0))[:, None]
        vectors[squares == 0, 0] = 1.0
        return vectors


def _thumbnail(data: bytes) -> npt.NDArray[np.uint8]:
    """RGB pixels uint8 [SIDE, SIDE, 3], each the mean of the area it covers."""
    image = decode_rgb(data, draft=SIDE)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def _luma(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Luma 0..255, int32 [n, SIDE, SIDE], with the weights of ITU-R BT.601 in 256ths."""
    wide = pixels.astype(np.int32)
    luma: npt.NDArray[np.int32] = (77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8
    return luma


def _colours(pixels: npt.NDArray[np.uint8]) -> Int64:
    """Roots of the colour counts less their mean, int64 [n, COLOURS]."""
    levels = (pixels >> 6).astype(np.intp)
    bins = levels[..., 0] << 4 | levels[..., 1] << 2 | levels[..., 2]
    return _centred_roots(_histograms(bins.reshape(len(pixels), -1), COLOURS))


def _orientations(luma: npt.NDArray[np.int32]) -> Int64:
    """Roots of the gradients summed by cell and direction, less their mean: int64 [n, 128].

    The direction is that of the gradient, modulo 180 degrees. Its bin of 22.5 degrees follows from
    comparing |dy| with |dx| times tan(22.5), 1 and tan(67.5), where 169/408 stands for tan(22.5)
    (a convergent of sqrt(2) - 1, and equal for no pair of differences of bytes but zeros).
    """
    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    across, down = np.abs(dx), np.abs(dy)
    octant = (408 * down > 169 * across).astype(np.intp)
    octant += down > across
    octant += 169 * down > 408 * across
    octant = np.where(dx * dy < 0, ORIENTATIONS - 1 - octant, octant)
    # sixteenths of a grey level; the root is correctly rounded, so its floor is the same anywhere
    length = np.sqrt(256.0 * (dx * dx + dy * dy)).astype(np.int64)
    cell = np.arange(SIDE) // (SIDE // CELLS)
    bins = (cell[:, None] * CELLS + cell) * ORIENTATIONS + octant
    count = CELLS * CELLS * ORIENTATIONS
    images = len(luma)
    return _centred_roots(_histograms(bins.reshape(images, -1), count, length.reshape(images, -1)))


def _frequencies(luma: npt.NDArray[np.int32], cosines: npt.NDArray[np.float64]) -> Int64:
    """Low frequencies of the luma, int64 [n, FREQUENCIES^2], each times 1 + its two indices.

    Pictures have power that falls with frequency; the factors keep the lowest from being all.
    The products are integers below 2^53, which float64 holds exactly in any order of summation,
    and the shift keeps squared norms below 2^63.
    """
    coefficients = (cosines @ (luma - 128).astype(np.float64) @ cosines.T).astype(np.int64)
    index = np.arange(FREQUENCIES)
    emphasis = 1 + index[:, None] + index
    return ((coefficients >> 16) * emphasis).reshape(len(luma), -1)


def _cosine_matrix() -> npt.NDArray[np.float64]:
    """Rows of the DCT-II, times 4096 and rounded: integers as float64 [FREQUENCIES, SIDE]."""
    return np.array(
        [
            [round(4096 * math.cos(math.pi * (2 * x + 1) * u / (2 * SIDE))) for x in range(SIDE)]
            for u in range(FREQUENCIES)
        ],
        dtype=np.float64,
    )


def _histograms(
    bins: npt.NDArray[np.intp], count: int, amounts: Int64 | None = None
) -> npt.NDArray[np.float64]:
    """Sums of ``amounts`` (or ones) by bin, row by row: integers as float64 [n, count]."""
    rows = len(bins)
    flat = (np.arange(rows)[:, None] * count + bins).reshape(-1)
    weights = None if amounts is None else amounts.reshape(-1)
    sums = np.bincount(flat, weights=weights, minlength=rows * count)
    return sums.astype(np.float64).reshape(rows, count)


def _centred_roots(sums: npt.NDArray[np.float64]) -> Int64:
    """Roots of sums [n, k] (Hellinger's geometry, in which no bin is all), less their mean.

    Everything is times 16 k, so that it stays an integer.
    """
    roots = np.sqrt(256.0 * sums).astype(np.int64)
    centred: Int64 = roots * roots.shape[1] - roots.sum(axis=1, keepdims=True)
    return centred
