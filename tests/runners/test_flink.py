"""Curations on a real Flink cluster: one job manager, two task managers, workers of their own."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import common
import compose
import made_devices
import psutil
import pytest
from cluster import (
    FLINK_VERSION,
    JOB_SERVER,
    SLOTS,
    Flink,
    Processes,
    free_port,
    missing_tools,
    start_pool,
)

from shardwright.errors import DataError
from shardwright.metadata.layout import Layout
from shardwright.pipelines.curate import curate
from shardwright.pipelines.execution import pipeline_options, run_each

pytestmark = [pytest.mark.flink, pytest.mark.timeout(3600)]

FILES = 300
FEW = 45
SMALL_PARTS = ("limits.part_bytes=80KB",)
JOBS = ("ingest", "filter", "sign", "embed", "decontaminate", "cluster", "study-corrupt", "group")
BRAKED = Path(__file__).parent / "braked_worker.py"


@dataclass(frozen=True)
class Collection:
    """What is curated, and how."""

    modality: str
    source: Path
    settings: tuple[str, ...]

    def curate(self, output: Path, beam: tuple[str, ...] = ()) -> Path:
        common.run(self.modality, self.source, output, *self.settings, beam=beam)
        return output


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flink]:
    assert not missing_tools(), f"make test-flink fetches {missing_tools()}"
    processes = Processes(tmp_path_factory.mktemp("flink") / "cluster")
    try:
        yield Flink.start(processes)
    finally:
        processes.stop()


def every_stage(source: Path, count: int) -> Collection:
    """Code with something to do for every stage of code that is a Beam job."""
    common.copy_sources(source, count)
    items = source.parent / "items"
    items.mkdir()
    largest = max(source.rglob("*.py"), key=lambda path: (path.stat().st_size, path.name))
    (items / "item.py").write_bytes(largest.read_bytes()[:3000])
    settings = (
        f"decontaminate={{benchmarks: [{{name: own, uri: {items}}}]}}",
        "duplicates.semantic={target: 0.9}",
        *SMALL_PARTS,
        "prune.scores=null",
        "study.documents=40",
        "study.copies=1",
        "evaluate={files: 40, seeds: 1, folds: 2}",
    )
    return Collection("code", source, settings)


def images(source: Path) -> Collection:
    """Three devices, for the stage that compares them."""
    source.mkdir()
    made_devices.write_devices(source, 12)
    settings = (
        "heterogeneity={least: 20, permutations: 19, images: 8}",
        "prune=null",
        "clusters.k=4",
        "limits.part_bytes=40KB",
    )
    return Collection("image", source, settings)


@dataclass(frozen=True)
class Reference:
    """A collection and what one process makes of it."""

    collection: Collection
    output: Path

    def assert_same(self, output: Path) -> None:
        """Every file of tables, shards and indexes, and what the manifests say of them."""
        assert common.contents(output) == common.contents(self.output)
        assert content_hashes(output) == content_hashes(self.output)


def content_hashes(output: Path) -> dict[str, str]:
    return {m.table: m.content_sha256 for m in Layout(output).manifests()}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("few")
    collection = every_stage(folder / "code", FEW)
    return Reference(collection, collection.curate(folder / "out"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("many")
    source = common.copy_sources(folder / "code", FILES)
    collection = Collection("code", source, ())
    return Reference(collection, collection.curate(folder / "out"))


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("devices")
    collection = images(folder / "images")
    return Reference(collection, collection.curate(folder / "out"))


@contextmanager
def killing(marks: Path, kill: Callable[[int], None]) -> Iterator[list[str]]:
    """Kills what a braked worker asks to be killed; yields the names of the jobs it happened in."""
    killed: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for mark in sorted(marks.iterdir()):
                if not mark.name.startswith(".") and mark.name not in killed:
                    killed.append(mark.name)
                    kill(int(mark.read_text()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        over.set()
        watcher.join()


def kill_task_manager(flink: Flink) -> Callable[[int], None]:
    """Kills the task manager of a worker and starts another one, as a cluster's operator does."""

    def kill(worker: int) -> None:
        manager = psutil.Process(worker).parent()
        assert manager is not None
        assert manager.pid in [one.pid for one in flink.task_managers]
        manager.send_signal(signal.SIGKILL)
        flink.add_task_manager()

    return kill


def kill_worker(worker: int) -> None:
    os.kill(worker, signal.SIGKILL)


@dataclass(frozen=True)
class Braked:
    """Workers that wait to be killed, and where they leave their marks."""

    flink: Flink
    program: Path
    marks: Path

    def arguments(self, **environment: str) -> tuple[str, ...]:
        self.flink.wait_for_slots(2 * SLOTS)
        return self.flink.arguments(2, self.program, MARKS=str(self.marks), **environment)


@pytest.fixture
def braked(flink: Flink, tmp_path: Path) -> Braked:
    program = tmp_path / "worker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {BRAKED} "$@"\n')
    program.chmod(0o755)
    marks = tmp_path / "marks"
    marks.mkdir()
    return Braked(flink, program, marks)


