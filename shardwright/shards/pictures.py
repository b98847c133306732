"""Pictures as tensors, for the ``transform`` of a dataset: decoded, resized, cropped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from shardwright.embeddings.pixels import decode_rgb
from shardwright.errors import DataError, UserError

Pixels: TypeAlias = NDArray[np.uint8]

_DRAFT: Final = 2
"""A draft keeps so many times the pixels, each way, of the size that is resized to."""


@dataclass(frozen=True)
class Pictures:
    """Makes of ``image``, the encoded bytes of a sample, a tensor ``(3, height, width)``.

    The picture is decoded to RGB as the embedding stage does it (no rotation by EXIF, transparency
    onto white), resized with Pillow's antialiased bicubic filter, and handed to ``change``. The
    other columns of the sample stay as they are, so batches collate.

    Attributes:
        size: Height and width, or one number for both.
        fit: ``crop``: resized until it covers the size, and its centre cut out. ``stretch``:
            resized to the size, whatever its shape was.
        dtype: ``uint8``: 0 to 255. ``float32``: 0 to 1.
        draft: Decodes a JPEG at 1/2, 1/4 or 1/8 of its size as long as it keeps twice the pixels
            each way that are needed: faster, and other pixels by a little.
        change: (pixels ``(height, width, 3)`` uint8, sample) -> pixels of that shape and type; for
            augmentation and for the transformations of a camera. Draw chance from
            ``sample["record_id"]`` and the result does not depend on workers. If it has ``at``,
            each epoch of a dataset has the change that ``at(epoch)`` returns.

    Raises:
        UserError: An attribute has no such value.
    """

    size: int | tuple[int, int]
    fit: Literal["crop", "stretch"] = "crop"
    dtype: Literal["uint8", "float32"] = "uint8"
    draft: bool = False
    change: Callable[[Pixels, Mapping[str, Any]], Pixels] | None = None

    def __post_init__(self) -> None:
        if min(self._sides) < 1:
            raise UserError(f"Pictures: size is {self.size}; it must be at least 1")
        for name, known in (("fit", ("crop", "stretch")), ("dtype", ("uint8", "float32"))):
            if getattr(self, name) not in known:
                raise UserError(
                    f"Pictures: {name} is {getattr(self, name)!r}; it must be {' or '.join(known)}"
                )

    @property
    def _sides(self) -> tuple[int, int]:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def at(self, epoch: int) -> "Pictures":
        """The same, with the change of an epoch."""
        at = getattr(self.change, "at", None)
        return self if at is None else replace(self, change=at(epoch))

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The sample with its picture as a tensor.

        Raises:
            DataError: The picture does not decode; names the record.
            UserError: The sample has no ``image``, or ``change`` gave another shape or type.
        """
        if "image" not in sample:
            raise UserError(f"Pictures: the sample has no image, only {', '.join(sample)}")
        try:
            image = decode_rgb(sample["image"], _DRAFT * max(self._sides) if self.draft else None)
        except DataError as error:
            raise DataError(f"record {sample.get('record_id')}: {error}") from None
        pixels: Pixels = np.array(self._resized(image))
        if self.change is not None:
            changed = self.change(pixels, sample)
            if changed.shape != pixels.shape or changed.dtype != np.uint8:
                raise UserError(
                    f"Pictures: change gave {changed.dtype} {changed.shape}; it must give uint8 "
                    f"{pixels.shape}"
                )
            pixels = changed
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if self.dtype == "float32":
            tensor = tensor.to(torch.float32) / 255
        return {**sample, "image": tensor}

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self._sides
        box = (0.0, 0.0, float(image.width), float(image.height))
        if self.fit == "crop":  # only what is kept is resized
            scale = min(image.width / width, image.height / height)
            left = max(0.0, (image.width - scale * width) / 2)
            top = max(0.0, (image.height - scale * height) / 2)
            box = (left, top, image.width - left, image.height - top)
        return image.resize((width, height), Image.Resampling.BICUBIC, box=box)
