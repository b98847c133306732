"""From bits per place to one number per file.

A mean is the field's own figure, cross-entropy; damage in one function is diluted in it, so the
worst windows, less the file's median, and what exceeds a few bits at places of choice are taken
too. A prior number of places holds back files that have few of them, so that a short file is not
judged by one place.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.views import tokens

WINDOW, TOP = 32, 100
_PRIOR = 5
_LONG_LINE = 20
_EXCESS = 2.0  # bits: what is a quarter as likely as even is no news


def mean(bits: NDArray[np.float64]) -> float | None:
    """Mean of some bits, None for fewer than three."""
    return float(bits.mean()) if len(bits) >= 3 else None


def worst(bits: NDArray[np.float64]) -> float | None:
    """Mean of the worst hundredth of all windows of 32, less the median of all bits.

    Returns:
        Bits; None for a file of fewer than 64 places.
    """
    if len(bits) < 2 * WINDOW:
        return None
    sums = np.cumsum(np.concatenate([np.zeros(1), bits]))
    windows = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
    count = max(len(windows) // TOP, 1)
    return float(np.partition(windows, -count)[-count:].mean() - np.median(bits))


def excess(bits: NDArray[np.float64]) -> float | None:
    """What exceeds two bits, per place and five places more; None without a place."""
    if not len(bits):
        return None
    return float(np.maximum(bits - _EXCESS, 0).sum() / (len(bits) + _PRIOR))


def repeated_lines(data: bytes) -> float | None:
    """Share of a text's long lines, in bytes, that have stood in it before.

    Args:
        data: The text.

    Returns:
        0 to 1; None for a text without a line of 20 bytes or more, white space around it aside.
    """
    lines = [line for line in map(bytes.strip, data.splitlines()) if len(line) >= _LONG_LINE]
    if not lines:
        return None
    every, distinct = sum(map(len, lines)), sum(map(len, set(lines)))
    return 1 - distinct / every


def by_class(stream: NDArray[np.uint64], bits: NDArray[np.float64]) -> Mapping[str, float | None]:
    """Mean bits of the names, the numbers and the operators of a stream.

    Args:
        stream: uint64 [tokens], of ``tokens.abstract``.
        bits: float64 [tokens].
    """
    kinds = tokens.classes(stream)
    wanted = {"names": tokens.NAME, "numbers": tokens.NUMBER, "operators": tokens.OPERATOR}
    return {name: mean(bits[kinds == kind]) for name, kind in wanted.items()}
