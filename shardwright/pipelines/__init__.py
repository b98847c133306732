"""What runs: stages as Beam jobs over parts, recipes, the command line.

``ReadTable`` and ``Embed`` are transforms for pipelines of one's own; they are loaded on first use,
so that recipes and sources can be read without Beam.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwright.pipelines.transforms import Embed as Embed
    from shardwright.pipelines.transforms import ReadTable as ReadTable


def __getattr__(name: str) -> Any:
    if name not in ("Embed", "ReadTable"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.transforms"), name)
