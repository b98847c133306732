"""How far two sets of vectors of the same records lie apart, and what to hold that against.

Golden et al. 2024, "Is Flash Attention Stable?" (arXiv 2405.02803), measure numeric deviation by
the greatest difference and by the Wasserstein distance, and put it into context by differences
whose cause is known. Here these are four bands: a rerun, sampling (two halves of the records), one
step of precision, and a change of the input that nobody minds. Vectors can agree as a distribution
while every row moved, so both surfaces are always measured: rows in pairs, and all rows together.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.semdedup import interval

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Bool: TypeAlias = npt.NDArray[np.bool_]

SPLITS = 100
"""Pairs of halves that the sampling band is made of."""
_EDGES = (2.5, 97.5)


@dataclass(frozen=True)
class Deviation:
    """How far vectors lie from the reference.

    Attributes:
        max_abs: Greatest difference of two numbers.
        relative_l2: Euclidean norm of all differences, by that of the reference.
        cosine_mean: Mean over the rows of 1 - cosine.
        cosine_max: The greatest of these.
        w1: Wasserstein distance of order 1 of each dimension, mean over the dimensions: the one
            measure of distributions, which does not know which row is which.
        changed: Share of the rows in which any bit differs.
    """

    max_abs: float
    relative_l2: float
    cosine_mean: float
    cosine_max: float
    w1: float
    changed: float


@dataclass(frozen=True)
class Sampling:
    """``w1`` between disjoint halves of the records, over seeded splits.

    Attributes:
        mean: Mean of the splits.
        low: Their 2.5th percentile.
        high: Their 97.5th percentile.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """A share of records with Wilson's 95% interval."""

    hits: int
    records: int
    share: float
    low: float
    high: float


def deviation(reference: npt.ArrayLike, other: npt.ArrayLike) -> Deviation:
    """Compares vectors of the same records.

    Args:
        reference: Rows [n, d], finite; n and d at least 1.
        other: Rows [n, d] of the same records in the same order, finite.

    Raises:
        ValueError: shapes differ, there is no row, or a number is not finite.
    """
    x, y = _pair(reference, other)
    apart = y - x
    length = np.linalg.norm(x)
    # of unit rows 1 - cosine is half the squared distance, and that does not cancel out
    cosines = 0.5 * np.square(_unit(y) - _unit(x)).sum(axis=1)
    return Deviation(
        max_abs=float(np.abs(apart).max()),
        relative_l2=float(np.linalg.norm(apart) / length) if length else float(apart.any()),
        cosine_mean=float(cosines.mean()),
        cosine_max=float(cosines.max()),
        w1=w1_per_dimension(x, y),
        changed=float((x != y).any(axis=1).mean()),
    )


def w1_per_dimension(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Wasserstein distance of order 1 of each dimension, mean over the dimensions.

    Of equally many numbers on a line it is the mean difference of the sorted ones (Villani 2003,
    "Topics in Optimal Transportation", th. 2.18).

    Args:
        x: Rows [n, d].
        y: Rows [n, d], in no order.

    Raises:
        ValueError: shapes differ, there is no row, or a number is not finite.
    """
    left, right = _pair(x, y)
    return float(np.abs(np.sort(left, axis=0) - np.sort(right, axis=0)).mean())


def sampling_band(rows: npt.ArrayLike, seed: int = 0, splits: int = SPLITS) -> Sampling:
    """What sampling alone does to ``w1``: two disjoint random halves of the same records.

    Halves have half the records, and so a wider band than two whole samples would have: by a
    factor of about the root of 2.

    Args:
        rows: [n, d], n at least 4; of an odd number each split leaves one out.
        seed: Of the splits; not negative.
        splits: How many.

    Raises:
        ValueError: there are too few rows or splits, or a number is not finite.
    """
    x, _ = _pair(rows, rows)
    half = len(x) // 2
    if half < 2 or splits < 1:
        raise ValueError(f"{len(x)} rows and {splits} splits: at least 4 and 1 are needed")
    rng = np.random.default_rng(seed)
    found = np.empty(splits)
    for split in range(splits):
        order = rng.permutation(len(x))
        found[split] = w1_per_dimension(x[order[:half]], x[order[half : 2 * half]])
    low, high = np.percentile(found, _EDGES)
    return Sampling(float(found.mean()), float(low), float(high))


def stored(rows: Float32, dtype: Literal["float16", "bfloat16"]) -> Float32:
    """Rows as they come back from being stored in half precision: rounded to nearest, ties to even.

    Args:
        rows: float32 [n, d].
        dtype: Of the store.
    """
    import torch

    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
    found: Float32 = torch.from_numpy(np.array(rows, np.float32)).to(kind).float().numpy()
    return found


def ratio(value: float, band: float) -> float | None:
    """How many times the band a value is; None where the band is 0."""
    return value / band if band else None


def share(hits: Bool) -> Share:
    """The share of records [n] of which something is true."""
    count, records = int(hits.sum()), len(hits)
    low, high = interval(count, records)
    return Share(count, records, count / records if records else 0.0, low, high)


def fewer(flips: Bool, harmless: Bool) -> bool:
    """Whether it is shown that not more records flip than under the harmless change.

    McNemar's test (1947) in its exact form: of the records that flip in one case and not in the
    other, the 95% interval (Clopper and Pearson 1934) of the share that flips here alone must not
    reach above one half. Five such records are too few to show anything.

    Args:
        flips: bool [n], the records that flip.
        harmless: bool [n], those that flip under the harmless change.

    Raises:
        ValueError: lengths differ.
    """
    from scipy.stats import binomtest

    if flips.shape != harmless.shape:
        raise ValueError(f"{len(flips)} and {len(harmless)} records: they must be the same ones")
    here, there = int((flips & ~harmless).sum()), int((harmless & ~flips).sum())
    if here + there == 0:
        return False
    exact = binomtest(here, here + there).proportion_ci(0.95, "exact")
    return bool(exact.high <= 0.5)


def _pair(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float64, Float64]:
    left, right = (np.asarray(rows, np.float64) for rows in (x, y))
    if left.ndim != 2 or left.shape != right.shape or not left.size:
        raise ValueError(
            f"rows of shape {left.shape} and {right.shape}: both must be [n, d], n and d above 0"
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("a row holds NaN or infinity")
    return left, right


def _unit(rows: Float64) -> Float64:
    lengths: Any = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Float64 = rows / np.where(lengths > 0, lengths, 1.0)
    return unit
