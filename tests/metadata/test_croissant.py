"""The Croissant validates, and every record set is read back through mlcroissant as it is."""

import json
import math
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata.sample_output import build, origin, recipe, write_table
from PIL import Image

from shardwright.errors import UserError
from shardwright.metadata import schemas
from shardwright.metadata.croissant import croissant, without_password, write_croissant
from shardwright.metadata.filelist import ListedFile, write_file_list
from shardwright.metadata.files import sha256_file
from shardwright.metadata.layout import Layout

pytest_plugins = ("metadata.outputs",)


def dataset(layout: Layout) -> Any:
    return mlcroissant.Dataset(jsonld=str(layout.croissant))


def test_valid_without_a_warning(output: Layout, caplog: pytest.LogCaptureFixture) -> None:
    issues = dataset(output).metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def plain(value: Any) -> Any:
    """A value as comparable with the table's: text is read as bytes, images as pictures."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Image.Image):
        return (value.size, value.convert("RGB").tobytes())
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


@pytest.mark.parametrize("table", ["curated", "decisions"])
def test_record_sets_equal_the_tables(output: Layout, table: str) -> None:
    manifest = output.manifest(table)
    assert manifest is not None
    expected = {}
    for row in pq.read_table(manifest.files()[0].parent).to_pylist():
        row.pop("attributes", None)
        if "image" in row:
            row["image"] = plain(Image.open(BytesIO(row["image"])))
        expected[row["record_id"]] = row
    found = {}
    for record in dataset(output).records(table):
        row = {name.removeprefix(f"{table}/"): plain(value) for name, value in record.items()}
        found[row["record_id"]] = row
    assert found == expected
    assert len(found) == manifest.rows


def test_accounting_adds_up_to_seen(output: Layout) -> None:
    rows = list(dataset(output).records("accounting"))
    seen = sum((output.need(name, "").rows for name in ("records", "rejects")), 0)
    assert sum(row["accounting/records"] for row in rows) == seen
    assert (
        sum(row["accounting/records"] for row in rows if row["accounting/stage"] == "keep")
        == output.need("curated", "").rows
    )


def test_files_are_listed_with_size_and_hash(output: Layout) -> None:
    listed = {
        item["contentUrl"]: item
        for item in json.loads(output.croissant.read_bytes())["distribution"]
        if item["@type"] == "cr:FileObject"
    }
    folders = ("tables/curated", "tables/decisions", "shards", "indexes")
    files = [p for f in folders for p in (output.root / f).rglob("*") if p.is_file()]
    expected = {p.relative_to(output.root).as_posix(): p for p in files if p.name[0] != "_"}
    assert listed.keys() == expected.keys()
    for name, path in expected.items():
        assert listed[name]["sha256"] == sha256_file(path)
        assert listed[name]["contentSize"] == f"{path.stat().st_size} B"


def test_lineage_joins_the_stages_by_hash(code: Layout) -> None:
    metadata = croissant(code, recipe("code"))
    activities = metadata["prov:wasGeneratedBy"]
    names = [activity["name"] for activity in activities]
    assert set(names) == {
        *("ingest", "duplicates", "embed", "index", "cluster", "score", "prune", "shard"),
    }
    made: set[str] = set()
    for activity in activities:
        made |= {entity["@id"] for entity in activity["prov:generated"]}
        json.loads(activity["shardwright:parameters"])
    for activity in activities[1:]:
        for entity in activity["prov:used"]:
            assert entity["@id"] in made
    assert metadata["prov:wasDerivedFrom"]["@id"] == activities[0]["prov:used"][0]["@id"]
    assert activities[0]["prov:startedAtTime"] == "2025-10-09T08:53:20+00:00"
    assert "secret" not in json.dumps(metadata)


def test_password_goes_and_nothing_else() -> None:
    assert without_password("https://a:b@h.org/x@y") == "https://h.org/x@y"
    assert without_password("s3://bucket/a@b") == "s3://bucket/a@b"
    assert without_password("../data @ home") == "../data @ home"


def test_same_tables_same_metadata(tmp_path: Path) -> None:
    one, two = build(tmp_path / "one", count=14), build(tmp_path / "two", count=14)
    assert one.croissant.read_bytes() == two.croissant.read_bytes()


def test_other_tables_other_version(tmp_path: Path, code: Layout) -> None:
    other = build(tmp_path / "other", count=14)
    versions = {croissant(layout, recipe("code"))["version"] for layout in (other, code)}
    assert len(versions) == 2


def test_what_the_recipe_states_stands(code: Layout) -> None:
    about = {
        "license": "https://spdx.org/licenses/MIT",
        "creator": "A. Person",
        "url": "https://example.org/data",
        "description": "Stated.",
        "version": "2.1.0",
    }
    metadata = croissant(code, recipe("code") | {"about": about})
    assert metadata["license"] == about["license"]
    assert metadata["creator"] == {"@type": "sc:Organization", "name": "A. Person"}
    assert (metadata["version"], metadata["url"]) == ("2.1.0", about["url"])
    assert croissant(code, recipe("code"))["license"] == "http://spdx.org/rdf/terms#noassertion"


def test_incomplete_curation_is_named(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    layout.drop_table("curated")
    with pytest.raises(UserError, match="stage 'shard'"):
        croissant(layout, recipe("code"))


def test_thousands_of_files_are_quick_and_still_read(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    files = [ListedFile(f"train/shard.{i:05d}.mds", 1, f"{i:064x}", 1, "mds") for i in range(3000)]
    write_file_list(layout.shards, "f", origin("shard"), files)
    started = time.monotonic()
    write_croissant(layout, recipe("code"))
    assert time.monotonic() - started < 5
    assert layout.croissant.stat().st_size < 2_000_000
    assert len(list(dataset(layout).records("decisions"))) == 30


def test_no_input_at_all(copied: Callable[[str], Layout]) -> None:
    layout = copied("nothing kept")
    for name, schema in (
        ("records", schemas.CODE_RECORDS),
        ("rejects", schemas.REJECTS),
        ("decisions", schemas.DECISIONS),
    ):
        write_table(layout, name, schema, [], origin("ingest"))
    write_croissant(layout, recipe("code"))
    rows = list(dataset(layout).records("accounting"))
    assert rows == [
        {"accounting/stage": "keep", "accounting/reason": "kept", "accounting/records": 0}
    ]
    assert isinstance(schemas.DECISIONS, pa.Schema)
