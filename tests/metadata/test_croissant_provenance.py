"""Statistics as annotations, and the lineage that reaches through a Croissant that was read."""

import json
from collections.abc import Callable
from typing import Any

import mlcroissant
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata.sample_output import DIMENSION, origin, recipe, write_table

from shardwright.errors import DataError
from shardwright.metadata import schemas
from shardwright.metadata.catalog import connect
from shardwright.metadata.croissant import croissant
from shardwright.metadata.croissant_sets import table_set
from shardwright.metadata.layout import Layout

pytest_plugins = ("metadata.outputs",)


def statistics(layout: Layout, table: str) -> dict[str, dict[str, Any]]:
    """name -> value of the annotations of each field of a record set."""
    metadata = json.loads(layout.croissant.read_bytes())
    (found,) = (item for item in metadata["recordSet"] if item["@id"] == table)
    return {
        field["name"]: {one["name"]: one["value"] for one in field.get("annotation", [])}
        for field in found["field"]
    }


def test_statistics_are_those_of_the_table(output: Layout) -> None:
    for table in ("curated", "decisions", "embeddings"):
        manifest = output.manifest(table)
        if manifest is None:
            continue
        rows = pq.read_table(manifest.folder)
        found = statistics(output, table)
        assert found.keys() == set(rows.schema.names) - {"attributes"}
        for name, values in found.items():
            column = rows[name].drop_null().to_pylist()
            if "minimum" in values:
                assert (values["minimum"], values["maximum"]) == (min(column), max(column))
                assert values["mean"] == pytest.approx(np.mean(column), rel=1e-11)
            elif "counts" in values:
                everything = rows[name].to_pylist()
                expected = {value: everything.count(value) for value in everything}
                assert dict(json.loads(values["counts"])) == expected
                assert values["distinct"] == len(expected.keys() - {None})
            elif rows.num_rows:
                told = {"record_id", "content_sha256", "path", "content", "image", "vector"}
                empty = {"revision", "representative_id", "score", "threshold"}
                assert name in told | empty


