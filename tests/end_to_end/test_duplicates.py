"""Copies, near copies and copies of an earlier crawl, on real files and pictures."""

import io
import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import common
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.explain import explain
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate
from shardwright.quality.shingles import jaccard, shingle_hashes

NEAR = "duplicates.near={threshold: 0.7}"
ONLY = ("filters=[]", "prune=null", "index=null")
ONE = ("--runner=FnApiRunner", "--direct_num_workers=1")


def rows(output: Path, query: str) -> list[tuple[Any, ...]]:
    with connect(Layout(output)) as connection:
        return connection.execute(query).fetchall()


def decisions(output: Path) -> dict[str, tuple[str, str | None]]:
    """Path -> (reason, path of the representative)."""
    found = rows(
        output,
        "SELECT r.path, reason, s.path FROM decisions JOIN records r USING (record_id) "
        "LEFT JOIN records s ON s.record_id = decisions.representative_id",
    )
    return {path: (reason, other) for path, reason, other in found}


def words(first: int, count: int) -> str:
    return " ".join(f"word{number}" for number in range(first, first + count))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 real files, one of them copied, and 100 of them again with a line changed."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, path in enumerate(common.source_files(2500)[::5]):
        data = path.read_bytes()
        (folder / f"{number:04d}.py").write_bytes(data)
        if number % 5 == 0:
            lines = data.split(b"\n")
            lines.insert(len(lines) // 2, b"changed = 'another line of %d'" % number)
            (folder / f"edited-{number:04d}.py").write_bytes(b"\n".join(lines))
    shutil.copyfile(folder / "0007.py", folder / "copy.py")
    return folder


@pytest.fixture(scope="module")
def curated(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("curated") / "out"
    summary = common.run("code", corpus, output, NEAR, *ONLY)
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == []
    return output


def test_near_duplicates_are_those_of_brute_force(corpus: Path, curated: Path) -> None:
    decided = decisions(curated)
    near = {path for path, (reason, _) in decided.items() if reason == "near_duplicate"}
    exact = {path for path, (reason, _) in decided.items() if reason == "exact_duplicate"}
    sets = {
        path: shingle_hashes((corpus / path).read_bytes(), 5) for path in decided.keys() - exact
    }
    similar: dict[str, dict[str, float]] = {path: {} for path in sets}
    pairs = 0
    for a, b in combinations(sorted(sets), 2):
        small, large = sorted((len(sets[a]), len(sets[b])))
        if large and small >= 0.7 * large and (value := jaccard(sets[a], sets[b])) >= 0.7:
            similar[a][b] = similar[b][a] = value
            pairs += 1
    assert pairs >= 100
    for path in near:  # precision: who goes has a kept neighbour that really is similar
        kept = decided[path][1]
        assert kept is not None
        assert decided[kept][0] == "kept"
        assert similar[path][kept] == max(
            value
            for other, value in similar[path].items()
            if decided[other][0] == "kept" and other < path
        )
    # recall: greedy by path, from all pairs
    expected: set[str] = set()
    for path in sorted(sets):
        if any(other < path and other not in expected for other in similar[path]):
            expected.add(path)
    print(f"{pairs} pairs, {len(expected)} to drop, {len(near & expected)} found")
    assert len(near & expected) >= 0.98 * len(expected)
    assert near <= expected


def test_life_of_a_near_duplicate(curated: Path) -> None:
    path = rows(
        curated,
        "SELECT path FROM decisions JOIN records USING (record_id) "
        "WHERE reason = 'near_duplicate' ORDER BY path LIMIT 1",
    )[0][0]
    life = explain(Layout(curated), path)
    assert life["reason"] == "near_duplicate"
    assert life["score"] >= life["threshold"] == 0.7
    assert life["representative"]["path"] is not None
    assert life["duplicates"]["kind"] == "near"


def test_copy_of_a_near_duplicate_names_what_is_kept(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    text = words(0, 400)
    for name, content in (
        ("a.py", text),
        ("b.py", text + " more of it"),
        ("c.py", text + " more of it"),
        ("z.py", words(9000, 300)),
    ):
        (data / name).write_text(content)
    common.run("code", data, tmp_path / "out", NEAR, *ONLY, "clusters.k=1")
    assert decisions(tmp_path / "out") == {
        "a.py": ("kept", None),
        "b.py": ("near_duplicate", "a.py"),
        "c.py": ("exact_duplicate", "a.py"),
        "z.py": ("kept", None),
    }


@pytest.mark.parametrize(
    "change",
    [
        ("limits.part_bytes=40KB",),
        ("limits.part_bytes=20MB",),
        ("runner={all: ['--direct_running_mode=multi_threading', '--direct_num_workers=3']}",),
    ],
    ids=["small-parts", "one-part", "three-workers"],
)
def test_parts_and_workers_change_nothing(
    corpus: Path, curated: Path, change: tuple[str, ...], tmp_path: Path
) -> None:
    beam = ("--runner=FnApiRunner",) if "runner" in change[0] else ()
    common.run("code", corpus, tmp_path / "out", NEAR, *ONLY, *change, beam=beam)
    everything = "SELECT * FROM duplicates ORDER BY ALL"
    assert rows(tmp_path / "out", everything) == rows(curated, everything)
    counts = "SELECT * FROM duplicate_semantics ORDER BY ALL"
    assert rows(tmp_path / "out", counts) == rows(curated, counts)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ~ B ~ C, and A and C apart; D is like none of them."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "a.py").write_text(words(0, 600))
    (folder / "b.py").write_text(words(100, 620))
    (folder / "c.py").write_text(words(200, 640))
    (folder / "d.py").write_text(words(5000, 600))
    return folder


@pytest.mark.parametrize("semantics", ["greedy", "components"])
def test_chain(chain: Path, semantics: str, tmp_path: Path) -> None:
    near = f"duplicates.near={{threshold: 0.6, semantics: {semantics}}}"
    common.run("code", chain, tmp_path, near, *ONLY)
    third = {"greedy": ("kept", None), "components": ("near_duplicate", "a.py")}[semantics]
    assert decisions(tmp_path) == {
        "a.py": ("kept", None),
        "b.py": ("near_duplicate", "a.py"),
        "c.py": third,
        "d.py": ("kept", None),
    }
    assert rows(tmp_path, "SELECT * FROM duplicate_semantics ORDER BY ALL") == [
        ("exact", "equal", True, 0),
        ("near", "components", semantics == "components", 2),
        ("near", "greedy", semantics == "greedy", 1),
    ]
    if semantics == "components":  # the chain's ends are less similar than the threshold: said so
        similarity = rows(
            tmp_path,
            "SELECT similarity FROM duplicates JOIN records USING (record_id) WHERE path = 'c.py'",
        )
        texts = [(chain / name).read_bytes() for name in ("a.py", "c.py")]
        assert similarity == [(jaccard(*(shingle_hashes(text, 5) for text in texts)),)]
        assert similarity[0][0] < 0.6


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("first", "a.py"),
        ("longest", "b.py"),
        ("{highest: mean_line_length}", "c.py"),
    ],
)
def test_which_one_stays(keep: str, kept: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    text = words(0, 400)
    (data / "a.py").write_text(text.replace(" ", "\n"))
    (data / "b.py").write_text(text.replace(" ", "\n\n") + " and some")
    (data / "c.py").write_text(text)
    common.run(
        "code",
        data,
        tmp_path / "out",
        "prune=null",
        NEAR,
        f"duplicates.keep={keep}",
        "filters=[{name: mean_line_length, action: flag}]",
    )
    decided = decisions(tmp_path / "out")
    assert decided.pop(kept) == ("kept", None)
    assert set(decided.values()) == {("near_duplicate", kept)}


def test_texts_without_a_token_are_near_to_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, text in (("a.py", "()"), ("b.py", "[]"), ("c.py", words(0, 50))):
        (data / name).write_text(text)
    (data / "d.py").write_text(words(0, 50) + "\n")
    common.run("code", data, tmp_path / "out", NEAR, *ONLY, "clusters.k=1")
    reasons = {path: reason for path, (reason, _) in decisions(tmp_path / "out").items()}
    kept = {"a.py": "kept", "b.py": "kept", "c.py": "kept"}
    assert reasons == kept | {"d.py": "near_duplicate"}
    assert rows(tmp_path / "out", "SELECT count(sketch) FROM signatures") == [(2,)]


def test_normalised_copies(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.py").write_text("def f(x):\n    return x + 1\n")
    (data / "b.py").write_text("def f(x):  # adds one\r\n    return x + 1   \r\n")
    (data / "c.py").write_text("def f(x):\n    return x + 2\n")
    steps = "duplicates.normalise=[comments, trailing_space, line_ends]"
    common.run("code", data, tmp_path / "out", steps, *ONLY)
    assert decisions(tmp_path / "out") == {
        "a.py": ("kept", None),
        "b.py": ("exact_duplicate", "a.py"),
        "c.py": ("kept", None),
    }
    assert verify(Layout(tmp_path / "out")) == []


def test_another_crawl(corpus: Path, curated: Path, tmp_path: Path) -> None:
    """A new crawl is held against what an earlier one kept, without that one's contents."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("0001.py", "0002.py"):
        shutil.copyfile(corpus / name, data / f"again-{name}")
    (data / "near.py").write_bytes((corpus / "0003.py").read_bytes() + b"\nanother = line\n")
    (data / "new.py").write_text(words(70_000, 500))
    earlier = tmp_path / "earlier"
    shutil.copytree(curated, earlier)
    for path in (earlier / "tables" / "records").glob("part-*"):
        table = common_columns(path)
        assert "content" in table
    against = f"duplicates.against=[{earlier}]"
    common.run("code", data, tmp_path / "out", NEAR, against, *ONLY, "clusters.k=1")
    decided = rows(
        tmp_path / "out",
        "SELECT path, reason, representative_id FROM decisions JOIN records USING (record_id)",
    )
    ids = dict(rows(earlier, "SELECT record_id, path FROM records"))
    assert {path: (reason, ids.get(other)) for path, reason, other in decided} == {
        "again-0001.py": ("exact_duplicate", "0001.py"),
        "again-0002.py": ("exact_duplicate", "0002.py"),
        "near.py": ("near_duplicate", "0003.py"),
        "new.py": ("kept", None),
    }
    assert verify(Layout(tmp_path / "out")) == []
    twice = f"duplicates.against=[{earlier}, {earlier.parent}/./{earlier.name}]"
    common.run("code", data, tmp_path / "twice", NEAR, twice, *ONLY, "clusters.k=1")
    for table in ("duplicates", "duplicate_semantics"):
        assert rows(tmp_path / "twice", f"FROM {table}") == rows(tmp_path / "out", f"FROM {table}")
    with pytest.raises(UserError, match=r"ngram.*6.*curate it with the same"):
        common.run("code", data, tmp_path / "two", "duplicates.near={ngram: 6}", against, *ONLY)
    with pytest.raises(UserError, match="no such folder"):
        common.run("code", data, tmp_path / "three", NEAR, "duplicates.against=[nowhere]", *ONLY)
    shutil.copyfile(corpus / "0001.py", data / "0001.py")
    with pytest.raises(UserError, match="1 records have the same id there"):
        common.run("code", data, tmp_path / "four", NEAR, against, *ONLY)


def test_an_earlier_crawl_whose_signatures_are_older_than_its_records(tmp_path: Path) -> None:
    """Rows of both would be paired by their places, and copies missed."""
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
        (folder / f"{folder.name}.py").write_text(words(60_000, 200))
    ends = "duplicates.normalise=[line_ends]"
    few = (ends, *ONLY, "duplicates.near=null", "clusters.k=1")
    common.run("code", data, tmp_path / "earlier", *few)
    against = f"duplicates.against=[{tmp_path / 'earlier'}]"
    common.run("code", other, tmp_path / "one", *few, against)
    assert [kind for (kind,) in rows(tmp_path / "one", "SELECT kind FROM duplicates")] == ["exact"]
    (data / "a.py").write_text(words(70_000, 200))
    again = common.recipe("code", data, *few)
    curate(again, tmp_path / "earlier", stages=("ingest",), beam_arguments=ONE)
    with pytest.raises(UserError, match="not of the records that it has now; run all its stages"):
        common.run("code", other, tmp_path / "two", *few, against)


def common_columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(path).names
    return names


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    found = sorted((common.PICTURES / "scikit_image").rglob("*.png"))
    scenes = [path for path in found if min(Image.open(path).size) >= 200][:5]
    assert len(scenes) >= 4
    for number, path in enumerate(scenes):
        picture = Image.open(path).convert("RGB")
        picture.save(folder / f"{number}-a.png")
        picture.save(folder / f"{number}-b.jpg", quality=50)
        width, height = picture.size
        picture.resize((width * 9 // 10, height * 9 // 10)).save(folder / f"{number}-c.png")
        ImageEnhance.Brightness(picture).enhance(1.1).save(folder / f"{number}-d.png")
        picture.save(folder / f"{number}-e.bmp")
    return folder


def test_near_images(pictures: Path, tmp_path: Path) -> None:
    """Saved again, smaller or brighter is the same scene; another scene is not."""
    near = "duplicates={normalise: [pixels], near: {}}"
    common.run("image", pictures, tmp_path, near, *ONLY)
    for path, (reason, other) in decisions(tmp_path).items():
        scene, kind = path.split("-")
        if kind == "a.png":
            assert (reason, other) == ("kept", None)
        else:
            wanted = "exact_duplicate" if kind == "e.bmp" else "near_duplicate"
            assert (reason, other) == (wanted, f"{scene}-a.png"), path
    assert verify(Layout(tmp_path)) == []


def test_equal_bytes_in_other_shapes_are_no_copies(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, 64 * 48 * 3, dtype=np.uint8)
    for name, shape in (("a.png", (64, 48, 3)), ("b.png", (48, 64, 3)), ("c.bmp", (64, 48, 3))):
        stream = io.BytesIO()
        form = "PNG" if name.endswith("png") else "BMP"
        Image.fromarray(noise.reshape(shape)).save(stream, form)
        (data / name).write_bytes(stream.getvalue())
    common.run("image", data, tmp_path / "out", "duplicates={normalise: [pixels]}", *ONLY)
    assert decisions(tmp_path / "out") == {
        "a.png": ("kept", None),
        "b.png": ("kept", None),
        "c.bmp": ("exact_duplicate", "a.png"),
    }


def test_a_changed_threshold_reads_no_content_again(
    corpus: Path, curated: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(curated, output)
    before = (output / "tables" / "signatures" / "_manifest.json").read_bytes()
    common.run("code", corpus, output, "duplicates.near={threshold: 0.9}", *ONLY)
    assert (output / "tables" / "signatures" / "_manifest.json").read_bytes() == before
    assert json.loads(before)["rows"] == Layout(output).need("records", "ingest").rows
