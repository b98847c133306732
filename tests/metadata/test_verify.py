"""Every planted fault is found and named, alone; a sound output has none."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata.sample_output import make_records, origin, recipe

from shardwright.metadata import schemas
from shardwright.metadata.croissant import write_croissant
from shardwright.metadata.filelist import read_file_list, write_file_list
from shardwright.metadata.files import sha256_file
from shardwright.metadata.integrity import folder_faults, table_faults
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import MANIFEST, Manifest, Part, sealed, write_manifest
from shardwright.metadata.verify import verify

pytest_plugins = ("metadata.outputs",)

Copied = Callable[[str], Layout]


def test_sound_outputs_have_no_fault(output: Layout) -> None:
    assert verify(output) == []


def edit(layout: Layout, table: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rewrites the last part of a table and commits it, so that its files and manifest agree."""
    manifest = layout.need(table, "")
    parts = list(manifest.parts())
    last = max(i for i, part in enumerate(parts) if part.file is not None)
    file = parts[last].file
    assert file is not None
    path = manifest.folder / file
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=manifest.schema), path)
    parts[last] = replace(
        parts[last], rows=len(rows), bytes=path.stat().st_size, sha256=sha256_file(path)
    )
    recommit(layout, manifest, parts)


def recommit(layout: Layout, manifest: Manifest, parts: list[Part]) -> None:
    """Writes the manifest and lets all that was made from the table say so, as a rerun would."""
    before = manifest.content_sha256
    written = write_manifest(
        manifest.folder, manifest.table, manifest.schema, manifest.origin, parts
    )
    for path in [
        *layout.root.glob("tables/*/_manifest.json"),
        *layout.root.glob("*/_manifest.json"),
    ]:
        head = json.loads(path.read_text())
        inputs = head["origin"]["inputs"]
        if inputs.get(manifest.table) == before:
            inputs[manifest.table] = written.content_sha256
            path.write_text(sealed({key: head[key] for key in head if key != "seal"}))
    write_croissant(layout, recipe("code"))


def first(rows: list[dict[str, Any]], **values: object) -> None:
    rows[0].update(values)


NOBODY = "f" * 32
Change = Callable[[list[dict[str, Any]]], object]


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("decisions", lambda r: r.append(dict(r[0])), "decisions: 1 more than one row of a record"),
        ("decisions", lambda r: first(r, record_id=NOBODY), "decisions: 1 rows of no record"),
        ("decisions", lambda r: r.pop(0), "decisions: 1 records without a decision"),
        ("decisions", lambda r: first(r, stage="prune"), "keep and stage contradict"),
        ("decisions", lambda r: first(r, keep=False, stage="prune"), "curated: 1 records that are"),
        ("curated", lambda r: r.pop(0), "curated: 1 kept records that it does not hold"),
        ("curated", lambda r: first(r, split="test"), "curated: 1 another split than in shards"),
        ("curated", lambda r: first(r, content="y"), "content_sha256 is not the hash of content"),
        ("curated", lambda r: first(r, bytes=77777), "curated: 1 other source, path or size"),
        ("shards", lambda r: r.pop(0), "shards: 1 kept records that it does not hold"),
        ("shards", lambda r: first(r, position=99), "positions are not 0, 1, 2"),
        ("shards", lambda r: first(r, shard=7), "shards/train/shard.00007.mds: 1 samples in table"),
        ("records", lambda r: first(r, content="y"), "content_sha256 is not the hash of content"),
        (
            "records",
            lambda r: first(r, path="z.py"),
            "record_id is not the hash of",
        ),
        ("records", lambda r: r.append(dict(r[0])), "records: 1 more than one row of a record"),
        ("lookup", lambda r: first(r, row=5), "lookup: 1 records that stand elsewhere"),
        ("lookup", lambda r: r.pop(0), "lookup: 1 records that it does not hold"),
        (
            "rejects",
            lambda r: first(r, path="pkg/file0020.py"),
            "rejects: 1 inputs that are",
        ),
        ("clusters", lambda r: first(r, cluster=9), "clusters: 1 clusters without a centroid"),
        ("embeddings", lambda r: first(r, vector=[float("nan"), 0, 0, 0]), "not finite"),
        ("embeddings", lambda r: r.pop(0), "flat.ids.parquet: 1 ids without a vector"),
        ("duplicates", lambda r: first(r, record_id=NOBODY), "duplicates: 1 rows of no record"),
        ("scores", lambda r: first(r, record_id=NOBODY), "scores: 1 rows of no record"),
        ("embeddings", lambda r: r.pop(0), "embeddings: 1 records that neither filters nor"),
        ("clusters", lambda r: r.pop(0), "clusters: 1 records that no stage before pruning"),
        ("scores", lambda r: r.pop(0), "scores: 1 records that no stage before pruning"),
        ("duplicates", lambda r: r.clear(), "decisions: 1 duplicates that are in no group"),
        ("decisions", lambda r: r[-1].update(representative_id=None), "not say what stays"),
    ],
)
def test_wrong_rows(copied: Copied, table: str, change: Change, said: str) -> None:
    layout = copied("code")
    edit(layout, table, change)
    faults = verify(layout)
    assert [fault for fault in faults if said in fault], faults
    assert all("\n" not in fault for fault in faults)


