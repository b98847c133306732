"""Croissant metadata as values: the files, and the record sets with their fields.

Reads the JSON-LD of Croissant 1.0 and 1.1 as it is written in practice: terms with or without a
prefix, one value or a list, a node by its ``@id`` or whole.
"""

import base64
import binascii
import json
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardwright.errors import UserError
from shardwright.metadata.credentials import without_credentials
from shardwright.metadata.provenance import LOCATION
from shardwright.metadata.vocabulary import PREFIXES, bare
from shardwright.pipelines.sources.storage import (
    IsNoFileError,
    explain,
    is_remote,
    local_path,
    open_file,
)

VERSIONS = ("http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/1.1")
_DOCUMENT = "croissant.json"
# A listing of a million files takes about 300 MB.
_MOST_BYTES = 500_000_000
_DEEPEST = 100
_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class FileNode:
    """A ``FileObject``, or a ``FileSet`` where it has ``includes``.

    Attributes:
        id: Its ``@id``.
        url: ``contentUrl`` of a FileObject.
        formats: Its encoding formats.
        checksum: ``sha256:`` or ``md5:`` and what the document gives, as hex where it is a hash.
        containers: Ids of what it is contained in.
        includes: Patterns of a FileSet, or None.
        excludes: Patterns of a FileSet.
    """

    id: str
    url: str
    formats: tuple[str, ...]
    checksum: str | None
    containers: tuple[str, ...]
    includes: tuple[str, ...] | None
    excludes: tuple[str, ...]


@dataclass(frozen=True)
class FieldNode:
    """A field of a record set, and where its values come from.

    Attributes:
        name: Its name within the record set.
        types: Its data types.
        resource: Id of the file or file set that it is read from, or None.
        extract: ``column``, ``jsonPath`` or ``fileProperty``, and its value; or None.
        transforms: What is done to the value, each as name and value.
        value: The constant value of all records, or None.
    """

    name: str
    types: tuple[str, ...]
    resource: str | None
    extract: tuple[str, str] | None
    transforms: tuple[tuple[str, str], ...]
    value: str | None


@dataclass(frozen=True)
class RecordSetNode:
    """A record set that is read from files; those with inline data have no fields here."""

    id: str
    name: str
    types: tuple[str, ...]
    inline: bool
    fields: tuple[FieldNode, ...]


@dataclass(frozen=True)
class Document:
    """A Croissant document.

    Attributes:
        location: Where it was read from.
        content: The JSON-LD.
        files: FileObjects and FileSets by id.
        record_sets: In the document's order.
    """

    location: str
    content: dict[str, Any]
    files: dict[str, FileNode]
    record_sets: tuple[RecordSetNode, ...]

    @property
    def folder(self) -> str:
        """The folder that relative names count from."""
        return self.location.rpartition("/")[0] or "/"


def read_document(uri: str) -> Document:
    """Reads a Croissant document.

    Args:
        uri: The JSON file, or a local folder that holds ``croissant.json``.

    Raises:
        UserError: It cannot be read, or is no Croissant 1.0 or 1.1.
    """
    location = uri
    try:
        if not is_remote(uri) or uri.startswith("file://"):
            path = Path(local_path(uri)).resolve()
            location = str(path / _DOCUMENT if path.is_dir() else path)
        with open_file(location) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"holds more than {_MOST_BYTES:,} bytes")
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("is no JSON object")
        _check_values(content)
    except (IsNoFileError, OSError, ValueError, RecursionError, ImportError) as error:
        address = shown_address(uri)
        problem = explain(error).replace(uri, address)
        raise UserError(f"source.uri {address!r}: {problem}; name a croissant.json") from None
    stated = [" ".join(_text(item).split())[:200] for item in _values(content, "conformsTo")]
    if not any(version in stated for version in VERSIONS):
        raise UserError(
            f"source.uri {shown_address(uri)!r}: conformsTo is {', '.join(stated) or 'not there'}; "
            f"what is read are {' and '.join(VERSIONS)}"
        )
    files = {node.id: node for node in map(_file, _nodes(content, "distribution"))}
    raw = [item for item in _values(content, "recordSet") if isinstance(item, dict)]
    fields = {_identity(field): field for item in raw for field in _nodes(item, "field") if field}
    return Document(location, content, files, tuple(_record_set(item, fields) for item in raw))


def lineage_document(uri: str) -> str:
    """The document as it is kept for lineage: a copy, with its address under ``LOCATION``."""
    document = read_document(uri)
    location = shown_address(document.location)
    kept = {term: _kept(value) for term, value in document.content.items()}
    kept[LOCATION] = location
    return json.dumps(kept, indent=1, ensure_ascii=True) + "\n"


