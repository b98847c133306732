"""The index stage with every kind, and search in what it wrote, whole and filtered."""

import json
import subprocess
import sys
from pathlib import Path

import common
import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from shardwright.embeddings import kinds, open_index, search
from shardwright.errors import UserError
from shardwright.metadata.curation import open_curation
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines import index as job
from shardwright.pipelines.stages import index as stage

KINDS = ("flat", "ivf_flat", "ivf_pq", "hnsw")
SETTINGS = (
    *("duplicates.near=null", "filters=[]", "clusters.k=4"),
    "shards.split={train: 0.7, validation: 0.3}",
)


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """A whole curation of real files, and its vectors by record id."""
    root = tmp_path_factory.mktemp("index")
    source = common.copy_sources(root / "code", 300)
    common.run("code", source, root / "curated", *SETTINGS)
    table = open_curation(root / "curated").tables["embeddings"].read()
    vectors = np.stack(table["vector"].to_numpy()).astype(np.float32)
    return source, root / "curated", dict(zip(table["record_id"].to_pylist(), vectors, strict=True))


def indexed(curated, monkeypatch, kind, *settings, force=False, beam=()):
    """Runs the stage with a kind that so few records would not have."""
    source, output, _ = curated
    monkeypatch.setattr(kinds, "SMALL", 100)
    settings = (*SETTINGS, f"index.kind={kind}", "index.recall=0.8", *settings)
    common.run("code", source, output, *settings, stages=["index"], force=force, beam=beam)
    return read_file_list(output / "indexes")


@pytest.mark.parametrize("kind", [*KINDS, "auto"])
def test_files_are_the_same_again_and_ids_name_the_vectors(curated, monkeypatch, kind):
    _, output, by_id = curated
    listed = indexed(curated, monkeypatch, kind)
    before = common.contents(output)
    assert indexed(curated, monkeypatch, kind) == listed  # nothing was redone
    if kind != "auto":
        indexed(curated, monkeypatch, kind, force=True)
    assert common.contents(output) == before
    known = listed.origin.parameters
    used = known["index"]
    assert used == kind or kind == "auto"
    names = {f"{used}.faiss", f"{used}.ids.parquet"}
    assert {file.path for file in listed.files} == names
    assert {path.name for path in (output / "indexes").iterdir()} == {*names, "_manifest.json"}
    assert not (output / ".staging" / "index").exists()
    ids = pq.read_table(output / "indexes" / f"{used}.ids.parquet")["record_id"].to_pylist()
    assert sorted(ids) == sorted(by_id)
    if used == "flat":
        assert ids == list(by_id)
    else:
        assert known["measured"]["mean"] >= 0.8
    index = faiss.read_index(str(output / "indexes" / f"{used}.faiss"))
    wanted = np.stack([by_id[i] for i in ids])
    values, rows = index.search(wanted, 1)
    assert np.mean(values[:, 0] > 1 - 1e-5) > 0.95
    assert np.allclose(np.sum(wanted * wanted[rows[:, 0]], axis=1), values[:, 0], atol=1e-5)


def threads(count):
    """Beam options for so many workers."""
    mode = "--direct_running_mode=multi_threading"
    return ("--runner=FnApiRunner", mode, f"--direct_num_workers={count}")


def many_dropped(run, table, before, alive=stage.alive_parts):
    """As ``alive_parts``, but a later stage dropped every third row, and a part of all."""
    for place, (part, _) in enumerate(alive(run, table, before)):
        rows = range(part.rows)
        yield part, list(rows if place == 1 else rows[place % 2 :: 3])


