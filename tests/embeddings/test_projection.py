"""Places on a plane keep neighbours together, whatever is laid out and on however many cores."""

import os

import numpy as np
import numpy.typing as npt
import pytest

from shardwright.embeddings import projection
from shardwright.embeddings.projection import project

Float32 = npt.NDArray[np.float32]


def groups(count: int, each: int) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Groups of vectors in 100 dimensions, each around a point of its own."""
    rng = np.random.default_rng(3)
    middles = rng.standard_normal((count, 100))
    of = np.repeat(np.arange(count), each)
    return (middles[of] + 0.3 * rng.standard_normal((len(of), 100))).astype(np.float32), of


@pytest.fixture(params=[20_000, 100], ids=["all", "probed"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """From how many vectors on neighbours are found by lists."""
    monkeypatch.setattr(projection, "_MANY", request.param)
    return int(request.param)


@pytest.mark.usefixtures("many")
def test_groups_stay_apart() -> None:
    vectors, of = groups(12, 50)
    places = project(vectors)
    assert places.shape == (600, 2)
    assert places.dtype == np.float32
    assert np.abs(places.mean(axis=0)).max() < 1e-3
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (of[apart.argmin(axis=1)] == of).mean() > 0.99


def test_lists_find_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = groups(40, 60)
    exact, distances = projection._neighbours(vectors, 15)
    monkeypatch.setattr(projection, "_MANY", 100)
    found, near = projection._neighbours(vectors, 15)
    assert not (found == np.arange(len(vectors))[:, None]).any()
    same = np.mean([len(set(a) & set(b)) / 15 for a, b in zip(exact, found, strict=True)])
    assert same > 0.95
    assert (near >= distances - 1e-4).all()


def test_cores_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = groups(30, 80)
    once = project(vectors)
    for cores in (1, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert np.array_equal(project(vectors), once)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("count", [0, 1, 2, 5, 16, 17, 18, 40, 150])
def test_few_vectors(count: int) -> None:
    vectors, _ = groups(1, count)
    places = project(vectors)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("dimension", [1, 2, 60])
def test_copies(dimension: int) -> None:
    rng = np.random.default_rng(1)
    copied = np.repeat(rng.standard_normal((3, dimension)), 80, axis=0).astype(np.float16)
    for vectors in (copied, np.zeros_like(copied)):
        places = project(vectors)
        assert places.shape == (240, 2)
        assert np.isfinite(places).all()
