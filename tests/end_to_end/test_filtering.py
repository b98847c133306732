"""Filters, masking and decontamination through the command line's recipe."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import common
import pytest
from PIL import Image, ImageFilter

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.explain import explain
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate

RENAMED = (
    *(("running_mean", "smooth"), ("values", "series"), ("window", "width"), ("total", "acc")),
    *(("means", "result"), ("old", "left"), ("new", "right")),
)
PLAIN = ("prune=null", "index=null", "duplicates.near=null", "clusters.k=1")


def rows(output: Path, query: str) -> list[tuple[Any, ...]]:
    with connect(Layout(output)) as connection:
        return connection.execute(query).fetchall()


def reasons(output: Path) -> dict[str, str]:
    return dict(rows(output, "SELECT path, reason FROM decisions JOIN records USING (record_id)"))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    for number, path in enumerate(common.source_files(40)):
        shutil.copyfile(path, folder / f"{number:02d}.py")
    (folder / "long.py").write_text("x = [" + "1, " * 2000 + "]\n")
    (folder / "broken.py").write_text("def f(:\n    ((( return ]]]\n" * 20)
    key = "AKIA" + "Q7RZX2LWB4KD6NHT"
    (folder / "secret.py").write_text(f'# where\nKEY = "{key}"\nprint(KEY)\n')
    return folder


FILTERS = (
    "filters=[{name: max_line_length, most: 3000}, {name: syntax_error_share, most: 0.2}, "
    "{name: secrets, action: %s}, {name: comment_share, action: flag}]"
)


@pytest.fixture(scope="module")
def filtered(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("filtered") / "out"
    summary = common.run("code", code, output, FILTERS % "drop", *PLAIN)
    common.assert_accounted(output, summary)
    return output


def test_each_filter_has_a_column_and_a_reason(filtered: Path) -> None:
    assert verify(Layout(filtered)) == []
    decided = reasons(filtered)
    assert decided["long.py"] == "max_line_length"
    assert decided["broken.py"] == "syntax_error_share"
    assert decided["secret.py"] == "secrets"
    assert sum(reason == "kept" for reason in decided.values()) >= 35
    names = [name for name, *_ in rows(filtered, "DESCRIBE filter_scores")]
    assert names == [
        "record_id",
        "comment_share",
        "max_line_length",
        "secrets",
        "syntax_error_share",
    ]
    assert rows(filtered, "SELECT count(*) FROM filter_scores") == [(43,)]
    life = explain(Layout(filtered), "long.py")
    assert (life["stage"], life["reason"]) == ("filter", "max_line_length")
    assert life["score"] > life["threshold"] == 3000


def test_another_bound_measures_nothing_again(code: Path, filtered: Path, tmp_path: Path) -> None:
    shutil.copytree(filtered, tmp_path, dirs_exist_ok=True)
    common.run("code", code, tmp_path, (FILTERS % "drop").replace("3000", "1000000"), *PLAIN)
    assert reasons(tmp_path)["long.py"] == "kept"
    metrics = common.stage_metrics(tmp_path)["filter"]
    assert metrics["parts"] == metrics["reused"] > 0
    assert verify(Layout(tmp_path)) == []


@pytest.mark.parametrize(("first", "then"), [("3000", "1000000"), ("1000000", "3000")])
def test_another_bound_counts_for_scores_too(
    code: Path, tmp_path: Path, first: str, then: str
) -> None:
    settings, pruned = FILTERS % "drop", ("index=null", "clusters.k=4")
    common.run("code", code, tmp_path, settings.replace("3000", first), *pruned)
    recipe = common.recipe("code", code, settings.replace("3000", then), *pruned)
    with pytest.raises(UserError, match="made for other bounds of the filters"):
        curate(recipe, tmp_path, stages=["prune"])
    common.run("code", code, tmp_path, settings.replace("3000", then), *pruned)
    assert verify(Layout(tmp_path)) == []


def test_secrets_are_masked_in_all_that_is_handed_on(code: Path, tmp_path: Path) -> None:
    common.run("code", code, tmp_path, FILTERS % "mask", *PLAIN)
    assert reasons(tmp_path)["secret.py"] == "kept"
    query = "SELECT content, bytes, content_sha256 FROM {} WHERE path = 'secret.py'"
    before, after = (rows(tmp_path, query.format(t))[0] for t in ("records", "curated"))
    assert "AKIA" in before[0]
    assert "AKIA" not in after[0]
    assert len(after[0]) == len(before[0])
    assert after[1] == before[1]
    assert after[0].splitlines()[2] == "print(KEY)"
    assert after[2] == hashlib.sha256(after[0].encode()).hexdigest()
    shards = b"".join(path.read_bytes() for path in (tmp_path / "shards").rglob("*.mds"))
    assert b"AKIAQ7" not in shards
    assert after[0].encode() in shards
    assert verify(Layout(tmp_path)) == []
    # unmasked content would be noticed
    untouched = rows(
        tmp_path,
        "SELECT count(*) FROM curated JOIN records USING (record_id, content_sha256)",
    )
    assert untouched[0][0] == len([r for r in reasons(tmp_path).values() if r == "kept"]) - 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[{name: no_such}]", r"filters: 'no_such': no filter of code; there are .*comment_share"),
        ("[max_line_length, {name: max_line_length}]", "stands twice"),
        ("[{name: licence, most: 3}]", "names a text; use allow or deny"),
        ("[{name: secrets, allow: [MIT]}]", "is a number; use least or most"),
        ("[{name: digit_share, action: mask}]", "cannot be masked"),
    ],
)
def test_wrong_filters(code: Path, entry: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        common.recipe("code", code, f"filters={entry}")


def test_licences_by_list(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "mit.py").write_text("# SPDX-License-Identifier: MIT\nx = 1\n")
    (data / "gpl.py").write_text("# SPDX-License-Identifier: GPL-3.0-only\nx = 2\n")
    (data / "none.py").write_text("x = 3\n")
    for entry, gone in (
        ("allow: [MIT]", {"gpl.py", "none.py"}),
        ("deny: [GPL-3.0-only]", {"gpl.py"}),
    ):
        output = tmp_path / entry[:4]
        common.run("code", data, output, f"filters=[{{name: licence, {entry}}}]", *PLAIN)
        assert {p for p, reason in reasons(output).items() if reason == "licence"} == gone


def test_image_filters(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    found = sorted((common.PICTURES / "scikit_image").rglob("*.png"))
    path = next(path for path in found if min(Image.open(path).size) >= 300)
    picture = Image.open(path).convert("RGB")
    picture.save(data / "good.png")
    picture.point(lambda value: value // 12).save(data / "dark.png")
    picture.filter(ImageFilter.GaussianBlur(12)).save(data / "blurry.png")
    picture.resize((1200, 20)).save(data / "odd.png")
    picture.convert("LA").save(data / "alpha.png")  # grey with alpha must not end the run
    filters = "filters=[odd_aspect_ratio, dark, blurry, grayscale]"
    common.run("image", data, tmp_path / "out", filters, *PLAIN)
    assert reasons(tmp_path / "out") == {
        "alpha.png": "kept",
        "blurry.png": "blurry",
        "dark.png": "dark",
        "good.png": "kept",
        "odd.png": "odd_aspect_ratio",
    }
    scores = rows(tmp_path / "out", "SELECT dark, blurry, grayscale FROM filter_scores")
    assert all(0 <= value <= 1 for row in scores for value in row)
    assert verify(Layout(tmp_path / "out")) == []


def test_decontamination(code: Path, tmp_path: Path) -> None:
    """White space and comments do not hide an item, nor does a file around it."""
    item = (
        "def running_mean(values, window):\n"
        "    total = sum(values[:window])\n"
        "    means = [total / window]\n"
        "    for leaving, entering in zip(values, values[window:]):\n"
        "        total += entering - leaving\n"
        "        means.append(total / window)\n"
        "    return means\n"
    )
    benchmark = tmp_path / "bench.jsonl"
    lines = [
        {"task_id": "T/1", "prompt": item[:34], "solution": item[34:]},
        {
            "task_id": "T/2",
            "prompt": "def nothing_like_it(a, b, c):\n",
            "solution": "    " * 9 + "return (a + b) * c - a * b - c * a + 17\n",
        },
    ]
    benchmark.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = tmp_path / "data"
    shutil.copytree(code, data)
    around = (data / "03.py").read_text()
    (data / "held.py").write_text(
        around + "\n\n" + item.replace("    ", "\t").replace("\n", "\n\n")
    )
    renamed = item
    for old, new in RENAMED:
        renamed = renamed.replace(old, new)
    (data / "renamed.py").write_text("# all of it mine\n" + renamed)
    settings = (
        f"decontaminate={{benchmarks: [{{name: bench, uri: {benchmark}, "
        "text: [prompt, solution], item: task_id, language: Python}]}"
    )
    common.run("code", data, tmp_path / "out", settings, "filters=[]", *PLAIN)
    hits = rows(
        tmp_path / "out",
        "SELECT path, benchmark, item, method FROM contamination JOIN records USING (record_id)",
    )
    assert set(hits) == {
        ("held.py", "bench", "T/1", "ngram"),
        ("held.py", "bench", "T/1", "abstracted"),
        ("renamed.py", "bench", "T/1", "abstracted"),
        ("renamed.py", "bench", "T/1", "embedding"),
    }
    print(f"{len(hits) - 4} false hits among {len(list(data.iterdir())) - 2} clean records")
    decided = reasons(tmp_path / "out")
    assert decided["held.py"] == "ngram_contamination"
    assert decided.pop("renamed.py") in ("abstracted_contamination", "embedding_contamination")
    assert {reason for path, reason in decided.items() if path != "held.py"} == {"kept"}
    life = explain(Layout(tmp_path / "out"), "held.py")
    assert life["stage"] == "decontaminate"
    assert life["contamination"][0]["item"] == "T/1"
    assert verify(Layout(tmp_path / "out")) == []
    before = common.contents(tmp_path / "out")
    common.run("code", data, tmp_path / "out", settings, "filters=[]", *PLAIN)
    assert common.contents(tmp_path / "out") == before, "what was found later drops nothing earlier"
    # what was dropped after embedding is in no cluster and no index
    assert rows(tmp_path / "out", "SELECT count(*) FROM clusters") == [(len(decided) - 1,)]
    assert rows(tmp_path / "out", "SELECT count(*) FROM embeddings") == [(len(decided) + 1,)]


def test_a_planted_copy_is_found_by_its_vector(code: Path, tmp_path: Path) -> None:
    benchmark = tmp_path / "bench"
    benchmark.mkdir()
    shutil.copyfile(code / "05.py", benchmark / "item.py")
    settings = f"decontaminate={{benchmarks: [{{name: own, uri: {benchmark}}}], overlap: null}}"
    common.run("code", code, tmp_path / "out", settings, "filters=[]", *PLAIN)
    query = "SELECT path, item, method FROM contamination JOIN records USING (record_id)"
    assert ("05.py", "item.py", "embedding") in rows(tmp_path / "out", query)
    assert reasons(tmp_path / "out")["05.py"] == "embedding_contamination"


def test_benchmarks_that_cannot_be_read(code: Path, tmp_path: Path) -> None:
    settings = "decontaminate={benchmarks: [{name: none, uri: %s}]}"
    with pytest.raises(UserError, match=r"nowhere\.jsonl"):
        common.run("code", code, tmp_path / "a", settings % "nowhere.jsonl", *PLAIN)
    assert not (tmp_path / "a" / "tables").exists(), "known before anything is read"


def test_items_of_comments_alone(code: Path, tmp_path: Path) -> None:
    """What is left without comments is too short to be looked for; the text itself is not."""
    benchmark = tmp_path / "benchmark"
    benchmark.mkdir()
    remark = "# a remark of very many words that stands in no other file but here\n"
    (benchmark / "remark.py").write_text(remark)
    data = tmp_path / "data"
    data.mkdir()
    (data / "copy.py").write_text(remark + "x = 1\n")
    (data / "other.py").write_text("y = 2\n")
    settings = f"decontaminate={{benchmarks: [{{name: own, uri: {benchmark}}}]}}"
    common.run("code", data, tmp_path / "out", settings, *PLAIN)
    assert rows(tmp_path / "out", "SELECT item, method FROM contamination") == [
        ("remark.py", "ngram")
    ]
    (benchmark / "remark.py").write_text("# short\n")
    with pytest.raises(UserError, match="none of the 1 items has 8 words or more"):
        common.run("code", data, tmp_path / "out", settings, *PLAIN)
