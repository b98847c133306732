"""Texts to tokens: any fast Hugging Face tokenizer, and fill-in-the-middle.

What is tokenised is text and nothing else: a file that spells out a special token, say
``<|endoftext|>``, gives the tokens of those characters and not the special one, so that nothing in
a text can end a document or open a middle. Tokens that the tokenizer would add by itself are left
out; each document ends with one ``end`` token.

Fill-in-the-middle (Bavarian et al. 2022, arXiv 2207.14255) cuts a document at two characters
(section 3) and moves the middle behind the suffix. A share of the documents is treated so, chosen
and cut by a hash of seed and record id: neither order nor workers have a part in it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from shardwright.embeddings.slices import slices
from shardwright.errors import UserError

Mode: TypeAlias = Literal["psm", "spm"]
Tokens: TypeAlias = NDArray[np.int32]

SENTINELS: Final[tuple[tuple[str, str, str], ...]] = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    ("[PREFIX]", "[SUFFIX]", "[MIDDLE]"),
    ("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁hole\uff5c>", "<\uff5cfim▁end\uff5c>"),
)
"""Tokens before prefix, suffix and middle: of StarCoder, SantaCoder, Qwen and CodeGemma, CodeLlama,
Codestral, DeepSeek."""

_SLICE: Final = 1_000_000
"""Characters that are tokenised at once: what the library makes of them is many times larger."""


@dataclass(frozen=True)
class Fim:
    """Which documents are filled in the middle, and how.

    Attributes:
        rate: Share of the documents.
        mode: ``psm``: prefix, suffix, middle. ``spm``: suffix, prefix, middle, written as
            variant 2 of appendix D, in which prefix and middle are one text for the model.
        seed: Any integer.
    """

    rate: float
    mode: Mode
    seed: int


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as it is used: a picklable value, and what is kept beside the tokens.

    Attributes:
        json: The tokenizer in the format of the ``tokenizers`` library.
        end: The token that ends a document.
        sentinels: Tokens before prefix, suffix and middle, or None if the tokenizer has none.
    """

    json: str
    end: str
    sentinels: tuple[str, str, str] | None

    @property
    def sha256(self) -> str:
        """Hash of the tokenizer (hex)."""
        return hashlib.sha256(self.json.encode()).hexdigest()


def load_tokenizer(name: str, end: str | None = None, *, fim: bool = False) -> TokenizerFile:
    """Loads a tokenizer and settles which of its tokens are used.

    Args:
        name: Folder with ``tokenizer.json``, that file, or what ``transformers`` finds by this name
            (a folder with a tokenizer in another format, a name on the hub).
        end: Token that ends a document; the tokenizer's own (``eos_token``) if None.
        fim: Whether it must have sentinels.

    Raises:
        UserError: There is no such tokenizer, or it lacks a token.
    """
    described, own = _load(name)
    added = {token["content"]: token for token in described["added_tokens"]}
    known = ", ".join(added) or "none"
    end = own if end is None else end
    if end is None:
        raise UserError(
            f"shards.tokens.tokenizer {name}: it names no token that ends a text; give "
            f"shards.tokens.end, one of its added tokens: {known}"
        )
    if end not in added:
        raise UserError(f"shards.tokens.end {end!r}: no added token of {name}; there are: {known}")
    sentinels = next((three for three in SENTINELS if all(one in added for one in three)), None)
    if fim and sentinels is None:
        raise UserError(
            f"shards.tokens.fim: {name} has no tokens for fill-in-the-middle (one of "
            f"{'; '.join(' '.join(three) for three in SENTINELS)}); take another tokenizer, or "
            "set shards.tokens.fim to 0"
        )
    for token in (end, *(sentinels or ())):
        added[token]["special"] = True  # only special tokens are told from text that spells them
    described["truncation"] = described["padding"] = None
    return TokenizerFile(json.dumps(described, ensure_ascii=False), end, sentinels)


def _load(name: str) -> tuple[dict[str, Any], str | None]:
    """The tokenizer as JSON values, and its own end token if it has one."""
    path = Path(name)
    file = path if path.suffix == ".json" else path / "tokenizer.json"
    if file.is_file():
        try:
            described: dict[str, Any] = json.loads(Tokenizer.from_file(str(file)).to_str())
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"shards.tokens.tokenizer {name}: {error}") from None
        return described, _own_end(file.with_name("tokenizer_config.json"))
    if not path.exists() and (path.is_absolute() or name.startswith(".") or file == path):
        raise UserError(f"shards.tokens.tokenizer {name}: no such tokenizer; name a folder or file")
    import transformers

    library: Any = transformers.AutoTokenizer
    try:
        found = library.from_pretrained(name)
    except Exception as error:  # a wrong name, no network, a missing package: each its own kind
        raise UserError(
            f"shards.tokens.tokenizer {name}: no such tokenizer ({error}); name a folder that "
            "holds one"
        ) from None
    if not found.is_fast:
        raise UserError(
            f"shards.tokens.tokenizer {name}: has no fast tokenizer (tokenizer.json); take one "
            "that has"
        )
    return json.loads(found.backend_tokenizer.to_str()), found.eos_token


