"""Semantic duplicates: against the published loop and plain definitions, at any cluster size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.quality import close_pairs as finding
from shardwright.quality.close_pairs import close_pairs, narrow_basis
from shardwright.quality.semdedup import MEANINGS, Verdicts, interval, threshold_for


def clustered(sizes: list[int], dimension: int = 24, spread: float = 0.35, seed: int = 0):
    """Unit rows of clusters of given sizes, their labels and the clusters' centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = centres[labels] + spread * rng.standard_normal((len(labels), dimension))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), labels, centres.astype(np.float32)


def published(x: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """The loop of SemDeDup (Abbas et al., Alg. A7): dropped rows, clusters in order of ranks."""
    dropped = np.zeros(len(x), bool)
    for cluster in np.unique(labels):
        rows = np.flatnonzero(labels == cluster)
        reps = torch.from_numpy(x[rows]).double()
        similarity = reps @ reps.T
        upper = torch.triu(similarity, diagonal=1)
        dropped[rows] = (upper.max(dim=0)[0] > threshold).numpy()
    return dropped


def plainly(x: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Who is dropped under each meaning, by its definition."""
    exact = x.astype(np.float64)
    close = (exact @ exact.T > threshold) & (labels[:, None] == labels)
    np.fill_diagonal(close, False)
    n = len(x)
    ranked = np.array([close[j, :j].any() for j in range(n)], bool)
    greedy = np.zeros(n, bool)
    for j in range(n):
        greedy[j] = (close[j, :j] & ~greedy[:j]).any()
    first = np.arange(n)
    for _ in range(n):
        before = first.copy()
        for j in range(n):
            near = np.append(np.flatnonzero(close[j]), j)
            first[near] = first[near].min()
        if (first == before).all():
            break
    return {"ranked": ranked, "greedy": greedy, "components": first != np.arange(n)}


def verdicts(x, labels, threshold, narrow=None) -> Verdicts:
    found = Verdicts(len(x))
    for pairs in close_pairs(x, labels, threshold, narrow):
        found.add(*pairs)
    return found


def dropped(found: Verdicts, meaning: str) -> np.ndarray:
    leads = found.representatives(meaning)
    return leads != np.arange(len(leads))


@pytest.fixture(autouse=True)
def all_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of directions, however little it rules out."""
    monkeypatch.setattr(finding, "_WIDTHS", tuple(range(1, 65)))
    monkeypatch.setattr(finding, "_WHOLE", 0.5)


SIZES = [1, 7, 1, 300, 2, 40, 0, 90]


@pytest.mark.parametrize("width", [None, 1, 6, 24])
@pytest.mark.parametrize("threshold", [0.05, 0.4, 0.6, 0.9])
def test_the_meanings_are_their_definitions(threshold: float, width: int | None) -> None:
    x, labels, centres = clustered(SIZES)
    narrow = None if width is None else narrow_basis(x, labels, centres, width)
    found, expected = verdicts(x, labels, threshold, narrow), plainly(x, labels, threshold)
    for meaning in MEANINGS:
        np.testing.assert_array_equal(dropped(found, meaning), expected[meaning])
    np.testing.assert_array_equal(dropped(found, "ranked"), published(x, labels, threshold))


@pytest.mark.parametrize("tile", [9, 64, 300])
@pytest.mark.parametrize("width", [None, 6])
def test_tiles_change_nothing(
    tile: int, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels, centres = clustered([3, 150, 20, 64, 1], seed=2)
    narrow = None if width is None else narrow_basis(x, labels, centres, width)
    whole = verdicts(x, labels, 0.5, narrow)
    monkeypatch.setattr(finding, "SMALL", 3)
    monkeypatch.setattr(finding, "TILE", tile)
    monkeypatch.setattr(finding, "_BLOCK", 7)
    monkeypatch.setattr(finding, "_HELD_PAIRS", 50)
    tiled = verdicts(x, labels, 0.5, narrow)
    for meaning in MEANINGS:
        np.testing.assert_array_equal(
            whole.representatives(meaning), tiled.representatives(meaning)
        )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.floats(0.05, 0.95),
    st.integers(0, 2**31),
    st.sampled_from([None, 2, 8]),
)
def test_any_clusters(sizes: list[int], threshold: float, seed: int, width: int | None) -> None:
    x, labels, centres = clustered(sizes, 8, 0.5, seed)
    narrow = None if width is None else narrow_basis(x, labels, centres, width)
    found, expected = verdicts(x, labels, threshold, narrow), plainly(x, labels, threshold)
    for meaning in MEANINGS:
        gone, leads = dropped(found, meaning), found.representatives(meaning)
        np.testing.assert_array_equal(gone, expected[meaning])
        assert not gone[leads].any(), "a representative stays"
        np.testing.assert_array_equal(labels[leads], labels)
    ranked, greedy, components = (dropped(found, meaning) for meaning in MEANINGS)
    assert not (greedy & ~ranked).any()
    assert not (ranked & ~components).any()


def test_chain() -> None:
    """A ~ B ~ C, and A and C apart."""
    angles = np.deg2rad([0, 10, 20])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = verdicts(x, np.zeros(3, np.int64), float(np.cos(np.deg2rad(12))))
    assert found.representatives("ranked").tolist() == [0, 0, 0]
    assert found.representatives("greedy").tolist() == [0, 0, 2]
    assert found.representatives("components").tolist() == [0, 0, 0]
    # C before B: nothing earlier is close to C, and B is close to both
    found = verdicts(x[[0, 2, 1]], np.zeros(3, np.int64), float(np.cos(np.deg2rad(12))))
    assert found.representatives("ranked").tolist()[1] == 1
    assert found.representatives("greedy").tolist()[1] == 1
    assert found.representatives("components").tolist() == [0, 0, 0]


def test_equal_rows_and_the_threshold_itself() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 1, 2]]
    half = np.array([[1, 0], [0.5, 0.75**0.5]], np.float32)
    labels = np.zeros(6, np.int64)
    for width in (None, 2):
        centre = np.ones((1, 4), np.float32) / 2
        narrow = None if width is None else narrow_basis(x, labels, centre, width)
        found = verdicts(x, labels, 0.999, narrow)
        for meaning in MEANINGS:
            assert found.representatives(meaning).tolist() == [0, 0, 2, 2, 2, 5]
    exactly = float(half[1].astype(np.float64)[0] / np.linalg.norm(half[1].astype(np.float64)))
    assert not dropped(verdicts(half, labels[:2], exactly + 1e-12), "ranked").any()
    assert dropped(verdicts(half, labels[:2], exactly - 1e-12), "ranked").any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_bound_is_never_less_than_the_similarity(dtype: type) -> None:
    x, labels, centres = clustered([400], 48, 0.6)
    x = (3 * x).astype(dtype)
    exact = x.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    for width in (1, 8, 47):
        narrow = narrow_basis(x, labels, 5 * centres, width)
        few = narrow.rows(torch.from_numpy(x), torch.from_numpy(labels)).numpy().astype(np.float64)
        assert few.shape == (400, width + 2)
        assert (few @ few.T >= exact @ exact.T - 2.0**-22).all()
    # with all directions nothing is left, and the bound is the similarity
    narrow = narrow_basis(x, labels, centres, 48)
    few = narrow.rows(torch.from_numpy(x), torch.from_numpy(labels)).numpy().astype(np.float64)
    np.testing.assert_allclose(few @ few.T, exact @ exact.T, atol=1e-6)


