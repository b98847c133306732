"""Queries of strangers: answered, refused or stopped; the service lives."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from shardwright.service.app import create_app
from shardwright.service.settings import Settings

pytest_plugins = ("service.served",)
COUNT = "SELECT count(*) AS n FROM records"


@pytest.fixture(scope="module")
def impatient(settings: Settings) -> Iterator[TestClient]:
    """A service that waits two seconds for a query."""
    limits = replace(settings.limits, sql_seconds=2.0)
    with TestClient(
        create_app(replace(settings, limits=limits)), base_url="http://127.0.0.1"
    ) as client:
        yield client


def ask(client: TestClient, sql: str) -> tuple[int, dict[str, object]]:
    answer = client.post("/api/curations/code/query", json={"sql": sql})
    return answer.status_code, answer.json()


def lives(client: TestClient) -> None:
    status, answer = ask(client, COUNT)
    assert status == 200
    records = client.get("/api/curations/code").json()["records"]
    assert answer == {"columns": ["n"], "types": ["int64"], "rows": [[records]], "whole": True}


def test_an_answer(client: TestClient) -> None:
    lives(client)
    assert ask(client, "SELECT 1 AS a, 'x' AS a, NULL, [1.5, 'nan'::DOUBLE], {'k': 'v'}::JSON")[1][
        "rows"
    ] == [[1, "x", None, [1.5, None], '{"k":"v"}']]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a INT)",
        "DROP VIEW records",
        "INSERT INTO records VALUES (1)",
        "ATTACH '/tmp/x.db'",
        "COPY records TO '/tmp/x.csv'",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT * FROM glob('/*')",
        "SELECT getenv('HOME')",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "SELECT 1; SELECT 2",
        "",
        "SELECT",
        "CALL pragma_version()",
        "EXPORT DATABASE '/tmp/x'",
    ],
)
def test_refused(client: TestClient, sql: str) -> None:
    status, answer = ask(client, sql)
    assert status in (400, 422), answer
    assert "root:" not in str(answer)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(a.range * b.range) FROM range(100000000) AS a, range(100000000) AS b",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
        "SELECT repeat('x', 3000000000)",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT string_agg(repeat('x', 100000), '') FROM range(100000)",
        "SELECT [range(100000) FOR i IN range(100000)]",
        "SELECT count(*) FROM range(100000) AS a(i), range(100000) AS b(j) "
        "WHERE regexp_matches(repeat('a', (i * j % 5000)::INT), '(a*)*b')",
    ],
)
def test_stopped(impatient: TestClient, client: TestClient, sql: str) -> None:
    status, answer = ask(impatient, sql)
    assert status == 400, answer
    assert any(ask(impatient, COUNT)[0] == 200 for _ in range(5))  # each has two seconds
    lives(client)


def test_the_kernel_bounds_memory(client: TestClient, settings: Settings) -> None:
    lives(client)
    workers = client.app.state.queries._idle.queue  # type: ignore[attr-defined]
    started = [worker for worker in workers if worker is not None]
    assert started
    for worker in started:
        limits = Path(f"/proc/{worker._process.pid}/limits").read_text().splitlines()
        (line,) = [line for line in limits if line.startswith("Max data size")]
        assert settings.limits.sql_bytes < int(line.split()[3]) < 4 * settings.limits.sql_bytes


def test_long_results_are_cut(client: TestClient) -> None:
    status, answer = ask(client, "SELECT range FROM range(1000000)")
    assert status == 200
    assert isinstance(answer["rows"], list)
    assert (len(answer["rows"]), answer["whole"]) == (10_000, False)
    status, answer = ask(client, "SELECT repeat('x', 10000) || range AS x FROM range(9000)")
    assert status == 200
    assert answer["whole"] is False
    assert len(str(answer)) < 60_000_000
