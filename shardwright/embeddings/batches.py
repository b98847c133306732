"""What goes through a torch model at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Batch:
    """Prepared inputs of one pass.

    Attributes:
        rows: int64 [n], for each line of the pass the input of the call that it belongs to; an
            input that is read in windows has several lines.
        features: what the model takes: tensors whose first axis has n lines, and plain values.
        tokens: tokens in it that are no padding; 0 for images.
    """

    rows: npt.NDArray[np.int64]
    features: dict[str, Any]
    tokens: int = 0


class Preparer(Protocol):
    """Cuts the inputs of a call into batches; runs in a thread beside the model."""

    description: dict[str, str]

    def batches(self, inputs: Sequence[Any]) -> Iterator[Batch]:
        """The batches of a call, formed from its inputs alone."""
        ...


def halves(features: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The two halves of a batch's lines, padded as the whole is; None if it does not split."""
    tensors = [value for value in features.values() if isinstance(value, torch.Tensor)]
    lines = {len(tensor) if tensor.ndim else 0 for tensor in tensors}
    if len(lines) != 1 or (count := lines.pop()) < 2:
        return None

    def cut(part: slice) -> dict[str, Any]:
        return {
            key: value[part] if isinstance(value, torch.Tensor) else value
            for key, value in features.items()
        }

    return cut(slice(0, count // 2)), cut(slice(count // 2, count))
