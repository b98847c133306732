"""What every DAG keeps to, and the plain functions of the DAG file."""

import ast
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.sdk import DAG, CronPartitionTimetable
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization
from conftest import ROOT, load

DAGS = load().dags
CURATIONS = [dag for name, dag in sorted(DAGS.items()) if name.startswith("curate_")]
NO_ROOM = "No space left on device"
each = pytest.mark.parametrize("dag", CURATIONS, ids=lambda dag: dag.dag_id)


@pytest.fixture(scope="module")
def ours() -> ModuleType:
    """The module of the DAG file, under the name that Airflow gave it."""
    return sys.modules[type(DAGS["curate_code"].get_task("ingest")).__module__]


def test_all_recipes_have_a_dag() -> None:
    started = time.perf_counter()
    bag = load()
    print(f"parsed in {time.perf_counter() - started:.2f} s")
    assert bag.import_errors == {}
    assert set(bag.dags) == {"curate_code", "curate_images", "after_curation"}


def test_stages_are_those_of_the_command(ours: ModuleType) -> None:
    tree = ast.parse((ROOT / "shardwright/pipelines/curate.py").read_text())
    (stages,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "STAGES"
    )
    assert isinstance(stages, ast.Dict)
    assert tuple(ast.literal_eval(key) for key in stages.keys if key) == ours.STAGES


@each
def test_policies(dag: DAG) -> None:
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert dag.tags == {
        "shardwright",
        {"curate_code": "code", "curate_images": "image"}[dag.dag_id],
    }
    assert dag.doc_md
    for task in dag.tasks:
        assert task.owner == "shardwright"
        assert task.retries == 2
        assert len(task.outlets) == 1
    DagSerialization.serialize_dag(dag)


@each
def test_assets_follow_the_tasks(dag: DAG, ours: ModuleType) -> None:
    order = dag.topological_sort()
    assert [task.task_id for task in order] == ["plan", *ours.STAGES, "verify"]
    for before, task in pairwise(order):
        assert task.inlets == before.outlets
        assert before.task_id in task.upstream_task_ids
    names = {asset.name for task in order for asset in task.outlets}
    assert names == {f"shardwright.{dag.dag_id[7:]}.{task.task_id}" for task in order}


def test_schedule_makes_partitions_of_days(
    ours: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "SCHEDULE", "0 6 * * *")
    timetable = ours.curation(ROOT / "recipes" / "code.yaml", "code").timetable
    assert isinstance(timetable, CronPartitionTimetable)
    assert datetime(2026, 1, 2, 6).strftime(timetable.key_format) == "2026-01-02"


@pytest.mark.parametrize(
    ("key", "date", "expected"),
    [
        ("2026-02-03", None, "2026-02-03"),
        ("2026-02-03", datetime(2026, 5, 6, tzinfo=UTC), "2026-02-03"),
        (None, datetime(2026, 5, 6, 23, 59, tzinfo=UTC), "2026-05-06"),
    ],
)
def test_partition(ours: ModuleType, key: str | None, date: Any, expected: str) -> None:
    assert ours.partition_of({"partition_key": key, "logical_date": date}) == expected


@pytest.mark.parametrize("key", [None, "", "..", "a/b", ".staging", "a b"])
def test_what_names_no_folder_is_refused(ours: ModuleType, key: str | None) -> None:
    with pytest.raises(AirflowFailException, match="partition key"):
        ours.partition_of({"partition_key": key, "logical_date": None})


def test_earlier_partitions_come_in_order(ours: ModuleType, tmp_path: Path) -> None:
    for day in ("2026-01-03", "2026-01-01", "2026-01-02", "2025-12-31", ".hidden"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "croissant.json").touch()
    (tmp_path / "2025-notes").touch()
    found = [Path(output).name for output in ours.earlier_outputs(tmp_path, "2026-01-02")]
    assert found == ["2025-12-31", "2026-01-01"]
    (tmp_path / "2026-01-01" / "croissant.json").unlink()
    with pytest.raises(AirflowFailException, match="2026-01-01: this earlier curation is not"):
        ours.earlier_outputs(tmp_path, "2026-01-02")
    assert ours.earlier_outputs(tmp_path, "2026-01-01") == [str(tmp_path / "2025-12-31")]


def test_plan(ours: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "OUTPUT", str(tmp_path))
    earlier = tmp_path / "mine" / "2026-01-01"
    earlier.mkdir(parents=True)
    (earlier / "croissant.json").touch()
    params = {"input": "s3://c/{recipe}/{partition}", "set": ["name=x"], "against_earlier": True}
    plan = ours.planned(Path("/r/mine.yaml"), "2026-01-02", params)
    assert plan["output"] == str(tmp_path / "mine" / "2026-01-02")
    assert plan["arguments"] == [
        *("/r/mine.yaml", "--output", plan["output"]),
        *("--set", "source.name=mine/2026-01-02", "--input", "s3://c/mine/2026-01-02"),
        *("--set", f"duplicates.against={json.dumps([str(earlier)])}", "--set", "name=x"),
    ]
    alone = ours.planned(
        Path("/r/mine.yaml"), "2026-01-02", {"input": None, "set": [], "against_earlier": False}
    )
    assert alone["arguments"] == plan["arguments"][:5]


@pytest.mark.parametrize("output", ["", "curations", "s3://bucket/curations"])
def test_output_must_be_a_folder(
    ours: ModuleType, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "OUTPUT", output)
    with pytest.raises(AirflowFailException, match="SHARDWRIGHT_OUTPUT"):
        ours.planned(Path("/r/a.yaml"), "p", {"input": None, "set": [], "against_earlier": True})


@pytest.mark.parametrize(
    ("code", "last", "for_good"),
    [
        (2, "shardwright: recipe r.yaml: no such key", True),
        (2, "Error: No such option: --x", True),
        (1, "shardwright: DIR: 3 faults", True),
        (1, f"shardwright: /o: {NO_ROOM}; make room there and run the same command again", False),
        (1, f"OSError: [Errno 28] {NO_ROOM}", False),
        (137, "", False),
        (-15, "", False),
    ],
)
def test_only_crashes_are_tried_again(
    ours: ModuleType, code: int, last: str, for_good: bool
) -> None:
    with pytest.raises(AirflowException) as raised:
        ours.raise_failure(code, last)
    assert isinstance(raised.value, AirflowFailException) == for_good
    ours.raise_failure(0, last)


def test_kill_ends_the_command_and_its_children(
    ours: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child holds the command's stdout: it is read to its end only when both are gone."""
    command = tmp_path / "command"
    command.write_text(f"#!/bin/sh\nsleep 60 &\ntouch {tmp_path}/started\nwait\n")
    command.chmod(0o755)
    monkeypatch.setattr(ours, "COMMAND", str(command))
    monkeypatch.setattr(ours, "LINEAGE", None)
    plan = {"partition": "p", "output": str(tmp_path), "arguments": []}
    operator = ours.Shardwright(task_id="ingest", plan=plan, stage="ingest")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(operator.execute, {})
        while not (tmp_path / "started").exists():
            assert not done.done(), done.result()
            time.sleep(0.05)
        operator.on_kill()
        with pytest.raises(AirflowException, match="exit -15"):
            done.result(timeout=30)
