"""p-values adjusted for how many tests there were."""

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Float64: TypeAlias = npt.NDArray[np.float64]
Correction = Literal["holm", "benjamini_hochberg"]


def adjust(p_values: npt.ArrayLike, correction: Correction) -> Float64:
    """Adjusts p-values by the method of that name: float64 [n], in the order given.

    Raises:
        ValueError: the correction is unknown, or see ``holm``.
    """
    if correction == "holm":
        return holm(p_values)
    if correction == "benjamini_hochberg":
        return benjamini_hochberg(p_values)
    raise ValueError(f"correction {correction!r} is unknown: use 'holm' or 'benjamini_hochberg'")


def holm(p_values: npt.ArrayLike) -> Float64:
    """Holm's adjusted p: rejecting those up to a keeps the chance of any false rejection below a.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure"; for any dependence.

    Args:
        p_values: n numbers from 0 to 1.

    Returns:
        float64 [n], in the order given: the largest of (n - j) p(j) over the j-th smallest p (from
        0) up to its own, at most 1.

    Raises:
        ValueError: a p is not from 0 to 1, or NaN.
    """
    p, order = _ordered(p_values)
    factors = np.arange(len(p), 0, -1)
    return _back(np.minimum(np.maximum.accumulate(p[order] * factors), 1), order)


def benjamini_hochberg(p_values: npt.ArrayLike) -> Float64:
    """Benjamini and Hochberg's adjusted p: rejecting those up to q keeps the rate of false ones.

    Benjamini and Hochberg 1995, "Controlling the False Discovery Rate": the expected share of
    false ones among those rejected is at most q, for tests that are independent or positively
    dependent.

    Args:
        p_values: n numbers from 0 to 1.

    Returns:
        float64 [n], in the order given: the least of n p(j) / j over the j-th smallest p (from 1)
        from its own on, at most 1.

    Raises:
        ValueError: a p is not from 0 to 1, or NaN.
    """
    p, order = _ordered(p_values)
    scaled = p[order] * (len(p) / np.arange(1, len(p) + 1))
    return _back(np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1), order)


def _ordered(p_values: npt.ArrayLike) -> tuple[Float64, npt.NDArray[np.intp]]:
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values {p.tolist()} must be a list of numbers from 0 to 1")
    return p, np.argsort(p, kind="stable")


def _back(values: Float64, order: npt.NDArray[np.intp]) -> Float64:
    """Values in the order of ``_ordered`` in the order given."""
    found = np.empty_like(values)
    found[order] = values
    return found
