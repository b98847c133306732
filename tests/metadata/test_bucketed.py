"""The bucketed table: a bucket read is a filter, a merge is a write of the concatenation."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.errors import DataError
from shardwright.metadata import bucketed
from shardwright.metadata.bucketed import (
    FAN_IN,
    merge_bucketed,
    open_bucketed,
    plan_merges,
    write_bucketed,
)

SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("content", pa.large_string()),
        pa.field("vector", pa.list_(pa.float32(), 2)),
        pa.field("attributes", pa.map_(pa.string(), pa.string())),
    ],
    metadata={"made": "here"},
)


def rows(count: int, start: int = 0) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "record_id": f"{i:032x}",
                "content": None if i % 3 == 0 else "é" * (i % 7),
                "vector": [i, -i],
                "attributes": {"k": str(i)} if i % 2 else {},
            }
            for i in range(start, start + count)
        ],
        SCHEMA,
    )


def write_parts(folder: Path, parts: list[list[int]]) -> tuple[list[Path], pa.Table, np.ndarray]:
    paths, tables, start = [], [], 0
    for number, buckets in enumerate(parts):
        part = rows(len(buckets), start)
        start += len(buckets)
        path = folder / f"part-{number}.parquet"
        write_bucketed(path, part, np.array(buckets, np.int32))
        paths.append(path)
        tables.append(part)
    return paths, pa.concat_tables(tables), np.concatenate(parts).astype(np.int32)


def test_one_row_group_per_bucket_in_plain_parquet(tmp_path):
    path = tmp_path / "part.parquet"
    written = write_bucketed(path, rows(6), np.array([7, 2, 7, -1, 2, 7], np.int32))
    assert (written.rows, written.bytes) == (6, path.stat().st_size)
    footer = pq.read_metadata(path)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [1, 2, 3]
    assert footer.metadata[b"shardwright.buckets"] == b"[-1,2,7]"
    column = footer.row_group(0).column(0)
    assert column.compression == "LZ4"
    assert not column.has_dictionary_page
    ids = [int(name, 16) for name in pq.read_table(path)["record_id"].to_pylist()]
    assert ids == [3, 1, 4, 0, 2, 5]
    assert open_bucketed([path]).buckets.tolist() == [-1, 2, 7]


PARTS = st.lists(st.lists(st.integers(-2, 5), max_size=12), min_size=1, max_size=4)


@given(parts=PARTS)
@settings(max_examples=50, deadline=None)
def test_a_bucket_is_a_filter(tmp_path_factory, parts):
    paths, whole, buckets = write_parts(tmp_path_factory.mktemp("parts"), parts)
    files = open_bucketed(paths)
    assert files.buckets.tolist() == sorted(set(buckets.tolist()))
    for bucket in range(-3, 7):
        expected = whole.filter(pa.array(buckets == bucket, pa.bool_()))
        for found in (files.read(bucket), open_bucketed(paths).read(bucket)):
            found.validate(full=True)
            assert str(found.schema) == str(SCHEMA)
            assert found.combine_chunks().equals(expected.combine_chunks())


@given(parts=PARTS)
@settings(max_examples=50, deadline=None)
def test_a_merge_writes_the_concatenation(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("parts")
    paths, whole, buckets = write_parts(folder, parts)
    merged = merge_bucketed(paths, folder / "merged")
    assert merged == write_bucketed(folder / "whole", whole, buckets)
    assert (folder / "merged").read_bytes() == (folder / "whole").read_bytes()
    if len(paths) > 2:  # in rounds
        merge_bucketed(paths[:2], folder / "first")
        assert merge_bucketed([folder / "first", *paths[2:]], folder / "again") == merged


def test_bytes_do_not_depend_on_chunks(tmp_path):
    buckets = np.arange(5000, dtype=np.int32) % 3
    text = pa.array([f"{i:x}" * 600 for i in range(5000)])  # row groups of several pages
    whole = rows(5000).append_column("text", text)
    pieces = pa.concat_tables([whole.slice(0, 11), whole.slice(11, 3000), whole.slice(3011)])
    one = write_bucketed(tmp_path / "a", whole, buckets)
    assert write_bucketed(tmp_path / "b", pieces, buckets) == one
    halves = [tmp_path / "c", tmp_path / "d"]
    write_bucketed(halves[0], whole.slice(0, 2001), buckets[:2001])
    write_bucketed(halves[1], whole.slice(2001), buckets[2001:])
    assert merge_bucketed(halves, tmp_path / "e") == one


def test_large_row_groups_stay_whole(tmp_path):
    count = 1_100_000  # above the default row group of pyarrow
    table = pa.table({"n": np.arange(count)})
    write_bucketed(tmp_path / "a", table, np.zeros(count, np.int32))
    assert pq.read_metadata(tmp_path / "a").num_row_groups == 1
    assert open_bucketed([tmp_path / "a"]).read(0).equals(table)


def test_a_read_touches_one_row_group_of_each_file(tmp_path, monkeypatch):
    paths, _, _ = write_parts(tmp_path, [[0, 1, 2], [1, 1], [2]])
    files = open_bucketed(paths)
    read, parsed = [], []
    whole = pq.ParquetFile

    class Spy(whole):
        def __init__(self, path, metadata=None):
            parsed.append(metadata is None)
            super().__init__(path, metadata=metadata)

        def read_row_group(self, group, **options):
            read.append(group)
            return super().read_row_group(group, **options)

    monkeypatch.setattr(bucketed.pq, "ParquetFile", Spy)
    assert files.read(1).num_rows == 3
    assert read == [1, 0]
    assert parsed == [False, False]


def test_footers_beyond_the_cache_are_read_again(tmp_path, monkeypatch):
    paths, whole, buckets = write_parts(tmp_path, [[0, 1], [0, 1], [1]])
    monkeypatch.setattr(bucketed, "_CACHED_CELLS", 12)
    files = open_bucketed(paths)
    assert [footer is None for footer in files.footers] == [False, True, True]
    expected = whole.filter(pa.array(buckets == 1)).combine_chunks()
    assert files.read(1).combine_chunks().equals(expected)


def test_no_rows(tmp_path):
    written = write_bucketed(tmp_path / "a", rows(0), np.empty(0, np.int32))
    assert written.rows == 0
    assert open_bucketed([tmp_path / "a"]).read(0).schema.equals(SCHEMA)
    assert merge_bucketed([tmp_path / "a", tmp_path / "a"], tmp_path / "b") == written


def test_foreign_files(tmp_path):
    paths, _, _ = write_parts(tmp_path, [[0, 1]])
    pq.write_table(rows(1), tmp_path / "plain")
    with pytest.raises(DataError, match="plain is no file of a bucketed table"):
        open_bucketed([tmp_path / "plain"])
    write_bucketed(tmp_path / "other", pa.table({"n": [1]}), np.zeros(1, np.int32))
    with pytest.raises(DataError, match=r"other has other columns than .*part-0"):
        merge_bucketed([*paths, tmp_path / "other"], tmp_path / "out")
    with pytest.raises(ValueError, match="no files"):
        open_bucketed([])
    with pytest.raises(ValueError, match="for 1 rows"):
        write_bucketed(tmp_path / "out", rows(1), np.zeros(2, np.int32))
    assert not (tmp_path / "out").exists()


def test_too_many_rows_for_a_row_group_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(bucketed, "_MOST_ROWS", 2)
    with pytest.raises(DataError, match="bucket 4 has 3 rows"):
        write_bucketed(tmp_path / "a", rows(3), np.full(3, 4, np.int32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("parts", "buckets", "expected"),
    [
        (0, 100, ()),
        (100, 0, ()),
        (1000, 1000, ()),
        (1001, 1000, (2,)),
        (10_000, 1000, (10,)),
        (100_000, 1000, (64, 2)),
        (5, 2_000_000, (5,)),
        (1_000_000, 100_000, (64, 64, 25)),
    ],
)
def test_plan_merges(parts, buckets, expected):
    assert plan_merges(parts, buckets) == expected


@given(parts=st.integers(0, 10**7), buckets=st.integers(0, 10**6), limit=st.integers(1, 10**6))
def test_plans_reach_the_limit(parts, buckets, limit):
    left = parts
    for group in plan_merges(parts, buckets, limit):
        assert 2 <= group <= FAN_IN
        left = -(-left // group)
    assert left * buckets <= limit or left <= 1
