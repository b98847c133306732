"""The ingest stage: what it refuses as a whole."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from shardwright.errors import DataError
from shardwright.pipelines import sources
from shardwright.pipelines.curate import curate
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.sources.types import Input, Unit


class Twins:
    """A source that breaks its promise: two units give inputs of one path."""

    def units(self, limit: int | None) -> Iterator[Unit]:
        yield Unit("one", "one", 1, "1")
        yield Unit("two", "two", 1, "1")

    def read(self, units: Sequence[Unit]) -> Iterator[Input]:
        for unit in units:
            yield Input("same.py", unit.path.encode())


def recipe(**changes: object) -> Recipe:
    base = {"name": "n", "modality": "code", "source": {"kind": "files", "uri": "x"}}
    return Recipe.model_validate({**base, **changes})


def test_two_inputs_of_one_path_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sources._KINDS, "files", lambda *_: Twins())
    with pytest.raises(DataError, match="two inputs one path"):
        curate(recipe(), tmp_path / "out", stages=["ingest"])


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    source = {"kind": "files", "uri": str(tmp_path / "in"), "include": ["**/*.py"]}
    with pytest.raises(DataError, match="nothing in it matches"):
        curate(recipe(source=source), tmp_path / "out")


def test_empty_files_do_not_count_as_damage(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(9):
        (tmp_path / "in" / f"{i}.py").write_text("")
    (tmp_path / "in" / "good.py").write_text("x = 1\n")
    source = {"kind": "files", "uri": str(tmp_path / "in")}
    limits = {"reject_threshold": 0.0}
    done = curate(recipe(source=source, limits=limits), tmp_path / "out")
    assert done is not None
    assert (done.seen, done.rejected, done.kept) == (10, 9, 1)
    (tmp_path / "in" / "bad.py").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(DataError, match="invalid_encoding 1"):
        curate(recipe(source=source, limits=limits), tmp_path / "out")
