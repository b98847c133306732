"""CSV and TSV with a row of names: one row is one input, named ``file.csv#row`` (from 0)."""

import base64
import binascii
import csv
import gzip
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from shardwright.pipelines.sources.columns import Columns, MissingColumnError
from shardwright.pipelines.sources.members import CORRUPTION
from shardwright.pipelines.sources.storage import IsNoFileError, explain, open_file
from shardwright.pipelines.sources.types import Input, Refusal, Unit

_SLACK = 1 << 16


@dataclass(frozen=True)
class CsvRows:
    """Rows of CSV files, gzip-compressed or not, as RFC 4180 has them.

    Attributes:
        columns: Which columns are wanted.
        max_bytes: Most bytes of an input; a line may hold four times as many, and some.
        delimiter: What stands between cells.
    """

    columns: Columns
    max_bytes: int
    delimiter: str

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every row; what is lost of a broken file is one refusal."""
        for unit in units:
            yield from itertools.islice(self._read(unit), unit.take)

    def _read(self, unit: Unit) -> Iterator[Input | Refusal]:
        most = 4 * self.max_bytes + _SLACK
        csv.field_size_limit(max(csv.field_size_limit(), most))  # the process has one for all
        row = 0
        try:
            with open_file(unit.location) as file:
                rows = csv.reader(_lines(file, most), delimiter=self.delimiter, strict=True)
                header = next(rows, [])
                found = self.columns.resolve(header)
                for cells in rows:
                    if cells:
                        yield self._input(f"{unit.path}#{row}", header, found, cells)
                        row += 1
        except MissingColumnError as error:
            yield Refusal(unit.path, "schema_mismatch", str(error))
        except IsNoFileError as error:
            yield Refusal(unit.path, "not_regular_file", str(error))
        except (csv.Error, *CORRUPTION) as error:
            message = f"all rows from {row:,} on are lost: {explain(error)}"
            yield Refusal(unit.path, "unreadable_table", message)

    def _input(
        self, path: str, header: list[str], found: dict[str, str], cells: list[str]
    ) -> Input | Refusal:
        if len(cells) != len(header):
            message = f"{len(cells)} cells, and {len(header)} names of columns"
            return Refusal(path, "schema_mismatch", message)
        named = dict(zip(header, cells, strict=True))
        content = named[found[self.columns.payload]]
        data = content.encode("utf-8", "surrogateescape")
        if self.columns.modality == "image":
            try:
                data = base64.b64decode(data.rpartition(b",")[2], validate=True)
            except (binascii.Error, ValueError) as error:
                return Refusal(path, "invalid_base64", explain(error))
        facts = {name: cell or None for name, cell in named.items()}
        fields, attributes = self.columns.facts(found, facts)
        return Input(path, data, **fields, attributes=attributes)


def _lines(file: BinaryIO, most: int) -> Iterator[str]:
    """Lines as text; bytes that are no UTF-8 are kept by surrogate escapes.

    Raises:
        ValueError: A line has more than ``most`` bytes.
    """
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
    first = True
    while line := stream.readline(most + 1):
        if len(line) > most:
            raise ValueError("a line is longer than any that fits")
        yield line.removeprefix(b"\xef\xbb\xbf" if first else b"").decode(
            "utf-8", "surrogateescape"
        )
        first = False
