"""Encoded images to batches: decoded and resized in threads, normalised on the device."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers.image_processing_utils import BaseImageProcessor

from shardwright.embeddings.batches import Batch
from shardwright.embeddings.pixels import decode_rgb
from shardwright.errors import DataError

BYTES = "pixel_bytes"
"""Key of uint8 pixels that ``Normalise`` has yet to turn into the model's numbers."""
_DRAFT = 2
"""A draft keeps this many times the pixels, each way, of the size that the model resizes to."""


class ImageBatches:
    """Batches of images in the order given.

    The library's image processor does the resizing and the cropping, an image at a time in a
    pool of threads, and hands out bytes: a quarter of the memory to move. Scaling and
    normalising the bytes is left to the device. Where a processor does not come apart so, it
    does the whole on each batch, and the threads only decode.
    """

    def __init__(
        self, model: SentenceTransformer, batch_size: int, threads: int, draft: bool
    ) -> None:
        """Finds out how the model's processor can be used.

        Args:
            model: takes images.
            batch_size: images of a batch.
            threads: how many decode and resize at once.
            draft: decodes large JPEGs at a fraction of their size; see ``decode_rgb``.
        """
        self._model = model
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        processor = model[0].processor
        self._processor = getattr(processor, "image_processor", processor)
        self.normalise = _normalise(model, self._processor)
        size = _largest(self._processor) if draft else None
        self._draft = None if size is None else _DRAFT * size
        self.description = {
            "pixels": "library" if self.normalise is None else "bytes",
            **({"draft": str(self._draft)} if self._draft else {}),
        }

    def batches(self, inputs: Sequence[bytes]) -> Iterator[Batch]:
        """The batches of some images; the next one is under way while one is handed out.

        Raises:
            DataError: an image does not decode; the message says which.
        """
        starts = range(0, len(inputs), self._batch_size)
        ahead: list[list[Any]] = []
        for start in [*starts, None]:
            if start is not None:
                rows = range(start, min(start + self._batch_size, len(inputs)))
                ahead.append([self._pool.submit(self._picture, inputs[r], r) for r in rows])
            # Whole images are held one batch at a time only, resized ones a batch ahead.
            if ahead and (start is None or len(ahead) == 2 or self.normalise is None):
                yield self._batch([each.result() for each in ahead.pop(0)])

    def _picture(self, data: bytes, row: int) -> tuple[int, Any]:
        if not isinstance(data, bytes):
            raise TypeError(f"input {row} is {type(data).__name__}, not bytes")
        try:
            image = decode_rgb(data, self._draft)
        except DataError as error:
            raise DataError(f"input {row} of the batch: {error}") from error
        return row, image if self.normalise is None else _resized(self._processor, image)

    def _batch(self, pictures: list[tuple[int, Any]]) -> Batch:
        rows = np.array([row for row, _ in pictures], dtype=np.int64)
        if self.normalise is None:
            return Batch(rows, dict(self._model.preprocess([each for _, each in pictures])))
        pixels = torch.cat([each for _, each in pictures])
        return Batch(rows, {BYTES: pixels, "modality": "image"})


class Normalise(torch.nn.Module):
    """Bytes to the numbers that an image processor would have made: (x * scale - mean) / deviation.

    Args of ``forward``: uint8 [n, 3, height, width]; returns float32 of that shape.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, scale: float, mean: Sequence[float], deviation: Sequence[float]) -> None:
        """Takes an image processor's ``rescale_factor``, ``image_mean`` and ``image_std``."""
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer(
            "deviation", torch.tensor(deviation, dtype=torch.float32)[:, None, None]
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalises."""
        return (pixels.to(torch.float32) * self.scale - self.mean) / self.deviation


def _resized(processor: Any, image: Image.Image) -> torch.Tensor:
    """What the processor makes of an image before it scales it: uint8 [1, 3, height, width]."""
    found = processor(images=[image], do_rescale=False, do_normalize=False, return_tensors="pt")
    pixels: torch.Tensor = found["pixel_values"]
    return pixels


def _normalise(model: SentenceTransformer, processor: Any) -> Normalise | None:
    """The last step of a processor that comes apart into resizing and normalising.

    That it does is seen on images, not read from its settings.
    """
    if not isinstance(processor, BaseImageProcessor):
        return None
    asked = ("rescale_factor", "image_mean", "image_std", "do_rescale", "do_normalize")
    settings: list[Any] = [getattr(processor, name, None) for name in asked]
    if not all(settings):
        return None
    last = Normalise(*settings[:3])
    shapes = set()
    for height, width in ((37, 50), (600, 450)):
        noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        expected = dict(model.preprocess([image]))
        try:
            found = _resized(processor, image)
        except (KeyError, TypeError, ValueError):
            return None
        shapes.add(found.shape)
        pixels = expected.pop("pixel_values", None)
        if pixels is None or set(expected) - {"modality"} or found.dtype != torch.uint8:
            return None
        if pixels.shape != found.shape or not torch.allclose(last(found), pixels, atol=1e-5):
            return None
    return last if len(shapes) == 1 and found.ndim == 4 and found.shape[1] == 3 else None


def _largest(processor: Any) -> int | None:
    """The greatest side that a processor resizes an image's shorter side to, if it says so."""
    size = getattr(processor, "size", None)
    if not getattr(processor, "do_resize", False) or size is None:
        return None
    sides = [size.get(name) if hasattr(size, "get") else None for name in _SIDES]
    known = [int(side) for side in sides if side]
    return max(known) if known else None


_SIDES = ("shortest_edge", "height", "width")
