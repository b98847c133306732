"""Groups of duplicates from verified pairs, in DuckDB: no process ever holds the graph.

Vertices are int64 ranks, the lower the better to keep. A table of edges has ``a`` and ``b`` BIGINT
with a < b, and ``similarity`` DOUBLE. Two semantics say which vertices go:

- ``components``: of all that hang together the lowest stays. Where A is near B and B near C, both B
  and C go for A, however far C is from A.
- ``greedy``: only survivors count. In ascending order a vertex goes if a kept lower one is near it:
  of the chain above B goes, and C stays.

Vertices below ``settled``, the records of an earlier curation, stay whatever their edges. All
statements spill to disk under the memory limit of the connection.
"""

from collections.abc import Iterable, Iterator

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64 = npt.NDArray[np.int64]

_BATCH_ROWS = 122_880
_LOWEST = (
    "CREATE OR REPLACE TEMP TABLE _lowest AS SELECT b AS v, min(a) AS m FROM _stars GROUP BY b"
)


def components(connection: duckdb.DuckDBPyConnection, edges: str, out: str) -> int:
    """Finds the connected components by alternating large stars and small stars.

    Kiveris et al., "Connected Components in MapReduce and Beyond" (SoCC 2014), sec. 3: a large star
    links the higher neighbours of a vertex, a small star its lower neighbours and itself, to the
    lowest of itself and its neighbours. As every edge leads from low to high, either needs only the
    lowest of the lower neighbours of each vertex. Edges never grow in number.

    Args:
        connection: Where the tables are.
        edges: Table of the edges; ``similarity`` is not read.
        out: Table that is made or replaced: ``vertex`` and ``representative`` BIGINT, a row for
            each vertex that has an edge; the representative is the lowest vertex of its component.

    Returns:
        How many rounds of a large and a small star it took: about log2 of the longest path.

    Raises:
        ValueError: an edge does not have a < b.
    """
    _check(connection, edges)
    run = connection.execute
    run(f"CREATE OR REPLACE TEMP TABLE _stars AS SELECT DISTINCT a, b FROM {edges}")
    rounds = 0
    while True:
        run(_LOWEST)
        if _all_stars(connection):
            break
        run("""
            CREATE OR REPLACE TEMP TABLE _stars AS
            SELECT coalesce(m, a) AS a, b FROM _stars LEFT JOIN _lowest ON a = v""")
        run(_LOWEST)
        run("""
            CREATE OR REPLACE TEMP TABLE _stars AS
            SELECT m AS a, CASE WHEN a = m THEN b ELSE a END AS b
            FROM _stars JOIN _lowest ON b = v""")
        # apart from the join: both in one statement run out of memory much earlier
        run("CREATE OR REPLACE TEMP TABLE _stars AS SELECT DISTINCT a, b FROM _stars")
        rounds += 1
    run(f"""
        CREATE OR REPLACE TABLE {out} AS
        SELECT b AS vertex, a AS representative FROM _stars
        UNION ALL SELECT DISTINCT a, a FROM _stars""")
    run("DROP TABLE _stars")
    run("DROP TABLE _lowest")
    return rounds


def by_components(
    connection: duckdb.DuckDBPyConnection, edges: str, out: str, settled: int = 0
) -> None:
    """Drops all of a connected component but its lowest vertex.

    Args:
        connection: Where the tables are.
        edges: Table of the edges.
        out: Table that is made or replaced: ``vertex`` and ``representative`` BIGINT and
            ``similarity`` DOUBLE, a row for each vertex that goes. The similarity is that of the
            vertex and its representative, NULL where they have no edge and only a chain links them.
        settled: Vertices below it stay.

    Raises:
        ValueError: an edge does not have a < b.
    """
    components(connection, edges, "_components")
    run = connection.execute
    run(f"""
        CREATE OR REPLACE TEMP TABLE _linked AS
        SELECT vertex, representative, similarity
        FROM _components LEFT JOIN {edges} ON a = representative AND b = vertex
        WHERE vertex <> representative AND vertex >= {settled:d}""")
    run("DROP TABLE _components")
    run(f"""
        CREATE OR REPLACE TABLE {out} AS
        SELECT vertex, representative, max(similarity) AS similarity FROM _linked GROUP BY ALL""")
    run("DROP TABLE _linked")


