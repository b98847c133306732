"""From a part's inputs to batches of records and rejects: every input ends in exactly one."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from shardwright.metadata import schemas
from shardwright.pipelines.sections import Limits
from shardwright.pipelines.sources.storage import too_large
from shardwright.pipelines.sources.types import Input, Refusal, Source, Unit
from shardwright.quality.faults import Fault
from shardwright.quality.images import ImageFacts
from shardwright.quality.language import detect_language
from shardwright.quality.sandbox import ImageDecoder
from shardwright.quality.text import check_text

_STAGE = "ingest"
_BATCH_BYTES = 8_000_000
_BATCH_ROWS = 1024

Row = tuple[Any, ...]


def ingest(
    source: Source,
    units: Sequence[Unit],
    *,
    source_name: str,
    modality: str,
    limits: Limits,
    decoder: ImageDecoder | None = None,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Reads a part's units into records and rejects.

    Args:
        source: Where the units come from.
        units: The part's units.
        source_name: The recipe's stable name of the source, a part of every ``record_id``.
        modality: ``code`` or ``image``.
        limits: The recipe's limits.
        decoder: A decoder to share between parts; without one a part of images starts its own.

    Yields:
        ``records`` or ``rejects``, and a batch of that table with at most 1,024 rows and, unless
        a single record is larger, 8 MB of content. Either kind comes in input order.
    """
    records = _Batch(schemas.records(modality))
    rejects = _Batch(schemas.REJECTS)
    inputs = source.read(units)
    with contextlib.ExitStack() as stack:
        if modality == "code":
            checked = _code(inputs, source_name, limits)
        else:
            if decoder is None:
                decoder = stack.enter_context(
                    ImageDecoder(limits.max_pixels, limits.decode_seconds)
                )
            checked = _images(inputs, source_name, limits, decoder)
        for item, size in checked:
            if isinstance(item, Refusal):
                if rejects.is_full(0):
                    yield "rejects", rejects.take()
                rejects.add((source_name, item.path, _STAGE, item.reason, item.message), 0)
            else:
                if records.is_full(size):
                    yield "records", records.take()
                records.add(item, size)
    if records.rows:
        yield "records", records.take()
    if rejects.rows:
        yield "rejects", rejects.take()


def _code(
    inputs: Iterator[Input | Refusal], source_name: str, limits: Limits
) -> Iterator[tuple[Row | Refusal, int]]:
    """Rows of code, or what is wrong with it; and the bytes of a row's content."""
    for item in inputs:
        if isinstance(item, Refusal):
            yield item, 0
            continue
        data = item.data
        text = check_text(data, limits.max_bytes)
        if isinstance(text, Fault):
            yield Refusal(item.path, text.reason, text.message), 0
            continue
        language = item.language
        if language is None:
            # rows of tables are named after the table, members of archives after the archive
            name = item.attributes.get("path") or item.path.rpartition("!")[2]
            language = detect_language(name, text)
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        head = _head(item, source_name, "code")
        yield (*head, data, item.attributes, language, lines, item.license), len(data)


def _images(
    inputs: Iterator[Input | Refusal], source_name: str, limits: Limits, decoder: ImageDecoder
) -> Iterator[tuple[Row | Refusal, int]]:
    """Rows of images, or what is wrong with them; and the bytes of a row's image."""
    for item, facts in decoder.decode_all(_decodable(inputs, limits.max_bytes)):
        if isinstance(item, Refusal):
            yield item, 0
        elif isinstance(facts, ImageFacts):
            found = (facts.width, facts.height, facts.format)
            device = (facts.device_make, facts.device_model, facts.software)
            head = _head(item, source_name, "image")
            yield (*head, item.data, item.attributes, *found, *device, item.label), len(item.data)
        else:
            assert facts is not None  # every image has an answer
            yield Refusal(item.path, facts.reason, facts.message), 0


def _decodable(
    inputs: Iterator[Input | Refusal], max_bytes: int
) -> Iterator[tuple[Input | Refusal, bytes | None]]:
    for item in inputs:
        if isinstance(item, Refusal):
            yield item, None
        elif len(item.data) > max_bytes:
            yield too_large(item.path, len(item.data), max_bytes), None
        elif not item.data:
            yield Refusal(item.path, "empty", "holds no bytes"), None
        else:
            yield item, item.data


def _head(item: Input, source_name: str, modality: str) -> Row:
    """The columns that every record begins with."""
    return (
        schemas.record_id(source_name, item.path),
        source_name,
        item.path,
        item.repository,
        item.revision,
        modality,
        len(item.data),
        hashlib.sha256(item.data).hexdigest(),
    )


class _Batch:
    """Rows on their way into a RecordBatch."""

    def __init__(self, schema: pa.Schema) -> None:
        self.rows: list[Row] = []
        self._schema = schema
        self._bytes = 0

    def is_full(self, size: int) -> bool:
        """Whether a row of so many bytes belongs into the next batch."""
        full = len(self.rows) >= _BATCH_ROWS or self._bytes + size > _BATCH_BYTES
        return full and bool(self.rows)

    def add(self, row: Row, size: int) -> None:
        self.rows.append(row)
        self._bytes += size

    def take(self) -> pa.RecordBatch:
        """The rows as a batch; what comes next begins another."""
        columns = zip(*self.rows, strict=True)
        arrays = [
            _array(field.type, values) for field, values in zip(self._schema, columns, strict=True)
        ]
        self.rows = []
        self._bytes = 0
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _array(kind: pa.DataType, values: tuple[Any, ...]) -> pa.Array:
    if pa.types.is_map(kind):
        return pa.array([list(value.items()) for value in values], kind)
    if pa.types.is_large_string(kind):  # bytes that check_text has found to be UTF-8
        return pa.array(values, pa.large_binary()).view(kind)
    return pa.array(values, kind)
