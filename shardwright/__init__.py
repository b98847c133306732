"""Curated training shards from raw code and image collections, every record accounted for.

Importing the package imports nothing else; what it offers is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwright import kernels, pipelines, quality
    from shardwright.shards.curation import dataset, mixture
    from shardwright.shards.curation import open_curation as open

__version__ = "0.1.0"

__all__ = ["__version__", "dataset", "kernels", "mixture", "open", "pipelines", "quality"]

_PACKAGES = ("kernels", "pipelines", "quality")
_FUNCTIONS = {"dataset": "dataset", "mixture": "mixture", "open": "open_curation"}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module("shardwright.shards.curation"), _FUNCTIONS[name])
    if name in _PACKAGES:
        return import_module(f"shardwright.{name}")
    raise AttributeError(f"module 'shardwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
