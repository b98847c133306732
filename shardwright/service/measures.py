"""What the report counts: aggregates of the tables, computed by DuckDB, small whatever the data."""

from collections.abc import Collection
from dataclasses import dataclass

import duckdb

_BINS = 32
_SHOWN = 12


@dataclass(frozen=True)
class Series:
    """Counts over the same edges or names as its neighbours in a ``Distribution``."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """How records spread over a measure.

    Attributes:
        key: Short name, unique in a report.
        title: Says what is shown.
        unit: Of the measure; names the axis.
        edges: Of the bins, one more than there are; None for names.
        names: Of the categories; None for bins.
        series: What is counted, before and after.
        marks: Values worth a line, by name.
        logarithmic: Whether the edges grow by a factor.
    """

    key: str
    title: str
    unit: str
    series: tuple[Series, ...]
    edges: tuple[float, ...] | None = None
    names: tuple[str, ...] | None = None
    marks: tuple[tuple[str, float], ...] = ()
    logarithmic: bool = False


def distributions(
    connection: duckdb.DuckDBPyConnection, tables: Collection[str], columns: Collection[str]
) -> list[Distribution]:
    """All that the tables allow.

    Args:
        connection: Has a view per table.
        tables: Those that are committed.
        columns: Of ``records``.
    """
    found: list[Distribution | None] = []
    if {"records", "decisions"} <= set(tables):
        found.append(_sizes(connection))
        for column, title in (
            ("language", "Languages"),
            ("label", "Labels"),
            ("format", "Image formats"),
        ):
            if column in columns:
                found.append(_mix(connection, column, title))
    if "clusters" in tables:
        found.append(_cluster_sizes(connection, "decisions" in tables))
        found.append(
            _spread(connection, "distance", "Distance to the nearest centroid", "clusters", tables)
        )
    if "scores" in tables:
        found += [
            _spread(connection, name, f"Score: {name}", "scores", tables)
            for (name, *_) in connection.execute("DESCRIBE scores").fetchall()
            if name != "record_id"
        ]
    return [distribution for distribution in found if distribution is not None]


def _sizes(connection: duckdb.DuckDBPyConnection) -> Distribution | None:
    rows = connection.execute(
        "SELECT CASE WHEN bytes = 0 THEN 0 ELSE floor(log2(bytes))::INTEGER + 1 END AS bin, "
        "count(*), count(*) FILTER (keep) "
        "FROM records JOIN decisions USING (record_id) GROUP BY bin ORDER BY bin"
    ).fetchall()
    if not rows:
        return None
    counts = {low: (records, kept) for low, records, kept in rows}
    bins = range(rows[0][0], rows[-1][0] + 1)
    # Bin 0 is the empty record, bin b > 0 holds [2^(b-1), 2^b).
    edges = [0.5 if b == 0 else 2.0 ** (b - 1) for b in bins] + [2.0 ** bins[-1]]
    return Distribution(
        "size",
        "Record size",
        "bytes",
        _before_after([counts.get(b, (0, 0)) for b in bins]),
        edges=tuple(edges),
        logarithmic=True,
    )


def _before_after(counts: list[tuple[int, int]]) -> tuple[Series, ...]:
    return (
        Series("all records", tuple(records for records, _ in counts)),
        Series("kept", tuple(kept for _, kept in counts)),
    )


def _mix(connection: duckdb.DuckDBPyConnection, column: str, title: str) -> Distribution | None:
    mix = (
        f"WITH mix AS (SELECT coalesce({column}, '(none)') AS name, count(*) AS records, "
        "count(*) FILTER (keep) AS kept FROM records JOIN decisions USING (record_id) "
        "GROUP BY name)"
    )
    shown = connection.execute(
        f"{mix} FROM mix ORDER BY records DESC, name LIMIT {_SHOWN}"
    ).fetchall()
    if not shown or (len(shown) == 1 and shown[0][0] == "(none)"):
        return None
    rest = connection.execute(
        f"{mix} SELECT count(*), coalesce(sum(records), 0)::BIGINT, coalesce(sum(kept), 0)::BIGINT "
        f"FROM (FROM mix ORDER BY records DESC, name OFFSET {_SHOWN})"
    ).fetchall()[0]
    if rest[0]:
        shown.append((f"({rest[0]:,} others)", *rest[1:]))
    return Distribution(
        column,
        title,
        "records",
        _before_after([(records, kept) for _, records, kept in shown]),
        names=tuple(name for name, _, _ in shown),
    )


def _cluster_sizes(connection: duckdb.DuckDBPyConnection, decided: bool) -> Distribution | None:
    """Sizes from the largest cluster down, bundled where there are many clusters."""
    kept = "count(*) FILTER (keep)" if decided else "count(*)"
    join = "JOIN decisions USING (record_id)" if decided else ""
    rows = connection.execute(
        f"SELECT count(*) AS records, {kept} FROM clusters {join} "
        "GROUP BY cluster ORDER BY records DESC, cluster"
    ).fetchall()
    if not rows:
        return None
    step = -(-len(rows) // 128)
    bundles = [rows[i : i + step] for i in range(0, len(rows), step)]
    each = "" if step == 1 else f", mean of {step} at a time"
    return Distribution(
        "clusters",
        f"Cluster sizes, {len(rows):,} clusters",
        f"cluster, by size{each}",
        _before_after(
            [
                (
                    round(sum(r for r, _ in bundle) / len(bundle)),
                    round(sum(k for _, k in bundle) / len(bundle)),
                )
                for bundle in bundles
            ]
        ),
        edges=tuple(float(min(i * step, len(rows))) for i in range(len(bundles) + 1)),
    )


def _spread(
    connection: duckdb.DuckDBPyConnection,
    column: str,
    title: str,
    table: str,
    tables: Collection[str],
) -> Distribution | None:
    """Equal bins between the least and the greatest value, with the threshold of pruning."""
    decided = "decisions" in tables
    low, high, count = connection.execute(
        f"SELECT min({column})::DOUBLE, max({column})::DOUBLE, count(*) FROM {table}"
    ).fetchall()[0]
    if not count:
        return None
    width = (high - low) / _BINS or 1.0
    join = "JOIN decisions USING (record_id)" if decided else ""
    rows = connection.execute(
        f"SELECT least(floor(({column} - ?) / ?), {_BINS - 1})::INTEGER AS bin, count(*), "
        f"{'count(*) FILTER (keep)' if decided else 'count(*)'} "
        f"FROM {table} {join} GROUP BY bin",
        [low, width],
    ).fetchall()
    counts = {place: (records, kept) for place, records, kept in rows}
    bins = _BINS if high > low else 1
    marks: list[tuple[str, float]] = []
    if decided and table == "scores":
        cuts = connection.execute(
            "SELECT DISTINCT threshold FROM decisions JOIN scores USING (record_id) "
            "WHERE stage IN ('prune', 'keep') AND threshold IS NOT NULL "
            f"GROUP BY threshold HAVING bool_and(decisions.score = scores.{column}) "
            "ORDER BY threshold LIMIT 3"
        ).fetchall()
        marks = [(f"threshold {cut:.6g}", float(cut)) for (cut,) in cuts]
    return Distribution(
        column,
        title,
        column,
        _before_after([counts.get(b, (0, 0)) for b in range(bins)]),
        edges=tuple(low + width * i for i in range(bins + 1)),
        marks=tuple(marks),
    )
