"""Every kind reaches its recall on queries held out, in the same bytes again; budgets decide."""

import faiss
import numpy as np
import pyarrow as pa
import pytest

from shardwright.embeddings import build as building
from shardwright.embeddings import search as searching
from shardwright.embeddings.automatic import choose
from shardwright.embeddings.build import Wish, build
from shardwright.embeddings.hnsw import HnswBuilder
from shardwright.embeddings.kinds import check_memory, code_size, fitting, memory_of
from shardwright.embeddings.search import OneIndex, filtered
from shardwright.errors import UserError

ROWS, DIMENSION = 3000, 32
HELD = np.arange(5, ROWS, 15)


@pytest.fixture(scope="module")
def vectors():
    """Vectors around centres, as real ones lie."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, DIMENSION))
    x = centres[rng.integers(0, 60, ROWS)] + 0.7 * rng.standard_normal((ROWS, DIMENSION))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def built(folder, vectors, kind, step=1024, **wish):
    folder.mkdir(exist_ok=True)
    path = folder / f"{kind}.faiss"
    blocks = (vectors[i : i + step] for i in range(0, len(vectors), step))
    others = np.delete(vectors, HELD, axis=0)
    wanted = Wish(kind, **{"recall": 0.9, "device": "cpu"} | wish)
    done = build(path, wanted, blocks, HELD, vectors[HELD], others, ROWS, folder / "scratch")
    assert [p.name for p in folder.iterdir()] == [path.name]
    return path, done


@pytest.mark.parametrize("kind", ["flat", "ivf_flat", "ivf_pq", "hnsw"])
def test_a_kind_reaches_its_recall_in_the_same_bytes_again(tmp_path, vectors, kind):
    path, done = built(tmp_path / "one", vectors, kind)
    again, _ = built(tmp_path / "two", vectors, kind, step=777, part_bytes=100_000)
    assert path.read_bytes() == again.read_bytes()
    index = faiss.read_index(str(path))
    assert index.ntotal == ROWS
    order = np.arange(ROWS)
    if kind == "hnsw":
        order = np.concatenate([np.delete(order, HELD), HELD])
    queries = np.delete(vectors, HELD, axis=0)[::9]
    values, rows = index.search(queries, 10)  # with the effort that the file holds
    inner = np.sum(queries[:, None] * vectors[order[rows]], axis=2)
    assert np.allclose(values, inner, atol=1e-5)  # rows are those of the vectors
    exact = -np.sort(-(queries @ vectors.T), axis=1)[:, 9:10]
    assert np.mean(values >= exact - 1e-5) > 0.88
    if kind == "flat":
        assert done.recall is None
        return
    assert done.recall.mean >= 0.9
    assert done.recall.queries == len(HELD) // 2
    if kind != "ivf_pq":  # these have reason to exist: they compare with a share of the vectors
        assert done.compared < ROWS / 2


def test_more_recall_takes_more_effort(tmp_path, vectors):
    _, low = built(tmp_path / "low", vectors, "ivf_flat", recall=0.6)
    _, high = built(tmp_path / "high", vectors, "ivf_flat", recall=0.97)
    assert low.settings["probes"] < high.settings["probes"]
    assert low.recall.mean < high.recall.mean


def test_a_recall_that_cannot_be_had_is_an_error(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(building, "DEEPEST", 11)
    with pytest.raises(UserError, match=r"index.recall is 0.999: hnsw: recall@10 .* use kind flat"):
        built(tmp_path / "one", vectors, "hnsw", recall=0.999)
    assert not (tmp_path / "one" / "hnsw.faiss").exists()


def test_a_graph_does_not_depend_on_calls(tmp_path, vectors, monkeypatch):
    graphs = []
    for cuts in ([], [1, 900, 901], [2500]):
        builder = HnswBuilder(DIMENSION)
        for block in np.split(vectors, cuts):
            builder.add(block)
        builder.write(tmp_path / "graph", 50)
        graphs.append((tmp_path / "graph").read_bytes())
    assert graphs[0] == graphs[1] == graphs[2]
    assert faiss.read_index(str(tmp_path / "graph")).hnsw.efSearch == 50


@pytest.mark.parametrize("passing", ["nearest", "by lot", "nearly all", "all"])
@pytest.mark.parametrize("kind", ["ivf_flat", "hnsw"])
def test_a_filter_has_its_recall_for_queries_of_both_sides(
    tmp_path, vectors, kind, passing, monkeypatch
):
    monkeypatch.setattr(searching, "FEW", 100)
    path, done = built(tmp_path / "one", vectors, kind)
    order = np.arange(ROWS)
    if kind == "hnsw":
        order = np.concatenate([np.delete(order, HELD), HELD])
    stored = vectors[order]
    rank = {
        "nearest": np.argsort(-(stored @ stored[0])),
        "by lot": np.random.default_rng(0).permutation(ROWS),
    }.get(passing, np.arange(ROWS))
    count = {"nearly all": ROWS - 3, "all": ROWS}.get(passing, ROWS // 2)
    rows, outside = np.sort(rank[:count]), rank[count:]
    names = pa.array([str(i) for i in range(ROWS)])
    raw = faiss.read_index(str(path))
    index = filtered(OneIndex(kind, DIMENSION, done.recall, ROWS, names, raw), rows, 0.9)
    assert len(rows) == index.records
    assert index.recall is not None
    assert index.recall.mean >= 0.9
    assert index.recall.queries == searching._ASKED // 2
    found = []
    for asked in (rows, outside)[: 1 + bool(len(outside))]:
        ids, values = index.search(stored[asked], 10)
        answered = ids[np.isfinite(values)]  # lists that are visited may hold fewer than ten
        assert np.isin(answered.astype(np.int64), rows).all()
        exact = -np.sort(-(stored[asked] @ stored[rows].T), axis=1)[:, 9:10]
        found.append(np.mean(values >= exact - 1e-5))
    assert min(found) > 0.88
    assert abs(index.recall.mean - min(found)) < 0.06  # what is told is that of the worse side


def test_auto_takes_the_cheapest_that_fits(tmp_path, vectors):
    sample, queries = np.delete(vectors, HELD, axis=0), vectors[HELD]
    wish = Wish("flat", 0.9, device="cpu")
    chosen, costs = choose(wish, 1_000_000, sample, queries, tmp_path / "a")
    assert set(costs) == {"flat", "ivf_flat", "ivf_pq", "hnsw"}
    assert costs[chosen.kind] == min(costs.values())
    assert chosen.kind != "flat"
    tight = Wish("flat", 0.9, 60_000_000, device="cpu")
    chosen, costs = choose(tight, 1_000_000, sample, queries, tmp_path / "c")
    assert chosen.kind == "ivf_pq"
    assert chosen.memory == 60_000_000
    with pytest.raises(UserError, match=r"index.memory is 1,000 bytes: .* need at least"):
        choose(Wish("flat", 0.9, 1000), 1_000_000, sample, queries, tmp_path / "d")


def test_memory_is_that_of_the_files(tmp_path, vectors):
    for kind in ("flat", "ivf_flat", "hnsw"):
        path, _ = built(tmp_path / kind, vectors, kind)
        assert path.stat().st_size == pytest.approx(memory_of(kind, ROWS, DIMENSION), rel=0.02)
    path, done = built(tmp_path / "ivf_pq", vectors, "ivf_pq")
    codes = memory_of("ivf_pq", ROWS, DIMENSION, done.settings["code_bytes"])
    assert path.stat().st_size == pytest.approx(codes + 4 * ROWS * DIMENSION, rel=0.02)


def test_codes_shrink_to_the_memory_that_there_is():
    assert code_size(10**6, 256, None) == 64
    assert code_size(10**6, 384, None) == 96
    assert code_size(10**6, 7, None) == 1
    for memory in (80_000_000, 40_000_000, 20_000_000):
        size = code_size(10**6, 256, memory)
        assert memory_of("ivf_pq", 10**6, 256, size) <= memory
        assert memory_of("ivf_pq", 10**6, 256, 2 * size) > memory
    assert fitting(10**6, 256, 80_000_000) == ["ivf_pq"]
    assert fitting(10**6, 256, None) == ["flat", "ivf_flat", "ivf_pq", "hnsw"]
    with pytest.raises(UserError, match=r"kind hnsw needs 1,1\d\d,\d+,\d+ for 1,000,000 vectors"):
        check_memory("hnsw", 10**6, 256, 10**9)
