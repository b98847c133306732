"""Reading benchmarks, and finding their items in records."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.errors import UserError
from shardwright.quality.contamination import (
    LEAST_WORDS,
    Item,
    NgramIndex,
    hits,
    nearest_items,
    ngram_index,
    read_items,
)
from shardwright.quality.shingles import shingle_hashes

PROMPT = "def closest(numbers, target):\n    '''The number that is nearest to the target.'''\n"
SOLUTION = "    return min(numbers, key=lambda number: abs(number - target))\n"
ROWS = [
    {"task_id": "B/1", "prompt": PROMPT, "canonical_solution": SOLUTION, "tests": ["a", "b"]},
    {"task_id": "B/0", "prompt": "p", "canonical_solution": None, "tests": []},
]
TEXT = ["prompt", "canonical_solution"]

WORDS = st.lists(st.sampled_from("abcd"), max_size=40)


def json_lines(path: Path, rows: list[object]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def found(index: NgramIndex, record: str, threshold: float) -> list[tuple[int, float]]:
    return hits(index, shingle_hashes(record.encode(), index.ngram), threshold)


def test_a_folder(tmp_path: Path) -> None:
    for name, text in [("b.py", "b\r\n"), ("a/c.py", "é"), (".git/x", "x"), ("a/.x", "x")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    assert read_items("B", tmp_path) == [Item("B", "a/c.py", "é"), Item("B", "b.py", "b\r\n")]


@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "b.parquet"])
def test_a_table(tmp_path: Path, name: str) -> None:
    path = (parquet if name.endswith("t") else json_lines)(tmp_path / name, ROWS)
    assert read_items("B", path, text=TEXT, name="task_id") == [
        Item("B", "B/0", "p"),
        Item("B", "B/1", f"{PROMPT}\n{SOLUTION}"),
    ]
    assert read_items("B", path, text=["tests", "prompt"]) == [
        Item("B", "0", f"a\nb\n{PROMPT}"),
        Item("B", "1", "p"),
    ]


def test_lines_that_json_allows(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"t": "a\\ud800"}\n\n{"t": "b", "n": 7}')
    assert read_items("B", path, text=["t"]) == [Item("B", "0", "a\\ud800"), Item("B", "2", "b")]


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        (ROWS, {"text": ["code"]}, "b.jsonl, row 0 has no column 'code'; it has task_id, prompt, "),
        (ROWS, {"name": "id"}, "b.jsonl, row 0 has no column 'id'; it has task_id, prompt, "),
        (ROWS, {"name": "tests"}, "row 0: tests is a list, and no name"),
        (ROWS, {"text": []}, "name the columns that hold the text of an item"),
        ([{"prompt": 7}], {"text": ["prompt"]}, "row 0: prompt holds a int, and no text"),
        ([["prompt"]], {}, "row 0 is a list, and no object"),
        ([], {}, "b.jsonl holds no items"),
    ],
)
def test_rows_that_do_not_fit(
    tmp_path: Path, rows: list[object], change: dict[str, object], message: str
) -> None:
    path = json_lines(tmp_path / "b.jsonl", rows)
    with pytest.raises(UserError, match=re.escape(message)):
        read_items("B", path, **({"text": TEXT} | change))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("b.jsonl", b"{", " does not read: "),
        ("b.jsonl", b"\xff", " does not read: "),
        ("b.jsonl.gz", b"{}", " does not read: "),
        ("b.jsonl.gz", gzip.compress(b"{}")[:-9], " does not read: "),
        ("b.parquet", b"{}", " does not read: "),
        ("b.csv", b"", " is neither a folder nor a file .jsonl or .jsonl.gz or .parquet"),
        ("folder/b.py", b"\xff", ": b.py is no UTF-8 text: take it out"),
        ("folder/.b", b"", " holds no items"),
        ("folder", None, " does not exist"),
    ],
)
def test_files_that_do_not_read(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    where = tmp_path / name.split("/")[0]
    with pytest.raises(UserError, match=re.escape(f"benchmark B: {where}{message}")):
        read_items("B", where, text=["t"])


def test_white_space_and_punctuation_count_for_nothing() -> None:
    index = ngram_index([Item("B", "1", PROMPT + SOLUTION)], 5)
    planted = (PROMPT + SOLUTION).replace("    ", "\t").replace(" - ", "-").replace(", ", " ,\n  ")
    assert found(index, f"import os\n\n{planted}\nprint(os.sep)\n", 1.0) == [(0, 1.0)]
    renamed = planted.replace("number", "n")
    assert found(index, renamed, 0.5) == []
    ((item, share),) = found(index, renamed, 0.01)
    assert item == 0
    assert 0 < share < 0.5


def test_shares_are_of_the_items_ngrams() -> None:
    items = [
        Item("A", "1", "a b c d e f g h i j k"),  # 8 windows of four words
        Item("A", "2", "a b c d e f g h"),  # 5, shared with the first
        Item("B", "1", "p q r s t u v w x"),
    ]
    index = ngram_index(items, 4)
    assert index.sizes.tolist() == [8, 5, 6]
    record = "a b c d e f g h and p q r s"
    assert found(index, record, 0.01) == [(0, 5 / 8), (1, 1.0), (2, 1 / 6)]
    assert found(index, record, 5 / 8) == [(0, 5 / 8), (1, 1.0)]
    assert found(index, record, 0.7) == [(1, 1.0)]
    assert found(index, "a b c", 0.01) == []
    assert found(index, "", 0.01) == []


def test_few_words() -> None:
    texts = {"7": "a b c d e f g", "8": "a b c d e f g h", "0": "(+)"}
    index = ngram_index([Item("B", name, text) for name, text in texts.items()], 13)
    assert LEAST_WORDS == 8
    assert index.skipped == (("B", "7"), ("B", "0"))
    assert found(index, "a b c d e f g", 0.01) == []
    # an item of fewer words than an n-gram is found in a record of the same words alone
    assert found(index, "a(b, c, d, e, f, g, h)", 0.01) == [(1, 1.0)]
    assert found(index, "a b c d e f g h i", 0.01) == []
    with pytest.raises(UserError, match="none of the 1 benchmark items has 8 words or more"):
        ngram_index([Item("B", "7", texts["7"])], 3)


@given(st.lists(WORDS, min_size=1, max_size=8), WORDS, st.integers(1, 4), st.floats(0.05, 1))
def test_hits_are_those_of_sets(
    items: list[list[str]], record: list[str], ngram: int, threshold: float
) -> None:
    def windows(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + ngram]) for i in range(max(len(words) - ngram + 1, 1))}

    texts = [["x"] * 9, *items]
    index = ngram_index([Item("B", str(i), " ".join(t)) for i, t in enumerate(texts)], ngram)
    shares = {
        i: len(windows(text) & windows(record)) / len(windows(text))
        for i, text in enumerate(texts)
        if len(text) >= LEAST_WORDS
    }
    expected = [(i, share) for i, share in shares.items() if share >= threshold]
    assert found(index, " ".join(record), threshold) == expected


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
def test_a_threshold_that_all_or_none_reach(threshold: float) -> None:
    index = ngram_index([Item("B", "1", PROMPT)], 4)
    with pytest.raises(ValueError, match="threshold must lie above 0 and at most at 1"):
        found(index, PROMPT, threshold)


def test_an_index_is_one_file(tmp_path: Path) -> None:
    items = [Item("B", "é\0", PROMPT), Item("C", "2", PROMPT + SOLUTION), Item("C", "3", "")]
    index = ngram_index(items, 4)
    index.save(tmp_path / "index")
    index.save(tmp_path / "again")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["again", "index"]
    assert (tmp_path / "index").read_bytes() == (tmp_path / "again").read_bytes()
    loaded = NgramIndex.load(tmp_path / "index")
    assert (loaded.ngram, loaded.items, loaded.skipped) == (4, index.items, (("C", "3"),))
    for name in ("sizes", "hashes", "offsets", "owners"):
        made, read = getattr(index, name), getattr(loaded, name)
        assert made.dtype == read.dtype
        assert made.tolist() == read.tolist()
    assert found(loaded, PROMPT, 0.3) == found(index, PROMPT, 0.3) != []


def test_nearest_items() -> None:
    items = np.array([[1, 0], [0, 2], [1, 0]], np.float32)
    vectors = np.array([[3, 0], [-1, 0], [3, 4], [0, 0], [4, 3]], np.float32)
    rows, nearest, similarity = nearest_items(vectors, items, 0.8)
    assert (rows.tolist(), nearest.tolist()) == ([0, 2, 4], [0, 1, 0])
    assert similarity.tolist() == pytest.approx([1, 0.8, 0.8])
    assert (similarity >= 0.8).all()
    assert [part.dtype for part in (rows, nearest, similarity)] == [np.int64, np.int64, np.float64]
    for part in nearest_items(vectors[:0], items, 0.8):
        assert len(part) == 0
