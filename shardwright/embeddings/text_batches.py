"""Texts to batches of tokens: tokenised once, sorted by length, padded to their bucket.

A tokenizer that splits at white space reads a text from left to right, a word at a time, so the
first tokens of a text are those of its beginning. Of a text that the model would cut anyway only
as much is tokenised as fills the model's limit; source files are several times longer.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Transformer
from tokenizers import Tokenizer

from shardwright.embeddings.batches import Batch, Preparer
from shardwright.embeddings.encoder import Window
from shardwright.embeddings.slices import slices
from shardwright.errors import UserError

Tokens = npt.NDArray[np.int32]

_HEAD = 8
"""Characters per token of the model's limit that are tokenised at first."""
_SLICE = 1_000_000
"""Characters that are tokenised at once where whole texts are."""
_LONGEST = 1_000_000
"""A limit in tokens above this one is the library's way to say that there is none."""
_WORD_END = re.compile(r"\S(?=\s)")


def text_batches(
    model: SentenceTransformer, batch_size: int, window: Window | None, multiple: int
) -> Preparer:
    """Prepares texts for a model, by our own way where it gives the tokens of the library's.

    Args:
        model: takes texts.
        batch_size: lines of a batch.
        window: reads long texts in windows; None cuts them at the model's limit.
        multiple: batches are padded to a multiple of this many tokens.

    Raises:
        UserError: the model cannot read in such windows.
    """
    tokenizer = _tokenizer(model)
    if tokenizer is not None:
        settings = model[0].tokenizer
        ours = TokenBatches(tokenizer, settings, batch_size, None, multiple)
        if _same_tokens(model, ours):
            if window is None:
                return ours
            return TokenBatches(tokenizer, settings, batch_size, window, multiple)
    if window is not None:
        raise UserError("embedding.window: this model has no fast tokenizer to cut windows with")
    return LibraryBatches(model, batch_size)


class TokenBatches:
    """Batches of tokens, longest texts first.

    Lengths between two powers of two are a bucket. A batch holds ``batch_size`` lines of one
    bucket, or what is left of it, and is padded to its longest line.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: Any,
        batch_size: int,
        window: Window | None,
        multiple: int,
    ) -> None:
        """See ``text_batches``; ``settings`` is the transformers tokenizer around ``tokenizer``."""
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())  # none of it is shared or changed
        self._tokenizer.no_padding()
        self._batch_size = batch_size
        self._multiple = multiple
        self._pad = int(settings.pad_token_id)
        self._left = settings.padding_side == "left"
        limit = int(settings.model_max_length)
        self._limit = limit if limit <= _LONGEST else None
        self._windows = window is not None
        if window is not None:
            self._check(window)
            inner = window.tokens - self._tokenizer.num_special_tokens_to_add(False)
            self._tokenizer.enable_truncation(window.tokens, stride=inner - window.stride)
            self._limit = window.tokens
        elif self._limit is None:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(self._limit)
        self._heads = self._limit is not None and not self._windows and self._splits_words()
        self.description = {"tokens": "own"}

    def batches(self, inputs: Sequence[str]) -> Iterator[Batch]:
        """The batches of some texts."""
        lines = list(self._windowed(inputs) if self._windows else enumerate(self._cut(inputs)))
        lines.sort(key=lambda line: -len(line[1]))
        start = 0
        while start < len(lines):
            bucket = _bucket(len(lines[start][1]))
            end = start + 1
            while (
                end < min(start + self._batch_size, len(lines))
                and _bucket(len(lines[end][1])) == bucket
            ):
                end += 1
            yield self._padded(lines[start:end])
            start = end

    def _check(self, window: Window) -> None:
        special = self._tokenizer.num_special_tokens_to_add(False)
        if self._limit is not None and window.tokens > self._limit:
            raise UserError(
                f"embedding.window.tokens is {window.tokens}: the model reads {self._limit} at most"
            )
        if window.stride > window.tokens - special:
            raise UserError(
                f"embedding.window.stride is {window.stride}: a window of {window.tokens} tokens "
                f"holds {window.tokens - special} of the text; a longer stride would skip some"
            )

    def _splits_words(self) -> bool:
        """Whether no token crosses white space, so that a text's head has the text's tokens."""
        before = self._tokenizer.pre_tokenizer
        if before is None:
            return False
        probe = "ab cd\n ef"
        ends = [end for _, (_, end) in before.pre_tokenize_str(probe)]
        return 2 in ends and 5 in ends

    def _cut(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokens of each text up to the model's limit."""
        heads = [self._head(text) for text in texts] if self._heads else list(texts)
        found = self._tokenise(heads)
        again = [
            row
            for row, (head, text) in enumerate(zip(heads, texts, strict=True))
            if len(head) < len(text) and len(found[row]) != self._limit
        ]
        for row, tokens in zip(again, self._tokenise([texts[row] for row in again]), strict=True):
            found[row] = tokens
        return found

    def _head(self, text: str) -> str:
        """The beginning of a text, up to the end of a word, that should fill the limit."""
        assert self._limit is not None
        wanted = _HEAD * self._limit
        if len(text) <= wanted:
            return text
        end = _WORD_END.search(text, wanted)
        return text[: end.end()] if end else text

    def _tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        found: list[Tokens] = []
        for some in slices(texts, _SLICE):
            found += [np.array(e.ids, np.int32) for e in self._tokenizer.encode_batch_fast(some)]
        return found

    def _windowed(self, texts: Sequence[str]) -> Iterator[tuple[int, Tokens]]:
        """(row, tokens) of each window of each text."""
        row = 0
        for some in slices(texts, _SLICE):
            for encoding in self._tokenizer.encode_batch_fast(some):
                for part in (encoding, *encoding.overflowing):
                    yield row, np.array(part.ids, np.int32)
                row += 1

    def _padded(self, lines: Sequence[tuple[int, Tokens]]) -> Batch:
        longest = max(1, *(len(tokens) for _, tokens in lines))
        width = -(-longest // self._multiple) * self._multiple
        if self._limit is not None:
            width = max(longest, min(width, self._limit))
        ids = np.full((len(lines), width), self._pad, dtype=np.int64)
        mask = np.zeros((len(lines), width), dtype=np.int64)
        for line, (_, tokens) in enumerate(lines):
            place = slice(width - len(tokens), width) if self._left else slice(0, len(tokens))
            ids[line, place] = tokens
            mask[line, place] = 1
        features = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "modality": "text",
        }
        rows = np.array([row for row, _ in lines], dtype=np.int64)
        return Batch(rows, features, int(mask.sum()))


