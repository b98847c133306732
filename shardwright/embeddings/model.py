"""A recipe's model as a value: what ``load_encoder`` is told, for whoever loads it later."""

from dataclasses import dataclass, replace
from typing import Any

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.encoder import Encoder, TorchOptions, load_encoder

_TORCH = ("sentence-transformers", "preset")


@dataclass(frozen=True)
class Model:
    """The arguments of ``load_encoder``, by the same names but for the first."""

    name: str
    modality: str
    device: str
    dtype: str
    batch_size: int
    options: TorchOptions

    @property
    def kind(self) -> str:
        """``torch``, ``builtin``, or ``added`` by a package."""
        kind = self.name.partition(":")[0]
        return "torch" if kind in _TORCH else "builtin" if kind == "builtin" else "added"

    @property
    def runs_on(self) -> str:
        """``cpu`` or ``cuda``; what a package's encoder runs on it does not say."""
        return resolve_device(self.device, "embedding.device") if self.kind == "torch" else "cpu"

    def load(self, **changes: Any) -> Encoder:
        """The encoder, or one that differs in some fields; raises as ``load_encoder`` does."""
        other = replace(self, **changes)
        return load_encoder(
            other.name,
            modality=other.modality,
            device=other.device,
            dtype=other.dtype,
            batch_size=other.batch_size,
            options=other.options,
        )
