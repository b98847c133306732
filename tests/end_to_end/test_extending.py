"""The package of docs/extending.md, built from its blocks, in curations of their own processes."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import common
import numpy as np
import pytest

from shardwright.metadata.catalog import connect
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import read_manifest

PAGE = (common.ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```\w+ ([^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {info.removeprefix("file="): text for info, text in BLOCKS if info.startswith("file=")}
RECIPE = next(text for _, text in BLOCKS if "name: all-own\n" in text)
ALONE = ("--runner=FnApiRunner", "--direct_num_workers=1")
TWO = (
    *("--runner=FnApiRunner", "--direct_running_mode=multi_processing"),
    "--direct_num_workers=2",
)
STAGES = ("ingest", "filter", "embed", "shard")
SMALL = (
    "--set",
    "limits.part_bytes=40KB",
    "--set",
    "index=null",
    "--set",
    "duplicates.exact=false",
)
READ = """
import json, sys, shardwright
curation = shardwright.open(sys.argv[1])
samples = [
    sample for split in ("train", "validation")
    for sample in curation.dataset(split, batch_size=1, shuffle=False)
]
picked = next(iter(curation.dataset("train", batch_size=1, columns=["path"])))
beam = "apache_beam" in sys.modules
print(json.dumps({"samples": samples, "picked": sorted(picked), "beam": beam}))
"""


def install(site: Path, version: str) -> None:
    """What an installer would leave of the package in ``site``."""
    for name, text in FILES.items():
        if name != "pyproject.toml":
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
            (site / name).with_name("__init__.py").touch()
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    noted = site / "acme_shardwright.dist-info"
    noted.mkdir(exist_ok=True)
    (noted / "METADATA").write_text(f"Name: {project['name']}\nVersion: {version}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    (noted / "entry_points.txt").write_text("\n".join(lines) + "\n")


def ran(folder: Path, arguments: Sequence[str], site: bool = True) -> str:
    """Runs Python in a process that sees the package, and returns what it prints."""
    paths = [str(common.ROOT), *([str(folder / "site")] if site else [])]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": ":".join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def curated(folder: Path, output: str, beam: Sequence[str]) -> Path:
    command = ["-m", "shardwright.pipelines.cli", "curate", "recipe.yaml", "--output", output]
    ran(folder, [*command, *SMALL, "--", *beam])
    return folder / output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, a recipe, a database of real files, and a curation by one worker."""
    folder = tmp_path_factory.mktemp("extending")
    install(folder / "site", "1.0")
    (folder / "recipe.yaml").write_text(RECIPE)
    with closing(sqlite3.connect(folder / "snippets.db")) as database:
        database.execute(
            "CREATE TABLE snippets (id INTEGER PRIMARY KEY, name, body, author, updated)"
        )
        files = [path for path in common.source_files(400) if 200 < path.stat().st_size < 5000]
        rows = [(f"m{i:02d}.py", path.read_text(), "a", "1") for i, path in enumerate(files[:60])]
        database.executemany(
            "INSERT INTO snippets (name, body, author, updated) VALUES (?, ?, ?, ?)", rows
        )
        database.commit()
    curated(folder, "alone", ALONE)
    return folder


def test_what_was_added_decides(folder: Path) -> None:
    layout = Layout(folder / "alone")
    with connect(layout) as connection:
        found = connection.sql(
            "SELECT record_id, acme_usual_length AS score, cluster, bytes, keep, reason "
            "FROM scores JOIN clusters USING (record_id) JOIN records USING (record_id) "
            "JOIN decisions USING (record_id) ORDER BY record_id"
        ).fetchnumpy()
        models = connection.sql("SELECT DISTINCT model FROM embeddings").fetchall()
    size = np.log(found["bytes"])
    expected = [
        -abs(own - np.median(size[found["cluster"] == cluster]))
        for own, cluster in zip(size, found["cluster"], strict=True)
    ]
    np.testing.assert_array_equal(found["score"], expected)
    gone = np.lexsort((found["record_id"], found["score"]))[: round(0.2 * len(size))]
    assert set(np.flatnonzero(~found["keep"])) == set(gone)
    assert set(found["reason"][gone]) == {"acme_odd_length"}
    assert models == [("acme:bytes",)]
    scores = read_manifest(layout.table("scores"))
    assert scores is not None
    assert scores.schema.names == ["record_id", "scip", "acme_usual_length"]


def test_shards_are_read_back_as_they_were_curated(folder: Path) -> None:
    output = folder / "alone"
    listed = read_file_list(output / "shards")
    assert listed is not None
    assert {file.format for file in listed.files} == {"acme-npz"}
    assert len(listed.files) > 4
    assert all(file.bytes <= 10_000 or file.rows == 1 for file in listed.files)
    told = json.loads(ran(folder, ["-c", READ, str(output)]))
    with connect(Layout(output)) as connection:
        kept = connection.sql(
            "SELECT record_id, content, path, coalesce(repository, '') AS repository, "
            "coalesce(language, '') AS language, coalesce(license, '') AS license FROM curated "
            "JOIN shards USING (record_id, split) ORDER BY split, shard, position"
        ).to_arrow_table()
    assert told["samples"] == kept.to_pylist()
    assert told["picked"] == ["path"]
    assert not told["beam"]


def test_verify_is_clean_and_damage_is_found(folder: Path) -> None:
    command = ["-m", "shardwright.pipelines.cli", "verify", str(folder / "alone")]
    ran(folder, command)
    ran(folder, command, site=False)  # checking needs no package
    listed = read_file_list(folder / "alone" / "shards")
    assert listed is not None
    path = folder / "alone" / "shards" / listed.files[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(AssertionError):
        ran(folder, command)
    path.write_bytes(whole)


@pytest.mark.slow
def test_two_workers_write_the_same_bytes(folder: Path) -> None:
    other = curated(folder, "two", TWO)
    assert common.contents(other) == common.contents(folder / "alone")


def test_another_version_redoes_what_it_touched(folder: Path) -> None:
    output = folder / "alone"
    before = common.contents(output)
    curated(folder, "alone", ALONE)
    again = common.stage_metrics(output)
    for stage in STAGES:
        assert again[stage]["parts"] == again[stage]["reused"] > 0, stage
    scored = (output / "tables" / "scores" / "_manifest.json").stat().st_mtime_ns
    install(folder / "site", "1.1")
    curated(folder, "alone", ALONE)
    redone = common.stage_metrics(output)
    for stage in STAGES:
        assert redone[stage]["reused"] == 0 < redone[stage]["parts"], stage
    assert redone["embed"]["details"]["encoded"] > 0
    assert (output / "tables" / "scores" / "_manifest.json").stat().st_mtime_ns > scored
    assert common.contents(output) == before  # it did the same
