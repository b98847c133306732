"""The stages ``score`` and ``prune``: every method is the plain function, on whole curations."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import common
import numpy as np
import pytest

from shardwright.embeddings.kmeans import KMeans
from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines import stretches
from shardwright.pipelines.curate import curate
from shardwright.quality.pruning.cut import pruned
from shardwright.quality.pruning.d4 import d4_score
from shardwright.quality.pruning.density import density_score
from shardwright.quality.pruning.methods import METHODS
from shardwright.quality.pruning.prototypes import ssl_prototypes_score
from shardwright.quality.pruning.semdedup import semdedup_score
from shardwright.quality.pruning.simple import random_score

PLAIN = (
    *("index=null", "limits.part_bytes=100KB", "prune.scores=null", "study.documents=40"),
    *("study.copies=1", "clusters.k=7", "filters=[]", "duplicates.near=null"),
)
REASONS = {method.name: method.reasons for method in METHODS}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("code"), 90)


@pytest.fixture(scope="module")
def scored(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scored") / "out"
    summary = common.run("code", code, output, *PLAIN)
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == []
    return output


def columns(output: Path, query: str) -> dict[str, np.ndarray[Any, Any]]:
    with connect(Layout(output)) as connection:
        return dict(connection.sql(query).fetchnumpy())


def test_scores_are_the_plain_functions(scored: Path) -> None:
    found = columns(
        scored,
        "SELECT * FROM scores JOIN clusters USING (record_id) JOIN embeddings USING (record_id) "
        "JOIN records USING (record_id) ORDER BY record_id",
    )
    ids = [str(i) for i in found["record_id"]]
    cluster, distance = found["cluster"], found["distance"]
    vectors = np.stack(list(found["vector"])).astype(np.float32)
    centroids = columns(scored, "SELECT vector FROM centroids ORDER BY cluster")["vector"]
    centres = np.stack(list(centroids)).astype(np.float32)
    expected = {
        "ssl_prototypes": ssl_prototypes_score(ids, cluster, distance, 0.2),
        "semdedup": semdedup_score(ids, vectors, cluster, distance),
        "d4": d4_score(ids, vectors, cluster, distance, 0.2, KMeans(7).fit),
        "density": density_score(ids, cluster, distance, centres, 0.2),
        "length": found["bytes"].astype(np.float64),
        "random": random_score(ids, 0),
    }
    for name, score in expected.items():
        if name != "d4":  # its second k-means sees the survivors in another order
            np.testing.assert_array_equal(found[name], score, err_msg=name)
    # the first step of both is the same, so the same records come first
    first = np.argsort(found["d4"])[: round(0.1 * len(ids))]
    assert set(first) == set(np.argsort(expected["d4"])[: len(first)])
    assert np.isfinite(found["d4"]).all()
    assert len(set(found["d4"])) == len(ids)


@pytest.mark.parametrize("method", ["ssl_prototypes", "d4", "damage"])
def test_each_method_prunes_the_lowest(
    scored: Path, code: Path, tmp_path: Path, method: str
) -> None:
    output = Path(shutil.copytree(scored, tmp_path / "out"))
    summary = common.run("code", code, output, *PLAIN, f"prune.method={method}")
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == []
    found = columns(
        output,
        f"SELECT record_id, {method} AS wanted, keep, reason, score, threshold "
        "FROM scores JOIN decisions USING (record_id) ORDER BY record_id",
    )
    gone = pruned([str(i) for i in found["record_id"]], found["wanted"], 0.2)
    np.testing.assert_array_equal(found["keep"], ~gone)
    np.testing.assert_array_equal(found["score"], found["wanted"])
    assert set(found["reason"][gone]) <= set(REASONS[method])
    done = common.stage_metrics(output)["score"]
    assert done["parts"] == done["reused"], "scores are not computed again"


def test_a_quota_for_each_group(code: Path, tmp_path: Path) -> None:
    """SCIP's size rule takes whole small languages; with a quota each loses its share."""
    folder = tmp_path / "mixed"
    shutil.copytree(code, folder)
    for i in range(10):
        body = "\n".join(f"  const v{i}_{j} = f{j}(a, {i * j});" for j in range(20))
        (folder / f"m{i}.js").write_text(f"function m{i}(a) {{\n{body}\n}}\n")
    shares = {}
    for within in ("null", "language"):
        output = tmp_path / within
        settings = (f"prune.within={within}", "prune.scores=[]", "source.include=['**/*']")
        summary = common.run("code", folder, output, *PLAIN, *settings)
        common.assert_accounted(output, summary)
        assert verify(Layout(output)) == []
        found = columns(
            output, "SELECT language, stage FROM records JOIN decisions USING (record_id)"
        )
        alive = Counter(found["language"][np.isin(found["stage"], ["keep", "prune"])])
        gone = Counter(found["language"][found["stage"] == "prune"])
        shares[within] = {name: gone[name] / count for name, count in alive.items()}
    assert shares["null"]["JavaScript"] != pytest.approx(0.2)
    assert shares["language"]["JavaScript"] == pytest.approx(0.2)
    assert shares["language"]["Python"] == pytest.approx(0.2, abs=0.01)


def test_workers_and_a_second_run_change_nothing(scored: Path, code: Path, tmp_path: Path) -> None:
    recipe = common.recipe("code", code, *PLAIN)
    arguments = ("--runner=FnApiRunner", "--direct_num_workers=3")
    arguments += ("--direct_running_mode=multi_threading",)
    for _ in range(2):
        curate(recipe, tmp_path, beam_arguments=arguments)
        query = "SELECT * FROM scores ORDER BY record_id"
        ours, theirs = columns(tmp_path, query), columns(scored, query)
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name], err_msg=name)


def test_fewer_scores(scored: Path, code: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(scored, tmp_path / "out"))
    common.run("code", code, output, *PLAIN, "prune.scores=[length]")
    assert list(columns(output, "SELECT * FROM scores")) == ["record_id", "scip", "length"]
    assert Layout(output).manifest("similarities") is None
    assert verify(Layout(output)) == []


@pytest.mark.parametrize(
    "more", [(), ("prune.within=language", "prune.cap={by: language, most: 20}")]
)
def test_a_part_at_a_time_or_all_at_once(
    scored: Path,
    code: Path,
    tmp_path: Path,
    more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = {}
    for rows in (1, 1_000_000):
        monkeypatch.setattr(stretches, "_ROWS", rows)
        output = Path(shutil.copytree(scored, tmp_path / str(rows)))
        recipe = common.recipe("code", code, *PLAIN, *more)
        curate(recipe, output, stages=["score", "prune"], force=True)
        tables[rows] = {
            name: digest
            for name, digest in common.contents(output).items()
            if name.split("/")[1] in {"scores", "score_explanations", "decisions"}
        }
    assert tables[1] == tables[1_000_000]
    assert len(tables[1]) > 6, "there are several parts"
