"""Large runs over real collections, through the command line, and what a change costs."""

import json
import os
import shutil
from pathlib import Path

import common
import pytest

from shardwright.metadata.layout import Layout

FILES = 15_000


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15,000 real source files, linked from the environment: bytes shared, names our own."""
    folder = tmp_path_factory.mktemp("sources")
    base = common.source_files(1)[0].parents[0]
    while base.name != "site-packages":
        base = base.parent
    for path in common.source_files(FILES):
        place = folder / path.relative_to(base)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)
    return folder


@pytest.mark.slow
def test_15000_source_files_and_what_a_change_costs(sources: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["curate", "recipes/code.yaml", "--input", str(sources), "--output", str(output)]
    done = common.shardwright(*command)
    assert done.returncode == 0, done.stderr
    layout = Layout(output)
    rows = {m.table: m.rows for m in layout.manifests()}
    assert rows["records"] + rows["rejects"] == FILES
    dropped = FILES - rows["rejects"] - rows["curated"]
    assert rows["decisions"] == rows["records"] == rows["curated"] + dropped
    assert f"{FILES:,}" in done.stdout
    verified = common.shardwright("verify", str(output))
    assert verified.returncode == 0, verified.stdout + verified.stderr

    first = common.stage_metrics(output)
    assert first["embed"]["details"]["encoded"] == rows["embeddings"]
    (sources / "numpy").mkdir(exist_ok=True)
    (sources / "numpy" / "one_more_file.py").write_text("print('one more file')\n")
    done = common.shardwright(*command)
    assert done.returncode == 0, done.stderr
    second = common.stage_metrics(output)
    for stage in ("ingest", "embed"):
        redone = second[stage]["parts"] - second[stage]["reused"]
        assert 1 <= redone <= 2
        assert second[stage]["parts"] >= 5
    assert second["embed"]["details"]["encoded"] == 1

    done = common.shardwright(*command, "--set", "prune.fraction=0.3")
    assert done.returncode == 0, done.stderr
    third = common.stage_metrics(output)
    for stage in ("ingest", "embed", "cluster"):
        assert third[stage]["parts"] == third[stage]["reused"]
    assert third["embed"]["details"]["encoded"] == 0
    assert common.shardwright("verify", str(output)).returncode == 0


@pytest.mark.slow
def test_more_than_a_thousand_pictures(tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = common.shardwright(
        *("curate", "recipes/images.yaml", "--output", str(output)),
        *("--input", str(common.PICTURES)),
    )
    assert done.returncode == 0, done.stderr
    rows = {m.table: m.rows for m in Layout(output).manifests()}
    files = sum(path.is_file() for path in common.PICTURES.rglob("*"))
    assert rows["records"] + rows["rejects"] == files
    assert rows["records"] > 1_000
    assert rows["decisions"] == rows["records"]
    verified = common.shardwright("verify", str(output))
    assert verified.returncode == 0, verified.stdout
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["seconds"] > 0
