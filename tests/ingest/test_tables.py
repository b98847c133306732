import base64
import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest.bad_inputs import encoded

from shardwright.errors import UserError
from shardwright.pipelines.sections import Source
from shardwright.pipelines.sources import Input, Refusal, open_source

STACK_V1 = {
    "content": "a = 1\n",
    "max_stars_repo_name": "owner/name",
    "max_stars_repo_head_hexsha": "abc",
    "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
    "max_stars_repo_path": "src/a.py",
    "lang": "Python",
    "size": 6,
}
STACK_V2 = {
    "text": "a = 1\n",
    "repo_name": "owner/name",
    "revision_id": "abc",
    "detected_licenses": ["MIT", "Apache-2.0"],
    "path": "src/a.py",
    "language": "Python",
    "unused": None,
}
OWN = {
    "body": "a = 1\n",
    "project": "owner/name",
    "sha": "abc",
    "terms": "MIT, Apache-2.0",
    "file": "src/a.py",
    "tongue": "Python",
}
OWN_COLUMNS = {
    "content": "body",
    "repository": "project",
    "revision": "sha",
    "license": "terms",
    "path": "file",
    "language": "tongue",
}


def write(path, rows, kind):
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))


def read(kind, uri, modality="code", max_bytes=1000, **settings) -> list[Input | Refusal]:
    source = open_source(Source(kind=kind, uri=str(uri), **settings), max_bytes, modality)
    return list(source.read(list(source.units(None))))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize(("row", "columns"), [(STACK_V1, {}), (STACK_V2, {}), (OWN, OWN_COLUMNS)])
def test_columns_by_their_usual_names_or_by_mapping(tmp_path, kind, row, columns):
    path = tmp_path / f"rows.{kind}"
    write(path, [row, row], kind)
    assert read(kind, path, columns=columns) == [
        Input(
            f"rows.{kind}#{i}",
            b"a = 1\n",
            repository="owner/name",
            revision="abc",
            license="MIT, Apache-2.0",
            language="Python",
            attributes={"path": "src/a.py"},
        )
        for i in range(2)
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_kept_columns_become_attributes(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    row = {
        "content": "a",
        "stars": 7,
        "ratio": 0.5,
        "fork": True,
        "name": "é",
        "nothing": None,
        "nested": {"z": [1, None], "a": "é"},
    }
    write(path, [row], kind)
    keep = ["stars", "ratio", "fork", "name", "nothing", "nested"]
    (item,) = read(kind, path, keep=keep)
    assert item.attributes == {
        "stars": "7",
        "ratio": "0.5",
        "fork": "true",
        "name": "é",
        "nested": '{"a":"é","z":[1,null]}',
    }


@pytest.mark.parametrize("columns", [{"license": "gone"}, {"content": "gone"}])
def test_a_mapped_column_that_is_absent_from_a_parquet_file(tmp_path, columns):
    write(tmp_path / "a.parquet", [{"content": "a"}] * 3, "parquet")
    (item,) = read("parquet", tmp_path, columns=columns)
    assert (item.path, item.reason) == ("a.parquet", "schema_mismatch")
    assert "'gone'" in item.message
    (item,) = read("parquet", tmp_path, keep=["lost"])
    assert "'lost'" in item.message


def test_a_column_that_no_record_has(tmp_path):
    with pytest.raises(UserError, match=r"source\.columns"):
        read("parquet", tmp_path, columns={"contents": "a"})


def test_labels_of_images(tmp_path):
    image = encoded()
    rows = [{"image": {"bytes": image, "path": None}, "label": label} for label in (1, 0, 5, None)]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "numbers.parquet")
    feature = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
    noted = table.replace_schema_metadata({"huggingface": json.dumps(feature)})
    pq.write_table(noted, tmp_path / "names.parquet")
    labels = [item.label for item in read("parquet", tmp_path, "image")]
    assert labels == ["dog", "cat", "5", None, "1", "0", "5", None]
    assert {item.data for item in read("parquet", tmp_path, "image")} == {image}


def test_a_mapped_image_column_beside_a_kept_one(tmp_path):
    image = encoded()
    rows = [{"photo": {"bytes": image, "path": "x.png"}, "kind": "cat"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    settings = {"columns": {"image": "photo", "label": "kind"}, "keep": ["kind"]}
    (item,) = read("parquet", tmp_path, "image", **settings)
    assert item == Input("a.parquet#0", image, label="cat", attributes={"kind": "cat"})


def test_columns_that_nobody_wants_are_not_read(tmp_path):
    table = pa.table({"content": ["a"] * 9, "other": ["x" * 100_000] * 9})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, use_dictionary=False, compression="none")
    data = bytearray(path.read_bytes())
    at = data.index(b"x" * 1000)
    data[at - 24 : at] = b"\xff" * 24  # that column is broken, and nobody notices
    path.write_bytes(bytes(data))
    assert [item.data for item in read("parquet", path)] == [b"a"] * 9
    assert read("parquet", path, keep=["other"])[-1].reason == "unreadable_table"


def test_row_groups_are_units_and_rows_count_through_the_file(tmp_path):
    contents = [f"a = {i}\n" for i in range(10)]
    pq.write_table(pa.table({"content": contents}), tmp_path / "a.parquet", row_group_size=3)
    source = open_source(Source(kind="parquet", uri=str(tmp_path)), 100, "code")
    units = list(source.units(None))
    assert [(unit.first, unit.take) for unit in units] == [(0, 3), (3, 3), (6, 3), (9, 1)]
    assert len({unit.path for unit in units}) == 4
    rows = [(item.path, item.data.decode()) for item in source.read(units[1:3])]
    assert rows == [(f"a.parquet#{i}", contents[i]) for i in range(3, 9)]
    limited = list(source.units(5))
    assert [(unit.first, unit.take) for unit in limited] == [(0, 3), (3, 2)]
    assert [item.path for item in source.read(limited)] == [f"a.parquet#{i}" for i in range(5)]


def test_a_file_that_changed_after_it_was_listed(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": ["a"] * 9}), path, row_group_size=3)
    source = open_source(Source(kind="parquet", uri=str(path)), 100, "code")
    units = list(source.units(None))
    pq.write_table(pa.table({"content": ["a"] * 3}), path)
    reasons = [item.reason for item in source.read(units) if isinstance(item, Refusal)]
    assert reasons == ["unreadable_table"] * 2
    path.unlink()
    assert {item.reason for item in source.read(units)} == {"unreadable"}


def test_dictionaries_and_large_text_are_text(tmp_path):
    column = pa.array(["a", "b", "a"]).dictionary_encode()
    licenses = pa.array(["MIT", None, "MIT"]).dictionary_encode()
    table = pa.table({"content": column, "license": licenses})
    pq.write_table(table, tmp_path / "a.parquet")
    items = read("parquet", tmp_path)
    assert [(i.data, i.license) for i in items] == [(b"a", "MIT"), (b"b", None), (b"a", "MIT")]


def test_a_line_of_any_length_is_not_held(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(b'{"content": "')
        for _ in range(64):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"content": "after"}\n')
    tracemalloc.start()
    long, after = read("jsonl", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (long.path, long.reason) == ("a.jsonl.gz#0", "too_large")
    assert (after.path, after.data) == ("a.jsonl.gz#1", b"after")
    assert peak < 4_000_000


def test_images_in_lines_are_base64(tmp_path):
    image = encoded()
    row = {"image": base64.b64encode(image).decode(), "label": 3}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert read("jsonl", tmp_path, "image") == [Input("a.jsonl#0", image, label="3")]
