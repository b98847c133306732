"""The recipe's section ``about``: what it takes, what strict metadata asks for, where it goes."""

import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
import yaml
from metadata.sample_output import build
from typer.testing import CliRunner

from shardwright.errors import UserError
from shardwright.metadata.croissant import croissant
from shardwright.pipelines.about import About, check_metadata, missing
from shardwright.pipelines.cli import app
from shardwright.pipelines.recipe import load_recipe

FULL: dict[str, Any] = {
    "description": "Files of code.",
    "license": "https://spdx.org/licenses/Apache-2.0",
    "url": "https://example.org/data",
    "creators": ["Some House", {"name": "A. Person", "type": "person", "email": "a@example.org"}],
    "publisher": "Some House",
    "version": "1.2.0",
    "keywords": ["code", "training"],
    "citation": "@misc{data}",
    "collection": "Crawled.",
    "collection_type": "Web Scraping",
    "timeframe": ["2024-01-01", "2024-06-30"],
    "biases": "Mostly English.",
    "limitations": ["Old."],
    "use_cases": "Pretraining.",
    "social_impact": "Small.",
    "sensitive_information": "Names of authors.",
    "maintenance": "None planned.",
    "synthetic": False,
}


def recipe_file(folder: Path, about: dict[str, Any] | None) -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / "a.py").write_text("a = 1\n")
    recipe: dict[str, Any] = {
        "name": "sample",
        "modality": "code",
        "source": {"kind": "files", "uri": str(data)},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | ({} if about is None else {"about": about})))
    return path


def test_stated_values_reach_the_croissant(tmp_path: Path) -> None:
    layout = build(tmp_path / "out", embedding=False)
    resolved = load_recipe(recipe_file(tmp_path, FULL | {"croissant": 1.0}))
    metadata = croissant(layout, resolved.model_dump(mode="json"))
    assert [one["name"] for one in metadata["creator"]] == ["Some House", "A. Person"]
    assert [one["@type"] for one in metadata["creator"]] == ["sc:Organization", "sc:Person"]
    assert metadata["publisher"]["name"] == "Some House"
    assert metadata["rai:dataCollectionTimeframe"] == ["2024-01-01", "2024-06-30"]
    assert metadata["rai:dataUseCases"] == ["Pretraining."]
    assert metadata["rai:hasSyntheticData"] is False
    assert metadata["conformsTo"][0].endswith("/1.0")
    (layout.root / "croissant.json").write_text(json.dumps(metadata))
    issues = mlcroissant.Dataset(jsonld=str(layout.croissant)).metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())


def test_strict_metadata_names_all_that_is_missing() -> None:
    assert missing(About.model_validate(FULL)) == []
    check_metadata(About.model_validate(FULL))
    for name in FULL:
        stated = {key: value for key, value in FULL.items() if key != name}
        assert [key for key, _ in missing(About.model_validate(stated))] == [name]
    with pytest.raises(UserError) as caught:
        check_metadata(About(license="MIT"))
    text = str(caught.value)
    assert f"leaves out {len(FULL) - 1} values" in text
    for name in FULL:
        assert (f"about.{name}: " in text) == (name != "license")


def test_strict_metadata_stops_before_anything_runs(tmp_path: Path) -> None:
    arguments = ["curate", str(recipe_file(tmp_path, None)), "--output", str(tmp_path / "out")]
    failed = CliRunner().invoke(app, [*arguments, "--strict-metadata"])
    assert isinstance(failed.exception, UserError)
    assert not (tmp_path / "out").exists()
    recipe_file(tmp_path, FULL)
    done = CliRunner().invoke(app, [*arguments, "--strict-metadata", "--dry-run"])
    assert done.exit_code == 0, done.exception


def test_publish_as_is_a_key_of_the_recipe(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, FULL)
    address = "https://huggingface.co/datasets/org/name"
    arguments = ["curate", str(path), "--output", str(tmp_path / "out"), "--dry-run"]
    shown = CliRunner().invoke(app, [*arguments, "--publish-as", address])
    assert f"publish_as: {address}" in shown.output
    assert load_recipe(path, [f"about.publish_as={address}"]).about.publish_as == address
    refused = CliRunner().invoke(app, [*arguments, "--publish-as", "org/name: x"])
    assert "about.publish_as: 'org/name: x' is no web address" in str(refused.exception)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("url", "example.org", "no web address"),
        ("publish_as", "https://me:token@github.com/a/b", "everyone would read"),
        ("version", "v1", "no semantic version"),
        ("version", 1.2, "no semantic version"),
        ("croissant", "1.2", "croissant"),
        ("timeframe", "spring", "timeframe"),
        ("creators", [{"name": "x", "mail": "y"}], "no such key"),
        ("licence", "MIT", "no such key"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, key: str, value: object, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load_recipe(recipe_file(tmp_path, {key: value}))
    assert f"about.{key}" in str(caught.value)


def test_every_key_stands_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text()
    for name in About.model_fields:
        assert f"`about.{name}`" in page or f", `{name}`" in page, name
