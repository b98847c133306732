"""Whether files, manifests and metadata are what they say they are, whatever the rows hold."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.errors import DataError
from shardwright.metadata.croissant_sets import REPOSITORY, SEAL, files_of
from shardwright.metadata.filelist import FileList, read_file_list
from shardwright.metadata.files import fingerprint, sha256_file
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.manifest import MANIFEST, Manifest, Origin, Part, unbroken
from shardwright.metadata.readback import readback_faults


def table_faults(layout: Layout, name: str) -> tuple[Manifest | None, list[str]]:
    """Holds a table's folder against its manifest.

    Returns:
        The manifest, where there is a readable one, and the faults.
    """
    folder = layout.table(name)
    place = f"tables/{name}"
    if not folder.exists():
        return None, []
    try:
        manifest = layout.manifest(name)
        if manifest is None:
            return None, [f"{place}: files without a manifest; run the curation again"]
        faults = list(_manifest_faults(manifest, place))
        return manifest, faults or list(_broken(folder, place))
    except DataError as error:
        return None, [_relative(layout, str(error))]


def _broken(folder: Path, place: str) -> Iterator[str]:
    """A manifest that is whole and contradicts nothing, and is another than was written."""
    if not unbroken((folder / MANIFEST).read_bytes()):
        yield f"{place}/{MANIFEST}: changed since it was written; run the curation with --force"


def _relative(layout: Layout, message: str) -> str:
    return message.removeprefix(f"{layout.root}/")


def _manifest_faults(manifest: Manifest, place: str) -> Iterator[str]:
    named = {MANIFEST, *manifest.leaf_names()}
    content = hashlib.sha256(manifest.schema.to_string().encode())
    rows = size = count = 0
    for part in manifest.parts():
        rows, size, count = rows + part.rows, size + part.bytes, count + 1
        content.update(f"{part.key} {part.rows} {part.sha256}\n".encode())
        if part.file is not None:
            named.add(part.file)
            yield from _part_faults(manifest, part, f"{place}/{part.file}")
        elif part.rows:
            yield f"{place}/{MANIFEST}: part {part.key} has {part.rows} rows and no file"
    for what, said, found in (
        ("rows", manifest.rows, rows),
        ("bytes", manifest.bytes, size),
        ("parts", manifest.count, count),
        ("content_sha256", manifest.content_sha256, content.hexdigest()),
    ):
        if said != found:
            yield f"{place}/{MANIFEST}: says {what} {said}, its parts add up to {found}"
    for path in sorted(manifest.folder.iterdir()):
        if path.name not in named:
            yield f"{place}/{path.name}: not named by the manifest"


def _part_faults(manifest: Manifest, part: Part, place: str) -> Iterator[str]:
    assert part.file is not None
    path = manifest.folder / part.file
    damaged = _file_fault(path, part.bytes, part.sha256)
    if damaged is not None:
        yield f"{place}: {damaged}"
        return
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        yield f"{place}: no readable Parquet ({' '.join(str(error).split())})"
        return
    if not schema.equals(manifest.schema):
        differing = [
            field.name
            for field in manifest.schema
            if schema.get_field_index(field.name) < 0 or not schema.field(field.name).equals(field)
        ]
        differing += [name for name in schema.names if name not in manifest.schema.names]
        yield f"{place}: schema differs from the manifest's in {', '.join(differing) or 'order'}"
    if rows != part.rows:
        yield f"{place}: holds {rows} rows, the manifest says {part.rows}"


def _file_fault(path: Path, size: int, sha256: str) -> str | None:
    if not path.is_file():
        return "missing"
    found = path.stat().st_size
    if found != size:
        return f"holds {found} bytes, the manifest says {size}"
    actual = sha256_file(path)
    return None if actual == sha256 else f"sha256 is {actual}, the manifest says {sha256}"


def strange_tables(layout: Layout) -> Iterator[str]:
    """Faults of what lies among the tables and is none."""
    folder = layout.root / "tables"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in TABLES:
            yield f"tables/{path.name}: no table of that name"


def folder_faults(layout: Layout, name: str) -> tuple[FileList | None, list[str]]:
    """Holds one of ``layout.folders`` against its manifest."""
    folder = layout.folders[name]
    if not folder.exists():
        return None, []
    try:
        listed = read_file_list(folder)
    except DataError as error:
        return None, [_relative(layout, str(error))]
    if listed is None:
        return None, [f"{name}: files without a manifest; run the curation again"]
    faults = []
    named = {MANIFEST}
    for file in listed.files:
        named.add(file.path)
        fault = _file_fault(folder / file.path, file.bytes, file.sha256)
        if fault is not None:
            faults.append(f"{name}/{file.path}: {fault}")
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder).as_posix()
        if path.is_file() and below not in named:
            faults.append(f"{name}/{below}: not named by the manifest")
    return listed, faults or list(_broken(folder, name))


def lineage_faults(layout: Layout) -> Iterator[str]:
    """Faults of tables and folders that were made from other tables than those of now."""
    origins: dict[str, Origin] = {}
    content: dict[str, str] = {}
    for name in TABLES:
        try:
            manifest = layout.manifest(name)
        except DataError:
            continue
        if manifest is not None:
            origins[f"tables/{name}"] = manifest.origin
            content[name] = manifest.content_sha256
    for name, folder in layout.folders.items():
        try:
            listed = read_file_list(folder)
        except DataError:
            continue
        if listed is not None:
            origins[name] = listed.origin
    for place, origin in origins.items():
        for table, sha256 in origin.inputs.items():
            if table not in content and table in TABLES:
                yield f"{place}: made from {table}, which is not there any more"
            elif table in content and content[table] != sha256:
                yield (
                    f"{place}: stale, made from {table} {sha256[:16]} and it is now "
                    f"{content[table][:16]}; run stage {origin.stage!r} again"
                )


def croissant_faults(
    layout: Layout, sound: Mapping[str, Manifest], connection: duckdb.DuckDBPyConnection
) -> Iterator[str]:
    """Faults of ``croissant.json``: absent, invalid, unreadable, or of other files and counts.

    The same of the form for a repository, where there is one.

    Args:
        layout: The output folder.
        sound: Tables without a fault; no others are read.
        connection: DuckDB with their views.
    """
    if not layout.croissant.exists():
        yield "croissant.json: missing, so the curation is not complete; run it to its end"
    for path in (layout.croissant, layout.published):
        if path.exists():
            faults = list(_document_faults(layout, path, sound, connection))
            yield from (f"{path.name}: {fault}" for fault in faults or _changed(path))


def _changed(path: Path) -> Iterator[str]:
    """A document that contradicts nothing, and is another than was written."""
    metadata = json.loads(path.read_bytes())
    if metadata.pop(SEAL, None) != fingerprint(**metadata):
        yield "changed since it was written; run the curation again, it is written anew"


def _document_faults(
    layout: Layout,
    path: Path,
    sound: Mapping[str, Manifest],
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[str]:
    try:
        metadata = json.loads(path.read_bytes())
        listed = {
            item["contentUrl"]: (item["contentSize"], item["sha256"])
            for item in metadata["distribution"]
            if item["@type"] == "cr:FileObject" and item["@id"] != REPOSITORY
        }
        counts = {item["@id"]: _count(item) for item in metadata["recordSet"]}
        accounting, stages = _inline(metadata, "accounting"), _inline(metadata, "stages")
        inconsistent = [*_open_stages(accounting, stages)]
        for item in metadata["recordSet"]:
            _ = [field["@id"] for field in item["field"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"damaged ({type(error).__name__}: {error}); run the curation again"
        return
    yield from readback_faults(path, metadata, sound)
    yield from inconsistent
    if sound.keys() >= {"rejects", "decisions"}:
        yield from _accounting_faults(connection, accounting)
    try:
        present = {file: (f"{size} B", sha256) for file, size, sha256, _ in files_of(layout)}
        rows = {name: layout.manifest(name) for name in counts}
    except DataError:
        return
    for file in sorted(present.keys() | listed.keys()):
        if file not in listed:
            yield f"does not list {file}"
        elif file not in present:
            yield f"lists {file}, which no manifest names"
        elif listed[file] != present[file]:
            yield f"gives {file} another size or sha256 than its manifest"
    for name, count in counts.items():
        manifest = rows[name]
        if manifest is not None and count is not None and manifest.rows != count:
            yield f"{name} counts {count}, the tables hold {manifest.rows}"


def _count(record_set: dict[str, Any]) -> int | None:
    """Rows of a record set as its annotation says; Croissant 1.0 has none."""
    annotations = record_set.get("annotation", [])
    for annotation in annotations if isinstance(annotations, list) else [annotations]:
        if annotation["@id"] == f"{record_set['@id']}/rows":
            return int(annotation["value"])
    return None


def _inline(metadata: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Rows of a record set that stands in the document, by the names of their columns."""
    return [
        {column.partition("/")[2]: value for column, value in row.items()}
        for item in metadata["recordSet"]
        if item["@id"] == name
        for row in item["data"]
    ]


