"""JSON lines: one line is one input, named ``file.jsonl#line`` (counted from 0)."""

import base64
import binascii
import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from shardwright.pipelines.sources.columns import Columns, MissingColumnError
from shardwright.pipelines.sources.listing import count_inputs, list_suffixed
from shardwright.pipelines.sources.members import CORRUPTION
from shardwright.pipelines.sources.names import Globs
from shardwright.pipelines.sources.storage import IsNoFileError, explain, open_file
from shardwright.pipelines.sources.types import Input, Refusal, Unit

_PLAIN = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*_PLAIN, *(f"{suffix}.gz" for suffix in _PLAIN))
_CHUNK = 1 << 16


@dataclass(frozen=True)
class JsonlSource:
    """Lines of JSON files, gzip-compressed or not.

    Unlike a table's columns a line's keys may be absent: only the content must be there.

    Attributes:
        uri: A folder, a file or a glob.
        globs: Which files are wanted.
        columns: Which keys are wanted.
        max_bytes: Most bytes of an input; a line may hold four times as many, and some.
    """

    uri: str
    globs: Globs
    columns: Columns
    max_bytes: int

    def units(self, limit: int | None) -> Iterator[Unit]:
        """Lists the files; with a limit their lines are counted by reading them."""
        files = list_suffixed(self.uri, self.globs, SUFFIXES)
        return files if limit is None else count_inputs(files, limit, self)

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every line that is not blank."""
        for unit in units:
            yield from itertools.islice(self._read(unit), unit.take)

    def _read(self, unit: Unit) -> Iterator[Input | Refusal]:
        if unit.problem is not None:
            yield Refusal(unit.path, *unit.problem)
            return
        try:
            with open_file(unit.location) as file:
                for row, line in enumerate(_lines(file, 4 * self.max_bytes + _CHUNK)):
                    path = f"{unit.path}#{row}"
                    if line is None:
                        yield Refusal(path, "too_large", "the line is longer than any that fits")
                    elif not line.isspace():
                        yield self._input(path, line)
        except IsNoFileError as error:
            yield Refusal(unit.path, "not_regular_file", str(error))
        except CORRUPTION as error:
            yield Refusal(unit.path, "unreadable_table", explain(error))

    def _input(self, path: str, line: bytes) -> Input | Refusal:
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            return Refusal(path, "invalid_json", explain(error))
        if not isinstance(row, dict):
            return Refusal(path, "invalid_json", f"a {type(row).__name__}, and no object")
        mapped = {*self.columns.mapped.values(), *self.columns.keep}
        content = self.columns.mapped.get(self.columns.payload)
        try:
            found = self.columns.resolve(row.keys() | (mapped - {content}))
        except MissingColumnError as error:
            return Refusal(path, "schema_mismatch", str(error))
        data = _content(path, row[found[self.columns.payload]], self.columns.modality)
        if isinstance(data, Refusal):
            return data
        try:
            fields, attributes = self.columns.facts(found, row)
        except RecursionError as error:
            return Refusal(path, "invalid_json", explain(error))
        return Input(path, data, **fields, attributes=attributes)


def _content(path: str, value: Any, modality: str) -> bytes | Refusal:
    if modality == "image" and isinstance(value, dict) and "bytes" in value:
        value = value["bytes"]
    if value is None:
        return Refusal(path, "missing_content", "the content is null")
    if not isinstance(value, str):
        return Refusal(path, "schema_mismatch", f"the content is a {type(value).__name__}")
    if modality == "code":
        return value.encode("utf-8", "surrogatepass")
    try:
        if value.startswith("data:"):
            value = value.partition(",")[2]
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        return Refusal(path, "invalid_base64", explain(error))


def _lines(file: BinaryIO, most: int) -> Iterator[bytes | None]:
    """Yields lines; None for one with more than ``most`` bytes, which is skipped unheld."""
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
    while line := stream.readline(most + 1):
        if len(line) <= most or line.endswith(b"\n"):
            yield line
            continue
        while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
            pass
        yield None
