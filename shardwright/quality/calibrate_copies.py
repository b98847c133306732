"""Copies of a record that are damaged on purpose, text or picture."""

import io
import random
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from shardwright.quality.corruptions import corrupt_image, corrupt_text, corruptions

_LONGEST = 1024
"""Longest side of a picture that is damaged, in pixels."""


def plain_copy(modality: str, content: bytes) -> bytes:
    """A record as its damaged copies come.

    A text stays as it is; a picture is made small, and loses every trace of how it was encoded, by
    which a damaged copy could be told.
    """
    if modality == "code":
        return content
    from shardwright.embeddings.pixels import decode_rgb

    image = decode_rgb(content)
    image.thumbnail((_LONGEST, _LONGEST))
    return _encoded(np.asarray(image))


def damaged_copies(
    modality: str,
    content: bytes,
    language: str | None,
    order: random.Random,
    seed: int,
    *,
    count: int,
    dose: float,
    without: Collection[str] = (),
) -> list[tuple[str, bytes]]:
    """Damages a record in up to ``count`` ways, each on its own.

    Args:
        modality: ``code`` or ``image``.
        content: A text, or a picture that ``plain_copy`` made.
        language: Of a text, or None.
        order: Shuffles the kinds of damage; the first that can damage the record do.
        seed: Of the damage itself.
        count: How many copies.
        dose: See ``corrupt_text`` and ``corrupt_image``.
        without: Families of damage that are left out.

    Returns:
        Kinds and contents; fewer than ``count`` where no more kinds can damage the record.
    """
    names = [kind.name for kind in corruptions(modality).values() if kind.family not in without]
    order.shuffle(names)
    pixels = None if modality == "code" or not count else _pixels(content)
    copies: list[tuple[str, bytes]] = []
    for name in names:
        if len(copies) == count:
            break
        changed: bytes | None
        if pixels is None:
            changed = corrupt_text(name, content, language, seed, dose)
        else:
            other = corrupt_image(name, pixels, seed, dose)
            changed = None if other is None else _encoded(other)
        if changed is not None:
            copies.append((name, changed))
    return copies


def extent(modality: str, content: bytes) -> int:
    """What the method ``length`` measures: bytes of a text, pixels of a picture."""
    if modality == "code":
        return len(content)
    from shardwright.embeddings.pixels import opened

    with opened(content) as image:
        return image.width * image.height


def _pixels(data: bytes) -> npt.NDArray[np.uint8]:
    from shardwright.embeddings.pixels import decode_rgb

    return np.asarray(decode_rgb(data))


def _encoded(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
