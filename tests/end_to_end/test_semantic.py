"""Semantic duplicates: whole curations against the published loop on their own vectors."""

import shutil
from pathlib import Path
from typing import Any

import common
import numpy as np
import pytest

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.explain import explain
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate

PLAIN = ("prune=null", "index=null", "duplicates.near=null", "clusters.k=1", "filters=[]")
THRESHOLD = 0.6
BEAM = ("--runner=FnApiRunner", "--direct_num_workers=1")


def rows(output: Path, query: str) -> list[tuple[Any, ...]]:
    with connect(Layout(output)) as connection:
        return connection.execute(query).fetchall()


def semantic(**settings: Any) -> str:
    listed = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return f"duplicates.semantic={{{listed}}}"


def plainly(output: Path, threshold: float, keep: str, probes: int = 1) -> set[str]:
    """Who is dropped by SemDeDup's own meaning, from the committed vectors and centroids."""
    found = rows(
        output,
        "SELECT e.record_id, vector, r.bytes FROM embeddings e JOIN records r USING (record_id) "
        "ORDER BY path, source, record_id",
    )
    ids = [record_id for record_id, _, _ in found]
    x = np.array([vector for _, vector, _ in found], np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    centroids = np.array(
        [v for (v,) in rows(output, "SELECT vector FROM semantic_centroids ORDER BY cluster")]
    )
    to_centroids = x @ (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)).T
    nearest = np.argsort(-to_centroids, axis=1)[:, :probes]
    first = to_centroids.max(axis=1)
    rank = {
        "farthest": first,
        "nearest": -first,
        "first": np.zeros(len(x)),
        "longest": -np.array([size for _, _, size in found]),
    }[keep]
    order = np.lexsort((np.arange(len(x)), rank))
    gone = set()
    for place, row in enumerate(order):
        for other in order[:place]:
            together = set(nearest[row]) & set(nearest[other])
            if together and x[row] @ x[other] > threshold:
                gone.add(ids[row])
                break
    return gone


def dropped(output: Path) -> set[str]:
    query = "SELECT record_id FROM decisions WHERE stage = 'semantic'"
    return {record_id for (record_id,) in rows(output, query)}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = common.copy_sources(tmp_path_factory.mktemp("code"), 150)
    for number, path in enumerate(sorted(folder.rglob("*.py"))[:12]):
        (folder / f"variant{number}.py").write_text("# a copy\n" + path.read_text())
    return folder