def _kept(value: Any) -> Any:
    """A value of the document, whose files' addresses are told without credentials."""
    if isinstance(value, list):
        return [_kept(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        term: without_credentials(one)
        if bare(term) == "contentUrl" and isinstance(one, str)
        else one
        for term, one in value.items()
    }


def shown_address(uri: str) -> str:
    """An address without user, password and query, which may hold a signature."""
    if not is_remote(uri):
        return uri
    return re.sub(r"(?<=://)[^/]*@", "", re.split(r"[?#]", uri, maxsplit=1)[0])


def _check_values(content: Any) -> None:
    """Raises ``ValueError`` for what is nested deeper than any Croissant, and for half characters.

    JSON can spell the latter, and nothing can write them.
    """
    level = [content]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii():
                value.encode()
        level = below
    if level:
        raise ValueError(f"values in more than {_DEEPEST} others")


def below(name: str) -> str | None:
    """A relative name in its shortest form; None for one that leads out of its folder.

    None too for what is no name of a file anywhere: with a NUL, or a surrogate that JSON spells.
    """
    try:
        path = posixpath.normpath(name)
        if b"\0" in os.fsencode(path):
            return None
    except UnicodeEncodeError:
        return None
    if not name or is_remote(name) or path.startswith(("/", "../")) or path in ("..", "."):
        return None
    return path


def _file(node: dict[str, Any]) -> FileNode:
    kinds = [bare(str(item)) for item in _listed(node.get("@type"))]
    is_set = "FileSet" in kinds or bool(_values(node, "includes"))
    checksum = None
    for algorithm in ("sha256", "md5"):
        stated = _first(node, algorithm)
        if stated is not None and checksum is None:
            checksum = f"{algorithm}:{_hex(stated.strip(), _DIGITS[algorithm])}"
    return FileNode(
        _identity(node),
        _first(node, "contentUrl") or "",
        tuple(_text(item).lower() for item in _values(node, "encodingFormat")),
        checksum,
        tuple(_reference(item) for item in _values(node, "containedIn")),
        tuple(_text(item) for item in _values(node, "includes")) if is_set else None,
        tuple(_text(item) for item in _values(node, "excludes")),
    )


def _hex(stated: str, digits: int) -> str:
    """A hash as hex; some producers write base64. What is no hash stays as it is, and fits none."""
    if re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", stated):
        return stated.lower()
    try:
        raw = base64.b64decode(stated, validate=True)
    except (binascii.Error, ValueError):
        return re.sub(r"\s", "", stated)
    return raw.hex() if len(raw) * 2 == digits else re.sub(r"\s", "", stated)


def _record_set(node: dict[str, Any], fields: dict[str, dict[str, Any]]) -> RecordSetNode:
    return RecordSetNode(
        _identity(node),
        _first(node, "name") or _identity(node),
        _types(node),
        bool(_values(node, "data")),
        tuple(_field(item, fields) for item in _nodes(node, "field")),
    )


def _field(node: dict[str, Any], fields: dict[str, dict[str, Any]]) -> FieldNode:
    name = _first(node, "name") or _identity(node).rpartition("/")[2]
    seen = {_identity(node)}
    origin = node
    while True:
        source = next((item for item in _values(origin, "source")), None)
        if not isinstance(source, dict):
            source = {"@id": source} if source else {}
        other = _text(source.get("@id")) if "@id" in source else ""
        if other in seen or other not in fields:  # a field of another record set is followed
            break
        seen.add(other)
        origin = fields[other]
    resource = None
    for kind in ("fileObject", "fileSet"):
        for item in _values(source, kind):
            resource = resource or _reference(item)
    extract = None
    for item in _values(source, "extract"):
        for key in ("column", "jsonPath", "fileProperty"):
            stated = _first(item, key) if isinstance(item, dict) else None
            if stated is not None and extract is None:
                extract = (key, stated)
    transforms = tuple(
        (bare(key), _text(value))
        for item in _values(source, "transform")
        if isinstance(item, dict)
        for key, value in item.items()
        if not key.startswith("@")
    )
    constant = _first(node, "value") if not _values(node, "source") else None
    return FieldNode(name, _types(node), resource, extract, transforms, constant)


def _types(node: dict[str, Any]) -> tuple[str, ...]:
    return tuple(bare(_reference(item)) for item in _values(node, "dataType"))


def _identity(node: dict[str, Any]) -> str:
    return _text(node.get("@id")) if "@id" in node else _first(node, "name") or ""


def _nodes(node: dict[str, Any], term: str) -> Iterator[dict[str, Any]]:
    return (item for item in _values(node, term) if isinstance(item, dict))


def _values(node: dict[str, Any], term: str) -> list[Any]:
    """All values of a term, under whatever prefix."""
    found: list[Any] = []
    for prefix in ("", *PREFIXES):
        found += _listed(node.get(prefix + term))
    return found


def _first(node: dict[str, Any], term: str) -> str | None:
    values = _values(node, term)
    return _text(values[0]) if values else None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _reference(value: Any) -> str:
    return _identity(value) if isinstance(value, dict) else _text(value)


def _text(value: Any) -> str:
    """A value as text; of one in several languages the first."""
    if isinstance(value, dict):
        if "@value" in value or "@id" in value:
            return _text(value.get("@value", value.get("@id")))
        return _text(next(iter(value.values()), ""))
    if isinstance(value, list):
        return _text(value[0]) if value else ""
    return "" if value is None else str(value)
