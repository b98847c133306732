"""Evaluations of whole curations: the command, the tables, and what must not change them."""

import shutil
import sys
from pathlib import Path
from typing import Any

import common
import pyarrow.parquet as pq
import pytest
from metadata.sample_output import write_table

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines import cli
from shardwright.pipelines.curate import curate
from shardwright.quality.trials import families_of

TABLES = ("evaluation", "side_effects", "stability")
SMALL = (
    "index=null",
    "limits.part_bytes=100KB",
    "limits.max_bytes=30KB",
    "clusters.k=7",
    "filters=[]",
    "duplicates.near=null",
    "prune.scores=null",
    "study.documents=40",
    "study.copies=1",
    "evaluate.files=120",
    "evaluate.seeds=1",
    "evaluate.share=0.3",
    "evaluate.folds=2",
)
BEAM = ("--runner=FnApiRunner", "--direct_num_workers=1")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("code"), 70)


def command(*arguments: str) -> list[str]:
    """``shardwright evaluate`` with what ``common.recipe`` and this module set."""
    small = ["shards.size=1MB", "limits.reject_threshold=0.5", "source.exclude=[]", *SMALL]
    settings = [word for setting in small for word in ("--set", setting)]
    return ["shardwright", "evaluate", "recipes/code.yaml", *settings, *arguments, "--", *BEAM]


