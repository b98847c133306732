"""Entries of an image's EXIF, whoever wrote it.

Not read by Pillow, which loads every entry of a directory before one can be asked for: 600 KB whose
entries all point at the same bytes take gigabytes there. Here only the entries that are wanted are
followed, and of each only its first few bytes.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping, Set
from typing import TypeAlias

from PIL import ExifTags, Image

_TEXT = 256  # bytes of a text that are read
_ENTRY = 12  # bytes of an entry of a directory
_BYTE, _ASCII, _UNDEFINED = 1, 2, 7
_FORMATS = {3: "H", 4: "L", 5: "LL", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d"}
_RATIONALS = (5, 10)

_BASE = ExifTags.Base
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

Value: TypeAlias = float | str | bool


def read_exif(image: Image.Image, data: bytes, wanted: Set[int]) -> dict[int, Value]:
    """The wanted entries of the main directory and of the EXIF directory that it points to.

    Broken EXIF never raises: what cannot be read is not there.

    Args:
        image: As Pillow opened it; a PNG whose EXIF stands behind its pixels must be loaded.
        data: What it was opened from.
        wanted: Tags.

    Returns:
        By tag its text, its first number, or for a maker's note that it is there.
    """
    block = _exif_block(image, data)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return {}
    values: dict[int, Value] = {}
    starts = [4]
    for pointer in starts:  # where the offset of a directory stands
        first = _unpacked(order + "L", block, pointer)
        for tag, kind, count, at in _entries(order, block, int(first[0])) if first else ():
            if tag == ExifTags.IFD.Exif and len(starts) == 1:
                starts.append(at)
            if tag in wanted and tag not in values:
                value = _value(tag, order, kind, count, block, at)
                if value is not None:
                    values[tag] = value
    return values


def upright(image: Image.Image, loaded: Image.Image, data: bytes) -> Image.Image:
    """A picture turned as its EXIF says or else, as Pillow has it, its XMP.

    Args:
        image: The picture, or one that was made of it.
        loaded: The picture as Pillow has loaded it; a TIFF has then been turned already.
        data: What it was opened from.
    """
    if loaded.format == "TIFF":
        return image
    said = read_exif(loaded, data, {_BASE.Orientation}).get(_BASE.Orientation)
    if not isinstance(said, float):
        xmp = loaded.info.get("XML:com.adobe.xmp") or loaded.info.get("xmp") or b""
        found = _XMP_ORIENTATION.search(xmp if isinstance(xmp, bytes) else str(xmp).encode())
        said = float(found[1]) if found else 1.0
    turn = _TURNS.get(int(said)) if said.is_integer() else None
    return image if turn is None else image.transpose(turn)


def exif_text(said: Mapping[int, Value], tag: int) -> str | None:
    """The text of an entry; None where there is none, or a number."""
    value = said.get(tag)
    return value if isinstance(value, str) else None


def _exif_block(image: Image.Image, data: bytes) -> bytes:
    """The TIFF structure that holds the EXIF; empty where there is none."""
    block = image.info.get("exif")
    if block is None and image.format == "TIFF":
        return data
    text = image.info.get("Raw profile type exif")  # a PNG of ImageMagick: three lines, then hex
    if block is None and isinstance(text, str):
        try:
            block = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            return b""
    return block.removeprefix(b"Exif\0\0") if isinstance(block, bytes) else b""


def _entries(order: str, block: bytes, first: int) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count, and where the value or its offset stands, of each entry in the block."""
    number = _unpacked(order + "H", block, first)
    if not number:
        return
    begin = first + 2
    for at in range(begin, min(begin + number[0] * _ENTRY, len(block) - _ENTRY + 1), _ENTRY):
        tag, kind, count = struct.unpack_from(order + "HHL", block, at)
        yield tag, kind, count, at + 8


def _value(tag: int, order: str, kind: int, count: int, block: bytes, at: int) -> Value | None:
    """The value of an entry: its text, its first number, or for a maker's note that it is there."""
    if tag == _BASE.MakerNote:
        return True if count else None
    if kind in (_BYTE, _ASCII, _UNDEFINED):
        if count > 4:
            offset = _unpacked(order + "L", block, at)
            at = int(offset[0])
        raw = block[at : at + min(count, _TEXT)]
        return _cleaned(raw) or None
    if kind not in _FORMATS or not count:
        return None
    if count * struct.calcsize(order + _FORMATS[kind]) > 4:
        at = int(_unpacked(order + "L", block, at)[0])
    numbers = _unpacked(order + _FORMATS[kind], block, at)
    if not numbers:
        return None
    if kind in _RATIONALS:
        return numbers[0] / numbers[1] if numbers[1] else None
    return float(numbers[0]) if math.isfinite(numbers[0]) else None


def _unpacked(form: str, block: bytes, at: int) -> tuple[int, ...]:
    """Numbers at an offset, or nothing where the block ends before."""
    if at + struct.calcsize(form) > len(block):
        return ()
    return struct.unpack_from(form, block, at)


def _cleaned(raw: bytes) -> str:
    """Text up to its first NUL; EXIF has ASCII, cameras write UTF-8 and Latin-1 as well."""
    raw = raw.partition(b"\0")[0]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
