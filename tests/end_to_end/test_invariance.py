"""The output is a function of input, recipe and version, and of nothing else."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import pytest

from shardwright.pipelines.curate import STAGES, curate
from shardwright.pipelines.recipe import load_recipe


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("code"), 200)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for path in sorted((common.PICTURES / "scikit_image").rglob("*.*"))[:40]:
        shutil.copyfile(path, folder / path.name)
    for path in sorted((common.PICTURES / "procgen").rglob("*.png"))[:80]:
        place = folder / path.parent.name / path.name
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, place)
    return folder


@pytest.fixture(scope="module", params=["code", pytest.param("image", marks=pytest.mark.slow)])
def reference(
    request: pytest.FixtureRequest,
    code: Path,
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path, Path]:
    """(modality, input, output of one worker)."""
    modality = str(request.param)
    source = code if modality == "code" else pictures
    output = tmp_path_factory.mktemp("reference")
    summary = common.run(modality, source, output)
    common.assert_accounted(output, summary)
    assert len(list((output / "tables" / "records").glob("part-*"))) > 3
    assert summary.dropped["small_cluster"] > 0
    return modality, source, output


def assert_same(one: Path, other: Path) -> None:
    assert common.contents(one) == common.contents(other)
    assert common.croissant_without_times(one) == common.croissant_without_times(other)


@pytest.mark.parametrize(
    "beam",
    [
        (
            "--runner=FnApiRunner",
            "--direct_running_mode=multi_processing",
            "--direct_num_workers=2",
        ),
        ("--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=3"),
        ("--runner=DirectRunner",),
    ],
    ids=["two-processes", "three-threads", "DirectRunner"],
)
def test_workers(reference: tuple[str, Path, Path], beam: tuple[str, ...], tmp_path: Path) -> None:
    modality, source, output = reference
    common.run(modality, source, tmp_path / "out", beam=beam)
    assert_same(output, tmp_path / "out")


def test_copy_in_another_folder_and_order(
    reference: tuple[str, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modality, source, output = reference
    copy = tmp_path / "elsewhere" / "deep"
    for path in sorted(source.rglob("*"), reverse=True):
        if path.is_file():
            place = copy / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    real = os.scandir

    class Reversed:
        """What os.scandir lists, in the opposite order of names."""

        def __init__(self, *arguments: Any) -> None:
            with real(*arguments) as entries:
                self._entries = iter(sorted(entries, key=lambda e: e.name, reverse=True))

        def __iter__(self) -> Iterator[Any]:
            return self._entries

        def __next__(self) -> Any:
            return next(self._entries)

        def __enter__(self) -> "Reversed":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    common.run(modality, copy, tmp_path / "out")
    monkeypatch.undo()
    assert_same(output, tmp_path / "out")


def test_twice_reuses_everything_and_force_gives_the_same_bytes(
    reference: tuple[str, Path, Path], tmp_path: Path
) -> None:
    modality, source, output = reference
    shutil.copytree(output, tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out" / "tables").rglob("_manifest.json")}
    croissant = (tmp_path / "out" / "croissant.json").read_bytes()
    common.run(modality, source, tmp_path / "out")
    stages = common.stage_metrics(tmp_path / "out")
    assert all(stage["parts"] == stage["reused"] for stage in stages.values())
    assert before == {p: p.read_bytes() for p in before}
    assert croissant == (tmp_path / "out" / "croissant.json").read_bytes()
    common.run(modality, source, tmp_path / "out", force=True)
    assert_same(output, tmp_path / "out")


def test_limit_is_a_prefix(reference: tuple[str, Path, Path], tmp_path: Path) -> None:
    modality, source, _ = reference
    summary = common.run(modality, source, tmp_path / "out", limit=37)
    assert summary.seen == 37


def test_stages_one_by_one_equal_one_run(reference: tuple[str, Path, Path], tmp_path: Path) -> None:
    modality, source, output = reference

    for stage in STAGES:
        curate(
            common.recipe(modality, source),
            tmp_path / "out",
            stages=[stage],
            beam_arguments=["--runner=FnApiRunner"],
        )
    assert_same(output, tmp_path / "out")


def test_recipes_differ_where_they_should(
    reference: tuple[str, Path, Path], tmp_path: Path
) -> None:
    modality, source, output = reference
    shutil.copytree(output, tmp_path / "out")
    common.run(modality, source, tmp_path / "out", "prune.fraction=0.4", "shards.seed=7")
    stages = common.stage_metrics(tmp_path / "out")
    assert stages["embed"]["reused"] == stages["embed"]["parts"]
    assert stages["embed"]["details"]["encoded"] == 0
    fresh = tmp_path / "fresh"
    common.run(modality, source, fresh, "prune.fraction=0.4", "shards.seed=7")
    assert_same(fresh, tmp_path / "out")
    assert common.contents(fresh) != common.contents(output)


def test_recipe_file_is_what_ships() -> None:
    assert load_recipe(common.ROOT / "recipes" / "code.yaml").modality == "code"
