"""Jobs: tasks that each make one part, reused where nothing changed, committed as tables.

A job is planned (which tasks are done already?), executed (the others, as one Beam job) and
committed (manifest last). A worker builds its part under ``DIR/.staging/<job>/`` and commits it
there with a sidecar, a small JSON file; whatever kills the run, the next one finds the sidecars and
redoes only what has none. Names hold the task's fingerprint, so that a worker that outlives its
driver cannot be mistaken for one of the new run.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from shardwright.errors import DataError, UserError
from shardwright.metadata.files import (
    canonical_json,
    has_size,
    make_durable,
    sha256_file,
    write_whole,
)
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import (
    Manifest,
    Origin,
    Part,
    sealed,
    unbroken,
    write_manifest,
)
from shardwright.metadata.tables import PartWriter, write_empty

FAULT = "fault.json"


@dataclass(frozen=True)
class Task:
    """One part to make.

    Attributes:
        key: Names the part in every table of the job.
        fingerprint: Hash of everything that decides the part's rows.
        payload: What the worker needs to know, as JSON values.
        size: Bytes that the worker will read, for the plan and the progress.
    """

    key: str
    fingerprint: str
    payload: dict[str, Any]
    size: int = 0

    @property
    def name(self) -> str:
        """Stem of the part's files: the same for the same work, different for other work."""
        return f"part-{self.key}-{self.fingerprint[:16]}"


class Output:
    """Where a task's work puts its rows and files."""

    def __init__(self, folder: Path, task: Task, schemas: Mapping[str, pa.Schema]) -> None:
        self._task = task
        self._folder = folder
        self._writers = {
            table: PartWriter(folder / table / f"{task.name}.parquet", schema)
            for table, schema in schemas.items()
        }
        self._files: list[str] = []
        self.result: dict[str, Any] = {}

    def write(self, table: str, batch: pa.RecordBatch) -> None:
        """Appends rows to the task's part of a table."""
        self._writers[table].write(batch)

    def file(self, suffix: str) -> Path:
        """Path for a file of the task's own in the staging folder."""
        path = self._folder / f"{self._task.name}{suffix}"
        self._files.append(path.name)
        return path

    def close(self, started: float) -> None:
        """Finishes the parts and commits them with the sidecar."""
        parts = {
            table: asdict(writer.close(self._task.key, self._task.fingerprint))
            for table, writer in self._writers.items()
        }
        sidecar = {
            "parts": parts,
            "files": {name: _held(self._folder / name) for name in self._files},
            "result": self.result,
            "started": started,
            "ended": time.time(),
        }
        write_whole(self._folder / f"{self._task.name}.json", sealed(sidecar))

    def discard(self) -> None:
        """Forgets the task's rows."""
        for writer in self._writers.values():
            writer.discard()


def _held(path: Path) -> tuple[int, str]:
    """Size and hash of a file that the work wrote, which is on the disk from here on."""
    make_durable(path)
    return path.stat().st_size, sha256_file(path)


