"""Encoded images to RGB pixels, whatever mode the file is in."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image

from shardwright.errors import DataError

_WHITE = (255, 255, 255, 255)


class _Silence:
    """A context without warnings, for threads that enter and leave it as they like.

    Filters are the process's: the first to enter puts them away, and the last to leave brings them
    back. ``warnings.catch_warnings`` of each would bring back what another has put there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._kept = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._kept = warnings.catch_warnings()
                self._kept.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._kept.__exit__(None, None, None)


SILENCE = _Silence()
"""Where pictures are opened and decoded: Pillow warns of damage that does not stop it."""


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """Opens an image; what Pillow raises in here, in any of its ways, becomes a ``DataError``.

    It warns of nothing: what it can read all the same is good enough.
    """
    try:
        with SILENCE, Image.open(io.BytesIO(data)) as image:
            yield image
    except (DataError, MemoryError):
        raise
    except Exception as error:  # on broken bytes Pillow's decoders raise nearly anything
        raise DataError(f"the image does not decode: {error}") from error


def decode_rgb(data: bytes, draft: int | None = None) -> Image.Image:
    """Decodes the first frame of an image to mode RGB.

    Pixels are as stored: no rotation by EXIF, no colour profile. Transparency goes onto white,
    sixteen bits per channel fall to the upper eight, and 32-bit integers and floats, whose range
    no format states, are stretched from their least to their greatest finite value.

    Args:
        data: the encoded bytes, in any format that Pillow opens.
        draft: lets a JPEG decode at 1/2, 1/4 or 1/8 of its size as long as both sides keep this
            many pixels, which is many times faster.

    Raises:
        DataError: the bytes are no image that Pillow can decode, or one so large that Pillow
            takes it for a decompression bomb.
    """
    with opened(data) as image:
        if draft is not None:
            image.draft(None, (draft, draft))
        return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image.copy()
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)  # native order, from either byte order
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image, dtype=np.float64))).convert("RGB")
    if image.mode == "LAB":
        return image.getchannel("L").convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        top = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", top.size, _WHITE), top).convert("RGB")
    return image.convert("RGB")


def _stretch(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Finite values to 0..255 from the least to the greatest; others, and constants, to 0."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = values[finite].min(), values[finite].max()
    span = high - low if high > low else 1.0
    return np.where(finite, (values - low) * (255.0 / span), 0.0).astype(np.uint8)
