"""Reads one record of every record set back through mlcroissant, and holds it against the tables.

A Croissant may be valid and yet unreadable, or readable and wrong: mlcroissant finds only while it
reads that a column is not there, and turns whole numbers that may be null into floats.
"""

import io
import json
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from shardwright.metadata.layout import TABLES
from shardwright.metadata.manifest import Manifest, Part

_Node = dict[str, Any]


def readback_faults(path: Path, metadata: _Node, sound: Mapping[str, Manifest]) -> Iterator[str]:
    """Faults of a Croissant that mlcroissant finds, by validating and by reading.

    The document is read as it stands, but beside one part of each table: mlcroissant holds whole
    files in memory, and for a record set with references all of them before the first record.

    Args:
        path: The document.
        metadata: What it holds.
        sound: Tables without a fault; record sets of others are not read.
    """
    import mlcroissant

    read = {item["@id"] for item in metadata["recordSet"]}
    parts = {name: _first(manifest) for name, manifest in sound.items() if name in read}
    with tempfile.TemporaryDirectory() as name, _quiet():
        folder = Path(name)
        document = folder / path.name
        document.write_bytes(path.read_bytes())
        for table, part in parts.items():
            if part is not None and part.file is not None:
                place = folder / "tables" / table / part.file
                place.parent.mkdir(parents=True)
                place.symlink_to((sound[table].folder / part.file).absolute())
        repositories = {
            item["@id"]: str(folder)
            for item in metadata["distribution"]
            if item.get("encodingFormat") == "git+https"
        }
        try:
            dataset = mlcroissant.Dataset(str(document), mapping=repositories or None)
        except Exception as error:  # what is no JSON-LD at all ends in errors of many kinds
            lines = [line.strip() for line in str(error).splitlines()]
            named = [line.removeprefix("-").strip() for line in lines if line.startswith("-")]
            for problem in named or [f"{type(error).__name__}: {' '.join(lines)}"[:300]]:
                yield f"invalid: {problem}"
            return
        for record_set in metadata["recordSet"]:
            table = record_set["@id"]
            if table in TABLES and table not in sound:
                continue
            try:
                # One more than there are, so that too many are found out.
                records = list(islice(dataset.records(table), len(record_set.get("data", [])) + 1))
            except Exception as error:  # whatever stops a reader is a fault of what it reads
                said = " ".join(str(error).split())[:300]
                yield f"{table}: not readable ({type(error).__name__}: {said})"
                continue
            if "data" in record_set:
                yield from _inline_faults(record_set, records)
            elif table in sound:
                yield from _table_faults(record_set, records, sound[table], parts[table])
        if find_spec("tensorflow_datasets") is not None and not repositories:
            short = _without_files(metadata, folder)
            for table, part in parts.items():
                if part is not None and part.rows:
                    yield from _tfds_faults(short, table, sound[table], part)


def _first(manifest: Manifest) -> Part | None:
    """The first part with rows, or the one that stands for an empty table."""
    empty = None
    for part in manifest.parts():
        if part.file is not None and part.rows:
            return part
        empty = part if part.file is not None else empty
    return empty


@contextmanager
def _quiet() -> Iterator[None]:
    """Without mlcroissant's warnings, of which it may log one per record."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _inline_faults(record_set: _Node, records: list[_Node]) -> Iterator[str]:
    name, rows = record_set["@id"], record_set["data"]
    if len(records) != len(rows):
        yield f"{name}: {len(records)} records are read, it holds {len(rows)}"
        return
    for number, (record, row) in enumerate(zip(records, rows, strict=True)):
        for field, value in row.items():
            if not _same(record.get(field), value):
                yield (
                    f"{field} of record {number} reads back as "
                    f"{_shown(record.get(field))}, it holds {_shown(value)}"
                )
                return


def _table_faults(
    record_set: _Node, records: list[_Node], manifest: Manifest, part: Part | None
) -> Iterator[str]:
    """Holds the record that was read against the row of its id."""
    name = record_set["@id"]
    if not records or part is None or part.file is None:
        if manifest.rows:
            yield f"{name}: no record is read, the table holds {manifest.rows}"
        return
    record = {field.partition("/")[2]: value for field, value in records[0].items()}
    identity = _plain(record.get("record_id"))
    path = manifest.folder / part.file
    rows = pq.read_table(path, filters=[("record_id", "=", identity)]).to_pylist()
    if not rows:
        yield f"{name}: record {_shown(identity)} is read, the table has none"
        return
    for field in record_set["field"]:
        # By its name, so that a field which reads another column is found out.
        column = field["@id"].partition("/")[2]
        if column not in rows[0]:
            continue
        read, stored = record.get(column), rows[0][column]
        # A picture comes decoded.
        if not (read is not None if isinstance(stored, bytes) else _same(read, stored)):
            yield (
                f"{field['@id']} of record {identity} reads back as "
                f"{_shown(read)}, the table holds {_shown(stored)}"
            )
        shape = field.get("arrayShape")
        if shape is not None and isinstance(stored, list):
            said = math.prod(int(size) for size in str(shape).split(","))
            if said not in (len(stored), -1):
                yield (
                    f"{field['@id']} has arrayShape {shape}, the table's lists hold {len(stored)}"
                )


def _without_files(metadata: _Node, folder: Path) -> Path:
    """The document for TFDS: without its list of files, which it copies for each of its steps.

    Record sets are read from sets of files; of thousands of files TFDS would take minutes.
    """
    sets = [item for item in metadata["distribution"] if item["@type"] == "cr:FileSet"]
    document = folder / "sets.json"
    document.write_text(json.dumps(metadata | {"distribution": sets}))
    return document


def _tfds_faults(document: Path, table: str, manifest: Manifest, part: Part) -> Iterator[str]:
    """Builds a record set with TFDS, and holds the ids of its records against the table's."""
    tfds = import_module("tensorflow_datasets")
    builders = import_module("tensorflow_datasets.core.dataset_builders.croissant_builder")
    tfds.disable_progress_bar()
    assert part.file is not None
    ids = pq.read_table(manifest.folder / part.file, columns=["record_id"])["record_id"]
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it tells its steps
            builder = builders.CroissantBuilder(
                jsonld=str(document),
                record_set_ids=[table],
                file_format="array_record",
                data_dir=str(document.parent / "tfds"),
            )
            config = tfds.download.DownloadConfig(beam_runner="FnApiRunner")
            builder.download_and_prepare(download_config=config)
        found = {_plain(row["record_id"]) for row in builder.as_data_source()["default"]}
    except Exception as error:  # whatever stops a reader is a fault of what it reads
        said = " ".join(str(error).split())[:300]
        yield f"{table}: TFDS does not build it ({type(error).__name__}: {said})"
        return
    if found != set(ids.to_pylist()):
        yield f"{table}: TFDS builds {len(found)} records, the part that it read holds {len(ids)}"


def _plain(value: Any) -> Any:
    """What mlcroissant gives as plain values: text for bytes, None for what is no value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a scalar or an array of NumPy
        return _plain(value.tolist())
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _same(read: Any, stored: Any) -> bool:
    """Whether both are one value; numbers may be read as the text that writes them."""
    read, stored = _plain(read), _plain(stored)
    if isinstance(read, list) and isinstance(stored, list):
        return len(read) == len(stored) and all(map(_same, read, stored))
    if isinstance(read, str) and isinstance(stored, int | float):
        try:
            return float(read) == stored
        except ValueError:
            return False
    return bool(read == stored)


def _shown(value: Any) -> str:
    return json.dumps(_plain(value), default=str)[:80]
