"""Rows of equal keys are found, whichever count; against a loop in Python."""

import random
from collections import defaultdict
from collections.abc import Sequence

import duckdb
import pytest

from shardwright.pipelines.equal_groups import find_alike, group_alike

Row = tuple[int, str, str, int]


def grouped(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[str | None], vertices: Sequence[int]
) -> list[Row]:
    """The groups where row i has key i, and vertex i (below 0: it is none)."""
    connection.execute(
        "CREATE TABLE rows AS SELECT (i // 7)::INT AS part, i % 7 AS row, 'r' || i AS record_id, "
        "key, vertex FROM (SELECT unnest(range(?)) AS i, unnest(?::VARCHAR[]) AS key, "
        "unnest(?::BIGINT[]) AS vertex)",
        [len(keys), keys, vertices],
    )
    connection.execute("CREATE VIEW vertices AS SELECT vertex, part, row FROM rows WHERE vertex>=0")
    find_alike(connection, "SELECT part, row, record_id, key FROM rows", "alike")
    group_alike(connection, "alike", "vertices", "found")
    return connection.execute("SELECT vertex, record_id, key, least FROM found").fetchall()


def expected(keys: Sequence[str | None], vertices: Sequence[int]) -> list[Row]:
    members: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, (key, vertex) in enumerate(zip(keys, vertices, strict=True)):
        if key is not None and vertex >= 0:
            members[key].append((vertex, place))
    return sorted(
        (vertex, f"r{place}", key, min(rows)[0])
        for key, rows in members.items()
        if len(rows) > 1
        for vertex, place in rows
    )


@pytest.mark.parametrize("distinct", [1, 5, 60, 100_000])
@pytest.mark.parametrize("collide", [False, True])
def test_groups(distinct: int, collide: bool) -> None:
    rng = random.Random(distinct)
    keys = [rng.choice([None, *[f"key{rng.randrange(distinct)}"] * 9]) for _ in range(200)]
    vertices = rng.sample(range(200), 200)
    vertices = [-1 if vertex % 10 == 3 else vertex for vertex in vertices]
    with duckdb.connect() as connection:
        if collide:
            connection.execute("CREATE MACRO hash(key) AS 5::UBIGINT")
        assert sorted(grouped(connection, keys, vertices)) == expected(keys, vertices)


def test_a_copy_that_does_not_count_makes_no_group() -> None:
    with duckdb.connect() as connection:
        assert grouped(connection, ["a", "a", "b", "b", "b"], [0, -1, -1, 9, 4]) == [
            (9, "r3", "b", 4),
            (4, "r4", "b", 4),
        ]


def test_nothing() -> None:
    with duckdb.connect() as connection:
        assert grouped(connection, [], []) == []
