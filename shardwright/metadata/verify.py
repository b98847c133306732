"""Checks a curation against itself: files, rows, accounting, lineage and metadata.

Files come first. What compares rows runs only where the tables that it reads are sound, so that
one damaged file is one line and not twenty.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from shardwright.metadata.catalog import connect, file_literal, name_parts, scan
from shardwright.metadata.checks import Check, checks
from shardwright.metadata.filelist import FileList, shard_stem
from shardwright.metadata.integrity import (
    croissant_faults,
    folder_faults,
    lineage_faults,
    strange_tables,
    table_faults,
)
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import record_id
from shardwright.metadata.tables import read_batches

_NEEDED = ("records", "rejects", "lookup", "decisions", "shards", "curated")
# Records whose contents are held at a time.
_ROWS = 64


def verify(layout: Layout) -> list[str]:
    """Every fault of a curation, one line each; none when all is as the manifests say.

    Re-hashes all files, so it takes as long as reading them. Memory holds a few records and what
    DuckDB needs to compare ids, which spills.
    """
    faults: list[str] = []
    sound: dict[str, Manifest] = {}
    for name in TABLES:
        manifest, found = table_faults(layout, name)
        faults += found
        if manifest is not None and not found:
            sound[name] = manifest
        if name in _NEEDED and manifest is None and not found:
            faults.append(f"tables/{name}: no such table; run the curation to its end")
    faults += strange_tables(layout)
    listed, found = folder_faults(layout, "shards")
    if listed is None and not found:
        found = ["shards: no shards; run the curation to its end"]
    faults += found
    shards = listed if not found else None
    listed, found = folder_faults(layout, "indexes")
    faults += found
    index = listed if not found else None
    faults += folder_faults(layout, "tokens/shards")[1]
    for name in ("records", "curated"):
        if name in sound:
            faults += _content_faults(sound[name])
    faults += lineage_faults(layout)
    faults += _width_faults(sound)
    with connect(layout, tables=tuple(sound)) as connection:
        faults += _row_faults(connection, sound)
        if "records" in sound and "lookup" in sound:
            faults += _lookup_faults(connection, sound["records"])
        if index is not None and "embeddings" in sound:
            faults += _index_faults(connection, index, sound)
        if shards is not None and "shards" in sound:
            faults += _shard_faults(connection, shards)
        faults += croissant_faults(layout, sound, connection)
    return faults


def _content_faults(manifest: Manifest) -> Iterator[str]:
    """Re-hashes each record's name and content; one line per part and kind of fault."""
    blob = "content" if "content" in manifest.schema.names else "image"
    columns = ["record_id", "source", "path", "content_sha256", "bytes", blob]
    for part in manifest.parts():
        if part.file is None:
            continue
        wrong: dict[str, list[str]] = {}
        for batch in read_batches(manifest.folder / part.file, columns, rows=_ROWS):
            for row in batch.to_pylist():
                data = row[blob].encode() if isinstance(row[blob], str) else row[blob]
                for problem, holds in (
                    (
                        "record_id is not the hash of source and path",
                        row["record_id"] == record_id(row["source"], row["path"]),
                    ),
                    (
                        f"content_sha256 is not the hash of {blob}",
                        row["content_sha256"] == hashlib.sha256(data).hexdigest(),
                    ),
                ):
                    if not holds:
                        wrong.setdefault(problem, []).append(row["record_id"])
        for problem, ids in wrong.items():
            yield (
                f"tables/{manifest.table}/{part.file}: {len(ids)} rows: {problem}, first {ids[0]}"
            )


def _width_faults(sound: Mapping[str, Manifest]) -> Iterator[str]:
    widths = {}
    for name in ("embeddings", "centroids"):
        if name in sound:
            kind = sound[name].schema.field("vector").type
            if not pa.types.is_fixed_size_list(kind):
                yield f"tables/{name}: vector is {kind}, no list of fixed size"
            else:
                widths[name] = kind.list_size
    if len(set(widths.values())) > 1:
        yield (
            f"tables/centroids: vectors of width {widths['centroids']}, those of embeddings have "
            f"{widths['embeddings']}"
        )


def _unmasked(sound: Mapping[str, Manifest]) -> Check:
    """Curated contents are those of the records, but where something was masked."""
    masked = sound["curated"].origin.parameters.get("masked", []) if "curated" in sound else []
    counted = " OR ".join(f'"{name}" > 0' for name in masked) or "false"
    scored = "filter_scores" if masked else "records"
    return Check(
        "curated",
        frozenset({"curated", "records", scored}),
        "other content than in records",
        "SELECT record_id FROM curated AS c JOIN records AS r USING (record_id) "
        f"ANTI JOIN (SELECT record_id FROM {scored} WHERE {counted}) AS m USING (record_id) "
        "WHERE c.content_sha256 <> r.content_sha256",
    )


