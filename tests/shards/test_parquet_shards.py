"""Parquet shards: sizes within their bound, small row groups, read by others and by our reader."""

import hashlib
import pickle
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.errors import DataError, UserError
from shardwright.shards import parquet
from shardwright.shards.parquet_reader import ParquetReader

SCHEMA = pa.schema(
    {
        "record_id": pa.string(),
        "content": pa.large_string(),
        "image": pa.large_binary(),
        "path": pa.string(),
        "width": pa.int32(),
        "bytes": pa.int64(),
        "score": pa.float64(),
    }
)


def samples(sizes: list[int], seed: int = 0) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "record_id": f"{i:032x}",
            "content": "Grüße 🚀\n" * (i % 9),
            "image": rng.bytes(size),
            "path": f"a/{i}.py",
            "width": -i,
            "bytes": 2**40 + i,
            "score": i / 3,
        }
        for i, size in enumerate(sizes)
    ]


def bounds(rows: pa.Table, lengths: dict[str, str] | None = None) -> list[int]:
    with duckdb.connect() as connection:
        connection.register("samples", rows)
        query = f"SELECT {parquet.size_sql(rows.schema, lengths or {})} FROM samples"
        return [row[0] for row in connection.execute(query).fetchall()]


# Random bytes do not shrink: these are the largest files of such sizes.
@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [5] * 1000,
        [3_000_000, 0, 3_000_000],
        [600_000] * 9,
        [990_000, 9_000, 990_000, 9_000],
        list(range(0, 60_000, 400)),
    ],
    ids=["none", "empty", "tiny", "large", "halves", "uneven", "mixed"],
)
def test_files_stay_within_their_bound(tmp_path: Path, sizes: list[int]) -> None:
    rows = pa.Table.from_pylist(samples(sizes), SCHEMA)
    written = parquet.write_shard(tmp_path / "a.parquet", rows, SCHEMA)
    data = (tmp_path / "a.parquet").read_bytes()
    assert (written.bytes, written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (written.basename, written.samples) == ("a.parquet", len(sizes))
    bound = sum(bounds(rows)) + parquet.shard_overhead(SCHEMA)
    assert written.bytes <= bound
    # And not much below it, where nothing shrinks.
    assert bound <= 1.03 * sum(sizes) + 250 * len(sizes) + 5_000


@given(texts=st.lists(st.text(max_size=400), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None)
def test_texts_stay_within_their_bound(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    rows = pa.table({"record_id": texts, "content": pa.array(texts[::-1], pa.large_string())})
    written = parquet.write_shard(path, rows, rows.schema)
    assert written.bytes <= sum(bounds(rows)) + parquet.shard_overhead(rows.schema)
    everything = np.arange(len(texts))
    assert ParquetReader(path).read(everything) == rows.to_pylist()


def test_lengths_that_are_known_need_no_reading() -> None:
    rows = pa.Table.from_pylist(samples([10, 2000, 30]), SCHEMA)
    known = rows.append_column("known", pa.array([10, 2000, 30], pa.int64()))
    with duckdb.connect() as connection:
        connection.register("samples", known)
        query = parquet.size_sql(SCHEMA, {"image": "known"})
        assert "image" not in query
        sizes = connection.execute(f"SELECT {query} FROM samples").fetchall()
    assert [size[0] for size in sizes] == bounds(rows)


def test_row_groups_are_small(tmp_path: Path) -> None:
    sizes = [100] * 300 + [400_000] * 5 + [2_500_000] + [10] * 5
    rows = pa.Table.from_pylist(samples(sizes), SCHEMA)
    parquet.write_shard(tmp_path / "a.parquet", rows, SCHEMA)
    footer = pq.read_metadata(tmp_path / "a.parquet")
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    # By rows, by rows, by bytes, by bytes, ...; one sample alone is too large.
    assert [group.num_rows for group in groups] == [128, 128, 46, 2, 1, 1, 5]
    for group in groups:
        plain = sum(group.column(i).total_uncompressed_size for i in range(group.num_columns))
        assert plain <= parquet.GROUP_BYTES + 1_000 or group.num_rows == 1
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(7)}
        assert columns["content"].compression == "ZSTD"
        assert columns["image"].compression == "UNCOMPRESSED"
        assert all(column.has_offset_index for column in columns.values())
        assert not any(column.has_dictionary_page for column in columns.values())


def test_duckdb_and_pyarrow_read_everything_in_order(tmp_path: Path) -> None:
    wanted = samples([i * 7 % 900 for i in range(400)])
    path = tmp_path / "a.parquet"
    parquet.write_shard(path, pa.Table.from_pylist(wanted, SCHEMA), SCHEMA)
    assert pq.read_table(path).to_pylist() == wanted
    found = duckdb.sql(f"FROM read_parquet('{path}')").to_arrow_table().to_pylist()
    assert found == wanted
    places = duckdb.sql(
        f"SELECT file_row_number FROM read_parquet('{path}', file_row_number = true) "
        f"WHERE record_id = '{wanted[321]['record_id']}'"
    ).fetchall()
    assert places == [(321,)]


def test_the_reader_finds_any_sample(tmp_path: Path) -> None:
    wanted = samples([i * 131 % 20_000 for i in range(500)])
    path = tmp_path / "a.parquet"
    parquet.write_shard(path, pa.Table.from_pylist(wanted, SCHEMA), SCHEMA)
    reader = ParquetReader(path)
    assert len(reader) == 500
    rows = np.array([499, 0, 128, 127, 127, 300])
    for one in (reader, pickle.loads(pickle.dumps(reader))):
        assert one.read(rows) == [wanted[row] for row in rows]
        assert one.read(np.array([300])) == [wanted[300]]
    assert reader.read(np.empty(0, np.int64)) == []
    reader.read(np.array([498]))
    assert reader._held[1] is not None
    reader.read(np.array([499]))
    assert reader._held[1] is None, "a row group is let go behind its last row"
    some = pickle.loads(pickle.dumps(ParquetReader(path, ["width", "record_id"])))
    assert [list(row.items()) for row in some.read(rows[:2])] == [
        [("width", -row), ("record_id", f"{row:032x}")] for row in (499, 0)
    ]
    with pytest.raises(UserError, match="no column 'height'; there are bytes"):
        ParquetReader(path, ["height"])


def test_missing_values_are_empty(tmp_path: Path) -> None:
    row = {"record_id": "a", "width": 1, "bytes": 2, "score": 0.5}
    path = tmp_path / "a.parquet"
    parquet.write_shard(path, pa.Table.from_pylist([row], SCHEMA), SCHEMA)
    empty = {"content": "", "image": b"", "path": ""}
    assert ParquetReader(path).read(np.array([0])) == [row | empty]
    assert not any(field.nullable for field in pq.read_schema(path))


def test_order_and_chunks_give_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    rows = pa.Table.from_pylist(samples([300] * 300), SCHEMA)
    order = np.random.default_rng(0).permutation(300)
    straight = parquet.write_shard(tmp_path / "a.parquet", rows.take(order), SCHEMA)
    chunked = pa.concat_tables([rows.slice(0, 13), rows.slice(13)])
    assert parquet.write_shard(tmp_path / "a.parquet", chunked, SCHEMA, order) == straight
    monkeypatch.setattr(parquet, "_TAKEN_BYTES", 30_000)
    assert parquet.write_shard(tmp_path / "a.parquet", chunked, SCHEMA, order) == straight


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_shard(path, pa.Table.from_pylist(samples([500] * 300), SCHEMA), SCHEMA)
    whole = path.read_bytes()
    broken = bytearray(whole)
    place = pq.read_metadata(path).row_group(1).column(2).data_page_offset
    broken[place + 5_000] ^= 1
    path.write_bytes(broken)
    reader = ParquetReader(path)
    assert len(reader.read(np.array([3, 260]))) == 2
    with pytest.raises(DataError, match=r"a\.parquet: records 128 to 255 of 300 are damaged"):
        reader.read(np.array([3, 130]))
    for damaged in (b"", whole[:-10], b"none at all" * 30):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.parquet: no readable Parquet"):
            ParquetReader(path)


def test_what_a_shard_cannot_hold(tmp_path: Path) -> None:
    schema = pa.schema({"attributes": pa.map_(pa.string(), pa.string())})
    with pytest.raises(UserError, match=r"'attributes' has type map.*leave it out"):
        parquet.size_sql(schema, {})
    with pytest.raises(UserError, match="leave it out"):
        parquet.write_shard(tmp_path / "a.parquet", schema.empty_table(), schema)
    assert not list(tmp_path.iterdir())
