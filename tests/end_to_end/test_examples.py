"""The example jobs: killed, resumed on other ranks, every sample exactly once."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from common import ROOT

sys.path.insert(0, str(ROOT / "examples"))


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train_code.py", "train_images.py"])
def test_example_sees_every_sample_once(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, f"examples/{script}", "--limit", "48", "--work", str(tmp_path / "work")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a rank was killed" in done.stdout
    logs = {path.name: path.read_text() for path in (tmp_path / "work").glob("seen.*")}
    assert set(logs) == {"seen.2.0", "seen.2.1", "seen.3.0", "seen.3.1", "seen.3.2"}
    # What the example counts, counted here once more: the second run has all of the second epoch,
    # and of the first what is missing up to the checkpoint.
    cursor = int(done.stdout.partition("'global_samples': ")[2].partition(",")[0])
    assert cursor > 0
    lines = [line.split() for name in logs for line in logs[name].splitlines() if "seen.3" in name]
    killed = [line.split() for name in logs for line in logs[name].splitlines() if ".2." in name]
    kept = [record for _, step, record in killed if int(step) * 6 < cursor]
    assert len(kept) == cursor < len(killed)
    second = Counter(record for epoch, _, record in lines if epoch == "1")
    assert set(second.values()) == {1}
    assert Counter(kept) + Counter(r for epoch, _, r in lines if epoch == "0") == second


def test_count_tells_missed_and_repeated_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import job
    import pyarrow as pa

    class Curation:
        def sql(self, _: str) -> pa.Table:
            return pa.table({"record_id": list("abc")})

    monkeypatch.setattr(job.shardwright, "open", lambda _: Curation())
    monkeypatch.setattr(job, "EPOCHS", 1)
    (tmp_path / "seen.2.0").write_text("0 0 a\n0 1 b\n")
    (tmp_path / "seen.3.0").write_text("0 1 b\n")
    (tmp_path / "seen.3.1").write_text("0 1 c\n")
    resumed = (0, job.GLOBAL_BATCH)
    assert job.count(tmp_path, tmp_path, resumed) == 0
    assert "1 samples came after" in capsys.readouterr().out
    assert job.count(tmp_path, tmp_path, (0, 2 * job.GLOBAL_BATCH)) == 1
    assert "2 of 3 samples seen exactly once, 0 missed, 1 too often" in capsys.readouterr().out
    (tmp_path / "seen.3.1").write_text("")
    assert job.count(tmp_path, tmp_path, resumed) == 1
    assert "2 of 3 samples seen exactly once, 1 missed, 0 too often" in capsys.readouterr().out
