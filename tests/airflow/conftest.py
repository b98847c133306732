"""Airflow's settings and ours, which both are read at import: a home for the whole session."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

ROOT = Path(__file__).parents[2]
HOME = Path(tempfile.mkdtemp(prefix="airflow-"))
# Notes each call. A file in faults/, named like a stage, is a fault for its next try; a full disk
# is a limit on the size of a file, which that of the events has passed already. What the stage
# `filter` says is more than a pipe holds.
COMMAND = f"""#!/bin/bash
stage=verify
for word in "$@"; do [ "$last" = --stage ] && stage=$word; last=$word; done
echo "$stage" >> {HOME}/calls
[ $stage = filter ] && for i in {{1..3000}}; do printf '%099d\\n' $i; printf '%099d\\n' $i >&2; done
fault=$(cat {HOME}/faults/$stage 2> /dev/null) && rm {HOME}/faults/$stage
[ "$fault" = full ] && set -- "${{@:1:$#-2}}" && ulimit -f 4
[ "$fault" = killed ] && exec timeout --signal KILL 2 {ROOT}/.venv/bin/shardwright "$@"
exec {ROOT}/.venv/bin/shardwright "$@"
"""

os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__OPENLINEAGE__TRANSPORT": '{"type": "file", "log_file_path": "%s", "append": true}'
    % (HOME / "airflow.jsonl"),
    "SHARDWRIGHT_RECIPES": str(ROOT / "recipes"),
    "SHARDWRIGHT_OUTPUT": str(HOME / "curations"),
    "SHARDWRIGHT_INPUT": str(HOME / "crawls/{recipe}/{partition}"),
    "SHARDWRIGHT_COMMAND": str(HOME / "shardwright"),
    "SHARDWRIGHT_OPENLINEAGE": str(HOME / "shardwright.jsonl"),
}


def pytest_sessionstart(session: pytest.Session) -> None:
    shutil.copytree(ROOT / "dags", HOME / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    page = (ROOT / "docs" / "airflow.md").read_text()
    example = page.split("```python file=after_curation.py\n")[1].split("```")[0]
    (HOME / "dags" / "after_curation.py").write_text(example)
    (HOME / "faults").mkdir()
    (HOME / "shardwright").write_text(COMMAND)
    (HOME / "shardwright").chmod(0o755)
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    shutil.rmtree(HOME, ignore_errors=True)  # a server that was stopped may still write its log


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def load() -> "DagBag":
    """The DAGs of the session's folder; Airflow is imported once its settings are there."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(HOME / "dags")
