import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest.bad_inputs import encoded, jpeg_from

from shardwright import plugins
from shardwright.errors import UserError
from shardwright.pipelines.ingest import ingest
from shardwright.pipelines.recipe import load_recipe
from shardwright.pipelines.sections import Limits, Source
from shardwright.pipelines.sources import Input, Refusal, Unit, open_source
from shardwright.quality.images import decodable_extensions
from shardwright.quality.sandbox import ImageDecoder

RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True)
class ListSource:
    """Gives what it was made with."""

    items: tuple[Input | Refusal, ...]

    def units(self, limit: int | None) -> Iterator[Unit]:
        yield Unit("all", "all", 0, "")

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        yield from self.items


def run(items, modality="code", decoder=None, **limits):
    source = ListSource(tuple(items))
    return list(
        ingest(
            source,
            list(source.units(None)),
            source_name="s",
            modality=modality,
            limits=Limits(**limits),
            decoder=decoder,
        )
    )


def rows(batches, table):
    return [row for name, batch in batches if name == table for row in batch.to_pylist()]


def test_a_record_of_code_has_all_its_columns():
    item = Input(
        "t.parquet#3",
        b"a = 1\nb = 2",
        repository="r",
        revision="v",
        license="MIT",
        attributes={"stars": "7", "path": "src/a.py"},
    )
    assert rows(run([item]), "records") == [
        {
            "record_id": "b57eaea5439242f847f6c0579e31a9d1",
            "source": "s",
            "path": "t.parquet#3",
            "repository": "r",
            "revision": "v",
            "modality": "code",
            "bytes": 11,
            "content_sha256": "8f0b3641c33c75bcaff73cf4e89a903ab38cc1f4f09a27d4db8abce7b0171898",
            "content": "a = 1\nb = 2",
            "attributes": [("stars", "7"), ("path", "src/a.py")],
            "language": "Python",
            "lines": 2,
            "license": "MIT",
        }
    ]


def test_a_record_of_an_image_has_all_its_columns():
    data = jpeg_from("ACME", "Mark II", "Darkroom")
    (row,) = rows(run([Input("cats/a.jpg", data, label="cats")], "image"), "records")
    assert row["image"] == data
    assert (row["width"], row["height"], row["format"]) == (16, 12, "JPEG")
    device = (row["device_make"], row["device_model"], row["software"])
    assert device == ("ACME", "Mark II", "Darkroom")
    assert row["label"] == "cats"
    assert row["repository"] is row["revision"] is None
    assert row["attributes"] == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [("a", 1), ("a\n", 1), ("a\nb", 2), ("\n", 1), ("\n\n", 2), ("a\r\nb\r\n", 2)],
)
def test_lines(text, lines):
    (row,) = rows(run([Input("a.py", text.encode())]), "records")
    assert row["lines"] == lines


def test_the_language_of_the_source_comes_first():
    items = [
        Input("a.py", b"x", language="Cython"),
        Input("a.zip!b.rs", b"x"),
        Input("a.zip!Makefile", b"x"),
        Input("t.jsonl#0", b"x", attributes={"path": "m/x.go"}),
    ]
    languages = [row["language"] for row in rows(run(items), "records")]
    assert languages == ["Cython", "Rust", "Makefile", "Go"]


@given(st.lists(st.sampled_from([0, 1, 10, 3_000_000, 5_000_000, 9_000_000]), max_size=12))
def test_batches_are_bounded_and_in_order(sizes):
    items = [Input(str(i), b"a" * size, language="x") for i, size in enumerate(sizes)]
    batches = run(items, max_bytes=10_000_000)
    seen = {"records": [], "rejects": []}
    for table, batch in batches:
        seen[table] += [int(path) for path in batch["path"].to_pylist()]
        if table == "records":
            weights = batch["bytes"].to_pylist()
            assert sum(weights) <= 8_000_000 or len(weights) == 1
    assert seen["records"] == [i for i, size in enumerate(sizes) if size]
    assert seen["rejects"] == [i for i, size in enumerate(sizes) if not size]