class Work(Protocol):
    """What a worker does for a task. Pickled to workers: settings and paths, no data."""

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads what the payload names and writes the part."""
        ...


@dataclass(frozen=True)
class RunTask:
    """The element function of a job: reads a task from the plan file and runs the work on it."""

    plan: Path
    folder: Path
    schemas: Mapping[str, pa.Schema]
    work: Work

    def __call__(self, element: tuple[int, int]) -> None:
        """Makes the part of the task that stands at (offset, length) of the plan file."""
        offset, length = element
        with self.plan.open("rb") as file:
            file.seek(offset)
            task = Task(**json.loads(file.read(length)))
        started = time.time()
        output = Output(self.folder, task, self.schemas)
        try:
            self.work(task.payload, output)
            output.close(started)
        except BaseException as error:
            output.discard()
            if isinstance(error, UserError | DataError):  # Beam would wrap it in its tracebacks
                said = {"kind": type(error).__name__, "message": str(error)}
                write_whole(self.folder / FAULT, canonical_json(said))
            raise


@dataclass(frozen=True)
class Planned:
    """A task as the driver remembers it: no payload, so that 100,000 of them stay small."""

    key: str
    fingerprint: str
    committed: bool

    @property
    def name(self) -> str:
        """As ``Task.name``."""
        return f"part-{self.key}-{self.fingerprint[:16]}"


@dataclass(frozen=True)
class Job:
    """A planned job.

    Attributes:
        name: Its folder under staging.
        layout: The output folder.
        schemas: Schema of each table it writes.
        tasks: All tasks in the order of the parts.
        todo: (offset, length) in the plan file of each task that has no part yet.
        todo_bytes: Bytes that those will read.
        bytes: Bytes that all tasks read.
    """

    name: str
    layout: Layout
    schemas: Mapping[str, pa.Schema]
    tasks: tuple[Planned, ...]
    todo: tuple[tuple[int, int], ...]
    todo_bytes: int
    bytes: int
    _committed: Mapping[str, Manifest | None] = field(repr=False)

    @cached_property
    def folder(self) -> Path:
        """The job's staging folder."""
        return self.layout.staging(self.name)

    @property
    def plan(self) -> Path:
        """File of the tasks to do, one JSON object a line."""
        return self.folder / "plan.jsonl"

    def pending(self) -> Iterator[Task]:
        """The tasks to do, read back from the plan file."""
        with self.plan.open("rb") as file:
            for line in file:
                yield Task(**json.loads(line))

    def staged_bytes(self) -> int:
        """Bytes of the files that workers left beside the parts, for other workers to read."""
        return sum(
            entry.stat().st_size
            for entry in os.scandir(self.folder)
            if entry.is_file() and not entry.name.endswith((".json", ".jsonl"))
        )

    def raise_fault(self) -> None:
        """Raises the user's or the data's fault that a worker left, if one did."""
        path = self.folder / FAULT
        if path.exists():
            said = json.loads(path.read_bytes())
            raise {"UserError": UserError, "DataError": DataError}[said["kind"]](said["message"])

    def runner(self, work: Work) -> RunTask:
        """The function that a worker runs on each element of ``todo``."""
        return RunTask(self.plan, self.folder, self.schemas, work)

    def is_current(self, origin: Origin, *tables: str) -> bool:
        """Whether the committed tables (or all of the job's) are what it would commit."""
        keys = [task.key for task in self.tasks]
        for table in tables or self.schemas:
            old = self._committed[table]
            if old is None or not old.origin.same_work(origin):
                return False
            if [part.key for part in old.parts() if part.key != "empty"] != keys:
                return False
        return all(task.committed for task in self.tasks)

    def sidecar(self, task: Planned) -> dict[str, Any]:
        """What the worker wrote when it committed the task."""
        data: dict[str, Any] = json.loads((self.folder / f"{task.name}.json").read_bytes())
        return data

    def results(self) -> Iterator[tuple[Planned, dict[str, Any]]]:
        """Each staged task with the result that its work left."""
        for task in self.tasks:
            if not task.committed:
                yield task, self.sidecar(task)["result"]


def plan_job(
    layout: Layout,
    name: str,
    schemas: Mapping[str, pa.Schema],
    tasks: Iterable[Task],
    *,
    force: bool = False,
    staged_only: bool = False,
) -> Job:
    """Decides which tasks have their part already, committed or staged, and writes the plan file.

    Memory holds a key and a fingerprint for each task; payloads go to the plan file at once.

    Args:
        layout: The output folder.
        name: The job's name.
        schemas: Schema of each table it writes.
        tasks: The tasks in the order of their parts.
        force: Redo every task.
        staged_only: Take no committed part for done; for jobs whose tasks leave files of their own
            beside the parts.
    """
    folder = layout.staging(name)
    for table in schemas:
        (folder / table).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAULT).unlink(missing_ok=True)
    manifests = {table: layout.manifest(table) for table in schemas}
    committed = {} if force or staged_only else _committed_fingerprints(manifests, schemas)
    if force:
        for old in folder.glob("part-*.json"):
            old.unlink()
    planned: list[Planned] = []
    todo: list[tuple[int, int]] = []
    todo_bytes = all_bytes = offset = 0
    with (folder / "plan.jsonl").open("wb") as plan:
        for task in tasks:
            reuse = committed.get(task.key) == task.fingerprint
            planned.append(Planned(task.key, task.fingerprint, reuse))
            all_bytes += task.size
            if reuse or _staged(layout, folder, task.name):
                continue
            line = canonical_json(vars(task)).encode() + b"\n"
            plan.write(line)
            todo.append((offset, len(line)))
            todo_bytes += task.size
            offset += len(line)
    return Job(name, layout, schemas, tuple(planned), tuple(todo), todo_bytes, all_bytes, manifests)


