"""Rows for many vectors: held in memory, or mapped from a file, with the same values."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardwright.metadata.memory import share


def new_rows(
    shape: tuple[int, int], dtype: npt.DTypeLike, scratch: Path
) -> np.ndarray[Any, np.dtype[Any]]:
    """Rows [n, d] to be filled.

    Args:
        shape: n and d.
        dtype: Of a value.
        scratch: File that they lie in where they are more than may be held (``memory.share``).
    """
    if np.dtype(dtype).itemsize * shape[0] * shape[1] <= share():
        return np.empty(shape, dtype)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    return np.memmap(scratch, dtype, "w+", shape=shape)
