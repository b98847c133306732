"""SemDeDup and D4 as scores: against the published loop and plain lists."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardwright.embeddings import KMeans
from shardwright.quality.pruning import similarity as module
from shardwright.quality.pruning.cut import pruned
from shardwright.quality.pruning.d4 import d4_score, duplicate_count, split_ratio, survivors_query
from shardwright.quality.pruning.relations import evaluate, relation
from shardwright.quality.pruning.semdedup import semdedup_score
from shardwright.quality.pruning.similarity import earlier_similarity, highest_earlier


def planted(sizes: list[int], seed: int, dimension: int = 8):
    """Shuffled rows of clusters of given sizes, with copies, near copies and equal distances."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)) * 3, sizes)  # numbers in between are of no cluster
    n = len(labels)
    centres = rng.standard_normal((max(len(sizes), 1), dimension))
    x = centres[labels // 3] + 0.5 * rng.standard_normal((n, dimension))
    if n:
        source = rng.integers(0, n, n)
        copied = rng.random(n) < 0.3
        copied &= labels[source] == labels
        x[copied] = x[source[copied]]
        close = rng.random(n) < 0.2
        x[close] += 0.02 * rng.standard_normal((int(close.sum()), dimension))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    distances = rng.choice([0.1, 0.2, 0.3, 0.35, 0.9], n)
    order = rng.permutation(n)
    ids = np.array([f"{i:032x}" for i in rng.permutation(n)], dtype=np.str_)
    return ids, x[order].astype(np.float32), labels[order], distances[order]


def loop(ids, x, labels, distances) -> np.ndarray:
    """M of the published loop (Abbas et al., Alg. A7); -1 for the first row of a cluster."""
    found = np.full(len(x), -1.0)
    for cluster in np.unique(labels):
        rows = sorted(np.flatnonzero(labels == cluster), key=lambda i: (-distances[i], ids[i]))
        reps = torch.from_numpy(x[rows]).double()
        reps /= reps.norm(dim=1, keepdim=True)
        similar = reps @ reps.T
        # the published code leaves 0 where there is no earlier row, which no threshold is below
        similar.masked_fill_(torch.ones_like(similar).tril().bool(), -1)
        found[rows] = similar.max(dim=0)[0].clamp(-1, 1).numpy()
    return found


SIZES = st.lists(st.integers(1, 40), max_size=5)


@settings(max_examples=25)
@given(SIZES, st.integers(0, 2**31))
@example([500], 1)
@example([1, 500, 2, 1, 77], 2)
@example([], 3)
@example([1], 4)
@example([1, 1, 1], 5)
def test_similarity_is_that_of_the_published_loop(sizes: list[int], seed: int) -> None:
    ids, x, labels, distances = planted(sizes, seed)
    found = earlier_similarity(x, labels, distances, ids)
    np.testing.assert_allclose(found, loop(ids, x, labels, distances), atol=1e-12)
    assert (found == -1).sum() >= len(sizes)


@settings(max_examples=25)
@given(SIZES, st.integers(0, 2**31), st.floats(0, 1))
@example([500], 1, 0.4)
@example([300, 1, 50], 2, 0.2)
@example([30, 7], 3, 0.0)
def test_the_lowest_are_what_semdedup_drops_at_their_threshold(
    sizes: list[int], seed: int, place: float
) -> None:
    ids, x, labels, distances = planted(sizes, seed)
    highest = loop(ids, x, labels, distances)
    values = np.sort(np.append(highest, [-1.0, 1.1]))
    gaps = np.flatnonzero(np.diff(values) > 1e-9)  # thresholds that no rounding moves
    at = gaps[int(place * (len(gaps) - 1))]
    dropped = highest > (values[at] + values[at + 1]) / 2
    score = semdedup_score(ids, x, labels, distances)
    fraction = dropped.sum() / max(len(ids), 1)
    np.testing.assert_array_equal(pruned(ids, score, fraction), dropped)


def test_scores_of_copies_and_of_the_first() -> None:
    x = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 2]]
    ids = ["c", "b", "a", "e", "d"]
    score = semdedup_score(ids, x, [0, 0, 0, 1, 1], [0.2, 0.2, 0.5, 0.1, 0.3])
    np.testing.assert_array_equal(score, [0, 1, 2, 0, 2])


@settings(max_examples=15)
@given(SIZES, st.integers(0, 2**31))
def test_order_of_rows_changes_no_bit(sizes: list[int], seed: int) -> None:
    ids, x, labels, distances = planted(sizes, seed)
    order = np.random.default_rng(seed).permutation(len(ids))
    score = semdedup_score(ids, x, labels, distances)
    again = semdedup_score(ids[order], x[order], labels[order], distances[order])
    np.testing.assert_array_equal(again, score[order])


