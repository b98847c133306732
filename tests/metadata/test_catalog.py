"""The catalog: the same views by connection, by catalog.duckdb and by catalog.sql."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from metadata.sample_output import build, write_table

import shardwright.metadata.checks as checks_package
from shardwright.metadata.catalog import catalog_sql, connect, view_statements
from shardwright.metadata.checks import checks, read_checks
from shardwright.metadata.curation import Table
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.schemas import record_id
from shardwright.metadata.views import VIEWS

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


def rewrite(layout: Layout, table: str, **values: dict[str, Any]) -> None:
    """Commits a table anew; ``values`` go by the id of a row."""
    manifest = layout.need(table, "")
    rows = [row | values.get(row["record_id"], {}) for row in Table(manifest).read().to_pylist()]
    write_table(layout, table, manifest.schema, [("a0", rows)], manifest.origin)


def test_nearest_kept_is_at_the_end_of_the_chain(copied: Callable[[str], Layout]) -> None:
    layout = copied("code")
    ids = [record_id("sample", f"pkg/file00{number}.py") for number in range(20, 30)]
    gone = {"keep": False, "stage": "duplicates", "reason": "near_duplicate", "score": 0.9}
    steps = {
        ids[0]: gone | {"representative_id": ids[1]},  # ends at a kept one, three on
        ids[1]: gone | {"representative_id": ids[2]},
        ids[2]: gone | {"stage": "semantic", "representative_id": ids[3]},
        ids[4]: gone | {"representative_id": "f" * 32},  # of an earlier curation
        ids[5]: gone | {"representative_id": ids[6]},  # which was pruned
        ids[6]: {"keep": False, "stage": "prune", "reason": "small_cluster"},
        ids[7]: gone | {"representative_id": ids[7]},  # a damaged table goes round
    }
    rewrite(layout, "decisions", **steps)
    with connect(layout) as connection:
        rows = connection.execute(
            "SELECT record_id, similarity, nearest_id, nearest_path, nearest_kept "
            "FROM nearest_kept ORDER BY path"
        ).fetchall()
    path = "pkg/file0023.py"
    assert rows == [
        *((one, 0.9, ids[3], path, True) for one in ids[:3]),
        (ids[4], 0.9, "f" * 32, None, None),
        (ids[5], 0.9, ids[6], "pkg/file0026.py", False),
        (ids[7], 0.9, ids[7], "pkg/file0027.py", False),
        (ids[9], 1.0, ids[8], "pkg/file0028.py", True),
    ]


def test_curated_full_joins_what_was_measured(output: Layout) -> None:
    with connect(output) as connection:
        rows = connection.execute(
            "SELECT f.record_id, f.path, f.split = s.split, f.shard, f.position, f.score "
            "FROM curated_full AS f JOIN shards AS s USING (record_id) ORDER BY f.record_id"
        ).fetchall()
        kept = connection.execute(
            "SELECT c.record_id, path, true, shard, position, score FROM curated AS c "
            "JOIN shards USING (record_id) JOIN decisions USING (record_id) ORDER BY c.record_id"
        ).fetchall()
        assert rows == kept
        if output.manifest("scores") is None:
            return
        assert connection.execute(
            "SELECT count(*) FROM curated_full JOIN scores AS s USING (record_id) "
            "JOIN clusters AS c USING (record_id) WHERE curated_full.scores.scip = s.scip "
            "AND (curated_full.cluster, curated_full.distance) = (c.cluster, c.distance)"
        ).fetchall() == [(len(kept),)]


def test_vectors_are_of_fixed_size(code: Layout) -> None:
    with connect(code) as connection:
        cosines = connection.execute(
            "SELECT array_cosine_similarity(e.vector, c.vector) FROM embeddings AS e, "
            "centroids AS c WHERE c.cluster = 0 LIMIT 2"
        ).fetchall()
    assert cosines[0][0] == pytest.approx(1.0)


def test_no_view_hides_a_table() -> None:
    assert {view.name for view in VIEWS} & set(TABLES) == set()


def test_every_check_runs_over_the_tables_that_it_says_it_reads(code: Layout) -> None:
    """Without the others there: it names no more, and finds nothing in a sound output."""
    ran = 0
    for check in checks():
        if any(code.manifest(table) is None for table in check.reads):
            continue
        with connect(code, tables=[name for name in TABLES if name in check.reads]) as connection:
            assert connection.execute(check.query).fetchall() == [], check.problem
            ran += 1
    assert ran > 30
    assert {check.table for check in checks()} <= set(TABLES)


def test_checks_are_files_that_any_duckdb_runs(code: Layout, tmp_path: Path) -> None:
    text = "-- finds: paths\n-- reads: records, rejects\nSELECT path AS record_id\nFROM records;\n"
    (check,) = read_checks(text)
    assert (check.table, check.reads) == ("records", {"records", "rejects"})
    assert check.query == "SELECT path AS record_id\nFROM records"
    with pytest.raises(ValueError, match="no query with its two comments"):
        [*read_checks(f"{text}\nSELECT 1;\n")]
    folder = Path(str(checks_package.__file__)).parent
    with duckdb.connect(str(code.root / "catalog.duckdb"), read_only=True) as connection:
        for path in sorted(folder.glob("*.sql")):
            if path.stem in TABLES and code.manifest(path.stem) and path.stem != "decisions":
                assert connection.execute(path.read_text()).fetchall() == []
