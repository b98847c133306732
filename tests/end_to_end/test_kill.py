"""kill -9 in the middle of each stage and again at its end, then the same command again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import pytest

from shardwright.pipelines.curate import STAGES

NAMES = list(STAGES)
OFTEN = ("ingest", "score", "shard")
"""Stages of ``make test``; ``make test-slow`` has the others."""
FILES = 45

Order = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("code"), FILES)


@pytest.fixture(scope="module")
def settings(code: Path) -> list[str]:
    """Every stage has something to do: a benchmark of which one item stands in the data, too."""
    items = code.parent / "items"
    items.mkdir()
    largest = max(code.rglob("*.py"), key=lambda path: (path.stat().st_size, path.name))
    (items / "item.py").write_bytes(largest.read_bytes()[:3000])
    return [
        f"decontaminate={{benchmarks: [{{name: own, uri: {items}}}]}}",
        "duplicates.semantic={target: 0.9}",
        "limits.part_bytes=80KB",
        "prune.scores=null",
        "study.documents=40",
        "study.copies=1",
        "evaluate={files: 40, seeds: 1, folds: 2}",
    ]


@pytest.fixture(scope="module")
def order(code: Path, settings: list[str]) -> Iterator[Order]:
    """Curates in a process of its own that may kill itself: (exit code, report), see dying.py."""
    command = [sys.executable, str(Path(__file__).parent / "dying.py")]
    environment = os.environ | {"PYTHONPATH": str(common.ROOT), "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ordered(output: Path, **options: Any) -> tuple[int, dict[str, Any]]:
            report = output.with_suffix(".report")
            report.unlink(missing_ok=True)
            sent = {"source": str(code), "output": str(output), "settings": settings}
            print(
                json.dumps(sent | {"report": str(report)} | options), file=server.stdin, flush=True
            )
            status = int(server.stdout.readline())
            return status, json.loads(report.read_text()) if report.exists() else {}

        yield ordered
        server.stdin.close()


@pytest.fixture(scope="module")
def whole(order: Order, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that nothing stops: (folder with its output and what each stage found, files made)."""
    folder = tmp_path_factory.mktemp("whole")
    status, made = order(folder / "out", snapshots=str(folder))
    assert status == 0
    return folder, made


@pytest.mark.parametrize(
    "stage",
    [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_killed_and_run_again(
    stage: str,
    code: Path,
    settings: list[str],
    order: Order,
    whole: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    folder, made = whole
    output = tmp_path / "out"
    shutil.copytree(folder / stage, output)  # a run from the start has come this far

    def killed(point: int, before: bool) -> dict[str, Any]:
        """Kills a run as the stage makes a file, the n-th of a run that nothing stops."""
        name = made[stage][point - 1]
        time = made[stage][:point].count(name)
        status, report = order(output, kill=(stage, name, time, before))
        assert status == -signal.SIGKILL
        return report

    last = len(made[stage])
    middle = max(1, last // 2)
    killed(middle, before=middle % 2 == 0 or middle == last)
    assert not (output / "croissant.json").exists()
    staged = list((output / ".staging").glob("*/part-*.json"))
    report = killed(last, before=last % 2 == 0)
    if stage in ("ingest", "filter", "embed", "cluster"):
        assert 0 < report["reused"] < report["parts"] or not staged
    assert not (output / "croissant.json").exists() or stage == "describe"

    common.run("code", code, output, *settings)
    assert common.contents(output) == common.contents(folder / "out")
    assert common.croissant_without_times(output) == common.croissant_without_times(folder / "out")
    metrics = common.stage_metrics(output)
    for earlier in NAMES[: NAMES.index(stage)]:
        assert metrics[earlier]["reused"] == metrics[earlier]["parts"]
