"""Merged parts are the file that FAISS writes of one build."""

import faiss
import numpy as np
import pytest

from shardwright.embeddings import ivf
from shardwright.embeddings.ivf import Part, in_memory, merge_parts, set_effort, train_lists


def unit(rng, n, d=16):
    x = rng.standard_normal((n, d), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def merged(folder, lists, pieces):
    parts = []
    for piece in pieces:
        parts.append(Part(folder / f"part-{len(parts)}"))
        ivf.write_part(parts[-1].file, lists, piece)
    path = folder / "merged.faiss"
    assert merge_parts(path, lists, parts) == sum(map(len, pieces))
    return path


@pytest.mark.parametrize("code_size", [None, 4])
@pytest.mark.parametrize("lists", [4, 300])
def test_merged_parts_equal_one_build(tmp_path, code_size, lists):
    vectors = unit(np.random.default_rng(0), 700)
    trained = train_lists(vectors, min(lists, 150), code_size)
    if lists == 300:  # most lists stay empty
        vectors = vectors[:40]
    whole = faiss.serialize_index(in_memory(trained, vectors)).tobytes()
    for cuts in ([], [1, 7], [0, 20, 20, 33]):
        path = merged(tmp_path, trained, np.split(vectors, cuts))
        assert path.read_bytes() == whole
    assert not list(tmp_path.glob("*proof*"))


@pytest.mark.parametrize("code_size", [None, 8])
def test_plain_faiss_searches_with_the_effort_that_is_stored(tmp_path, code_size):
    vectors = unit(np.random.default_rng(1), 600)
    trained = train_lists(vectors, 12, code_size)
    path = merged(tmp_path, trained, np.split(vectors, 3))
    size = path.stat().st_size
    set_effort(path, trained, 600, 12, 60)
    assert path.stat().st_size == size
    exact = np.sort(vectors @ vectors.T, axis=1)[:, :-11:-1]
    for flags in (0, faiss.IO_FLAG_MMAP_IFC):
        index = faiss.read_index(str(path), flags)
        assert index.ntotal == 600
        values, rows = index.search(vectors, 10)
        assert np.allclose(values, exact, atol=1e-5)  # all lists, all vectors ranked exactly
        assert np.array_equal(rows[:, 0], np.arange(600))
    set_effort(path, trained, 600, 1, 1)
    values = faiss.read_index(str(path)).search(vectors, 10)[0]
    assert not np.allclose(values, exact, atol=1e-5)


def test_training_is_the_same_again():
    vectors = unit(np.random.default_rng(2), 800)
    one, two = (train_lists(vectors, 10, 4, seed=3) for _ in range(2))
    assert one.centroids.tobytes() == two.centroids.tobytes()
    assert one.codebooks.tobytes() == two.codebooks.tobytes()
    assert train_lists(vectors, 10, 4, seed=4).centroids.tobytes() != one.centroids.tobytes()


def test_an_unknown_layout_is_refused(tmp_path, monkeypatch):
    vectors = unit(np.random.default_rng(0), 50)
    trained = train_lists(vectors, 2, None)
    monkeypatch.setattr(ivf, "_list_sizes", lambda sizes, code_size: b"ilar" + bytes(16))
    with pytest.raises(RuntimeError, match="lays out inverted files in a way"):
        merged(tmp_path, trained, [vectors])