def spoil_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("tables/records/part-a0.parquet", spoil_byte, "sha256 is"),
        ("tables/curated/part-c2.parquet", lambda p: p.unlink(), "missing"),
        ("tables/rejects/part-a0.parquet", lambda p: p.write_bytes(b""), "holds 0 bytes"),
        (
            "tables/scores/part-x.parquet",
            lambda p: p.write_bytes(b"x"),
            "not named by the manifest",
        ),
        ("tables/strange", lambda p: p.mkdir(), "no table of that name"),
        ("tables/scores/_manifest.json", lambda p: p.unlink(), "without a manifest"),
        ("tables/clusters/_manifest.json", lambda p: p.write_text("{"), "damaged"),
        ("shards/train/shard.00000.mds", spoil_byte, "sha256 is"),
        ("shards/validation/index.json", lambda p: p.unlink(), "missing"),
        ("shards/test/shard.00000.mds", lambda p: p.write_bytes(b"x"), "not named"),
        ("shards/_manifest.json", lambda p: p.unlink(), "without a manifest"),
        ("indexes/flat.faiss", spoil_byte, "sha256 is"),
        ("croissant.json", lambda p: p.unlink(), "not complete"),
        ("croissant.json", lambda p: p.write_text("[]"), "damaged"),
    ],
)
def test_spoilt_file_is_the_only_fault(
    copied: Copied, file: str, spoil: Callable[[Path], object], said: str
) -> None:
    layout = copied("code")
    path = layout.root / file
    path.parent.mkdir(exist_ok=True)
    spoil(path)
    faults = verify(layout)
    place = file.removesuffix("/_manifest.json")
    named = [fault for fault in faults if fault.startswith(place) and said in fault]
    assert named, faults
    about = [fault for fault in faults if fault not in named]
    # What was made from an unreadable table is stale as well, and the Croissant lists its files.
    assert all("croissant.json" in fault or "not there any more" in fault for fault in about), about


def test_schema_of_a_part(copied: Copied) -> None:
    layout = copied("code")
    manifest = layout.need("scores", "")
    part = next(part for part in manifest.parts() if part.file is not None)
    assert part.file is not None
    path = manifest.folder / part.file
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "scip", table.column(1).cast(pa.float32())), path)
    parts = [
        replace(p, bytes=path.stat().st_size, sha256=sha256_file(path)) if p == part else p
        for p in manifest.parts()
    ]
    recommit(layout, manifest, parts)
    assert verify(layout) == [
        f"tables/scores/{part.file}: schema differs from the manifest's in scip"
    ]


def test_rows_of_a_part(copied: Copied) -> None:
    layout = copied("code")
    manifest = layout.need("scores", "")
    parts = [replace(p, rows=p.rows + 1) if p.file else p for p in manifest.parts()]
    recommit(layout, manifest, parts)
    faults = verify(layout)
    assert len(faults) == 2
    assert all("rows, the manifest says" in fault for fault in faults)


def test_hash_of_zeros(copied: Copied) -> None:
    layout = copied("code")
    manifest = layout.need("scores", "")
    parts = [replace(p, sha256="0" * 64) if p.file else p for p in manifest.parts()]
    recommit(layout, manifest, parts)
    faults = verify(layout)
    assert len(faults) == 2
    assert all(fault.endswith(f"the manifest says {'0' * 64}") for fault in faults)


