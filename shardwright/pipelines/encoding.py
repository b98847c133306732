"""The recipe's encoder in workers: loaded once in a process, and shared by its threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from shardwright.embeddings.device import claim_gpu
from shardwright.embeddings.encoder import Encoder
from shardwright.embeddings.model import Model
from shardwright.pipelines.run import Run

_LOADING = threading.Lock()
_LOADED: dict[str, Encoder] = {}
"""By the driver's fingerprint: other weights in the same folder are another encoder."""


@dataclass(frozen=True)
class Encoding:
    """What a worker needs to load the encoder.

    Attributes:
        model: The recipe's.
        fingerprint: Of the driver's encoder.
    """

    model: Model
    fingerprint: str

    @property
    def modality(self) -> str:
        """``code`` or ``image``."""
        return self.model.modality

    @property
    def dtype(self) -> str:
        """Of the vectors as they are stored."""
        return self.model.dtype

    @property
    def encoder(self) -> Encoder:
        """The encoder: the driver's in its own process, else loaded once and shared by threads."""
        with _LOADING:
            if self.fingerprint not in _LOADED:
                _LOADED[self.fingerprint] = self._load()
            return _LOADED[self.fingerprint]

    def _load(self) -> Encoder:
        Image.MAX_IMAGE_PIXELS = None  # ingest has decoded them whole, under the recipe's limit
        if self.model.device != "cpu" and self.model.kind != "builtin":
            import torch

            if torch.cuda.device_count() > 1:
                torch.cuda.set_device(claim_gpu(torch.cuda.device_count()))
        return self.model.load()


@contextmanager
def encoding(run: Run) -> Iterator[Encoding]:
    """How workers encode; while it lasts, those in this process use the driver's encoder."""
    encoder = run.encoder
    Image.MAX_IMAGE_PIXELS = None  # as in a worker
    _LOADED[encoder.fingerprint] = encoder
    try:
        yield Encoding(run.model, encoder.fingerprint)
    finally:
        _LOADED.clear()
