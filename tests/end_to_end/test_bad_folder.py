"""The folder of bad and odd inputs, through whole curations."""

import collections
from pathlib import Path
from typing import Any

import common
import duckdb
import pytest
from ingest.bad_inputs import Corpus, bad_folder

from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate
from shardwright.pipelines.recipe import Recipe


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Corpus]:
    return bad_folder(tmp_path_factory.mktemp("bad") / "inputs")


def test_there_are_at_least_forty_kinds(corpora: list[Corpus]) -> None:
    assert sum(len(corpus.expected) for corpus in corpora) >= 40


@pytest.mark.parametrize("number", range(9))
def test_each_input_ends_where_it_belongs(
    corpora: list[Corpus], number: int, tmp_path: Path
) -> None:
    corpus = corpora[number]
    settings: dict[str, Any] = {
        "name": "bad",
        "modality": corpus.modality,
        "source": {"kind": corpus.kind, "uri": corpus.uri},
        "limits": {"reject_threshold": 1.0, "decode_seconds": 20},
        "prune": {"scores": []},
    }
    recipe = Recipe.model_validate(settings)
    summary = curate(recipe, tmp_path / "out", beam_arguments=["--runner=FnApiRunner"])
    assert summary is not None
    common.assert_accounted(tmp_path / "out", summary)
    got = duckdb.sql(
        f"SELECT path, 'record' FROM read_parquet('{tmp_path}/out/tables/records/*.parquet') "
        "UNION ALL SELECT path, reason FROM "
        f"read_parquet('{tmp_path}/out/tables/rejects/*.parquet')"
    ).fetchall()
    assert collections.Counter(got) == collections.Counter(corpus.expected)
    assert verify(Layout(tmp_path / "out")) == []


def test_too_much_damage_stops_the_run_after_rejects_are_written(
    corpora: list[Corpus], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: bad\nmodality: code\nsource: {{kind: files, uri: '{corpora[0].uri}'}}\n"
    )
    done = common.shardwright("curate", str(recipe), "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "reject_threshold" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out" / "tables" / "rejects").glob("part-*.parquet"))
    assert not (tmp_path / "out" / "croissant.json").exists()
