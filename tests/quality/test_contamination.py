"""Reading benchmarks, and finding their items in records."""

import ast
import gzip
import io
import itertools
import json
import re
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.embeddings import load_encoder
from shardwright.errors import UserError
from shardwright.quality.contamination import (
    LEAST_WORDS,
    Item,
    NgramIndex,
    abstracted,
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
GZIP = gzip.compress(b"{}", mtime=0)

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
        ("b.jsonl.gz", GZIP[:-9], " does not read: "),
        ("b.jsonl.gz", GZIP[:10] + b"\xff" * 20, " does not read: "),
        ("b.jsonl", b"[" * 99_999, " does not read: "),
        ("b.parquet", b"{}", " does not read: "),
        ("b.csv", b"", " is neither a folder nor a file .jsonl or .jsonl.gz or .parquet"),
        ("folder/b.py", b"\xff", ": b.py is no UTF-8 text: take it out"),
        ("folder/.b", b"", " holds no items"),
        ("folder", None, " does not exist"),
    ],
    ids=itertools.count(),
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
    nothing = ngram_index([Item("B", "7", texts["7"])], 3)
    assert found(nothing, texts["7"], 0.01) == []


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


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        (
            "Python",
            'def f(a, b):\n    """Doc."""\n    return a  # one\n',
            "def x0(x0,x0):return x2",
        ),
        ("Python", "for a in b: a.append(len(b[a]))", "for x0 in x0:x2.append(len(x2[x2]))"),
        ("Python", "é = 1e5 + self.é\r# one\ré\r", "x0=1e5+self.é x1"),
        ("C", "int f(int a) { /* one */ return g(a); }", "int f(int x0){return g(x1);}"),
        ("Go", "func f(a int) int { return a }", "func x0(x0 int)int{return x1}"),
        (
            "Python",
            "def f(g, a): return f(g, g(a)) or h(g)",
            "def x0(x0,x0):return x3(x3,x1(x4))or h(x2)",
        ),
        (None, "a b c d e f g h i j a", "x0 x0 x0 x0 x0 x0 x0 x0 x0 x0 x9"),
        (None, "", ""),
    ],
)
def test_abstracted(language: str | None, text: str, expected: str) -> None:
    assert abstracted(text.encode(), language) == expected


def functions(module: str, least: int) -> Iterator[str]:
    """Functions of a module of Python's library, of at least so many lines."""
    source = (Path(sysconfig.get_paths()["stdlib"]) / module).read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= least:
            yield "".join(lines[node.lineno - 1 : node.end_lineno])


def renamed(source: str) -> str:
    """The function with new names for itself and all its variables, and with other comments."""
    function = ast.parse(source).body[0]
    names = {function.name}
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    new = {name: f"renamed_{i}" for i, name in enumerate(sorted(names))}
    tokens = []
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string
        if token.type == tokenize.COMMENT:
            text = "# nothing of what was said here before"
        elif token.type == tokenize.STRING and text.startswith(('"""', 'r"""')):
            text = '"""What it does is told elsewhere."""'
        elif before != ".":
            text = new.get(text, text)
        before = text
        tokens.append((token.type, text))
    return tokenize.untokenize(tokens)


def test_a_renamed_copy_is_found_by_embedding() -> None:
    modules = [
        "bisect",
        "calendar",
        "difflib",
        "heapq",
        "posixpath",
        "random",
        "shutil",
        "statistics",
    ]
    items = [f for m in modules for f in functions(f"{m}.py", 12)]
    plants = [renamed(item) for item in items]
    folders = ["asyncio", "email", "encodings", "http", "json", "logging", "unittest", "urllib"]
    library = Path(sysconfig.get_paths()["stdlib"])
    paths = [p.relative_to(library) for f in folders for p in sorted((library / f).glob("*.py"))]
    clean = [text for path in paths for text in functions(str(path), 3)]
    clean += [(library / path).read_text(encoding="utf-8") for path in paths]
    assert len(items) >= 30
    assert len(clean) >= 300

    index = ngram_index([Item("B", str(i), item) for i, item in enumerate(items)], 10)
    assert not any(found(index, plant, 0.5) for plant in plants)

    encoder = load_encoder(
        "builtin:hashing", modality="code", device="cpu", dtype="float32", batch_size=64
    )
    for form, recall_range in ((str, (0, 0.5)), (_abstract, (0.95, 1))):
        vectors = [encoder.encode([form(t) for t in texts]) for texts in (items, plants, clean)]
        rows, nearest, _ = nearest_items(vectors[1], vectors[0], 0.7)
        recall = len(rows) / len(items)
        false = len(nearest_items(vectors[2], vectors[0], 0.7)[0]) / len(clean)
        print(f"{form.__name__}: {recall:.1%} of {len(items)} planted items are found")
        print(f"{form.__name__}: {false:.2%} of {len(clean)} clean texts are taken for one")
        assert recall_range[0] <= recall <= recall_range[1]
        assert false <= 0.002
    assert (rows == nearest).mean() >= 0.95  # some have twins, but for names


def _abstract(text: str) -> str:
    return abstracted(text.encode(), "Python")
