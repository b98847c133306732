"""Queries read the tables and nothing else; results as text."""

import csv
import datetime
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from shardwright.errors import DataError, UserError
from shardwright.metadata.files import sha256_file
from shardwright.metadata.layout import Layout
from shardwright.metadata.query import format_result, query

pytest_plugins = ("metadata.outputs",)


def test_answers(code: Layout) -> None:
    assert query(code, "SELECT count(*) AS n FROM records").to_pylist() == [{"n": 30}]
    assert query(code, "FROM funnel ORDER BY records DESC LIMIT 1;  -- x").num_rows == 1
    assert query(code, "DESCRIBE records").num_rows == 13
    assert query(code, "SUMMARIZE decisions").num_rows == 7
    assert query(code, "EXPLAIN SELECT 1").num_rows == 1
    assert query(code, "EXPLAIN ANALYZE SELECT 1").num_rows == 1
    assert query(code, "SELECT 1 AS a, 2 AS a").column_names == ["a", "a_1"]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1 AS x) TO '{part}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS x) TO '{part}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE WITH a AS (COPY (SELECT 1 AS x) TO '{part}' "
        "(FORMAT parquet, USE_TMP_FILE false)) SELECT * FROM a",
        "WITH a AS (COPY (SELECT 1 AS x) TO '{part}' (FORMAT parquet, USE_TMP_FILE false)) "
        "SELECT * FROM a",
        "COPY records TO '{folder}/out.csv'",
        "SELECT * FROM read_csv('{folder}/recipe.json')",
        "SELECT * FROM read_text('{folder}/recipe.json')",
        "SELECT * FROM '{folder}/metrics.json'",
        "SELECT * FROM glob('{folder}/*')",
        "ATTACH '{folder}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "SET memory_limit = '100GB'",
        "CREATE TABLE t (i INTEGER)",
        "DROP VIEW records",
        "DELETE FROM records",
        "PRAGMA database_list",
        "EXPORT DATABASE '{folder}/export'",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        "SELECT * FROM sql",
        "SELECT 1) UNION ALL (SELECT 2",
    ],
)
def test_refuses_what_is_no_reading_of_the_tables(
    copied: Callable[[str], Layout], sql: str
) -> None:
    layout = copied("plain")
    part = layout.table("records") / "part-a0.parquet"
    before = {path: sha256_file(path) for path in layout.root.rglob("*") if path.is_file()}
    with pytest.raises(UserError):
        query(layout, sql.format(part=part, folder=layout.root))
    after = {path: sha256_file(path) for path in layout.root.rglob("*") if path.is_file()}
    assert after == before


def test_error_is_said_with_the_users_own_line_numbers(code: Layout) -> None:
    with pytest.raises(UserError, match=r'Referenced column "nope" not found') as bound:
        query(code, "SELECT record_id,\nnope FROM records")
    assert "LINE 2: nope FROM records" in str(bound.value)
    with pytest.raises(UserError, match=r"LINE 1: SELEC 1"):
        query(code, "SELEC 1")


def test_spills_although_locked(code: Layout) -> None:
    sql = (
        "SELECT count(*) AS n FROM (SELECT DISTINCT a.range || '-' || b.range AS x "
        "FROM range(1500) a, range(1500) b)"
    )
    assert query(code, sql, memory="100MB").to_pylist() == [{"n": 2_250_000}]


def test_missing_file_is_a_fault_of_the_data(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    (layout.table("records") / "part-c2.parquet").unlink()
    with pytest.raises(DataError, match="verify"):
        query(layout, "SELECT path FROM records")


def test_relative_folder(code: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(code.root.parent)
    layout = Layout(Path(code.root.name))
    assert query(layout, "SELECT count(*) AS n FROM records").to_pylist() == [{"n": 30}]


ODD = pa.table(
    {
        "text": ['a,b\n"c"', None, "\x1b[31mred\u202e"],
        "number": pa.array([1, None, -3]),
        "float": [0.1, float("nan"), 1e300],
        "bytes": [b"\x00\xff", None, b""],
        "list": [[1, 2], [], None],
        "map": pa.array([[("k", "v")], [], None], pa.map_(pa.string(), pa.string())),
        "when": [datetime.date(2020, 1, 2), None, None],
        "yes": [True, False, None],
    }
)


def test_json() -> None:
    rows = json.loads(format_result(ODD, "json"))
    assert rows[0] == {
        "text": 'a,b\n"c"',
        "number": 1,
        "float": 0.1,
        "bytes": "AP8=",
        "list": [1, 2],
        "map": {"k": "v"},
        "when": "2020-01-02",
        "yes": True,
    }
    assert rows[1]["float"] is None
    assert json.loads(format_result(ODD.slice(0, 0), "json")) == []


def test_csv() -> None:
    rows = list(csv.reader(io.StringIO(format_result(ODD, "csv"))))
    assert rows[0] == ODD.column_names
    assert rows[1] == ['a,b\n"c"', "1", "0.1", "AP8=", "[1, 2]", '{"k": "v"}', "2020-01-02", "true"]
    assert len(rows) == 4


def test_table_is_aligned_and_safe_for_a_terminal() -> None:
    text = format_result(
        pa.table({"name": ["\x1b[31m", "名前", "x" * 200], "n": [1, 22, 333]}), "table"
    )
    assert "\x1b" not in text
    assert text.splitlines()[2].startswith("\\x1b[31m")
    assert "x" * 79 + "…" in text
    assert text.splitlines()[0].endswith("  n")
    assert text.endswith("(3 rows)\n")


def test_unknown_form() -> None:
    with pytest.raises(UserError, match="xml"):
        format_result(ODD, "xml")
