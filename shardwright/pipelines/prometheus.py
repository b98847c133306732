"""What each stage did, for Prometheus: a file for the node exporter, or a push gateway."""

import os
from collections.abc import Iterable
from pathlib import Path

from shardwright.errors import DataError, UserError
from shardwright.pipelines.progress import StageMetrics

_GAUGES = {
    "records": "Records that the stage read.",
    "bytes": "Bytes that the stage's jobs read.",
    "shuffled": "Bytes that workers wrote for other workers.",
    "written": "Bytes of the output's files that the stage made.",
    "peak_bytes": "The most memory held while the stage ran.",
    "parts": "Parts of the stage's jobs.",
    "reused": "Parts that were not made again.",
    "seconds": "Seconds by the wall clock.",
    "rejects": "Inputs that the stage refused.",
    "cached": "Records whose result was found and not computed again.",
}


def check_prometheus(target: str) -> None:
    """Checks what ``--prometheus`` names.

    Raises:
        UserError: The client is not installed, or the file's folder is not there.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise UserError(
            f"--prometheus {target}: its client is missing; pip install 'shardwright[prometheus]'"
        ) from None
    if "://" not in target and not Path(target).absolute().parent.is_dir():
        raise UserError(f"--prometheus {target}: no such folder; make it, or name another file")


def tell_prometheus(target: str, curation: str, stages: Iterable[StageMetrics]) -> None:
    """Writes what the stages of this run did, in place of what an earlier run told.

    Args:
        target: A file, which appears whole, or the address of a push gateway.
        curation: The recipe's name, a label of every figure.
        stages: What each stage did.

    Raises:
        DataError: It could not be told.
    """
    from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

    registry = CollectorRegistry()
    labels = ("curation", "stage")
    gauges = {
        name: Gauge(f"shardwright_stage_{name}", meaning, labels, registry=registry)
        for name, meaning in _GAUGES.items()
    }
    joules = Gauge(
        "shardwright_stage_joules",
        "Energy by one of the machine's counters.",
        (*labels, "counter"),
        registry=registry,
    )
    for stage in stages:
        for name, gauge in gauges.items():
            gauge.labels(curation, stage.stage).set(getattr(stage, name))
        for counter, taken in stage.energy.joules.items():
            joules.labels(curation, stage.stage, counter).set(taken)
    try:
        if "://" in target:
            push_to_gateway(target, job="shardwright", registry=registry)
        else:
            write_to_textfile(os.fspath(target), registry)
    except OSError as error:
        raise DataError(f"--prometheus {target}: {error}") from None
