"""MDS shards: the bytes of mosaicml-streaming's writer, and full reads by both other readers."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.errors import DataError, UserError
from shardwright.shards import mds
from shardwright.shards.order import CutState, cut

LIMIT = 1 << 20
SCHEMA = pa.schema(
    {
        "record_id": pa.string(),
        "content": pa.large_string(),
        "image": pa.binary(),
        "blob": pa.large_binary(),
        "bytes": pa.int64(),
        "width": pa.int32(),
        "score": pa.float64(),
        "weight": pa.float32(),
    }
)
SAMPLES = [
    {
        "record_id": "0" * 32,
        "content": "print('hello')\n",
        "image": b"\x89PNG\x00\xff",
        "blob": b"",
        "bytes": 2**62,
        "width": -7,
        "score": 0.1,
        "weight": 0.5,
    },
    {
        "record_id": "1" * 32,
        "content": "",
        "image": b"",
        "blob": b"\x00" * 300,
        "bytes": -1,
        "width": 2**31 - 1,
        "score": -1e300,
        "weight": -0.25,
    },
    {
        "record_id": "",
        "content": "Grüße, 世界 🚀\x00end",
        "image": bytes(range(256)),
        "blob": b"x",
        "bytes": 0,
        "width": 0,
        "score": float("inf"),
        "weight": 3.0,
    },
]


def table(samples=SAMPLES):
    return pa.Table.from_pylist(samples, SCHEMA)


def write_folder(folder: Path, samples: pa.Table, limit: int = LIMIT) -> list[mds.ShardFile]:
    columns = mds.columns_for(samples.schema)
    sizes = mds.batch_sizes(samples, columns)
    shards, _, _ = cut(sizes, limit, CutState(), mds.shard_overhead(columns, limit))
    files = [
        mds.write_shard(
            folder / f"shard.{shard:05}.mds",
            samples.filter(pa.array(shards == shard)),
            columns,
            limit,
        )
        for shard in np.unique(shards)
    ]
    mds.write_index(folder / mds.INDEX, files, columns, limit)
    return files


def many(count: int) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {**SAMPLES[i % 3], "record_id": f"{i:032x}", "content": f"é{i}" * (i % 50), "bytes": i}
            for i in range(count)
        ],
        SCHEMA,
    )


def test_bytes_of_a_tiny_shard(tmp_path):
    columns = {"text": "str", "n": "int"}
    config = json.dumps(
        {
            "column_encodings": ["int", "str"],
            "column_names": ["n", "text"],
            "column_sizes": [8, None],
            "compression": None,
            "format": "mds",
            "hashes": ["sha256"],
            "size_limit": 1000,
            "version": 2,
        }
    ).encode()
    first = 4 + 3 * 4 + len(config)
    expected = (
        np.array([2, first, first + 15, first + 27], "<u4").tobytes()
        + config
        + (b"\x03\0\0\0" + b"\x05" + b"\0" * 7 + b"abc")
        + (b"\x00\0\0\0" + b"\xff" * 8)
    )
    written = mds.write_shard(
        tmp_path / "shard.00000.mds",
        pa.table({"text": ["abc", None], "n": [5, -1]}),
        columns,
        1000,
    )
    assert (tmp_path / "shard.00000.mds").read_bytes() == expected
    digest = hashlib.sha256(expected).hexdigest()
    assert written == mds.ShardFile("shard.00000.mds", 2, len(expected), digest)


def test_bytes_are_those_of_mosaicml_streaming(tmp_path):
    from streaming import MDSWriter

    columns = mds.columns_for(SCHEMA)
    theirs = tmp_path / "theirs"
    with MDSWriter(out=str(theirs), columns=columns, hashes=["sha256"], size_limit=LIMIT) as out:
        for sample in SAMPLES:
            out.write(sample)
    ours = tmp_path / "ours"
    ours.mkdir()
    write_folder(ours, table())
    assert (ours / "shard.00000.mds").read_bytes() == (theirs / "shard.00000.mds").read_bytes()
    indexes = [json.loads((folder / "index.json").read_text()) for folder in (ours, theirs)]
    assert indexes[0]["shards"] == indexes[1]["shards"]
    assert indexes[0]["version"] == indexes[1]["version"]


def test_chunked_and_sliced_tables_give_the_same_bytes(tmp_path):
    samples, columns = many(60), mds.columns_for(SCHEMA)
    whole = mds.write_shard(tmp_path / "a.mds", samples.take(list(range(7, 47))), columns, LIMIT)
    sliced = mds.write_shard(tmp_path / "a.mds", samples.slice(7, 40), columns, LIMIT)
    pieces = pa.concat_tables([samples.slice(7, 10), samples.slice(17, 30)])
    chunked = mds.write_shard(tmp_path / "a.mds", pieces, columns, LIMIT)
    assert whole == sliced == chunked


@pytest.fixture
def _clean_shared_memory(tmp_path, monkeypatch):
    from streaming.base.util import clean_stale_shared_memory

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where it leaves lock files
    clean_stale_shared_memory()
    yield
    clean_stale_shared_memory()


@pytest.mark.usefixtures("_clean_shared_memory")
def test_mosaicml_streaming_reads_everything(tmp_path):
    from streaming import StreamingDataset

    samples = many(200)
    remote, local = tmp_path / "remote", tmp_path / "local"
    remote.mkdir()
    files = write_folder(remote, samples, limit=9_000)
    assert len(files) > 3
    # A remote makes the reader validate hashes: files that lie in local are taken as they are.
    for where in ({"local": str(remote)}, {"remote": str(remote), "local": str(local)}):
        dataset = StreamingDataset(**where, shuffle=False, batch_size=1, validate_hash="sha256")
        assert [dataset[i] for i in range(len(dataset))] == samples.to_pylist()
        assert list(dataset) == samples.to_pylist()
        del dataset


@pytest.mark.usefixtures("_clean_shared_memory")
def test_mosaicml_streaming_refuses_a_changed_shard(tmp_path):
    from streaming import StreamingDataset

    remote = tmp_path / "remote"
    remote.mkdir()
    write_folder(remote, many(5))
    path = remote / "shard.00000.mds"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    dataset = StreamingDataset(
        remote=str(remote),
        local=str(tmp_path / "local"),
        batch_size=1,
        validate_hash="sha256",
        download_retry=1,
    )
    with pytest.raises(ValueError, match="Checksum failure"):
        dataset[0]


def test_litdata_reads_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_OPTIMIZER_CACHE_FOLDER", str(tmp_path / "cache"))
    from litdata import StreamingDataset

    samples = many(200)
    folder = tmp_path / "shards"
    folder.mkdir()
    write_folder(folder, samples, limit=9_000)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    dataset = StreamingDataset(str(folder), shuffle=False)
    assert len(dataset) == 200
    assert list(dataset) == samples.to_pylist()
    assert dataset[123] == samples.slice(123, 1).to_pylist()[0]
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name in before} == before


def test_an_index_without_shards(tmp_path):
    mds.write_index(tmp_path / mds.INDEX, [], {"text": "str"}, LIMIT)
    index = json.loads((tmp_path / mds.INDEX).read_text())
    assert index["shards"] == []
    assert index["version"] == 2
    assert index["config"]["chunk_size"] == 0


def test_index_bytes_do_not_depend_on_column_order(tmp_path):
    files = [mds.ShardFile("shard.00000.mds", 1, 10, "00")]
    mds.write_index(tmp_path / "a", files, {"x": "str", "y": "int"}, LIMIT)
    mds.write_index(tmp_path / "b", files, {"y": "int", "x": "str"}, LIMIT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_sample_sizes_from_lengths_equal_those_of_the_batch():
    samples, columns = many(40), mds.columns_for(SCHEMA)
    layout = mds.sample_layout(columns)
    assert layout == mds.SampleLayout(
        4 + 4 * 4 + 4 * 8, variable=("blob", "content", "image", "record_id")
    )
    lengths = {
        name: np.array(
            [len(v.encode() if isinstance(v, str) else v) for v in samples[name].to_pylist()]
        )
        for name in layout.variable
    }
    expected = mds.batch_sizes(samples, columns)
    assert expected.dtype == np.int64
    np.testing.assert_array_equal(mds.sample_sizes(columns, 40, lengths), expected)
    np.testing.assert_array_equal(sum(lengths.values()) + layout.fixed, expected)


def test_sample_sizes_in_duckdb():
    import duckdb

    columns = mds.columns_for(SCHEMA)
    layout = mds.sample_layout(columns)
    samples = table([*SAMPLES, {"bytes": 1, "width": 1, "score": 1.0, "weight": 1.0}])
    measure = {"record_id": "strlen", "content": "strlen"}
    terms = [f"coalesce({measure.get(n, 'octet_length')}({n}), 0)" for n in layout.variable]
    query = f"SELECT {layout.fixed} + {' + '.join(terms)} FROM samples"
    with duckdb.connect() as connection:
        connection.register("samples", samples)
        sizes = [row[0] for row in connection.execute(query).fetchall()]
    assert sizes == mds.batch_sizes(samples, columns).tolist()


@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=40), limit=st.integers(250, 900))
@settings(max_examples=60, deadline=None)
def test_files_stay_within_the_limit(tmp_path_factory, texts, limit):
    folder = tmp_path_factory.mktemp("shards")
    columns = {"text": "str", "n": "int"}
    samples = pa.table({"text": texts, "n": pa.array(range(len(texts)), pa.int64())})
    sizes = mds.batch_sizes(samples, columns)
    overhead = mds.shard_overhead(columns, limit)
    shards, positions, _ = cut(sizes, limit, CutState(), overhead)
    for shard in np.unique(shards):
        inside = shards == shard
        path = folder / f"{shard}.mds"
        written = mds.write_shard(path, samples.filter(pa.array(inside)), columns, limit)
        assert written.bytes == path.stat().st_size == overhead + sizes[inside].sum()
        assert written.bytes <= limit or inside.sum() == 1
        assert positions[inside].tolist() == list(range(inside.sum()))
        following = np.flatnonzero(shards == shard + 1)
        if len(following):
            assert written.bytes + sizes[following[0]] > limit, "room was left"
    shutil.rmtree(folder)


def test_what_a_shard_cannot_hold(tmp_path):
    with pytest.raises(UserError, match=r"'attributes' has type map.*leave it out"):
        mds.columns_for(pa.schema({"attributes": pa.map_(pa.string(), pa.string())}))
    with pytest.raises(UserError, match="at least one column"):
        mds.columns_for(pa.schema([]))
    with pytest.raises(UserError, match="below 4 GiB"):
        mds.shard_overhead({"text": "str"}, 2**32)
    with pytest.raises(DataError, match="'n' is null in sample 1"):
        mds.write_shard(tmp_path / "a.mds", pa.table({"n": [1, None]}), {"n": "int"}, LIMIT)
    assert not list(tmp_path.iterdir())


def test_four_gigabytes_are_refused_before_any_byte_is_written(tmp_path, monkeypatch):
    columns = {"text": "str"}
    with pytest.raises(DataError, match=r"sample 1 of 2 takes 4294967304 bytes"):
        mds.sample_sizes(columns, 2, {"text": np.array([1, 2**32])})
    huge = np.full(2, 3 * 2**30)
    monkeypatch.setattr(mds, "batch_sizes", lambda *_: huge)
    with pytest.raises(DataError, match=r"a\.mds would take 644\d+ bytes"):
        mds.write_shard(tmp_path / "a.mds", pa.table({"text": ["a", "b"]}), columns, LIMIT)
    assert not list(tmp_path.iterdir())
