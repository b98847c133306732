"""The hashing encoder: the same bits everywhere, exact integers, and sane neighbours."""

import hashlib
import math
import random
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.embeddings import hashing
from shardwright.embeddings.hashing import HashingEncoder

ENCODER = HashingEncoder()
GOLDEN_TEXTS = ["", "a", "def f(x):\n    return x + 1\n", "Grüße, мир, 世界 🎉\n", "ab" * 40000]
GOLDEN = "4d32387361780146579f2e2d0e65860fdbb5f1c0df1c0b5406cef8dd0e0ae2e8"


def stdlib(*names):
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def slow_counts(text):
    """Buckets by their definition, one n-gram at a time in Python integers."""
    counts = np.zeros(hashing.BUCKETS, dtype=np.int64)
    padded = text + bytes(5)
    for i in range(len(text) + 1):
        three = int.from_bytes(padded[i : i + 3], "little")
        tail = int.from_bytes(padded[i + 3 : i + 5], "little")
        five = (three * 0x9E3779B1 + tail * 0x85EBCA77) % 2**32
        five = ((five ^ five >> 15) * 0xC2B2AE3D) % 2**32
        counts[(three * 0x27D4EB2F) % 2**32 >> 20] += 1
        counts[4096 + (five >> 20)] += 1
    return counts


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_counts_follow_the_definition_for_any_piece(text, piece):
    original = hashing._PIECE
    hashing._PIECE = piece
    try:
        assert (hashing._counts(text) == slow_counts(text)).all()
    finally:
        hashing._PIECE = original


def test_vector_follows_the_definition():
    text = "for i in range(10):\n    print(i)\n" * 3
    weights = [round(32 * math.log2(1 + n)) for n in slow_counts(text.encode()).tolist()]
    projected = np.array(weights, dtype=np.int64) @ ENCODER._signs.astype(np.int64)
    expected = (projected / math.sqrt(int((projected**2).sum()))).astype(np.float32)
    assert ENCODER.encode([text])[0].tobytes() == expected.tobytes()


def test_weight_table_and_its_bound():
    expected = [round(32 * math.log2(1 + n)) for n in range(hashing.MAX_COUNT + 1)]
    assert ENCODER._weights.tolist() == expected
    assert max(expected) * hashing.BUCKETS < 2**24


def test_signs_are_balanced_and_nearly_orthogonal():
    signs = ENCODER._signs
    assert set(np.unique(signs)) == {-1, 1}
    assert (signs[:4096].sum(axis=0) == 0).all()
    assert (signs[4096:].sum(axis=0) == 0).all()
    gram = signs.T @ signs
    np.fill_diagonal(gram, 0)
    assert np.abs(gram).max() < 6 * math.sqrt(hashing.BUCKETS)


def test_the_heaviest_counts_stay_exact(monkeypatch):
    rng = np.random.default_rng(0)
    counts = np.where(rng.random(hashing.BUCKETS) < 0.5, 10**12, 0)
    monkeypatch.setattr(hashing, "_counts", lambda text: counts)
    weights = np.where(counts > 0, 384, 0)
    projected = weights @ ENCODER._signs.astype(np.int64)
    expected = (projected / math.sqrt(int((projected**2).sum()))).astype(np.float32)
    assert ENCODER.encode(["x"])[0].tobytes() == expected.tobytes()


def test_a_vanishing_projection_gives_the_first_unit_vector(monkeypatch):
    monkeypatch.setattr(hashing, "_counts", lambda text: np.full(hashing.BUCKETS, 5))
    assert ENCODER.encode(["x"])[0].tolist() == [1.0] + [0.0] * 255


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=60), max_size=20), st.randoms())
def test_rows_are_unit_and_do_not_depend_on_batch_or_order(texts, shuffler):
    rows = ENCODER.encode(texts)
    assert rows.shape == (len(texts), 256)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max(initial=0) < 1e-6
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    assert ENCODER.encode([texts[i] for i in order]).tobytes() == rows[order].tobytes()
    singly = [ENCODER.encode([text]) for text in texts]
    assert b"".join(row.tobytes() for row in singly) == rows.tobytes()


def test_batches_beyond_a_block_of_rows(monkeypatch):
    texts = [f"line {i}\n" * (i % 7) for i in range(300)]
    whole = ENCODER.encode(texts)
    monkeypatch.setattr(hashing, "_ROWS", 7)
    assert ENCODER.encode(texts).tobytes() == whole.tobytes()


def test_bits_are_the_same_for_any_thread_count_and_as_ever():
    script = (
        "import hashlib, test_hashing as t\n"
        "rows = t.ENCODER.encode(t.GOLDEN_TEXTS * 30)\n"
        "assert (rows.reshape(30, -1) == rows[:5].reshape(-1)).all()\n"
        "print(hashlib.sha256(rows[:5].tobytes()).hexdigest())"
    )
    for threads in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", script],
            env={
                "OMP_NUM_THREADS": threads,
                "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path]),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == GOLDEN
    rows = ENCODER.encode(GOLDEN_TEXTS)
    assert hashlib.sha256(rows.tobytes()).hexdigest() == GOLDEN


def test_edited_copies_are_nearer_than_other_files():
    texts = stdlib("ast.py", "argparse.py", "heapq.py", "json/decoder.py", "textwrap.py", "uuid.py")
    rng = random.Random(0)
    edited = []
    for text in texts:
        lines = text.split("\n")
        for _ in range(5):
            line = rng.randrange(len(lines))
            lines[line] = lines[line].replace("self", "this") + "  # checked"
        edited.append("\n".join(lines))
    similarity = ENCODER.encode(texts) @ ENCODER.encode(edited).T
    assert np.diag(similarity).min() > 0.95
    np.fill_diagonal(similarity, -1)
    assert similarity.max() < 0.8


def test_files_of_one_language_lie_together():
    python = stdlib("heapq.py", "bisect.py", "textwrap.py", "uuid.py", "shlex.py")
    rng = random.Random(0)
    names = ["total", "index", "buffer", "node", "value", "next", "length", "data"]

    def c_file():
        line = "    if (%s->%s != NULL && %s > 0) {\n        %s[i++] = (int) *%s;\n    }\n"
        body = "".join(line % tuple(rng.choices(names, k=5)) for _ in range(150))
        return f"#include <stdio.h>\n\nstatic int {rng.choice(names)}(void) {{\n{body}}}\n"

    def csv_file():
        rows = [(rng.randrange(10**6), rng.random(), rng.choice(names)) for _ in range(400)]
        return "id,score,name\n" + "\n".join(f"{a},{b:.4f},{c}" for a, b, c in rows)

    groups = [python, [c_file() for _ in range(5)], [csv_file() for _ in range(5)]]
    rows = ENCODER.encode([text for group in groups for text in group])
    similarity = rows @ rows.T
    label = np.repeat(np.arange(3), 5)
    same = label[:, None] == label
    np.fill_diagonal(similarity, np.nan)
    inside = np.nanmin(np.where(same, similarity, np.nan), axis=1)
    across = np.nanmax(np.where(same, np.nan, similarity), axis=1)
    assert (inside > across).all()


def test_what_is_no_text_is_refused():
    assert ENCODER.encode(["\ud800"]).shape == (1, 256)
    with pytest.raises(TypeError, match="input 1 is bytes, not a text"):
        ENCODER.encode(["a", b"b"])
