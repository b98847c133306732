"""A small output folder of either modality, written with the functions that stages write with."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from shardwright.metadata import schemas
from shardwright.metadata.catalog import write_catalog
from shardwright.metadata.croissant import write_croissant
from shardwright.metadata.filelist import ListedFile, write_file_list
from shardwright.metadata.files import sha256_file
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest, Origin, Part, write_manifest
from shardwright.metadata.tables import PartWriter, write_empty

Row = dict[str, Any]
DIMENSION = 4
ODD_PATHS = [
    'a b/"quoted".py',
    "<script>alert(1)</script>.py",
    "caf\u00e9/\u540d\u524d.py",
    r"broken\x80name.py",
    "new\nline.py",
    "it's.tar!inner/member.py",
    "rows.parquet#17",
    "rtl\u202egnp.py",
]
STARTED = 1_760_000_000.0


def write_table(
    layout: Layout,
    name: str,
    schema: pa.Schema,
    parts: Sequence[tuple[str, list[Row]]],
    origin: Origin,
) -> Manifest:
    """Commits a table of literal rows."""
    folder = layout.table(name)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    written: list[Part] = []
    for key, rows in parts:
        with PartWriter(folder / f"part-{key}.parquet", schema) as writer:
            if rows:
                writer.write(pa.RecordBatch.from_pylist(rows, schema=schema))
            written.append(writer.close(key, f"f-{key}"))
    if not any(part.rows for part in written):
        empty = write_empty(folder / "part-empty.parquet", schema, "empty", "")
        written = [empty, *written]
    return write_manifest(folder, name, schema, origin, written)


def origin(stage: str, inputs: Iterable[Manifest] = (), **parameters: Any) -> Origin:
    return Origin(
        stage,
        "1",
        parameters,
        {m.table: m.content_sha256 for m in inputs},
        STARTED,
        STARTED + 1,
    )


def _code(i: int) -> Row:
    contents = ["", "print('\u00e9\u4e2d')\n", "x = '\0'\n", "</script><b>&\n", "a\r\nb\n" * 3]
    content = contents[i] if i < len(contents) else f"def f{i}():\n    return {i}\n" * (1 + i % 7)
    return {
        "bytes": len(content.encode()),
        "content": content,
        "language": None if i % 5 == 0 else ["python", "c++"][i % 2],
        "lines": content.count("\n"),
        "license": None if i % 2 else "MIT",
    }


def _image(i: int) -> Row:
    picture = Image.fromarray(
        np.random.default_rng(i).integers(0, 255, (8 + i, 10, 3), dtype=np.uint8)
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {
        "bytes": len(buffer.getvalue()),
        "image": buffer.getvalue(),
        "width": 10,
        "height": 8 + i,
        "format": "PNG",
        "device_make": None if i % 3 else "Acme <b>",
        "device_model": None,
        "software": None,
        "label": None if i % 4 == 0 else f"class {i % 3}",
    }


def make_records(modality: str, count: int) -> list[Row]:
    """Records of which the last repeats the content of the one before."""
    rows = []
    for i in range(count):
        path = ODD_PATHS[i] if i < len(ODD_PATHS) else f"pkg/file{i:04d}.py"
        same = i - 1 if i == count - 1 else i
        own = _code(same) if modality == "code" else _image(same)
        blob = own[schemas.blob(modality)]
        data = blob.encode() if isinstance(blob, str) else blob
        rows.append(
            {
                "record_id": schemas.record_id("sample", path),
                "source": "sample",
                "path": path,
                "repository": "org/repo" if i % 2 else None,
                "revision": None,
                "modality": modality,
                "content_sha256": hashlib.sha256(data).hexdigest(),
                "attributes": [("note", "x")] if i % 3 == 0 else [],
                **own,
            }
        )
    return rows


def recipe(modality: str, *, embedding: bool = True) -> dict[str, Any]:
    return {
        "name": "sample",
        "modality": modality,
        "source": {"kind": "files", "uri": "https://user:secret@example.org/data", "name": None},
        "embedding": {"model": "builtin:hashing"} if embedding else None,
        "prune": {"method": "scip", "fraction": 0.2, "alpha": 0.8} if embedding else None,
    }


def build(
    root: Path,
    modality: str = "code",
    *,
    count: int = 30,
    embedding: bool = True,
    keep: bool = True,
) -> Layout:
    """Writes a complete output folder of three parts (the second without rows).

    Of the records the last is an exact duplicate; with an embedding, record 10 is dropped for its
    cluster's size and record 11 for its distance. With ``keep=False`` nothing is kept.
    """
    layout = Layout(root)
    rows = make_records(modality, count)
    half = count // 2
    keys = [("a0", rows[:half]), ("b1", []), ("c2", rows[half:])]

    def aligned(chosen: dict[str, Row]) -> list[tuple[str, list[Row]]]:
        return [
            (key, [chosen[r["record_id"]] for r in part if r["record_id"] in chosen])
            for key, part in keys
        ]

    records = write_table(
        layout, "records", schemas.records(modality), keys, origin("ingest", modality=modality)
    )
    rejected = [
        {
            "source": "sample",
            "path": path,
            "stage": "ingest",
            "reason": reason,
            "message": "why & <how>",
        }
        for path, reason in [("bad\\xff.py", "not_utf8"), ("big.py", "too_large")]
    ]
    if modality == "image":
        rejected = []
    rejects = write_table(
        layout, "rejects", schemas.REJECTS, [("a0", rejected), ("b1", [])], origin("ingest")
    )
    places = {
        row["record_id"]: {"record_id": row["record_id"], "part": part, "row": place}
        for part, (_, chunk) in enumerate(keys)
        for place, row in enumerate(chunk)
    }
    lookup = write_table(
        layout,
        "lookup",
        schemas.LOOKUP,
        [("0000", [places[i] for i in sorted(places)])],
        origin("ingest", [records]),
    )
    group = rows[-2:]
    duplicates = write_table(
        layout,
        "duplicates",
        schemas.DUPLICATES,
        [
            (
                "0000",
                [
                    {
                        "record_id": row["record_id"],
                        "kind": "exact",
                        "group_id": row["content_sha256"],
                        "representative_id": group[0]["record_id"],
                        "similarity": 1.0,
                    }
                    for row in group
                ],
            )
        ],
        origin("duplicates", [records], exact=True),
    )
    alive = rows[:-1]
    used = [lookup, duplicates]
    if embedding:
        used.append(_score(layout, alive, aligned, records))
    decided: dict[str, Row] = {}
    for i, row in enumerate(rows):
        dropped = {10: "small_cluster", 11: "far_from_centroid"}.get(i) if embedding else None
        verdict: tuple[bool, str, str] = (keep, "keep" if keep else "filter", "kept")
        if not keep:
            verdict = (False, "filter", "too_short")
        if dropped is not None:
            verdict = (False, "prune", dropped)
        score = (i / 55 if dropped else 0.4 + i / count / 2) if embedding else None
        if row is rows[-1]:
            verdict, score = (False, "duplicates", "exact_duplicate"), 1.0
        decided[row["record_id"]] = {
            "record_id": row["record_id"],
            "keep": verdict[0],
            "stage": verdict[1],
            "reason": verdict[2],
            "score": score,
            "threshold": None if score is None else 0.38,
            "representative_id": group[0]["record_id"] if row is rows[-1] else None,
        }
    decisions = write_table(
        layout, "decisions", schemas.DECISIONS, aligned(decided), origin("prune", used)
    )
    kept = [row for row in rows if decided[row["record_id"]]["keep"]]
    _hand_off(layout, modality, kept, aligned, [records, decisions])
    settings = recipe(modality, embedding=embedding)
    (root / "recipe.json").write_text(json.dumps(settings))
    stages = [
        {"stage": s, "records": count, "bytes": 1000, "seconds": 0.5, "parts": 3, "reused": 0}
        for s in ("ingest", "embed", "shard")
    ]
    (root / "metrics.json").write_text(json.dumps({"stages": stages, "seconds": 1.5}))
    assert rejects.rows == len(rejected)
    write_catalog(layout)
    write_croissant(layout, settings)
    return layout


def _score(layout: Layout, alive: list[Row], aligned: Any, records: Manifest) -> Manifest:
    """Embeddings to explanations.

    Record i's vector points at angle i / 9, but for record 10, which all but equals record 11.
    """
    angles = [(10.9 if i == 10 else i) / 9 for i in range(len(alive))]
    vectors = {
        row["record_id"]: [float(np.cos(angle)), float(np.sin(angle)), 0.0, 0.0]
        for angle, row in zip(angles, alive, strict=True)
    }
    embeddings = write_table(
        layout,
        "embeddings",
        schemas.embeddings(DIMENSION, "float32"),
        aligned(
            {
                row["record_id"]: {
                    "record_id": row["record_id"],
                    "vector": vectors[row["record_id"]],
                    "model": "builtin:hashing",
                    "content_sha256": row["content_sha256"],
                }
                for row in alive
            }
        ),
        origin("embed", [records]),
    )
    centroids = write_table(
        layout,
        "centroids",
        schemas.centroids(DIMENSION),
        [("0", [{"cluster": c, "vector": [1.0, float(c), 0.0, 0.0]} for c in range(3)])],
        origin("cluster", [embeddings], k=3),
    )
    explained = {
        row["record_id"]: {
            "record_id": row["record_id"],
            "cluster": i % 3,
            "cluster_size": len(alive[i % 3 :: 3]),
            "distance": i / 100,
            "criterion": {10: "size", 11: "distance"}.get(i),
            "scip": i / 30,
        }
        for i, row in enumerate(alive)
    }

    scored = schemas.scores(["scip"])

    def only(schema: pa.Schema) -> Any:
        return aligned(
            {key: {name: row[name] for name in schema.names} for key, row in explained.items()}
        )

    clusters = write_table(
        layout,
        "clusters",
        schemas.CLUSTERS,
        only(schemas.CLUSTERS),
        origin("cluster", [embeddings, centroids]),
    )
    scores = write_table(layout, "scores", scored, only(scored), origin("score", [clusters]))
    write_table(
        layout,
        "score_explanations",
        schemas.SCORE_EXPLANATIONS,
        only(schemas.SCORE_EXPLANATIONS),
        origin("score", [clusters]),
    )
    layout.indexes.mkdir(parents=True)
    (layout.indexes / "flat.faiss").write_bytes(b"faiss")
    ids = layout.indexes / "flat.ids.parquet"
    schema = pa.schema([pa.field("record_id", pa.string(), nullable=False)])
    with PartWriter(ids, schema) as writer:
        chosen = [{"record_id": row["record_id"]} for row in alive]
        writer.write(pa.RecordBatch.from_pylist(chosen, schema=schema))
        writer.close("ids", "")
    write_file_list(
        layout.indexes,
        "f",
        origin("index", [embeddings]),
        [
            _listed(layout.indexes, "flat.faiss", len(alive), "faiss"),
            _listed(layout.indexes, "flat.ids.parquet", len(alive), "parquet"),
        ],
    )
    return scores


def _listed(folder: Path, path: str, rows: int, kind: str) -> ListedFile:
    file = folder / path
    return ListedFile(path, file.stat().st_size, sha256_file(file), rows, kind)


def _hand_off(
    layout: Layout, modality: str, kept: list[Row], aligned: Any, inputs: list[Manifest]
) -> None:
    """``curated``, ``shards`` and the shard files: every fifth record goes to validation."""
    placed: dict[str, Row] = {}
    taken: dict[tuple[str, int], int] = {}
    for i, row in enumerate(kept):
        split = "validation" if i % 5 == 0 else "train"
        shard = 0 if split == "validation" or i < len(kept) // 2 else 1
        position = taken.get((split, shard), 0)
        taken[split, shard] = position + 1
        placed[row["record_id"]] = {
            "record_id": row["record_id"],
            "split": split,
            "shard": shard,
            "position": position,
        }
    shards = write_table(
        layout, "shards", schemas.SHARDS, aligned(placed), origin("shard", inputs, size=100)
    )
    whole = {row["record_id"]: row | {"split": placed[row["record_id"]]["split"]} for row in kept}
    write_table(
        layout,
        "curated",
        schemas.curated(modality),
        aligned(whole),
        origin("shard", [inputs[0], shards], size=100),
    )
    files: list[ListedFile] = []
    for split in ("train", "validation"):
        entries = []
        for (of, shard), samples in sorted(taken.items()):
            if of != split:
                continue
            name = f"shard.{shard:05d}.mds"
            (layout.shards / split).mkdir(parents=True, exist_ok=True)
            (layout.shards / split / name).write_bytes(f"{split} {shard}".encode())
            files.append(_listed(layout.shards, f"{split}/{name}", samples, "mds"))
            size = files[-1].bytes
            entries.append(
                {"samples": samples, "raw_data": {"basename": name, "bytes": size, "hashes": {}}}
            )
        if entries:
            index = layout.shards / split / "index.json"
            index.write_text(json.dumps({"version": 2, "shards": entries}))
            files.append(_listed(layout.shards, f"{split}/index.json", 0, "json"))
    layout.shards.mkdir(exist_ok=True)
    write_file_list(layout.shards, "f", origin("shard", [inputs[0], shards], size=100), files)