def test_batches_have_at_most_1024_rows():
    items = [Input(str(i), b"a" if i % 2 else b"", language="x") for i in range(5000)]
    counts = [(table, batch.num_rows) for table, batch in run(items)]
    assert sorted(counts) == sorted(
        [(t, n) for t in ("records", "rejects") for n in (1024, 1024, 452)]
    )


def test_many_images_keep_their_order_between_refusals():
    image = encoded()
    items = []
    for i in range(60):
        items += [Input(f"{i}.png", image), Refusal(f"r{i}", "unreadable", "gone")]
        items.append(Input(f"{i}.txt", b"no image"))
    with ImageDecoder(10**8, 20.0) as decoder:
        batches = run(items, "image", decoder)
        assert decoder.decode(image).width == 16  # a decoder that was lent goes on living
    assert [row["path"] for row in rows(batches, "records")] == [f"{i}.png" for i in range(60)]
    rejects = [row["path"] for row in rows(batches, "rejects")]
    assert rejects == [path for i in range(60) for path in (f"r{i}", f"{i}.txt")]


def test_an_image_part_leaves_no_process_behind():
    for _ in range(2):
        iterator = ingest(
            ListSource((Input("a.png", encoded()), Input("b.png", encoded()))),
            [],
            source_name="s",
            modality="image",
            limits=Limits(),
        )
        next(iterator)
        iterator.close()
    found = psutil.Process().children(recursive=True)
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in found)


def test_a_source_of_another_package(monkeypatch):
    point = EntryPoint("list", "ingest.test_ingest:make_list_source", "shardwright.sources")
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: EntryPoints([point]).select(group=group),
    )
    settings = Source.model_construct(kind="list", uri="x")
    assert open_source(settings, 1, "code").items == (Input("x", b"1"),)
    with pytest.raises(UserError, match="'other' is unknown"):
        open_source(Source.model_construct(kind="other", uri="x"), 1, "code")


def make_list_source(settings, max_bytes, modality):
    return ListSource((Input(settings.uri, str(max_bytes).encode()),))


def test_the_recipes_that_ship_are_whole(tmp_path):
    code = load_recipe(RECIPES / "code.yaml")
    assert (code.name, code.modality, code.source.uri) == ("code", "code", "./data")
    assert (code.limits.max_bytes, code.clusters.k, code.duplicates.exact) == (10**6, 100, True)
    assert (code.prune.method, code.prune.fraction, code.prune.alpha) == ("scip", 0.2, 0.8)
    assert (code.embedding.model, code.shards.format) == ("builtin:hashing", "mds")
    for name in ("a.py", "x/a.cpp", "x/node_modules/a.js", "a.txt", "a.rs", "a.min.js"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    source = open_source(code.source.model_copy(update={"uri": str(tmp_path)}), 100, "code")
    assert [unit.path for unit in source.units(None)] == ["a.py", "a.rs", "x/a.cpp"]


def test_the_image_recipe_takes_all_that_can_be_decoded():
    images = load_recipe(RECIPES / "images.yaml")
    assert images.modality == "image"
    assert images.embedding.model == "builtin:descriptor"
    assert images.limits.max_bytes == 50_000_000
    assert sorted(images.source.include) == [f"**/*{e}" for e in decodable_extensions()]


def test_the_limits_of_the_recipe_are_the_defaults():
    images = load_recipe(RECIPES / "images.yaml")
    assert images.limits.model_dump(exclude={"max_bytes"}) == Limits().model_dump(
        exclude={"max_bytes"}
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to the superuser")
def test_a_folder_without_access(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    source = open_source(Source(kind="files", uri=str(tmp_path)), 100, "code")
    (unit,) = source.units(None)
    assert unit.problem[0] == "unreadable"
