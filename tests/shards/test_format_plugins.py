"""Formats of shards that packages add: looked up, written, read, and refused."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pretended import pretend

from shardwright import plugins
from shardwright.errors import DataError, UserError
from shardwright.metadata.filelist import ListedFile
from shardwright.metadata.files import sha256_file
from shardwright.pipelines.recipe import load_recipe
from shardwright.shards.added import ENTRY_POINTS, added_format, find_format
from shardwright.shards.formats import FORMATS, shard_format
from shardwright.shards.readers import open_shard

SCHEMA = pa.schema([("record_id", pa.string()), ("content", pa.large_string())])
SAMPLES = pa.table(
    {"record_id": ["a", "b", "c"], "content": ["one", None, "three"], "more": [1, 2, 3]},
    schema=pa.schema([*SCHEMA, ("more", pa.int32())]),
)


class Lines:
    """A sample is a line of its columns, between tabs."""

    suffix = ".lines"

    def size_sql(self, schema, lengths):
        return " + ".join(f"strlen({name}) + 1" for name in schema.names)

    def overhead(self, schema):
        return 10

    def write(self, path, samples):
        rows = ["\t".join(row.values()) for row in samples.to_pylist()]
        path.write_text("\n".join(rows))

    def open(self, path):
        return LinesReader([line.split("\t") for line in path.read_text().split("\n")])


class LinesReader(list):
    def read(self, rows):
        return [dict(zip(SCHEMA.names, self[row], strict=True)) for row in rows.tolist()]


class NoReader:
    suffix = ".lines"
    size_sql = overhead = write = Lines.write


class Tar(Lines):
    suffix = ".tar"


class TwoDots(Lines):
    suffix = ".lines.gz"


LINES, NO_READER, TAR, TWO_DOTS = Lines(), NoReader(), Tar(), TwoDots()


@pytest.fixture
def packages(monkeypatch):
    """Installs packages: name of an entry point -> what it loads, and of which package."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Lines.__module__])

    def install(*points):
        pretend(monkeypatch, __name__, ENTRY_POINTS, points)
        added_format.cache_clear()

    yield install
    added_format.cache_clear()


def made(name, what, package="acme 1.0"):
    """An entry point: its name, what it loads, and of which package."""
    return name, what, package


def test_a_format_is_written_in_order_and_read_by_position(packages, tmp_path: Path):
    packages(made("lines", "LINES"))
    kind = shard_format("lines")
    assert kind.basename(3) == "shard.00003.lines"
    assert kind.overhead(SCHEMA, 1000) == 10
    path = tmp_path / "x.lines"
    file = kind.write(path, SAMPLES, SCHEMA, 1000, np.array([2, 0, 1]))
    assert path.read_text() == "c\tthree\na\tone\nb\t"
    assert (file.samples, file.bytes, file.sha256) == (3, path.stat().st_size, sha256_file(path))
    reader = open_shard(path, "lines")
    assert len(reader) == 3
    assert reader.read(np.array([2, 0])) == [
        {"record_id": "b", "content": ""},
        {"record_id": "c", "content": "three"},
    ]
    picked = open_shard(path, "lines", ["content"])
    assert picked.read(np.array([1])) == [{"content": "one"}]
    with pytest.raises(UserError, match="no column 'nothing'; there are content, record_id"):
        open_shard(path, "lines", ["nothing"]).read(np.array([1]))
    kind.write(path, SAMPLES, SCHEMA, 1000, None)
    assert path.read_text() == "a\tone\nb\t\nc\tthree"


def test_a_size_that_was_promised_too_small_stops_the_run(packages, tmp_path: Path):
    packages(made("lines", "LINES"))
    write = shard_format("lines").write
    with pytest.raises(DataError, match=r"3 samples take 16 bytes as 'lines', above .* 15"):
        write(tmp_path / "x", SAMPLES, SCHEMA, 15, None)
    write(tmp_path / "x", SAMPLES, SCHEMA, 16, None)
    write(tmp_path / "x", SAMPLES.slice(2), SCHEMA, 3, None)  # one sample alone may be larger


def test_formats_that_ship_need_no_look_up(packages, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(plugins, "entry_points", None)
    for name in FORMATS:
        assert shard_format(name) is FORMATS[name]
    with pytest.raises(FileNotFoundError):
        open_shard(tmp_path / "none", "mds")


@pytest.mark.parametrize(
    ("points", "name", "message"),
    [
        ([], "zip", "no such format as 'zip'; there are mds, webdataset, parquet, and"),
        ([made("mds", "LINES")], "mds", r"'mds' of .*\(acme 1.0: .*LINES\) has a name that"),
        ([made("json", "LINES")], "json", "has a name that is Shardwright's own"),
        (
            [made("lines", "LINES"), made("lines", "TAR", "other 2.0")],
            "lines",
            r"\(acme 1.0: .*\) and .*\(other 2.0: .*\) have one name: rename one",
        ),
        ([made("lines", "NOTHING")], "lines", r"\(acme 1.0: .*cannot be imported \(AttributeErr"),
        ([("lines", "x.y.z", "acme 1")], "lines", "cannot be imported"),
        ([made("lines", "NO_READER")], "lines", "has no open: a format has size_sql, overhead"),
        ([made("lines", "TAR")], "lines", r"has the suffix '.tar': use one like .npz"),
        ([made("lines", "TWO_DOTS")], "lines", r"has the suffix '.lines.gz'"),
    ],
)
def test_what_is_refused(packages, tmp_path: Path, points, name, message):
    packages(*points)
    with pytest.raises(UserError, match=message):
        find_format(name)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{name: n, modality: code, source: {kind: files, uri: x}}")
    with pytest.raises(UserError, match=f"shards.format: .*{message}"):
        load_recipe(recipe, [f"shards.format={name}"])


def test_only_the_name_that_is_asked_for_is_imported(packages):
    packages(made("broken", "NOTHING"), made("lines", "LINES"), made("mds", "LINES"))
    found = find_format("lines")
    assert found is not None
    assert found[0].package == "acme 1.0"
    assert isinstance(found[1], Lines)


def test_the_version_is_part_of_what_decides(packages, tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{name: n, modality: code, source: {kind: files, uri: x}}")
    packages(made("lines", "LINES"))
    shards = load_recipe(recipe, ["shards.format=lines"]).shards
    assert shards.parameters()["package"] == "acme 1.0"
    packages(made("lines", "LINES", "acme 1.1"))
    assert shards.parameters()["package"] == "acme 1.1"
    assert "package" not in load_recipe(recipe).shards.parameters()


def test_every_file_but_an_index_holds_samples():
    holds = {kind: ListedFile("x", 1, "", 1, kind).holds_samples for kind in ("lines", "json")}
    assert holds == {"lines": True, "json": False}
