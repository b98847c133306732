"""SCIP's ranking against a direct reading of Algorithm 1."""

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardwright.metadata.schemas import CLUSTERS
from shardwright.quality.pruning.scip import pruned_counts, ranking_query, scip


def algorithm_1(
    rows: list[tuple[str, int, float]], fraction: float, alpha: float
) -> dict[str, str]:
    """Record -> criterion, by sorting lists as the paper's listing does."""
    size = {c: sum(1 for _, other, _ in rows if other == c) for _, c, _ in rows}
    total = round(fraction * len(rows))
    by_size = round(alpha * total)
    ranked = sorted(rows, key=lambda r: (size[r[1]], -r[2], r[0]))
    pruned = {r[0]: "size" for r in ranked[:by_size]}
    rest = sorted(ranked[by_size:], key=lambda r: (-r[2], r[0]))
    return pruned | {r[0]: "distance" for r in rest[: total - by_size]}


ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.5])), max_size=60
).map(lambda pairs: [(f"{i:032x}", c, d) for i, (c, d) in enumerate(pairs)])
SHARE = st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.8, 0.99])


@given(ROWS, SHARE, st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.randoms())
@example([(f"{i:032x}", i // 4, 0.5) for i in range(10)], 0.2, 0.8, None)
def test_ranking_is_algorithm_1(
    rows: list[tuple[str, int, float]], fraction: float, alpha: float, shuffle: object
) -> None:
    given_order = list(rows)
    if shuffle is not None:
        shuffle.shuffle(given_order)  # type: ignore[attr-defined]
    table = pa.Table.from_pylist(
        [{"record_id": i, "cluster": c, "distance": d} for i, c, d in given_order], CLUSTERS
    )
    ranked = scip(table, fraction, alpha).to_pylist()
    with duckdb.connect() as connection:
        connection.register("assignments", table)
        query = ranking_query("assignments", len(rows), fraction, alpha)
        by_sql = connection.sql(f"SELECT * FROM ({query}) ORDER BY position").to_arrow_table()
    assert by_sql.to_pylist() == ranked
    expected = algorithm_1(rows, fraction, alpha)
    assert {r["record_id"]: r["criterion"] for r in ranked if r["criterion"]} == expected
    cut = pruned_counts(len(rows), fraction, alpha)[0] / max(len(rows), 1)
    assert {r["record_id"] for r in ranked if r["scip"] < cut} == set(expected)
    assert [r["position"] for r in ranked] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("n", "p", "alpha", "counts"),
    [
        (1000, 0.2, 0.8, (200, 160)),
        (7, 0.2, 0.8, (1, 1)),
        (0, 0.2, 0.8, (0, 0)),
        (10, 0, 1, (0, 0)),
    ],
)
def test_counts(n: int, p: float, alpha: float, counts: tuple[int, int]) -> None:
    assert pruned_counts(n, p, alpha) == counts
