"""The streamed FAISS file equals the one that FAISS writes itself."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.embeddings import FlatIndexWriter, index


def in_memory(vectors, path):
    whole = faiss.IndexFlatIP(vectors.shape[1])
    if len(vectors):
        whole.add(vectors)
    faiss.write_index(whole, str(path))
    return path.read_bytes()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.lists(st.integers(0, 30), max_size=6), st.integers(0, 2**31))
def test_bytes_equal_faiss(tmp_path_factory, dimension, batches, seed):
    folder = tmp_path_factory.mktemp("index")
    vectors = np.random.default_rng(seed).standard_normal(
        (sum(batches), dimension), dtype=np.float32
    )
    with FlatIndexWriter(folder / "streamed", dimension) as writer:
        for batch in np.split(vectors, np.cumsum(batches)[:-1]) if batches else []:
            writer.add(batch)
    assert writer.count == len(vectors)
    assert (folder / "streamed").read_bytes() == in_memory(vectors, folder / "whole")


def test_opens_and_searches(tmp_path):
    vectors = np.eye(5, dtype=np.float32)
    with FlatIndexWriter(tmp_path / "i.faiss", 5) as writer:
        writer.add(vectors[:2])
        writer.add(np.asfortranarray(vectors)[2:])
    found = faiss.read_index(str(tmp_path / "i.faiss"))
    assert found.ntotal == 5
    assert found.search(vectors, 1)[1][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["i.faiss"]


def test_nothing_appears_before_the_end_or_after_an_error(tmp_path):
    path = tmp_path / "i.faiss"
    path.write_bytes(b"old")

    def fail_midway():
        with FlatIndexWriter(path, 3) as writer:
            writer.add(np.zeros((2, 3), np.float32))
            assert path.read_bytes() == b"old"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_midway()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with FlatIndexWriter(path, 3):
        assert path.read_bytes() == b"old"
    assert faiss.read_index(str(path)).ntotal == 0


def test_refuses_what_does_not_fit(tmp_path):
    writer = FlatIndexWriter(tmp_path / "i.faiss", 3)
    with pytest.raises(ValueError, match="not open: call add inside the with block"):
        writer.add(np.zeros((1, 3), np.float32))
    with writer:
        with pytest.raises(ValueError, match=r"shape \(1, 4\), not \[n, 3\]"):
            writer.add(np.zeros((1, 4), np.float32))
        with pytest.raises(TypeError, match="vectors are float16: an index holds float32"):
            writer.add(np.zeros((1, 3), np.float16))
    with pytest.raises(ValueError, match="dimension is 0"):
        FlatIndexWriter(tmp_path / "i.faiss", 0)


def test_an_unknown_layout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "_VECTORS_AT", 16)
    with pytest.raises(RuntimeError, match="lays out IndexFlatIP in a way"):
        FlatIndexWriter(tmp_path / "i.faiss", 4)