def _row_faults(
    connection: duckdb.DuckDBPyConnection, sound: Mapping[str, Manifest]
) -> Iterator[str]:
    for check in (*checks(), _unmasked(sound)):
        if sound.keys() >= check.reads:
            yield from _found(connection, f"tables/{check.table}", check.problem, check.query)


def _found(
    connection: duckdb.DuckDBPyConnection, place: str, problem: str, query: str
) -> Iterator[str]:
    row = connection.execute(f"SELECT count(*), min(record_id) FROM ({query})").fetchall()[0]
    if row[0]:
        yield f"{place}: {row[0]} {problem}, first {row[1]}"


def _lookup_faults(connection: duckdb.DuckDBPyConnection, records: Manifest) -> Iterator[str]:
    name_parts(connection, records)
    yield from _found(
        connection,
        "tables/lookup",
        "records that stand elsewhere",
        f"SELECT l.record_id FROM lookup AS l JOIN {scan(records, positions=True)} AS r "
        "USING (record_id) JOIN part_files AS f USING (filename) "
        "WHERE l.part <> f.part OR l.row <> r.file_row_number",
    )


_DROPPED_BEFORE_INDEX = {
    "contamination": "contamination",
    "semantic_duplicates": "(FROM semantic_duplicates WHERE record_id <> representative_id)",
}


def _index_faults(
    connection: duckdb.DuckDBPyConnection, index: FileList, sound: Mapping[str, Manifest]
) -> Iterator[str]:
    """The ids of an index are those of the embeddings, less what was dropped after embedding."""
    less = " ".join(
        f"ANTI JOIN {dropped} AS {table} USING (record_id)"
        for table, dropped in _DROPPED_BEFORE_INDEX.items()
        if table in sound and table in index.origin.inputs
    )
    for file in index.files:
        if file.format != "parquet":
            continue
        ids = f"read_parquet({file_literal(index.folder / file.path)})"
        place = f"indexes/{file.path}"
        for problem, query in (
            ("ids twice", f"SELECT record_id FROM {ids} GROUP BY ALL HAVING count(*) > 1"),
            ("ids without a vector", f"FROM {ids} ANTI JOIN embeddings USING (record_id)"),
            (
                "live vectors without an id",
                f"SELECT record_id FROM embeddings ANTI JOIN {ids} AS i USING (record_id) {less}",
            ),
        ):
            yield from _found(connection, place, problem, query)


def _shard_faults(connection: duckdb.DuckDBPyConnection, listed: FileList) -> Iterator[str]:
    """The shard files, their indexes and the table ``shards`` count the same samples."""
    paths = {file.path.rpartition(".")[0]: file.path for file in listed.shards}
    suffix = listed.shards[0].path.rpartition(".")[2] if listed.shards else "mds"
    samples = {
        paths.get(shard_stem(split, shard), f"{shard_stem(split, shard)}.{suffix}"): count
        for split, shard, count in connection.execute(
            "SELECT split, shard, count(*) FROM shards GROUP BY ALL"
        ).fetchall()
    }
    indexed: dict[str, int] = {}
    files = {file.path: file.rows for file in listed.shards}
    for file in listed.files:
        if file.format == "json":
            try:
                indexed |= _indexed(listed.folder / file.path, file.path)
            except (ValueError, KeyError, TypeError) as error:
                yield f"shards/{file.path}: no readable index ({type(error).__name__}: {error})"
    of_mds = suffix == "mds"  # the only format whose files need an index
    for name in sorted(samples.keys() | indexed.keys() | files.keys()):
        counts = {"samples in table shards": samples.get(name, 0)}
        if of_mds:
            counts["in its index"] = indexed.get(name, 0)
        counts["in the manifest"] = files.get(name, 0)
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count} {where}" for where, count in counts.items())
            yield f"shards/{name}: {told}"


def _indexed(path: Path, name: str) -> dict[str, int]:
    """Samples of each shard file that an MDS index lists."""
    index: dict[str, Any] = json.loads(path.read_bytes())
    split = name.rpartition("/")[0]
    return {
        f"{split}/{shard['raw_data']['basename']}": int(shard["samples"])
        for shard in index["shards"]
    }
