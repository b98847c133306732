"""Batched distances between rows, exact in real arithmetic, on the CPU and on CUDA.

Importing the package imports nothing else; torch is imported when a function is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardwright.kernels.api import (
        Count,
        Metric,
        Precision,
        counting,
        group_max,
        kernel_sum,
        nearest,
        pairs_above,
        topk,
    )

__all__ = [
    "Count",
    "Metric",
    "Precision",
    "counting",
    "group_max",
    "kernel_sum",
    "nearest",
    "pairs_above",
    "topk",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("shardwright.kernels.api"), name)
    raise AttributeError(f"module 'shardwright.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