def test_short_health_checks(flink: Flink) -> None:
    """Those of docker-compose.yml."""
    services = compose.services()
    listening = {
        "job-manager": (8081, flink.rest),
        "task-manager-1": (6122, flink.task_manager_ports[-1]),
        "job-server": (8099, flink.jobs),
    }
    for name, (port, other) in listening.items():
        subprocess.run(compose.health(services[name], {port: other}), check=True)
        gone = compose.health(services[name], {port: free_port()})
        assert subprocess.run(gone, capture_output=True).returncode != 0
    # what listens there is not always what is asked for
    other = {8081: flink.task_manager_ports[-1]}
    assert subprocess.run(compose.health(services["job-manager"], other)).returncode != 0


def test_short_one_task_manager_killed(flink: Flink, braked: Braked, tmp_path: Path) -> None:
    """What continuous integration runs."""
    source = common.copy_sources(tmp_path / "code", 60)
    collection = Collection("code", source, ("duplicates.near=null",))
    reference = Reference(collection, collection.curate(tmp_path / "one"))
    with killing(braked.marks, kill_task_manager(flink)) as killed:
        collection.curate(tmp_path / "flink", braked.arguments(ONLY="embed"))
    assert killed == ["embed"]
    reference.assert_same(tmp_path / "flink")


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_same_at_any_parallelism(
    parallelism: int, flink: Flink, many: Reference, tmp_path: Path
) -> None:
    flink.wait_for_slots(2 * SLOTS)
    many.assert_same(many.collection.curate(tmp_path / "out", flink.arguments(parallelism)))


def test_same_in_two_processes(many: Reference, tmp_path: Path) -> None:
    two = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    many.assert_same(many.collection.curate(tmp_path / "out", ("--runner=FnApiRunner", *two)))


def test_images_and_devices(flink: Flink, devices: Reference, tmp_path: Path) -> None:
    flink.wait_for_slots(2 * SLOTS)
    devices.assert_same(devices.collection.curate(tmp_path / "out", flink.arguments(2)))


def test_worker_pool(flink: Flink, few: Reference, tmp_path: Path) -> None:
    flink.wait_for_slots(2 * SLOTS)
    pool = start_pool(flink.processes)
    beam = (*(a for a in flink.arguments(2) if "--environment" not in a), *pool)
    few.assert_same(few.collection.curate(tmp_path / "out", beam))


@pytest.mark.parametrize("what", ["task-manager", "worker"])
def test_killed_in_every_job(
    what: str,
    flink: Flink,
    braked: Braked,
    few: Reference,
    tmp_path: Path,
) -> None:
    kill = kill_task_manager(flink) if what == "task-manager" else kill_worker
    with killing(braked.marks, kill) as killed:
        few.collection.curate(tmp_path / "out", braked.arguments())
    few.assert_same(tmp_path / "out")
    print(what, "killed in", *killed)
    assert set(JOBS) <= set(killed)


def test_killed_without_restart(
    braked: Braked, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A cluster that does not try again fails with one line; the next run goes on."""
    recipe = common.recipe("code", common.copy_sources(tmp_path / "code", FEW), *SMALL_PARTS)
    ingest = partial(curate, recipe, stages=["ingest"])
    ingest(tmp_path / "one", beam_arguments=["--runner=FnApiRunner"])
    processes = Processes(tmp_path_factory.mktemp("unforgiving") / "cluster")
    try:
        flink = Flink.start(processes, attempts=0)
        beam = replace(braked, flink=flink).arguments()
        with (
            killing(braked.marks, kill_task_manager(flink)) as killed,
            pytest.raises(DataError, match="ingest: the runner gave up") as told,
        ):
            ingest(tmp_path / "out", beam_arguments=beam)
        assert killed == ["ingest"]
        assert "run the same command again" in str(told.value)
        assert "\n" not in str(told.value)
        assert not (tmp_path / "out" / "tables" / "records" / "_manifest.json").exists()
        flink.wait_for_slots(2 * SLOTS)
        ingest(tmp_path / "out", beam_arguments=flink.arguments(2))
    finally:
        processes.stop()
    assert common.contents(tmp_path / "out") == common.contents(tmp_path / "one")


def test_job_server_of_its_own(tmp_path: Path) -> None:
    """Without a running one a run starts one, for all of its jobs; here with a Flink inside."""
    beam = ("--runner=FlinkRunner", f"--flink_job_server_jar={JOB_SERVER}", "--parallelism=1")
    arguments = (*beam, f"--flink_version={FLINK_VERSION}")
    before = job_servers()
    for name in ("ingest", "embed"):
        run_each(name, [(0, 1), (1, 1)], print, pipeline_options(arguments, 2, 0))
    assert len(job_servers() - before) == 1


def job_servers() -> set[int]:
    """Those that this process has started and that still run."""
    living = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    return {one.pid for one in living if str(JOB_SERVER) in one.cmdline()}


def test_program_that_no_task_manager_has(flink: Flink, tmp_path: Path) -> None:
    flink.wait_for_slots(2 * SLOTS)
    source = common.copy_sources(tmp_path / "code", 5)
    places = ("--input", str(source), "--output", str(tmp_path / "out"))
    beam = flink.arguments(1, Path("/no/worker"))
    done = common.shardwright("curate", "recipes/code.yaml", *places, "--", *beam)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("shardwright: ")]
    assert len(told) == 1
    assert "a task manager does not have the program" in told[0]
    assert "Traceback" not in done.stderr
