"""WebDataset shards: bytes and sizes, read by tarfile, webdataset and our own reader."""

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.errors import DataError, UserError
from shardwright.shards import tar
from shardwright.shards.tar_reader import TarReader

CODE = pa.schema(
    {
        "record_id": pa.string(),
        "content": pa.large_string(),
        "path": pa.string(),
        "license": pa.string(),
    }
)
IMAGE = pa.schema(
    {
        "record_id": pa.string(),
        "image": pa.large_binary(),
        "label": pa.string(),
        "format": pa.string(),
        "width": pa.int32(),
    }
)
# What JSON escapes, what it does not, and signs of one to four bytes.
NASTY = "".join(map(chr, range(0x30))) + '\x7f\x80é\u2028\ufeff🚀/\\"<&>'


def code(count: int) -> list[dict[str, object]]:
    return [
        {
            "record_id": f"{i:032x}",
            "content": f"Grüße {i}\n" * (i * 37 % 150),
            "path": f"a/{NASTY if i % 3 == 0 else i}.py",
            "license": "" if i % 2 else "MIT",
        }
        for i in range(count)
    ]


def pictures(count: int) -> list[dict[str, object]]:
    formats = ["PNG", "JPEG", "WEBP", "MPO"]
    return [
        {
            "record_id": f"{i:032x}",
            "image": bytes(range(256)) * (i % 5),
            "label": f"é{i}",
            "format": formats[i % 4],
            "width": i - 3,
        }
        for i in range(count)
    ]


