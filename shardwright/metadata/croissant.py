"""Croissant 1.1 metadata of a curation: files with hashes, record sets, accounting and lineage.

The JSON-LD is built as plain values from the manifests and the recipe. It is the same for the same
tables but for the times that the manifests hold.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pyarrow as pa

import shardwright
from shardwright.metadata.catalog import connect
from shardwright.metadata.filelist import FileList, read_file_list
from shardwright.metadata.files import HashedFile, canonical_json
from shardwright.metadata.layout import STAGES, Layout
from shardwright.metadata.manifest import Manifest, Origin
from shardwright.metadata.vocabulary import COLUMNS, TABLES

CROISSANT = "http://mlcommons.org/croissant/1.1"
# SPDX's own way to say that nothing is stated.
UNKNOWN_LICENSE = "http://spdx.org/rdf/terms#noassertion"

# The record sets that are read from Parquet, and what is shown of the files.
_READABLE = ("curated", "decisions")
_ENCODINGS = {
    "mds": "application/octet-stream",
    "webdataset": "application/x-tar",
    "json": "application/json",
    "faiss": "application/octet-stream",
    # The first is the only name that mlcroissant reads, the second the registered one.
    "parquet": ["application/x-parquet", "application/vnd.apache.parquet"],
}

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "excludes": "cr:excludes",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "shardwright": "urn:shardwright:",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "value": "cr:value",
}


def write_croissant(layout: Layout, recipe: Mapping[str, Any]) -> None:
    """Writes ``croissant.json``, whose presence says that the curation is complete."""
    encoder = json.JSONEncoder(indent=1, ensure_ascii=True, allow_nan=False)
    with HashedFile(layout.croissant) as file:
        for chunk in encoder.iterencode(croissant(layout, recipe)):
            file.write(chunk.encode())
        file.write(b"\n")


def croissant(layout: Layout, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a curation as JSON-LD.

    Args:
        layout: The output folder.
        recipe: The resolved recipe. What its ``about`` states (description, license, url, creator,
            version, keywords, citeAs) stands as stated; the rest is measured.

    Raises:
        UserError: The tables are not all there yet.
    """
    records, rejects = layout.need("records", "ingest"), layout.need("rejects", "ingest")
    decisions, curated = layout.need("decisions", "prune"), layout.need("curated", "shard")
    about = dict(recipe.get("about") or {})
    name = str(recipe["name"])
    published = _time(curated.origin.ended)[:10]
    version = str(about.get("version") or f"1.0.0+sha256.{curated.content_sha256[:16]}")
    seen = records.rows + rejects.rows
    measured = (
        f"{name}: {curated.rows} {recipe['modality']} records for training, curated by Shardwright "
        f"from {seen} inputs: {rejects.rows} refused, {records.rows - curated.rows} dropped, "
        f"{curated.rows} kept. The record set 'decisions' says of every record why."
    )
    metadata = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT],
        "name": name,
        "description": str(about.get("description") or measured),
        "license": about.get("license") or UNKNOWN_LICENSE,
        "url": str(about.get("url") or f"urn:sha256:{curated.content_sha256}"),
        "creator": _creator(about.get("creator")),
        "datePublished": published,
        "version": version,
        "keywords": list(about.get("keywords") or ["training data", str(recipe["modality"])]),
        "citeAs": str(
            about.get("citeAs")
            or f"{name}, version {version}, {published}. Curated by Shardwright."
        ),
        "isLiveDataset": False,
        "distribution": list(_distribution(layout, (curated, decisions))),
        "recordSet": [
            _record_set(curated),
            _record_set(decisions),
            _accounting(layout),
        ],
    }
    source = _source(recipe)
    return metadata | {
        "prov:wasDerivedFrom": {"@id": source["@id"]},
        "prov:wasGeneratedBy": list(_activities(layout, source)),
    }


def _creator(stated: object) -> dict[str, Any]:
    if isinstance(stated, Mapping):
        return dict(stated)
    return {"@type": "sc:Organization", "name": str(stated) if stated else "not stated"}


def files_of(layout: Layout) -> Iterator[tuple[str, int, str, str]]:
    """Yields (path, bytes, sha256, format) of every file that the Croissant lists."""
    for table in _READABLE:
        manifest = layout.manifest(table)
        for part in manifest.parts() if manifest is not None else ():
            if part.file is not None:
                yield f"tables/{table}/{part.file}", part.bytes, part.sha256, "parquet"
    for name, folder in layout.folders.items():
        listed = read_file_list(folder)
        for file in listed.files if listed is not None else ():
            yield f"{name}/{file.path}", file.bytes, file.sha256, file.format


def _distribution(layout: Layout, tables: Iterable[Manifest]) -> Iterator[dict[str, Any]]:
    for manifest in tables:
        yield {
            "@type": "cr:FileSet",
            "@id": f"{manifest.table}-files",
            "name": f"{manifest.table}-files",
            "description": TABLES[manifest.table],
            "encodingFormat": _ENCODINGS["parquet"],
            "includes": f"tables/{manifest.table}/*.parquet",
        }
    for path, size, sha256, kind in files_of(layout):
        yield {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{size} B",
            "encodingFormat": _ENCODINGS[kind],
            "sha256": sha256,
        }


