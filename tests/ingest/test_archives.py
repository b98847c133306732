import bz2
import gzip
import lzma
import tarfile
import tracemalloc

import pytest
from ingest.bad_inputs import GOOD, tarred, zipped

from shardwright.pipelines.sections import Source
from shardwright.pipelines.sources import Input, Refusal, open_source

FILE = tarfile.REGTYPE


def read(uri, modality="code", max_bytes=100_000, **settings) -> list[Input | Refusal]:
    source = open_source(Source(kind="archive", uri=str(uri), **settings), max_bytes, modality)
    return list(source.read(list(source.units(None))))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip"])
def test_a_bomb_is_bounded_in_memory(tmp_path, name):
    bomb = b"\n" * 60_000_000
    kind = name.rpartition(".")[2]
    if kind == "zip":
        data = zipped(("bomb.py", bomb), ("a.py", GOOD))
    else:
        members = (("bomb.py", bomb, FILE), ("a.py", GOOD, FILE))
        data = tarred(*members, kind="" if kind == "tar" else kind)
    (tmp_path / name).write_bytes(data)
    del data, bomb
    tracemalloc.start()
    refused, fine = read(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.reason == "too_large"
    assert fine == Input(f"{name}!a.py", GOOD)
    assert peak < 16_000_000  # xz looks back over 8 MB


def test_a_header_bomb_is_bounded_in_memory(tmp_path):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    header.size = 60_000_000
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.fileobj.write(header.tobuf())
        for _ in range(60):
            archive.fileobj.write(b"\n" * 1_000_000)
    tracemalloc.start()
    (refused,) = read(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.reason == "unreadable_archive"
    assert peak < 8_000_000


def test_many_members_are_not_kept(tmp_path):
    members = [(f"{i}.py", b"", FILE) for i in range(5_000)]
    (tmp_path / "a.tar").write_bytes(tarred(*members))
    source = open_source(Source(kind="archive", uri=str(tmp_path)), 100, "code")
    units = list(source.units(None))
    tracemalloc.start()
    count = sum(1 for _ in source.read(units))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 5_000
    assert peak < 2_000_000


def test_members_are_wanted_by_their_own_names(tmp_path):
    (tmp_path / "py").mkdir()
    data = tarred(("./src/a.py", GOOD, FILE), ("b.txt", GOOD, FILE), ("test/c.py", GOOD, FILE))
    (tmp_path / "py/a.tar").write_bytes(data)
    items = read(tmp_path, include=["**/*.py"], exclude=["test/**"])
    assert [item.path for item in items] == ["py/a.tar!src/a.py"]


def test_one_archive_needs_no_suffix(tmp_path):
    (tmp_path / "download").write_bytes(zipped(("a.py", GOOD)))
    (tmp_path / "other").write_bytes(tarred(("a.py", GOOD, FILE), kind="xz"))
    assert read(tmp_path) == []
    assert read(tmp_path / "download") == [Input("download!a.py", GOOD)]
    assert read(tmp_path / "other") == [Input("other!a.py", GOOD)]


def test_a_glob_of_archives(tmp_path):
    for name in ("a.zip", "b.zip", "c.ZIP"):
        (tmp_path / name).write_bytes(zipped(("x.py", GOOD)))
    assert [item.path for item in read(f"{tmp_path}/[bc].zip")] == ["b.zip!x.py", "c.ZIP!x.py"]


def test_folders_are_labels_within_the_archive_only(tmp_path):
    (tmp_path / "outer").mkdir()
    data = zipped(("cats/a.png", b"x"), ("b.png", b"x"), ("x/dogs/c.png", b"x"))
    (tmp_path / "outer/a.zip").write_bytes(data)
    assert [item.label for item in read(tmp_path, "image")] == ["cats", None, "dogs"]


def test_concatenated_compressed_streams_are_one_archive(tmp_path):
    plain = tarred(("a.py", GOOD, FILE), ("b.py", GOOD, FILE))
    for name, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        data = compress(plain[:1000]) + compress(plain[1000:])
        (tmp_path / f"a.tar.{name}").write_bytes(data)
    (tmp_path / "padded.tar.xz").write_bytes(
        lzma.compress(plain[:1000]) + bytes(8) + lzma.compress(plain[1000:]) + bytes(4)
    )
    assert [item.data for item in read(tmp_path)] == [GOOD] * 8


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_the_first_of_two_members_of_one_name_is_taken(tmp_path, name):
    members = [("a.py", b"one"), ("./a.py", b"two"), ("a.py", b"three")]
    if name.endswith("zip"):
        data = zipped(*members)
    else:
        data = tarred(*((member, content, FILE) for member, content in members))
    (tmp_path / name).write_bytes(data)
    first, second, third = read(tmp_path)
    assert first == Input(f"{name}!a.py", b"one")
    assert (second.path, second.reason) == (f"{name}!a.py", "duplicate_path")
    assert third == second


def test_a_missing_end_says_so(tmp_path):
    (tmp_path / "a.tar").write_bytes(tarred(("a.py", GOOD, FILE))[:1024])
    fine, refused = read(tmp_path)
    assert fine.data == GOOD
    assert refused == Refusal(
        "a.tar", "unreadable_archive", "the archive is cut short: it has no end marker"
    )
