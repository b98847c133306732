"""The recipe: what is accepted, what is refused, and how it is said."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.errors import UserError
from shardwright.pipelines.recipe import Recipe, load_recipe

SMALL = "name: n\nmodality: code\nsource: {kind: files, uri: data}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_three_keys_are_enough(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL))
    assert recipe.limits.max_bytes == 1_000_000
    assert recipe.prune is not None
    assert (recipe.prune.fraction, recipe.prune.alpha) == (0.2, 0.8)
    assert recipe.clusters.model_dump() == {
        "k": 100,
        "seed": 0,
        "start": "sample",
        "precision": "exact",
        "device": "auto",
    }
    assert recipe.embedding is not None
    assert recipe.embedding.model == "builtin:hashing"
    assert recipe.shards.split == {"train": 0.99, "validation": 0.01}
    assert recipe.source_name == "n"


def test_images_get_the_image_encoder(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL.replace("code", "image")))
    assert recipe.embedding is not None
    assert recipe.embedding.model == "builtin:descriptor"


def test_partial_embedding_section_keeps_the_default_model(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL + "embedding: {batch_size: 8}\n"))
    assert recipe.embedding is not None
    assert (recipe.embedding.model, recipe.embedding.batch_size) == ("builtin:hashing", 8)


def test_set_values_are_yaml_and_input_replaces_the_uri(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, SMALL + "prune: null\n"),
        ["prune.fraction=0.1", "source.include=['*.c', '*.h']", "limits.max_bytes=2MB"],
        "elsewhere",
    )
    assert recipe.prune is not None
    assert recipe.prune.fraction == 0.1
    assert recipe.source.include == ("*.c", "*.h")
    assert recipe.limits.max_bytes == 2_000_000
    assert recipe.source.uri == "elsewhere"


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (SMALL + "colour: red\n", [], ["colour", "no such key"]),
        (SMALL + "limits: {max_byte: 3}\n", [], ["limits.max_byte", "no such key"]),
        (SMALL + "prune: {fraction: 1.5}\n", [], ["prune.fraction", "1.5"]),
        (SMALL + "limits: {max_bytes: 3 apples}\n", [], ["limits.max_bytes", "3 apples", "1MB"]),
        (SMALL + "clusters: {start: middle}\n", [], ["clusters.start", "middle", "'k-means++'"]),
        (SMALL + "clusters: {device: gpu}\n", [], ["clusters.device", "gpu", "'cuda'"]),
        (SMALL + "embedding: null\n", [], ["prune", "embedding is null"]),
        (SMALL + "shards: {split: {train: 0.5}}\n", [], ["split", "0.5", "add up to 1"]),
        (SMALL + "shards: {split: {../x: 1}}\n", [], ["../x"]),
        (SMALL + "name: twice\n", [], ["name", "twice"]),
        ("name: n\nmodality: sound\nsource: {kind: files, uri: d}\n", [], ["modality", "sound"]),
        ("name: n\nmodality: code\n", [], ["source"]),
        ("- a\n- b\n", [], ["name, modality and source"]),
        ("a: [", [], ["no valid YAML"]),
        ("a: !!python/object/apply:os.system ['true']", [], ["no valid YAML"]),
        (SMALL, ["prune"], ["--set", "key=value"]),
        (SMALL, ["name.x=1"], ["--set", "name"]),
        (SMALL, ["name=["], ["--set", "YAML"]),
    ],
)
def test_mistakes_are_one_clear_line(
    tmp_path: Path, text: str, overrides: list[str], words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")


@given(st.integers(1, 10**6), st.sampled_from(["", "B", "KB", "MB", "GB", "kb", " mb"]))
def test_sizes_are_powers_of_ten(number: int, unit: str) -> None:
    factor = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[unit.strip().upper()]
    recipe = Recipe.model_validate(
        {
            "name": "n",
            "modality": "code",
            "source": {"kind": "files", "uri": "d"},
            "limits": {"max_bytes": f"{number}{unit}"},
        }
    )
    assert recipe.limits.max_bytes == number * factor


@pytest.mark.parametrize("name", ["code", "images"])
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / f"{name}.yaml")
    assert recipe.prune is not None
    assert (recipe.prune.fraction, recipe.prune.alpha, recipe.clusters.k) == (0.2, 0.8, 100)