def _record_set(manifest: Manifest) -> dict[str, Any]:
    """Every column of a table but the maps, which mlcroissant cannot read."""
    table = manifest.table
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{table}/{field.name}",
            "name": field.name,
            "description": COLUMNS[field.name],
            "dataType": _data_type(field),
            "source": {
                "fileSet": {"@id": f"{table}-files"},
                "extract": {"column": field.name},
            },
        }
        for field in manifest.schema
        if not pa.types.is_map(field.type)
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": TABLES[table],
        "key": {"@id": f"{table}/record_id"},
        "field": fields,
        "annotation": _rows(table, manifest.rows),
    }


def _rows(record_set: str, count: int) -> dict[str, Any]:
    """The number of rows, as a Croissant 1.1 annotation."""
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/rows",
        "name": "rows",
        "description": "Number of rows.",
        "dataType": ["sc:Integer", "http://www.wikidata.org/entity/Q4049983"],
        "value": count,
    }


def _data_type(field: pa.Field) -> str:
    kind = field.type
    if pa.types.is_large_binary(kind):
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"


def _accounting(layout: Layout) -> dict[str, Any]:
    """What became of every input, inline: the counts add up to all inputs seen."""
    with connect(layout) as connection:
        counts = connection.execute("SELECT stage, reason, records FROM funnel").fetchall()
    if not any(stage == "keep" for stage, _, _ in counts):
        counts.append(("keep", "kept", 0))
    types = {"stage": "sc:Text", "reason": "sc:Text", "records": "sc:Integer"}
    return {
        "@type": "cr:RecordSet",
        "@id": "accounting",
        "name": "accounting",
        "description": "What became of every input, by stage and reason; adds up to all inputs.",
        "key": [{"@id": "accounting/stage"}, {"@id": "accounting/reason"}],
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"accounting/{name}",
                "name": name,
                "description": COLUMNS[name],
                "dataType": kind,
            }
            for name, kind in types.items()
        ],
        "data": [
            {f"accounting/{name}": value for name, value in zip(types, row, strict=True)}
            for row in counts
        ],
    }


def _source(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The raw collection as a PROV entity.

    A folder of the machine that ran means nothing elsewhere, and the same data curated from a copy
    has the same metadata: only an address with a scheme is told, without its password.
    """
    source = recipe["source"]
    name = str(source.get("name") or recipe["name"])
    entity = {"@id": f"source/{quote(name, safe='')}", "@type": "prov:Entity", "name": name}
    uri = str(source["uri"])
    if "://" in uri and not uri.startswith("file://"):
        entity["prov:atLocation"] = without_password(uri)
    return entity


def without_password(uri: str) -> str:
    """The address without the user and password that may stand before its host."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _activities(layout: Layout, source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a PROV activity per stage, in the order in which they ran."""
    made: dict[str, list[tuple[Origin, str, str]]] = {}
    for manifest in layout.manifests():
        made.setdefault(manifest.origin.stage, []).append(
            (manifest.origin, manifest.table, manifest.content_sha256)
        )
    for name, folder in layout.folders.items():
        listed = read_file_list(folder)
        if listed is not None:
            made.setdefault(listed.origin.stage, []).append(
                (listed.origin, f"{name} files", _content(listed))
            )
    agent = {
        "@id": f"software/shardwright-{shardwright.__version__}",
        "@type": "prov:SoftwareAgent",
        "name": f"shardwright {shardwright.__version__}",
    }
    for place, (stage, outputs) in enumerate(sorted(made.items(), key=_stage_order)):
        own = {name for _, name, _ in outputs}
        used = {
            (table, sha256)
            for origin, _, _ in outputs
            for table, sha256 in origin.inputs.items()
            if table not in own
        }
        entities = [_entity(table, sha256) for table, sha256 in sorted(used)]
        yield {
            "@id": f"activity/{stage}",
            "@type": "prov:Activity",
            "name": stage,
            "prov:startedAtTime": _time(min(origin.started for origin, _, _ in outputs)),
            "prov:endedAtTime": _time(max(origin.ended for origin, _, _ in outputs)),
            "prov:wasAssociatedWith": agent if place == 0 else {"@id": agent["@id"]},
            "prov:used": entities if used else [source],
            "prov:generated": [_entity(name, sha256) for _, name, sha256 in outputs],
            "shardwright:version": outputs[0][0].version,
            "shardwright:parameters": canonical_json(
                {name: origin.parameters for origin, name, _ in outputs if origin.parameters}
            ),
        }


def _stage_order(item: tuple[str, Any]) -> tuple[int, str]:
    stage = item[0]
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def _entity(name: str, sha256: str) -> dict[str, Any]:
    return {
        "@id": f"entity/{quote(name)}/{sha256}",
        "@type": "prov:Entity",
        "name": name,
        "sha256": sha256,
    }


def _content(listed: FileList) -> str:
    """Hash over the paths and hashes of a folder's files."""
    content = hashlib.sha256()
    for file in listed.files:
        content.update(f"{file.path} {file.sha256}\n".encode())
    return content.hexdigest()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
