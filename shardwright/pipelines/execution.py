"""Running a function over named elements on whatever runner the options name."""

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import create_runner
from threadpoolctl import threadpool_limits

from shardwright.errors import DataError, UserError
from shardwright.metadata.memory import memory_limit
from shardwright.pipelines.local_workers import told_once
from shardwright.pipelines.memory import workers_below
from shardwright.pipelines.portable import check_portable, portable_runner, raise_meaning, reach

# Work in bytes from which worker processes, that take seconds to start in every job, pay for
# themselves; with less the workers are threads of the driver.
_WORTH_PROCESSES = 4_000_000_000


def check_beam_arguments(arguments: Sequence[str]) -> None:
    """Checks the options behind ``--``.

    Raises:
        UserError: Beam has no such option (it would only warn and ignore it), or options that a
            runner needs are missing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(cast(Any, _Once(parser)))
    try:
        known, unknown = parser.parse_known_args(list(arguments))
    except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
        raise UserError(f"Beam option: {error}") from None
    if unknown:
        raise UserError(f"{unknown[0]!r}: no option of Beam; see its PipelineOptions for names")
    try:
        create_runner(known.runner or "FnApiRunner")
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"--runner={known.runner}: {error}") from None
    check_portable(known)


class _Once:
    """Adds each option to a parser once; Beam's option classes share some."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def add_argument(self, *names: str, **settings: object) -> None:
        new = [name for name in names if name not in self._parser._option_string_actions]
        if new:
            self._parser.add_argument(*new, **cast(Any, settings))

    def add_mutually_exclusive_group(self, **_: object) -> "_Once":
        return self

    def add_argument_group(self, *_: object, **__: object) -> "_Once":
        return self


def pipeline_options(arguments: Sequence[str], elements: int, size: int) -> PipelineOptions:
    """Beam options for a job of ``elements`` parts and ``size`` bytes.

    Without a runner in ``arguments`` it is the local FnApiRunner with a worker a core, fewer where
    a memory limit asks for it: threads of the driver for small jobs, processes for large ones.
    ``DirectRunner`` is only what the user asks for: it tries to download a binary first. The result
    of a job does not depend on any of it.
    """
    given = list(arguments)
    if not any(a.startswith("--default_sdk_harness_log_level") for a in given):
        given.append("--default_sdk_harness_log_level=ERROR")
    if not any(a == "--runner" or a.startswith("--runner=") for a in given):
        given.append("--runner=FnApiRunner")
        local = any(a.startswith(("--direct_running_mode", "--direct_num_workers")) for a in given)
        workers = min(os.cpu_count() or 1, elements)
        processes = size >= _WORTH_PROCESSES
        limit = memory_limit()
        if limit is not None:
            workers = workers_below(limit, workers, processes=processes)
        if not local and workers > 1:
            mode = "multi_processing" if processes else "multi_threading"
            given += [f"--direct_running_mode={mode}", f"--direct_num_workers={workers}"]
    return PipelineOptions(given)


@dataclass
class ForEach(beam.PTransform[Any, Any]):
    """Runs ``function`` on each element, spread over the workers; the elements only name work."""

    function: Callable[[tuple[int, int]], None]

    def expand(self, elements: Any) -> Any:
        """Wires it."""
        return (
            elements
            | "Spread" >> beam.Reshuffle()  # (offset, length)
            | "Run" >> beam.Map(_Told(self.function))  # None
        )


@dataclass(frozen=True)
class _Told:
    """Runs a function whose errors that are told in one line Beam does not log with a traceback."""

    function: Callable[[tuple[int, int]], None]

    def __call__(self, element: tuple[int, int]) -> None:
        logging.getLogger("apache_beam.runners.common").addFilter(_is_of_a_bug)
        self.function(element)


def _is_of_a_bug(record: logging.LogRecord) -> bool:
    """False for errors of the user, the data or the disk, which the driver tells of."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, UserError | DataError | OSError)


def run_each(
    name: str,
    elements: Sequence[tuple[int, int]],
    function: Callable[[tuple[int, int]], None],
    options: PipelineOptions,
) -> None:
    """Runs ``function`` over the elements as one Beam job and waits for it.

    Raises:
        UserError: The runner's servers cannot be reached, or a worker does not see the output.
        DataError: A cluster gave up, or a worker process died.
    """
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    # Workers share the cores already: BLAS takes one thread in each of them, here and in processes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with threadpool_limits(1, user_api="blas"):
        runner = portable_runner(options)
        if runner is None:
            with told_once():
                _run_pipeline(name, elements, function, options)
            return
        reach(runner, options)
        logging.getLogger().addFilter(_is_not_told_twice)
        try:
            _run_pipeline(name, elements, function, options)
        except (RuntimeError, grpc.RpcError, grpc.FutureTimeoutError) as error:
            raise_meaning(name, error)
            raise
        finally:
            logging.getLogger().removeFilter(_is_not_told_twice)


def _run_pipeline(
    name: str,
    elements: Sequence[tuple[int, int]],
    function: Callable[[tuple[int, int]], None],
    options: PipelineOptions,
) -> None:
    result = build_pipeline(name, elements, function, options).run()
    try:
        result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()  # a cluster would go on
        raise


def build_pipeline(
    name: str,
    elements: Sequence[tuple[int, int]],
    function: Callable[[tuple[int, int]], None],
    options: PipelineOptions,
) -> beam.Pipeline:
    """The one pipeline that every job is."""
    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | "Parts" >> beam.Create(elements, reshuffle=False).with_output_types(tuple[int, int])
        | name >> ForEach(function)
    )
    return pipeline


def _is_not_told_twice(record: logging.LogRecord) -> bool:
    """False for errors of a job server: the exception says them."""
    return record.module != "portable_runner"
