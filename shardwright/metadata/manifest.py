"""Manifests: a table exists when its manifest exists, and is what its manifest says.

``_manifest.json`` holds the table's head and its parts. Above ``LEAF_PARTS`` parts it holds a
list of leaves instead, files named by their hash that list the parts one JSON object a line, so
that neither writing nor reading keeps more than one leaf in memory.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from shardwright.errors import DataError
from shardwright.metadata.files import canonical_json, write_whole

MANIFEST = "_manifest.json"
LEAF_PARTS = 4096
_FORMAT = 1


@dataclass(frozen=True)
class Part:
    """One committed part of a table.

    Attributes:
        key: Names the part; parts of different tables with one key belong together.
        file: File name in the table's folder; None when the part has no rows.
        rows: Number of rows.
        bytes: Size of the file.
        sha256: Hash of the file's bytes.
        fingerprint: Hash of everything that decided the rows.
    """

    key: str
    file: str | None
    rows: int
    bytes: int
    sha256: str
    fingerprint: str

    def named(self) -> "Part":
        """The part under its name in the table's folder, which only its key and bytes decide."""
        if self.file is None:
            return self
        return replace(self, file=f"part-{self.key}-{self.sha256[:16]}.parquet")


@dataclass(frozen=True)
class Origin:
    """Where a table came from: what ran, on what, when.

    Attributes:
        stage: The stage that wrote it.
        version: Version of the stage's code.
        parameters: The recipe's values that the stage used.
        inputs: Content hash of each table that was read.
        started: Seconds since the epoch.
        ended: Seconds since the epoch.
    """

    stage: str
    version: str
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0

    def same_work(self, other: "Origin") -> bool:
        """Whether both did the same, whenever they did it."""
        return (self.stage, self.version, self.parameters, self.inputs) == (
            other.stage,
            other.version,
            other.parameters,
            other.inputs,
        )


@dataclass(frozen=True)
class Manifest:
    """The head of a table; ``parts()`` walks its parts in order.

    Attributes:
        table: Name of the table.
        folder: Where its files lie.
        schema: Arrow schema of every part.
        origin: Where it came from.
        rows: Rows of all parts.
        bytes: Bytes of all parts.
        content_sha256: Hash over the schema and the parts' keys and hashes, without any time.
        count: Number of parts.
    """

    table: str
    folder: Path
    schema: pa.Schema
    origin: Origin
    rows: int
    bytes: int
    content_sha256: str
    count: int
    _inline: tuple[Part, ...]
    _leaves: tuple[tuple[str, str], ...]

    def parts(self) -> Iterator[Part]:
        """Yields the parts in order.

        Raises:
            DataError: A leaf of the manifest is missing or damaged.
        """
        yield from self._inline
        for name, sha256 in self._leaves:
            path = self.folder / name
            data = path.read_bytes() if path.exists() else b""
            if hashlib.sha256(data).hexdigest() != sha256:
                raise DataError(f"{path}: missing or damaged; run the curation again with --force")
            for line in data.splitlines():
                yield Part(**json.loads(line))

    def files(self) -> list[Path]:
        """Paths of the parts that have rows, or of the one that stands for an empty table."""
        return [self.folder / part.file for part in self.parts() if part.file is not None]

    def leaf_names(self) -> list[str]:
        """File names of the leaves."""
        return [name for name, _ in self._leaves]


def write_manifest(
    folder: Path, table: str, schema: pa.Schema, origin: Origin, parts: Iterable[Part]
) -> Manifest:
    """Commits a table: from here on readers see exactly these parts."""
    rows = size = count = 0
    content = hashlib.sha256(schema.to_string().encode())
    inline: tuple[Part, ...] = ()
    leaves: list[tuple[str, str]] = []
    stream = iter(parts)
    while chunk := tuple(islice(stream, LEAF_PARTS)):
        for part in chunk:
            rows, size, count = rows + part.rows, size + part.bytes, count + 1
            content.update(f"{part.key} {part.rows} {part.sha256}\n".encode())
        if count <= LEAF_PARTS:
            inline = chunk
            continue
        if inline:
            leaves.append(_write_leaf(folder, inline))
            inline = ()
        leaves.append(_write_leaf(folder, chunk))
    head = {
        "format": _FORMAT,
        "table": table,
        "rows": rows,
        "bytes": size,
        "content_sha256": content.hexdigest(),
        "count": count,
        "schema": schema.to_string().splitlines(),
        "arrow_schema": base64.b64encode(schema.serialize().to_pybytes()).decode(),
        "origin": asdict(origin),
        "parts": [asdict(part) for part in inline],
        "leaves": leaves,
    }
    write_whole(folder / MANIFEST, sealed(head))
    return Manifest(
        table,
        folder,
        schema,
        origin,
        rows,
        size,
        content.hexdigest(),
        count,
        inline,
        tuple(leaves),
    )


def sealed(head: dict[str, Any]) -> str:
    """The text of a manifest, with a hash over all else in it: a changed byte is found."""
    return json.dumps(head | {"seal": _seal(head)}, indent=1) + "\n"


def unbroken(text: bytes) -> bool:
    """Whether a manifest is as it was written.

    Raises:
        ValueError: It is no JSON.
    """
    head = json.loads(text)
    return isinstance(head, dict) and head.pop("seal", None) == _seal(head)


def _seal(head: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(head).encode()).hexdigest()


def _write_leaf(folder: Path, parts: Iterable[Part]) -> tuple[str, str]:
    data = "".join(canonical_json(asdict(part)) + "\n" for part in parts).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"_manifest-{sha256[:16]}.jsonl"
    write_whole(folder / name, data)
    return name, sha256


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a committed table, or None where there is none.

    Raises:
        DataError: The manifest is damaged or of a later format.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        head = json.loads(text)
        if head["format"] != _FORMAT:
            raise DataError(f"{path}: format {head['format']!r} is not {_FORMAT}; upgrade")
        return Manifest(
            table=head["table"],
            folder=folder,
            schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(head["arrow_schema"]))),
            origin=Origin(**head["origin"]),
            rows=head["rows"],
            bytes=head["bytes"],
            content_sha256=head["content_sha256"],
            count=head["count"],
            _inline=tuple(Part(**part) for part in head["parts"]),
            _leaves=tuple((name, sha256) for name, sha256 in head["leaves"]),
        )
    # pyarrow says OSError of a schema that is no schema; AttributeError where no object stands.
    except (ValueError, KeyError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged ({error}); run the curation again") from None
