"""Rows of Parquet files: one row is one input, named ``file.parquet#row`` (counted from 0)."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.pipelines.sources.columns import Columns, MissingColumnError
from shardwright.pipelines.sources.listing import first_inputs, list_suffixed
from shardwright.pipelines.sources.names import Globs
from shardwright.pipelines.sources.storage import IsNoFileError, explain, open_file
from shardwright.pipelines.sources.types import Input, Refusal, Unit

SUFFIXES = (".parquet", ".pq")
_BATCH_BYTES = 8_000_000
_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass(frozen=True)
class ParquetSource:
    """Rows of a Parquet file, or of all Parquet files of a folder or a glob.

    A unit is a row group, so that a large file becomes many.

    Attributes:
        uri: A folder, a file or a glob.
        globs: Which files are wanted.
        columns: Which columns are wanted; no others are read.
    """

    uri: str
    globs: Globs
    columns: Columns

    def units(self, limit: int | None) -> Iterator[Unit]:
        """Lists the row groups; their rows are counted from the files' footers."""
        return first_inputs(self._row_groups(), limit)

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every row, a file opened once for units that follow each other."""
        for location, group in itertools.groupby(units, lambda unit: unit.location):
            of_file = list(group)
            path = of_file[0].path
            if of_file[0].problem is not None:
                yield Refusal(path, *of_file[0].problem)
                continue
            table: _Table | Refusal
            try:
                with open_file(location) as file:
                    table = _open(file, path, self.columns)
                    if isinstance(table, Refusal):
                        yield table
                        continue
                    for unit in of_file:
                        yield from _rows(table, unit, self.columns)
            except IsNoFileError as error:
                yield Refusal(path, "not_regular_file", str(error))
            except OSError as error:
                yield Refusal(path, "unreadable", explain(error))

    def _row_groups(self) -> Iterator[Unit]:
        for unit in list_suffixed(self.uri, self.globs, SUFFIXES):
            yield from self.row_groups(unit)

    def row_groups(self, unit: Unit) -> Iterator[Unit]:
        """The row groups of a listed file, or the file with its problem."""
        if unit.problem is not None:
            yield unit
            return
        table: _Table | Refusal
        try:
            with open_file(unit.location) as file:
                table = _open(file, unit.path, self.columns)
        except IsNoFileError as error:
            table = Refusal(unit.path, "not_regular_file", str(error))
        except OSError as error:
            table = Refusal(unit.path, "unreadable", explain(error))
        if isinstance(table, Refusal):
            yield replace(unit, problem=(table.reason, table.message))
            return
        for first, (index, rows, size) in table.groups.items():
            yield Unit(
                f"{unit.path}#group-{index:05d}",
                unit.location,
                size,
                f"{unit.state}:{index}",
                first=first,
                take=rows,
            )


@dataclass(frozen=True)
class _Table:
    """An open file.

    Attributes:
        file: Its reader.
        found: Input column by record column.
        groups: Index, rows and uncompressed bytes of every row group that has rows, by first row.
        label_names: Names of the classes that the label column counts, as ``datasets`` notes them.
    """

    file: pq.ParquetFile
    found: dict[str, str]
    groups: dict[int, tuple[int, int, int]]
    label_names: tuple[str, ...]


def _open(file: BinaryIO, path: str, columns: Columns) -> _Table | Refusal:
    try:
        reader = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES)
        schema = reader.schema_arrow
        found = columns.resolve(schema.names)
        _check_type(schema.field(found[columns.payload]), columns.modality)
        groups: dict[int, tuple[int, int, int]] = {}
        first = 0
        for index in range(reader.metadata.num_row_groups):
            group = reader.metadata.row_group(index)
            if group.num_rows > 0:
                groups[first] = (index, group.num_rows, max(group.total_byte_size, 0))
                first += group.num_rows
        if first != reader.metadata.num_rows:
            message = f"the footer says {reader.metadata.num_rows:,} rows, its row groups {first:,}"
            return Refusal(path, "unreadable_table", message)
        return _Table(reader, found, groups, _label_names(schema, found.get("label")))
    except MissingColumnError as error:
        return Refusal(path, "schema_mismatch", str(error))
    except _BROKEN as error:
        return Refusal(path, "unreadable_table", explain(error))


def _check_type(field: pa.Field, modality: str) -> None:
    """Raises ``MissingColumnError`` where a column cannot hold the payload."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if modality == "image" and pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else kind
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (binary or (text and modality == "code")):
        wanted = "text or binary" if modality == "code" else "binary, or a struct with bytes"
        raise MissingColumnError(f"column {field.name!r} is {field.type}; it must be {wanted}")


def _label_names(schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in noted["info"]["features"][label]["names"])
    except (KeyError, ValueError, TypeError):
        return ()


def _rows(table: _Table, unit: Unit, columns: Columns) -> Iterator[Input | Refusal]:
    """The rows of one row group, a bounded batch of them in memory at a time."""
    group = table.groups.get(unit.first)
    if group is None or unit.take is None:
        yield Refusal(unit.path, "unreadable_table", "the file has changed since it was listed")
        return
    index, rows, size = group
    batch_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(size, 1)))
    file_path = unit.path.rpartition("#")[0]
    payload = table.found[columns.payload]
    named = dict.fromkeys([*table.found.values(), *columns.keep])
    facts = [name for name in named if name != payload or name in columns.keep]
    is_struct = pa.types.is_struct(table.file.schema_arrow.field(payload).type)
    wanted = [*facts, f"{payload}.bytes" if is_struct else payload]
    row = unit.first
    end = unit.first + min(rows, unit.take)
    try:
        for batch in table.file.iter_batches(batch_rows, row_groups=[index], columns=wanted):
            contents = _binary(batch.column(payload)).to_pylist()
            values = [_values(batch.column(name)) for name in facts]
            for i, content in enumerate(contents[: end - row]):
                path = f"{file_path}#{row}"
                row += 1
                if content is None:
                    yield Refusal(path, "missing_content", "the content is null")
                    continue
                of_row = {name: column[i] for name, column in zip(facts, values, strict=True)}
                fields, attributes = columns.facts(table.found, of_row)
                if table.label_names:
                    fields["label"] = _label(fields.get("label"), table.label_names)
                yield Input(path, content, **fields, attributes=attributes)
            if row == end:
                return
        problem = "fewer rows than the footer says"
    except _BROKEN as error:
        problem = explain(error)
    yield Refusal(unit.path, "unreadable_table", f"rows {row:,} to {end - 1:,} are lost: {problem}")


def _label(label: str | None, names: tuple[str, ...]) -> str | None:
    number = int(label) if label is not None and re.fullmatch(r"[0-9]{1,9}", label) else len(names)
    return names[number] if number < len(names) else label


def _binary(column: pa.Array) -> pa.Array:
    """A payload column as bytes."""
    if pa.types.is_struct(column.type):
        column = column.flatten()[column.type.get_field_index("bytes")]  # keeps null structs null
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary(), safe=False)


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values; text as bytes, since nobody has checked that it is UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    return values
