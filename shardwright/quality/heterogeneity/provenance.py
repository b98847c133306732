"""What a file says of the device and the software that made its picture: EXIF, ICC, JPEG header."""

import hashlib
import io
import math
from dataclasses import dataclass

from PIL import ExifTags, ImageCms

from shardwright.embeddings.pixels import opened
from shardwright.quality.exif import Value, exif_text, read_exif
from shardwright.quality.heterogeneity.jpeg import JpegFacts, read_jpeg

_TEXT = 256  # characters of a description that are kept
_ISO_BEYOND = 65_535  # a short cannot hold more: the speed stands in another tag

_BASE = ExifTags.Base
_SPEEDS = (_BASE.ISOSpeedRatings, _BASE.RecommendedExposureIndex, _BASE.ISOSpeed)
_WANTED = {_BASE.Make, _BASE.Model, _BASE.Software, _BASE.LensModel, _BASE.ExposureTime}
_WANTED |= {_BASE.FNumber, _BASE.WhiteBalance, _BASE.ColorSpace, _BASE.MakerNote, *_SPEEDS}

_BALANCES = {0: "auto", 1: "manual"}
_SPACES = {1: "sRGB", 2: "Adobe RGB", 65_535: "uncalibrated"}  # 2 is no standard, but is written
# x and y of red, green and blue under D50, the white of ICC profiles: of IEC 61966-2-1, SMPTE
# EG 432-1 and Adobe RGB (1998), whose white is D65, after Bradford's adaptation
_PRIMARIES = {
    "sRGB": (0.6484, 0.3309, 0.3212, 0.5979, 0.1559, 0.0661),
    "Display P3": (0.6820, 0.3193, 0.2846, 0.6746, 0.1559, 0.0661),
    "Adobe RGB": (0.6484, 0.3309, 0.2302, 0.7016, 0.1559, 0.0661),
    "ProPhoto RGB": (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001),
}
_NEAR = 0.005  # in x and y, for profiles round


@dataclass(frozen=True)
class Provenance:
    """What a file says of its origin; None is not said, or not in a readable way.

    Attributes:
        format: Pillow's name of the format, like ``JPEG``.
        width: Pixels across as stored, before any EXIF orientation.
        height: Pixels down as stored.
        make: EXIF ``Make``.
        model: EXIF ``Model``.
        lens: EXIF ``LensModel``.
        software: EXIF ``Software``.
        iso: EXIF sensitivity.
        exposure_time: Seconds.
        f_number: Focal length by aperture.
        white_balance: ``auto`` or ``manual``.
        color_space: ``sRGB``, ``Adobe RGB`` or ``uncalibrated``.
        maker_note: Whether the EXIF has a maker's note, which editors tend to drop.
        icc_description: What the ICC profile calls itself.
        icc_sha256: Of the profile, 64 hex digits.
        icc_space: By the primaries of the profile, not by its name: ``sRGB``, ``Display P3``,
            ``Adobe RGB``, ``ProPhoto RGB``, or ``other``.
        icc_area: Area of the primaries' triangle in x and y by that of sRGB.
        jpeg: How the JPEG was encoded; None for other formats.
    """

    format: str
    width: int
    height: int
    make: str | None = None
    model: str | None = None
    lens: str | None = None
    software: str | None = None
    iso: int | None = None
    exposure_time: float | None = None
    f_number: float | None = None
    white_balance: str | None = None
    color_space: str | None = None
    maker_note: bool = False
    icc_description: str | None = None
    icc_sha256: str | None = None
    icc_space: str | None = None
    icc_area: float | None = None
    jpeg: JpegFacts | None = None


def read_provenance(data: bytes) -> Provenance:
    """Reads the header of an image; no pixel is decoded.

    Args:
        data: The encoded image, in any format that Pillow opens.

    Returns:
        What it says. Broken EXIF or ICC never raises: what cannot be read is None.

    Raises:
        DataError: the bytes are no image that Pillow can open, or one so large that Pillow takes
            it for a decompression bomb.
    """
    with opened(data) as image:
        form, (width, height) = image.format or "", image.size
        said, icc = read_exif(image, data, _WANTED), image.info.get("icc_profile")
    description, digest, space, area = _icc(icc)
    return Provenance(
        form,
        width,
        height,
        exif_text(said, _BASE.Make),
        exif_text(said, _BASE.Model),
        exif_text(said, _BASE.LensModel),
        exif_text(said, _BASE.Software),
        _iso(said),
        _positive(said, _BASE.ExposureTime),
        _positive(said, _BASE.FNumber),
        _BALANCES.get(_code(said, _BASE.WhiteBalance)),
        _SPACES.get(_code(said, _BASE.ColorSpace)),
        _BASE.MakerNote in said,
        description,
        digest,
        space,
        area,
        read_jpeg(data) if form in ("JPEG", "MPO") else None,
    )


def _positive(said: dict[int, Value], tag: int) -> float | None:
    value = said.get(tag)
    if isinstance(value, str | bool) or value is None:
        return None
    return float(value) if value > 0 else None


def _code(said: dict[int, Value], tag: int) -> int:
    value = said.get(tag)
    return int(value) if isinstance(value, float) else -1


def _iso(said: dict[int, Value]) -> int | None:
    for tag in _SPEEDS:
        value = _positive(said, tag)
        if value is not None and not (tag == _SPEEDS[0] and value >= _ISO_BEYOND):
            return round(value)
    return None


def _icc(icc: object) -> tuple[str | None, str | None, str | None, float | None]:
    """Description, hash, space and area of a profile, each None where it cannot be told."""
    if not isinstance(icc, bytes) or not icc:
        return None, None, None, None
    digest = hashlib.sha256(icc).hexdigest()
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
        text = profile.profile_description
        description = " ".join((text or "").partition("\0")[0].split())[:_TEXT] or None
        # each is ((X, Y, Z), (x, y, Y)) under the profile's white, D50
        colorants = [profile.red_colorant, profile.green_colorant, profile.blue_colorant]
        points = [number for colorant in colorants if colorant for number in colorant[1][:2]]
    except MemoryError:
        raise
    except Exception:  # LittleCMS, and Pillow around it, at hostile bytes
        return None, digest, None, None
    if len(points) != 6 or not all(map(math.isfinite, points)):
        return description, digest, "other", None
    area = _area(points) / _area(_PRIMARIES["sRGB"])
    for name, known in _PRIMARIES.items():
        if max(abs(a - b) for a, b in zip(points, known, strict=True)) < _NEAR:
            return description, digest, name, area
    return description, digest, "other", area


def _area(points: list[float] | tuple[float, ...]) -> float:
    rx, ry, gx, gy, bx, by = points
    return abs((gx - rx) * (by - ry) - (bx - rx) * (gy - ry)) / 2
