from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.quality.shingles import mix64
from shardwright.quality.views import ngrams

FALLBACK = [0.0, 0.5, 0.75, 0.9]

streams = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=12), min_size=1, max_size=6)


def hashed(values):
    return mix64(np.array(values, np.uint64))


def discounts(counts):
    n1, n2, n3, n4 = (sum(count == i for count in counts) for i in (1, 2, 3, 4))
    if 0 in (n1, n2, n3, n4):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    wise = all(0 < value < limit for value, limit in zip(found, (1, 2, 3), strict=True))
    return [0.0, *found] if wise else FALLBACK


class Oracle:
    """Interpolated modified Kneser-Ney by the book, with dictionaries and without pruning."""

    def __init__(self, documents, order):
        self.order = order
        grams = Counter()
        for document in documents:
            padded = ["edge"] * (order - 1) + list(document)
            for i in range(len(document)):
                grams[tuple(padded[i : i + order])] += 1
        self.counts = {}
        for size in range(order, 0, -1):
            self.counts[size] = grams
            grams = Counter(gram[1:] for gram in grams)
        self.symbols = {gram[-1] for gram in self.counts[1]}
        self.discounts = {n: discounts(list(c.values())) for n, c in self.counts.items()}

    def probability(self, gram, size):
        if size == 0:
            return 1 / (len(self.symbols) + 1)
        gram = gram[len(gram) - size :]
        below = self.probability(gram, size - 1)
        here = {g: c for g, c in self.counts[size].items() if g[:-1] == gram[:-1]}
        total = sum(here.values())
        if not total:
            return below
        less = {g: self.discounts[size][min(c, 3)] for g, c in here.items()}
        own = (here[gram] - less[gram]) / total if gram in here else 0.0
        return own + sum(less.values()) / total * below

    def surprise(self, document):
        padded = ["edge"] * (self.order - 1) + list(document)
        return [
            -np.log2(self.probability(tuple(padded[i : i + self.order]), self.order))
            for i in range(len(document))
        ]


def trained(documents, order, **options):
    events = (ngrams.left_chain(hashed(document), order) for document in documents)
    return ngrams.train(events, **options)


@settings(max_examples=60, deadline=None)
@given(streams, st.lists(st.integers(1, 7), min_size=1, max_size=8), st.integers(1, 4))
def test_surprise_is_that_of_the_book(documents, wanted, order):
    model = trained(documents, order, prune_above=order)
    got = model.surprise(ngrams.left_chain(hashed(wanted), order))
    np.testing.assert_allclose(got, Oracle(documents, order).surprise(wanted), rtol=1e-5)


def test_discounts_are_estimated_where_the_corpus_is_large():
    rng = np.random.default_rng(0)
    documents = [(rng.zipf(1.6, 300) % 50).tolist() for _ in range(3)]
    oracle = Oracle(documents, 3)
    assert FALLBACK not in oracle.discounts.values()
    model = trained(documents, 3)
    wanted = (rng.zipf(1.6, 60) % 60).tolist()
    got = model.surprise(ngrams.left_chain(hashed(wanted), 3))
    np.testing.assert_allclose(got, oracle.surprise(wanted), rtol=1e-5)


@pytest.mark.parametrize("prune_above", [0, 1, 4])
def test_probabilities_of_a_context_sum_to_one(prune_above):
    rng = np.random.default_rng(1)
    documents = [rng.integers(1, 9, 80).tolist() for _ in range(4)]
    model = trained(documents, 4, prune_above=prune_above)
    seen = sorted({symbol for document in documents for symbol in document})
    for context in ([1, 2, 3], [3, 3, 3], [99, 1, 2], [99, 98, 97]):
        total = 0.0
        for symbol in [*seen, 1234]:  # one that was never seen stands for all of these
            bits = model.surprise(ngrams.left_chain(hashed([*context, symbol]), 4))[-1]
            total += 2.0**-bits
        assert total == pytest.approx(1, abs=1e-6)


def test_pruning_keeps_what_was_seen_twice_behind_a_context_that_was_seen_once():
    documents = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [6, 7, 8, 9]]
    full, pruned = trained(documents, 4, prune_above=4), trained(documents, 4, prune_above=1)
    assert pruned.entries < full.entries
    chain = ngrams.left_chain(hashed([1, 2, 3, 4, 5]), 4)
    other = ngrams.left_chain(hashed([8, 2, 8, 4, 5]), 4)
    assert pruned.surprise(chain)[-1] < pruned.surprise(other)[-1]


@settings(max_examples=20, deadline=None)
@given(streams, st.randoms())
def test_the_order_of_documents_changes_no_bit(documents, random):
    one = trained(documents, 3).arrays()
    random.shuffle(documents)
    two = trained(documents, 3).arrays()
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_arrays_bring_a_model_back():
    model = trained([[1, 2, 3, 1, 2, 4], [2, 2, 1]], 3)
    events = ngrams.left_chain(hashed([1, 2, 3, 9]), 3)
    again = ngrams.NgramModel.from_arrays(model.arrays())
    np.testing.assert_array_equal(again.surprise(events), model.surprise(events))
    assert again.orders == 3


hashes = st.integers(0, 2**64 - 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(hashes, max_size=50), min_size=1, max_size=4), st.lists(hashes))
def test_tables_find_what_is_there(orders, others):
    """In each order alone: what is a key of another is none of this one."""
    ordered = [np.array(sorted(keys), np.uint64) for keys in orders]
    maps = [(keys, np.arange(len(keys), dtype=np.float32)) for keys in ordered]
    tables = ngrams._Tables.build(maps, -1.0)
    wanted = [*set().union(*orders), *others, 0, 2**64 - 1]
    found = tables.find(np.array([wanted] * len(orders), np.uint64))
    for row, keys in zip(found, ordered, strict=True):
        places = {key: place for place, key in enumerate(keys.tolist())}
        assert row.tolist() == [places.get(key, -1) for key in wanted]
    for (keys, values), (found_keys, found_values) in zip(maps, tables.maps(), strict=True):
        assert found_keys.tolist() == keys.tolist()
        assert found_values.tolist() == values.tolist()


def test_a_cloze_looks_at_both_sides():
    documents = [[1, 2, 3], [1, 5, 4]] * 3
    model = ngrams.train(ngrams.chain(hashed(each), [1, -1]) for each in documents)

    def middle(right):
        return model.surprise(ngrams.chain(hashed([1, 2, right]), [1, -1]))[1]

    assert middle(3) < middle(4)


def test_contexts_grow():
    events = ngrams.chain(hashed([1, 2, 1, 2]), [-1, 1])
    one, two, three = (defaultdict(set) for _ in range(3))
    for place in range(4):
        for found, row in zip((one, two, three), events.contexts, strict=True):
            found[int(row[place])].add(place)
    assert list(one.values()) == [{0, 1, 2, 3}]
    assert sorted(map(sorted, two.values())) == [[0], [1, 3], [2]]
    assert len(three) == 4


def test_nothing_to_train_on():
    with pytest.raises(ValueError, match="nothing to train on"):
        ngrams.train([])
