"""One output folder through changed recipes, single stages, odd names, and what went missing."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import common
import pytest

from shardwright.embeddings.hashing import HashingEncoder
from shardwright.errors import DataError, UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate, dry_run
from shardwright.pipelines.recipe import Recipe

BEAM = ("--runner=FnApiRunner",)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("code"), 90)


@pytest.fixture(scope="module")
def reference(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("reference")
    common.run("code", code, output, "clusters.k=8")
    return output


@pytest.fixture
def output(reference: Path, tmp_path: Path) -> Path:
    shutil.copytree(reference, tmp_path / "out")
    return tmp_path / "out"


def stages(code: Path, output: Path, *names: str, set_: tuple[str, ...] = ()) -> Any:
    recipe = common.recipe("code", code, "clusters.k=8", *set_)
    return curate(recipe, output, stages=names, beam_arguments=BEAM)


def test_a_folder_of_somebody_else_is_left_alone(code: Path, tmp_path: Path) -> None:
    (tmp_path / "project" / "shards").mkdir(parents=True)
    (tmp_path / "project" / "shards" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="of no curation"):
        common.run("code", code, tmp_path / "project")
    assert (tmp_path / "project" / "shards" / "mine.txt").read_text() == "mine"


def test_prune_takes_no_scores_of_another_fraction(code: Path, output: Path) -> None:
    with pytest.raises(UserError, match="run stage 'score' first"):
        stages(code, output, "prune", set_=("prune.fraction=0.5",))
    assert (output / "croissant.json").exists()
    stages(code, output, "score", "prune", "shard", "describe", set_=("prune.fraction=0.5",))
    assert verify(Layout(output)) == []


def test_prune_keeps_nothing_unjudged(code: Path, tmp_path: Path) -> None:
    stages(code, tmp_path / "out", "ingest", "duplicates", "embed")
    with pytest.raises(UserError, match="'score'"):
        stages(code, tmp_path / "out", "prune")


def test_describe_calls_nothing_stale_complete(code: Path, output: Path) -> None:
    (code / "extra_for_stale.py").write_text("print('stale')\n")
    try:
        assert stages(code, output, "ingest") is None
        assert not (output / "croissant.json").exists()
        with pytest.raises(DataError, match="stale"):
            stages(code, output, "describe")
        assert not (output / "croissant.json").exists()
    finally:
        (code / "extra_for_stale.py").unlink()


def test_a_dropped_table_takes_the_croissant_along_and_no_change_does_not(
    code: Path, output: Path
) -> None:
    stages(code, output, "ingest", "embed", "cluster", "index")
    assert (output / "croissant.json").exists()
    stages(code, output, "duplicates", set_=("duplicates.exact=false", "duplicates.near=null"))
    assert not (output / "croissant.json").exists()
    assert not (output / "tables" / "duplicates").exists()
    common.run(
        "code", code, output, "clusters.k=8", "duplicates.exact=false", "duplicates.near=null"
    )
    assert verify(Layout(output)) == []


def test_cluster_settings_are_stated_and_decide_what_is_redone(code: Path, output: Path) -> None:
    tables = output / "tables"

    def parameters() -> list[dict[str, Any]]:
        manifests = [tables / name / "_manifest.json" for name in ("centroids", "clusters")]
        return [json.loads(path.read_text())["origin"]["parameters"] for path in manifests]

    plain = {"k": 8, "seed": 0, "start": "sample", "precision": "exact"}
    with connect(Layout(output)) as connection:
        alive = connection.execute("SELECT count(*) FROM clusters").fetchall()[0][0]
    assert parameters() == [plain | {"sample": alive}, plain]
    before = common.contents(output)
    stages(code, output, "cluster", set_=("clusters.device=cpu",))
    assert common.contents(output) == before
    assert common.stage_metrics(output)["cluster"]["reused"] > 0
    assert (output / "croissant.json").exists()
    stages(code, output, "cluster", set_=("clusters.precision=fast", "clusters.start=k-means++"))
    changed = plain | {"start": "k-means++", "precision": "fast"}
    assert parameters() == [changed | {"sample": alive}, changed]
    assert not (output / "croissant.json").exists()
    common.run("code", code, output, "clusters.k=8", "clusters.precision=fast")
    assert '"precision":"fast"' in (output / "croissant.json").read_text().replace("\\", "")
    assert verify(Layout(output)) == []


@pytest.mark.slow
def test_recipes_come_and_go_and_leave_no_trace(code: Path, output: Path, reference: Path) -> None:
    changes = (
        ("embedding=null", "prune=null", "index=null"),
        ("embedding.dtype=float16", "limits.part_bytes=200KB", "clusters.k=500"),
        ("prune=null", "shards.split={train: 0.5, test: 0.5}"),
    )
    for change in changes:
        summary = common.run("code", code, output, "clusters.k=8", *change)
        common.assert_accounted(output, summary)
        assert verify(Layout(output)) == []
    common.run("code", code, output, "clusters.k=8")
    assert common.contents(output) == common.contents(reference)


def test_odd_names_of_the_output(code: Path, reference: Path, tmp_path: Path) -> None:
    """A path of odd names; what each pattern in it would match as well is another curation."""
    name = Path("a[b]c*d?e") / "new\nline" / 'it\'s "quoted" — ünï' / "[bold]"
    for decoy in (str(name).replace("a[b]c*d?e", "abcde"), str(name).replace("[bold]", "b")):
        shutil.copytree(reference, tmp_path / decoy)
    done = common.shardwright(
        *("curate", "recipes/code.yaml", "--input", str(code), "--set", "source.exclude=[]"),
        *("--set", "prune.scores=[]"),
        *("--output", str(tmp_path / name), "--limit", "30", "--", *BEAM),
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / name) in done.stdout
    assert verify(Layout(tmp_path / name)) == []
    sql = "SELECT count(*) AS n FROM records"
    done = common.shardwright("query", str(tmp_path / name), sql, "--format", "json")
    rows = Layout(tmp_path / name).manifest("records")
    assert rows is not None
    assert json.loads(done.stdout) == [{"n": rows.rows}]


def test_missing_parts_are_made_again(code: Path, output: Path, reference: Path) -> None:
    for table in ("records", "embeddings", "clusters", "curated"):
        next((output / "tables" / table).glob("part-*.parquet")).unlink()
    next((output / "shards" / "train").glob("*.mds")).unlink()
    common.run("code", code, output, "clusters.k=8")
    assert common.contents(output) == common.contents(reference)


def test_names_of_git_that_read_the_same(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in (b"\xff_a.py", b"\\xff_a.py", b"b.py"):
        with open(bytes(repository) + b"/" + name, "wb") as file:
            file.write(b"x = " + str(len(name)).encode() + b"\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "odd names"], check=True)
    settings = {
        "name": "git",
        "modality": "code",
        "source": {"kind": "git", "uri": str(repository)},
        "limits": {"reject_threshold": 0.5, "part_bytes": 1},
    }
    summary = curate(Recipe.model_validate(settings), tmp_path / "out", beam_arguments=BEAM)
    assert summary is not None
    assert (summary.seen, summary.rejected) == (3, 1)
    assert verify(Layout(tmp_path / "out")) == []


def test_a_fault_of_the_data_in_a_worker_is_one_line(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: HashingEncoder, batch: Any) -> Any:
        raise DataError("input 3 of the batch: no vector")

    monkeypatch.setattr(HashingEncoder, "encode", refuse)
    with pytest.raises(DataError, match=r"^input 3 of the batch: no vector$"):
        common.run("code", code, tmp_path / "out")
    monkeypatch.undo()
    common.run("code", code, tmp_path / "out")


def test_mistakes_are_found_before_anything_runs(code: Path, tmp_path: Path) -> None:
    def tried(*set_: str, beam: tuple[str, ...] = BEAM, uri: str = str(code)) -> str:
        output = tmp_path / "out"
        with pytest.raises(UserError) as caught:
            dry_run(common.recipe("code", Path(uri), *set_), output, beam_arguments=beam)
        return str(caught.value)

    assert "--nonsense" in tried(beam=("--nonsense=1",))
    assert "Nope" in tried(beam=("--runner=Nope",))
    assert "runner.index" in tried("runner={index: ['--x=1']}")
    assert "group_by" in tried("shards.group_by=label")
    assert "no such kind" in tried("source.kind=floppy")
    assert "give either threshold" in tried("duplicates.semantic={}")
    assert "no filter of code" in tried("filters=[short]")
    assert "no size" in tried("limits.max_bytes=true")
    assert "YAML" in tried("name=2024-13-45")
    for uri in (f"{tmp_path}/o*/*.py", f"file://{tmp_path}"):
        recipe = common.recipe("code", code)
        inside = recipe.model_copy(update={"source": recipe.source.model_copy(update={"uri": uri})})
        with pytest.raises(UserError, match="inside the input"):
            dry_run(inside, tmp_path / "out")


def test_metrics_keep_what_single_stages_did(code: Path, output: Path) -> None:
    before = common.stage_metrics(output)
    stages(code, output, "describe")
    after = common.stage_metrics(output)
    assert list(after) == list(before)
    assert after["ingest"] == before["ingest"]
