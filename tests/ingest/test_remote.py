"""All kinds of source on a Beam filesystem that only these tests know."""

import io
import pickle
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem
from ingest.bad_inputs import GOOD, tarred, zipped

from shardwright.errors import DataError, UserError
from shardwright.pipelines.sections import Source
from shardwright.pipelines.sources import Refusal, open_source

STORE: dict[str, bytes] = {}


class MemoryFileSystem(FileSystem):
    """Objects in a dict, like an object store: keys with slashes, and no folders."""

    @classmethod
    def scheme(cls) -> str:
        return "mem"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        raise NotImplementedError

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix) -> Iterator[FileMetadata]:
        for name in sorted(STORE, reverse=True):
            if name.startswith(dir_or_prefix):
                yield self.metadata(name)

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        raise NotImplementedError

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        assert compression_type == CompressionTypes.UNCOMPRESSED
        if path not in STORE:
            raise BeamIOError("not found", {path: "gone"})
        return io.BytesIO(STORE[path])

    def copy(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def rename(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def exists(self, path) -> bool:
        return path in STORE

    def size(self, path) -> int:
        return len(STORE[path])

    def last_updated(self, path) -> float:
        return 7.0

    def checksum(self, path) -> str:
        raise NotImplementedError

    def metadata(self, path) -> FileMetadata:
        return FileMetadata(path, len(STORE[path]), 7.0)

    def delete(self, paths):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def store():
    STORE.clear()
    yield STORE
    STORE.clear()


def read(kind, uri, **settings):
    source = open_source(Source(kind=kind, uri=uri, **settings), 1000, "code")
    source = pickle.loads(pickle.dumps(source))
    units = list(source.units(None))
    return [
        (item.path, item.reason if isinstance(item, Refusal) else item.data)
        for item in source.read(units)
    ]


def test_files(store):
    names = ["in/b.py", "in/a/c.py", "in/a.py", "in/notes.txt", "in/folder/", "in/x.gz", "inn/z.py"]
    store |= {f"mem://bucket/{name}": name.encode() for name in names}
    store["mem://bucket/in/large.py"] = bytes(1001)
    assert read("files", "mem://bucket/in", include=["**/*.py"]) == [
        ("a/c.py", b"in/a/c.py"),
        ("a.py", b"in/a.py"),
        ("b.py", b"in/b.py"),
        ("large.py", "too_large"),
    ]
    assert read("files", "mem://bucket/in/*.gz") == [("x.gz", b"in/x.gz")]
    assert read("files", "mem://bucket/in/**/c.py") == [("a/c.py", b"in/a/c.py")]
    assert read("files", "mem://bucket/in/a.py") == [("a.py", b"in/a.py")]


def test_a_file_that_goes_after_it_was_listed(store):
    store["mem://bucket/a.py"] = GOOD
    source = open_source(Source(kind="files", uri="mem://bucket"), 1000, "code")
    units = list(source.units(None))
    assert units[0].size == len(GOOD)
    assert units[0].state == f"{len(GOOD)}:7.0"
    store.clear()
    (item,) = source.read(units)
    assert isinstance(item, Refusal)
    assert item.reason == "unreadable"


class Broken(io.BytesIO):
    def read(self, size=-1):
        raise RuntimeError("connection lost")


@pytest.mark.parametrize("kind", ["files", "archive", "parquet", "jsonl"])
def test_a_store_that_goes_away_is_no_fault_of_a_file(store, monkeypatch, kind):
    name = {"files": "a.py", "archive": "a.zip"}.get(kind, f"a.{kind}")
    store[f"mem://bucket/{name}"] = GOOD
    monkeypatch.setattr(MemoryFileSystem, "open", lambda *_, **__: Broken(bytes(1000)))
    with pytest.raises(DataError, match=f"^mem://bucket/{name}: its store .*connection lost"):
        read(kind, "mem://bucket")


def test_archives_and_tables(store):
    rows = io.BytesIO()
    pq.write_table(pa.table({"content": ["a", "b"]}), rows)
    store |= {
        "mem://bucket/x/a.zip": zipped(("a.py", GOOD), ("../b.py", GOOD)),
        "mem://bucket/x/b.tar.gz": tarred(("c.py", GOOD, b"0"), kind="gz"),
        "mem://bucket/x/c.parquet": rows.getvalue(),
        "mem://bucket/x/d.jsonl": b'{"content": "a"}\n{"content": null}\n',
        "mem://bucket/x/e.parquet": rows.getvalue()[:-9],
    }
    assert read("archive", "mem://bucket/x") == [
        ("a.zip!a.py", GOOD),
        ("a.zip!../b.py", "path_escape"),
        ("b.tar.gz!c.py", GOOD),
    ]
    assert read("parquet", "mem://bucket/x") == [
        ("c.parquet#0", b"a"),
        ("c.parquet#1", b"b"),
        ("e.parquet", "unreadable_table"),
    ]
    assert read("jsonl", "mem://bucket/x/d.jsonl") == [
        ("d.jsonl#0", b"a"),
        ("d.jsonl#1", "missing_content"),
    ]


@pytest.mark.parametrize("uri", ["mem://bucket/none", "mem://bucket/*.py", "nosuch://bucket/a"])
def test_a_uri_that_names_nothing(uri):
    with pytest.raises(UserError, match=r"source\.uri"):
        read("files", uri)