def test_embeddings_of_another_width(copied: Copied) -> None:
    """One part is narrower than the manifest says; its rows, bytes and hash agree with it."""
    layout = copied("code")
    manifest = layout.need("embeddings", "")
    parts = list(manifest.parts())
    assert parts[0].file is not None
    path = manifest.folder / parts[0].file
    rows = pq.read_table(path).to_pylist()
    narrow = [row | {"vector": row["vector"][:3]} for row in rows]
    pq.write_table(pa.Table.from_pylist(narrow, schema=schemas.embeddings(3, "float32")), path)
    parts[0] = replace(parts[0], bytes=path.stat().st_size, sha256=sha256_file(path))
    recommit(layout, manifest, parts)
    assert verify(layout) == [
        f"tables/embeddings/{path.name}: schema differs from the manifest's in vector"
    ]


def test_head_of_a_manifest(copied: Copied) -> None:
    layout = copied("code")
    path = layout.table("scores") / MANIFEST
    head = json.loads(path.read_text())
    head["rows"] += 1
    path.write_text(json.dumps(head))
    assert verify(layout) == ["tables/scores/_manifest.json: says rows 30, its parts add up to 29"]


@pytest.mark.parametrize("folder", ["tables/scores", "tables/decisions", "shards"])
def test_any_byte_of_a_manifest(copied: Copied, folder: str) -> None:
    """Also of what nothing else holds against it: times, parameters, fingerprints."""
    layout = copied("code")
    path = layout.root / folder / MANIFEST
    data = path.read_bytes()
    told = [data.index(b'"started"') + 14, data.index(b'"fingerprint"') + 17]
    for place in (*range(0, len(data), 97), *told):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        if folder == "shards":
            faults = folder_faults(layout, "shards")[1]
        else:
            faults = table_faults(layout, folder.removeprefix("tables/"))[1]
        assert faults, (place, data[place - 20 : place + 20])
        assert all(fault.startswith(folder) for fault in faults)


def test_stale_table(copied: Copied) -> None:
    layout = copied("code")
    manifest = layout.need("clusters", "")
    stale = replace(manifest.origin, inputs={"embeddings": "0" * 64})
    write_manifest(manifest.folder, "clusters", manifest.schema, stale, list(manifest.parts()))
    faults = verify(layout)
    assert len(faults) == 1
    assert faults[0].startswith("tables/clusters: stale, made from embeddings 0000000000000000")
    assert "'cluster'" in faults[0]


def test_stale_shards(copied: Copied) -> None:
    layout = copied("plain")
    listed = read_file_list(layout.shards)
    assert listed is not None
    write_file_list(
        layout.shards, "f", replace(listed.origin, inputs={"shards": "1" * 64}), listed.files
    )
    assert [fault[:14] for fault in verify(layout)] == ["shards: stale,"]


def test_index_json_of_other_counts(copied: Copied) -> None:
    layout = copied("plain")
    path = layout.shards / "train" / "index.json"
    index = json.loads(path.read_text())
    index["shards"][0]["samples"] += 3
    path.write_text(json.dumps(index))
    listed = read_file_list(layout.shards)
    assert listed is not None
    files = [
        replace(f, bytes=path.stat().st_size, sha256=sha256_file(path))
        if f.path == "train/index.json"
        else f
        for f in listed.files
    ]
    write_file_list(layout.shards, "f", listed.origin, files)
    write_croissant(layout, recipe("code"))
    faults = verify(layout)
    assert len(faults) == 1
    assert faults[0].startswith("shards/train/shard.00000.mds: ")


def test_width_of_the_centroids(copied: Copied) -> None:
    layout = copied("code")
    manifest = layout.need("centroids", "")
    part = next(iter(manifest.parts()))
    assert part.file is not None
    path = manifest.folder / part.file
    schema = schemas.centroids(3)
    rows = [{"cluster": c, "vector": [1.0, 0.0, 0.0]} for c in range(3)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    new = replace(part, bytes=path.stat().st_size, sha256=sha256_file(path))
    written = write_manifest(manifest.folder, "centroids", schema, manifest.origin, [new])
    clusters = layout.need("clusters", "")
    inputs = clusters.origin.inputs | {"centroids": written.content_sha256}
    write_manifest(
        clusters.folder,
        "clusters",
        clusters.schema,
        replace(clusters.origin, inputs=inputs),
        list(clusters.parts()),
    )
    assert verify(layout) == ["tables/centroids: vectors of width 3, those of embeddings have 4"]


def test_unfinished_curation(copied: Copied) -> None:
    layout = copied("plain")
    layout.drop_table("decisions")
    faults = verify(layout)
    assert "tables/decisions: no such table; run the curation to its end" in faults


def test_fixture_is_what_it_claims() -> None:
    assert len({row["record_id"] for row in make_records("code", 30)}) == 30
    assert origin("x").started > 0
