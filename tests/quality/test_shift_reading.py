"""Shifts read on a ruler: the estimator, and amounts that come back."""

import numpy as np
import pytest

from shardwright.quality.heterogeneity.attribution import Part
from shardwright.quality.heterogeneity.changes import change
from shardwright.quality.heterogeneity.device_statistics import (
    IN_HEADER,
    STATISTICS,
    Pixels,
    measure,
)
from shardwright.quality.heterogeneity.reading import (
    paired_mmd_squared,
    read_shift,
    shown_statistics,
)


def scene(rng: np.random.Generator) -> Pixels:
    """Soft blobs of colour with a little grain."""
    low = rng.uniform(40, 200, (4, 4, 3))
    wide = np.kron(low, np.ones((24, 24, 1)))
    return np.clip(wide + rng.normal(0, 3, wide.shape), 0, 255).astype(np.uint8)


def test_estimator_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(1, 1, (7, 3))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / 2.5))

    expected = np.mean(
        [
            kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i])
            for i in range(7)
            for j in range(7)
            if i != j
        ]
    )
    assert paired_mmd_squared(x, y, 2.5) == pytest.approx(expected, abs=1e-12)
    assert paired_mmd_squared(x, x, 2.5) == 0


def test_estimator_has_no_bias_for_copies() -> None:
    """Of few copies it is on average what it is of many that are independent."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(3000):
        x = rng.normal(size=(6, 2))
        found.append(paired_mmd_squared(x, x + 0.7, 4.0))
    many = rng.normal(size=(1500, 2)), rng.normal(size=(1500, 2)) + 0.7
    assert np.mean(found) == pytest.approx(paired_mmd_squared(*many, 4.0), abs=0.004)


@pytest.mark.parametrize(
    ("stage", "move", "amount", "least", "most"),
    [
        ("tone", ("dark", 1.25), 1.4, 1.25, 1.6),
        ("tone", ("bright", 0.8), 0.7, 0.6, 0.8),
        ("white_balance", ("warm", 0.4), 0.4, 0.25, 0.6),
        ("white_balance", ("warm", -0.4), -0.4, -0.6, -0.25),
        ("sharpness", ("blur", -0.8), -0.9, -1.4, -0.5),
    ],
)
def test_amounts_come_back(
    stage: str, move: tuple[str, float], amount: float, least: float, most: float
) -> None:
    """Group b is made of other scenes by a change; group a would be changed as much."""
    rng = np.random.default_rng(2)
    plain, other = [scene(rng) for _ in range(70)], [scene(rng) for _ in range(70)]
    changed = [change(pixels, stage, amount, i) for i, pixels in enumerate(other)]
    a, b = (
        np.array([list(measure(pixels).values()) for pixels in group]) for group in (plain, changed)
    )
    x, y, represent = shown_statistics(a, b)
    reading = read_shift(x, y, plain[:24], represent, Part(1, stage, 0.5, (move,), "a"))
    assert (reading.stage, reading.where) == (stage, "within")
    assert reading.amount is not None
    assert least <= reading.amount <= most


def test_headers_and_gaps_are_left_out() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(9, len(STATISTICS))), rng.normal(size=(8, len(STATISTICS)))
    a[0, 0], b[:, 5] = np.nan, np.nan
    names = [one.name for one in STATISTICS]
    x, y, represent = shown_statistics(a, b)
    assert x.shape[1] == len(names) - len(IN_HEADER) - 1
    assert np.isfinite(x).all()
    both = np.concatenate([x, y])
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(both.std(axis=0), 1)
    assert represent([scene(rng)]).shape == (1, x.shape[1])
    assert set(IN_HEADER) < set(names)
    assert all(np.isnan(measure(scene(rng))[name]) for name in IN_HEADER)
