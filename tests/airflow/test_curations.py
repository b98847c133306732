"""Whole curations by Airflow: two days, with faults, held against plain runs of the command."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.models.asset import AssetEvent, AssetModel, AssetPartitionDagRun
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.utils.session import create_session
from conftest import HOME, ROOT

PLAIN = ROOT / ".venv" / "bin" / "shardwright"
CRAWLS = HOME / "crawls" / "code"
CURATIONS = HOME / "curations" / "code"
FIRST, SECOND = "2026-01-01", "2026-01-02"
SET = ["clusters.k=4"]
BAG = BundleDagBag(str(HOME / "dags"), bundle_path=HOME / "dags", bundle_name="dags-folder")


def module(i: int) -> str:
    """A module that is near to no other one."""
    words = [hashlib.sha256(f"{i} {j}".encode()).hexdigest()[:6] for j in range(12)]
    return "\n\n".join(
        f"def f_{a}(x, y):\n    z_{b} = x + {i}\n    return z_{b} - y\n"
        for a, b in zip(words[::2], words[1::2], strict=True)
    )


def crawl(day: str, numbers: range) -> None:
    folder = CRAWLS / day
    folder.mkdir(parents=True)
    for i in numbers:
        (folder / f"module{i:02}.py").write_text(module(i))


def run(day: str, dag_id: str = "curate_code", **conf: Any) -> Any:
    dag: DAG = BAG.dags[dag_id]
    for task in dag.tasks:
        task.retry_delay, task.retry_exponential_backoff = timedelta(0), False
    date = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    return dag.test(logical_date=date, run_conf=conf)


def tries(done: Any) -> dict[str, tuple[str, int]]:
    return {i.task_id: (str(i.state), i.try_number) for i in done.get_task_instances()}


def committed(output: Path) -> dict[str, bytes]:
    """Bytes of tables, shards and indexes; times stand in the manifests alone."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for folder in ("tables", "shards", "indexes")
        for path in sorted((output / folder).rglob("*"))
        if path.is_file() and path.name != "_manifest.json"
    }


def rows(output: Path, sql: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [PLAIN, "query", output, sql, "--format", "json"], check=True, capture_output=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first() -> Any:
    crawl(FIRST, range(24))
    return run(FIRST, set=SET)


@pytest.fixture(scope="module")
def second(first: Any) -> Any:
    """The next crawl has half of the first; its stages meet a full disk and are killed."""
    crawl(SECOND, range(12, 40))
    (HOME / "faults" / "embed").write_text("full")
    (HOME / "faults" / "cluster").write_text("killed")
    return run(SECOND, set=SET)


@pytest.fixture(scope="module")
def plain(second: Any) -> Iterator[Path]:
    """The same two curations without Airflow."""
    for day in (FIRST, SECOND):
        against = [f"duplicates.against={json.dumps([str(HOME / 'plain' / FIRST)])}"]
        overrides = [f"source.name=code/{day}", *SET, *(against if day == SECOND else [])]
        subprocess.run(
            [PLAIN, "curate", ROOT / "recipes" / "code.yaml"]
            + ["--output", HOME / "plain" / day, "--input", CRAWLS / day]
            + [word for override in overrides for word in ("--set", override)],
            check=True,
        )
    return HOME / "plain"


def test_every_stage_runs_once(first: Any) -> None:
    assert first.state == "success"
    assert set(tries(first).values()) == {("success", 1)}


def test_failed_stages_are_tried_again(second: Any) -> None:
    assert second.state == "success"
    again = {name for name, (_, count) in tries(second).items() if count == 2}
    assert again == {"embed", "cluster"}
    assert {count for _, count in tries(second).values()} == {1, 2}


@pytest.mark.parametrize("day", [FIRST, SECOND])
def test_bytes_are_those_of_a_plain_run(plain: Path, day: str) -> None:
    ours, theirs = committed(CURATIONS / day), committed(plain / day)
    assert len(ours) > 20
    assert ours == theirs
    subprocess.run([PLAIN, "verify", CURATIONS / day], check=True)


def test_records_that_the_day_before_kept_are_duplicates(second: Any) -> None:
    kept = {row["path"] for row in rows(CURATIONS / FIRST, "SELECT path FROM curated")}
    dropped = rows(
        CURATIONS / SECOND,
        "SELECT path FROM records JOIN decisions USING (record_id) WHERE stage = 'duplicates'",
    )
    both = {path.name for path in (CRAWLS / SECOND).iterdir()} & kept
    assert len(both) > 4
    assert {row["path"] for row in dropped} == both


def test_assets_say_what_was_committed(second: Any) -> None:
    with create_session() as session:
        events = session.query(AssetEvent, AssetModel.name).join(
            AssetModel, AssetModel.id == AssetEvent.asset_id
        )
        found = {
            name: event
            for event, name in events
            if name.startswith("shardwright.code.") and event.partition_key == SECOND
        }
    assert len(found) == 17
    manifest = json.loads((CURATIONS / SECOND / "tables/records/_manifest.json").read_text())
    told = found["shardwright.code.ingest"].extra
    assert told["output"] == str(CURATIONS / SECOND)
    assert told["partition"] == SECOND
    assert told["tables"]["tables/records"] == {
        "rows": 28,
        "content_sha256": manifest["content_sha256"],
    }
    assert set(told["tables"]) == {"tables/records", "tables/rejects", "tables/lookup"}
    tables = {path.parent.name for path in (CURATIONS / SECOND).glob("tables/*/_manifest.json")}
    last = found["shardwright.code.verify"].extra["tables"]
    assert set(last) == {f"tables/{name}" for name in tables} | {"shards", "indexes"}
    shards = json.loads((CURATIONS / SECOND / "shards/_manifest.json").read_text())
    assert last["shards"]["files"] == len(shards["files"])


def test_example_of_the_docs_follows(second: Any) -> None:
    with create_session() as session:
        waiting = session.query(AssetPartitionDagRun.partition_key).filter(
            AssetPartitionDagRun.target_dag_id == "after_curation"
        )
        assert {key for (key,) in waiting} == {FIRST, SECOND}
    done = run(SECOND, "after_curation")
    assert done.state == "success"
    kept = len(rows(CURATIONS / SECOND, "SELECT path FROM curated"))
    with create_session() as session:
        (said,) = session.query(XComModel.value).filter(XComModel.dag_id == "after_curation").one()
    assert said.strip('"') == f"{kept} records in {CURATIONS / SECOND}/shards"


def test_stages_are_children_of_their_tasks(second: Any) -> None:
    ours = [json.loads(line) for line in (HOME / "shardwright.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in (HOME / "airflow.jsonl").read_text().splitlines()]
    tasks = {(event["job"]["name"], event["run"]["runId"]) for event in theirs}
    parents = {
        (above["job"]["name"], above["run"]["runId"])
        for event in ours
        if event["job"]["name"] == "code"
        for above in [event["run"]["facets"]["parent"]]
    }
    assert {name for name, _ in parents} >= {"curate_code.ingest", "curate_code.describe"}
    assert parents <= tasks


@pytest.mark.parametrize(
    ("conf", "failed"),
    [
        pytest.param({"set": ["clusters.q=4"]}, "ingest", id="mistake"),
        pytest.param({"input": "{partition}", "set": []}, "ingest", id="no input"),
    ],
)
def test_mistakes_are_not_tried_again(second: Any, conf: dict[str, Any], failed: str) -> None:
    (HOME / "calls").unlink()
    done = run("2026-01-03", **conf)
    assert done.state == "failed"
    assert tries(done)[failed] == ("failed", 1)
    assert (HOME / "calls").read_text().split() == [failed]