def greedy(connection: duckdb.DuckDBPyConnection, edges: str, out: str, settled: int = 0) -> None:
    """Drops every vertex that has a kept lower neighbour, in ascending order.

    One pass over the edges by ``b``; besides a batch of them one byte a vertex is held.

    Args:
        connection: Where the tables are, in no transaction.
        edges: Table of the edges.
        out: Table that is made or replaced: ``vertex`` and ``representative`` BIGINT and
            ``similarity`` DOUBLE, a row for each vertex that goes. The representative is its kept
            lower neighbour of greatest similarity, of several the lowest.
        settled: Vertices below it stay.

    Raises:
        ValueError: an edge does not have a < b.
    """
    _check(connection, edges)
    run = connection.execute
    run(f"""
        CREATE OR REPLACE TEMP TABLE _places AS
        SELECT v, row_number() OVER (ORDER BY v) - 1 AS place
        FROM (SELECT a AS v FROM {edges} UNION SELECT b FROM {edges})""")
    vertices = _number(connection, "SELECT count(*) FROM _places")
    run(f"""
        CREATE OR REPLACE TEMP TABLE _placed AS
        SELECT a, b, similarity, low.place AS low, high.place AS high
        FROM {edges} JOIN _places AS low ON a = low.v JOIN _places AS high ON b = high.v
        WHERE b >= {settled:d}""")
    ordered = connection.sql("FROM _placed ORDER BY b, a")
    reader = ordered.to_arrow_reader(_BATCH_ROWS)
    # a second connection to the same database: a statement on this one would end the stream
    with connection.cursor() as writer:
        writer.execute(f"""
            CREATE OR REPLACE TABLE {out}
            (vertex BIGINT, representative BIGINT, similarity DOUBLE)""")
        for dropped in _dropped(reader, vertices):
            writer.register("_dropped", dropped)
            writer.execute(f"INSERT INTO {out} SELECT b, a, similarity FROM _dropped")
            writer.unregister("_dropped")
    run("DROP TABLE _places")
    run("DROP TABLE _placed")


def _check(connection: duckdb.DuckDBPyConnection, edges: str) -> None:
    wrong = connection.execute(f"SELECT a, b FROM {edges} WHERE a >= b LIMIT 1").fetchall()
    for a, b in wrong:
        raise ValueError(f"table {edges}: the edge from {a} to {b} does not have a < b")


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    # to the end: an unfinished result would stand in the way of the next stream
    ((number,),) = connection.execute(query).fetchall()
    return int(number)


def _all_stars(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether no vertex has two lower neighbours, or one that itself has a lower one."""
    return not _number(
        connection,
        """SELECT (SELECT count(*) FROM _stars) > (SELECT count(*) FROM _lowest)
           OR EXISTS (FROM _stars SEMI JOIN _lowest ON a = v)""",
    )


def _dropped(batches: Iterable[pa.RecordBatch], vertices: int) -> Iterator[pa.Table]:
    """Decides edges as they come, sorted by (b, a), and yields the edges that vertices go by.

    Args:
        batches: ``a``, ``b``, ``similarity``, and ``low`` and ``high``, the places of a and b.
        vertices: How many places there are.
    """
    kept = np.ones(vertices, np.bool_)
    last = None
    for batch in batches:
        low, high = batch.column("low").to_numpy(), batch.column("high").to_numpy()
        _decide(kept, low, high)
        rows = pa.table(batch).filter(pa.array(kept[low]))
        best = _best(rows if last is None else pa.concat_tables([last, rows]))
        yield best[:-1]
        last = best[max(len(best) - 1, 0) :]  # its vertex may have more edges in the next batch
    if last is not None:
        yield last


def _decide(kept: npt.NDArray[np.bool_], low: Int64, high: Int64) -> None:
    """Clears in ``kept`` the upper ends of edges from kept lower ends; sorted by (high, low)."""
    before = low < high[:1]  # no edge to come can change these
    kept[high[before & kept[low]]] = False
    undecided = ~before & kept[high]
    for a, b in zip(low[undecided].tolist(), high[undecided].tolist(), strict=True):
        if kept[a]:
            kept[b] = False


def _best(rows: pa.Table) -> pa.Table:
    """Of the rows of each ``b``, sorted by (b, a), the first of greatest similarity."""
    b = rows.column("b").to_numpy()
    order = np.lexsort((-rows.column("similarity").to_numpy(), b))
    return rows.take(order[np.flatnonzero(np.diff(b, prepend=b[:1] - 1))])
