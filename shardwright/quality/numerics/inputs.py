"""Records as other decoders, resizers and encoders would hand them on, and harmless changes.

A picture that is decoded and resized here is handed on as a PNG of just the size that the model
resizes to, so that the model's own steps find nothing left to do. That way what is tried needs no
switch in the encoder and is the same for every one of them.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from shardwright.embeddings.pixels import decode_rgb

Change: TypeAlias = Callable[[bytes, str | None], bytes]
"""A record's bytes and its language (None for pictures) to other bytes."""

REDUCING_GAP = 2.0
DRAFT = 2
"""A draft keeps this many times the pixels, each way, of the size that the model resizes to."""
QUALITY = 95
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SLASHES = frozenset(
    {
        *("C", "C++", "C#", "CUDA", "Dart", "Go", "Groovy", "Java", "JavaScript", "Kotlin"),
        *("Objective-C", "Objective-C++", "PHP", "Rust", "Scala", "Swift", "TypeScript", "Zig"),
    }
)
"""Languages whose comments begin with two slashes."""


@dataclass(frozen=True)
class Resizing:
    """To what size an encoder resizes pictures.

    Attributes:
        sides: Width and height, whatever the picture's are; None if the shape is kept.
        shortest: The shorter side where the shape is kept.
        filter: Pillow's number of the filter; None if it is not known.
    """

    sides: tuple[int, int] | None
    shortest: int | None
    filter: int | None

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of what becomes of a picture of this width and height."""
        if self.sides is not None:
            return self.sides
        assert self.shortest is not None
        short, long = min(width, height), max(width, height)
        other = int(self.shortest * long / short)
        return (self.shortest, other) if width <= height else (other, self.shortest)

    @property
    def draft(self) -> int:
        """What a draft keeps, each way."""
        return DRAFT * max(self.sides or (self.shortest or 1,))


@dataclass(frozen=True)
class Input:
    """Another way to hand a record to the encoder.

    Attributes:
        name: Of the variant.
        says: What is done.
        change: Does it; None where it cannot be done.
        missing: Why not.
        harmless: Whether it is a change that nobody minds.
    """

    name: str
    says: str
    change: Change | None
    missing: str = ""
    harmless: bool = False


def text_inputs() -> Iterator[Input]:
    """Harmless changes of a text, the least first.

    A newline at the end is the least there is. Many tokenizers drop white space, and a text that
    is cut at the model's limit has another end, so that such a model never sees it. A first line
    that holds an empty comment is seen by all.
    """
    yield Input("newline", "one more newline at the end", _newline, harmless=True)
    yield Input("comment", "an empty comment as the first line", _comment, harmless=True)


def image_inputs(resizing: Resizing | None, drafts: bool | None) -> Iterator[Input]:
    """Decoders and resizers, and a harmless change, of a picture.

    Args:
        resizing: The encoder's; None if it does not say.
        drafts: Whether it decodes large JPEGs at a fraction of their size; None if not known.
    """
    if drafts is None:
        yield Input("draft", "JPEGs decoded otherwise", None, "the encoder does not say whether")
    elif drafts:
        yield Input("no draft", "JPEGs decoded whole", _whole)
    else:
        draft = None if resizing is None else partial(_drafted, draft=resizing.draft)
        yield _known("draft", "large JPEGs decoded at a fraction of their size", draft)
    gap: Change | None = None
    if resizing is not None and resizing.filter is not None:
        gap = partial(_resized, resizing=resizing, filter=resizing.filter, gap=REDUCING_GAP)
    yield _known("reducing gap", f"shrunk by whole numbers first, gap {REDUCING_GAP:g}", gap)
    for name, filter in FILTERS.items():
        change: Change | None = None
        if resizing is not None:
            change = partial(_resized, resizing=resizing, filter=int(filter), gap=None)
        yield _known(name, f"resized by Pillow, {name}", change)
    for antialias in (True, False):
        change = None
        if resizing is not None:
            change = partial(_by_torch, resizing=resizing, antialias=antialias)
        which = "with" if antialias else "without"
        name = f"torch {which} antialias"
        yield _known(name, f"resized by torch, bilinear, {which} antialias", change)
    says = f"encoded anew as a JPEG of quality {QUALITY}"
    yield Input(f"JPEG {QUALITY}", says, _jpeg, harmless=True)


def _known(name: str, says: str, change: Change | None) -> Input:
    missing = "" if change else "the encoder does not say how it resizes"
    return Input(name, says, change, missing)


def _newline(data: bytes, language: str | None) -> bytes:
    return data + b"\n"


def _comment(data: bytes, language: str | None) -> bytes:
    return (b"//\n" if language in _SLASHES else b"#\n") + data


def _whole(data: bytes, language: str | None) -> bytes:
    return _png(decode_rgb(data))


def _drafted(data: bytes, language: str | None, draft: int) -> bytes:
    return _png(decode_rgb(data, draft))


def _resized(
    data: bytes, language: str | None, resizing: Resizing, filter: int, gap: float | None
) -> bytes:
    image = decode_rgb(data)
    size = resizing.size(image.width, image.height)
    return _png(image.resize(size, Image.Resampling(filter), reducing_gap=gap))


def _by_torch(data: bytes, language: str | None, resizing: Resizing, antialias: bool) -> bytes:
    import torch

    image = decode_rgb(data)
    width, height = resizing.size(image.width, image.height)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    found = torch.nn.functional.interpolate(
        pixels, (height, width), mode="bilinear", align_corners=False, antialias=antialias
    )
    levels: npt.NDArray[np.uint8] = (
        found[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    )
    return _png(Image.fromarray(levels))


def _jpeg(data: bytes, language: str | None) -> bytes:
    buffer = io.BytesIO()
    decode_rgb(data).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
