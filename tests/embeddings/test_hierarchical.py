"""k-means in two levels: how shares fall, and how good its clusters are beside one level's."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.embeddings import hierarchical
from shardwright.embeddings.hierarchical import fit_centroids, proportional
from shardwright.embeddings.kmeans import KMeans
from shardwright.embeddings.sampling import automatic_k, sample_size


def rows(count: int, groups: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, 32))
    made = centres[rng.integers(0, groups, count)] + 0.3 * rng.standard_normal((count, 32))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.floats(0, 1))
def test_shares_are_proportional(sizes: list[int], part: float) -> None:
    given_sizes = np.array(sizes, np.int64)
    total = round(part * int(given_sizes.sum()))
    shares = proportional(given_sizes, total)
    assert shares.sum() == total
    assert (shares >= 0).all()
    assert (shares <= given_sizes).all()
    if total:
        exact = given_sizes * total / given_sizes.sum()
        assert (np.abs(shares - exact) <= 1 + 1e-9).all()


def test_two_levels_are_nearly_as_good_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(4000, 60)
    flat = KMeans(100, iterations=15).fit(x)
    monkeypatch.setattr(hierarchical, "FLAT", 50)
    centroids = fit_centroids(x, KMeans(100, iterations=15))
    assert centroids.shape == (100, 32)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)
    _, distances = KMeans(100).assign(x, centroids)
    assert distances.sum() < 1.15 * flat.inertia
    again = fit_centroids(x, KMeans(100, iterations=15))
    assert again.tobytes() == centroids.tobytes()


def test_few_clusters_are_found_in_one_level() -> None:
    x = rows(500, 10)
    settings = KMeans(20, iterations=5)
    assert fit_centroids(x, settings).tobytes() == settings.fit(x).centroids.tobytes()


def test_rows_in_a_file_give_the_same_centroids(tmp_path: Path) -> None:
    x = rows(3000, 20)
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    settings = KMeans(30, iterations=5)
    assert fit_centroids(mapped, settings).tobytes() == settings.fit(x).centroids.tobytes()


def test_sizes() -> None:
    assert [automatic_k(rows) for rows in (0, 1, 3, 100, 10_000_000)] == [1, 1, 1, 10, 3162]
    assert sample_size(10, 3) == 10
    assert sample_size(10**6, 3) == 4096
    assert sample_size(10**6, 1000) == 256_000
    assert sample_size(10**9, 10**6) == 1 << 22
