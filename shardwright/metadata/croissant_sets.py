"""Files and record sets of a Croissant: what lies where, with its hash, and how to read it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from shardwright.metadata.croissant_statistics import field_statistics, row_count
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.vocabulary import COLUMNS, TABLES

Node = dict[str, Any]

READABLE = ("curated", "decisions", "embeddings")
"""Tables that are record sets."""

REPOSITORY = "repository"
"""The ``@id`` of the repository that holds all files, where the data is published in one."""

SEAL = "shardwright:seal"
"""Key of a Croissant's hash over all else in it."""

DROPPING = ("filter", "duplicates", "decontaminate", "semantic", "prune")
"""Stages that drop records, in order."""

# What mlcroissant asks of every file that is in no other, and git repositories have none; everyone
# writes this in its place.
_NO_HASH = "https://github.com/mlcommons/croissant/issues/80"

_ENCODINGS: Mapping[str, Any] = {
    "mds": "application/octet-stream",
    "webdataset": "application/x-tar",
    "json": "application/json",
    "faiss": "application/octet-stream",
    # The first is the only name that mlcroissant reads, the second the registered one.
    "parquet": ["application/x-parquet", "application/vnd.apache.parquet"],
}
_SPLITS = {
    "train": "cr:TrainingSplit",
    "validation": "cr:ValidationSplit",
    "valid": "cr:ValidationSplit",
    "val": "cr:ValidationSplit",
    "test": "cr:TestSplit",
}
# Where the values of a column all stand. Told as text and not as Croissant's ``references``, which
# mlcroissant carries out as a join: it then holds both tables whole before it gives the first row,
# and neither Beam nor TFDS reads them.
_STANDS_IN = {
    "curated/record_id": "decisions/record_id",
    "curated/split": "splits/name",
    "decisions/representative_id": "decisions/record_id",
    "embeddings/record_id": "decisions/record_id",
}
_DESCRIPTIONS = COLUMNS | {
    "vector": "What the encoder makes of the content.",
    "model": "The encoder.",
    "name": "Name of the split.",
    "url": "What the split is for.",
    "records_in": "Records, or inputs, that came to the stage.",
    "dropped": "How many of them it took out.",
    "records_out": "How many it passed on.",
}


def files_of(layout: Layout) -> Iterator[tuple[str, int, str, str]]:
    """Yields (path, bytes, sha256, format) of every file that the Croissant lists."""
    for manifest in readable(layout):
        for part in manifest.parts():
            if part.file is not None:
                path = f"tables/{manifest.table}/{part.file}"
                yield path, part.bytes, part.sha256, "parquet"
    for name, folder in layout.folders.items():
        listed = read_file_list(folder)
        for file in listed.files if listed is not None else ():
            yield f"{name}/{file.path}", file.bytes, file.sha256, file.format


def readable(layout: Layout) -> list[Manifest]:
    """Manifests of the tables that are record sets here."""
    return [manifest for manifest in map(layout.manifest, READABLE) if manifest is not None]


def distribution(layout: Layout, repository: str | None) -> Iterator[Node]:
    """Yields a set of files per table, and every file with its size and hash.

    Args:
        layout: The output folder.
        repository: Address of the git repository that the files are published in. None: they lie
            beside the Croissant.
    """
    inside: Node = {}
    if repository is not None:
        inside = {"containedIn": {"@id": REPOSITORY}}
        yield {
            "@type": "cr:FileObject",
            "@id": REPOSITORY,
            "name": REPOSITORY,
            "description": "The repository that holds all files.",
            "contentUrl": repository,
            "encodingFormat": "git+https",
            "sha256": _NO_HASH,
        }
    for manifest in readable(layout):
        yield {
            "@type": "cr:FileSet",
            "@id": f"{manifest.table}-files",
            "name": f"{manifest.table}-files",
            "description": TABLES[manifest.table],
            **inside,
            "encodingFormat": _ENCODINGS["parquet"],
            "includes": f"tables/{manifest.table}/*.parquet",
        }
    for path, size, sha256, kind in files_of(layout):
        yield {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            **inside,
            "contentUrl": path,
            "contentSize": f"{size} B",
            "encodingFormat": _ENCODINGS.get(kind, "application/octet-stream"),
            "sha256": sha256,
        }


