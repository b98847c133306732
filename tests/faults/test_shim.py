"""The shim strikes what it is told to, and power cuts lose what was not synced."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shim
from shim import Operation

SCRIPT = """
import os, sys, time
from pathlib import Path
import shim
folder, action, kind, at, error = Path(sys.argv[1]), *sys.argv[2:]
now = time.time()
shim.arm(folder, folder.with_name("log"), kind, int(at), action, error=int(error), shift=3600)
for name in "abc":
    (folder / f".{name}").write_bytes(b"whole")
    os.replace(folder / f".{name}", folder / name)
print(round((time.time() - now) / 3600))
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim.build(tmp_path_factory.mktemp("shim"))


@pytest.mark.parametrize(
    ("action", "kind", "code", "left"),
    [
        ("kill before", "rename", -9, {"a": b"whole", ".b": b"whole"}),
        ("kill after", "rename", -9, {"a": b"whole", "b": b"whole"}),
        ("tear", "write", -9, {"a": b"whole", ".b": b"wh"}),
        ("fail", "write", 1, {"a": b"whole", ".b": b""}),
        ("clock", "write", 0, {"a": b"whole", "b": b"whole", "c": b"whole"}),
    ],
)
def test_strikes_the_second(
    library: Path, tmp_path: Path, action: str, kind: str, code: int, left: dict[str, bytes]
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (tmp_path / "elsewhere").write_text("does not count")
    environment = {"LD_PRELOAD": str(library), "PYTHONPATH": str(Path(shim.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, action, kind, "2", str(errno.EIO)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == left
    if action == "fail":
        assert "Input/output error" in done.stderr
    if action == "clock":
        assert done.stdout == "-1\n"
    struck = [one for one in shim.operations(tmp_path / "log") if one.hit]
    assert [(one.kind, one.number) for one in struck] == [(kind, 2)]


def test_what_a_power_cut_loses(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / name for name in "abcd")
    for path in (b, c):
        path.touch()

    def step(kind: str, path: Path, other: Path | None = None) -> Operation:
        return Operation(kind, 1, path, other, False)

    written = [step("create", a), step("write", a)]
    assert shim.unsynced([*written, step("rename", a, b)]) == [b]
    assert shim.unsynced([*written, step("sync", a), step("rename", a, b)]) == []
    assert shim.unsynced([*written, step("sync", a), step("write", a), step("rename", a, c)]) == [c]
    assert shim.unsynced([step("write", b), *written, step("sync", a), step("rename", a, b)]) == []
    assert shim.unsynced([step("write", d / "x"), step("rename", d, tmp_path)]) == []
    assert shim.unsynced([step("write", c), step("unlink", c)]) == []