@pytest.mark.parametrize("held", [1, 900, 4000, 1 << 28])
def test_how_many_are_gathered_at_a_time_changes_no_bit(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, x, labels, distances = planted([3, 150, 1, 1, 20, 64, 1], 6)
    whole = earlier_similarity(x, labels, distances, ids)
    seen: list[int] = []
    inner = highest_earlier

    def watched(vectors, clusters):
        seen.append(len(vectors))
        return inner(vectors, clusters)

    monkeypatch.setattr(module, "_HELD_BYTES", held)
    monkeypatch.setattr(module, "highest_earlier", watched)
    np.testing.assert_array_equal(earlier_similarity(x, labels, distances, ids), whole)
    assert sum(seen) == len(ids)
    most = held // (4 * x.shape[1])
    assert all(size <= max(most, 150) for size in seen)
    assert len(seen) == {1: 7, 900: 5, 4000: 3}.get(held, 1)


def test_tensors_and_half_precision_are_taken(tmp_path) -> None:
    ids, x, labels, distances = planted([40, 9], 7)
    plain = earlier_similarity(x, labels, distances, ids)
    for device in (None, "cpu"):
        found = earlier_similarity(torch.from_numpy(x), labels, distances, ids, device)
        np.testing.assert_array_equal(found, plain)
    half = x.astype(np.float16)
    expected = earlier_similarity(half.astype(np.float32), labels, distances, ids)
    np.testing.assert_array_equal(earlier_similarity(half, labels, distances, ids), expected)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[:] = x
    np.testing.assert_array_equal(earlier_similarity(mapped, labels, distances, ids), plain)


def test_shapes_must_fit() -> None:
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match=r"distances has shape \(2,\): there are 3 vectors"):
        earlier_similarity(x, [0, 0, 0], [0.1, 0.2], ["a", "b", "c"])


@given(st.floats(0, 1), st.floats(0.01, 1))
def test_the_steps_keep_what_they_must_in_all(fraction: float, dedup: float) -> None:
    first, second = split_ratio(fraction, dedup)
    assert first * second == pytest.approx(1 - fraction)
    assert dedup <= first <= 1
    assert 0 <= second <= 1 + 1e-12
    for n in (0, 1, 7, 1000):
        assert 0 <= duplicate_count(n, fraction, dedup) <= round(fraction * n)


def test_the_split_of_the_paper_and_of_a_mild_cut() -> None:
    assert split_ratio(0.75) == pytest.approx((0.75, 1 / 3))
    assert split_ratio(0.4375) == pytest.approx((0.75, 0.75))
    assert split_ratio(0.19) == pytest.approx((0.9, 0.9))
    assert split_ratio(0.0) == (1.0, 1.0)
    assert duplicate_count(1000, 0.19) == 100
    with pytest.raises(ValueError, match="fraction is 2"):
        split_ratio(2)
    with pytest.raises(ValueError, match="dedup is 0"):
        split_ratio(0.5, 0)


class Seen:
    """A clustering by the first coordinate that remembers what it was given."""

    def __init__(self) -> None:
        self.rows = np.zeros((0, 8), np.float32)

    def __call__(self, x):
        assert not len(self.rows)
        self.rows = x
        near = np.round(1 - x[:, 0].astype(float), 1) / 1000  # with ties, below what copies score
        return SimpleNamespace(labels=(x[:, 0] > 0).astype(np.int64), distances=near)


@settings(max_examples=20)
@given(SIZES, st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.9, 1.0]))
def test_d4_is_its_two_steps(sizes: list[int], seed: int, fraction: float) -> None:
    ids, x, labels, distances = planted(sizes, seed)
    seen = Seen()
    score = d4_score(ids, x, labels, distances, fraction, seen)  # type: ignore[arg-type]
    novelty = semdedup_score(ids, x, labels, distances)
    by_novelty = sorted(range(len(ids)), key=lambda i: (novelty[i], ids[i]))
    first = round((1 - max(0.75, np.sqrt(1 - fraction))) * len(ids))
    total = round(fraction * len(ids))
    first = min(first, total)
    left = by_novelty[first:]
    np.testing.assert_array_equal(seen.rows, x[sorted(left, key=lambda i: ids[i])])
    by_distance = sorted(left, key=lambda i: (np.round(1 - float(x[i, 0]), 1), ids[i]))
    gone = by_novelty[:first] + by_distance[: total - first]
    expected = np.zeros(len(ids), bool)
    expected[gone] = True
    np.testing.assert_array_equal(pruned(ids, score, fraction), expected)


@settings(max_examples=10)
@given(st.lists(st.integers(5, 30), min_size=1, max_size=4), st.integers(0, 2**31))
def test_order_of_rows_does_not_change_d4(sizes: list[int], seed: int) -> None:
    ids, x, labels, distances = planted(sizes, seed)
    order = np.random.default_rng(seed).permutation(len(ids))
    cluster = KMeans(2).fit
    score = d4_score(ids, x, labels, distances, 0.5, cluster)
    again = d4_score(ids[order], x[order], labels[order], distances[order], 0.5, cluster)
    np.testing.assert_array_equal(again, score[order])
    tensor = d4_score(ids, torch.from_numpy(x), labels, distances, 0.5, cluster)
    np.testing.assert_array_equal(tensor, score)


def test_survivors_are_as_many_as_the_first_step_keeps() -> None:
    ids, x, labels, distances = planted([60, 40], 9)
    similarity = earlier_similarity(x, labels, distances, ids)
    table = relation(ids, similarity=similarity)
    query = survivors_query("similarities", 100, 0.5)
    chosen = f"SELECT record_id, record_id IN ({query}) AS stays FROM similarities"
    stays = evaluate(chosen, ids, similarities=table)
    assert stays.sum() == 75
    assert similarity[stays].max() <= similarity[~stays].min()


def test_a_topic_of_copies_does_not_crowd_out_others() -> None:
    """What D4 is for: copies go first, and then the ordinary records."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 16))
    x[:50] = x[0] + 1e-3 * rng.standard_normal((50, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    ids = [f"{i:032x}" for i in range(200)]
    found = KMeans(8).fit(x)
    score = d4_score(ids, x, found.labels, found.distances, 0.5, KMeans(8).fit)
    gone = pruned(ids, score, 0.5)
    assert gone[:50].sum() >= 49
