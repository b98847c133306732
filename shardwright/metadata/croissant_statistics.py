"""Statistics of a table's narrow columns, as annotations of Croissant 1.1."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa

from shardwright.metadata.manifest import Manifest

TOP = 20
"""Values of a column of categories that are counted one by one."""

_CATEGORIES = frozenset(
    {
        *("source", "repository", "modality", "language", "license", "split", "format", "label"),
        *("device_make", "device_model", "software", "stage", "reason", "keep", "model"),
    }
)
# The term for an arithmetic mean in the vocabulary that Croissant 1.1 uses in its own example.
_MEAN = "http://rdf-vocabulary.ddialliance.org/cv/SummaryStatisticType/2.1.2/7975ed0"
_CARDINALITY = "http://www.wikidata.org/entity/Q4049983"


def annotation(of: str, name: str, description: str, kind: Any, value: Any) -> dict[str, Any]:
    """One annotation of the record set or field ``of``: a field with a constant value."""
    return {
        "@type": "cr:Field",
        "@id": f"{of}/{name}",
        "name": name,
        "description": description,
        "dataType": kind,
        "value": value,
    }


def row_count(record_set: str, count: int) -> dict[str, Any]:
    """The number of rows of a record set."""
    return annotation(record_set, "rows", "Number of rows.", ["sc:Integer", _CARDINALITY], count)


def field_statistics(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest
) -> dict[str, list[dict[str, Any]]]:
    """Annotations by column: least, greatest and mean of numbers, counts of categories.

    Columns of ids, hashes, texts, vectors and images have none. A scan of the narrow columns;
    the numbers are the same for the same files where the connection has one thread.
    """
    found = {}
    for field in manifest.schema:
        of = f"{manifest.table}/{field.name}"
        if field.name in _CATEGORIES:
            annotations = _counts(connection, manifest.table, field.name, of)
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            annotations = _numbers(connection, manifest.table, field.name, of)
        else:
            continue
        found[field.name] = list(annotations)
    return found


def _numbers(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, of: str
) -> Iterator[dict[str, Any]]:
    row = connection.execute(
        f'SELECT min(value), max(value), avg(value) FROM (SELECT "{column}" AS value FROM {table}) '
        "WHERE isfinite(value::DOUBLE)"
    ).fetchall()[0]
    if row[0] is None:
        return
    # twelve digits: what the order of a sum may change lies behind them
    least, greatest, mean = row[0], row[1], float(f"{row[2]:.12g}")
    kind = "sc:Integer" if isinstance(least, int) else "sc:Float"
    yield annotation(of, "minimum", "Least value.", kind, least) | {
        "equivalentProperty": "sc:minValue"
    }
    yield annotation(of, "maximum", "Greatest value.", kind, greatest) | {
        "equivalentProperty": "sc:maxValue"
    }
    yield annotation(of, "mean", "Arithmetic mean.", ["sc:Float", _MEAN], mean)


def _counts(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, of: str
) -> Iterator[dict[str, Any]]:
    rows = value_counts(connection, table, column, TOP)
    if not rows:
        return
    distinct = connection.execute(f'SELECT count(DISTINCT "{column}") FROM {table}').fetchall()
    yield annotation(of, "distinct", "Number of different values.", "sc:Integer", distinct[0][0])
    yield annotation(
        of,
        "counts",
        f"JSON: the {TOP} commonest values, each with its number of rows; null where none is "
        "stated.",
        "sc:Text",
        json.dumps(rows, separators=(",", ":")),
    )


def value_counts(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, most: int
) -> list[tuple[Any, int]]:
    """The ``most`` commonest values of a column with their rows, commonest first."""
    return connection.execute(
        f'SELECT "{column}", count(*) AS n FROM {table} GROUP BY ALL '
        f'ORDER BY n DESC, "{column}" LIMIT {most}'
    ).fetchall()
