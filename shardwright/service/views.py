"""What the pages of the service show, as blocks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

from shardwright.metadata.compare import Comparison
from shardwright.service import browse
from shardwright.service.addresses import at
from shardwright.service.blocks import (
    Bar,
    Block,
    Cell,
    Code,
    Field,
    Form,
    Gallery,
    Heading,
    Link,
    Links,
    Table,
    Words,
)
from shardwright.service.library import Held, Library
from shardwright.service.models import Found, Neighbour
from shardwright.service.overview import modality, totals
from shardwright.service.pairs import beside
from shardwright.service.samples import card
from shardwright.service.sql import Result
from shardwright.service.text import number, percent, shown

_CLUSTERS = 1000


def catalogue(library: Library) -> Iterator[Block]:
    """All curations."""
    yield Heading("Curations", 1)
    rows = []
    for name in library.names:
        held = library.get(name)
        assert held is not None
        with held.cursor() as connection:
            count = totals(held.layout, connection)
        rows.append(
            (
                Link(name, at(name)),
                modality(held.layout),
                number(count.seen),
                number(count.rejected),
                number(count.dropped),
                "" if count.kept is None else number(count.kept),
            )
        )
    heads = ("curation", "holds", "inputs", "rejected", "dropped", "kept")
    yield Table(heads, rows, range(2, 6))


def record_table(
    held: Held, page: browse.Page, wanted: Mapping[str, str], form: Form
) -> Iterator[Block]:
    """Records that pass a filter, and the way to the next."""
    yield Heading("Records", 1)
    yield form
    if not page.rows:
        yield Words("No record is like that.", soft=False)
        return
    names = [name for name in page.rows[0] if name not in ("record_id", "source")]
    rows: list[Sequence[Cell]] = []
    for row in page.rows:
        link = Link(row["path"], at(held.name, "records", row["record_id"]))
        rows.append([link, *(_value(row[name]) for name in names if name != "path")])
    heads = ["path", *(name for name in names if name != "path")]
    right = [
        place
        for place, name in enumerate(heads)
        if any(isinstance(row.get(name), int | float) for row in page.rows) and name != "keep"
    ]
    yield Table(heads, rows, right)
    if page.next is not None:
        yield Links([("next", at(held.name, "records", **wanted, after=page.next))])


def filter_form(
    held: Held, connection: duckdb.DuckDBPyConnection, wanted: Mapping[str, str]
) -> Form:
    """What records can be chosen by, as far as this curation has it."""
    tables = {manifest.table for manifest in held.layout.manifests()}
    fields = [Field("path", "path holds", wanted.get("path", ""))]
    if "decisions" in tables:
        reasons = connection.execute(
            "SELECT DISTINCT reason FROM decisions WHERE NOT keep ORDER BY 1 LIMIT 200"
        ).fetchall()
        keeps = [("", "kept and dropped"), ("true", "kept"), ("false", "dropped")]
        choices = [("", "any reason"), *((reason, reason) for (reason,) in reasons)]
        fields += [
            Field("keep", "fate", wanted.get("keep", ""), "choice", keeps),
            Field("reason", "reason", wanted.get("reason", ""), "choice", choices),
        ]
    for column in ("language", "label"):
        if column in held.layout.need("records", "ingest").schema.names:
            values = connection.execute(
                f"SELECT {column}, count(*) AS n FROM records WHERE {column} IS NOT NULL "
                "GROUP BY ALL ORDER BY n DESC, 1 LIMIT 200"
            ).fetchall()
            choices = [("", f"any {column}"), *((value, value) for value, _ in values)]
            fields.append(Field(column, column, wanted.get(column, ""), "choice", choices))
    if "clusters" in tables:
        fields.append(Field("cluster", "cluster", wanted.get("cluster", ""), "number"))
    return Form(fields, "Show")


def record_page(held: Held, record_id: str, life: Mapping[str, Any]) -> Iterator[Block]:
    """One record from its source to its shard, and beside the one whose copy it is."""
    yield Heading(str(life["path"]), 1)
    copied = life.get("representative", {}).get("record_id")
    records = held.rows.read([record_id] if copied is None else [record_id, copied])
    if record_id in records:
        yield Gallery([card(records[record_id], held.modality)])
    if copied in records and record_id in records:
        yield Heading("Beside the record that stays")
        similar = life.get("semantic_duplicates", life.get("duplicates", {})).get("similarity")
        about = life["reason"] + ("" if similar is None else f", {percent(similar, 1)}")
        yield beside(
            about,
            records[copied],
            records[record_id],
            held.modality,
            lambda one: at(held.name, "records", one),
        )
    yield Links(
        [
            ("what is near it", at(held.name, "search", record=record_id)),
            *(
                [("its cluster", at(held.name, "clusters", str(life["cluster"])))]
                if "cluster" in life
                else []
            ),
        ]
    )
    yield Heading("Its story")
    yield Table(("what", "value"), list(told(life, held.name)))


def told(life: Mapping[str, Any], name_of: str | None = None) -> Iterator[Sequence[Cell]]:
    """What is known of a record; other records lead to their pages in the named curation."""
    for name, value in life.items():
        if name in ("representative", "nearest_kept"):
            similar = value.get("similarity")
            words = f"{value['path']}" + ("" if similar is None else f" ({similar:.4f})")
            place = None if name_of is None else at(name_of, "records", value["record_id"])
            yield name, words if place is None else Link(words, place)
        elif isinstance(value, dict):
            for inner, what in value.items():
                yield f"{name}: {inner}", _value(what)
        else:
            yield name, _value(value)


def cluster_table(held: Held, connection: duckdb.DuckDBPyConnection) -> Iterator[Block]:
    """All clusters, the largest first."""
    yield Heading("Clusters", 1)
    kept = "count(*) FILTER (keep)" if held.layout.manifest("decisions") else "NULL"
    join = "JOIN decisions USING (record_id)" if held.layout.manifest("decisions") else ""
    rows = connection.execute(
        f"SELECT cluster, count(*) AS n, {kept}, avg(distance) FROM clusters {join} "
        f"GROUP BY cluster ORDER BY n DESC, cluster LIMIT {_CLUSTERS}"
    ).fetchall()
    largest = max((count for _, count, _, _ in rows), default=1)
    yield Table(
        ("cluster", "", "records", "kept", "mean distance"),
        [
            (
                Link(f"cluster {cluster}", at(held.name, "clusters", str(cluster))),
                Bar("kept", count / largest),
                number(count),
                "" if staying is None else number(staying),
                f"{distance:.4f}",
            )
            for cluster, count, staying, distance in rows
        ],
        (2, 3, 4),
    )


def cluster_page(
    held: Held, connection: duckdb.DuckDBPyConnection, cluster: int
) -> Iterator[Block]:
    """The records nearest to a cluster's centroid, and those farthest from it."""
    yield Heading(f"Cluster {cluster}", 1)
    yield Links([("all of its records", at(held.name, "records", cluster=cluster))])
    ordered = "SELECT record_id, distance FROM clusters WHERE cluster = ? ORDER BY distance"
    for title, order in (("Nearest to its centroid", "ASC"), ("Farthest from it", "DESC")):
        rows = connection.execute(f"{ordered} {order}, record_id LIMIT 8", [cluster]).fetchall()
        yield Heading(title)
        yield from record_gallery(
            held, [(record, f"distance {distance:.4f}") for record, distance in rows]
        )


