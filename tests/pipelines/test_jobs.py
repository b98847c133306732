"""Jobs: reuse, resume, commit; and a table of very many parts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardwright.metadata.files import fingerprint
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import LEAF_PARTS, Origin, read_manifest
from shardwright.pipelines.jobs import Job, Output, Task, commit_job, plan_job

SCHEMA = pa.schema([pa.field("number", pa.int64(), nullable=False)])


@dataclass(frozen=True)
class Numbers:
    """Writes payload["rows"] numbers from payload["first"]."""

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        numbers = range(payload["first"], payload["first"] + payload["rows"])
        output.write("numbers", pa.RecordBatch.from_pydict({"number": list(numbers)}, SCHEMA))
        output.result = {"rows": payload["rows"]}


def task(key: str, first: int, rows: int) -> Task:
    return Task(key, fingerprint(first=first, rows=rows), {"first": first, "rows": rows}, rows)


def run(layout: Layout, tasks: list[Task], *, only: int | None = None, force: bool = False) -> Job:
    job = plan_job(layout, "job", {"numbers": SCHEMA}, tasks, force=force)
    work = job.runner(Numbers())
    for element in job.todo[:only]:
        work(element)
    return job


def numbers(layout: Layout) -> list[int]:
    manifest = layout.manifest("numbers")
    assert manifest is not None
    return [n for f in manifest.files() for n in pq.read_table(f)["number"].to_pylist()]


def test_commit_then_change_one_part(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    tasks = [task("a", 0, 3), task("b", 10, 2), task("c", 20, 1)]
    commit_job(run(layout, tasks), Origin("s", "1", started=1.0))
    assert numbers(layout) == [0, 1, 2, 10, 11, 20]
    before = layout.manifest("numbers")

    again = run(layout, tasks)
    assert again.todo == ()
    assert commit_job(again, Origin("s", "1", started=2.0))["numbers"] == before

    changed = run(layout, [tasks[0], task("b", 50, 1), tasks[2]])
    assert len(changed.todo) == 1
    commit_job(changed, Origin("s", "1", started=3.0))
    assert numbers(layout) == [0, 1, 2, 50, 20]
    names = {path.name for path in layout.table("numbers").iterdir()}
    assert len(names) == 4  # three parts and the manifest: the old part is gone


def test_nothing_is_visible_before_commit_and_staged_parts_are_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    tasks = [task("a", 0, 3), task("b", 10, 2)]
    run(layout, tasks, only=1)
    assert layout.manifest("numbers") is None
    resumed = run(layout, tasks)
    assert len(resumed.todo) == 1
    commit_job(resumed, Origin("s", "1"))
    assert numbers(layout) == [0, 1, 2, 10, 11]


def test_staged_part_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    tasks = [task("a", 0, 3)]
    job = run(layout, tasks)
    for path in (job.folder / "numbers").iterdir():
        path.unlink()
    assert len(plan_job(layout, "job", {"numbers": SCHEMA}, tasks).todo) == 1


def test_failing_work_leaves_no_part(tmp_path: Path) -> None:
    layout = Layout(tmp_path)

    def fail(payload: dict[str, Any], output: Output) -> None:
        Numbers()(payload, output)
        raise RuntimeError("a bug")

    job = plan_job(layout, "job", {"numbers": SCHEMA}, [task("a", 0, 3)])
    with pytest.raises(RuntimeError, match="a bug"):
        job.runner(fail)(job.todo[0])
    assert not list((job.folder / "numbers").iterdir())
    assert len(plan_job(layout, "job", {"numbers": SCHEMA}, [task("a", 0, 3)]).todo) == 1


def test_force_redoes_and_gives_the_same_bytes(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    tasks = [task("a", 0, 3), task("b", 10, 2)]
    first = commit_job(run(layout, tasks), Origin("s", "1"))["numbers"]
    forced = run(layout, tasks, force=True)
    assert len(forced.todo) == 2
    assert commit_job(forced, Origin("s", "1"))["numbers"].content_sha256 == first.content_sha256


def test_parts_without_rows_have_no_file_and_an_empty_table_has_one(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    commit_job(run(layout, [task("a", 0, 0), task("b", 1, 1)]), Origin("s", "1"))
    manifest = layout.manifest("numbers")
    assert manifest is not None
    assert [part.rows for part in manifest.parts()] == [0, 1]
    assert len(manifest.files()) == 1
    commit_job(run(layout, [task("a", 0, 0)]), Origin("s", "1"))
    assert numbers(layout) == []
    empty = layout.manifest("numbers")
    assert empty is not None
    assert [path.name for path in empty.files()] == ["part-empty.parquet"]


_MANY = """
import resource, sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Origin, Part
from shardwright.pipelines.jobs import Task, commit_job, plan_job
from shardwright.metadata.files import canonical_json, write_whole
from dataclasses import asdict
import os

schema = pa.schema([pa.field("number", pa.int64(), nullable=False)])
layout = Layout(Path(sys.argv[1]))
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tasks = (Task(f"{i:016x}", f"{i:064x}", {"units": ["x" * 100] * 10}, 10) for i in range(100_000))
job = plan_job(layout, "job", {"numbers": schema}, tasks)
# What 100,000 workers would leave: a sidecar each; the parts have no rows but one.
for task in job.tasks:
    part = asdict(Part(task.key, None, 0, 0, "", task.fingerprint))
    line = canonical_json({"parts": {"numbers": part}, "files": [], "result": {}})
    (job.folder / f"{task.name}.json").write_text(line)
committed = commit_job(job, Origin("s", "1"))["numbers"]
again = layout.manifest("numbers")
assert sum(1 for _ in again.parts()) == committed.count == 100_001
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
print(grown)
"""


@pytest.mark.slow
def test_a_table_of_100_000_parts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MANY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 250_000  # kilobytes
    folder = tmp_path / "tables" / "numbers"
    head = json.loads((folder / "_manifest.json").read_text())
    assert len(head["leaves"]) == -(-100_001 // LEAF_PARTS)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert sum(1 for _ in manifest.parts()) == 100_001


def test_a_damaged_leaf_is_named(tmp_path: Path) -> None:
    from shardwright.errors import DataError
    from shardwright.metadata.manifest import Part, write_manifest

    def parts() -> Iterator[Part]:
        for i in range(LEAF_PARTS + 5):
            yield Part(f"{i:016x}", None, 0, 0, "", "")

    written = write_manifest(tmp_path, "t", SCHEMA, Origin("s", "1"), parts())
    assert [part.key for part in written.parts()] == [part.key for part in parts()]
    leaf = tmp_path / written.leaf_names()[1]
    leaf.write_bytes(leaf.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(DataError, match=leaf.name):
        list(written.parts())
