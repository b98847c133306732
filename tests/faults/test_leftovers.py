"""What a run finds that was cut off, damaged or on a bad disk: in parts, not in whole curations."""

import os
import resource
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shardwright.errors import DataError
from shardwright.metadata import manifest
from shardwright.metadata.filelist import ListedFile, write_file_list
from shardwright.metadata.files import write_whole
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Origin, read_manifest
from shardwright.metadata.mend import drop_damaged, sweep
from shardwright.pipelines.disk import told_plainly
from shardwright.pipelines.execution import pipeline_options, run_each
from shardwright.pipelines.jobs import Job, Output, Task, commit_job, plan_job

SCHEMA = pa.schema([pa.field("number", pa.int64(), nullable=False)])
TASKS = [Task("a", "1" * 64, {"first": 1}), Task("b", "2" * 64, {"first": 2})]


def work(payload: dict[str, Any], output: Output) -> None:
    output.write("lookup", pa.RecordBatch.from_pydict({"number": [payload["first"]]}, SCHEMA))
    output.file(".beside").write_bytes(b"what a task leaves beside its part")


def staged(layout: Layout) -> Job:
    job = plan_job(layout, "job", {"lookup": SCHEMA}, TASKS)
    for element in job.todo:
        job.runner(work)(element)
    return job


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["lookup/part-a*.parquet", "part-a*.json", "part-a*.beside"])
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: os.truncate(path, 0)])
def test_a_staged_file_that_changed_is_made_again(tmp_path: Path, what: str, damage: Any) -> None:
    job = staged(Layout(tmp_path))
    assert plan_job(Layout(tmp_path), "job", {"lookup": SCHEMA}, TASKS).todo == ()
    (path,) = job.folder.glob(what)
    damage(path)
    again = plan_job(Layout(tmp_path), "job", {"lookup": SCHEMA}, TASKS)
    assert [task.key for task in again.pending()] == ["a"]


def test_files_are_on_the_disk_before_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def seen(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    staged(Layout(tmp_path))
    kinds = [name.rpartition("-")[2].split(".", 1)[1].split(".")[0] for name in synced]
    assert kinds == ["parquet", "beside", "json"] * 2


@pytest.fixture
def committed(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    job = staged(layout)
    commit_job(job, Origin("ingest", "1"))
    shutil.rmtree(job.folder)
    layout.indexes.mkdir()
    (layout.indexes / "flat.faiss").write_bytes(b"index")
    write_file_list(
        layout.indexes, "f", Origin("index", "1"), [ListedFile("flat.faiss", 5, "", 0, "faiss")]
    )
    layout.croissant.write_text("{}")
    return layout


def test_what_is_as_it_says_stays(committed: Layout) -> None:
    assert list(drop_damaged(committed)) == []
    assert committed.croissant.exists()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("tables/lookup/_manifest.json", "tables/lookup: "),
        ("indexes/_manifest.json", "indexes: "),
        ("tables/lookup/part-b*", "another size"),
        ("indexes/flat.faiss", "another size"),
    ],
)
def test_what_is_not_is_dropped(committed: Layout, what: str, says: str) -> None:
    (path,) = committed.root.glob(what)
    if path.suffix == ".json":
        flip(path)
    else:
        os.truncate(path, 2)
    (line,) = drop_damaged(committed)
    assert says in line
    assert not committed.croissant.exists()
    assert not (path.parent / "_manifest.json").exists()
    assert list(drop_damaged(committed)) == []


def test_a_table_without_rows_has_its_file_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Path]] = []

    def looked_at(path: Path, data: bytes | str) -> None:
        write_whole(path, data)
        seen.append(read_manifest(path.parent).files())  # type: ignore[union-attr]

    monkeypatch.setattr(manifest, "write_whole", looked_at)
    layout = Layout(tmp_path)
    job = plan_job(layout, "job", {"lookup": SCHEMA}, TASKS)
    for element in job.todo:
        job.runner(lambda *_: None)(element)
    commit_job(job, Origin("ingest", "1"))
    assert seen
    for files in seen:
        assert [path.name for path in files] == ["part-empty.parquet"]


def test_what_no_manifest_names_is_swept(committed: Layout) -> None:
    (committed.indexes / "train").mkdir()
    left = [
        committed.table("lookup") / "part-c-0123456789abcdef.parquet",
        committed.table("lookup") / "._manifest.json.1.2.tmp",
        committed.indexes / "train" / "shard",
        committed.root / ".croissant.json.1.2.tmp",
        committed.root / "report" / ".index.html.1.2.tmp",
    ]
    (committed.root / "report").mkdir()
    before = {path for path in committed.root.rglob("*") if path.is_file()}
    for path in left:
        path.touch()
    sweep(committed)
    assert {path for path in committed.root.rglob("*") if path.is_file()} == before


def test_nothing_stays_of_a_file_that_the_disk_has_no_room_for(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_whole(tmp_path / "file", b"x" * 1300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="No space left on device; make room"),
        told_plainly(tmp_path),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")


def test_a_folder_that_cannot_be_removed_is_one_line(tmp_path: Path) -> None:
    error = OSError(5, "Input/output error", "records")  # as shutil.rmtree raises it
    with pytest.raises(DataError, match=f"{tmp_path}: Input/output error"), told_plainly(tmp_path):
        raise error


def test_what_a_worker_met_is_one_line_too(tmp_path: Path) -> None:
    file = tmp_path / "part"
    text = f"Traceback\n  File\nOSError: [Errno 5] Input/output error: '{file}'\n\nin Run"
    with pytest.raises(DataError, match=f"{file}: Input/output error; see"), told_plainly(tmp_path):
        raise RuntimeError(text)


def refuse(_: tuple[int, int]) -> None:
    raise OSError(28, "No space left on device")


def break_down(_: tuple[int, int]) -> None:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize(("work", "logged"), [(refuse, 0), (break_down, 1)])
def test_beam_logs_the_traceback_of_a_bug_alone(
    work: Any, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    options = pipeline_options(["--runner=FnApiRunner", "--direct_num_workers=1"], 1, 0)
    with pytest.raises(Exception, match=r"No space|a bug"):
        run_each("fail", [(0, 0)], work, options)
    assert sum(record.exc_info is not None for record in caplog.records) == logged


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/elsewhere/file"),
        FileNotFoundError(2, "No such file or directory"),
        RuntimeError("a bug"),
    ],
)
def test_other_errors_stay(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, told_plainly(tmp_path):
        raise error
    assert raised.value is error


@pytest.mark.slow
def test_a_worker_process_that_dies_ends_the_run() -> None:
    beam = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    options = pipeline_options(["--runner=FnApiRunner", *beam], 2, 0)
    with pytest.raises(DataError, match="a worker process ended"):
        # A function that workers can import, and that ends the process for each element.
        run_each("die", [(9, 9), (9, 9)], partial(sorted, key=os._exit), options)
