"""What the Croissant says for responsible use: as stated, and as the tables measure it."""

from collections.abc import Callable
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata.sample_output import origin, recipe, write_table

from shardwright.metadata import schemas
from shardwright.metadata.croissant import croissant
from shardwright.metadata.layout import Layout

pytest_plugins = ("metadata.outputs",)


def told(layout: Layout, modality: str = "code", **about: Any) -> dict[str, Any]:
    metadata = croissant(layout, recipe(modality) | {"about": about})
    issues = mlcroissant.Dataset(
        jsonld=croissant(
            layout, recipe(modality) | {"about": about}, repository="https://github.com/a/b"
        )
    ).metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    return {name: value for name, value in metadata.items() if name.startswith("rai:")}


def test_stated_values_stand_as_stated(code: Layout) -> None:
    found = told(
        code,
        collection="Crawled.",
        collection_type=["Web Scraping"],
        timeframe=["2024-01-01", "2024-06-30"],
        use_cases=["Pretraining.", "Not for code review."],
        social_impact="Small.",
        maintenance="None planned.",
        synthetic=False,
        annotation_protocol="None.",
        raw_data="Kept.",
    )
    assert found["rai:dataCollection"] == "Crawled."
    assert found["rai:dataCollectionType"] == ["Web Scraping"]
    assert found["rai:dataCollectionTimeframe"] == ["2024-01-01", "2024-06-30"]
    assert found["rai:dataUseCases"] == ["Pretraining.", "Not for code review."]
    assert found["rai:dataSocialImpact"] == "Small."
    assert found["rai:dataReleaseMaintenancePlan"] == "None planned."
    assert found["rai:hasSyntheticData"] is False
    assert found["rai:dataAnnotationProtocol"] == "None."
    assert found["rai:dataCollectionRawData"] == "Kept."


def test_nothing_is_told_that_nobody_stated(code: Layout) -> None:
    found = told(code, collection=None, collection_type=[], social_impact="", synthetic=None)
    assert found.keys() == {
        "rai:dataBiases",
        "rai:dataCollectionMissingData",
        "rai:dataLimitations",
        "rai:dataPreprocessingProtocol",
        "rai:personalSensitiveInformation",
    }


def test_stated_comes_before_measured(code: Layout) -> None:
    found = told(
        code,
        biases=["Mostly English."],
        limitations=["Old."],
        sensitive_information=["Names of authors."],
        missing_data=["Private files."],
    )
    assert found["rai:dataBiases"][0] == "Mostly English."
    assert found["rai:dataLimitations"][0] == "Old."
    assert found["rai:personalSensitiveInformation"][0] == "Names of authors."
    assert found["rai:dataCollectionMissingData"] == (
        "Private files. Of 32 inputs 2 were refused: not_utf8 50.0%, too_large 50.0%."
    )
    assert min(map(len, (found["rai:dataBiases"], found["rai:dataLimitations"]))) > 1


