"""Croissant as a source: hand-written documents, planted faults, and our own output read again."""

import base64
import gzip
import hashlib
import json
import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest.bad_inputs import encoded, tarred, zipped
from metadata.sample_output import build
from test_remote import STORE  # a Beam filesystem in memory

from shardwright.errors import UserError
from shardwright.metadata.layout import Layout
from shardwright.metadata.tables import read_part
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.sections import Source
from shardwright.pipelines.sources import Input, Refusal, open_source

Node = dict[str, Any]
ROWS = [{"text": f'x = {i}\nprint("a, b")\n', "lang": "Python", "stars": i} for i in range(12)]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_object(path: Path, kind: str, **more: Any) -> Node:
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "encodingFormat": kind,
        "sha256": sha256(path),
        **more,
    }


def file_set(includes: str, kind: str, **more: Any) -> Node:
    return {
        "@type": "cr:FileSet",
        "@id": "set",
        "encodingFormat": kind,
        "includes": includes,
    } | more


def field(name: str, resource: Node | str, extract: Node, **more: Any) -> Node:
    kind = "fileSet" if resource == "set" else "fileObject"
    source = {kind: {"@id": resource}, "extract": extract} | more
    return {"@type": "cr:Field", "@id": f"rows/{name}", "name": name, "source": source}


def columns(resource: str, *names: str) -> list[Node]:
    return [field(name, resource, {"column": name}) for name in names]


def write_document(
    folder: Path, distribution: list[Node], fields: list[Node], version: str = "1.0"
) -> Path:
    document = {
        "@type": "sc:Dataset",
        "conformsTo": f"http://mlcommons.org/croissant/{version}",
        "name": "hand-written",
        "license": "https://spdx.org/licenses/MIT",
        "distribution": distribution,
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}],
    }
    path = folder / "croissant.json"
    path.write_text(json.dumps(document))
    return path


def read(
    uri: Path | str, modality: str = "code", max_bytes: int = 10_000, **settings: Any
) -> list[Input | Refusal]:
    given = Source(kind="croissant", uri=str(uri), **settings)
    source = pickle.loads(pickle.dumps(open_source(given, max_bytes, modality)))
    return list(source.read(list(source.units(None))))


def reasons(items: list[Input | Refusal]) -> list[tuple[str, str]]:
    return [(item.path, item.reason) for item in items if isinstance(item, Refusal)]


def write_csv(path: Path, rows: list[Node], between: str = ",") -> Path:
    lines = [between.join(rows[0])]
    lines += [between.join('"' + str(v).replace('"', '""') + '"' for v in r.values()) for r in rows]
    path.write_text("\r\n".join(lines) + "\r\n", newline="")
    return path


