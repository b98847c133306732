"""Curated training shards from raw code and image collections, every record accounted for.

Importing the package imports nothing else; what it offers is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwright import kernels, pipelines, quality
    from shardwright.metadata.curation import open_curation as open

__version__ = "0.1.0"

__all__ = ["__version__", "kernels", "open", "pipelines", "quality"]

_PACKAGES = ("kernels", "pipelines", "quality")


def __getattr__(name: str) -> Any:
    if name == "open":
        from shardwright.metadata.curation import open_curation

        return open_curation
    if name in _PACKAGES:
        return import_module(f"shardwright.{name}")
    raise AttributeError(f"module 'shardwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
