"""Both semantics against oracles: union-find, and the greedy rule read literally."""

import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.quality import groups
from shardwright.quality.groups import by_components, components, greedy

Edge = tuple[int, int, float]
Dropped = list[tuple[int, int, float | None]]

SEMANTICS = {"components": by_components, "greedy": greedy}
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("similarity", pa.float64())])
CHAIN: list[Edge] = [(0, 1, 0.9), (1, 2, 0.8)]


def graphs(vertices: int = 12, edges: int = 30) -> st.SearchStrategy[list[Edge]]:
    ends = st.sets(st.integers(0, vertices), min_size=2, max_size=2).map(sorted)
    similarity = st.sampled_from([0.7, 0.8, 0.9])
    edge = st.tuples(ends, similarity).map(lambda e: (e[0][0] * 10**12, e[0][1] * 10**12, e[1]))
    return st.lists(edge, max_size=edges)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


def fill(connection: duckdb.DuckDBPyConnection, edges: list[Edge]) -> None:
    columns = list(zip(*edges, strict=True)) or [[], [], []]
    table = pa.table([pa.array(column) for column in columns], schema=SCHEMA)
    connection.register("given_edges", table)
    connection.execute("CREATE OR REPLACE TABLE edges AS FROM given_edges")
    connection.unregister("given_edges")


def fill_arrays(connection: duckdb.DuckDBPyConnection, x: np.ndarray, y: np.ndarray) -> None:
    ends = [np.minimum(x, y), np.maximum(x, y), np.full(len(x), 0.5)]
    connection.register("given_edges", pa.table([pa.array(end) for end in ends], schema=SCHEMA))
    connection.execute("CREATE OR REPLACE TABLE edges AS FROM given_edges")
    connection.unregister("given_edges")


def dropped(
    connection: duckdb.DuckDBPyConnection, semantics: str, edges: list[Edge], settled: int = 0
) -> Dropped:
    fill(connection, edges)
    SEMANTICS[semantics](connection, "edges", "gone", settled)
    return connection.execute("FROM gone ORDER BY vertex").fetchall()


def lowest_of_component(edges: list[Edge]) -> dict[int, int]:
    parent = {v: v for a, b, _ in edges for v in (a, b)}

    def root(v: int) -> int:
        while parent[v] != v:
            v = parent[v]
        return v

    for a, b, _ in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {v: root(v) for v in parent}


def greedily(edges: list[Edge], settled: int) -> Dropped:
    vertices = sorted({v for a, b, _ in edges for v in (a, b)})
    gone: dict[int, tuple[int, int, float]] = {}
    for v in vertices:
        near = [(-s, a) for a, b, s in edges if b == v and a not in gone]
        if near and v >= settled:
            similarity, representative = min(near)
            gone[v] = (v, representative, -similarity)
    return list(gone.values())


def test_a_chain(connection: duckdb.DuckDBPyConnection) -> None:
    assert dropped(connection, "components", CHAIN) == [(1, 0, 0.9), (2, 0, None)]
    assert dropped(connection, "greedy", CHAIN) == [(1, 0, 0.9)]


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_settled_vertices_stay(connection: duckdb.DuckDBPyConnection, semantics: str) -> None:
    edges = [(0, 1, 0.9), (1, 2, 0.8), (0, 3, 0.7), (1, 3, 0.8), (4, 5, 0.9)]
    gone = {
        "components": [(2, 0, None), (3, 0, 0.7), (5, 4, 0.9)],
        "greedy": [(2, 1, 0.8), (3, 1, 0.8), (5, 4, 0.9)],
    }
    assert dropped(connection, semantics, edges, settled=2) == gone[semantics]
    assert dropped(connection, semantics, edges, settled=6) == []


