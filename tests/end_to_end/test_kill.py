"""kill -9 in the middle of each stage, then the same command again."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import common
import pytest

# Runs a curation in a process that kills itself with SIGKILL at the n-th file that a stage makes
# appear (parts, sidecars, manifests, shards, metadata): before the file gets its name when n is
# even, right after when it is odd. If it is not killed it says how many files each stage made.
_CHILD = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import common
from pathlib import Path
from shardwright.metadata import files
from shardwright.pipelines import curate as curation

stage, point = sys.argv[4], int(sys.argv[5])
counts = dict.fromkeys(curation.STAGES, 0)
inside = None

def dying(close):
    def wrapped(self):
        if inside is not None and not self.closed:
            counts[inside] += 1
            here = inside == stage and counts[inside] == point
            if here and point % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            close(self)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            close(self)
    return wrapped

files.HashedFile.close = dying(files.HashedFile.close)

def marked(name, run_stage):
    def wrapped(run, progress):
        global inside
        inside = name
        run_stage(run, progress)
        inside = None
    return wrapped

for name, run_stage in curation.STAGES.items():
    curation.STAGES[name] = marked(name, run_stage)
common.run("code", Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[6:])
print("\\n" + json.dumps(counts))
"""

STAGES = [
    "ingest",
    "filter",
    "duplicates",
    "embed",
    "decontaminate",
    "semantic",
    "index",
    "cluster",
    "score",
    "prune",
    "shard",
    "describe",
]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("code"), 110)


def settings(code: Path) -> list[str]:
    """Every stage has something to do: a benchmark of which one item stands in the data, too."""
    items = code.parent / "items"
    items.mkdir(exist_ok=True)
    largest = max(code.rglob("*.py"), key=lambda path: (path.stat().st_size, path.name))
    (items / "item.py").write_bytes(largest.read_bytes()[:3000])
    return [
        f"decontaminate={{benchmarks: [{{name: own, uri: {items}}}]}}",
        "duplicates.semantic={target: 0.9}",
        "limits.part_bytes=250KB",
    ]


@pytest.fixture(scope="module")
def reference(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reference")
    common.run("code", code, output, *settings(code))
    return output


@pytest.fixture(scope="module")
def counts(code: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many files each stage makes."""
    whole = child(code, tmp_path_factory.mktemp("count"), "none", 0)
    assert whole.returncode == 0, whole.stderr
    found: dict[str, int] = json.loads(whole.stdout.splitlines()[-1])
    return found


def child(code: Path, output: Path, stage: str, point: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), str(code), str(output)]
    return subprocess.run(
        [*command, stage, str(point), *settings(code)],
        capture_output=True,
        text=True,
        env={**os.environ},
    )


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_run_again(
    stage: str, code: Path, reference: Path, counts: dict[str, int], tmp_path: Path
) -> None:
    files = counts[stage]
    assert files > 0
    for point in sorted({max(1, files // 2), files}):
        output = tmp_path / f"killed-at-{point}"
        killed = child(code, output, stage, point)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (output / "croissant.json").exists() or (stage, point) == ("describe", files)
        staged = {p.name for p in (output / ".staging").glob("*/part-*.json")}
        common.run("code", code, output, *settings(code))
        assert common.contents(output) == common.contents(reference)
        assert common.croissant_without_times(output) == common.croissant_without_times(reference)
        metrics = common.stage_metrics(output)
        if stage in ("ingest", "filter", "embed", "cluster") and point == files // 2:
            assert 0 < metrics[stage]["reused"] < metrics[stage]["parts"] or not staged
        for earlier in STAGES[: STAGES.index(stage)]:
            assert metrics[earlier]["reused"] == metrics[earlier]["parts"]
