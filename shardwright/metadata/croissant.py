"""Croissant metadata of a curation, 1.1 or 1.0: files with hashes, record sets, lineage.

The JSON-LD is built as plain values from the manifests, the recipe and the tables. It is the same
for the same tables but for the times that the manifests hold.

There are two forms. Beside the data files are named by paths relative to ``croissant.json``, and it
is read by its path. Where the data is published in a git repository (as on Hugging Face), its files
are contained in the repository; that form is read from anywhere, and with a mapping of the
repository to a local copy.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shardwright.metadata.catalog import connect
from shardwright.metadata.croissant_sets import (
    SEAL,
    accounting,
    distribution,
    readable,
    splits,
    stages,
    table_set,
)
from shardwright.metadata.files import HashedFile, fingerprint
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.provenance import activities, source, time_text
from shardwright.metadata.responsible import RAI, responsible

CROISSANT = "http://mlcommons.org/croissant/"
# SPDX's own way to say that nothing is stated.
UNKNOWN_LICENSE = "http://spdx.org/rdf/terms#noassertion"

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
# What only 1.1 knows: a reader of 1.0 takes these words for schema.org's, or for nothing.
_SINCE_1_1 = ("annotation", "arrayShape", "containedIn", "isArray", "value")


def write_croissant(layout: Layout, recipe: Mapping[str, Any]) -> None:
    """Writes ``croissant.json``, whose presence says that the curation is complete.

    With ``about.publish_as`` the form for that repository is written first, beside it.

    Raises:
        UserError: The tables are not all there yet.
    """
    published = layout.published
    published.unlink(missing_ok=True)
    metadata = croissant(layout, recipe)
    address = _about(recipe).get("publish_as")
    if address:
        _write(published, metadata | {"distribution": list(distribution(layout, str(address)))})
    _write(layout.croissant, metadata)


def _write(path: Path, metadata: dict[str, Any]) -> None:
    """Writes a document with a hash over all else in it: a changed byte is found."""
    encoder = json.JSONEncoder(indent=1, ensure_ascii=True, allow_nan=False)
    with HashedFile(path) as file:
        for chunk in encoder.iterencode(metadata | {SEAL: fingerprint(**metadata)}):
            file.write(chunk.encode())
        file.write(b"\n")


def croissant(
    layout: Layout, recipe: Mapping[str, Any], *, repository: str | None = None
) -> dict[str, Any]:
    """The metadata of a curation as JSON-LD.

    Args:
        layout: The output folder.
        recipe: The resolved recipe. What its ``about`` states stands as stated; the rest is
            measured, and licence and creators are those of a source that is a Croissant.
            ``about.croissant`` chooses the version, 1.1 unless it says 1.0.
        repository: Address of the git repository that holds the files of the folder under the
            same paths. None: the form for data beside ``croissant.json``.

    Raises:
        UserError: The tables are not all there yet.
        DataError: A manifest is damaged, or the Croissant that was ingested.
    """
    records, rejects = layout.need("records", "ingest"), layout.need("rejects", "ingest")
    layout.need("decisions", "prune")
    curated = layout.need("curated", "shard")
    about = _about(recipe)
    version = str(about.get("croissant") or "1.1")
    tables = readable(layout)
    with connect(layout) as connection:
        connection.execute("SET threads = 1")  # sums come out the same, whatever the machine
        sets = [
            *(table_set(connection, table, annotated=version == "1.1") for table in tables),
            *splits(connection),
            accounting(connection),
            stages(layout, connection),
        ]
        duties = responsible(layout, connection, about)
    name = str(recipe["name"])
    published = time_text(curated.origin.ended)[:10]
    release = str(about.get("version") or unstated_version(tables))
    seen = records.rows + rejects.rows
    measured = (
        f"{name}: {curated.rows} {recipe['modality']} records for training, curated by Shardwright "
        f"from {seen} inputs: {rejects.rows} refused, {records.rows - curated.rows} dropped, "
        f"{curated.rows} kept. The record set 'decisions' says of every record why."
    )
    given = source(layout, recipe)
    metadata = {
        "@context": {
            term: meaning
            for term, meaning in _CONTEXT.items()
            if version == "1.1" or term not in _SINCE_1_1
        },
        "@type": "sc:Dataset",
        "conformsTo": [f"{CROISSANT}{version}", RAI],
        "name": name,
        "description": str(about.get("description") or measured),
        "license": about.get("license") or given.get("license") or UNKNOWN_LICENSE,
        "url": str(
            about.get("url")
            or repository
            or about.get("publish_as")
            or f"urn:sha256:{curated.content_sha256}"
        ),
        "creator": [_agent("creator", one) for one in about.get("creators") or ()]
        or given.get("creator")
        or [_agent("creator", {})],
        "datePublished": published,
        "version": release,
        "keywords": list(about.get("keywords") or ["training data", str(recipe["modality"])]),
        "citeAs": str(
            about.get("citation")
            or f"{name}, version {release}, {published}. Curated by Shardwright."
            + (f" Source: {given['citeAs']}" if "citeAs" in given else "")
        ),
        "isLiveDataset": False,
        **duties,
        "distribution": list(distribution(layout, repository)),
        "recordSet": sets,
        "prov:wasDerivedFrom": given,
        "prov:wasGeneratedBy": list(activities(layout, given)),
    }
    if about.get("publisher"):
        metadata["publisher"] = _agent("publisher", about["publisher"])
    return metadata


def unstated_version(tables: Iterable[Manifest]) -> str:
    """0.0.N, with N from the hashes of the record sets, so that other content has another.

    TFDS takes three numbers and nothing behind them, and where name and version are the same it
    gives the data that it prepared before. Major version 0 promises nothing.
    """
    content = fingerprint(tables={table.table: table.content_sha256 for table in tables})
    return f"0.0.{int(content[:8], 16)}"


def _about(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    return recipe.get("about") or {}


def _agent(role: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """A person or organization; without a name one of which nothing is stated."""
    name = str(stated.get("name") or "not stated")
    kind = "sc:Person" if stated.get("type") == "person" else "sc:Organization"
    agent = {"@type": kind, "@id": f"{role}/{quote(name, safe='')}", "name": name}
    return agent | {key: stated[key] for key in ("url", "email") if stated.get(key)}
