"""Queries a stretch of parts at a time say what they say of all parts at once."""

import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from metadata.sample_output import origin, write_table

from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest
from shardwright.pipelines import stretches

LEFT = pa.schema([("name", pa.string())])
RIGHT = pa.schema([("name", pa.string()), ("value", pa.int64())])
QUERY = """
    SELECT l.part, l.row, l.name, r.row AS other, value, seen
    FROM left_side AS l LEFT JOIN right_side AS r USING (name)
      LEFT JOIN (FROM elsewhere WHERE {}) AS e ON e.part = l.part AND e.row = l.row
    ORDER BY l.part, l.row"""
SIZES = [3, 0, 1, 7, 0, 0, 2, 5, 1]


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Manifest, Manifest]:
    """Two tables of the same parts; the second lacks rows, and two parts."""
    rng = random.Random(1)
    layout = Layout(tmp_path)
    left = [[f"p{part}r{row}" for row in range(size)] for part, size in enumerate(SIZES)]
    parts = [(f"{part:03d}", [{"name": name} for name in names]) for part, names in enumerate(left)]
    right = [
        (key, [{**row, "value": rng.randrange(9)} for row in rows if rng.random() < 0.7])
        for key, rows in parts
        if key not in {"000", "006"}
    ]
    aligned = write_table(layout, "left_side", LEFT, parts, origin("a"))
    return aligned, write_table(layout, "right_side", RIGHT, right, origin("b"))


def found(
    tables: tuple[Manifest, Manifest], rows: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[tuple[object, ...]], int]:
    """All rows, and in how many stretches they came."""
    monkeypatch.setattr(stretches, "_ROWS", rows)
    came, count = [], 0
    with duckdb.connect() as connection:
        places = [(part, row) for part, size in enumerate(SIZES) for row in range(0, size, 2)]
        connection.execute(
            "CREATE TABLE elsewhere AS SELECT unnest(?::INT[]) AS part, "
            "unnest(?::BIGINT[]) AS row, true AS seen",
            [[part for part, _ in places], [row for _, row in places]],
        )
        for _ in stretches.stretches(connection, tables[0], tables):
            came += connection.execute(QUERY.format(stretches.IN_STRETCH)).fetchall()
            count += 1
    return came, count


def whole(tables: tuple[Manifest, Manifest]) -> list[tuple[object, ...]]:
    """Read in Python, part by part."""
    import pyarrow.parquet as pq

    aligned, other = tables
    known = {
        name: (row, value)
        for part in other.parts()
        if part.file is not None
        for row, (name, value) in enumerate(
            zip(*pq.read_table(other.folder / part.file).to_pydict().values(), strict=True)
        )
    }
    return [
        (at, row, name, *known.get(name, (None, None)), True if row % 2 == 0 else None)
        for at, part in enumerate(aligned.parts())
        if part.file is not None
        for row, name in enumerate(pq.read_table(aligned.folder / part.file)["name"].to_pylist())
    ]


@pytest.mark.parametrize(("rows", "count"), [(1, 6), (4, 4), (8, 2), (1000, 1)])
def test_stretches_are_the_whole(
    tables: tuple[Manifest, Manifest], rows: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(tables)
    assert len(expected) == sum(SIZES)
    assert any(row[4] is None for row in expected)
    assert found(tables, rows, monkeypatch) == (expected, count)


def test_no_rows_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    empty = write_table(layout, "left_side", LEFT, [("000", [])], origin("a"))
    other = write_table(layout, "right_side", RIGHT, [("000", [])], origin("b"))
    assert found((empty, other), 1, monkeypatch)[0] == []


def test_parts_are_counted_as_in_the_aligned_table(tables: tuple[Manifest, Manifest]) -> None:
    aligned, other = tables
    with duckdb.connect() as connection:
        stretches.show_whole(connection, aligned, other)
        rows = connection.execute("SELECT name, part FROM right_side").fetchall()
    assert rows
    assert all(name.startswith(f"p{part}r") for name, part in rows)


def test_a_part_of_another_table_is_our_bug(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    aligned = write_table(layout, "left_side", LEFT, [("000", [{"name": "a"}])], origin("a"))
    odd = [("001", [{"name": "a", "value": 1}])]
    other = write_table(layout, "right_side", RIGHT, odd, origin("b"))
    with duckdb.connect() as connection, pytest.raises(KeyError):
        stretches.show_whole(connection, aligned, other)
