"""kill -9 in the middle of each stage and again at its end, then the same command again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import common
import made_devices
import pytest

from shardwright.pipelines.curate import STAGES

NAMES = list(STAGES)
OFTEN = ("shard",)
"""Stages of ``make test``; ``make test-slow`` has the others."""
OF_IMAGES = ("heterogeneity",)
"""Stages that have nothing to do on code."""
FILES = 45

Order = Callable[..., tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Collection:
    """What is curated, and how, so that every stage has something to do."""

    modality: str
    source: Path
    settings: tuple[str, ...]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """With a benchmark of which one item stands in the data."""
    source = common.copy_sources(tmp_path_factory.mktemp("code"), FILES)
    items = source.parent / "items"
    items.mkdir()
    largest = max(source.rglob("*.py"), key=lambda path: (path.stat().st_size, path.name))
    (items / "item.py").write_bytes(largest.read_bytes()[:3000])
    settings = (
        f"decontaminate={{benchmarks: [{{name: own, uri: {items}}}]}}",
        "duplicates.semantic={target: 0.9}",
        "limits.part_bytes=80KB",
        "prune.scores=null",
        "study.documents=40",
        "study.copies=1",
        "evaluate={files: 40, seeds: 1, folds: 2}",
    )
    return Collection("code", source, settings)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Three devices."""
    source = tmp_path_factory.mktemp("devices")
    made_devices.write_devices(source, 12)
    settings = (
        "heterogeneity={least: 20, permutations: 19, images: 8}",
        "prune=null",
        "clusters.k=4",
        "limits.part_bytes=40KB",
    )
    return Collection("image", source, settings)


@pytest.fixture(scope="module")
def order() -> Iterator[Order]:
    """Curates in a process of its own that may kill itself: (exit code, report), see dying.py."""
    command = [sys.executable, str(Path(__file__).parent / "dying.py")]
    environment = os.environ | {"PYTHONPATH": str(common.ROOT), "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ordered(
            collection: Collection, output: Path, **options: Any
        ) -> tuple[int, dict[str, Any]]:
            report = output.with_suffix(".report")
            report.unlink(missing_ok=True)
            sent = asdict(collection) | {"output": output, "report": report} | options
            print(json.dumps(sent, default=str), file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            return status, json.loads(report.read_text()) if report.exists() else {}

        yield ordered
        server.stdin.close()


Whole = Callable[[Collection], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def whole(order: Order, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Runs that nothing stops: (folder with the output and what each stage found, files made)."""

    @cache
    def run_whole(collection: Collection) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("whole")
        status, made = order(collection, folder / "out", snapshots=folder)
        assert status == 0
        return folder, made

    return run_whole


@pytest.mark.parametrize(
    "stage",
    [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_killed_and_run_again(
    stage: str, request: pytest.FixtureRequest, order: Order, whole: Whole, tmp_path: Path
) -> None:
    name = "images" if stage in OF_IMAGES else "code"
    collection: Collection = request.getfixturevalue(name)
    folder, made = whole(collection)
    output = tmp_path / "out"
    shutil.copytree(folder / stage, output)  # a run from the start has come this far

    def killed(point: int, before: bool) -> dict[str, Any]:
        """Kills a run as the stage makes a file, the n-th of a run that nothing stops."""
        name = made[stage][point - 1]
        time = made[stage][:point].count(name)
        status, report = order(collection, output, kill=(stage, name, time, before))
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

    common.run(collection.modality, collection.source, output, *collection.settings)
    assert common.contents(output) == common.contents(folder / "out")
    assert common.croissant_without_times(output) == common.croissant_without_times(folder / "out")
    metrics = common.stage_metrics(output)
    for earlier in NAMES[: NAMES.index(stage)]:
        assert metrics[earlier]["reused"] == metrics[earlier]["parts"]