def table_set(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, *, annotated: bool
) -> Node:
    """A table as record set: every column that mlcroissant reads as it is.

    Args:
        connection: DuckDB with a view of the table.
        manifest: The table.
        annotated: Croissant 1.1, with statistics, and arrays with their shape; else 1.0.
    """
    table = manifest.table
    statistics = field_statistics(connection, manifest) if annotated else {}
    fields = []
    for field in manifest.schema:
        if not _reads_back(field):
            continue
        node = _field(table, field.name, _data_type(field)) | {
            "source": {
                "fileSet": {"@id": f"{table}-files"},
                "extract": {"column": field.name},
            }
        }
        if pa.types.is_fixed_size_list(field.type):
            shape = str(field.type.list_size)
            node |= {"isArray": True, "arrayShape": shape} if annotated else {"repeated": True}
        if statistics.get(field.name):
            node["annotation"] = statistics[field.name]
        fields.append(node)
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": TABLES[table],
        "key": {"@id": f"{table}/record_id"},
        "field": fields,
        **({"annotation": row_count(table, manifest.rows)} if annotated else {}),
    }


def _reads_back(field: pa.Field) -> bool:
    """Of a map mlcroissant reads nothing, of integers that may be null 53 bits."""
    wide = pa.types.is_int64(field.type) or pa.types.is_uint64(field.type)
    return not pa.types.is_map(field.type) and not (wide and field.nullable)


def _field(record_set: str, name: str, kind: Any) -> Node:
    node = {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": _DESCRIPTIONS[name],
        "dataType": kind,
    }
    if f"{record_set}/{name}" in _STANDS_IN:
        node["shardwright:references"] = _STANDS_IN[f"{record_set}/{name}"]
    return node


def _data_type(field: pa.Field) -> str | list[str]:
    kind = field.type
    if pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    if field.name == "label":
        return ["sc:Text", "cr:Label"]
    if field.name == "split":
        return ["sc:Text", "cr:Split"]
    if pa.types.is_large_binary(kind):
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def splits(connection: duckdb.DuckDBPyConnection) -> Iterator[Node]:
    """Yields the record set of the splits, where any record is kept."""
    rows = connection.execute(
        "SELECT split, count(*) FROM curated GROUP BY split ORDER BY split"
    ).fetchall()
    if rows:
        yield _inline(
            "splits",
            "The splits, and how many records went to each.",
            {"name": "sc:Text", "url": "sc:URL", "records": "sc:Integer"},
            ["name"],
            [(name, _SPLITS.get(name, "cr:Split"), count) for name, count in rows],
        ) | {"dataType": "cr:Split"}


def accounting(connection: duckdb.DuckDBPyConnection) -> Node:
    """What became of every input: the counts add up to all inputs seen."""
    counts = connection.execute("SELECT stage, reason, records FROM funnel").fetchall()
    if not any(stage == "keep" for stage, _, _ in counts):
        counts.append(("keep", "kept", 0))
    return _inline(
        "accounting",
        "What became of every input, by stage and reason; adds up to all inputs.",
        {"stage": "sc:Text", "reason": "sc:Text", "records": "sc:Integer"},
        ["stage", "reason"],
        counts,
    )


def stages(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Node:
    """What came to each stage that takes records out, and what it passed on.

    In every row ``records_in`` = ``dropped`` + ``records_out``, and what one stage passes on
    comes to the next; ``dropped`` is the sum of the stage's rows in ``accounting``.
    """
    records, rejects = layout.need("records", "ingest"), layout.need("rejects", "ingest")
    rows = [("ingest", records.rows + rejects.rows, rejects.rows, records.rows)]
    dropped = dict(
        connection.execute(
            "SELECT stage, count(*) FROM decisions WHERE NOT keep GROUP BY stage"
        ).fetchall()
    )
    ran = {manifest.origin.stage for manifest in layout.manifests()}
    alive = records.rows
    for stage in DROPPING:
        gone = dropped.get(stage, 0)
        if stage in ran or gone:
            rows.append((stage, alive, gone, alive - gone))
            alive -= gone
    kept = layout.need("curated", "shard").rows
    rows.append(("shard", alive, alive - kept, kept))
    return _inline(
        "stages",
        "What came to each stage that takes records out, and what it passed on.",
        {
            "stage": "sc:Text",
            "records_in": "sc:Integer",
            "dropped": "sc:Integer",
            "records_out": "sc:Integer",
        },
        ["stage"],
        rows,
    )


def _inline(
    name: str,
    description: str,
    types: Mapping[str, str],
    key: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> Node:
    """A record set whose rows stand in the Croissant itself."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": [{"@id": f"{name}/{column}"} for column in key],
        "field": [_field(name, column, kind) for column, kind in types.items()],
        "data": [
            {f"{name}/{column}": value for column, value in zip(types, row, strict=True)}
            for row in rows
        ],
    }
