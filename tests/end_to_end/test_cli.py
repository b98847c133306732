"""The command line: exit codes, and messages without tracebacks."""

import json
import subprocess
import sys
import time
from pathlib import Path

import common
import pytest

from shardwright.metadata.layout import Layout
from shardwright.pipelines import cli


@pytest.fixture(scope="module")
def curation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    common.copy_sources(folder / "in", 60)
    common.run("code", folder / "in", folder / "out")
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["curate", "nowhere.yaml", "--output", "OUT"], ["nowhere.yaml"]),
        (["curate", "recipes/code.yaml", "--output", "OUT"], ["./data"]),
        (
            ["curate", "recipes/code.yaml", "--output", "OUT", "--set", "prune.fracton=1"],
            ["fracton"],
        ),
        (
            ["curate", "recipes/code.yaml", "--output", "OUT", "--stage", "polish"],
            ["polish", "ingest"],
        ),
        (
            ["curate", "recipes/code.yaml", "--output", "OUT", "--stage", "embed"],
            ["records", "ingest"],
        ),
        (
            ["curate", "recipes/code.yaml", "--output", "OUT", "--", "--nonsense=1"],
            ["--nonsense=1"],
        ),
        (["curate", "recipes/code.yaml", "--output", "OUT", "--work", "w"], ["--work w", "store"]),
        (["evaluate", "recipes/code.yaml", "--output", "s3://bucket/x"], ["s3://bucket/x"]),
        (["curate", "recipes/code.yaml", "--input", ".", "--output", "docs"], ["inside the input"]),
        (["curate", "recipes/code.yaml"], ["--output"]),
        (["query", "nowhere", "SELECT 1"], ["nowhere"]),
        (["query", "CURATION", "SELECT nothing FROM nowhere"], ["nowhere"]),
        (["query", "CURATION", "SELECT 1", "--format", "xml"], ["xml", "json"]),
        (["query", "CURATION", "COPY records TO 'stolen.csv'"], []),
        (["explain", "CURATION", "no such record"], ["no such record"]),
        (["verify", "nowhere"], ["nowhere"]),
        (["shine"], ["shine"]),
    ],
)
def test_a_mistake_exits_2(
    arguments: list[str],
    words: list[str],
    curation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process: what a new one would do besides is to import for seconds."""
    names = {"OUT": str(tmp_path / "out"), "CURATION": str(curation / "out")}
    monkeypatch.chdir(common.ROOT)
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")  # main sets it: undone at the end
    command = ["shardwright", *(names.get(word, word) for word in arguments)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "settings",
    [
        ("embedding.device=cuda", "embedding.model=sentence-transformers:some/model"),
        ("clusters.device=cuda",),
    ],
)
def test_cuda_without_a_device_is_an_error(
    curation: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    done = common.shardwright(
        *("curate", "recipes/code.yaml", "--input", str(curation / "in")),
        *("--output", str(tmp_path / "out")),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert done.returncode == 2
    assert f"{settings[0].partition('=')[0]} is cuda, but torch sees no GPU" in done.stderr
    assert not (tmp_path / "out" / "tables").exists()
    assert "Traceback" not in done.stderr


def test_dry_run_prints_recipe_and_plan_and_writes_nothing(curation: Path, tmp_path: Path) -> None:
    done = common.shardwright(
        *("curate", "recipes/code.yaml", "--input", str(curation / "in")),
        *("--output", str(tmp_path / "out"), "--dry-run", "--set", "clusters.k=7"),
    )
    assert done.returncode == 0, done.stderr
    assert "k: 7" in done.stdout
    assert "60 inputs" in done.stdout
    assert not (tmp_path / "out").exists()


def test_query_formats(curation: Path) -> None:
    sql = "SELECT count(*) AS n FROM records"
    done = common.shardwright("query", str(curation / "out"), sql, "--format", "json")
    manifest = Layout(curation / "out").manifest("records")
    assert manifest is not None
    assert json.loads(done.stdout) == [{"n": manifest.rows}]
    assert "n" in common.shardwright("query", str(curation / "out"), sql).stdout


def test_explain_tells_of_dropped_and_rejected(curation: Path) -> None:
    sql = "SELECT record_id AS record FROM decisions WHERE reason = 'small_cluster' LIMIT 1"
    done = common.shardwright("query", str(curation / "out"), sql, "--format", "json")
    record = json.loads(done.stdout)[0]["record"]
    told = common.shardwright("explain", str(curation / "out"), record)
    assert told.returncode == 0, told.stderr
    for word in (record, "prune", "small_cluster", "threshold", "cluster_size"):
        assert word in told.stdout


def test_doctor_is_healthy() -> None:
    done = common.shardwright("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "apache-beam" in done.stdout
    for kernel in ("nearest", "topk", "pairs_above", "group_max"):
        for metric in ("cosine", "dot", "l2"):
            assert f"{kernel} {metric}".ljust(25) + "cpu: agrees with float64" in done.stdout
    assert "kernel_sum".ljust(25) + "cpu: agrees with float64" in done.stdout


def test_report_is_written(curation: Path) -> None:
    done = common.shardwright("report", str(curation / "out"))
    assert done.returncode == 0, done.stderr
    page = (curation / "out" / "report" / "index.html").read_text()
    assert "small_cluster" in page
    assert "http-equiv" in page


def test_second_run_on_one_output_says_so(curation: Path, tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from shardwright.pipelines.run import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        places = ("--input", str(curation / "in"), "--output", str(tmp_path / "out"))
        arguments = (*places, "--set", "prune.scores=[]")
        done = common.shardwright("curate", "recipes/code.yaml", *arguments)
        assert done.returncode == 2
        assert "another run" in done.stderr
        holder.kill()
    time.sleep(0.1)
    done = common.shardwright("curate", "recipes/code.yaml", *arguments)
    assert done.returncode == 0, done.stderr


def test_a_bug_shows_its_traceback(curation: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from shardwright.pipelines import curate, cli\n"
        "def broken(run, progress): raise RuntimeError('our bug')\n"
        "curate.STAGES['duplicates'] = broken\n"
        "sys.argv = sys.argv[:1] + sys.argv[1:]\ncli.main()\n"
    )
    command = [sys.executable, "-c", code, "curate", "recipes/code.yaml"]
    command += ["--input", str(curation / "in"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=common.ROOT)
    assert done.returncode not in (0, 2)
    assert "our bug" in done.stderr
    assert "Traceback" in done.stderr
