"""Curated training shards from raw code and image collections, every record accounted for.

Importing the package imports nothing else; what it offers is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwright import kernels, pipelines, quality
    from shardwright.service.notebook import open_for_notebook as open
    from shardwright.shards.curation import dataset, mixture

__version__ = "0.1.0"

__all__ = ["__version__", "dataset", "kernels", "mixture", "open", "pipelines", "quality"]

_PACKAGES = ("kernels", "pipelines", "quality")
_FUNCTIONS = {
    "dataset": ("shards.curation", "dataset"),
    "mixture": ("shards.curation", "mixture"),
    "open": ("service.notebook", "open_for_notebook"),
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        module, function = _FUNCTIONS[name]
        return getattr(import_module(f"shardwright.{module}"), function)
    if name in _PACKAGES:
        return import_module(f"shardwright.{name}")
    raise AttributeError(f"module 'shardwright' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
