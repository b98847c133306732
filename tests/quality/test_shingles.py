import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.quality import shingles
from shardwright.quality.shingles import (
    containment,
    jaccard,
    jaccards,
    shingle_hashes,
    token_hashes,
)

WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")
CHUNK = shingles._CHUNK

code = st.text(st.sampled_from("ab_9 \n.(\u00e9\u4e2d\u00a0\U0001f600"), max_size=60)
hash_sets = st.sets(
    st.integers(0, 2**64 - 1) | st.integers(0, 30) | st.just(2**64 - 1), max_size=40
)


def array(values):
    return np.array(sorted(values), np.uint64)


def same_partition(tokens, hashes):
    # Equal tokens have equal hashes, and unlike tokens unlike ones.
    assert len(tokens) == len(hashes)
    assert len(set(tokens)) == len(set(hashes)) == len(set(zip(tokens, hashes, strict=True)))


def windows(data, ngram):
    tokens = WORD.findall(data)
    width = min(ngram, len(tokens))
    return [tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)] if width else []


@given(code | st.text(max_size=60))
def test_tokens_are_those_of_the_regex(text):
    data = text.encode()
    same_partition(WORD.findall(data), token_hashes(data).tolist())


@given(st.binary(max_size=60))
def test_tokens_of_bytes_that_are_no_text(data):
    same_partition(WORD.findall(data), token_hashes(data).tolist())


def test_every_byte_is_word_or_separator_as_in_the_regex():
    for byte in range(256):
        one = bytes([byte])
        assert len(token_hashes(b"a" + one + b"a")) == len(WORD.findall(b"a" + one + b"a"))
        assert len(token_hashes(one)) == len(WORD.findall(one))


def test_a_token_has_the_same_hash_everywhere():
    alone = token_hashes("größe_1".encode())
    for text in ("größe_1", "(größe_1)", "x = größe_1;\n", " " * 1000 + "größe_1"):
        assert alone[0] in token_hashes(text.encode())


def test_hashes_are_pinned():
    # Signatures are stored, so a hash must not change from one version or machine to the next.
    # The values were worked out in plain Python integers.
    assert token_hashes(b"def f(x):").tolist() == [
        12046606116755328514,
        5104537169602387018,
        5105488101942617684,
    ]
    assert shingle_hashes(b"def f(x):", 2).tolist() == [1239227184533448814, 10186621281744096899]


@pytest.mark.parametrize("before", [CHUNK - 7, CHUNK - 3, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("token", [b"token", b"t", b"x" * CHUNK, b"xyz" * CHUNK])
def test_chunk_borders_change_no_hash(before, token, monkeypatch):
    data = b"." * before + token + b" end " + token
    same_partition(WORD.findall(data), token_hashes(data).tolist())
    assert token_hashes(data)[0] == token_hashes(token)[0]


@given(code, st.integers(1, 7))
def test_any_chunk_size_gives_the_same_hashes(text, chunk):
    expected = token_hashes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shingles, "_CHUNK", chunk)
        np.testing.assert_array_equal(token_hashes(text.encode()), expected)


def test_long_tokens_that_differ_in_one_byte_or_in_length():
    tokens = [b"a" * 100_000, b"a" * 99_999, b"b" + b"a" * 99_999, b"a" * 99_999 + b"b"]
    alone = [int(token_hashes(token)[0]) for token in tokens]
    same_partition(tokens, alone)
    assert token_hashes(b" ".join(tokens)).tolist() == alone


@given(st.lists(st.sampled_from("ab é"), max_size=30), st.integers(1, 6))
def test_shingles_are_the_distinct_windows(tokens, ngram):
    data = " ".join(tokens).encode()
    found = shingle_hashes(data, ngram)
    assert found.dtype == np.uint64
    assert np.all(found[1:] > found[:-1])
    assert len(found) == len(set(windows(data, ngram)))


@settings(deadline=None)
@given(code, code, st.integers(1, 4))
def test_jaccard_of_texts_is_that_of_their_windows(one, other, ngram):
    # A short text's only shingle has fewer tokens than the windows of a longer text.
    a, b = (set(windows(text.encode(), ngram)) for text in (one, other))
    expected = len(a & b) / len(a | b) if a | b else 0.0
    got = jaccard(*(shingle_hashes(text.encode(), ngram) for text in (one, other)))
    assert got == expected


def test_order_counts_and_space_and_punctuation_do_not():
    assert shingle_hashes(b"a b c", 3) != shingle_hashes(b"c b a", 3)
    assert shingle_hashes(b"a b c", 3) == shingle_hashes(b"\ta(b)\n{c};", 3)
    assert shingle_hashes(b"ab c", 3) != shingle_hashes(b"a bc", 3)


def test_texts_with_few_tokens():
    assert shingle_hashes(b"", 5).tolist() == []
    assert shingle_hashes(b" ;\n", 5).tolist() == []
    assert len(shingle_hashes(b"one two", 5)) == 1
    assert len(shingle_hashes(b"1 2 3 4 5", 5)) == 1
    assert len(shingle_hashes(b"1 2 3 4 5 6", 5)) == 2


def test_ngram_must_be_positive():
    with pytest.raises(ValueError, match="not 0"):
        shingle_hashes(b"a", 0)


@given(hash_sets, hash_sets)
def test_similarities_are_those_of_python_sets(a, b):
    expected = len(a & b) / len(a | b) if a | b else 0.0
    assert jaccard(array(a), array(b)) == expected
    assert containment(array(a), array(b)) == (len(a & b) / len(a) if a else 0.0)


@pytest.mark.parametrize("block", [1, 30, 2**18])
@given(sets=st.lists(hash_sets, min_size=1, max_size=8), data=st.data())
def test_many_pairs_are_compared_as_one_by_one(block, sets, data):
    numbers = st.integers(0, len(sets) - 1)
    pairs = data.draw(st.lists(st.tuples(numbers, numbers), max_size=20))
    values = np.concatenate([array(one) for one in sets])
    offsets = np.cumsum([0, *map(len, sets)])
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shingles, "_BLOCK", block)
        got = jaccards(values, offsets, left, right)
    assert got.dtype == np.float64
    assert got.tolist() == [jaccard(array(sets[a]), array(sets[b])) for a, b in pairs]
