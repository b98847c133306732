"""Curations of real files compared: what was changed on purpose is told, with its cause."""

import shutil
from pathlib import Path

import pytest
from common import copy_sources, run

from shardwright.metadata.compare import compare

OPTIONS = ["clusters.k=5", "prune.fraction=0.2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compared")
    files = copy_sources(root / "data", 60)
    run("code", files, root / "a", *OPTIONS, "name=sources")
    return root


def test_only_the_packaging(root: Path) -> None:
    options = ["shards.size=100KB", "shards.seed=7", "shards.format=webdataset"]
    run("code", root / "data", root / "packed", *OPTIONS, *options, "name=sources")
    found = compare(root / "a", root / "packed")
    assert found.step == "packaging", found.because
    assert {group.kind for group in found.groups} <= {"shard", "position"}
    told = {(one.stage, one.name) for one in found.differences if one.kind == "parameter"}
    assert told == {("shard", "format"), ("shard", "seed"), ("shard", "size")}
    assert found.transitions == ()


def test_other_files_and_another_fraction(root: Path) -> None:
    other = root / "other"
    shutil.copytree(root / "data", other)
    paths = sorted(path for path in other.rglob("*") if path.is_file())
    paths[3].write_text(paths[3].read_text() + "\nlast = 1\n")
    paths[5].unlink()
    paths[7].rename(other / "moved.py")
    (other / "added.py").write_text("def added():\n    return 'no other file has this'\n" * 3)
    run("code", other, root / "b", "clusters.k=5", "prune.fraction=0.5", "name=sources")
    found = compare(root / "a", root / "b")
    counts = {group.kind: group.inputs for group in found.groups}
    assert [counts[kind] for kind in ("added", "removed", "moved", "content")] == [1] * 4
    assert found.step == "changed"
    pruned = [one for one in found.transitions if one.after[:2] == ("dropped", "prune")]
    assert sum(one.inputs for one in pruned) > 5
    for one in pruned:
        told = {(cause.stage, cause.kind, cause.name) for cause in one.causes}
        assert told == {
            ("ingest", "data", "inputs"),
            ("score", "parameter", "fraction"),
            ("prune", "parameter", "fraction"),
        }
