"""What a run is to take, by rates of an earlier run or of another machine, or not known."""

import json
import re
from pathlib import Path
from typing import Any

import common
import pytest

from shardwright.metadata.layout import Layout
from shardwright.pipelines.curate import dry_run
from shardwright.pipelines.estimate import Costs, Estimate, total

FOUND = {"bytes": 400_000, "shuffled": 1000, "written": 2000, "reused": 0, "records": 1000}


def costs(tmp_path: Path, *stages: dict[str, Any], settings: tuple[str, ...] = ()) -> Costs:
    (tmp_path / "metrics.json").write_text(json.dumps({"stages": stages}))
    return Costs.of(common.recipe("code", tmp_path, *settings), Layout(tmp_path))


def stage(name: str, seconds: float, **other: int) -> dict[str, Any]:
    return {"stage": name, "seconds": seconds, **FOUND, **other}


def without_fixed(found: Costs, name: str) -> float:
    return found._reference[name].fixed


def test_contents_grow_with_bytes_and_other_things_with_records(tmp_path: Path) -> None:
    found = costs(tmp_path, stage("ingest", 1000.0), stage("prune", 500.0))
    fixed = without_fixed(found, "ingest")
    twice = found.estimate("ingest", 1000, 800_000)
    assert twice == Estimate(fixed + 2 * (1000 - fixed), 800_000, 2000, 4000)
    fixed = without_fixed(found, "prune")
    half = found.estimate("prune", 500, 99_000_000)
    assert half == Estimate(fixed + (500 - fixed) / 2, 200_000, 500, 1000)
    assert found.basis.startswith("the run before")


@pytest.mark.parametrize("other", [{"reused": 1}, {"records": 0}, {"written": 0}])
def test_a_stage_that_did_not_do_all_its_work_tells_nothing(
    tmp_path: Path, other: dict[str, int]
) -> None:
    told = costs(tmp_path, stage("ingest", 5.0), stage("prune", 1e6, **other))
    assert told.estimate("prune", 1000, 1) == costs(tmp_path).estimate("prune", 1000, 1)
    few = costs(tmp_path, stage("ingest", 1e6, records=20))
    assert few.estimate("ingest", 10, 10) == costs(tmp_path).estimate("ingest", 10, 10)


def test_what_the_recipe_leaves_out_takes_nothing_and_a_foreign_model_is_not_known(
    tmp_path: Path,
) -> None:
    plain = costs(tmp_path, settings=("embedding=null", "prune=null", "filters=[]"))
    for name in ("embed", "index", "cluster", "study", "score", "filter", "heterogeneity"):
        assert plain.estimate(name, 1000, 1000) == Estimate(0, 0, 0, 0), name
    model = "embedding.model=sentence-transformers:some/model"
    foreign = costs(tmp_path, settings=(model,))
    assert foreign.estimate("embed", 1000, 1000) is None
    measured = costs(tmp_path, stage("ingest", 1.0), stage("embed", 70.0), settings=(model,))
    assert measured.estimate("embed", 1000, 800_000) == Estimate(140, 800_000, 2000, 4000)


def test_a_sum() -> None:
    assert total([]) == Estimate(0, 0, 0, 0)
    assert total([Estimate(1, 2, 3, 4), Estimate(10, 20, 30, 40)]) == Estimate(11, 22, 33, 44)


def test_the_plan_tells_it_and_the_run_is_held_against_it(tmp_path: Path) -> None:
    source = common.copy_sources(tmp_path / "in", 12)
    recipe, output = common.recipe("code", source), tmp_path / "out"
    lines = dry_run(recipe, output).splitlines()
    [line] = [line for line in lines if line.startswith("estimate: ")]
    size = sum(path.stat().st_size for path in source.rglob("*.py"))
    assert "if nothing is reused" in line
    assert re.search(rf"  ingest: about [\d.]+ s, reads {size / 1e6:,.1f} MB", "\n".join(lines))
    common.curate(recipe, output, stages=("ingest", "filter"))
    metrics = common.stage_metrics(output)
    expected = Costs.of(recipe, Layout(tmp_path)).estimate("ingest", 12, size)
    assert expected is not None
    assert metrics["ingest"]["estimate"] == pytest.approx(vars(expected))
    assert metrics["filter"]["estimate"]["seconds"] >= 0


def test_rows_of_parquet_are_not_known_before(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "in").mkdir()
    rows = {"content": [f"value = {i}\n" for i in range(30)]}
    pq.write_table(pa.table(rows), tmp_path / "in" / "rows.parquet")
    kind = ("source.kind=parquet", 'source.include=["**/*.parquet"]')
    recipe, output = common.recipe("code", tmp_path / "in", *kind), tmp_path / "out"
    assert "estimate: none, inputs hold any number of records" in dry_run(recipe, output)
    common.curate(recipe, output, stages=("ingest",))
    assert "estimate: about" in dry_run(recipe, output)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stages": 3}', '{"stages": [{}]}', "\x00"])
def test_damaged_metrics_tell_nothing(tmp_path: Path, text: str) -> None:
    found = costs(tmp_path)
    (tmp_path / "metrics.json").write_text(text)
    again = Costs.of(common.recipe("code", tmp_path), Layout(tmp_path))
    assert again.before == {}
    assert again.estimate("prune", 10, 10) == found.estimate("prune", 10, 10)


def test_metrics_of_an_earlier_version_tell_nothing(tmp_path: Path) -> None:
    old = {name: stage("prune", 1e6)[name] for name in ("stage", "seconds", "bytes", "records")}
    told = costs(tmp_path, stage("ingest", 5.0), old)
    assert told.estimate("prune", 1000, 1) == costs(tmp_path).estimate("prune", 1000, 1)