def few_dropped(run, table, before, alive=stage.alive_parts):
    """As ``alive_parts``, but a later stage dropped the first row of some parts."""
    for place, (part, _) in enumerate(alive(run, table, before)):
        yield part, [0] if place % 2 else []


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq"])  # codes are trained on 256 at least
def test_parts_of_any_size_by_any_workers_give_the_same_bytes(curated, monkeypatch, kind):
    _, output, by_id = curated
    parts = [part.rows for part in Layout(output).need("embeddings", "embed").parts()]
    assert len(set(parts)) > 2
    dropped, empty = (many_dropped, 1) if kind == "ivf_flat" else (few_dropped, 0)
    monkeypatch.setattr(stage, "alive_parts", dropped)
    found = []
    for workers, rows, tasks in ((1, 10**6, 1), (3, 1, len(parts) - empty), (2, 50, None)):
        monkeypatch.setattr(job, "_LEAST_ROWS", rows)
        indexed(curated, monkeypatch, kind, force=True, beam=threads(workers))
        assert tasks in (None, common.stage_metrics(output)["index"]["parts"] - 1)
        assert not (output / ".staging" / "index-lists").exists()
        known = read_file_list(output / "indexes").origin.parameters["measured"]
        found.append((common.contents(output), known))
    assert found[0] == found[1] == found[2]
    ids = pq.read_table(output / "indexes" / f"{kind}.ids.parquet")["record_id"].to_pylist()
    assert len(ids) < len(by_id)
    index = faiss.read_index(str(output / "indexes" / f"{kind}.faiss"))
    wanted = np.stack([by_id[i] for i in ids])
    values, rows = index.search(wanted, 1)
    assert np.allclose(np.sum(wanted * wanted[rows[:, 0]], axis=1), values[:, 0], atol=1e-5)
    assert np.mean(values[:, 0] > 1 - 1e-5) > 0.95


def test_what_workers_wrote_is_used_by_the_next_run(curated, monkeypatch):
    _, output, _ = curated
    monkeypatch.setattr(job, "_LEAST_ROWS", 1)
    indexed(curated, monkeypatch, "ivf_flat", force=True)
    before = common.contents(output)
    indexed(curated, monkeypatch, "flat")

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "collect", cut_off)
        with pytest.raises(KeyboardInterrupt):
            indexed(curated, patch, "ivf_flat")
    assert read_file_list(output / "indexes") is None
    staged = output / ".staging" / "index-lists"
    sidecars = sorted(staged.glob("part-*.json"))
    assert len(sidecars) > 2
    next(staged.glob("*.0.codes.npy")).unlink()  # its part is redone, the others are not
    indexed(curated, monkeypatch, "ivf_flat")
    metrics = common.stage_metrics(output)["index"]
    assert (metrics["parts"], metrics["reused"]) == (len(sidecars) + 1, len(sidecars) - 1)
    assert common.contents(output) == before
    assert not staged.exists()


