"""The Croissant validates, and every record set is read back through mlcroissant as it is."""

import json
import math
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata.sample_output import build, origin, recipe, write_table
from PIL import Image

from shardwright.errors import UserError
from shardwright.metadata import schemas
from shardwright.metadata.credentials import without_credentials
from shardwright.metadata.croissant import croissant, write_croissant
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
    if isinstance(value, list):
        return [float(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def assert_equal_to_table(output: Layout, read: Any, table: str) -> None:
    """Every record of a record set is the row of the table, but for the maps."""
    manifest = output.need(table, "")
    expected = {}
    for row in pq.read_table(manifest.files()[0].parent).to_pylist():
        row.pop("attributes", None)
        if "image" in row:
            row["image"] = plain(Image.open(BytesIO(row["image"])))
        expected[row["record_id"]] = row
    found = {}
    for record in read.records(table):
        row = {name.removeprefix(f"{table}/"): plain(value) for name, value in record.items()}
        found[row["record_id"]] = row
    assert found == expected
    assert len(found) == manifest.rows


@pytest.mark.parametrize("table", ["curated", "decisions", "embeddings"])
def test_record_sets_equal_the_tables(output: Layout, table: str) -> None:
    if output.manifest(table) is not None:
        assert_equal_to_table(output, dataset(output), table)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("modality", ["code", "image"])
@pytest.mark.parametrize("repository", [None, "https://huggingface.co/datasets/org/name"])
def test_each_form_is_valid_and_reads_back(
    outputs: dict[str, Layout],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: str,
    modality: str,
    repository: str | None,
) -> None:
    layout = outputs[modality]
    stated = recipe(modality) | {"about": {"croissant": version}}
    metadata = croissant(layout, stated, repository=repository)
    if repository is None:
        # what is named lies beside the file
        path = tmp_path / "copy" / "croissant.json"
        shutil.copytree(layout.root, path.parent)
        path.write_text(json.dumps(metadata))
        read = mlcroissant.Dataset(jsonld=str(path))
    else:  # from anywhere: as a checker that is handed the text does
        read = mlcroissant.Dataset(jsonld=metadata, mapping={"repository": str(layout.root)})
    issues = read.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    for table in ("curated", "decisions", "embeddings"):
        assert_equal_to_table(layout, read, table)
    for record_set in metadata["recordSet"]:
        if "data" in record_set:
            assert list(read.records(record_set["@id"])) == record_set["data"]
    assert f"http://mlcommons.org/croissant/{version}" in metadata["conformsTo"]
    assert ("annotation" in json.dumps(metadata)) == (version == "1.1")


def nodes(value: Any) -> Any:
    """Every typed node of a document, the context and inline data aside."""
    if isinstance(value, dict):
        if "@type" in value:
            yield value
        for key, below in value.items():
            if key not in ("@context", "data"):
                yield from nodes(below)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def test_every_node_has_an_id_and_every_word_is_known(output: Layout) -> None:
    metadata = json.loads(output.croissant.read_bytes())
    described: dict[str, dict[str, Any]] = {}
    for node in nodes(metadata):
        if node is metadata:
            continue
        known = described.setdefault(node["@id"], node)
        assert node == known, "two nodes of one id are merged by a reader"
    words = mlcroissant.Rdf().context.keys() | {"isArray", "arrayShape", "containedIn"}
    assert metadata["@context"].keys() >= words


def test_mlcroissant_writes_it_again(code: Layout, tmp_path: Path) -> None:
    again = dataset(code).metadata.to_json()
    issues = mlcroissant.Dataset(jsonld=again).metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    assert {item["@id"] for item in again["recordSet"]} == {
        item["@id"] for item in croissant(code, recipe("code"))["recordSet"]
    }


def test_published_form_stands_beside_and_goes(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    address = "https://github.com/org/name"
    write_croissant(layout, recipe("code") | {"about": {"publish_as": address}})
    published = json.loads((layout.root / "croissant-published.json").read_bytes())
    local = json.loads(layout.croissant.read_bytes())
    assert published["distribution"][0]["contentUrl"] == published["url"] == address
    assert all(
        item["containedIn"] == {"@id": "repository"} for item in published["distribution"][1:]
    )
    assert "containedIn" not in json.dumps(local["distribution"])
    for name in ("recordSet", "prov:wasGeneratedBy", "version"):
        assert published[name] == local[name]
    write_croissant(layout, recipe("code"))
    assert not (layout.root / "croissant-published.json").exists()


@pytest.mark.parametrize("modality", ["code", "image"])
def test_tensorflow_datasets_builds_it(
    outputs: dict[str, Layout], tmp_path: Path, modality: str, tfds: ModuleType
) -> None:
    from tensorflow_datasets.core.dataset_builders.croissant_builder import CroissantBuilder

    layout = outputs[modality]
    for table in ("curated", "decisions", "embeddings"):
        builder = CroissantBuilder(
            jsonld=str(layout.croissant),
            record_set_ids=[table],
            file_format="array_record",
            data_dir=str(tmp_path),
        )
        config = tfds.download.DownloadConfig(beam_runner="FnApiRunner")
        builder.download_and_prepare(download_config=config)
        found = {row["record_id"].decode() for row in builder.as_data_source()["default"]}
        expected = pq.read_table(layout.table(table), columns=["record_id"])["record_id"]
        assert found == set(expected.to_pylist())


def test_other_readers_read_the_files(output: Layout, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not here")
    metadata = json.loads(output.croissant.read_bytes())
    for item in metadata["distribution"]:
        if item["@type"] != "cr:FileSet":
            continue
        name = item["@id"].removesuffix("-files")
        pattern = str(output.root / item["includes"])
        expected = pq.read_table(output.table(name)).to_pylist()
        quoted = pattern.replace("'", "''")
        with duckdb.connect() as connection:
            rows = connection.execute(f"SELECT record_id FROM '{quoted}'").fetchall()
        assert [row["record_id"] for row in expected] == [row for (row,) in rows]
        if not expected:
            continue  # of no rows at all datasets makes no dataset
        listed = sorted(str(path) for path in output.root.glob(item["includes"]))
        plain_columns = pa.schema(
            [field for field in output.need(name, "").schema if not pa.types.is_map(field.type)]
        )
        read = datasets.Dataset.from_parquet(
            listed,
            columns=plain_columns.names,
            features=datasets.Features.from_arrow_schema(plain_columns),
            cache_dir=str(tmp_path),
        )
        assert read["record_id"][:] == [row["record_id"] for row in expected]


def test_accounting_adds_up_to_seen(output: Layout) -> None:
    rows = list(dataset(output).records("accounting"))
    seen = sum((output.need(name, "").rows for name in ("records", "rejects")), 0)
    assert sum(row["accounting/records"] for row in rows) == seen
    assert (
        sum(row["accounting/records"] for row in rows if row["accounting/stage"] == "keep")
        == output.need("curated", "").rows
    )


def test_stages_close_and_lead_from_all_inputs_to_the_kept_records(output: Layout) -> None:
    told = {row["@id"]: row["data"] for row in croissant_of(output)["recordSet"] if "data" in row}
    dropped: dict[str, int] = {}
    for row in told["accounting"]:
        stage = row["accounting/stage"]
        dropped[stage] = dropped.get(stage, 0) + row["accounting/records"]
    kept = dropped.pop("keep")
    going = sum(output.need(name, "").rows for name in ("records", "rejects"))
    for row in told["stages"]:
        assert row["stages/records_in"] == going
        going = row["stages/records_out"]
        assert row["stages/records_in"] == row["stages/dropped"] + going
        assert row["stages/dropped"] == dropped.pop(row["stages/stage"], 0)
    assert (dropped, going) == ({}, kept)
    names = [row["stages/stage"] for row in told["stages"]]
    assert (names[0], names[-1]) == ("ingest", "shard")


def croissant_of(layout: Layout) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(layout.croissant.read_bytes())
    return metadata


def test_splits_are_counted_and_named(output: Layout) -> None:
    found = [item for item in croissant_of(output)["recordSet"] if item["@id"] == "splits"]
    counts = pq.read_table(output.table("curated"), columns=["split"])["split"].value_counts()
    expected = {item["values"]: item["counts"] for item in counts.to_pylist()}
    assert len(found) == bool(expected)
    for item in found:
        assert item["dataType"] == "cr:Split"
        rows = {row["splits/name"]: row for row in item["data"]}
        assert {name: row["splits/records"] for name, row in rows.items()} == expected
        assert rows["train"]["splits/url"] == "cr:TrainingSplit"
        assert rows["validation"]["splits/url"] == "cr:ValidationSplit"


def test_files_are_listed_with_size_and_hash(output: Layout) -> None:
    listed = {
        item["contentUrl"]: item
        for item in json.loads(output.croissant.read_bytes())["distribution"]
        if item["@type"] == "cr:FileObject"
    }
    tables = ("tables/curated", "tables/decisions", "tables/embeddings")
    folders = (*tables, "shards", "indexes")
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
    by_name = {activity["name"]: activity for activity in activities}
    assert json.loads(by_name["cluster"]["shardwright:version"]) == {
        "centroids": "1",
        "clusters": "1",
    }
    assert metadata["prov:wasDerivedFrom"]["@id"] == activities[0]["prov:used"][0]["@id"]
    assert activities[0]["prov:startedAtTime"] == "2025-10-09T08:53:20+00:00"
    told = {name: value for name, value in metadata.items() if not name.startswith("rai:")}
    assert "secret" not in json.dumps(told)
    assert told["prov:wasDerivedFrom"]["prov:atLocation"] == "https://example.org/data"


def test_password_goes_and_nothing_else() -> None:
    assert without_credentials("https://a:b@h.org/x@y") == "https://h.org/x@y"
    assert without_credentials("s3://bucket/a@b") == "s3://bucket/a@b"
    assert without_credentials("../data @ home") == "../data @ home"


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
        "creators": [
            {"name": "A. Person", "type": "person", "url": "https://example.org/a", "email": None}
        ],
        "publisher": {"name": "Some House", "type": "organization", "url": None, "email": None},
        "url": "https://example.org/data",
        "description": "Stated.",
        "version": "2.1.0",
        "keywords": ["a", "b"],
        "citation": "@misc{a}",
    }
    metadata = croissant(code, recipe("code") | {"about": about})
    for name in ("license", "url", "description", "version", "keywords"):
        assert metadata[name] == about[name]
    assert metadata["citeAs"] == about["citation"]
    assert metadata["creator"] == [
        {
            "@type": "sc:Person",
            "@id": "creator/A.%20Person",
            "name": "A. Person",
            "url": "https://example.org/a",
        }
    ]
    assert metadata["publisher"]["@type"] == "sc:Organization"
    assert croissant(code, recipe("code"))["license"] == "http://spdx.org/rdf/terms#noassertion"


def test_incomplete_curation_is_named(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    layout.drop_table("curated")
    with pytest.raises(UserError, match="stage 'shard'"):
        croissant(layout, recipe("code"))


def test_thousands_of_files_are_still_read(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    files = [ListedFile(f"train/shard.{i:05d}.mds", 1, f"{i:064x}", 1, "mds") for i in range(3000)]
    write_file_list(layout.shards, "f", origin("shard"), files)
    write_croissant(layout, recipe("code"))
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
