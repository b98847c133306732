"""A dataset that Croissant metadata describe: rows of its tables, or its files, as inputs.

A file whose bytes are not those of the hash in the document is refused whole, and so is one that
the document lists and that is not there.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from shardwright.errors import UserError
from shardwright.pipelines.sections import Source as Settings
from shardwright.pipelines.sources.archive import ArchiveSource
from shardwright.pipelines.sources.croissant_checksums import (
    checksum_of,
    with_checksum,
    wrong_bytes,
    wrong_file,
)
from shardwright.pipelines.sources.croissant_csv import CsvRows
from shardwright.pipelines.sources.croissant_document import read_document
from shardwright.pipelines.sources.croissant_fields import Reading, read_how
from shardwright.pipelines.sources.croissant_files import Files
from shardwright.pipelines.sources.files import FilesSource
from shardwright.pipelines.sources.jsonl import JsonlSource
from shardwright.pipelines.sources.listing import count_inputs, first_inputs
from shardwright.pipelines.sources.names import Globs
from shardwright.pipelines.sources.parquet import ParquetSource
from shardwright.pipelines.sources.types import Input, Refusal, Unit

_Reader: TypeAlias = ParquetSource | JsonlSource | CsvRows | FilesSource | ArchiveSource


@dataclass(frozen=True)
class CroissantSource:
    """The record set of a Croissant that a recipe reads.

    Attributes:
        uri: The document.
        mapping: Where files or folders lie that the document names otherwise, by id.
        globs: Which files are wanted, or which members of archives.
        max_bytes: Most bytes of an input.
        reading: How files become inputs.
        format: ``parquet``, ``csv``, ``tsv``, ``jsonl``, ``files`` or ``archive``.
        members: Which members of an archive the document means.
    """

    uri: str
    mapping: dict[str, str]
    globs: Globs
    max_bytes: int
    reading: Reading
    format: str
    members: Globs | None

    def units(self, limit: int | None) -> Iterator[Unit]:
        """Lists row groups of Parquet files, and files of all other formats."""
        if limit is None or self.format in ("files", "parquet"):
            return first_inputs(self._units(), limit)
        return count_inputs(self._units(), limit, self)

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every input of the files whose bytes are as they should be."""
        reader = self._reader()
        for _, group in itertools.groupby(units, lambda unit: unit.location):
            yield from self._read(reader, list(group))

    def _read(self, reader: _Reader, units: list[Unit]) -> Iterator[Input | Refusal]:
        first = units[0]
        absent = first.problem is not None and first.problem[0] == "missing_file"
        checksum = checksum_of(first)
        if checksum is not None and self.format != "files" and not absent:
            wrong = wrong_file(units, _file(first))
            if wrong is not None:
                if first.first == 0:  # one row stands for the file, in whichever part it begins
                    yield wrong
                return
        if first.problem is not None:
            yield Refusal(first.path, *first.problem)
            return
        if first.take == 0:
            return
        for item in reader.read(units):
            file = item.path.rpartition("#")[0] if self._is_table else item.path
            file = file.partition("!")[2] if self.format == "archive" else file
            if self.format == "archive" and file and not self.globs.wants(file):
                continue
            if isinstance(item, Refusal):
                yield item
                continue
            if checksum is not None and self.format == "files":
                wrong = wrong_bytes(item.data, item.path, checksum)
                if wrong is not None:
                    yield wrong
                    continue
            yield self.reading.finished(item, file)

    @property
    def _is_table(self) -> bool:
        return self.format not in ("files", "archive")

    def _reader(self) -> _Reader:
        everything = Globs()
        columns = self.reading.columns
        if self.format == "parquet":
            return ParquetSource(self.uri, everything, columns)
        if self.format == "jsonl":
            return JsonlSource(self.uri, everything, columns, self.max_bytes)
        if self.format == "archive":
            return ArchiveSource(self.uri, self.members or everything, self.max_bytes, False)
        if self.format == "files":
            return FilesSource(self.uri, everything, self.max_bytes, False)
        return CsvRows(columns, self.max_bytes, "\t" if self.format == "tsv" else ",")

    def _units(self) -> Iterator[Unit]:
        document = read_document(self.uri)
        files = Files(document, document.files[self.reading.resource], self.mapping)
        table = ParquetSource(self.uri, Globs(), self.reading.columns)
        how = self.reading.digest()
        for file, checksum in files.units():
            if self.format != "archive" and not self.globs.wants(file.path):
                continue
            state = with_checksum(f"{how} {file.state}", checksum)
            unit = replace(file, state=state)
            if self.format != "parquet":
                yield unit
                continue
            groups = table.row_groups(unit)
            group = next(groups, None)
            # what has lost all its rows is told by its hash
            yield replace(unit, take=0) if group is None else group
            yield from groups


def open_croissant(settings: Settings, max_bytes: int, modality: str) -> CroissantSource:
    """The source that a recipe's ``source`` describes.

    Raises:
        UserError: The document, the record set, a field or a format cannot be read.
    """
    document = read_document(settings.uri)
    reading = read_how(document, settings.record_set, settings.columns, settings.keep, modality)
    node = document.files.get(reading.resource)
    if node is None:
        raise UserError(f"source: the document has no file or file set {reading.resource!r}")
    files = Files(document, node, settings.mapping)
    members = files.members
    if members is not None and not reading.whole:
        raise UserError(
            f"source: {node.id!r} is a table in an archive, which is not read; unpack it and name "
            f"the folder: source.mapping: {{{node.containers[0]}: ./folder}}"
        )
    whole = "files" if members is None else "archive"
    return CroissantSource(
        settings.uri,
        dict(settings.mapping),
        Globs(settings.include, settings.exclude),
        max_bytes,
        reading,
        whole if reading.whole else files.format,
        members,
    )


def _file(unit: Unit) -> str:
    """Path of a unit's file."""
    return unit.path.rpartition("#")[0] if unit.take and "#group-" in unit.path else unit.path
