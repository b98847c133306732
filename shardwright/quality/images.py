"""Can every pixel of this image be read, and what does it say of itself?

``decode_image`` runs the decoder in this process; whoever handles images of strangers runs it
through ``shardwright.quality.sandbox``, where it can be killed.
"""

import functools
import io
import re
from dataclasses import dataclass

from PIL import ExifTags, Image, UnidentifiedImageError

from shardwright.embeddings.pixels import SILENCE
from shardwright.quality.exif import exif_text, read_exif
from shardwright.quality.faults import Fault

# Never opened: EPS runs Ghostscript, WMF needs Windows, the stubs have no decoder at all, and
# FPX and MIC exist only where olefile happens to be installed.
_NEVER_OPENED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC"}
_OUT_OF_MEMORY = "out of memory"
_TAGS = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software)


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image whose first frame decodes whole.

    Attributes:
        width: Pixels across as stored, before any EXIF orientation.
        height: Pixels down as stored.
        format: Pillow's name of the format, like ``JPEG``.
        device_make: EXIF ``Make``.
        device_model: EXIF ``Model``.
        software: EXIF ``Software``.
    """

    width: int
    height: int
    format: str
    device_make: str | None = None
    device_model: str | None = None
    software: str | None = None


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NEVER_OPENED))


def decodable_extensions() -> tuple[str, ...]:
    """Extensions, like ``.png``, of all formats that are opened; sorted."""
    formats = {*_formats(), "MPO"}  # MPO is opened through JPEG
    extensions = Image.registered_extensions()
    return tuple(sorted(ext for ext, name in extensions.items() if name in formats))


def decode_image(data: bytes, max_pixels: int) -> ImageFacts | Fault:
    """Decodes all pixels of an image's first frame and reads its EXIF.

    Of an animation only the first frame is decoded: what training takes of it.

    Args:
        data: The encoded image.
        max_pixels: Most pixels (width times height), checked before anything is decoded.

    Returns:
        The facts, or a fault: ``unsupported_image``, ``truncated_image``,
        ``decompression_bomb``, ``invalid_image`` or ``decoder_memory``.
    """
    usual = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels  # for images inside of images (ICO, ICNS)
    try:
        with SILENCE:
            return _decode(data, max_pixels)
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _decode(data: bytes, max_pixels: int) -> ImageFacts | Fault:
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        return _unidentified(data)
    except Exception as error:  # decoders of 40 formats raise whatever comes up
        return _fault(error)
    with image:
        width, height = image.size
        if width * height > max_pixels:
            return Fault(
                "decompression_bomb",
                f"{width:,} x {height:,} pixels; the limit is {max_pixels:,} in all",
            )
        try:
            image.load()
        except Exception as error:
            return _fault(error)
        if image.mode in ("P", "PA") and image.palette is None:  # Pillow cannot convert it
            return Fault("invalid_image", "its pixels are places in a palette, and it has none")
        said = read_exif(image, data, set(_TAGS))
        make, model, software = (exif_text(said, tag) for tag in _TAGS)
        return ImageFacts(width, height, image.format or "", make, model, software)


def _unidentified(data: bytes) -> Fault:
    for name in _formats():
        accept = Image.OPEN[name][1]
        try:
            answer = accept(data[:16]) if accept is not None else False
        except Exception:  # a format that cannot judge 16 bytes does not claim them
            continue
        if answer is True:
            return Fault("invalid_image", f"begins like {name}, but its header cannot be read")
    return Fault("unsupported_image", "no image format that is supported")


def _fault(error: Exception) -> Fault:
    # an object's address would differ between runs
    message = (
        re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(f"{error}".split()))[:500]
        or type(error).__name__
    )
    lowered = message.lower()
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY in lowered:
        return Fault("decoder_memory", "the decoder ran out of memory")
    if isinstance(error, Image.DecompressionBombError):
        return Fault("decompression_bomb", message)
    truncated = any(word in lowered for word in ("truncated", "unexpected end", "premature end"))
    if isinstance(error, EOFError) or truncated:
        return Fault("truncated_image", message)
    return Fault("invalid_image", f"{type(error).__name__}: {message}")
