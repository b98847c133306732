"""Recall against brute force, and the least effort that reaches it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.embeddings.recall import K, Truth, reach, recall_of, steps, tune


def unit(rng, n, d=8):
    x = rng.standard_normal((n, d), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(st.integers(0, 40), st.lists(st.integers(0, 40), max_size=3), st.integers(0, 99))
def test_truth_is_brute_force_however_vectors_come(rows, cuts, seed):
    rng = np.random.default_rng(seed)
    queries, vectors = unit(rng, 5), unit(rng, rows)
    truth = Truth(queries)
    for block in np.split(vectors, sorted(cuts)):
        truth.add(block)
    exact = -np.sort(-(queries.astype(float) @ vectors.T.astype(float)), axis=1)[:, :K]
    assert truth.best.shape == exact.shape
    assert np.allclose(truth.best, exact, atol=1e-12)


def test_truths_of_several_workers_join_to_that_of_all():
    rng = np.random.default_rng(0)
    queries, vectors = unit(rng, 4), unit(rng, 33)
    whole, joined = Truth(queries), Truth(queries)
    whole.add(vectors)
    for piece in np.split(vectors, [0, 3, 20]):
        alone = Truth(queries)
        alone.add(piece)
        joined.join(alone.best)
    assert np.array_equal(joined.best, whole.best)


def test_hits_count_what_is_as_similar_as_the_kth():
    truth = Truth(np.eye(2, dtype=np.float32))
    truth.best = np.array([np.linspace(1, 0.1, K)] * 2)
    found = truth.best.astype(np.float32)
    found[1, 6:] = 0.05
    assert truth.hits(found).tolist() == [1.0, 0.6]
    recall = recall_of(truth.hits(found))
    assert (recall.k, recall.mean, recall.queries) == (10, 0.8, 2)
    assert recall.margin == pytest.approx(1.96 * np.std([1, 0.6], ddof=1) / 2**0.5)


def test_a_truth_of_few_vectors_asks_for_no_more():
    truth = Truth(np.eye(3, dtype=np.float32))
    truth.add(np.eye(3, dtype=np.float32)[:2])
    found = np.full((3, K), -3e38, np.float32)
    found[:, :2] = truth.best
    assert truth.hits(found).tolist() == [1, 1, 1]


def finding(truth, share):
    """Answers with the first ``share(effort)`` of the neighbours of each query."""

    def search(effort):
        found = truth.best.astype(np.float32)
        found[:, round(share(effort) * K) :] = -1
        return found

    return search


def test_tune_takes_the_least_effort_that_reaches_the_target():
    truth = Truth(np.zeros((40, 1), np.float32))
    truth.best = np.tile(np.linspace(1, 0.1, K), (40, 1))
    search = finding(truth, lambda effort: min(1.0, effort / 50))
    effort, recall = tune(search, range(1, 101), truth, 0.85)
    assert (effort, round(recall.mean, 9)) == (43, 0.9)  # 0.86 of ten neighbours are nine
    assert recall.queries == 20
    effort, recall = tune(search, range(1, 20), truth, 0.85)
    assert (effort, round(recall.mean, 9)) == (19, 0.4)


def test_the_half_that_reports_had_no_say():
    truth = Truth(np.zeros((40, 1), np.float32))
    truth.best = np.tile(np.linspace(1, 0.1, K), (40, 1))

    def search(effort):
        found = truth.best.astype(np.float32)
        found[1::2, 5:] = -1
        return found

    effort, recall = tune(search, [1, 2], truth, 0.9)
    assert (effort, recall.mean) == (1, 0.5)


def of_two_kinds(first, second):
    """A truth of 40 queries of each of two kinds, and a search that finds a share of each."""
    truth = Truth(np.zeros((80, 1), np.float32))
    truth.best = np.tile(np.linspace(1, 0.1, K), (80, 1))
    one, two = finding(truth, first), finding(truth, second)
    return truth, lambda e: np.concatenate([one(e)[:40], two(e)[40:]])


@pytest.mark.parametrize("swapped", [False, True])
def test_every_kind_of_query_reaches_the_target_and_the_lowest_is_told(swapped):
    shares = [lambda effort: min(1.0, effort / 50), lambda effort: min(1.0, effort / 100)]
    truth, search = of_two_kinds(*(shares[::-1] if swapped else shares))
    effort, recall = tune(search, range(1, 101), truth, 0.85, kinds=2)
    assert (effort, round(recall.mean, 9), recall.queries) == (86, 0.9, 20)


def test_reach_goes_on_until_the_half_that_reports_has_it():
    truth = Truth(np.zeros((40, 1), np.float32))
    truth.best = np.tile(np.linspace(1, 0.1, K), (40, 1))
    asked = []

    def search(effort):
        asked.append(effort)
        found = truth.best.astype(np.float32)
        found[1::2, effort:] = -1  # the half that chooses finds all with any effort
        return found

    effort, recall = reach(search, [1, 2, 5, 9, 10], truth, 0.85)
    assert (effort, round(recall.mean, 9)) == (9, 0.9)
    assert 10 not in asked
    effort, recall = reach(search, [1, 2, 5], truth, 0.9)
    assert (effort, recall.mean) == (5, 0.5)


@given(st.integers(1, 5000))
def test_steps_rise_to_the_most(most):
    found = steps(most)
    assert found[0] == 1
    assert found[-1] == most
    assert found == sorted(set(found))
