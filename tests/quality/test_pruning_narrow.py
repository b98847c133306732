"""Pruning methods over narrow columns: against plain lists, and a generic solver for density."""

import subprocess
import sys
from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from shardwright.quality.pruning.cut import pruned, pruned_count, pruned_query
from shardwright.quality.pruning.density import (
    density_score,
    nearest_allocation,
    quotas,
    rounded,
    separation,
    spread_query,
)
from shardwright.quality.pruning.methods import METHODS
from shardwright.quality.pruning.prototypes import ssl_prototypes_query, ssl_prototypes_score
from shardwright.quality.pruning.relations import assignments, evaluate, relation, rows
from shardwright.quality.pruning.simple import length_query, length_score, random_score

Row = tuple[str, int, float]
K = 6


def named(pairs: list[tuple[int, float]]) -> list[Row]:
    """Rows with ids that ascend in another order than the rows stand in."""
    return [(f"{(i * 37) % 101:032x}", c, d) for i, (c, d) in enumerate(pairs)]


ROWS = st.lists(
    st.tuples(st.integers(0, K - 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.5])), max_size=60
).map(named)
SHARE = st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.8, 0.99, 1.0])
BALANCE = st.sampled_from([0.0, 0.3, 0.5, 1.0])
CENTROIDS = np.random.default_rng(0).standard_normal((K, 5)).astype(np.float32)


def columns(found: list[Row]) -> tuple[list[str], np.ndarray, np.ndarray]:
    ids, clusters, distances = zip(*found, strict=True) if found else ((), (), ())
    return list(ids), np.array(clusters, np.int32), np.array(distances, np.float64)


def kept(found: list[Row], score: np.ndarray, fraction: float) -> set[str]:
    assert score.dtype == np.float64
    assert score.shape == (len(found),)
    assert np.isfinite(score).all()
    gone = pruned([row[0] for row in found], score, fraction)
    return {row[0] for row, goes in zip(found, gone, strict=True) if not goes}


@settings(max_examples=25)
@given(ROWS, SHARE)
def test_the_lowest_go_and_of_equal_ones_the_lowest_id(found: list[Row], fraction: float) -> None:
    score = np.array([d for _, _, d in found])
    expected = sorted((d, i) for i, _, d in found)[round(fraction * len(found)) :]
    assert kept(found, score, fraction) == {i for _, i in expected}


