"""Airflow's services as docker-compose.yml has them: a run by the scheduler, health checks."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import airflow_services
import compose
import pytest
from conftest import HOME, ROOT, free_port

AIRFLOW = Path(sys.executable).parent / "airflow"
SERVICES = compose.services()
VARIABLES = {
    "AIRFLOW_DATABASE_PASSWORD": "password",
    "AIRFLOW_FERNET_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "AIRFLOW_JWT_SECRET": "0123456789" * 7,
    "STORE_ACCESS_KEY": "key",
    "STORE_SECRET_KEY": "secret",
}
RUN = ("SELECT state FROM dag_run", ())
TRIES = ("SELECT task_id, state, try_number FROM task_instance ORDER BY start_date LIMIT 2", ())


@dataclass
class Cluster:
    """The services, their settings, and on what they listen."""

    home: Path
    settings: dict[str, str]
    ports: dict[str, dict[int, int]]

    def airflow(self, *words: str) -> None:
        subprocess.run([AIRFLOW, *words], env=self.settings, check=True)

    def healthy(self, name: str, ports: dict[int, int] | None = None) -> bool:
        check = compose.health(SERVICES[name], self.ports[name] if ports is None else ports)
        check[0] = str(AIRFLOW) if check[0] == "airflow" else check[0]
        return subprocess.run(check, env=self.settings, capture_output=True).returncode == 0

    def rows(self, query: tuple[str, tuple[str, ...]]) -> list[Any]:
        with sqlite3.connect(f"file:{self.home / 'airflow.db'}?mode=ro", uri=True) as database:
            return database.execute(*query).fetchall()


def wait_for(what: Callable[[], Any], seconds: float = 600) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(1)
    return found


def settings(home: Path, api: int, health: int) -> dict[str, str]:
    """Those of the file, with another database and the places of this machine."""
    given = SERVICES["airflow-scheduler"]["environment"]
    same = {name: compose.filled(value, VARIABLES) for name, value in given.items()}
    url = same["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    return {
        **{name: value for name, value in os.environ.items() if "OPENLINEAGE" not in name},
        **same,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url.replace(
            "airflow-api:8080", f"127.0.0.1:{api}"
        ),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(health),
        "SHARDWRIGHT_COMMAND": str(ROOT / ".venv" / "bin" / "shardwright"),
        "SHARDWRIGHT_OUTPUT": str(home / "curations"),
        "SHARDWRIGHT_RECIPES": str(ROOT / "recipes"),
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    home = HOME / "services"
    home.mkdir()
    api, health = free_port(), free_port()
    ports = {
        "airflow-api": {8080: api},
        "airflow-scheduler": {8974: health},
        "airflow-dag-processor": {},
    }
    running = Cluster(home, settings(home, api, health), ports)
    subprocess.run(airflow_services.migration(AIRFLOW), env=running.settings, check=True)
    commands = {
        "api": airflow_services.api(AIRFLOW, "127.0.0.1", api),
        "dag-processor": airflow_services.dag_processor(AIRFLOW),
        "scheduler": airflow_services.scheduler(AIRFLOW),
    }
    started = []
    try:
        for name, command in commands.items():
            with (home / f"{name}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(command, env=running.settings, stdout=log, stderr=log)
                )
        yield running
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=120)


def test_services_become_healthy(cluster: Cluster) -> None:
    for name in cluster.ports:
        wait_for(lambda name=name: cluster.healthy(name))
    for name in ("airflow-api", "airflow-scheduler"):
        (port,) = cluster.ports[name]
        assert not cluster.healthy(name, {port: free_port()})


def test_scheduler_runs_tasks(cluster: Cluster) -> None:
    """With a mistake, so that the run is short: it reaches the command and comes back."""
    wait_for(lambda: cluster.rows(("SELECT 1 FROM dag WHERE dag_id = ?", ("curate_code",))))
    cluster.airflow("dags", "unpause", "curate_code")
    conf = '{"input": "/nowhere", "set": ["clusters.q=4"]}'
    date = ("--logical-date", "2026-01-02T00:00:00+00:00")
    cluster.airflow("dags", "trigger", "curate_code", *date, "--conf", conf)
    wait_for(lambda: cluster.rows(RUN) in ([("failed",)], [("success",)]))
    assert cluster.rows(TRIES) == [("plan", "success", 1), ("ingest", "failed", 1)]
    logs = [path.read_text() for path in (cluster.home / "logs").rglob("*.log")]
    assert any("exit 2, which no retry mends" in text for text in logs)


def test_password_of_the_user_is_in_the_log(cluster: Cluster) -> None:
    assert "Password for user 'admin':" in (cluster.home / "api.log").read_text()
