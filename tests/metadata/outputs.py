"""Fixtures: finished output folders."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from metadata.sample_output import build

from shardwright.metadata.layout import Layout


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layout]:
    """Finished output folders that no test may change, by name."""
    root = tmp_path_factory.mktemp("outputs")
    return {
        "code": build(root / "code it's", "code"),
        "image": build(root / "image", "image"),
        "plain": build(root / "plain", "code", embedding=False),
        "nothing kept": build(root / "nothing", "code", keep=False),
    }


@pytest.fixture(params=["code", "image", "plain", "nothing kept"])
def output(request: pytest.FixtureRequest, outputs: dict[str, Layout]) -> Layout:
    return outputs[request.param]


@pytest.fixture
def code(outputs: dict[str, Layout]) -> Layout:
    return outputs["code"]


@pytest.fixture
def copied(outputs: dict[str, Layout], tmp_path: Path) -> Callable[[str], Layout]:
    """Copies one of the outputs, to be spoilt."""

    def copy(name: str) -> Layout:
        return Layout(Path(shutil.copytree(outputs[name].root, tmp_path / "out")))

    return copy
