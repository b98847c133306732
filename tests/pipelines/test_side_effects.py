"""Side effects against counting in Python."""

import random
from collections import Counter

import duckdb
import pyarrow as pa
import pytest

from shardwright.pipelines.quality_sections import Prune
from shardwright.pipelines.side_effects import groupings, prepare_side_effects, side_effects_query

METHODS = ("scip", "length")


def corpus(modality, count=331):
    drawn = random.Random(0)
    rows = []
    for i in range(count):
        row = {"record_id": f"{i:032x}", "bytes": drawn.choice([1, 1, 1, 10, 20, 20, 30, 40])}
        repository = f"r{min(int(drawn.expovariate(0.03)), 90)}"
        row |= {"repository": drawn.choice([None, repository, repository])}
        if modality == "code":
            row |= {"language": drawn.choice(["Go", "C", None]), "license": None}
        else:
            row |= {"label": drawn.choice(["cat", "dog"])}
            row |= {"device": drawn.choice(["Acme One", "Acme Two", None])}
        row |= {name: drawn.choice([0.0, 0.1, 0.2, 0.7]) for name in METHODS}
        rows.append(row)
    return rows


def found(modality, rows, prune):
    with duckdb.connect() as connection:
        split = ("record_id", *METHODS)
        connection.register(
            "scores", pa.Table.from_pylist([{n: row[n] for n in split} for row in rows])
        )
        connection.register(
            "records",
            pa.Table.from_pylist(
                [{n: row[n] for n in row if n not in (*METHODS, "device")} for row in rows]
            ),
        )
        devices = "device" in rows[0]
        if devices:
            groups = [{"record_id": row["record_id"], "group": row["device"]} for row in rows]
            connection.register("device_statistics", pa.Table.from_pylist(groups))
        grouped = groupings(modality, devices)
        prepare_side_effects(connection, grouped, prune, METHODS)
        return connection.execute(side_effects_query(grouped)).fetchall()


def gone(rows, method, prune):
    """Ids that go, of all records or of each group of them."""
    groups = {}
    for row in rows:
        groups.setdefault((row[prune.within] or "") if prune.within else None, []).append(row)
    ids = set()
    for members in groups.values():
        ranked = sorted(members, key=lambda row: (row[method], row["record_id"]))
        ids |= {row["record_id"] for row in ranked[: round(prune.fraction * len(members))]}
    return ids


def band(size, rows):
    ordered = sorted(row["bytes"] for row in rows)
    quarters = [ordered[-(-len(ordered) * i // 4) - 1] for i in (1, 2, 3)]
    for place, most in enumerate(quarters, 1):
        if size <= most:
            return f"{place}: at most {most} bytes"
    return f"4: above {quarters[-1]} bytes"


@pytest.mark.parametrize(
    ("modality", "settings"),
    [
        ("code", {"fraction": 0.2}),
        ("code", {"fraction": 0.35, "within": "language"}),
        ("image", {"fraction": 0.5}),
        ("image", {"fraction": 0.0, "within": "label"}),
        ("image", {"fraction": 0.3, "within": "device"}),
    ],
)
def test_counts(modality, settings):
    rows, prune = corpus(modality), Prune(**settings)
    repositories = Counter(row["repository"] or "" for row in rows)
    assert len(repositories) > 50
    largest = sorted(repositories, key=lambda name: (-repositories[name], name))[:50]
    expected = {}
    for method in METHODS:
        pruned = gone(rows, method, prune)
        for row in rows:
            groups = {"length_band": band(row["bytes"], rows)}
            repository = row["repository"] or ""
            groups["repository"] = repository if repository in largest else "others"
            own = ("language", "license") if modality == "code" else ("label", "device")
            groups |= {name: row[name] or "" for name in own}
            for grouping, group in groups.items():
                counts = expected.setdefault((method, grouping, group), [0, 0])
                counts[0] += 1
                counts[1] += row["record_id"] in pruned
    table = found(modality, rows, prune)
    assert {row[:3]: list(row[3:5]) for row in table} == expected
    assert len(table) == len(expected)
    assert all(share == pruned / records for *_, records, pruned, share in table)


def test_the_order_of_rows_decides_nothing():
    rows = corpus("code")
    backwards = found("code", rows[::-1], Prune())
    assert found("code", rows, Prune()) == backwards