def test_the_most_similar_kept_neighbour_stands_for_a_vertex(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    star = [(0, 9, 0.7), (1, 9, 0.8), (2, 9, 0.8), (3, 9, 0.6)]
    assert dropped(connection, "greedy", star) == [(9, 1, 0.8)]
    # 1 goes for 0, so it stands for none, though it is the nearest of 9
    assert dropped(connection, "greedy", [(0, 1, 0.7), *star]) == [(1, 0, 0.7), (9, 2, 0.8)]


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_no_edges(connection: duckdb.DuckDBPyConnection, semantics: str) -> None:
    assert dropped(connection, semantics, []) == []


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("edge", [(3, 3, 0.9), (4, 3, 0.9)])
def test_edges_lead_upwards(
    connection: duckdb.DuckDBPyConnection, semantics: str, edge: Edge
) -> None:
    with pytest.raises(ValueError, match=f"table edges: the edge from {edge[0]} to 3 does not"):
        dropped(connection, semantics, [*CHAIN, edge])


@given(edges=graphs())
@settings(deadline=None)
def test_components_are_those_of_union_find(
    connection: duckdb.DuckDBPyConnection, edges: list[Edge]
) -> None:
    fill(connection, edges)
    components(connection, "edges", "found")
    found = connection.execute("FROM found").fetchall()
    assert len(found) == len(dict(found))
    assert dict(found) == lowest_of_component(edges)


@given(edges=graphs(), settled=st.integers(0, 13).map(lambda v: v * 10**12))
@settings(deadline=None)
def test_components_drop_all_but_the_lowest(
    connection: duckdb.DuckDBPyConnection, edges: list[Edge], settled: int
) -> None:
    direct: dict[tuple[int, int], float] = {}
    for a, b, similarity in edges:
        direct[a, b] = max(similarity, direct.get((a, b), 0))
    expected = [
        (v, low, direct.get((low, v)))
        for v, low in sorted(lowest_of_component(edges).items())
        if v != low and v >= settled
    ]
    assert dropped(connection, "components", edges, settled) == expected


@given(
    edges=graphs(),
    settled=st.integers(0, 13).map(lambda v: v * 10**12),
    batch_rows=st.sampled_from([1, 3, 1000]),
)
@settings(deadline=None)
def test_greedy_is_its_rule(
    connection: duckdb.DuckDBPyConnection, edges: list[Edge], settled: int, batch_rows: int
) -> None:
    fill(connection, edges)
    table = connection.sql("FROM edges ORDER BY b, a").to_arrow_table()
    assert dropped(connection, "greedy", edges, settled) == greedily(edges, settled)

    places = {v: i for i, v in enumerate(sorted({v for a, b, _ in edges for v in (a, b)}))}
    for end, place in (("a", "low"), ("b", "high")):
        column = [places[v] for v in table[end].to_pylist()]
        table = table.append_column(place, pa.array(column, pa.int64()))
    batches = table.to_batches(max_chunksize=batch_rows)
    tables = list(groups._dropped(batches, len(places)))
    rows = [(r["b"], r["a"], r["similarity"]) for t in tables for r in t.to_pylist()]
    assert rows == greedily(edges, 0)


@pytest.mark.parametrize("order", ["ascending", "shuffled", "alternating"])
def test_a_long_chain_takes_few_rounds(connection: duckdb.DuckDBPyConnection, order: str) -> None:
    size = 10_000
    path = {
        "ascending": np.arange(size),
        "shuffled": np.random.default_rng(0).permutation(size),
        "alternating": np.stack([np.arange(size // 2), np.arange(size // 2, size)], 1).ravel(),
    }[order]
    fill_arrays(connection, path[:-1], path[1:])
    assert components(connection, "edges", "found") <= math.log2(size) + 1
    query = "SELECT count(*), max(representative) FROM found"
    assert connection.execute(query).fetchall() == [(size, 0)]


def test_a_long_chain_greedily(connection: duckdb.DuckDBPyConnection) -> None:
    size = 300_001  # several batches
    fill_arrays(connection, np.arange(size - 1), np.arange(1, size))
    greedy(connection, "edges", "gone")
    wrong = "count(*) FILTER (vertex % 2 = 0 OR representative <> vertex - 1)"
    query = f"SELECT count(*), {wrong} FROM gone"
    assert connection.execute(query).fetchall() == [(size // 2, 0)]


@pytest.mark.parametrize("centre", [0, 50_000, 200_000])
def test_a_star(connection: duckdb.DuckDBPyConnection, centre: int) -> None:
    others = np.setdiff1d(np.arange(200_001), [centre])
    fill_arrays(connection, np.full(len(others), centre), others)
    assert components(connection, "edges", "found") <= 1
    query = "SELECT count(*), max(representative) FROM found"
    assert connection.execute(query).fetchall() == [(200_001, 0)]
    # below the centre none is near another, so all stay; the centre goes, and those above it stay
    greedy(connection, "edges", "gone")
    query = "SELECT count(*), min(vertex), max(representative) FROM gone"
    gone = [(200_000, 1, 0)] if centre == 0 else [(1, centre, 0)]
    assert connection.execute(query).fetchall() == gone


def test_a_clique(connection: duckdb.DuckDBPyConnection) -> None:
    a, b = np.triu_indices(300, 1)
    fill_arrays(connection, a.astype(np.int64), b.astype(np.int64))
    assert components(connection, "edges", "found") == 1
    for drop in (by_components, greedy):
        drop(connection, "edges", "gone")
        query = "SELECT count(*), min(vertex), max(representative) FROM gone"
        assert connection.execute(query).fetchall() == [(299, 1, 0)]


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_the_order_of_edges_changes_nothing(
    connection: duckdb.DuckDBPyConnection, semantics: str
) -> None:
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 400, (600, 2)), axis=1)
    pairs = [(int(a), int(b), float(rng.random())) for a, b in ends if a < b]
    first = dropped(connection, semantics, pairs)
    assert first == dropped(connection, semantics, pairs[::-1])
    assert len(first) > 100


def test_only_what_was_asked_for_is_left(connection: duckdb.DuckDBPyConnection) -> None:
    with duckdb.connect() as fresh:
        fill(fresh, CHAIN)
        by_components(fresh, "edges", "one")
        greedy(fresh, "edges", "two")
        tables = fresh.execute("SELECT table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
    assert tables == [("edges",), ("one",), ("two",)]


def test_memory_is_bounded(tmp_path: Path) -> None:
    sets = 100_000  # cliques of five: set i is i, i + sets, i + 2 sets, and so on
    config = {"memory_limit": "40MB", "temp_directory": str(tmp_path), "threads": 2}
    with duckdb.connect(config=config) as small:
        small.execute(f"""
            CREATE TABLE edges AS
            SELECT i + low * {sets} AS a, i + high * {sets} AS b, 0.5::DOUBLE AS similarity
            FROM range({sets}) AS sets(i), range(5) AS lows(low), range(5) AS highs(high)
            WHERE low < high""")
        for drop in (by_components, greedy):
            drop(small, "edges", "gone")
            wrong = f"count(*) FILTER (vertex % {sets} <> representative)"
            query = f"SELECT count(*), count(DISTINCT vertex), {wrong} FROM gone"
            assert small.execute(query).fetchall() == [(4 * sets, 4 * sets, 0)]
