"""What a user labelled good and bad: records of this curation, and example files of their own.

Everything is read twice: before a run, to find mistakes while they are cheap, and when the
classifier is fitted. Examples are told apart by their content, so that a file that stands in the
collection many times is one example.
"""

import csv
import glob
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect, scan
from shardwright.metadata.schemas import record_id
from shardwright.pipelines.quality_sections import Learned
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.run import Run
from shardwright.pipelines.sources.names import shown
from shardwright.pipelines.sources.storage import IsNoFileError, open_file
from shardwright.pipelines.stages.ingest import plan as plan_ingest
from shardwright.quality.faults import Fault
from shardwright.quality.images import decode_image
from shardwright.quality.pruning.classifier import LEAST_LABELS
from shardwright.quality.text import check_text

_PLACE = "prune.classifier"
_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
_GOOD = ("good", "1", "1.0", "true")
_BAD = ("bad", "0", "0.0", "false")
_LISTED = 3


@dataclass(frozen=True)
class Label:
    """Whether a record is good, and what it is called where the user said so."""

    good: bool
    name: str


@dataclass(frozen=True)
class Example:
    """A labelled content.

    Attributes:
        good: The label.
        name: What the user calls it.
        file: The user's own file; None for a record.
        record_id: The record; None for a file.
    """

    good: bool
    name: str
    file: Path | None = None
    record_id: str | None = None


def learned(recipe: Recipe) -> Learned | None:
    """The section ``prune.classifier``, if the score of that name is computed."""
    prune = recipe.prune
    if prune is None or recipe.embedding is None:
        return None
    return prune.classifier if "classifier" in prune.methods(recipe.modality) else None


def check_labels(run: Run, ingests: bool) -> None:
    """Finds mistakes in the labels before anything runs.

    Whether a labelled record is there is known before the run where one input is one file: the
    source is listed. Else it is known as soon as records are committed.

    Args:
        run: The run.
        ingests: Whether it reads the source; else its records are those that are committed.

    Raises:
        UserError: A file, a column or a record is not there, a label is neither good nor bad, an
            example cannot be read, or there are fewer than ``LEAST_LABELS`` of either label.
    """
    settings = learned(run.recipe)
    if settings is None:
        return
    labels = read_labels(run.recipe, settings)
    files = read_files(run.recipe, settings)
    said = [label.good for label in labels.values()] + [example.good for example in files.values()]
    check_enough(said)
    if run.limit is not None:  # a trial run need not hold them all
        return
    missing = dict(labels)
    if ingests:  # what is committed is not looked at: it may be damaged, and is made again then
        if run.recipe.source.kind not in ("files", "git"):
            return
        for task in plan_ingest(run):
            for unit in task.payload["units"]:
                missing.pop(record_id(run.recipe.source_name, unit["path"]), None)
    elif run.layout.manifest("records") is not None:
        for found, _ in _found(run, list(labels)):
            missing.pop(found, None)
    else:
        return
    _check_there(settings, missing)


def find_examples(run: Run) -> dict[str, Example]:
    """All examples by the sha256 of their content, records first.

    With ``--limit`` labelled records that were not read are left out.

    Raises:
        UserError: As ``check_labels``; also where one content has both labels.
    """
    settings = learned(run.recipe)
    assert settings is not None
    labels = read_labels(run.recipe, settings)
    found = dict(_found(run, list(labels)))
    if run.limit is None:
        _check_there(settings, {name: label for name, label in labels.items() if name not in found})
    examples: dict[str, Example] = {}
    for name, sha256 in sorted(found.items()):
        label = labels[name]
        _add(examples, sha256, Example(label.good, label.name, record_id=name))
    for sha256, example in read_files(run.recipe, settings).items():
        _add(examples, sha256, example)
    check_enough(example.good for example in examples.values())
    return examples


def check_enough(labels: Iterable[bool]) -> None:
    """Raises UserError unless there are ``LEAST_LABELS`` good and as many bad ones."""
    given = list(labels)
    for count, name in ((sum(given), "good"), (len(given) - sum(given), "bad")):
        if count < LEAST_LABELS:
            raise UserError(
                f"{_PLACE}: {count} of {len(given)} examples are {name}; label at least "
                f"{LEAST_LABELS} of either kind"
            )


