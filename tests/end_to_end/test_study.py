"""The study of damage: whole curations, and the scores that come of it."""

import shutil
from pathlib import Path
from typing import Any

import common
import numpy as np
import pytest

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate
from shardwright.pipelines.stages.study import STUDIED
from shardwright.quality.corruptions import corruptions
from shardwright.quality.observations import views
from shardwright.quality.pruning.cut import pruned

PLAIN = (
    "index=null",
    "limits.part_bytes=100KB",
    "limits.max_bytes=30KB",  # of long files no more is learned here
    "clusters.k=7",
    "filters=[]",
    "duplicates.near=null",
    "prune.scores=null",
    "study.documents=40",
    "study.copies=1",
)
BEAM = ("--runner=FnApiRunner", "--direct_num_workers=1")
TABLES = ("corrupted", "corruption_study", "detectors", "views")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("code"), 70)


@pytest.fixture(scope="module")
def studied(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("studied") / "out"
    summary = common.run("code", code, output, *PLAIN)
    common.assert_accounted(output, summary)
    return output


def columns(output: Path, query: str) -> dict[str, np.ndarray[Any, Any]]:
    with connect(Layout(output)) as connection:
        return dict(connection.sql(query).fetchnumpy())


def rows(output: Path, table: str) -> int:
    return Layout(output).need(table, "").rows


def listed(output: Path, query: str) -> list[tuple[Any, ...]]:
    with connect(Layout(output)) as connection:
        return connection.execute(query).fetchall()


def new_parts(output: Path, stage: str) -> int:
    """How many parts a stage of the last run made anew."""
    done = common.stage_metrics(output)[stage]
    return int(done["parts"] - done["reused"])


def assert_lowest_go(output: Path, method: str, reason: str, fraction: float) -> None:
    found = columns(
        output,
        f"SELECT record_id, s.{method} AS wanted, keep, reason, score "
        "FROM scores AS s JOIN decisions USING (record_id) ORDER BY record_id",
    )
    gone = pruned([str(i) for i in found["record_id"]], found["wanted"], fraction)
    assert gone.sum() == round(fraction * len(gone))
    np.testing.assert_array_equal(found["keep"], ~gone)
    np.testing.assert_array_equal(found["score"], found["wanted"])
    assert set(found["reason"][gone]) == {reason}


def test_the_tables_are_there_and_sound(studied: Path) -> None:
    assert verify(Layout(studied)) == []
    alive = rows(studied, "embeddings")
    assert rows(studied, "views") == rows(studied, "scores") == alive >= 40
    detectors = columns(studied, "SELECT name FROM detectors")
    assert detectors["name"].tolist() == ["detectors", "models"]
    corrupted = columns(studied, "SELECT * FROM corrupted")
    # one copy of each of the sample that can be damaged
    assert 30 <= len(corrupted["record_id"]) <= 40
    assert len(set(corrupted["record_id"])) == len(corrupted["record_id"])
    kinds = corruptions("code")
    for kind, family in zip(corrupted["corruption"], corrupted["family"], strict=True):
        assert kinds[kind].family == family
    effects = columns(studied, "SELECT * FROM corruption_study")
    assert effects["corruption"].tolist() == sorted(set(corrupted["corruption"]))
    assert effects["pairs"].sum() == len(corrupted["record_id"])


def test_effects_and_places_are_those_of_the_corrupted(studied: Path) -> None:
    """A record that was damaged is held against its own place among the clusters."""
    held = columns(
        studied,
        "SELECT cluster_before, cluster_size_before, distance_before, c.cluster, c.distance, n "
        "FROM corrupted JOIN clusters AS c USING (record_id) JOIN (SELECT cluster, count(*) AS n "
        "FROM clusters GROUP BY cluster) AS s ON c.cluster = s.cluster",
    )
    np.testing.assert_array_equal(held["cluster_before"], held["cluster"])
    np.testing.assert_array_equal(held["cluster_size_before"], held["n"])
    np.testing.assert_allclose(held["distance_before"], held["distance"], atol=1e-6)
    for kind, moved, grown, farther in listed(
        studied,
        "SELECT corruption, avg((cluster <> cluster_before)::DOUBLE), "
        "avg(ln(cluster_size / cluster_size_before)), avg(distance - distance_before) "
        "FROM corrupted GROUP BY corruption",
    ):
        ((m, s, d),) = listed(
            studied,
            f"SELECT moved, size, distance FROM corruption_study WHERE corruption = '{kind}'",
        )
        assert (m, s, d) == pytest.approx((moved, grown, farther))


def test_scores_are_what_the_views_say(studied: Path) -> None:
    found = columns(
        studied,
        "SELECT s.perplexity, s.scip_probe, s.damage, v.cloze, v.scip_probe AS probed, "
        "v.damage AS judged, v.damage_view FROM scores AS s JOIN views AS v USING (record_id)",
    )
    for name in STUDIED:
        assert np.isfinite(found[name]).all()
        assert len(np.unique(found[name])) > 10
    np.testing.assert_array_equal(found["scip_probe"], -found["probed"])
    np.testing.assert_array_equal(found["damage"], -found["judged"])
    cloze = np.ma.filled(found["cloze"].astype(float), np.nan)
    known = ~np.isnan(cloze)
    assert known.sum() > 40
    np.testing.assert_array_equal(found["perplexity"][known], -cloze[known])
    assert set(found["perplexity"][~known]) <= {-np.median(cloze[known])}
    names = {view.name for view in views("code")} | {"scip_probe", "rare", "far", "length"}
    assert {name for name in found["damage_view"].tolist() if name} <= names


def test_damage_prunes_the_lowest(studied: Path, code: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(studied, tmp_path / "out"))
    settings = ("prune.method=damage", "prune.fraction=0.3")
    summary = common.run("code", code, output, *PLAIN, *settings)
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == []
    assert_lowest_go(output, "damage", "damaged", 0.3)
    # neither the method nor the fraction decides what is studied
    assert new_parts(output, "study") == 0
    before, after = common.contents(studied), common.contents(output)
    for name in before:
        if name.split("/")[1] in TABLES:
            assert after[name] == before[name], name


def test_workers_and_a_second_run_change_nothing(studied: Path, code: Path, tmp_path: Path) -> None:
    beam = ("--runner=FnApiRunner", "--direct_num_workers=3")
    beam += ("--direct_running_mode=multi_threading",)
    recipe = common.recipe("code", code, *PLAIN)
    until_scores = ["ingest", "duplicates", "embed", "cluster", "study", "score"]
    curate(recipe, tmp_path, beam_arguments=beam, stages=until_scores)
    found, expected = common.contents(tmp_path), common.contents(studied)
    assert {f"tables/{table}" for table in (*TABLES, "scores")} <= {
        name.rsplit("/", 1)[0] for name in found
    }
    assert found == {name: expected[name] for name in found}
    curate(recipe, tmp_path, beam_arguments=beam, stages=until_scores[-2:])
    assert common.contents(tmp_path) == found
    assert (new_parts(tmp_path, "study"), new_parts(tmp_path, "score")) == (0, 0)


def test_what_is_studied_follows_the_recipe(studied: Path, code: Path, tmp_path: Path) -> None:
    """Families that are left out are not done; without the methods there is no study."""
    output = Path(shutil.copytree(studied, tmp_path / "out"))
    families = sorted(set(columns(studied, "SELECT family FROM corrupted")["family"]))
    gone = families[: len(families) // 2]
    settings = (f"study.without=[{', '.join(gone)}]", "prune.scores=[damage]")
    recipe = common.recipe("code", code, *PLAIN, *settings, "prune.method=perplexity")
    curate(recipe, output, beam_arguments=BEAM, stages=["study", "score", "prune"])
    assert_lowest_go(output, "perplexity", "surprising", 0.2)
    left = set(columns(output, "SELECT family FROM corrupted")["family"])
    assert left
    assert not left & set(gone)
    assert list(columns(output, "SELECT * FROM scores")) == ["record_id", "perplexity", "damage"]
    recipe = common.recipe("code", code, *PLAIN, "prune.scores=[length]")
    curate(recipe, output, beam_arguments=BEAM, stages=["study", "score"])
    assert [Layout(output).manifest(table) for table in TABLES] == [None] * 4
    assert list(columns(output, "SELECT * FROM scores")) == ["record_id", "scip", "length"]


def test_an_unknown_family_is_an_error(studied: Path, code: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(studied, tmp_path / "out"))
    with pytest.raises(UserError, match=r"study\.without.*nonsense"):
        common.run("code", code, output, *PLAIN, "study.without=[nonsense]")


def test_too_few_records(code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for i, path in enumerate(sorted(code.rglob("*.py"))[:25]):
        shutil.copyfile(path, folder / f"{i}.py")
    output = tmp_path / "out"
    summary = common.run("code", folder, output, *PLAIN)
    common.assert_accounted(output, summary)
    alive = rows(output, "embeddings")
    assert f"study: {alive} live records are too few" in capsys.readouterr().err
    assert not set(STUDIED) & set(columns(output, "SELECT * FROM scores"))
    assert [Layout(output).manifest(table) for table in TABLES] == [None] * 4
    assert verify(Layout(output)) == []
    with pytest.raises(UserError, match=r"prune\.method damage: no detectors"):
        common.run("code", folder, output, *PLAIN, "prune.method=damage")


@pytest.mark.slow
def test_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    found = sorted((common.PICTURES / "procgen").rglob("*.png"))
    small = [path for path in found if path.stat().st_size < 20_000][:60]
    for i, path in enumerate(small):
        shutil.copyfile(path, folder / f"{i}.png")
    output = tmp_path / "out"
    summary = common.run("image", folder, output, *PLAIN, "prune.method=scip_probe")
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == []
    scores = columns(output, "SELECT * FROM scores JOIN views USING (record_id)")
    assert "perplexity" not in scores
    assert_lowest_go(output, "scip_probe", "like_damaged", 0.2)
    assert len(scores["scip_probe"]) == rows(output, "embeddings") >= 40
    assert np.isfinite(scores["scip_probe"]).all()
    np.testing.assert_array_equal(scores["scip_probe"], -scores["scip_probe_1"])
    corrupted = columns(output, "SELECT corruption FROM corrupted")["corruption"]
    assert set(corrupted) <= set(corruptions("image"))
    assert columns(output, "SELECT name FROM detectors")["name"].tolist() == ["detectors"]
