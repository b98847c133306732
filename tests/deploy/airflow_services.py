"""Command lines of Airflow's services; docker-compose.yml has the same."""

from pathlib import Path


def migration(airflow: Path | str) -> list[str]:
    """Makes the tables of the database, or brings them up to date."""
    return [str(airflow), "db", "migrate"]


def api(airflow: Path | str, host: str, port: int) -> list[str]:
    """The web interface, and what tasks talk to."""
    return [str(airflow), "api-server", "--host", host, "--port", str(port)]


def dag_processor(airflow: Path | str) -> list[str]:
    """Reads the DAG files."""
    return [str(airflow), "dag-processor"]


def scheduler(airflow: Path | str) -> list[str]:
    """Starts runs, and with LocalExecutor runs the tasks too."""
    return [str(airflow), "scheduler"]