def test_most_pairs_are_ruled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie in few directions are not compared whole."""
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((4, 64))
    x = rng.standard_normal((500, 4)) @ plane
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    labels = np.zeros(500, np.int64)
    measured = []
    above = finding.exact.above
    monkeypatch.setattr(
        finding.exact, "above", lambda *given: measured.append(len(given[2])) or above(*given)
    )
    monkeypatch.setattr(finding, "_WIDTHS", (4,))
    narrow = narrow_basis(x, labels, np.eye(64, dtype=np.float32)[:1], 4)
    pairs = next(close_pairs(x, labels, 0.995, narrow))
    assert 0 < len(pairs[0]) <= measured[0] < 1.1 * len(pairs[0]) + 10


def test_the_cheapest_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((60, 256))
    labels = torch.zeros(400, dtype=torch.int64)
    few = torch.from_numpy(rng.standard_normal((400, 60)) @ plane).float()
    many = torch.from_numpy(rng.standard_normal((400, 256))).float()
    for x, expected in ((few, 64), (many, None)):
        narrow = narrow_basis(x.numpy(), labels.numpy(), np.eye(256, dtype=np.float32)[:1], 128)
        assert narrow.best_width(x, labels, 0.6 if expected else 0.1) == expected


def test_threshold_for_a_target() -> None:
    highest = np.array([-np.inf, 0.2, 0.9, 0.5, 0.95])
    for target, kept in ((0.2, 1), (0.21, 2), (0.6, 3), (0.8, 4), (0.99, 5)):
        threshold = threshold_for(highest, target)
        assert (highest <= threshold).sum() == kept


def test_interval_of_a_share() -> None:
    low, high = interval(10, 100)
    assert low == pytest.approx(0.0552, abs=1e-4)
    assert high == pytest.approx(0.1744, abs=1e-4)
    assert interval(0, 50)[0] == 0
    assert interval(50, 50)[1] == pytest.approx(1)
    assert interval(0, 0) == (0.0, 1.0)