def _staged(layout: Layout, folder: Path, name: str) -> bool:
    """Whether a sidecar says that the task is done, and all that it names is as it says.

    The bytes are read: what a run that was cut off left would go into tables unseen.
    """
    path = folder / f"{name}.json"
    try:
        text = path.read_bytes()
        if not unbroken(text):
            return False
    except (FileNotFoundError, ValueError):
        return False
    sidecar = json.loads(text)
    for table, values in sidecar["parts"].items():
        part = Part(**values)
        places = [(folder / table, part.file), (layout.table(table), part.named().file)]
        if part.file is not None and not any(
            _is(at / str(file), part.bytes, part.sha256) for at, file in places
        ):
            return False
    return all(_is(folder / file, *held) for file, held in sidecar["files"].items())


def _is(path: Path, size: int, sha256: str) -> bool:
    return has_size(path, size) and sha256_file(path) == sha256


def _committed_fingerprints(
    manifests: Mapping[str, Manifest | None], schemas: Mapping[str, pa.Schema]
) -> dict[str, str]:
    """Key -> fingerprint of the parts that every table of the job has committed."""
    common: dict[str, str] | None = None
    for table, schema in schemas.items():
        manifest = manifests[table]
        if manifest is None or not manifest.schema.equals(schema):
            return {}
        mine = {
            part.key: part.fingerprint
            for part in manifest.parts()
            if part.file is None or (manifest.folder / part.file).exists()
        }
        common = mine if common is None else dict(common.items() & mine.items())
    return common or {}


def commit_job(job: Job, origin: Origin) -> dict[str, Manifest]:
    """Commits the job's tables: parts into place, then each manifest, then what is no longer named.

    A table whose parts and origin are as committed keeps its manifest, times included.
    """
    return {
        table: _commit_table(job, table, schema, origin) for table, schema in job.schemas.items()
    }


def _commit_table(job: Job, table: str, schema: pa.Schema, origin: Origin) -> Manifest:
    old = job._committed[table]
    if old is not None and job.is_current(origin, table):
        return old
    folder = job.layout.table(table)
    folder.mkdir(parents=True, exist_ok=True)
    parts = _placed_parts(job, table, old)
    if not any(part.rows for part in _placed_parts(job, table, old)):
        parts = chain([write_empty(folder / "part-empty.parquet", schema, "empty", "")], parts)
    manifest = write_manifest(folder, table, schema, origin, parts)
    remove_unnamed(manifest)
    return manifest


def _placed_parts(job: Job, table: str, old: Manifest | None) -> Iterator[Part]:
    """The job's parts of a table in order, the staged ones moved into the table's folder."""
    before = {part.key: part for part in old.parts()} if old is not None else {}
    folder = job.layout.table(table)
    for task in job.tasks:
        if task.committed:
            yield before[task.key]
            continue
        part = Part(**job.sidecar(task)["parts"][table])
        yield place(part, job.folder / table, folder)


def place(part: Part, staging: Path, folder: Path) -> Part:
    """Moves a staged part into its table's folder, unless a run that was cut off did so before."""
    named = part.named()
    if part.file is not None and named.file is not None and (staging / part.file).exists():
        (staging / part.file).replace(folder / named.file)
    return named


def remove_unnamed(manifest: Manifest) -> None:
    """Deletes the files of a table's folder that its manifest does not name."""
    named = {"_manifest.json", *manifest.leaf_names()}
    named.update(part.file for part in manifest.parts() if part.file is not None)
    for path in manifest.folder.iterdir():
        if path.name not in named:
            path.unlink()