@pytest.fixture(scope="module")
def evaluated(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command, in this process: a new one would import for seconds."""
    output = tmp_path_factory.mktemp("evaluated") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(common.ROOT)
        patch.setenv("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
        patch.setattr(sys, "argv", command("--input", str(code), "--output", str(output)))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 0
    return output


def rows(output: Path, query: str) -> list[dict[str, Any]]:
    with connect(Layout(output)) as connection:
        found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    return found


def hashes(output: Path) -> list[str]:
    return [Layout(output).need(table, "evaluate").content_sha256 for table in TABLES]


def test_tables_are_there_and_sound(evaluated: Path) -> None:
    assert verify(Layout(evaluated)) == []
    methods = Layout(evaluated).need("scores", "score").schema.names[1:]
    found = rows(evaluated, "FROM evaluation")
    pooled = [row for row in found if row["family"] == "all"]
    assert [row["method"] for row in pooled] == methods
    families = set(families_of("code").values())
    (sampled,) = {row["damaged"] for row in pooled}
    alive = Layout(evaluated).need("scores", "score").rows
    assert 0.2 * alive < sampled <= round(0.3 * alive)
    for method in methods:
        own = [row for row in found if row["method"] == method and row["family"] != "all"]
        assert {row["family"] for row in own} <= families
        assert sum(row["damaged"] for row in own) == sampled
    for row in found:
        for name in ("area", "recall"):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert 0 <= (row[name] if low is None else low) <= row[name] <= 1
            assert high is None or row[name] <= high <= 1
            assert low is None or row["damaged"] > 1
    stable = {row["method"]: row["overlap"] for row in rows(evaluated, "FROM stability")}
    assert list(stable) == ["scip", "ssl_prototypes", "semdedup", "d4", "density"]
    assert all(0 < overlap <= 1 for overlap in stable.values())


def test_side_effects_of_the_method_are_its_decisions(evaluated: Path) -> None:
    for name in ("language", "repository", "license"):
        decided = rows(
            evaluated,
            f"SELECT coalesce({name}, '') AS grp, count(*) AS records, "
            "count(*) FILTER (NOT keep) AS pruned FROM decisions JOIN records USING (record_id) "
            "JOIN scores USING (record_id) GROUP BY ALL ORDER BY grp",
        )
        told = rows(
            evaluated,
            'SELECT "group" AS grp, records, pruned FROM side_effects '
            f"WHERE method = 'scip' AND grouping = '{name}' ORDER BY grp",
        )
        assert told == decided


def test_workers_and_a_second_run_change_nothing(
    evaluated: Path, code: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(evaluated, tmp_path / "out"))
    expected = hashes(evaluated)
    for table in TABLES:
        Layout(output).drop_table(table)
    several = ("--runner=FnApiRunner", "--direct_num_workers=2")
    several += ("--direct_running_mode=multi_threading",)
    recipe = common.recipe("code", code, *SMALL, "prune.scores=null")
    curate(recipe, output, beam_arguments=several, stages=["evaluate"])
    assert hashes(output) == expected
    assert common.stage_metrics(output)["evaluate"]["parts"] > 2
    assert not list((output / ".staging").glob("evaluate*"))
    curate(recipe, output, beam_arguments=several, stages=["evaluate"])
    assert common.stage_metrics(output)["evaluate"]["parts"] == 0
    assert hashes(output) == expected


def test_verify_sees_wrong_rows(evaluated: Path, tmp_path: Path) -> None:
    for number, (table, spoil, words) in enumerate(
        (
            (
                "side_effects",
                lambda rows: [row for row in rows if not row["group"].startswith("1: ")],
                "do not add up",
            ),
            (
                "side_effects",
                lambda rows: [
                    row for row in rows if (row["method"], row["grouping"]) != ("scip", "license")
                ],
                "no groups of a method",
            ),
            ("evaluation", lambda rows: [*rows, rows[-1]], "more than one row"),
        )
    ):
        layout = Layout(Path(shutil.copytree(evaluated, tmp_path / str(number))))
        manifest = layout.need(table, "evaluate")
        rows = pq.read_table(manifest.files()[0]).to_pylist()
        write_table(layout, table, manifest.schema, [("0" * 16, spoil(rows))], manifest.origin)
        (fault,) = [fault for fault in verify(layout) if f"tables/{table}" in fault]
        assert words in fault


def test_without_the_key_the_tables_go_and_nothing_else_changes(
    evaluated: Path, code: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(evaluated, tmp_path / "out"))
    settings = [setting for setting in SMALL if not setting.startswith("evaluate")]
    common.run("code", code, output, *settings)
    assert [Layout(output).manifest(table) for table in TABLES] == [None] * 3
    before, after = common.contents(evaluated), common.contents(output)
    assert after == {
        name: value for name, value in before.items() if name.split("/")[1] not in TABLES
    }
    assert verify(Layout(output)) == []
    assert "planted damage" not in (output / "report" / "index.html").read_text()


def test_the_command_ends_with_its_tables(
    evaluated: Path,
    code: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = Path(shutil.copytree(evaluated, tmp_path / "out"))
    monkeypatch.chdir(common.ROOT)
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    monkeypatch.setattr(sys, "argv", command("--input", str(code), "--output", str(output)))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capfd.readouterr()
    assert caught.value.code == 0, said.err
    assert common.contents(output) == common.contents(evaluated)
    assert common.stage_metrics(output)["evaluate"]["parts"] == 0
    (best,) = rows(
        evaluated,
        "SELECT method, area, recall FROM evaluation WHERE family = 'all' "
        "ORDER BY area DESC, method LIMIT 1",
    )
    first = next(line for line in said.out.splitlines() if f"│ {best['method']} " in line)
    assert f"{best['area']:.3f}" in first
    assert f"{best['recall']:.3f}" in first
    assert said.out.index("planted damage") < said.out.index("pruned most of")
    assert "at most" in said.out


def test_the_report_tells(evaluated: Path) -> None:
    page = (evaluated / "report" / "index.html").read_text()
    section = page.partition("How well each method finds planted damage")[2].partition("<h2>")[0]
    assert "<svg" in section
    assert "areas-" in section
    for row in rows(evaluated, "SELECT method, area FROM evaluation WHERE family = 'all'"):
        assert f'<td>{row["method"]}</td><td class="n">{row["area"]:.3f}' in section
    assert "What else they prune" in section


@pytest.mark.parametrize(
    ("setting", "word"),
    [(("prune=null",), "prune is null"), (("prune=null", "embedding=null"), "embedding is null")],
)
def test_nothing_to_judge_is_an_error(
    setting: tuple[str, ...], word: str, code: Path, tmp_path: Path
) -> None:
    settings = [s for s in SMALL if not s.startswith("prune")]
    recipe = common.recipe("code", code, *settings)
    changed = dict.fromkeys(s.partition("=")[0] for s in setting)
    with pytest.raises(UserError, match=word) as caught:
        curate(recipe.model_copy(update=changed), tmp_path / "out", beam_arguments=BEAM)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_too_few_records(code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for i, path in enumerate(sorted(code.rglob("*.py"))[:25]):
        shutil.copyfile(path, folder / f"{i}.py")
    recipe = common.recipe("code", folder, *SMALL, "prune.scores=[]")
    stages = ["ingest", "duplicates", "embed", "cluster", "study", "score", "evaluate"]
    curate(recipe, tmp_path / "out", beam_arguments=BEAM, stages=stages)
    assert "evaluate: 2" in (said := capsys.readouterr().err)
    assert "live records are too few to judge methods on" in said
    assert [Layout(tmp_path / "out").manifest(table) for table in TABLES] == [None] * 3


@pytest.mark.slow
def test_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for i, path in enumerate(sorted((common.PICTURES / "procgen").rglob("*.png"))):
        if path.stat().st_size < 20_000 and i < 400:
            label = folder / f"label{i % 3}"
            label.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, label / f"{i}.png")
            if len(list(folder.rglob("*.png"))) == 48:
                break
    output = tmp_path / "out"
    summary = common.run("image", folder, output, *SMALL, "prune.scores=[length, damage]")
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == []
    found = {row["method"]: row for row in rows(output, "FROM evaluation WHERE family = 'all'")}
    assert set(found) == {"scip", "length", "damage"}
    assert found["damage"]["damaged"] == round(0.3 * Layout(output).need("scores", "score").rows)
    families = {row["family"] for row in rows(output, "FROM evaluation")}
    assert families - {"all"} <= set(families_of("image").values())
    groupings = {row["grouping"] for row in rows(output, "FROM side_effects")}
    assert groupings == {"length_band", "repository", "label", "device"}