def read_labels(recipe: Recipe, settings: Learned) -> dict[str, Label]:
    """The labelled records by ``record_id``, from the table that ``labels`` names.

    Raises:
        UserError: There is no such table, or a row of it does not say what it should.
    """
    if settings.labels is None:
        return {}
    where = f"{_PLACE}.labels {settings.labels}"
    labels: dict[str, Label] = {}
    for spot, row in _rows(where, settings.labels):
        named = [column for column in ("record_id", "path") if column in row]
        if "label" not in row or not named:
            columns = ", ".join(map(str, row)) or "no columns"
            raise UserError(
                f"{spot} has {columns}; give it the columns label, and path or record_id"
            )
        name = row[named[0]]
        if not isinstance(name, str) or not name:
            raise UserError(f"{spot}: {named[0]} is {name!r}; name a record")
        good = _said(f"{spot}: label", row["label"])
        found = name if named[0] == "record_id" else record_id(recipe.source_name, name)
        before = labels.setdefault(found, Label(good, name))
        if before.good != good:
            raise UserError(f"{spot}: {name} is labelled good and bad; take one of the two out")
    return labels


def read_files(recipe: Recipe, settings: Learned) -> dict[str, Example]:
    """The user's own example files by the sha256 of their content.

    Raises:
        UserError: A pattern matches nothing, a file cannot be read or is no text or picture, or
            one content has both labels.
    """
    examples: dict[str, Example] = {}
    for key, patterns, good in (("good", settings.good, True), ("bad", settings.bad, False)):
        for pattern in patterns:
            whole = os.path.join(pattern, "**") if os.path.isdir(pattern) else pattern
            files = sorted(filter(os.path.isfile, glob.glob(whole, recursive=True)))
            if not files:
                raise UserError(
                    f"{_PLACE}.{key} {pattern!r}: matches no file; name local files, a folder, or "
                    "a pattern like examples/**/*.py"
                )
            for path in files:
                name = shown(path)
                data = _content(recipe, f"{_PLACE}.{key} {name}", Path(path))
                sha256 = hashlib.sha256(data).hexdigest()
                _add(examples, sha256, Example(good, name, file=Path(path)))
    return examples


def _add(examples: dict[str, Example], sha256: str, example: Example) -> None:
    before = examples.setdefault(sha256, example)
    if before.good != example.good:
        good, bad = (before, example) if before.good else (example, before)
        raise UserError(
            f"{_PLACE}: {good.name}, which is good, and {bad.name}, which is bad, have the same "
            "content; take one of the two out"
        )


def _content(recipe: Recipe, where: str, path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}; name readable files") from None
    if recipe.modality == "code":
        checked: Any = check_text(data, recipe.limits.max_bytes)
    else:
        checked = decode_image(data, recipe.limits.max_pixels)
    if isinstance(checked, Fault):
        raise UserError(
            f"{where}: {checked.reason}: {checked.message}; an example must be what the recipe "
            "accepts as a record: take it out"
        )
    return data


def _said(spot: str, value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in (*_GOOD, *_BAD):
        raise UserError(f"{spot} is {value!r}; write good or bad, 1 or 0, true or false")
    return text in _GOOD


def _rows(where: str, location: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place for messages, row)."""
    if not location.lower().endswith(_SUFFIXES):
        raise UserError(f"{where}: no table by its suffix; give {', '.join(_SUFFIXES)}")
    try:
        with open_file(location) as file:
            data = file.read()
    except (OSError, IsNoFileError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"{where}: {problem}; name a readable file") from None
    try:
        if location.lower().endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
            numbered: Iterable[tuple[int, Any]] = enumerate(rows)
        elif location.lower().endswith(".csv"):
            table = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
            numbered = [(table.line_num, row) for row in table]
        else:
            lines = data.decode("utf-8-sig").split("\n")
            numbered = [(i, json.loads(line)) for i, line in enumerate(lines, 1) if line.strip()]
    except (ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"{where}: does not read: {' '.join(str(error).split())}") from None
    kind = "row" if location.lower().endswith(".parquet") else "line"
    empty = True
    for number, row in numbered:
        empty = False
        if not isinstance(row, dict):
            raise UserError(f"{where}, {kind} {number}: a {type(row).__name__}, and no object")
        yield f"{where}, {kind} {number}", row
    if empty:
        raise UserError(f"{where}: holds no rows; give the columns label, and path or record_id")


def _found(run: Run, ids: list[str]) -> list[tuple[str, str]]:
    """(record_id, content_sha256) of those records that are there."""
    if not ids:
        return []
    records = run.layout.need("records", "ingest")
    with connect(run.layout, tables=()) as connection:
        connection.register("named", pa.table({"record_id": pa.array(ids, pa.string())}))
        return connection.execute(
            f"SELECT record_id, content_sha256 FROM {scan(records)} SEMI JOIN named "
            "USING (record_id)"
        ).fetchall()


def _check_there(settings: Learned, missing: dict[str, Label]) -> None:
    if missing:
        names = [label.name for label in missing.values()]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise UserError(
            f"{_PLACE}.labels {settings.labels}: no record is called "
            f"{', '.join(names[:_LISTED])}{more}; name records as the columns path and record_id "
            "of the table records do, and none that was refused"
        )