@pytest.mark.parametrize(
    ("n", "fraction", "count"), [(7, 0.2, 1), (0, 0.5, 0), (10, 0.0, 0), (10, 1, 10), (10, 0.25, 2)]
)
def test_counts(n: int, fraction: float, count: int) -> None:
    assert pruned_count(n, fraction) == count


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_is_a_share(fraction: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        pruned_count(10, fraction)


def test_ids_must_differ_and_fit() -> None:
    with pytest.raises(ValueError, match="2 record ids are 1 different ones"):
        pruned(["a", "a"], [1.0, 2.0], 0.5)
    with pytest.raises(ValueError, match="score has shape"):
        pruned(["a", "b"], [1.0], 0.5)
    with pytest.raises(ValueError, match="distance 1 is nan"):
        assignments(["a", "b"], [0, 0], [0.5, float("nan")])


def test_values_stand_in_the_order_of_the_ids() -> None:
    ids = [f"{i:032x}" for i in range(1000)]
    table = relation(ids, score=np.arange(1000.0))
    asked = [ids[i] for i in (7, 900, 3)]
    query = "SELECT record_id, score FROM scores"
    np.testing.assert_array_equal(evaluate(query, asked, scores=table), [7, 900, 3])
    with pytest.raises(ValueError, match="3 values for 4 records"):
        evaluate(query, [*asked, "f" * 32], scores=table)


def prototypes(found: list[Row], fraction: float, keep: str, balance: float) -> set[str]:
    """Who stays: each cluster's own share first, then the best of what is left."""
    sign = 1 if keep == "hard" else -1
    best = sorted(found, key=lambda row: (sign * row[2], row[0]), reverse=True)
    room = len(found) - round(fraction * len(found))
    clusters = {c for _, c, _ in found}
    stay: list[Row] = []
    for cluster in clusters:
        share = int(balance * room / len(clusters))
        stay += [row for row in best if row[1] == cluster][:share]
    rest = [row for row in best if row not in stay]
    return {row[0] for row in stay + rest[: room - len(stay)]}


@settings(max_examples=60)
@given(ROWS, SHARE, st.sampled_from(["hard", "easy"]), BALANCE)
@example(named([(0, 0.5)] * 20 + [(1, 0.1)] * 5), 0.5, "hard", 0.5)
def test_prototypes_are_the_definition(
    found: list[Row], fraction: float, keep: str, balance: float
) -> None:
    score = ssl_prototypes_score(*columns(found), fraction, keep, balance)
    assert kept(found, score, fraction) == prototypes(found, fraction, keep, balance)


def test_balance_saves_an_ordinary_cluster() -> None:
    found = named([(0, 0.9)] * 50 + [(1, 0.1)] * 50)
    by_cluster = {row[0]: row[1] for row in found}
    for balance, expected in ((0.0, 0), (0.5, 10), (1.0, 20)):
        score = ssl_prototypes_score(*columns(found), 0.6, "hard", balance)
        assert sum(by_cluster[i] for i in kept(found, score, 0.6)) == expected


def test_without_balance_the_score_is_the_distance() -> None:
    ids, clusters, distances = columns(named([(0, 0.5), (1, 0.1)]))
    np.testing.assert_array_equal(ssl_prototypes_score(ids, clusters, distances, 0.5), distances)
    easy = ssl_prototypes_score(ids, clusters, distances, 0.5, "easy")
    np.testing.assert_array_equal(easy, -distances)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, "soft", 0.0), "keep is 'soft'"),
        ((0.5, "hard", 1.5), "balance is 1.5"),
        ((1.5, "hard", 0.5), "fraction is 1.5"),
    ],
)
def test_prototypes_refuse(arguments: tuple[float, str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ssl_prototypes_query("clusters", 10, *arguments)  # type: ignore[arg-type]


def solved(wanted: np.ndarray, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """The quadratic program by a generic solver, from a point that satisfies the constraints."""
    share = (total - low.sum()) / max((high - low).sum(), 1e-300)
    found = minimize(
        lambda x: ((x - wanted) ** 2).sum() / 2,
        low + share * (high - low),
        jac=lambda x: x - wanted,
        bounds=list(zip(low, high, strict=True)),
        constraints={
            "type": "eq",
            "fun": lambda x: x.sum() - total,
            "jac": lambda x: np.ones(len(x)),
        },
        method="SLSQP",
        options={"maxiter": 2000, "ftol": 1e-15},
    )
    return found.x


@settings(max_examples=60)
@given(st.integers(1, 50), st.floats(0, 1), st.floats(0.01, 3), st.integers(0, 2**31))
def test_the_allocation_is_the_solution_of_the_program(
    k: int, share: float, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 5, k).astype(float)
    high = low + rng.integers(0, 20, k)  # where both are equal there is no choice
    total = low.sum() + share * (high - low).sum()
    wanted = rng.dirichlet(np.full(k, spread)) * total
    found = nearest_allocation(wanted, low, high, total)
    assert found.sum() == pytest.approx(total, abs=1e-9)
    assert ((low <= found) & (found <= high)).all()
    np.testing.assert_allclose(found, solved(wanted, low, high, total), rtol=0, atol=1e-6)


def test_bounds_are_active_where_they_must_be() -> None:
    found = nearest_allocation(np.array([90.0, 5.0, 5.0]), [1, 1, 1], [20, 200, 30], 100)
    np.testing.assert_allclose(found, [20, 50, 30], atol=1e-12)
    found = nearest_allocation(np.array([99.0, 1.0, 0.0]), [0, 10, 5], [200, 200, 200], 100)
    np.testing.assert_allclose(found, [85, 10, 5], atol=1e-12)


@pytest.mark.parametrize("total", [2, 31])
def test_an_impossible_allocation_is_refused(total: float) -> None:
    with pytest.raises(ValueError, match="no allocation within the bounds"):
        nearest_allocation(np.array([1.0, 2.0]), [1, 2], [10, 20], total)


@given(st.integers(0, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_rounding_keeps_the_sum_and_the_bounds(k: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    high = rng.integers(0, 9, k)
    total = int(share * high.sum())
    wanted = rng.dirichlet(np.ones(k)) * total if k else np.zeros(0)
    x = nearest_allocation(wanted, np.zeros(k), high, total)
    counts = rounded(x, total)
    assert counts.sum() == total
    assert ((np.floor(x) <= counts) & (counts <= np.ceil(x)) & (counts <= high)).all()
    # no number that was rounded down had a larger remainder than one that was rounded up
    rest = x - np.floor(x)
    up = counts > np.floor(x)
    assert not up.any() or up.all() or rest[~up].max() <= rest[up].min()


def test_separation_is_to_the_nearest_others() -> None:
    rng = np.random.default_rng(3)
    centroids = rng.standard_normal((30, 8)).astype(np.float32)
    unit = centroids / np.linalg.norm(centroids.astype(float), axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    np.fill_diagonal(distance, np.inf)
    for neighbours in (1, 4, 20, 29, 100):
        expected = np.sort(distance, axis=1)[:, : min(neighbours, 29)].mean(axis=1)
        np.testing.assert_allclose(separation(centroids, neighbours), expected, atol=1e-7)


def test_separation_of_equal_and_of_lone_centroids() -> None:
    np.testing.assert_array_equal(separation(np.ones((40, 3), np.float32)), np.zeros(40))
    np.testing.assert_array_equal(separation(np.ones((1, 3), np.float32)), [1.0])
    np.testing.assert_array_equal(separation(np.ones((0, 3), np.float32)), [])


def program(members: list[list[Row]], room: int, tau: float, least: int) -> np.ndarray:
    """How many each cluster keeps, by the formulas of the paper and a generic solver."""
    sizes = np.array([len(mine) for mine in members], float)
    unit = CENTROIDS[[mine[0][1] for mine in members]].astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    apart = 1 - unit @ unit.T
    k = len(members)
    inter = (apart.sum(1) - apart.diagonal()) / (k - 1) if k > 1 else np.ones(1)
    intra = np.array([np.mean([d for _, _, d in mine]) for mine in members])
    power = np.exp(inter * intra / tau)
    low = np.minimum(sizes, min(least, room // k))
    return solved(power / power.sum() * room, low, sizes, room)


@settings(max_examples=40)
@given(ROWS.filter(bool), SHARE, st.sampled_from([0.05, 0.1, 0.5]), st.integers(0, 4))
def test_density_is_the_paper(found: list[Row], fraction: float, tau: float, least: int) -> None:
    score = density_score(*columns(found), CENTROIDS, fraction, tau, least)
    stay = kept(found, score, fraction)
    members = [[r for r in found if r[1] == c] for c in sorted({c for _, c, _ in found})]
    room = len(found) - round(fraction * len(found))
    assert len(stay) == room
    x = program(members, room, tau, least)
    for mine, wanted in zip(members, x, strict=True):
        best = sorted(mine, key=lambda row: (row[2], row[0]), reverse=True)
        count = sum(row[0] in stay for row in mine)
        assert stay & {row[0] for row in mine} == {row[0] for row in best[:count]}
        assert np.floor(wanted + 1e-5) <= count <= np.ceil(wanted - 1e-5)


def test_quotas_sum_up_and_leave_out_empty_clusters() -> None:
    table = pa.table(
        {
            "cluster": pa.array([0, 2, 5], pa.int32()),
            "members": [10, 50, 3],
            "spread": [0.1, 0.6, 0.3],
        }
    )
    for kept_ in (0, 1, 2, 3, 20, 62, 63):
        found = quotas(table, CENTROIDS, kept_)
        assert found.column("cluster").to_pylist() == [0, 2, 5]
        counts = found.column("quota").to_numpy()
        assert counts.sum() == kept_
        assert (counts <= [10, 50, 3]).all()
        assert kept_ < 3 or (counts >= 1).all()
    assert (quotas(table, CENTROIDS, 30, min_samples=9).column("quota").to_numpy() >= 3).all()


def test_complex_clusters_keep_more_and_a_low_tau_tells_them_apart() -> None:
    table = pa.table({"cluster": [0, 1], "members": [100, 100], "spread": [0.1, 0.6]})
    low, high = (
        quotas(table, CENTROIDS, 100, tau).column("quota").to_numpy() for tau in (0.1, 10.0)
    )
    assert low[1] > high[1] > 50


def test_density_refuses() -> None:
    found = columns(named([(0, 0.5), (1, 0.1)]))
    with pytest.raises(ValueError, match="tau is 0"):
        density_score(*found, CENTROIDS, 0.5, tau=0)
    with pytest.raises(ValueError, match="min_samples is -1"):
        density_score(*found, CENTROIDS, 0.5, min_samples=-1)
    with pytest.raises(ValueError, match="cluster 1 has no centroid: there are 1"):
        density_score(*found, CENTROIDS[:1], 0.5)


def test_spread_has_the_same_bits_in_any_order() -> None:
    rng = np.random.default_rng(0)
    ids = [f"{i:032x}" for i in range(5000)]
    clusters, distances = rng.integers(0, 3, 5000), rng.random(5000) * 10.0 ** -rng.integers(0, 9)
    seen = []
    for _ in range(4):
        order = rng.permutation(5000)
        table = assignments([ids[i] for i in order], clusters[order], distances[order])
        seen.append(rows(spread_query("clusters"), clusters=table).to_pylist())
    assert all(other == seen[0] for other in seen)
    for row in seen[0]:
        mine = distances[clusters == row["cluster"]]
        assert row["members"] == len(mine)
        assert row["spread"] == pytest.approx(mine.mean(), rel=1e-12)


SCORES: dict[str, Callable[..., np.ndarray]] = {
    "hard": lambda i, c, d: ssl_prototypes_score(i, c, d, 0.4),
    "easy": lambda i, c, d: ssl_prototypes_score(i, c, d, 0.4, "easy"),
    "balanced": lambda i, c, d: ssl_prototypes_score(i, c, d, 0.4, "hard", 0.5),
    "density": lambda i, c, d: density_score(i, c, d, CENTROIDS, 0.4),
    "random": lambda i, c, d: random_score(i, 3),
}


@pytest.mark.parametrize("method", SCORES)
@settings(max_examples=8)
@given(found=ROWS, seed=st.integers(0, 2**31))
def test_order_of_rows_changes_nothing(method: str, found: list[Row], seed: int) -> None:
    ids, clusters, distances = columns(found)
    order = np.random.default_rng(seed).permutation(len(ids))
    score = SCORES[method](ids, clusters, distances)
    shuffled = SCORES[method]([ids[i] for i in order], clusters[order], distances[order])
    np.testing.assert_array_equal(shuffled, score[order])


@pytest.mark.parametrize("method", SCORES)
@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(method: str, n: int) -> None:
    ids, clusters, distances = columns(named([(2, 0.5)] * n))
    assert SCORES[method](ids, clusters, distances).shape == (n,)


def test_length_is_bytes_or_pixels() -> None:
    table = pa.table(
        {"record_id": ["b", "a"], "bytes": [7, 2**33], "width": [3, 70_000], "height": [2, 70_000]}
    )
    np.testing.assert_array_equal(length_score(table, "code"), [7, 2**33])
    # the product does not fit the columns' own int32
    narrow = table.set_column(2, "width", table["width"].cast(pa.int32()))
    narrow = narrow.set_column(3, "height", table["height"].cast(pa.int32()))
    np.testing.assert_array_equal(length_score(narrow, "image"), [6, 4_900_000_000])
    with pytest.raises(ValueError, match="modality is 'sound'"):
        length_query("records", "sound")  # type: ignore[arg-type]


def test_random_is_even_and_depends_on_seed_and_id() -> None:
    rng = np.random.default_rng(0)
    ids = [rng.bytes(16).hex() for _ in range(20_000)]
    first, again, other = random_score(ids), random_score(ids), random_score(ids, 1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:10], random_score(np.array(ids[:10])))
    assert np.abs(np.sort(first) - np.linspace(0, 1, len(ids))).max() < 0.02
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.03
    assert ((first >= 0) & (first < 1)).all()


def test_random_is_not_the_sample_of_kmeans() -> None:
    from shardwright.embeddings import sample_keys

    ids = [f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}{0:016x}" for i in range(20_000)]
    keys = sample_keys(ids, 0) / 2**64
    assert abs(np.corrcoef(random_score(ids, 0), keys)[0, 1]) < 0.03


def test_a_query_runs_where_the_tables_are() -> None:
    found = named([(i % 3, i / 100) for i in range(60)])
    table = assignments(*columns(found))
    with duckdb.connect() as connection:
        connection.register("assigned", table)
        score = ssl_prototypes_query("assigned", 60, 0.3, balance=0.5)
        connection.execute(f"CREATE TABLE scored AS {score}")
        query = pruned_query("scored", "ssl_prototypes", 60, 0.3)
        gone = connection.sql(f"SELECT record_id FROM ({query}) WHERE pruned").fetchall()
    stay = prototypes(found, 0.3, "hard", 0.5)
    assert {i for (i,) in gone} == {row[0] for row in found} - stay


def test_methods_stand_in_the_order_of_the_columns() -> None:
    names = "scip ssl_prototypes semdedup d4 density length perplexity random scip_probe damage"
    assert [method.name for method in METHODS] == [*names.split(), "classifier"]
    for method in METHODS:
        assert method.modalities <= {"code", "image"}
        assert method.modalities
        assert method.reasons
        assert method.description.endswith(".")
    reasons = [reason for method in METHODS for reason in method.reasons]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("module", ["", ".methods"])
def test_names_load_what_they_need(module: str) -> None:
    heavy = ["torch", "duckdb", "pyarrow", "numpy", "sklearn", "scipy"]
    code = f"import sys, shardwright.quality.pruning{module}"
    code += f"; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_name_of_the_package_is_there() -> None:
    from shardwright.quality import pruning

    for name in pruning.__all__:
        assert getattr(pruning, name) is not None
    assert sorted(pruning._HOMES) == sorted(pruning.__all__) == dir(pruning)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pruning.nothing