def test_counts_of_categories_are_bounded(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    curated = layout.need("curated", "shard")
    rows = pq.read_table(curated.folder).to_pylist()
    many = [row | {"repository": f"r{place:03d}"} for place, row in enumerate(rows)]
    write_table(layout, "curated", curated.schema, [("0", many)], origin("shard"))
    with connect(layout) as connection:
        node = table_set(connection, layout.need("curated", ""), annotated=True)
    (field,) = (one for one in node["field"] if one["name"] == "repository")
    told = {one["name"]: one["value"] for one in field["annotation"]}
    assert json.loads(told["counts"]) == [[f"r{place:03d}", 1] for place in range(20)]
    assert told["distinct"] == len(many) > 20


def test_numbers_that_are_not_finite_count_for_nothing(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    decisions = layout.need("decisions", "prune")
    rows = pq.read_table(decisions.folder).to_pylist()
    scores = [float("inf"), float("nan"), 1.5, None, -2.0]
    rows = [row | {"score": scores[place % 5]} for place, row in enumerate(rows)]
    write_table(layout, "decisions", decisions.schema, [("0", rows)], origin("prune"))
    with connect(layout) as connection:
        node = table_set(connection, layout.need("decisions", ""), annotated=True)
    (field,) = (one for one in node["field"] if one["name"] == "score")
    told = {one["name"]: one["value"] for one in field["annotation"]}
    assert told == {"minimum": -2.0, "maximum": 1.5, "mean": -0.25}


def test_integers_that_lose_bits_are_left_out(copied: Callable[[str], Layout]) -> None:
    """Pandas, which mlcroissant reads with, makes a float of an integer that may be null."""
    layout = copied("plain")
    schema = schemas.DECISIONS.append(pa.field("lines", pa.int64())).append(
        pa.field("width", pa.int32())
    )
    rows = [dict.fromkeys(schema.names) | {"record_id": "a", "lines": 2**53 + 1}]
    rows[0] |= {"keep": False, "stage": "prune", "reason": "size"}
    write_table(layout, "decisions", schema, [("0", rows)], origin("prune"))
    with connect(layout) as connection:
        node = table_set(connection, layout.need("decisions", ""), annotated=True)
    assert [field["name"] for field in node["field"]] == [*schemas.DECISIONS.names, "width"]
    for table in (schemas.curated("code"), schemas.curated("image"), schemas.DECISIONS):
        wide = [field.name for field in table if pa.types.is_int64(field.type) and field.nullable]
        assert wide == []


def test_vectors_tell_their_shape(code: Layout) -> None:
    for version, expected in (
        ("1.1", {"isArray": True, "arrayShape": str(DIMENSION)}),
        ("1.0", {"repeated": True}),
    ):
        metadata = croissant(code, recipe("code") | {"about": {"croissant": version}})
        (found,) = (item for item in metadata["recordSet"] if item["@id"] == "embeddings")
        (vector,) = (field for field in found["field"] if field["name"] == "vector")
        keys = {"isArray", "arrayShape", "repeated"}
        assert {key: vector[key] for key in keys & vector.keys()} == expected
        assert vector["dataType"] == "sc:Float"
        assert found["key"] == {"@id": "embeddings/record_id"}


def test_labels_and_references_are_told(outputs: dict[str, Layout]) -> None:
    metadata = json.loads(outputs["image"].croissant.read_bytes())
    fields = {field["@id"]: field for item in metadata["recordSet"] for field in item["field"]}
    assert fields["curated/label"]["dataType"] == ["sc:Text", "cr:Label"]
    told = {
        name: field["shardwright:references"]
        for name, field in fields.items()
        if "shardwright:references" in field
    }
    assert told == {
        "curated/record_id": "decisions/record_id",
        "curated/split": "splits/name",
        "decisions/representative_id": "decisions/record_id",
        "embeddings/record_id": "decisions/record_id",
    }
    assert all(target in fields for target in told.values())


def test_the_model_is_named_with_its_revision(copied: Callable[[str], Layout]) -> None:
    layout = copied("code")
    table = layout.need("embeddings", "embed")
    rows = pq.read_table(table.folder).to_pylist()
    encoder = {"name": "hub:some/model", "revision": "abc", "license": "MIT", "device": "cpu"}
    write_table(layout, "embeddings", table.schema, [("0", rows)], origin("embed", encoder=encoder))
    activities = croissant(layout, recipe("code"))["prov:wasGeneratedBy"]
    (embed,) = (activity for activity in activities if activity["name"] == "embed")
    assert embed["prov:used"][-1] == {
        "@id": "model/hub%3Asome%2Fmodel@abc",
        "@type": "prov:Entity",
        "name": "hub:some/model",
        "version": "abc",
        "license": "MIT",
    }


def read_from(layout: Layout, given: dict[str, Any] | None, uri: str) -> dict[str, Any]:
    """The Croissant of a curation whose source is a Croissant, checked by mlcroissant."""
    if given is not None:
        (layout.root / "source_croissant.json").write_text(json.dumps(given))
    stated = recipe("code") | {"source": {"kind": "croissant", "uri": uri, "name": "given"}}
    metadata = croissant(layout, stated)
    (layout.root / "tried.json").write_text(json.dumps(metadata))
    read = mlcroissant.Dataset(jsonld=str(layout.root / "tried.json"))
    assert (read.metadata.ctx.issues.errors, read.metadata.ctx.issues.warnings) == (set(), set())
    assert len(list(read.records("decisions"))) == 30
    return metadata


def test_lineage_reaches_through_two_curations(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    about = {
        "license": "https://spdx.org/licenses/MIT",
        "citation": "Someone, 2024",
        "creators": [{"name": "Someone", "type": "person"}],
    }
    first = croissant(layout, recipe("code") | {"about": about})
    address = "https://user:secret@example.org/first/croissant.json"
    second = read_from(layout, first | {"shardwright:location": address}, "/local/croissant.json")
    third = read_from(layout, second, "s3://bucket/second/croissant.json")

    came = third["prov:wasDerivedFrom"]
    assert came["prov:atLocation"] == "s3://bucket/second/croissant.json"
    deeper = came["prov:wasDerivedFrom"]
    assert deeper["prov:atLocation"] == "https://example.org/first/croissant.json"
    assert deeper["license"] == about["license"]
    assert deeper["citeAs"] == about["citation"]
    assert deeper["creator"][0]["name"] == "Someone"
    assert deeper["prov:wasDerivedFrom"]["prov:atLocation"] == "https://example.org/data"
    chains = [node["prov:wasGeneratedBy"] for node in (third, came, deeper)]
    assert [[step["name"] for step in chain] for chain in chains] == [
        [step["name"] for step in first["prov:wasGeneratedBy"]]
    ] * 3
    ids = [step["@id"] for chain in chains for step in chain]
    assert len(set(ids)) == len(ids)
    assert "user:secret" not in json.dumps(third)
    # what the first curation says of its inputs by id still leads to them
    assert (
        deeper["prov:wasGeneratedBy"][0]["prov:used"][0]["@id"]
        == (deeper["prov:wasDerivedFrom"]["@id"])
    )


def test_any_croissant_is_carried(copied: Callable[[str], Layout]) -> None:
    given = {
        "@context": {"@vocab": "https://schema.org/"},
        "@type": "sc:Dataset",
        "name": {"en": "Titanic", "fr": "Titanic (fr)"},
        "license": ["CC-BY-4.0", {"@type": "sc:CreativeWork", "name": "Terms", "text": "long"}],
        "creator": {"@type": "sc:Person", "@id": "https://orcid.org/1", "name": "B"},
        "citeAs": "B, 1912",
        "distribution": [{"@type": "cr:FileObject", "@id": "a.csv"}],
        "recordSet": [],
    }
    came = read_from(copied("plain"), given, "https://example.org/t.json")["prov:wasDerivedFrom"]
    assert came["@id"] == "source/given"
    assert came["@type"] == "prov:Entity"
    assert came["name"] == "Titanic"
    terms = {"@type": "sc:CreativeWork", "@id": "source/given/license/Terms", "name": "Terms"}
    assert came["license"] == ["CC-BY-4.0", terms]
    assert [agent["@id"] for agent in came["creator"]] == ["https://orcid.org/1"]
    assert came["citeAs"] == "B, 1912"
    assert not {"distribution", "recordSet", "@context"} & came.keys()


HOUSE = {"@type": "sc:Organization", "@id": "source/given/creator/Some%20House"}


@pytest.mark.parametrize(
    ("said", "license", "creator"),
    [
        (
            {"license": "MIT", "creator": {"@type": "Organization", "name": "Some House"}},
            "MIT",
            [HOUSE | {"name": "Some House"}],
        ),
        (  # as in documents with prefixes, and nodes that have no lasting id
            {
                "sc:license": {"@id": "https://spdx.org/licenses/MIT"},
                "schema:creator": [
                    {"@id": "_:b0", "@type": "sc:Organization", "sc:name": {"en": "Some House"}},
                    {"@type": ["schema:Person"], "name": "A", "url": "https://example.org/a"},
                    {"@type": "sc:Person"},
                ],
            },
            "https://spdx.org/licenses/MIT",
            [
                HOUSE | {"name": "Some House"},
                {
                    "@type": "sc:Person",
                    "@id": "source/given/creator/A",
                    "name": "A",
                    "url": "https://example.org/a",
                },
            ],
        ),
        (  # which mlcroissant refuses as they stand
            {"license": {"@type": "schema:CreativeWork", "url": "https://a.org"}, "creator": "B"},
            "https://a.org",
            [{"@type": "sc:Organization", "@id": "source/given/creator/B", "name": "B"}],
        ),
        ({"license": [], "creator": [{}]}, "http://spdx.org/rdf/terms#noassertion", None),
    ],
)
def test_what_the_source_states_holds_where_the_recipe_is_silent(
    copied: Callable[[str], Layout],
    said: dict[str, Any],
    license: str,
    creator: list[dict[str, Any]] | None,
) -> None:
    layout = copied("plain")
    metadata = read_from(layout, said | {"citeAs": ["Paper, 1912", {"@value": "Book"}]}, "/x")
    assert metadata["license"] == license
    nobody = [{"@type": "sc:Organization", "@id": "creator/not%20stated", "name": "not stated"}]
    assert metadata["creator"] == (creator or nobody)
    assert metadata["prov:wasDerivedFrom"].get("creator") == creator
    assert metadata["citeAs"].endswith(". Curated by Shardwright. Source: Paper, 1912; Book")
    about = {"license": "ISC", "citation": "Own", "creators": [{"name": "Me"}]}
    source = {"kind": "croissant", "uri": "/x", "name": "given"}
    stated = croissant(layout, recipe("code") | {"source": source, "about": about})
    assert (stated["license"], stated["citeAs"]) == ("ISC", "Own")
    assert [agent["name"] for agent in stated["creator"]] == ["Me"]
    assert stated["prov:wasDerivedFrom"] == metadata["prov:wasDerivedFrom"]


def test_source_croissant_is_read_only_where_the_source_is_one(
    copied: Callable[[str], Layout],
) -> None:
    layout = copied("plain")
    (layout.root / "source_croissant.json").write_text('{"license": "MIT"}')
    assert "license" not in croissant(layout, recipe("code"))["prov:wasDerivedFrom"]
    assert read_from(layout, None, "/x")["prov:wasDerivedFrom"]["license"] == "MIT"
    (layout.root / "source_croissant.json").unlink()
    assert "license" not in read_from(layout, None, "/x")["prov:wasDerivedFrom"]
    for damaged in ("{", "[]"):
        (layout.root / "source_croissant.json").write_text(damaged)
        with pytest.raises(DataError, match=r"source_croissant\.json: damaged"):
            read_from(layout, None, "/x")
