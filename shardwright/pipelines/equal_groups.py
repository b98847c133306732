"""Rows of equal keys, in DuckDB.

Most rows are alone, which eight bytes of each key tell: DuckDB counts those of all rows, and spills
what does not fit. Whole keys are read again and held for the others only.
"""

import duckdb


def find_alike(connection: duckdb.DuckDBPyConnection, keys: str, out: str) -> None:
    """Makes a table of all rows that share their key with another, and at most a few more.

    Args:
        connection: Where the relations are.
        keys: Query that yields ``part``, ``row``, ``record_id`` and ``key``; it runs twice. A row
            without a key is equal to none.
        out: Table that is made or replaced, with these columns.
    """
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE _shared AS
          SELECT hash(key) AS hashed FROM ({keys}) WHERE key IS NOT NULL
          GROUP BY hashed HAVING count(*) > 1;
        CREATE OR REPLACE TABLE {out} AS
          SELECT part, row, record_id, key FROM ({keys})
          SEMI JOIN _shared ON hash(key) = hashed WHERE key IS NOT NULL;
        DROP TABLE _shared"""
    )


def group_alike(connection: duckdb.DuckDBPyConnection, alike: str, vertices: str, out: str) -> None:
    """Makes a table of the groups among what ``find_alike`` found.

    Args:
        connection: Where the relations are.
        alike: The table that it made.
        vertices: Relation with ``vertex``, ``part`` and ``row`` of the rows that count.
        out: Table that is made or replaced: ``vertex``, ``record_id``, ``key``, and ``least``, the
            lowest vertex of its key, for each row that counts and shares its key with another such.
    """
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE _counting AS
          SELECT vertex, record_id, key FROM {vertices} JOIN {alike} USING (part, row);
        CREATE OR REPLACE TEMP TABLE _least AS
          SELECT key, min(vertex) AS least FROM _counting GROUP BY key HAVING count(*) > 1;
        CREATE OR REPLACE TABLE {out} AS
          SELECT vertex, record_id, key, least FROM _counting JOIN _least USING (key);
        DROP TABLE _counting;
        DROP TABLE _least"""
    )