_LIGHT = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
import common
from pathlib import Path
source, output = Path({source!r}), Path({output!r})
common.run("code", source, output, *{settings!r}, stages=["index"], force=True)
from shardwright.embeddings import open_index
print(len(open_index(output).search(np.eye(1, 256, dtype=np.float32), 3).ids[0]))
print("torch" in sys.modules)
"""


def test_a_flat_index_is_written_and_searched_without_torch(curated):
    source, output, _ = curated
    code = _LIGHT.format(
        tests=str(Path(common.__file__).parent),
        source=str(source),
        output=str(output),
        settings=SETTINGS,
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]


def test_few_records_have_a_flat_index_and_a_note(curated, capsys):
    source, output, _ = curated
    common.run("code", source, output, *SETTINGS, "index.kind=hnsw", stages=["index"])
    assert "index.kind hnsw falls to flat" in capsys.readouterr().err
    assert (output / "indexes" / "flat.faiss").exists()


def test_a_cut_off_run_leaves_no_index_and_is_redone(curated, monkeypatch):
    _, output, _ = curated
    indexed(curated, monkeypatch, "hnsw", force=True)
    before = common.contents(output)

    def cut_off(*_):
        (output / "indexes" / "half.faiss").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "sha256_file", cut_off)
        with pytest.raises(KeyboardInterrupt):
            indexed(curated, patch, "hnsw", force=True)
    assert read_file_list(output / "indexes") is None
    assert not (output / "croissant.json").exists()
    with pytest.raises(UserError, match="no index; run stage 'index' first"):
        open_index(output)
    indexed(curated, monkeypatch, "hnsw")
    assert common.contents(output) == before


def test_too_little_memory_says_what_would_do(curated, monkeypatch):
    with pytest.raises(UserError, match=r"kind flat needs .* use kind auto or ivf_pq"):
        indexed(curated, monkeypatch, "flat", "index.memory=1KB")


def nearest(by_id, allowed, query, k):
    ids = sorted(allowed)
    values = np.stack([by_id[i] for i in ids]) @ query
    return np.sort(values)[::-1][:k]


@pytest.mark.parametrize("few", [20_000, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_search_whole_and_filtered(curated, monkeypatch, kind, few):
    _, output, by_id = curated
    indexed(curated, monkeypatch, kind)
    monkeypatch.setattr(search, "FEW", few)
    monkeypatch.setattr(search, "_ASKED", 40)
    queries = np.stack(list(by_id.values())[::7])
    whole = open_index(output)
    assert len(whole) == len(by_id)
    assert (whole.recall is None) == (kind == "flat")
    ids, values = whole.search(queries, 5)
    for query, names, found in zip(queries, ids, values, strict=True):
        assert np.allclose([by_id[name] @ query for name in names], found, atol=1e-5)
    for where in ({"split": "validation"}, {"split": "train", "language": "Python"}):
        conditions = " AND ".join(f"{column} = '{value}'" for column, value in where.items())
        allowed = open_curation(output).sql(
            f"SELECT record_id FROM records JOIN shards USING (record_id) WHERE {conditions}"
        )
        allowed = set(allowed["record_id"].to_pylist())
        assert 50 < len(allowed) < len(by_id)
        index = open_index(output, where=where)
        assert len(index) == len(allowed)
        ids, values = index.search(queries, 5)
        assert set(ids.reshape(-1)) <= allowed
        exact = np.stack([nearest(by_id, allowed, query, 5) for query in queries])
        if few > len(allowed) or kind == "flat":
            assert index.recall is None
            assert np.allclose(values, exact, atol=1e-5)
        else:
            assert index.recall is None or index.recall.mean >= 0.8
            assert np.mean(values >= exact[:, -1:] - 1e-5) > 0.75


def test_curations_are_searched_together_and_wrong_use_is_named(curated, tmp_path):
    _, output, by_id = curated
    queries = np.stack(list(by_id.values())[:3])
    ids, values = open_index(output, output).search(queries, 4)
    one, single = open_index(output).search(queries, 2)
    assert np.array_equal(ids[:, ::2], one)
    assert np.allclose(values[:, ::2], single)
    more = open_index(output, where={"language": "Ada"}).search(queries, 2)
    assert more.ids.tolist() == [[None, None]] * 3
    assert np.isneginf(more.similarities).all()
    with pytest.raises(UserError, match="where: no column 'tongue' to filter by; there are "):
        open_index(output, where={"tongue": "Python"})
    with pytest.raises(UserError, match="at least one curation"):
        open_index()
    with pytest.raises(ValueError, match=r"shape \(3, 7\): they must be \[q, 256\]"):
        open_index(output).search(queries[:, :7])
    with pytest.raises(ValueError, match="k is 0"):
        open_index(output).search(queries, 0)


def test_everything_verifies_with_another_kind(curated, monkeypatch):
    source, output, _ = curated
    indexed(curated, monkeypatch, "ivf_pq")
    settings = (*SETTINGS, "index.kind=ivf_pq", "index.recall=0.8")
    common.run("code", source, output, *settings)
    assert verify(Layout(output)) == []
    listed = json.loads((output / "croissant.json").read_text())["distribution"]
    assert "indexes/ivf_pq.faiss" in {item.get("contentUrl") for item in listed}
