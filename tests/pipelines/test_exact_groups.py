"""Equal keys make a group, however few are grouped at a time; against a loop in Python."""

import random
from collections import defaultdict

import duckdb
import pytest

from shardwright.pipelines.stages import duplicates


def grouped(
    keys: list[str], settled: int, *, wanted: bool = True
) -> tuple[set[tuple[object, ...]], list[int], list[tuple[object, ...]]]:
    """``exact_rows``, ``vertices`` and ``counts`` of records with these keys, in order."""
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE numbered AS SELECT i AS vertex, 0 AS part, i AS row, "
            "'r' || i AS record_id, key, NULL::VARCHAR AS near_key, hash(key) AS hashed "
            "FROM (SELECT unnest(range(?)) AS i, unnest(?::VARCHAR[]) AS key)",
            [len(keys), keys],
        )
        connection.execute(f"CREATE MACRO is_settled(vertex) AS vertex < {settled}")
        duplicates._exact(connection, wanted)
        rows = set(connection.execute("FROM exact_rows").fetchall())
        vertices = connection.execute("SELECT vertex FROM vertices ORDER BY 1").fetchall()
        return rows, [one for (one,) in vertices], connection.execute("FROM counts").fetchall()


@pytest.mark.parametrize("at_once", [1, 7, 1000])
@pytest.mark.parametrize("distinct", [1, 5, 60, 100_000])
@pytest.mark.parametrize("settled", [0, 20])
def test_groups(at_once: int, distinct: int, settled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_AT_ONCE", at_once)
    rng = random.Random(distinct)
    keys = [f"key{rng.randrange(distinct)}" for _ in range(80)]
    of: dict[str, list[int]] = defaultdict(list)
    for vertex, key in enumerate(keys):
        of[key].append(vertex)
    expected = {
        (f"r{vertex}", "exact", key, f"r{members[0]}", 1.0)
        for key, members in of.items()
        if len(members) > 1
        for vertex in members
        if vertex >= settled
    }
    rows, vertices, counts = grouped(keys, settled)
    assert rows == expected
    assert vertices == sorted(members[0] for members in of.values())
    assert counts == [("exact", "equal", True, sum(row[0] != row[3] for row in expected))]


def test_unequal_keys_of_equal_hashes() -> None:
    keys = ["a", "b", "c", "a"]
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE numbered AS SELECT i AS vertex, 0 AS part, i AS row, "
            "'r' || i AS record_id, key, NULL::VARCHAR AS near_key, 5::UBIGINT AS hashed "
            "FROM (SELECT unnest(range(4)) AS i, unnest(?::VARCHAR[]) AS key)",
            [keys],
        )
        connection.execute("CREATE MACRO is_settled(vertex) AS false")
        duplicates._exact(connection, True)
        found = connection.execute("SELECT record_id FROM exact_rows ORDER BY 1").fetchall()
        assert found == [("r0",), ("r3",)]


def test_not_wanted() -> None:
    rows, vertices, counts = grouped(["a", "a", "b"], 0, wanted=False)
    assert (rows, vertices, counts) == (set(), [0, 1, 2], [])