def shards(folder: Path, count: int = 3) -> Path:
    """Parquet files of four rows and two row groups, in a set and each with its hash."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    listed = []
    for i in range(count):
        path = folder / "data" / f"part-{i}.parquet"
        pq.write_table(pa.Table.from_pylist(ROWS[4 * i : 4 * i + 4]), path, row_group_size=2)
        name = f"data/part-{i}.parquet"
        listed.append(file_object(path, "application/x-parquet", contentUrl=name))
    sets = file_set("data/*.parquet", "application/x-parquet")
    return write_document(folder, [sets, *listed], columns("set", "text", "lang", "stars"), "1.1")


EXPECTED = [
    Input(
        f"data/part-{i // 4}.parquet#{i % 4}",
        row["text"].encode(),
        language="Python",
        attributes={"stars": str(row["stars"])},
    )
    for i, row in enumerate(ROWS)
]


def test_parquet_files_of_a_set(tmp_path: Path) -> None:
    shards(tmp_path)
    assert read(tmp_path / "croissant.json", keep=["stars"]) == EXPECTED
    assert read(tmp_path, keep=["stars"]) == EXPECTED  # the folder of the document
    named = {"content": "rows/text", "language": "lang"}
    assert read(tmp_path, keep=["stars"], columns=named, record_set="rows") == EXPECTED
    assert read(tmp_path, exclude=["**/part-1*"], keep=["stars"]) == EXPECTED[:4] + EXPECTED[8:]


def test_limit_counts_rows(tmp_path: Path) -> None:
    shards(tmp_path)
    source = open_source(Source(kind="croissant", uri=str(tmp_path)), 1000, "code")
    units = list(source.units(5))
    assert [item.path for item in source.read(units)] == [item.path for item in EXPECTED[:5]]


def test_a_set_that_is_mapped_to_another_folder(tmp_path: Path) -> None:
    shards(tmp_path / "there")
    document = tmp_path / "croissant.json"
    (tmp_path / "there" / "croissant.json").rename(document)
    mapping = {"set": str(tmp_path / "there")}
    assert read(document, keep=["stars"], mapping=mapping) == EXPECTED
    path = tmp_path / "there" / "data" / "part-1.parquet"
    path.write_bytes(path.read_bytes() + b"?")
    assert ("data/part-1.parquet", "wrong_hash") in reasons(read(document, mapping=mapping))
    missing = [(f"data/part-{i}.parquet", "missing_file") for i in range(3)]
    assert reasons(read(document)) == missing


def test_only_what_the_document_describes_is_read(tmp_path: Path) -> None:
    document = json.loads(shards(tmp_path).read_text())
    document["recordSet"][0]["field"] = columns("set", "text")
    (tmp_path / "croissant.json").write_text(json.dumps(document))
    assert {item.language for item in read(tmp_path)} == {None}


@pytest.mark.parametrize("part", [0, 2])
@pytest.mark.parametrize("fault", ["byte", "zeros", "footer", "rows"])
def test_a_wrong_hash_refuses_the_file_once(tmp_path: Path, part: int, fault: str) -> None:
    document = shards(tmp_path)
    path = tmp_path / "data" / f"part-{part}.parquet"
    data = bytearray(path.read_bytes())
    if fault == "zeros":
        document.write_text(document.read_text().replace(sha256(path), "0" * 64))
    elif fault == "rows":  # a table without rows is a table all the same
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    else:
        data[6 if fault == "byte" else -5] ^= 1
        path.write_bytes(data)
    items = read(tmp_path, keep=["stars"])
    source = open_source(Source(kind="croissant", uri=str(tmp_path), keep=["stars"]), 1000, "code")
    apart = [item for unit in source.units(None) for item in source.read([unit])]
    assert apart == items  # whatever parts the units are cut into
    path_shown = f"data/part-{part}.parquet"
    assert reasons(items) == [(path_shown, "wrong_hash")]
    rest = [item for item in EXPECTED if not item.path.startswith(path_shown)]
    assert [item for item in items if isinstance(item, Input)] == rest


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    document = shards(tmp_path)
    assert reasons(read(document)) == []
    path = tmp_path / "data" / "part-1.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:6] + bytes([good[6] ^ 1]) + good[7:])
    assert reasons(read(document)) == [("data/part-1.parquet", "wrong_hash")]
    path.write_bytes(good)
    assert reasons(read(document)) == []


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    shards(tmp_path)
    (tmp_path / "data" / "part-1.parquet").unlink()
    assert reasons(read(tmp_path)) == [("data/part-1.parquet", "missing_file")]
    assert len(read(tmp_path)) == 9


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv"])
def test_a_hand_written_table(tmp_path: Path, suffix: str) -> None:
    path = write_csv(tmp_path / f"rows.{suffix}", ROWS, "\t" if suffix == "tsv" else ",")
    if suffix == "csv.gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    kind = {"csv": "text/csv", "tsv": "text/tab-separated-values", "csv.gz": "application/gzip"}
    fields = columns(path.name, "text", "lang", "stars")
    write_document(tmp_path, [file_object(path, kind[suffix])], fields)
    expected = [
        Input(
            f"{path.name}#{i}", r["text"].encode(), language="Python", attributes={"stars": str(i)}
        )
        for i, r in enumerate(ROWS)
    ]
    assert read(tmp_path, keep=["stars"]) == expected
    path.write_bytes(path.read_bytes() + b"\n")
    assert reasons(read(tmp_path)) == [(path.name, "wrong_hash")]


def test_broken_rows_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbftext,n\r\na,1\r\nb\r\n\xff,3\r\n\r\n"c"d,4\r\ne,5\r\n')
    write_document(tmp_path, [file_object(path, "text/csv")], columns(path.name, "text", "n"))
    items = read(tmp_path)
    assert items[0] == Input("rows.csv#0", b"a")
    assert items[2] == Input("rows.csv#2", b"\xff")
    assert reasons(items) == [("rows.csv#1", "schema_mismatch"), ("rows.csv", "unreadable_table")]
    assert "from 3 on" in items[-1].message
    path.write_text("text\n" + "x" * 200_000 + "\n")
    write_document(tmp_path, [file_object(path, "text/csv")], columns(path.name, "text"))
    assert reasons(read(tmp_path)) == [("rows.csv", "unreadable_table")]


def test_json_lines_by_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"body": r["text"], "t": "Python"}) for r in ROWS))
    fields = [
        field("content", path.name, {"jsonPath": "$.body"}),
        field("language", path.name, {"column": "t"}),
    ]
    write_document(tmp_path, [file_object(path, "application/jsonlines")], fields)
    assert [item.data.decode() for item in read(tmp_path)] == [row["text"] for row in ROWS]
    assert {item.language for item in read(tmp_path)} == {"Python"}


def test_files_as_records_with_facts_of_their_names(tmp_path: Path) -> None:
    listed = []
    for name in ("cat/0.png", "cat/deep/1.png", "dog/2.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(size=(16, 12 + len(listed))))
        listed.append(file_object(path, "image/png", contentUrl=f"pictures/{name}"))
    fields = [
        field("picture", "set", {"fileProperty": "content"}),
        field(
            *("label", "set", {"fileProperty": "fullpath"}),
            transform={"regex": "^pictures/([^/]+)/.*$"},
        ),
        field("file", "set", {"fileProperty": "filename"}),
        {"@id": "rows/license", "name": "license", "value": "MIT"},
    ]
    sets = file_set("pictures/*.png", "image/png")
    write_document(tmp_path, [sets, *listed[1:]], fields)
    items = read(tmp_path, "image", keep=["file", "license"])
    assert [(item.path, item.label, item.attributes) for item in items] == [
        ("pictures/cat/0.png", "cat", {"file": "0.png", "license": "MIT"}),
        ("pictures/cat/deep/1.png", "cat", {"file": "1.png", "license": "MIT"}),
        ("pictures/dog/2.png", "dog", {"file": "2.png", "license": "MIT"}),
    ]
    (tmp_path / "pictures/dog/2.png").write_bytes(encoded(size=(99, 9)))
    assert reasons(read(tmp_path, "image")) == [("pictures/dog/2.png", "wrong_hash")]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_of_an_archive(tmp_path: Path, kind: str) -> None:
    members = [("src/a.py", b"a = 1\n"), ("src/sub/b.py", b"b = 2\n"), ("notes.txt", b"no")]
    path = tmp_path / f"all.{kind}"
    path.write_bytes(zipped(*members) if kind == "zip" else tarred(*((*m, b"0") for m in members)))
    sets = file_set("src/*.py", "text/x-python", containedIn={"@id": path.name})
    fields = [
        field("code", "set", {"fileProperty": "content"}),
        field("path", "set", {"fileProperty": "fullpath"}),
    ]
    write_document(tmp_path, [file_object(path, f"application/{kind}"), sets], fields)
    first = Input(f"all.{kind}!src/a.py", b"a = 1\n", attributes={"path": "src/a.py"})
    assert read(tmp_path)[0] == first
    assert [item.data for item in read(tmp_path)] == [b"a = 1\n", b"b = 2\n"]
    assert read(tmp_path, include=["src/a.py"]) == [first]
    for name, data in members:
        (tmp_path / "unpacked" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "unpacked" / name).write_bytes(data)
    mapped = read(tmp_path, mapping={path.name: str(tmp_path / "unpacked")})
    assert [(item.path, item.data) for item in mapped] == members[:2]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert reasons(read(tmp_path)) == [(f"all.{kind}", "wrong_hash")]


def repository(folder: Path, clone: Path) -> Path:
    shards(clone)
    (clone / "croissant.json").unlink()
    folder.mkdir()
    repo = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "contentUrl": "https://example.org/datasets/x/tree/main",
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    sets = file_set("data/*/*.parquet", "application/x-parquet", containedIn={"@id": "repo"})
    sets["includes"] = ["data/*.parquet", "more/*/*.parquet"]
    return write_document(folder, [repo, sets], columns("set", "text", "lang", "stars"))


def test_a_repository_that_is_mapped_to_its_clone(tmp_path: Path) -> None:
    document = repository(tmp_path / "document", tmp_path / "clone")
    mapping = {"repo": str(tmp_path / "clone")}
    assert read(document, keep=["stars"], mapping=mapping) == EXPECTED
    with pytest.raises(UserError, match=r"source\.mapping: \{repo: "):
        read(document)
    with pytest.raises(UserError, match="no file or file set 'repository'"):
        read(document, mapping={"repository": str(tmp_path)})


def test_the_form_of_hugging_face(tmp_path: Path) -> None:
    pictures = [encoded(size=(16, 12 + i)) for i in range(4)]
    for split, rows in (("test", pictures[:1]), ("train", pictures[1:])):
        folder = tmp_path / "clone" / "default" / split
        folder.mkdir(parents=True)
        table = pa.table(
            {"image": [{"bytes": r, "path": None} for r in rows], "label": [1] * len(rows)}
        )
        noted = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(noted)})
        pq.write_table(table, folder / "0000.parquet")
    pq.write_table(table, tmp_path / "clone" / "default" / "of-no-split.parquet")
    repo = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "contentUrl": "https://huggingface.co/datasets/x/tree/refs%2Fconvert%2Fparquet",
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    parquet = "application/x-parquet"
    sets = file_set("default/*/*.parquet", parquet, containedIn={"@id": "repo"})
    split = {"regex": "default/(?:partial-)?(train|test)/.+parquet$"}
    split_names = {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "dataType": "cr:Split",
        "field": [{"@type": "cr:Field", "@id": "splits/name", "dataType": "sc:Text"}],
        "data": [{"splits/name": "train"}, {"splits/name": "test"}],
    }
    fields = [
        field("split", "set", {"fileProperty": "fullpath"}, transform=split)
        | {"references": {"field": {"@id": "splits/name"}}},
        field("image", "set", {"column": "image"}, transform={"jsonPath": "bytes"}),
        field("label", "set", {"column": "label"}),
    ]
    path = write_document(tmp_path, [repo, sets], fields, "1.1")
    document = json.loads(path.read_text())
    document["recordSet"].insert(0, split_names)
    path.write_text(json.dumps(document))
    mapping = {"repo": str(tmp_path / "clone")}
    items = read(path, "image", keep=["split"], mapping=mapping)
    assert [item.data for item in items] == pictures
    assert {item.label for item in items} == {"dog"}
    assert [item.attributes["split"] for item in items] == ["test", "train", "train", "train"]
    with pytest.raises(UserError, match="'splits': its rows stand in the document itself"):
        read(path, "image", record_set="splits", mapping=mapping)


def test_a_dataset_on_a_store(tmp_path: Path) -> None:
    shards(tmp_path)
    STORE.clear()
    for path in tmp_path.rglob("*.*"):
        STORE[f"mem://bucket/set/{path.relative_to(tmp_path).as_posix()}"] = path.read_bytes()
    uri = "mem://bucket/set/croissant.json"
    assert read(uri, keep=["stars"]) == EXPECTED
    del STORE["mem://bucket/set/data/part-0.parquet"]
    STORE["mem://bucket/set/data/part-1.parquet"] += b"?"
    assert sorted(reasons(read(uri))) == [
        ("data/part-0.parquet", "missing_file"),
        ("data/part-1.parquet", "wrong_hash"),
    ]
    STORE.clear()


def other_hash(path: Path, form: str) -> Node:
    data = path.read_bytes()
    return {
        "upper": {"sha256": hashlib.sha256(data).hexdigest().upper()},
        "base64": {"sha256": base64.b64encode(hashlib.sha256(data).digest()).decode()},
        "md5": {"md5": hashlib.md5(data).hexdigest()},
    }[form]


@pytest.mark.parametrize("form", ["upper", "base64", "md5"])
def test_other_forms_of_hashes(tmp_path: Path, form: str) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    node = {**file_object(path, "text/csv"), **other_hash(path, form)}
    if form == "md5":
        del node["sha256"]
    write_document(tmp_path, [node], columns(path.name, "text"))
    assert reasons(read(tmp_path)) == []
    path.write_bytes(path.read_bytes() + b"\n")
    assert reasons(read(tmp_path)) == [("rows.csv", "wrong_hash")]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"record_set": "rowz"}, "'rowz': no such record set; there are rows"),
        ({"columns": {"content": "body"}}, "no field 'body'; it has text, lang, stars"),
        ({"columns": {"contents": "text"}}, "'contents' is no column that a code record takes"),
        ({"keep": ["forks"]}, "no field 'forks'; it has text, lang, stars"),
        ({"uri": "missing.json"}, "missing.json.*No such file"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, settings: Node, says: str) -> None:
    shards(tmp_path)
    uri = tmp_path / settings.pop("uri", "croissant.json")
    with pytest.raises(UserError, match=says) as caught:
        read(uri, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"conformsTo": "http://mlcommons.org/croissant/0.8"}, "conformsTo is .*0.8; what is read"),
        ({"conformsTo": None}, "conformsTo is not there"),
        ({"recordSet": []}, "name the one to read; there are none"),
    ],
)
def test_documents_that_are_not_read(tmp_path: Path, change: Node, says: str) -> None:
    path = shards(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=says):
        read(path)


@pytest.mark.parametrize(
    "url", ["../rows.csv", "/etc/hostname", "file:///etc/hostname", "in/up.csv"]
)
def test_no_file_outside_the_folder_is_read(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "dataset"
    (folder / "in").mkdir(parents=True)
    path = write_csv(tmp_path / "rows.csv", ROWS)
    (folder / "in" / "up.csv").symlink_to(path)
    node = file_object(path, "text/csv", contentUrl=url)
    write_document(folder, [node], columns(path.name, "text"))
    with pytest.raises(UserError, match="leads out of the folder"):
        read(folder)
    assert len(read(folder, mapping={path.name: str(path)})) == len(ROWS)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    (tmp_path / "served").mkdir()
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = partial(quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "served", f"http://user:secret@127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_dataset_at_a_web_address(web: tuple[Path, str]) -> None:
    folder, address = web
    shards(folder)
    assert read(f"{address}/croissant.json", keep=["stars"]) == EXPECTED
    (folder / "data" / "part-0.parquet").unlink()
    path = folder / "data" / "part-2.parquet"
    path.write_bytes(path.read_bytes()[::-1])
    found = reasons(read(f"{address}/croissant.json"))
    assert found == [
        ("data/part-0.parquet", "missing_file"),
        ("data/part-2.parquet", "wrong_hash"),
    ]
    with pytest.raises(UserError) as caught:
        read(f"{address}/other.json")
    assert "secret" not in str(caught.value)


def curated_rows(layout: Layout, *names: str) -> list[Node]:
    manifest = layout.need("curated", "shard")
    return [
        row
        for part in manifest.parts()
        for batch in read_part(manifest, part, list(names))
        for row in batch.to_pylist()
    ]


@pytest.mark.parametrize("modality", ["code", "image"])
def test_our_own_output_needs_no_mapping(tmp_path: Path, modality: str) -> None:
    layout = build(tmp_path / "first", modality)
    blob, facts = {
        "code": ("content", ("language", "license")),
        "image": ("image", ("label",)),
    }[modality]
    written = curated_rows(layout, blob, "record_id", "path", "repository", *facts)
    items = read(layout.root, modality, keep=["record_id"])
    assert len(items) == len(written) > 10
    for item, row in zip(items, written, strict=True):
        data = row[blob].encode() if isinstance(row[blob], str) else row[blob]
        assert isinstance(item, Input)
        assert item.data == data
        assert item.attributes == {"path": row["path"], "record_id": row["record_id"]}
        for name in ("repository", *facts):
            assert getattr(item, name) == row[name]


def second(uri: Path, **limits: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "second",
            "modality": "code",
            "source": {"kind": "croissant", "uri": str(uri), "keep": ["record_id"]},
            "limits": {"reject_threshold": 0.5, "part_bytes": 2000, **limits},
            "embedding": None,
            "prune": None,
        }
    )


def test_a_second_curation_is_the_same_for_any_workers(tmp_path: Path) -> None:
    layout = build(tmp_path / "first", count=60)
    written = curated_rows(layout, "content", "record_id")
    outputs = []
    for workers in (1, 2):
        root = tmp_path / f"second-{workers}"
        arguments = ["--runner=FnApiRunner", f"--direct_num_workers={workers}"]
        if workers == 2:
            arguments.append("--direct_running_mode=multi_threading")
        curate(second(tmp_path / "first" / "croissant.json"), root, beam_arguments=arguments)
        assert verify(Layout(root)) == []
        outputs.append(Layout(root))
    tables = [{m.table: m.content_sha256 for m in output.manifests()} for output in outputs]
    assert tables[0] == tables[1]
    kept = curated_rows(outputs[0], "content", "attributes")
    found = {dict(row["attributes"])["record_id"]: row["content"] for row in kept}
    given = {row["record_id"]: row["content"] for row in written}
    assert found.items() <= given.items()
    seen = outputs[0].need("records", "ingest").rows + outputs[0].need("rejects", "ingest").rows
    assert seen == len(written)
    told = outputs[0].croissant.read_text()
    assert "https://example.org/data" in told  # the source of the first
    assert "user:secret" not in told
    assert outputs[0].need("records", "ingest").count > 1


def test_the_document_is_kept_for_lineage(tmp_path: Path) -> None:
    first = build(tmp_path / "first").root
    root = tmp_path / "second"
    curate(second(first), root, stages=["ingest"])
    kept = json.loads((root / "source_croissant.json").read_text())
    assert kept.pop("shardwright:location") == str(first.resolve() / "croissant.json")
    assert kept == json.loads((first / "croissant.json").read_text())
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.py").write_text("a = 1\n")
    other = second(first).model_dump() | {"source": {"kind": "files", "uri": str(files)}}
    curate(Recipe.model_validate(other), root, stages=["ingest"])
    assert not (root / "source_croissant.json").exists()


def test_an_output_is_not_written_into_its_own_source(tmp_path: Path) -> None:
    first = build(tmp_path / "first").root
    for uri in (first, first / "croissant.json"):
        for output in (first, first / "below"):
            with pytest.raises(UserError, match="lies inside the input"):
                curate(second(uri), output)
    assert os.path.exists(first / "croissant.json")
