"""The functions of this package as torch custom operators, ``torch.ops.shardwright.*``.

Operators take tensors that api.py has checked. The last output of all but ``kernel_sum`` is the
number of rows certified at once, int64 []. None is differentiable.

They are defined by ``torch.library.Library``: ``torch.library.custom_op`` says the same in fewer
words, and loads torch's compiler (more than a second) at the first call, compiled or not.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from shardwright.kernels import cpu, rbf

_LIBRARY = torch.library.Library("shardwright", "DEF")


def _define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Defines an operator for all devices, and what it gives without data; returns it."""
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"shardwright::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.shardwright, name)


def _on(x: Tensor) -> ModuleType:
    """The module that computes where ``x`` lies."""
    if not x.is_cuda:
        return cpu
    from shardwright.kernels import gpu  # which is all that needs NVIDIA's bindings

    return gpu


def _int64(x: Tensor, *shape: "int | torch.SymInt") -> Tensor:
    return x.new_empty(shape, dtype=torch.int64)


def _float64(x: Tensor, *shape: "int | torch.SymInt") -> Tensor:
    return x.new_empty(shape, dtype=torch.float64)


nearest = _define(
    "nearest(Tensor x, Tensor c, str metric, bool exact) -> (Tensor, Tensor, Tensor)",
    lambda x, c, metric, exact: _on(x).nearest(x, c, metric, exact),
    lambda x, c, metric, exact: (_int64(x, len(x)), _float64(x, len(x)), _int64(x)),
)
"""Index int64 [N] and value float64 [N] of the nearest row of c [K, d] for each of x [N, d]."""

topk = _define(
    "topk(Tensor x, Tensor y, int k, str metric, bool exact) -> (Tensor, Tensor, Tensor)",
    lambda x, y, k, metric, exact: _on(x).topk(x, y, k, metric, exact),
    lambda x, y, k, metric, exact: (_int64(x, len(x), k), _float64(x, len(x), k), _int64(x)),
)
"""Index int64 [N, k] and value float64 [N, k] of the k nearest rows of y [M, d]."""

group_max = _define(
    "group_max(Tensor x, Tensor offsets, str metric, bool exact) -> (Tensor, Tensor, Tensor)",
    lambda x, offsets, metric, exact: _on(x).group_max(x, offsets, metric, exact),
    lambda x, offsets, metric, exact: (_int64(x, len(x)), _float64(x, len(x)), _int64(x)),
)
"""Index int64 [N] and value float64 [N] of the nearest earlier row of the same group."""


def _some_pairs(
    x: Tensor, threshold: float, offsets: Tensor, metric: str, exact: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pairs = torch.library.get_ctx().new_dynamic_size()
    return _int64(x, pairs), _int64(x, pairs), _float64(x, pairs), _int64(x)


pairs_above = _define(
    "pairs_above(Tensor x, float threshold, Tensor offsets, str metric, bool exact)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    lambda x, threshold, offsets, metric, exact: _on(x).pairs_above(
        x, threshold, offsets, metric, exact
    ),
    _some_pairs,
)
"""Earlier and later row int64 [P] and value float64 [P] of a group's pairs past a threshold."""

kernel_sum = _define(
    "kernel_sum(Tensor x, Tensor y, Tensor gammas) -> (Tensor, Tensor)",
    lambda x, y, gammas: (_on(x) if x.is_cuda else rbf).kernel_sum(x, y, gammas),
    lambda x, y, gammas: (_float64(x, len(gammas)), _float64(x, len(gammas), len(x))),
)
"""Sums float64 [G] and row sums float64 [G, N] of exp(-gamma |x_i - y_j|^2)."""
