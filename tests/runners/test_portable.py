"""Beam's portable runner without a jar: a job service and a worker pool as processes of their own.

Jobs go there by the same protocols as to Flink.
"""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import common
import compose
import pytest
from cluster import Processes, free_port, start_portable

from shardwright.errors import DataError, UserError
from shardwright.pipelines.execution import check_beam_arguments, pipeline_options, run_each

Portable = tuple[str, ...]


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portable]:
    processes = Processes(tmp_path_factory.mktemp("portable"))
    try:
        yield start_portable(processes)
    finally:
        processes.stop()


def test_curation_is_that_of_one_process(portable: Portable, tmp_path: Path) -> None:
    source = common.copy_sources(tmp_path / "code", 60)
    summary = common.run("code", source, tmp_path / "one")
    common.assert_accounted(tmp_path / "one", summary)
    common.run("code", source, tmp_path / "portable", beam=portable)
    assert common.contents(tmp_path / "portable") == common.contents(tmp_path / "one")
    assert len(list((tmp_path / "one" / "tables" / "records").glob("part-*"))) > 1


def test_health_check_of_the_pool(portable: Portable) -> None:
    port = int(portable[-1].rpartition(":")[2])
    workers = compose.services()["workers-1"]
    subprocess.run(compose.health(workers, {15000: port}), check=True)
    gone = subprocess.run(compose.health(workers, {15000: free_port()}), capture_output=True)
    assert gone.returncode != 0


def failing(element: tuple[int, int]) -> None:
    if element == (7, 1):
        raise KeyError("planted in a worker")


def unseen(element: tuple[int, int]) -> None:
    Path("/nowhere/staging/embed/plan.jsonl").read_bytes()


def test_what_workers_raise(portable: Portable) -> None:
    elements = [(n, 1) for n in range(10)]
    options = pipeline_options(portable, len(elements), 0)
    with pytest.raises(RuntimeError, match="planted in a worker"):
        run_each("embed", elements, failing, options)
    with pytest.raises(UserError, match="embed: /nowhere/staging/embed: a worker does not see"):
        run_each("embed", elements, unseen, pipeline_options(portable, 10, 0))


def test_module_that_workers_lack(portable: Portable, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def work(element): ...\n")
    sys.path.insert(0, str(tmp_path))
    try:
        work = importlib.import_module("only_here").work
        with pytest.raises(UserError, match="only_here: a worker has no such module"):
            run_each("embed", [(0, 1)], work, pipeline_options(portable, 1, 0))
    finally:
        sys.path.remove(str(tmp_path))


def test_pool_that_is_gone(portable: Portable) -> None:
    gone = (*portable[:3], f"--environment_config=localhost:{free_port()}")
    with pytest.raises((DataError, RuntimeError)):
        run_each("embed", [(0, 1)], print, pipeline_options(gone, 1, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runner=PortableRunner"], "name its job server with --job_endpoint"),
        (["--runner=PortableRunner", "--job_endpoint=h:1"], "--environment_type is missing"),
        (["--runner=FlinkRunner", "--flink_master=h:1"], "--environment_type is missing"),
        (["--runner=FlinkRunner", "--environment_type=POOL"], "choose one of PROCESS, EXTERNAL"),
        (["--runner=FlinkRunner", "--environment_type=PROCESS"], "for PROCESS name the program"),
        (
            [
                "--runner=FlinkRunner",
                "--environment_type=PROCESS",
                '--environment_config={"os":"x"}',
            ],
            "for PROCESS name the program",
        ),
        (["--runner=FlinkRunner", "--environment_type=EXTERNAL"], "the pool as HOST:PORT"),
        (["--runner=FlinkRunner", "--flink_version=1.2"], "flink_version"),
        (["--runner=FlinkRunner", "--max_bundle_siz=3"], "no option of Beam"),
    ],
)
def test_options_that_cannot_work(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_beam_arguments(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--runner=FlinkRunner", "--max_bundle_size=3", "--number_of_execution_retries=2"],
        ["--runner=FlinkRunner", "--environment_type=EXTERNAL", "--environment_config=h:1"],
        [
            *("--runner=PortableRunner", "--job_endpoint=h:1", "--environment_type=PROCESS"),
            "--environment_options=process_command=/opt/worker",
        ],
        ["--runner=SparkRunner"],
    ],
)
def test_options_that_work(arguments: list[str]) -> None:
    check_beam_arguments(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--runner=PortableRunner", "--job_endpoint=localhost:{port}"],
            "--job_endpoint=localhost",
        ),
        (["--runner=FlinkRunner", "--flink_master=localhost:{port}"], "--flink_master=localhost"),
        (["--runner=FlinkRunner", "--flink_job_server_jar=/no/x.jar"], "/no/x.jar: no such file"),
        (["--runner=FlinkRunner", "--job_server_java_launcher=/no/java"], "/no/java: not found"),
    ],
)
def test_servers_that_cannot_be_reached(arguments: list[str], message: str) -> None:
    port = free_port()
    given = [argument.format(port=port) for argument in arguments]
    with pytest.raises(UserError, match=message):
        run_each("embed", [(0, 1)], print, pipeline_options(given, 1, 0))
