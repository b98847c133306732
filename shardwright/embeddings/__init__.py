"""Encoders for text and images, k-means over their vectors, and FAISS indexes.

Names are loaded when first used: an encoder without torch does not wait for k-means to load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwright.embeddings.encoder import Encoder, load_encoder
    from shardwright.embeddings.index import FlatIndexWriter
    from shardwright.embeddings.kmeans import Clustering, KMeans
    from shardwright.embeddings.sampling import sample_keys
    from shardwright.embeddings.search import open_index

__all__ = [
    "Clustering",
    "Encoder",
    "FlatIndexWriter",
    "KMeans",
    "load_encoder",
    "open_index",
    "sample_keys",
]

_HOMES = {
    "Clustering": "kmeans",
    "Encoder": "encoder",
    "FlatIndexWriter": "index",
    "KMeans": "kmeans",
    "load_encoder": "encoder",
    "open_index": "search",
    "sample_keys": "sampling",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