@pytest.fixture(scope="module")
def embedded(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every recipe here has in common, up to the vectors; tests go on from copies of it."""
    output = tmp_path_factory.mktemp("embedded") / "out"
    recipe = common.recipe("code", code, *PLAIN)
    curate(recipe, output, stages=["ingest", "duplicates", "embed"], beam_arguments=BEAM)
    return output


@pytest.fixture
def output(embedded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded, tmp_path / "out"))


@pytest.mark.parametrize(
    ("keep", "probes"), [("farthest", 1), ("nearest", 1), ("first", 2), ("longest", 1)]
)
def test_ranked_is_the_published_loop(code: Path, output: Path, keep: str, probes: int) -> None:
    settings = semantic(
        threshold=THRESHOLD, semantics="ranked", keep=keep, clusters=f"{{k: 8, probes: {probes}}}"
    )
    summary = common.run("code", code, output, settings, *PLAIN)
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == []
    expected = plainly(output, THRESHOLD, keep, probes)
    assert dropped(output) == expected
    assert len(expected) >= 12
    listed = rows(
        output,
        "SELECT count(*), min(similarity), bool_and(d.keep) FROM semantic_duplicates s "
        "JOIN decisions d ON d.record_id = s.representative_id",
    )
    assert listed[0][0] > len(expected)
    assert listed[0][1] > THRESHOLD
    assert listed[0][2], "who stays in the place of others is kept"
    counts = rows(output, "SELECT semantics, chosen, removed FROM semantic_summary ORDER BY ALL")
    assert ("ranked", True, len(expected)) in counts
    assert len(counts) == (3 if probes == 1 else 1)


def test_three_meanings(code: Path, embedded: Path, tmp_path: Path) -> None:
    removed = {}
    for meaning in ("ranked", "greedy", "components"):
        output = Path(shutil.copytree(embedded, tmp_path / meaning))
        settings = semantic(threshold=THRESHOLD, semantics=meaning, clusters="{k: 4}")
        common.run("code", code, output, settings, *PLAIN)
        assert verify(Layout(output)) == []
        removed[meaning] = dropped(output)
        counts = dict(rows(output, "SELECT semantics, removed FROM semantic_summary"))
        assert counts[meaning] == len(removed[meaning])
        others = rows(output, "SELECT semantics, threshold FROM semantic_summary WHERE chosen")
        assert others == [(meaning, THRESHOLD)]
    assert removed["greedy"] <= removed["ranked"] <= removed["components"]
    assert removed["greedy"] < removed["components"]
    record = sorted(removed["greedy"])[0]
    life = explain(Layout(tmp_path / "greedy"), record)
    assert (life["stage"], life["reason"]) == ("semantic", "semantic_duplicate")
    assert life["score"] > life["threshold"] == THRESHOLD
    assert life["semantic_duplicates"]["group_size"] >= 2


def test_workers_parts_and_a_second_run_change_nothing(code: Path, tmp_path: Path) -> None:
    settings = semantic(threshold=THRESHOLD, clusters="{k: 6}")
    common.run("code", code, tmp_path / "one", settings, *PLAIN)
    common.run("code", code, tmp_path / "one", settings, *PLAIN)
    stage = common.stage_metrics(tmp_path / "one")["semantic"]
    assert stage["parts"] == stage["reused"]
    many = ("--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=in_memory")
    common.run("code", code, tmp_path / "two", settings, *PLAIN, beam=many)
    assert common.contents(tmp_path / "one") == common.contents(tmp_path / "two")
    small = "limits.part_bytes=100KB"
    common.run("code", code, tmp_path / "three", settings, *PLAIN, small)
    query = "SELECT * FROM semantic_duplicates ORDER BY ALL"
    assert rows(tmp_path / "one", query) == rows(tmp_path / "three", query)
    assert not [
        path
        for path in (tmp_path / "one" / ".staging").rglob("*")
        if path.is_file() and path.name != "lock"
    ]


def test_another_threshold_keeps_the_centroids(code: Path, output: Path) -> None:
    common.run("code", code, output, semantic(threshold=0.9, clusters="{k: 6}"), *PLAIN)
    table = output / "tables" / "semantic_centroids" / "_manifest.json"
    before = table.read_bytes()
    few = len(dropped(output))
    common.run("code", code, output, semantic(threshold=0.7, clusters="{k: 6}"), *PLAIN)
    assert table.read_bytes() == before
    assert len(dropped(output)) > few
    common.run("code", code, output, "duplicates.semantic=null", *PLAIN)
    assert not table.exists()
    assert dropped(output) == set()
    assert verify(Layout(output)) == []


def test_target(code: Path, output: Path) -> None:
    """All clusters fit one bucket here, so that the target is met to a record."""
    settings = semantic(target=0.75, semantics="ranked", clusters="{k: auto}")
    summary = common.run("code", code, output, settings, *PLAIN)
    alive = rows(output, "SELECT count(*) FROM embeddings")[0][0]
    gone = summary.dropped["semantic_duplicate"]
    assert abs((alive - gone) - np.ceil(0.75 * alive)) <= 1
    assert rows(output, "SELECT DISTINCT clusters FROM semantic_summary") == [(int(alive**0.5),)]


def test_what_borders_part(code: Path, embedded: Path, tmp_path: Path) -> None:
    """With a cluster for almost each record nearly all duplicates are lost, and it is said."""
    for name in ("many", "one"):
        shutil.copytree(embedded, tmp_path / name)
    settings = semantic(threshold=THRESHOLD, semantics="ranked", clusters="{k: 120}")
    common.run("code", code, tmp_path / "many", settings, *PLAIN)
    one = settings.replace("120", "1")
    common.run("code", code, tmp_path / "one", one, *PLAIN)
    query = "SELECT crossing_low, crossing_high, sampled FROM semantic_summary"
    low, high, sampled = rows(tmp_path / "many", query)[0]
    alive = rows(tmp_path / "one", "SELECT count(*) FROM embeddings")[0][0]
    assert sampled == -(-alive // 4)
    truly = (len(dropped(tmp_path / "one")) - len(dropped(tmp_path / "many"))) / alive
    assert truly > 0.05
    assert low <= truly <= high
    assert rows(tmp_path / "one", "SELECT DISTINCT crossing FROM semantic_summary") == [(0,)]


def test_another_crawl(code: Path, tmp_path: Path) -> None:
    """What the earlier curation kept is found by its index; its contents are not read again."""
    first, second = tmp_path / "a", tmp_path / "b"
    for place, path in enumerate(sorted(path for path in code.rglob("*") if path.is_file())):
        target = (first if place % 2 else second) / path.relative_to(code)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    settings = semantic(threshold=THRESHOLD, clusters="{k: 3}")
    common.run("code", first, tmp_path / "one", settings, *PLAIN[:1], *PLAIN[2:], "source.name=one")
    assert dropped(tmp_path / "one")
    assert verify(Layout(tmp_path / "one")) == [], "its index is without them"
    held = [settings, *PLAIN, f"duplicates.against=[{tmp_path / 'one'}]", "duplicates.exact=false"]
    common.run("code", second, tmp_path / "two", *held)
    assert verify(Layout(tmp_path / "two")) == []

    def vectors(output: Path, query: str) -> tuple[list[str], np.ndarray]:
        found = rows(output, query)
        return [record_id for record_id, _ in found], np.array([vector for _, vector in found])

    kept, theirs = vectors(
        tmp_path / "one",
        "SELECT record_id, vector FROM embeddings JOIN decisions USING (record_id) WHERE keep",
    )
    ids, ours = vectors(tmp_path / "two", "SELECT record_id, vector FROM embeddings")
    similarity = ours @ theirs.T
    expected = {
        ids[row]: kept[similarity[row].argmax()]
        for row in np.flatnonzero(similarity.max(axis=1) > THRESHOLD)
    }
    listed = dict(
        rows(
            tmp_path / "two",
            "SELECT record_id, representative_id FROM semantic_duplicates ANTI JOIN "
            "(SELECT record_id AS representative_id FROM records) USING (representative_id)",
        )
    )
    assert listed == expected
    assert len(expected) > 3
    assert set(expected) <= dropped(tmp_path / "two")
    # of the same crawl again nothing stays
    again = common.run("code", first, tmp_path / "again", *held, "source.name=again")
    assert again.kept == 0
    assert verify(Layout(tmp_path / "again")) == []


def test_images(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number, path in enumerate(sorted(common.PICTURES.rglob("*.png"))[:60]):
        shutil.copyfile(path, data / f"{number}.png")
    settings = semantic(threshold=0.98, clusters="{k: 3}")
    plain = [value for value in PLAIN if "near" not in value]
    common.run("image", data, tmp_path / "out", settings, "duplicates.near=null", *plain)
    assert verify(Layout(tmp_path / "out")) == []
    assert dropped(tmp_path / "out") <= plainly(tmp_path / "out", 0.98, "farthest")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{}", "give either threshold"),
        ("{threshold: 0.9, target: 0.8}", "give either threshold"),
        ("{threshold: 1.5}", "less than 1"),
        ("{threshold: 0.9, clusters: {probes: 2}}", "use semantics: ranked"),
        ("{threshold: 0.9, keep: {highest: nothing}}", "'nothing' is no filter of this recipe"),
    ],
)
def test_wrong_settings(code: Path, settings: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        common.recipe("code", code, f"duplicates.semantic={settings}")
    with pytest.raises(UserError, match="works on embeddings"):
        common.recipe(
            "code", code, "duplicates.semantic={threshold: 0.9}", "embedding=null", "prune=null"
        )
