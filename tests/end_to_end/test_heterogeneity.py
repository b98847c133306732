"""The stage ``heterogeneity`` on made devices: who is measured, what is compared, what is said."""

import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import common
import made_devices
import pyarrow.parquet as pq
import pytest
from metadata.sample_output import write_table

from shardwright.errors import UserError
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.quality.heterogeneity.device_statistics import STATISTICS
from shardwright.quality.heterogeneity.multiplicity import adjust
from shardwright.service.report import write_report

SETTINGS = (
    "heterogeneity={least: 30, permutations: 99, images: 12}",
    "prune=null",
    "clusters.k=4",
    "filters=[]",
    "duplicates.near=null",
    "limits.part_bytes=100KB",
)
TABLES = ("device_statistics", "device_groups", "device_shift", "device_transfer", "device_leakage")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three devices, of which one changes colours, with two labels each; and too few of others."""
    folder = tmp_path_factory.mktemp("devices")
    rng = made_devices.write_devices(folder, 26)
    for kind, label in enumerate(made_devices.LABELS):
        for number in range(3):
            data = made_devices.saved(made_devices.picture(rng, kind, 1.0), "Rare", "Phone")
            (folder / label / f"rare{number}.jpg").write_bytes(data)
        out = io.BytesIO()
        made_devices.picture(rng, kind, 1.0).save(out, "PNG")
        (folder / label / "none.png").write_bytes(out.getvalue())
        (folder / label / "copy.jpg").write_bytes((folder / label / "plain0.jpg").read_bytes())
    return folder


@pytest.fixture(scope="module")
def output(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curated") / "out"
    curate(source, folder)
    return folder


def curate(source: Path, output: Path, *overrides: str, **options: Any) -> None:
    common.run("image", source, output, *SETTINGS, *overrides, **options)


def rows(output: Path, table: str) -> list[dict[str, Any]]:
    manifest = Layout(output).need(table, "heterogeneity")
    files = [manifest.folder / part.file for part in manifest.parts() if part.file]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_every_record_is_measured(output: Path) -> None:
    measured = rows(output, "device_statistics")
    records = {row["record_id"]: row for row in rows(output, "records")}
    assert [row["record_id"] for row in measured] == list(records)
    assert list(measured[0]) == ["record_id", "group", *(one.name for one in STATISTICS)]
    for row in measured:
        path = records[row["record_id"]]["path"]
        if path.endswith("png"):
            assert row["group"].startswith("PNG 64x64")
            assert row["jpeg_quality"] is None
        else:
            assert row["jpeg_quality"] == 92
    named = {row["group"] for row in measured}
    assert {"Acme One", "Acme Two", "Other Box", "Rare Phone"} < named


def test_groups_count_the_living(output: Path) -> None:
    """Copies are dropped before; too small groups are named and not compared."""
    found = {row["group"]: row for row in rows(output, "device_groups")}
    assert {name: row["records"] for name, row in found.items() if name[:3] != "PNG"} == {
        "Acme One": 52,
        "Acme Two": 52,
        "Other Box": 52,
        "Rare Phone": 6,
    }
    assert [name for name, row in found.items() if row["compared"]] == [
        "Acme One",
        "Acme Two",
        "Other Box",
    ]
    assert not found["Rare Phone"]["enough"]


def test_shift_is_where_it_was_made(output: Path) -> None:
    found = rows(output, "device_shift")
    kinds = {(row["space"], row["matched"], row["measure"]) for row in found}
    assert len(kinds) == 20
    assert len(found) == 60
    for row in found:
        assert row["n_a"] == row["n_b"] == 52
        if row["space"] == "statistics" and row["measure"] in ("mmd", "classifier"):
            warm = "Acme Two" in (row["group_a"], row["group_b"])
            assert (row["p_value"] < 0.05) == warm, row
    for kind in kinds:
        ours = [r for r in found if (r["space"], r["matched"], r["measure"]) == kind]
        expected = adjust([row["p_value"] for row in ours], "holm")
        assert [row["p_adjusted"] for row in ours] == expected.tolist()


def test_stages_and_ruler(output: Path) -> None:
    """Only the colours of one device differ; where groups are alike nothing is named."""
    named = {
        (r["group_a"], r["group_b"], r["rank"]): r["stage"]
        for r in rows(output, "device_attribution")
    }
    assert {key[:2] for key in named} == {("Acme One", "Acme Two"), ("Acme Two", "Other Box")}
    assert {stage for (_, _, rank), stage in named.items() if rank == 1} == {"white_balance"}
    for row in rows(output, "device_shift"):
        ruled = row["measure"] == "mmd" and "Acme Two" in (row["group_a"], row["group_b"])
        assert (row["ruler_stage"] == "white_balance") == ruled
        assert (row["ruler_where"] in ("within", "above", "below")) == ruled
        assert (row["ruler_amount"] is not None) == ruled


def test_transfer_and_leakage(output: Path) -> None:
    found = {
        (r["train_group"], r["test_group"]): r["accuracy"] for r in rows(output, "device_transfer")
    }
    assert len(found) == 12
    assert found["Acme One", "Other Box"] > 0.9
    (leakage,) = rows(output, "device_leakage")
    assert leakage["p_value"] > 0.05
    assert leakage["labels"] == 2


def test_output_is_sound_and_shown(output: Path) -> None:
    assert list(verify(Layout(output))) == []
    page = write_report(Layout(output)).read_text()
    assert "What made the images" in page
    assert "Acme Two" in page
    assert "not enough data" in page
    assert "Which stages make the difference" in page
    assert "farther than white balance 0.8" in page


@pytest.mark.parametrize(
    ("table", "change", "problem"),
    [
        ("device_statistics", lambda rows: rows[1:], "records that it does not hold"),
        ("device_statistics", lambda rows: [*rows, rows[-1]], "more than one row"),
        ("device_shift", lambda rows: [rows[0] | {"group_b": "Rare Phone"}], "is not compared"),
        ("device_transfer", lambda rows: [rows[0] | {"test_group": "x"}], "is not compared"),
        (
            "device_attribution",
            lambda rows: [
                {"group_a": "Acme One", "group_b": "Acme Two", "stage": "tone"}
                | {"rank": rank, "share": 0.6}
                for rank in (1, 2)
            ],
            "more than the whole",
        ),
    ],
)
def test_verify_sees_what_does_not_fit(
    output: Path, tmp_path: Path, table: str, change: Any, problem: str
) -> None:
    work = tmp_path / "out"
    shutil.copytree(output, work)
    manifest = Layout(work).need(table, "heterogeneity")
    changed = [("0" * 16, change(rows(work, table)))]
    write_table(Layout(work), table, manifest.schema, changed, manifest.origin)
    assert any(problem in fault and table in fault for fault in verify(Layout(work)))


@pytest.mark.slow
def test_same_bytes_in_any_order_and_part(source: Path, output: Path, tmp_path: Path) -> None:
    beam = (
        "--runner=FnApiRunner",
        "--direct_num_workers=2",
        "--direct_running_mode=multi_processing",
    )
    curate(source, tmp_path / "again", beam=beam)
    hashes, again = common.contents(output), common.contents(tmp_path / "again")
    assert {path for path in hashes if "device" in path}
    assert hashes == again


def test_another_rule_measures_again_and_another_sample_does_not(
    source: Path, output: Path, tmp_path: Path
) -> None:
    work = tmp_path / "out"
    shutil.copytree(output, work)
    changed = "heterogeneity={least: 30, permutations: 19, images: 0, match: cluster}"
    curate(source, work, changed, stages=["heterogeneity"])
    measured = common.stage_metrics(work)["heterogeneity"]
    before, after = rows(output, "device_shift"), rows(work, "device_shift")
    assert measured["reused"] >= Layout(work).need("records", "ingest").count
    assert [row["p_value"] for row in before] != [row["p_value"] for row in after]
    ruled = "heterogeneity={group: 'folder:1', least: 20, permutations: 19, images: 0}"
    curate(source, work, ruled, stages=["heterogeneity"])
    assert {row["group"] for row in rows(work, "device_groups")} == {"blobs", "stripes"}
    curate(source, work, "heterogeneity=null", stages=["heterogeneity"])
    assert all(Layout(work).manifest(table) is None for table in TABLES)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("{group: 'camera'}", "rule of groups 'camera' is unknown"),
        ("{least: 60, most: 50}", "no group could be compared"),
        ("{match: content}", "match"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(source: Path, settings: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        common.recipe("image", source, f"heterogeneity={settings}")


def test_code_has_no_devices(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="heterogeneity"):
        common.recipe("code", tmp_path, "heterogeneity={}")


CUT = ("prune.fraction=0.25", "prune.scores=[]", "prune.within=device", "prune.method=random")


@pytest.mark.parametrize(
    ("cap", "left"),
    [
        (None, {"Acme One": 39, "Acme Two": 39, "Other Box": 39, "Rare Phone": 4}),
        ("{by: device}", dict.fromkeys(("Acme One", "Acme Two", "Other Box", "Rare Phone"), 2)),
        pytest.param(
            "{by: device, least: 10}",
            {"Acme One": 39, "Acme Two": 39, "Other Box": 39, "Rare Phone": 4},
            marks=pytest.mark.slow,
        ),
        ("{by: device, most: 0.3}", {"Acme One": 18, "Acme Two": 18, "Rare Phone": 4}),
        ("{by: label, most: 10}", {}),
    ],
)
def test_caps_of_groups(
    output: Path, source: Path, tmp_path: Path, cap: str | None, left: dict[str, int]
) -> None:
    """Each device loses a quarter, and then what is above the cap, and says so."""
    work = tmp_path / "out"
    shutil.copytree(output, work)
    settings = [setting for setting in SETTINGS if setting != "prune=null"]
    capped = () if cap is None else (f"prune.cap={cap}",)
    summary = common.run("image", source, work, *settings, *CUT, *capped)
    common.assert_accounted(work, summary)
    assert verify(Layout(work)) == []
    device = {row["record_id"]: row["group"] for row in rows(work, "device_statistics")}
    label = {row["record_id"]: row["label"] for row in rows(work, "records")}
    decided = rows(work, "decisions")
    kept = Counter(device[row["record_id"]] for row in decided if row["keep"])
    assert {name: kept[name] for name in left} == left
    reasons = Counter(row["reason"] for row in decided if row["stage"] == "prune")
    assert sum(reasons.values()) - reasons["group_cap"] == 13 * 3 + 2
    if cap == "{by: label, most: 10}":
        assert set(Counter(label[r["record_id"]] for r in decided if r["keep"]).values()) == {10}
    assert (reasons["group_cap"] > 0) == (cap not in (None, "{by: device, least: 10}"))


def test_a_share_that_so_few_groups_cannot_have(output: Path, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "out"
    shutil.copytree(output, work)
    settings = [setting for setting in SETTINGS if setting != "prune=null"]
    with pytest.raises(UserError, match="in 2 groups by label"):
        common.run("image", source, work, *settings, *CUT, "prune.cap={by: label, most: 0.4}")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("heterogeneity=null", "prune.within=device"), "found by heterogeneity"),
        (("prune.within=language",), "image records are not in such groups"),
        (("prune.cap={by: label, most: many}",), "'many' is no bound of a group"),
        (("prune.cap={by: label, most: 1.5}",), "1.5 is no bound of a group"),
    ],
)
def test_a_wrong_grouping_is_one_clear_line(
    source: Path, settings: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        common.recipe("image", source, *settings)