def test_bytes_of_a_tiny_archive(tmp_path: Path) -> None:
    record = "0123456789abcdef" * 2
    table = pa.table(
        {"record_id": [record], "content": pa.array(["é"], pa.large_string()), "path": ["a/b.py"]}
    )
    schema = pa.schema([CODE.field(name) for name in ("record_id", "content", "path")])
    told = b'{"record_id":"%s","path":"a/b.py"}' % record.encode()
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in ((f"{record}.txt", "é".encode()), (f"{record}.json", told)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    written = tar.write_shard(tmp_path / "a.tar", table, schema)
    data = (tmp_path / "a.tar").read_bytes()
    ours = bytearray(data)
    # Python's own headers leave the device numbers empty or zero, by its version.
    theirs = bytearray(expected.getvalue()[: len(data)])
    for header in (0, 1024):
        for archive_bytes in (ours, theirs):
            archive_bytes[header + 148 : header + 156] = bytes(8)
            archive_bytes[header + 329 : header + 345] = bytes(16)
    assert ours == theirs
    assert (len(data), hashlib.sha256(data).hexdigest()) == (written.bytes, written.sha256)
    assert (written.basename, written.samples) == ("a.tar", 1)
    assert len(data) == 4 * 512 + 1024


@pytest.mark.parametrize(("schema", "samples"), [(CODE, code(40)), (IMAGE, pictures(40))])
def test_tarfile_reads_every_member_in_order(
    tmp_path: Path, schema: pa.Schema, samples: list[dict[str, object]]
) -> None:
    path = tmp_path / "a.tar"
    tar.write_shard(path, pa.Table.from_pylist(samples, schema), schema)
    suffixes = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "MPO": "jpg"}
    with tarfile.open(path, format=tarfile.USTAR_FORMAT) as archive:
        members = archive.getmembers()
        assert len(members) == 2 * len(samples)
        for member in members:
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert (member.uname, member.gname, member.isreg()) == ("", "", True)
        for sample, payload, told in zip(samples, members[::2], members[1::2], strict=True):
            rest = dict(sample)
            wanted = rest.pop("content", None) or rest.pop("image", b"")
            suffix = "txt" if "content" in sample else suffixes[str(sample["format"])]
            assert payload.name == f"{sample['record_id']}.{suffix}"
            assert told.name == f"{sample['record_id']}.json"
            data = archive.extractfile(payload).read()  # type: ignore[union-attr]
            assert data == (wanted.encode() if isinstance(wanted, str) else wanted)
            text = archive.extractfile(told).read()  # type: ignore[union-attr]
            assert json.loads(text) == rest
            assert text == json.dumps(rest, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize(("schema", "samples"), [(CODE, code(60)), (IMAGE, pictures(60))])
def test_webdataset_reads_everything_in_order(
    tmp_path: Path, schema: pa.Schema, samples: list[dict[str, object]]
) -> None:
    import webdataset

    path = tmp_path / "a.tar"
    tar.write_shard(path, pa.Table.from_pylist(samples, schema), schema)
    found = []
    for item in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
        told = json.loads(item.pop("json"))
        assert item.pop("__key__") == told["record_id"]
        (payload,) = (value for name, value in item.items() if not name.startswith("__"))
        is_text = "content" in schema.names
        found.append(told | ({"content": payload.decode()} if is_text else {"image": payload}))
    assert found == samples


@pytest.mark.parametrize(("schema", "samples"), [(CODE, code(90)), (IMAGE, pictures(90))])
def test_the_reader_finds_any_sample(
    tmp_path: Path, schema: pa.Schema, samples: list[dict[str, object]]
) -> None:
    path = tmp_path / "a.tar"
    tar.write_shard(path, pa.Table.from_pylist(samples, schema), schema)
    reader = TarReader(path)
    assert len(reader) == 90
    rows = np.array([89, 0, 7, 7, 31])
    for one in (reader, pickle.loads(pickle.dumps(reader))):
        assert one.read(rows) == [samples[row] for row in rows]
    assert list(reader.read(rows)[0]) == [
        "record_id",
        *("content" if "content" in schema.names else "image",),
        *[n for n in schema.names if n not in ("record_id", "content", "image")],
    ]
    assert reader.read(np.empty(0, np.int64)) == []


def test_sizes_from_duckdb_are_those_of_the_files(tmp_path: Path) -> None:
    null = {"record_id": "f" * 32, "content": None, "path": None, "license": None}
    none = {"record_id": "f" * 32, "image": None, "label": None, "format": "PNG", "width": -(2**31)}
    # Every length of the JSON up to a block more, as sizes come in blocks.
    rows = pa.Table.from_pylist([{**null, "path": "x" * length} for length in range(513)], CODE)
    with duckdb.connect() as connection:
        connection.register("samples", rows)
        query = f"SELECT sum({tar.size_sql(CODE, {})}) FROM samples"
        size = connection.execute(query).fetchall()[0][0]
    assert tar.write_shard(tmp_path / "a.tar", rows, CODE).bytes == size + tar.shard_overhead()
    for schema, samples in (
        (CODE, [*code(40), null]),
        (IMAGE, [*pictures(40), none]),
    ):
        rows = pa.Table.from_pylist(samples, schema)
        with duckdb.connect() as connection:
            connection.register("samples", rows)
            for lengths in ({}, {"content": "coalesce(strlen(content), 0)"}):
                query = f"SELECT {tar.size_sql(schema, lengths)} FROM samples"
                sizes = [row[0] for row in connection.execute(query).fetchall()]
                for i, size in enumerate(sizes):
                    written = tar.write_shard(tmp_path / "a.tar", rows.slice(i, 1), schema)
                    assert written.bytes == size + tar.shard_overhead()
                whole = tar.write_shard(tmp_path / "a.tar", rows, schema)
                assert whole.bytes == sum(sizes) + tar.shard_overhead()
    assert TarReader(tmp_path / "a.tar").read(np.array([40])) == [
        none | {"image": b"", "label": ""}
    ]


@given(text=st.text(max_size=30))
@settings(max_examples=40, deadline=None)
def test_sizes_of_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tar"
    row = {"record_id": "0" * 32, "content": "x", "path": text * 20, "license": text}
    rows = pa.Table.from_pylist([row], CODE)
    with duckdb.connect() as connection:
        connection.register("samples", rows)
        query = f"SELECT {tar.size_sql(CODE, {})} FROM samples"
        size = connection.execute(query).fetchall()[0][0]
    assert tar.write_shard(path, rows, CODE).bytes == size + tar.shard_overhead()
    assert TarReader(path).read(np.array([0])) == [row]


def test_order_and_chunks_give_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    rows = pa.Table.from_pylist(code(50), CODE)
    order = np.random.default_rng(0).permutation(50)
    straight = tar.write_shard(tmp_path / "a.tar", rows.take(order), CODE)
    monkeypatch.setattr(tar, "_TAKEN_BYTES", 3_000)
    chunked = pa.concat_tables([rows.slice(0, 13), rows.slice(13)])
    assert tar.write_shard(tmp_path / "a.tar", chunked, CODE, order) == straight
    assert [s["record_id"] for s in TarReader(tmp_path / "a.tar").read(np.arange(50))] == [
        f"{i:032x}" for i in order
    ]


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    tar.write_shard(path, pa.Table.from_pylist(code(9), CODE), CODE)
    whole = path.read_bytes()
    places = TarReader(path)._places
    third = int(places[3, 0])
    for damaged, words in (
        (b"", "empty file"),
        (whole[:-1024], r"a\.tar: damaged from record 8 on"),
        (whole[: third + 1], r"a\.tar: damaged from record \d on"),
        (whole[: third - 100] + b"x" + whole[third - 99 :], "damaged from record 3 on .*checksum"),
        (b"no archive" * 600, "damaged from record 0 on"),
        # a member too many
        (whole[: third - 512] + whole[int(places[4, 2]) - 512 :], "damaged from record 3 on"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=words):
            TarReader(path)
    broken = bytearray(whole)
    broken[int(places[4, 2])] = ord("[")
    path.write_bytes(broken)
    with pytest.raises(DataError, match=r"a\.tar: record 4 of 9 is damaged"):
        TarReader(path).read(np.array([1, 4]))


def test_what_a_sample_cannot_be(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="have 0"):
        tar.payload_column(pa.schema({"record_id": pa.string()}))
    with pytest.raises(UserError, match=r"'weight' has type double.*leave it out"):
        tar.payload_column(CODE.append(pa.field("weight", pa.float64())))
    assert [tar.extension(name) for name in ("JPEG", "PNG", "JPEG2000", "?")] == [
        *("jpg", "png", "jpeg2000", "bin")
    ]
    monkeypatch.setattr(tar, "_SIZE_LIMIT", 8)
    with pytest.raises(DataError, match="more than tar can say"):
        tar.write_shard(tmp_path / "a.tar", pa.Table.from_pylist(code(9), CODE), CODE)
    assert not list(tmp_path.iterdir())