def record_gallery(held: Held, found: Sequence[tuple[str, str]]) -> Iterator[Block]:
    """Records, each with a few words, as cards that lead to their pages."""
    records = held.rows.read([record_id for record_id, _ in found])
    cards = [
        card(records[record_id], held.modality, [words], at(held.name, "records", record_id))
        for record_id, words in found
        if record_id in records
    ]
    if cards:
        yield Gallery(cards)
    else:
        yield Words("None.", soft=False)


def search_results(
    held: Held, near: Sequence[Neighbour], copies: Sequence[Found]
) -> Iterator[Block]:
    """Whether an item is there already, and what is nearest to it."""
    yield Heading("Is it there already?")
    if copies:
        rows = [
            (
                Link(copy.path, at(held.name, "records", copy.record_id)),
                copy.kind,
                percent(copy.similarity, 1),
            )
            for copy in copies
        ]
        yield Table(("record", "how", "similarity"), rows, (2,))
    else:
        kinds = " or ".join(held.presence.kinds)
        yield Words(f"No: no record is a copy of it ({kinds}).", soft=False)
    if near:
        yield Heading("The nearest")
        pairs = [(one.record_id, f"cosine {one.similarity:.4f}") for one in near]
        yield from record_gallery(held, pairs)


def query_result(result: Result) -> Iterator[Block]:
    """Rows of a query."""
    rows = [[_value(value) for value in row] for row in result.rows]
    right = [
        place
        for place, kind in enumerate(result.types)
        if kind.startswith(("int", "uint", "float", "double", "decimal"))
    ]
    yield Words(f"{number(len(rows))} rows" + ("." if result.whole else "; there are more."))
    yield Table(result.columns, rows, right, label="result of the query")


def comparison_page(found: Comparison, names: tuple[str, str]) -> Iterator[Block]:
    """What changed from one curation to another."""
    sides = [
        (label, name, number(side.inputs), number(side.records), number(side.kept))
        for label, name, side in zip("AB", names, (found.a, found.b), strict=True)
    ]
    yield Table(("", "curation", "inputs", "records", "kept"), sides, (2, 3, 4))
    yield Words(f"{found.step}: {found.because}", soft=False)
    if found.groups:
        yield Heading("What happened to inputs")
        groups = [
            (one.kind, number(one.inputs), Code(shown(one.example, 100))) for one in found.groups
        ]
        yield Table(("what", "inputs", "one of them"), groups, (1,))
    if found.transitions:
        yield Heading("Changed decisions")
        rows = [
            (_state(one.before), _state(one.after), number(one.inputs), shown(one.example, 80))
            for one in found.transitions[:100]
        ]
        yield Table(("in A", "in B", "inputs", "one of them"), rows, (2,))
    if found.differences:
        yield Heading("Why")
        causes = [
            (one.stage, one.kind, shown(one.name, 60), _value(one.a), _value(one.b))
            for one in found.differences[:200]
        ]
        yield Table(("stage", "kind", "what", "A", "B"), causes)


def _state(state: tuple[str, str, str]) -> str:
    decision, stage, reason = state
    return decision if decision == "kept" else f"{decision} by {stage}: {reason}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict | list):
        return shown(json.dumps(value, ensure_ascii=False, default=str), 400)
    return "" if value is None else shown(value, 400)
