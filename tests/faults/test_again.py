"""What a stage writes again after a fault is what a run that nothing disturbed writes."""

from pathlib import Path

import common
import pytest

from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Part
from shardwright.pipelines.labels import check_labels
from shardwright.pipelines.run import Run
from shardwright.quality.pruning.classifier import LEAST_LABELS

SETTINGS = (
    *("embedding=null", "index=null", "prune=null", "filters=[]"),
    "duplicates={exact: false, near: null}",
    *("limits.part_bytes=40KB", "shards.size=60KB"),
)
STAGES = ("ingest", "prune", "shard")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again")
    source = common.copy_sources(folder / "in", 16)
    common.run("code", source, folder / "out", *SETTINGS, stages=STAGES)
    return folder / "out"


def parts(output: Path, table: str) -> list[Part]:
    manifest = Layout(output).manifest(table)
    assert manifest is not None
    return list(manifest.parts())


def run_again(output: Path) -> None:
    common.run("code", output.with_name("in"), output, *SETTINGS, stages=STAGES)


def test_curated_does_not_tell_which_shards_were_there(output: Path) -> None:
    before, (shard, *_) = parts(output, "curated"), sorted((output / "shards").glob("*/*.mds"))
    manifest = output / "tables" / "curated" / "_manifest.json"
    manifest.unlink()  # all shards stand, as where the disk fails right after they are committed
    run_again(output)
    assert parts(output, "curated") == before
    manifest.unlink()
    shard.unlink()
    run_again(output)
    assert parts(output, "curated") == before


def test_labels_are_checked_beside_a_damaged_table(tmp_path: Path) -> None:
    source, table, layout = tmp_path / "in", tmp_path / "labels.csv", Layout(tmp_path / "out")
    source.mkdir()
    rows = ["path,label"]
    for number in range(2 * LEAST_LABELS):
        (source / f"{number}.py").touch()
        rows.append(f"{number}.py,{number % 2}")
    table.write_text("\n".join(rows))
    layout.table("records").mkdir(parents=True)
    (layout.table("records") / "_manifest.json").write_text("{")
    labelled = ("prune.method=classifier", f"prune.classifier.labels={table}")
    check_labels(Run(common.recipe("code", source, *labelled), layout), ingests=True)
