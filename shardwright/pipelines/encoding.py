"""The recipe's encoder in workers: loaded once in a process, and shared by its threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from shardwright.embeddings.device import claim_gpu
from shardwright.embeddings.encoder import Encoder, TorchOptions, load_encoder
from shardwright.pipelines.run import Run

_LOADING = threading.Lock()
_LOADED: dict[str, Encoder] = {}
"""By the driver's fingerprint: other weights in the same folder are another encoder."""


@dataclass(frozen=True)
class Encoding:
    """What a worker needs to load the encoder; see ``load_encoder``.

    Attributes:
        fingerprint: Of the driver's encoder.
    """

    modality: str
    model: str
    device: str
    dtype: str
    batch_size: int
    options: TorchOptions
    fingerprint: str

    @property
    def encoder(self) -> Encoder:
        """The encoder: the driver's in its own process, else loaded once and shared by threads."""
        with _LOADING:
            if self.fingerprint not in _LOADED:
                _LOADED[self.fingerprint] = self._load()
            return _LOADED[self.fingerprint]

    def _load(self) -> Encoder:
        Image.MAX_IMAGE_PIXELS = None  # ingest has decoded them whole, under the recipe's limit
        if self.device != "cpu" and not self.model.startswith("builtin:"):
            import torch

            if torch.cuda.device_count() > 1:
                torch.cuda.set_device(claim_gpu(torch.cuda.device_count()))
        return load_encoder(
            self.model,
            modality=self.modality,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.batch_size,
            options=self.options,
        )


@contextmanager
def encoding(run: Run) -> Iterator[Encoding]:
    """How workers encode; while it lasts, those in this process use the driver's encoder."""
    embedding = run.recipe.embedding
    assert embedding is not None
    encoder = run.encoder
    Image.MAX_IMAGE_PIXELS = None  # as in a worker
    _LOADED[encoder.fingerprint] = encoder
    try:
        yield Encoding(
            run.recipe.modality,
            embedding.model,
            embedding.device,
            embedding.dtype,
            embedding.batch_size,
            embedding.options,
            encoder.fingerprint,
        )
    finally:
        _LOADED.clear()