def _own_end(config: Path) -> str | None:
    """``eos_token`` of a ``tokenizer_config.json``, where there is one."""
    if not config.is_file():
        return None
    end = json.loads(config.read_text()).get("eos_token")
    return str(end["content"]) if isinstance(end, Mapping) else end


def fim_cuts(record_id: str, characters: int, fim: Fim) -> tuple[int, int] | None:
    """Where a document is cut in three, or None if it is left as it is.

    Both cuts are drawn evenly from all places between characters, the two ends included; pieces may
    be empty. An empty document is left as it is.

    Args:
        record_id: Of the document.
        characters: Its length.
        fim: What is wanted.

    Returns:
        Characters before the middle, and before the suffix.
    """
    digest = hashlib.sha256(f"fim {fim.seed} {record_id}".encode()).digest()
    draw, one, other = (int.from_bytes(digest[at : at + 8]) for at in (0, 8, 16))
    if not characters or draw >= fim.rate * 2**64:
        return None
    low, high = sorted(place * (characters + 1) >> 64 for place in (one, other))
    return low, high


class Tokeniser:
    """Texts to token arrays. Pickled as its settings; each process builds the tokenizer once.

    Args:
        file: The tokenizer.
        fim: Which documents are filled in the middle; none if None.
    """

    def __init__(self, file: TokenizerFile, fim: Fim | None = None) -> None:
        self._file, self._fim = file, fim if fim is not None and fim.rate > 0 else None

    def __reduce__(self) -> tuple[type["Tokeniser"], tuple[TokenizerFile, Fim | None]]:
        return Tokeniser, (self._file, self._fim)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._file.json)
        tokenizer.encode_special_tokens = True  # text that spells a special token stays text
        return tokenizer

    @cached_property
    def end(self) -> int:
        """The token that ends a document, as a number."""
        return int(self._tokenizer.token_to_id(self._file.end))

    @cached_property
    def _sentinels(self) -> list[Tokens]:
        assert self._file.sentinels is not None
        return [self._one(self._tokenizer.token_to_id(token)) for token in self._file.sentinels]

    @cached_property
    def _reserved(self) -> Tokens:
        tokens = (self._file.end, *(self._file.sentinels or ()))
        return np.array([self._tokenizer.token_to_id(token) for token in tokens], np.int32)

    def encode(self, record_ids: Sequence[str], texts: Sequence[str]) -> list[Tokens]:
        """Tokens of each document, the end token included: ``(t,)`` int32, at least one.

        Args:
            record_ids: Of the documents ``(n,)``.
            texts: Their texts ``(n,)``.

        Raises:
            UserError: The tokenizer makes a reserved token out of plain text.
        """
        pieces: list[str] = []
        cut: list[bool] = []
        for record_id, text in zip(record_ids, texts, strict=True):
            cuts = None if self._fim is None else fim_cuts(record_id, len(text), self._fim)
            cut.append(cuts is not None)
            if cuts is None:
                pieces.append(text)
            else:
                pieces += [text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]]
        found = self._encode(pieces)
        end, documents = self._one(self.end), []
        for record_id, filled in zip(record_ids, cut, strict=True):
            parts = [next(found) for _ in range(3 if filled else 1)]
            for part in parts:
                if np.isin(part, self._reserved).any():
                    raise UserError(
                        f"shards.tokens.tokenizer: it reads plain text of record {record_id} as "
                        f"one of {self._file.end} {' '.join(self._file.sentinels or ())}; take "
                        "another tokenizer or shards.tokens.end"
                    )
            documents.append(np.concatenate([*(self._fill(*parts) if filled else parts), end]))
        return documents

    def _fill(self, prefix: Tokens, middle: Tokens, suffix: Tokens) -> list[Tokens]:
        """The pieces in the order of the mode, with their sentinels."""
        assert self._fim is not None
        before_prefix, before_suffix, before_middle = self._sentinels
        if self._fim.mode == "psm":
            return [before_prefix, prefix, before_suffix, suffix, before_middle, middle]
        return [before_prefix, before_suffix, suffix, before_middle, prefix, middle]

    def _encode(self, texts: Sequence[str]) -> Iterator[Tokens]:
        for some in slices(texts, _SLICE):
            for encoding in self._tokenizer.encode_batch_fast(some, add_special_tokens=False):
                yield np.array(encoding.ids, np.int32)

    @staticmethod
    def _one(token: int) -> Tokens:
        return np.array([token], np.int32)
