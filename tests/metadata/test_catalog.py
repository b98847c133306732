"""The catalog: the same views by connection, by catalog.duckdb and by catalog.sql."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from metadata.sample_output import build

from shardwright.metadata.catalog import catalog_sql, connect, view_statements
from shardwright.metadata.layout import Layout

pytest_plugins = ("metadata.outputs",)

FUNNEL = [
    ("ingest", "not_utf8", 1),
    ("ingest", "too_large", 1),
    ("duplicates", "exact_duplicate", 1),
    ("prune", "far_from_centroid", 1),
    ("prune", "small_cluster", 1),
    ("keep", "kept", 27),
]


def test_funnel_and_dropped(code: Layout) -> None:
    with connect(code) as connection:
        assert connection.execute("FROM funnel").fetchall() == FUNNEL
        dropped = connection.execute("FROM dropped_by_reason").fetchall()
    assert [row[:3] for row in dropped] == [
        ("duplicates", "exact_duplicate", 1),
        ("prune", "far_from_centroid", 1),
        ("prune", "small_cluster", 1),
    ]
    assert all(row[3] == pytest.approx(1 / 30) for row in dropped)


def test_catalog_file_has_every_view_with_a_comment(output: Layout) -> None:
    with duckdb.connect(str(output.root / "catalog.duckdb"), read_only=True) as connection:
        views = connection.execute(
            "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        assert {name for name, _ in views} == {view for view, _ in view_statements(output)}
        assert all(comment for _, comment in views)
        assert connection.execute("SELECT sum(records) FROM funnel").fetchall()[0][0] == (
            _rows(output, "records") + _rows(output, "rejects")
        )
        if (output.root / "tables" / "embeddings").exists():
            kind = connection.execute("SELECT typeof(vector) FROM embeddings LIMIT 1").fetchall()
            assert kind == [("FLOAT[4]",)]


def _rows(layout: Layout, table: str) -> int:
    manifest = layout.manifest(table)
    assert manifest is not None
    return manifest.rows


def test_catalog_sql_recreates_the_views_in_a_moved_folder(
    copied: Callable[[str], Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = copied("code")
    monkeypatch.chdir(layout.root)
    with duckdb.connect() as connection:
        connection.execute((layout.root / "catalog.sql").read_text())
        assert connection.execute("FROM funnel").fetchall() == FUNNEL


def test_catalog_sql_is_the_same_for_equal_tables(tmp_path: Path) -> None:
    first, second = build(tmp_path / "a", count=14), build(tmp_path / "b", count=14)
    text = (first.root / "catalog.sql").read_bytes()
    assert text == (second.root / "catalog.sql").read_bytes()
    assert str(tmp_path).encode() not in text


def test_catalog_follows_the_manifests_and_not_the_folder(
    copied: Callable[[str], Layout],
) -> None:
    layout = copied("code")
    part = next(layout.table("records").glob("part-a0.parquet"))
    shutil.copy(part, part.with_name("part-stray.parquet"))
    with connect(layout) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchall() == [(30,)]


def test_unfinished_output_has_the_views_it_can_have(copied: Callable[[str], Layout]) -> None:
    layout = copied("code")
    for name in ("decisions", "curated", "shards"):
        layout.drop_table(name)
    assert "COMMENT ON VIEW funnel" in catalog_sql(layout)
    with connect(layout) as connection:
        assert connection.execute("SELECT sum(records) FROM funnel").fetchall() == [(2,)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_connect_needs_no_write_access(copied: Callable[[str], Layout]) -> None:
    layout = copied("code")
    layout.root.chmod(0o555)
    with connect(layout) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchall() == [(30,)]
