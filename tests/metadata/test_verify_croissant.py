"""Faults of the Croissant: each is found, alone, in both documents; a sound one has none."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from metadata.sample_output import recipe

from shardwright.metadata.croissant import write_croissant
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify

pytest_plugins = ("metadata.outputs",)

Copied = Callable[[str], Layout]
Node = dict[str, Any]


def spoilt(path: Path, change: Callable[[Node], object]) -> None:
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def listed(metadata: Node) -> Node:
    """A file that is listed with its hash."""
    found: Node = next(one for one in metadata["distribution"] if "contentSize" in one)
    return found


def named(metadata: Node, name: str) -> Node:
    """A record set, or a field."""
    sets = metadata["recordSet"]
    nodes = [*sets, *(field for one in sets for field in one["field"])]
    found: Node = next(node for node in nodes if node["@id"] == name)
    return found


def column(metadata: Node, field: str, other: str) -> None:
    named(metadata, field)["source"]["extract"]["column"] = other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: listed(m).update(sha256="0" * 64), "another size or sha256"),
        (lambda m: m["distribution"].remove(listed(m)), "does not list"),
        (lambda m: listed(m).update(contentUrl="tables/x"), "no manifest names"),
        (lambda m: named(m, "curated")["annotation"].update(value=1), "curated counts 1"),
        (lambda m: named(m, "curated/path").update(dataType="sc:Nothing"), "invalid"),
        (lambda m: m.pop("@type"), "invalid"),
        (lambda m: m["recordSet"][0].pop("@id"), "damaged (KeyError: '@id')"),
        (
            lambda m: named(m, "accounting")["data"][0].update({"accounting/records": 9}),
            "accounting counts 9 of ingest not_utf8, the tables hold 1",
        ),
        (
            lambda m: named(m, "accounting")["data"].pop(),
            "accounting counts 0 of keep kept, the tables hold 27",
        ),
        (
            lambda m: named(m, "stages")["data"][1].update({"stages/records_out": 28}),
            "of 30 records duplicates drops 1 and passes on 28",
        ),
        (
            lambda m: named(m, "stages")["data"][2].update({"stages/records_in": 30}),
            "30 records come to prune, 29 went on to it",
        ),
        (
            lambda m: named(m, "stages")["data"][1].update({"stages/dropped": 2}),
            "duplicates drops 2 records, accounting tells of 1",
        ),
        # what mlcroissant finds valid, and does not read, or reads wrong
        (lambda m: column(m, "curated/path", "nothing"), "curated: not readable ("),
        (
            lambda m: named(m, "curated")["field"][0]["source"]["fileSet"].update({"@id": "x"}),
            "invalid",
        ),
        (
            lambda m: m["distribution"][0].update(includes="tables/none/*.parquet"),
            "curated: no record is read, the table holds 27",
        ),
        (
            lambda m: m["distribution"][0].update(includes="tables/decisions/*.parquet"),
            "curated: not readable (",
        ),
        (
            lambda m: m["distribution"][0].update(encodingFormat="application/vnd.apache.parquet"),
            "curated: not readable (",
        ),
        (
            lambda m: named(m, "decisions/score").update(dataType="sc:Integer"),
            "decisions/score of record",
        ),
        (
            lambda m: named(m, "embeddings/vector").update(arrayShape="3"),
            "embeddings/vector has arrayShape 3, the table's lists hold 4",
        ),
        # what no reader and no table holds against it
        (lambda m: m.update(license="https://spdx.org/licenses/MIT"), "changed since it was"),
        (lambda m: m["prov:wasGeneratedBy"][0].update(name="x"), "changed since it was written"),
        (lambda m: m.pop("shardwright:seal"), "changed since it was written"),
    ],
)
def test_wrong_croissant(copied: Copied, change: Callable[[Node], object], said: str) -> None:
    layout = copied("code")
    spoilt(layout.croissant, change)
    faults = verify(layout)
    assert any(said in fault for fault in faults), faults
    assert all(fault.startswith("croissant.json: ") for fault in faults)
    assert all("\n" not in fault for fault in faults)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_form_for_a_repository(copied: Copied, version: str) -> None:
    layout = copied("code")
    about = {"publish_as": "https://example.org/data.git", "croissant": version}
    write_croissant(layout, recipe("code") | {"about": about})
    assert verify(layout) == []
    spoilt(layout.published, lambda m: column(m, "decisions/reason", "record_id"))
    faults = verify(layout)
    assert [fault.partition(" of record ")[0] for fault in faults] == [
        f"{layout.published.name}: decisions/reason"
    ]


def test_record_sets_of_damaged_tables_are_not_read(copied: Copied) -> None:
    layout = copied("code")
    path = next(layout.table("decisions").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    faults = verify(layout)
    assert len(faults) == 1
    assert faults[0].startswith(f"tables/decisions/{path.name}: holds ")


def test_tensorflow_datasets_builds_it_too(
    copied: Copied, capsys: pytest.CaptureFixture[str], tfds: ModuleType
) -> None:
    layout = copied("code")
    assert verify(layout) == []
    assert capsys.readouterr().out == ""
    spoilt(layout.croissant, lambda m: m.update(version="1"))  # which mlcroissant takes
    faults = verify(layout)
    assert len(faults) == 3
    assert all("TFDS does not build it" in fault for fault in faults)
