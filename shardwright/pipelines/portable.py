"""Runners behind a job server (Flink, Spark): options, the server, what its errors mean."""

import argparse
import json
import os
import re
import shutil
import socket
import urllib.error
from typing import Any, cast
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkRunner
from apache_beam.runners.portability.job_server import StopOnExitJobServer
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.spark_runner import SparkRunner
from apache_beam.runners.runner import create_runner
from apache_beam.utils.subprocess_server import pick_port

from shardwright.errors import DataError, UserError

ENVIRONMENTS = ("PROCESS", "EXTERNAL", "DOCKER", "LOOPBACK")
_BEHIND_SERVERS = (PortableRunner, FlinkRunner, SparkRunner)  # others come with their own
_PATIENCE = 10  # seconds for a server to accept a connection


class FlinkJobServerOptions(PipelineOptions):
    """Options that Flink's job server knows and that Beam's Python does not list."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument("--number_of_execution_retries", type=int)
        parser.add_argument("--execution_retry_delay", type=int)
        parser.add_argument("--execution_mode_for_batch")
        parser.add_argument("--max_bundle_size", type=int)
        parser.add_argument("--max_bundle_time_millis", type=int)


def check_portable(known: argparse.Namespace) -> None:
    """Checks the options of a runner behind a job server; says nothing of other runners.

    Args:
        known: The parsed options.

    Raises:
        UserError: Without a change the job could not start, or would start Docker unasked.
    """
    runner = create_runner(known.runner or "FnApiRunner")
    kind = known.environment_type
    if kind is not None and kind not in ENVIRONMENTS and ":" not in kind:
        raise UserError(f"--environment_type={kind}: choose one of {', '.join(ENVIRONMENTS)}")
    if type(runner) is PortableRunner and not known.job_endpoint:
        raise UserError(
            "--runner=PortableRunner: name its job server with --job_endpoint=HOST:PORT"
        )
    on_cluster = isinstance(runner, FlinkRunner) and known.flink_master not in MAGIC_HOST_NAMES
    if kind is None and (type(runner) is PortableRunner or on_cluster):
        raise UserError(
            f"--runner={known.runner}: --environment_type is missing; say what starts the workers:"
            f" {', '.join(ENVIRONMENTS)} (docs/flink.md)"
        )
    given = [known.environment_config or "", *(known.environment_options or ())]
    if kind == "PROCESS" and not (_names_command(given[0]) or _has(given, "process_command=")):
        raise UserError(
            f"--environment_config={given[0]}: for PROCESS name the program that every machine of"
            """ the cluster has, as '{"command": "/path/to/shardwright-worker"}'"""
        )
    if kind == "EXTERNAL" and not (":" in given[0] or _has(given, "external_service_address=")):
        raise UserError(f"--environment_config={given[0]}: for EXTERNAL name the pool as HOST:PORT")


def _has(given: list[str], start: str) -> bool:
    return any(option.startswith(start) for option in given)


def _names_command(text: str) -> bool:
    try:
        config = json.loads(text)
    except ValueError:
        return False
    return isinstance(config, dict) and bool(config.get("command"))


def portable_runner(options: PipelineOptions) -> PortableRunner | None:
    """The runner of the options, if it is one behind a job server."""
    runner = create_runner(str(options.view_as(StandardOptions).runner))
    return cast(PortableRunner, runner) if type(runner) in _BEHIND_SERVERS else None


_servers: dict[str, str] = {}


def reach(runner: PortableRunner, options: PipelineOptions) -> None:
    """Finds the job server that the options name, or starts one that all jobs of a run share.

    Beam by itself would start one for each job and keep them all.

    Args:
        runner: Of the options.
        options: ``job_endpoint`` is filled in.

    Raises:
        UserError: Somebody does not answer, or what the server needs is not there.
    """
    portable = options.view_as(PortableOptions)
    # Nothing is staged, workers have their own installation: a list of ours would be of no use.
    options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    master = options.view_as(FlinkRunnerOptions).flink_master
    if isinstance(runner, FlinkRunner) and master not in MAGIC_HOST_NAMES:
        _check_answer("--flink_master", master, "start the cluster or correct the address")
    if portable.job_endpoint:
        if portable.job_endpoint != "embed":
            remedy = "start the job server or correct the address"
            _check_answer("--job_endpoint", portable.job_endpoint, remedy)
        return
    asked = repr(sorted(options.get_all_options(drop_default=True).items(), key=str))
    if asked not in _servers:
        settings = options.view_as(JobServerOptions)
        settings.job_port = settings.job_port or pick_port(None)[0]
        server = runner.default_job_server(options)
        if not isinstance(server, StopOnExitJobServer):
            return  # it has no process of its own
        _check_tools(options)
        try:
            server.start()
        except (OSError, RuntimeError, ValueError, urllib.error.URLError) as error:
            raise UserError(
                f"--runner={type(runner).__name__}: Beam's job server did not start: {error};"
                " name its jar, or a running server with --job_endpoint (docs/flink.md)"
            ) from None
        _servers[asked] = f"localhost:{settings.job_port}"
    portable.job_endpoint = _servers[asked]


def _check_tools(options: PipelineOptions) -> None:
    launcher = options.view_as(JobServerOptions).job_server_java_launcher
    if shutil.which(launcher) is None:
        raise UserError(
            f"{launcher}: not found; Beam's job server runs on Java 11 or newer: install it,"
            " or name a running server with --job_endpoint"
        )
    jar = options.view_as(FlinkRunnerOptions).flink_job_server_jar
    if jar and "://" not in jar and not os.path.exists(jar):
        raise UserError(
            f"--flink_job_server_jar={jar}: no such file; docs/flink.md tells its source"
        )


def _check_answer(option: str, address: str, remedy: str) -> None:
    url = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = url.port or 8081  # what Flink itself takes where none is named
        socket.create_connection((url.hostname, port), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise UserError(f"{option}={address}: nobody answers there ({error}); {remedy}") from None


# What a mistake in how a cluster is set up looks like in a job's error, and what to say of it.
_MISTAKES = {
    r"FileNotFoundError: .*?'([^']*)/plan\.jsonl'": (
        "{}: a worker does not see this folder; the output must lie where the driver and every"
        " machine with workers find it under the same path"
    ),
    r"ModuleNotFoundError: No module named '([^']*)'": (
        "{}: a worker has no such module; install there what is installed here"
    ),
    r"IOException: (error=2)\b": (
        "--environment_config: a task manager does not have the program ({}); install Shardwright"
        " on its machine and name the path of shardwright-worker there"
    ),
    r"(Process died with exit code \d+)": (
        "--environment_config: the program that a task manager started ended at once ({}); try"
        " `shardwright-worker --help` on its machine"
    ),
}


def raise_meaning(job: str, error: Exception) -> None:
    """Raises what a job server's error means to the user; returns where it is a bug of ours.

    Args:
        job: The job's name.
        error: With the text of Java's and of Python's exceptions.

    Raises:
        UserError: A worker lacks something: the output folder, a package, its program.
        DataError: The cluster, not the work, failed.
    """
    text = str(error)
    for pattern, message in _MISTAKES.items():
        if found := re.search(pattern, text, re.DOTALL):
            raise UserError(f"{job}: {message.format(found[1])}") from None
    if "Traceback (most recent call last)" in text:
        return
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    said = re.sub(r"^Pipeline \S+ failed in state \w+: ", "", lines[0])
    raise DataError(
        f"{job}: the runner gave up: {said[:300]}; look at its log, then run the same command"
        " again: it goes on where this one stopped"
    ) from error
