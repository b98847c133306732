"""Queries over arrays: the SQL of a method, run in memory by an own DuckDB over Arrow."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ids: TypeAlias = Sequence[str] | npt.NDArray[Any] | pa.Array | pa.ChunkedArray
"""n different record ids."""
Float64: TypeAlias = npt.NDArray[np.float64]


def relation(record_ids: Ids, **columns: npt.ArrayLike) -> pa.Table:
    """A table of ``record_id`` and further columns.

    Args:
        record_ids: n ids.
        columns: arrays [n] by name.

    Raises:
        ValueError: a column has another length.
    """
    ids = _strings(record_ids)
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    for name, values in arrays.items():
        if values.shape != (len(ids),):
            raise ValueError(f"{name} has shape {values.shape}: there are {len(ids)} record ids")
    return pa.table({"record_id": ids, **{name: pa.array(a) for name, a in arrays.items()}})


def assignments(record_ids: Ids, clusters: npt.ArrayLike, distances: npt.ArrayLike) -> pa.Table:
    """The relation ``clusters``: ``record_id``, ``cluster`` int32 and ``distance`` float64.

    Raises:
        ValueError: lengths differ, or a distance is NaN or infinite.
    """
    far = np.asarray(distances, np.float64)
    bad = np.flatnonzero(~np.isfinite(far))
    if len(bad):
        raise ValueError(f"distance {bad[0]} is {far[bad[0]]}: it must be finite")
    return relation(record_ids, cluster=np.asarray(clusters, np.int32), distance=far)


def rows(query: str, **relations: pa.Table) -> pa.Table:
    """Runs a query over tables, by the names that it has for them."""
    import duckdb

    with duckdb.connect() as connection:
        for name, table in relations.items():
            connection.register(name, table)
        return connection.sql(query).to_arrow_table()


def evaluate(query: str, record_ids: Ids, **relations: pa.Table) -> npt.NDArray[Any]:
    """Runs a query that yields ``record_id`` and one value for each record.

    Args:
        query: SQL over the relations.
        record_ids: n ids, the order of the result.
        relations: tables by the names that the query has for them.

    Returns:
        The values [n].

    Raises:
        ValueError: an id comes twice, or the query yields no row for one.
    """
    ids = _strings(record_ids)
    asked = pa.table({"record_id": ids, "place": pa.array(np.arange(len(ids)))})
    distinct = len(ids.unique())
    if distinct != len(ids):
        raise ValueError(f"{len(ids)} record ids are {distinct} different ones: each must be one")
    ordered = f"SELECT q.* EXCLUDE (record_id) FROM ({query}) q JOIN asked USING (record_id)"
    found = rows(f"{ordered} ORDER BY place", **relations, asked=asked)
    if found.num_rows != len(ids):
        raise ValueError(f"{found.num_rows} values for {len(ids)} records: the query leaves some")
    values: npt.NDArray[Any] = found.column(0).to_numpy()
    return values


def _strings(record_ids: Ids) -> pa.Array:
    if isinstance(record_ids, pa.ChunkedArray):
        record_ids = record_ids.combine_chunks()
    return pa.array(record_ids, pa.string()) if len(record_ids) else pa.array([], pa.string())
