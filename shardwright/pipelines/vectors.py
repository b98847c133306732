"""Vectors between Arrow and NumPy."""

from typing import Any

import numpy as np
import pyarrow as pa


def matrix(vectors: pa.FixedSizeListArray) -> np.ndarray[Any, Any]:
    """The vectors as a float32 array [n, d]."""
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    rows: np.ndarray[Any, Any] = flat.reshape(len(vectors), vectors.type.list_size)
    return rows.astype(np.float32, copy=False)


def column(vectors: np.ndarray[Any, Any], kind: pa.DataType) -> pa.FixedSizeListArray:
    """Rows [n, d] as a column of the fixed-size list type ``kind``, cast to its value type."""
    flat = np.ascontiguousarray(vectors).reshape(-1).astype(kind.value_type.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), kind.list_size).cast(kind)