def test_protocol_follows_the_manifests(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    ran = told(layout)["rai:dataPreprocessingProtocol"]
    assert [text.split(":")[0] for text in ran] == [
        f"Stage {name}" for name in ("ingest", "duplicates", "prune", "shard")
    ]
    records = layout.need("records", "ingest")
    write_table(
        layout,
        "filter_scores",
        schemas.filter_scores({"lines": "number"}),
        [],
        origin("filter", [records], filters=["lines"], code="0" * 64, strict=False, near={"n": 5}),
    )
    decisions = layout.need("decisions", "prune")
    bounds = {"name": "lines", "least": 2.5, "most": None, "allow": [], "action": "drop"}
    rows = decisions_rows(layout)
    origins = origin("prune", method="scip", filters=[bounds])
    write_table(layout, "decisions", decisions.schema, [("0", rows)], origins)
    ran = told(layout)["rai:dataPreprocessingProtocol"]
    assert ran[1] == (
        "Stage filter: measured every record, and dropped those beyond a bound where the action "
        "is drop. With filters.lines.action = drop, filters.lines.least = 2.5, near.n = 5."
    )
    assert ran[3].endswith("if one is named. With method = scip.")


def test_mixes_before_and_after(code: Layout) -> None:
    languages, licences = told(code)["rai:dataBiases"]
    assert languages == (
        "Programming languages of the kept records, commonest first: python 44.4%, c++ 37.0%, "
        "none stated 18.5%. Of all accepted records: python 43.3%, c++ 36.7%, none stated 20.0%."
    )
    assert licences.startswith("Stated licences of the kept records, commonest first: MIT 51.9%")


def test_side_effects_of_the_method_that_ran(copied: Callable[[str], Layout]) -> None:
    layout = copied("code")
    rows = [
        {"method": method, "grouping": grouping, "group": group, "records": n, "pruned": p}
        | {"share": p / n}
        for method, grouping, group, n, p in [
            ("scip", "language", "c++", 1000, 300),
            ("scip", "language", "python", 1000, 100),
            ("scip", "language", "rare", 10, 10),  # below a hundredth of the records
            ("scip", "license", "", 50, 5),  # even
            ("scip", "license", "MIT", 50, 5),
            ("random", "language", "c++", 1000, 200),
        ]
    ]
    write_table(layout, "side_effects", schemas.SIDE_EFFECTS, [("0", rows)], origin("evaluate"))
    assert not any("uneven" in text for text in told(layout)["rai:dataBiases"])
    decisions = layout.need("decisions", "prune")
    parts = [("0", decisions_rows(layout))]
    write_table(
        layout, "decisions", decisions.schema, parts, origin("prune", method="scip", fraction=0.2)
    )
    uneven = [text for text in told(layout)["rai:dataBiases"] if "uneven" in text]
    assert uneven == [
        "Pruning by scip is uneven by language: it takes 30.0% of the 1,000 records of c++, and "
        "10.0% of the 1,000 of python."
    ]


def decisions_rows(layout: Layout) -> list[dict[str, Any]]:
    files = layout.need("decisions", "").files()
    rows: list[dict[str, Any]] = pa.concat_tables(
        [pq.read_table(file) for file in files]
    ).to_pylist()
    return rows


GROUPS = [("Acme", 60), ("Other", 25), (None, 15)]
PAIR: dict[str, Any] = dict.fromkeys(schemas.DEVICE_SHIFT.names) | {
    "group_a": "Acme",
    "group_b": "Other",
    "n_a": 60,
    "n_b": 25,
    "space": "embedding",
    "matched": True,
    "measure": "mmd",
    "value": 0.5,
    "effect_size": 0.25,
    "null_mean": 0.1,
    "p_value": 0.001,
    "p_adjusted": 0.002,
}
LEAK = {
    "information": 0.4,
    "null_information": 0.1,
    "accuracy": 0.8,
    "baseline": 0.5,
    "null_accuracy": 0.52,
    "p_value": 0.01,
    "rows": 100,
    "groups": 2,
    "labels": 2,
}


def devices(layout: Layout, **tables: list[dict[str, Any]]) -> None:
    """Writes what ``heterogeneity`` would; tables that are not given are empty."""
    groups = [
        {"group": name, "records": n, "enough": True, "compared": name is not None}
        for name, n in GROUPS
    ]
    for name, schema, rows in (
        ("device_groups", schemas.DEVICE_GROUPS, groups),
        ("device_shift", schemas.DEVICE_SHIFT, tables.get("shift", [])),
        ("device_attribution", schemas.DEVICE_ATTRIBUTION, tables.get("attribution", [])),
        ("device_transfer", schemas.DEVICE_TRANSFER, tables.get("transfer", [])),
        ("device_leakage", schemas.DEVICE_LEAKAGE, tables.get("leakage", [])),
    ):
        write_table(layout, name, schema, [("0", rows)], origin("heterogeneity"))


SIZES = (
    "The images come from 2 groups of devices; by size: Acme 60.0%, Other 25.0%, none stated 15.0%."
)


def test_devices_that_the_stage_compared(copied: Callable[[str], Layout]) -> None:
    layout = copied("image")
    # of the pairs that lie apart the farthest, and not one that lies farther by chance
    chance = PAIR | {"group_b": "Third", "effect_size": 0.9, "p_adjusted": 0.5}
    named = {"group_a": "Acme", "group_b": "Other"}
    stages = [("tone", 1, 0.7), ("noise", 2, 0.3)]
    probes = [("Acme", "Acme", 0.9), ("Other", "Other", 0.8), ("Acme", "Other", 0.1)]
    probes += [(None, "Acme", 0.7), (None, "Other", 0.4)]
    devices(
        layout,
        shift=[PAIR, chance, PAIR | {"measure": "frechet", "p_adjusted": 0.5}],
        attribution=[named | {"stage": s, "rank": r, "share": x} for s, r, x in stages],
        transfer=[
            {"train_group": learnt, "test_group": tested, "accuracy": right, "n": 20}
            for learnt, tested, right in probes
        ],
        leakage=[LEAK],
    )
    found = told(layout, "image")
    assert found["rai:dataBiases"][-6:] == [
        SIZES,
        "Of 1 pairs of device groups none lies apart in embedding by frechet on matched content "
        "(adjusted p < 0.05).",
        "1 of 2 pairs of device groups lie apart in embedding by mmd on matched content (adjusted "
        "p < 0.05), Acme and Other most (effect size 0.25).",
        "What tells two groups apart goes most with, by pairs of groups: tone (1).",
        "A probe tells 85.0% of the labels of the device group that it learnt on, and 55.0% of a "
        "group that was left out, Other least (40.0%).",
        "Device and label share information 0.4 (by chance 0.1, p = 0.01): the device alone tells "
        "80.0% of the labels, the commonest label 50.0%.",
    ]
    assert "not measured" not in " ".join(found["rai:dataLimitations"])


def test_devices_that_nobody_compared(copied: Callable[[str], Layout], code: Layout) -> None:
    layout = copied("image")
    found = told(layout, "image")
    assert "device" not in " ".join(found["rai:dataBiases"]).lower()
    assert found["rai:dataLimitations"][1] == (
        "Whether the images of different devices differ, and what that does to a model, was not "
        "measured."
    )
    devices(layout)
    found = told(layout, "image")
    assert found["rai:dataBiases"][-1] == SIZES
    unknown = [text for text in found["rai:dataLimitations"] if "not measured" in text]
    assert [text.partition(" was not measured: images, labels")[0] for text in unknown] == [
        "Whether the images of different devices differ",
        "Whether what is learnt on one device holds on others",
        "Whether the device tells the label",
    ]
    assert "device" not in " ".join(told(code)["rai:dataLimitations"])


def test_limits_name_what_was_approximate_or_left_out(copied: Callable[[str], Layout]) -> None:
    layout = copied("code")
    assert told(layout)["rai:dataLimitations"] == [
        "The records were compared with no benchmark: items of test sets may be among them.",
        "Of 27 kept records 5 state no language.",
        "Of 27 kept records 13 state no license.",
    ]
    summary = {
        "semantics": "greedy",
        "chosen": True,
        "removed": 1,
        "threshold": 0.9,
        "clusters": 3,
        "sampled": 30,
        "crossing": 0.012,
        "crossing_low": 0.009,
        "crossing_high": 0.015,
    }
    rows = [summary, summary | {"semantics": "ranked", "chosen": False}]
    write_table(
        layout, "semantic_summary", schemas.SEMANTIC_SUMMARY, [("0", rows)], origin("semantic")
    )
    for name, settings in (
        ("records", origin("ingest", limit=1000)),
        ("duplicates", origin("duplicates", near={"threshold": 0.7})),
        ("clusters", origin("cluster", precision="fast")),
        ("contamination", origin("decontaminate", benchmarks=["HumanEval", "MBPP"])),
    ):
        kept = layout.manifest(name)
        schema = schemas.CONTAMINATION if kept is None else kept.schema
        rows = [] if kept is None else pq.read_table(kept.folder).to_pylist()
        write_table(layout, name, schema, [("0", rows)], settings)
    assert told(layout)["rai:dataLimitations"][:5] == [
        "At most 1,000 inputs were taken; the source may hold more.",
        "Near duplicates were found by hashes of sketches, which is approximate: some pairs "
        "beyond the threshold remain.",
        "Semantic duplicates were sought within clusters: of a sample 1.20% (95% interval 0.90% "
        "to 1.50%) are close only to a record of another cluster.",
        "Clusters were computed in fast precision: records near a border may fall either way.",
        "Contamination was sought from these benchmarks alone: HumanEval, MBPP.",
    ]


@pytest.mark.parametrize("masked", [[], ["secrets"]])
def test_findings_of_the_filters(copied: Callable[[str], Layout], masked: list[str]) -> None:
    layout = copied("plain")
    ids = [row["record_id"] for row in decisions_rows(layout)]
    rows = [
        {"record_id": one, "secrets": float(place in (3, len(ids) - 1))}
        for place, one in enumerate(ids)
    ]
    write_table(
        layout,
        "filter_scores",
        schemas.filter_scores({"secrets": "number"}),
        [("0", rows)],
        origin("filter", filters=["secrets"]),
    )
    curated = layout.need("curated", "shard")
    kept = pq.read_table(curated.folder).to_pylist()
    write_table(layout, "curated", curated.schema, [("0", kept)], origin("shard", masked=masked))
    how = "with the findings blanked" if masked else "as they are"
    assert told(layout)["rai:personalSensitiveInformation"] == [
        "Searched for secrets (keys, tokens of services, passwords): found in 2 of 30 records, "
        f"1 of them kept {how}.",
        "The records were not searched for personal data (e-mail addresses, public IP addresses, "
        "phone numbers).",
    ]


def test_findings_that_there_are_none(copied: Callable[[str], Layout]) -> None:
    layout = copied("plain")
    rows = [{"record_id": row["record_id"], "secrets": 0.0} for row in decisions_rows(layout)]
    schema = schemas.filter_scores({"secrets": "number"})
    write_table(layout, "filter_scores", schema, [("0", rows)], origin("filter"))
    text = told(layout)["rai:personalSensitiveInformation"][0]
    assert text.endswith("found in none of 30 records.")


def test_images_are_said_to_be_unsearched(outputs: dict[str, Layout]) -> None:
    (text,) = told(outputs["image"], "image")["rai:personalSensitiveInformation"]
    assert "not searched for people" in text
