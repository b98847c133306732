"""What the report counts, against literal tables."""

import duckdb
import pytest

from shardwright.service.measures import Distribution, distributions


def measured(records: str, decisions: str, **tables: str) -> dict[str, Distribution]:
    with duckdb.connect() as connection:
        views = {"records": records, "decisions": decisions, **tables}
        for name, query in views.items():
            connection.execute(f"CREATE TABLE {name} AS {query}")
        found = distributions(connection, views.keys(), {"language"})
        return {distribution.key: distribution for distribution in found}


def test_sizes_fall_into_powers_of_two() -> None:
    found = measured(
        "SELECT * FROM (VALUES ('a', 0, 'x'), ('b', 1, 'x'), ('c', 4, NULL), ('d', 7, 'y')) "
        "AS t(record_id, bytes, language)",
        "SELECT * FROM (VALUES ('a', true), ('b', false), ('c', true), ('d', true)) "
        "AS t(record_id, keep)",
    )
    size = found["size"]
    assert size.edges == (0.5, 1.0, 2.0, 4.0, 8.0)
    assert [series.counts for series in size.series] == [(1, 1, 0, 2), (1, 0, 0, 2)]
    mix = found["language"]
    assert mix.names == ("x", "(none)", "y")
    assert [series.counts for series in mix.series] == [(2, 1, 1), (1, 1, 1)]


def test_many_names_are_bounded_and_add_up() -> None:
    found = measured(
        "SELECT range::VARCHAR AS record_id, 1 AS bytes, (range % 100)::VARCHAR AS language "
        "FROM range(1000)",
        "SELECT range::VARCHAR AS record_id, range % 2 = 0 AS keep FROM range(1000)",
    )
    mix = found["language"]
    assert mix.names is not None
    assert mix.names[-1] == "(88 others)"
    assert [sum(series.counts) for series in mix.series] == [1000, 500]


@pytest.mark.parametrize("clusters", [1, 5, 1000])
def test_clusters_distances_and_scores(clusters: int) -> None:
    found = measured(
        "SELECT range::VARCHAR AS record_id, 1 AS bytes, 'x' AS language FROM range(1000)",
        "SELECT range::VARCHAR AS record_id, range >= 200 AS keep, "
        "CASE WHEN range < 200 THEN 'prune' ELSE 'keep' END AS stage, 0.2 AS threshold, "
        "range / 1000 AS score FROM range(1000)",
        clusters=f"SELECT range::VARCHAR AS record_id, range % {clusters} AS cluster, "
        "0.5 AS distance FROM range(1000)",
        scores="SELECT range::VARCHAR AS record_id, range / 1000 AS scip, range AS length "
        "FROM range(1000)",
    )
    sizes = found["clusters"]
    assert sizes.edges is not None
    assert sizes.edges[-1] == clusters
    assert len(sizes.series[0].counts) <= 128
    assert [series.counts for series in found["distance"].series] == [(1000,), (800,)]
    scores = found["scip"]
    assert [sum(series.counts) for series in scores.series] == [1000, 800]
    assert scores.marks == (("threshold 0.2", 0.2),)
    assert found["length"].marks == (), "not what was pruned by"


def test_empty_tables() -> None:
    found = measured(
        "SELECT '' AS record_id, 1 AS bytes, '' AS language WHERE false",
        "SELECT '' AS record_id, true AS keep WHERE false",
        clusters="SELECT '' AS record_id, 1 AS cluster, 0.5 AS distance WHERE false",
    )
    assert found == {}
