"""Samples of an MDS shard by row: what was written, or a fault that names the records."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from shard_files import sample, write_shards

from shardwright.errors import DataError, UserError
from shardwright.shards.mds import columns_for, write_shard
from shardwright.shards.mds_reader import MdsReader
from shardwright.shards.readers import open_shard


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_shards(tmp_path, [40]) / "shards" / "train" / "shard.00000.mds"


def test_reads_what_was_written(path: Path) -> None:
    reader = open_shard(path, "mds")
    assert len(reader) == 40
    rows = np.random.default_rng(0).integers(0, 40, 100)
    assert reader.read(rows) == [sample("a", row) for row in rows.tolist()]
    assert reader.read(np.empty(0, np.int64)) == []
    assert {type(value) for value in reader.read(rows)[0].values()} == {str, bytes, int, float}


def test_columns_in_the_order_asked_for(path: Path) -> None:
    found = MdsReader(path, ["score", "record_id"]).read(np.array([3]))[0]
    assert list(found.items()) == [(name, sample("a", 3)[name]) for name in ("score", "record_id")]
    with pytest.raises(UserError, match="no column 'nothing'; there are content, image"):
        MdsReader(path, ["nothing"])


def test_pickles_to_its_path(path: Path) -> None:
    reader = pickle.loads(pickle.dumps(MdsReader(path, ["lines"])))
    assert reader.read(np.array([7])) == [{"lines": 7}]


def test_numbers_alone_and_no_sample(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([1, -2], pa.int64()), "b": [0.5, 1e300]})
    write_shard(tmp_path / "n.mds", table, columns_for(table.schema), 10**6)
    assert MdsReader(tmp_path / "n.mds").read(np.array([1, 0])) == [
        {"a": -2, "b": 1e300},
        {"a": 1, "b": 0.5},
    ]
    write_shard(tmp_path / "e.mds", table.slice(0, 0), columns_for(table.schema), 10**6)
    assert len(MdsReader(tmp_path / "e.mds")) == 0


@pytest.mark.parametrize("length", [0, 3, 20, 200, -1])
def test_truncated(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"shard\.00000\.mds: no readable MDS shard"):
        MdsReader(path)


def planted(path: Path, row: int, at: int, value: bytes) -> MdsReader:
    """The reader of a shard in which one sample was changed."""
    data = bytearray(path.read_bytes())
    start = int(np.frombuffer(data, "<u4", 1, 4 + 4 * row)[0])
    data[start + at : start + at + len(value)] = value
    path.write_bytes(bytes(data))
    return MdsReader(path)


@pytest.mark.parametrize("length", [b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00"])
def test_wrong_length_names_the_record(path: Path, length: bytes) -> None:
    reader = planted(path, 7, 0, length)
    assert reader.read(np.array([6, 8])) == [sample("a", 6), sample("a", 8)]
    with pytest.raises(DataError, match=r"00000\.mds: record 7 of 40: damaged \(lengths do not"):
        reader.read(np.arange(40))


def test_text_that_is_no_utf8_names_the_record(path: Path) -> None:
    reader = planted(path, 8, 12, b"\xff")
    with pytest.raises(DataError, match="record 8 of 40: damaged \\(no UTF-8"):
        reader.read(np.arange(40))


def test_unknown_encoding(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"bytes"', b'"cadet"'))
    with pytest.raises(DataError, match="encoding cadet is not known"):
        MdsReader(path)


def test_unknown_format(path: Path) -> None:
    with pytest.raises(UserError, match="no reader for shards of format 'zip'"):
        open_shard(path, "zip")