def _open_stages(
    accounting: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Stages whose counts do not close: what comes in is dropped or goes on to the next."""
    came = sum(int(row["records"]) for row in accounting)
    for row in stages:
        name, dropped = row["stage"], int(row["dropped"])
        told = sum(int(item["records"]) for item in accounting if item["stage"] == name)
        if int(row["records_in"]) != came:
            yield (f"{row['records_in']} records come to {name}, {came} went on to it")
        if int(row["records_in"]) != dropped + int(row["records_out"]):
            yield (
                f"of {row['records_in']} records {name} drops {dropped} and passes "
                f"on {row['records_out']}"
            )
        if dropped != told:
            yield f"{name} drops {dropped} records, accounting tells of {told}"
        came = int(row["records_out"])


def _accounting_faults(
    connection: duckdb.DuckDBPyConnection, accounting: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    said = {(row["stage"], row["reason"]): int(row["records"]) for row in accounting}
    held = {
        (stage, reason): records
        for stage, reason, records in connection.execute(
            "SELECT stage, reason, records FROM funnel"
        ).fetchall()
    }
    for stage, reason in sorted(said.keys() | held.keys()):
        counts = said.get((stage, reason), 0), held.get((stage, reason), 0)
        if counts[0] != counts[1]:
            yield (
                f"accounting counts {counts[0]} of {stage} {reason}, the tables hold {counts[1]}"
            )