class LibraryBatches:
    """Batches as sentence-transformers makes them: sorted by characters, longest first."""

    def __init__(self, model: SentenceTransformer, batch_size: int) -> None:
        """Takes the model's own way, with the prompt that it was saved with."""
        self._model = model
        self._batch_size = batch_size
        self._prompt = _prompt(model)
        self._lock = threading.Lock()  # tokenizers of the library keep their settings in themselves
        self.description = {"tokens": "library"}

    def batches(self, inputs: Sequence[str]) -> Iterator[Batch]:
        """The batches of some texts."""
        order = sorted(range(len(inputs)), key=lambda row: -len(inputs[row]))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            with self._lock:
                features = self._model.preprocess(
                    [inputs[row] for row in rows], prompt=self._prompt
                )
            mask = features.get("attention_mask")
            tokens = int(mask.sum()) if mask is not None else 0
            yield Batch(np.array(rows, dtype=np.int64), dict(features), tokens)


def _tokenizer(model: SentenceTransformer) -> Tokenizer | None:
    """The fast tokenizer of a model that takes bare tokens, if it is such a model."""
    first = model[0]
    if not isinstance(first, Transformer) or _prompt(model) or "message" in first.modality_config:
        return None
    tokenizer = first.tokenizer
    if tokenizer is None or not tokenizer.is_fast or tokenizer.pad_token_id is None:
        return None
    found: Tokenizer = tokenizer.backend_tokenizer
    return found


def _same_tokens(model: SentenceTransformer, ours: TokenBatches) -> bool:
    """Whether the library makes of some texts what we make of them, but for padding."""
    for text in ("", "def add(a, b):\n    return a + b  # sum\n", "one two  three\n" * 5000):
        expected = model.preprocess([text])
        found = next(ours.batches([text])).features
        ids, mask = expected.get("input_ids"), expected.get("attention_mask")
        if ids is None or mask is None or not set(expected) <= {*found, "token_type_ids"}:
            return False
        if ids[mask > 0].tolist() != found["input_ids"][found["attention_mask"] > 0].tolist():
            return False
        if "token_type_ids" in expected and expected["token_type_ids"].any():
            return False  # left out, the model takes zeros
    return True


def _prompt(model: SentenceTransformer) -> str | None:
    """What ``SentenceTransformer.encode`` puts before each text."""
    name = model.default_prompt_name
    return None if name is None else model.prompts.get(name)


def _bucket(length: int) -> int:
    """Which power of two a length falls up to."""
    return max(length - 1, 0).bit_length()
