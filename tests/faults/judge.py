"""What is wrong with an output: between a fault and the next run, and after that run."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import common
import pyarrow.parquet as pq

from shardwright.errors import DataError
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import TABLES, Layout


@dataclass(frozen=True)
class Judged:
    """How an output differs from the undisturbed one.

    Attributes:
        lost: Records that are in a table of the undisturbed one and not in this.
        duplicated: Records that are more often in a table.
        wrong: Files and tables that differ otherwise, one line each.
    """

    lost: int
    duplicated: int
    wrong: tuple[str, ...]

    @property
    def right(self) -> bool:
        return not (self.lost or self.duplicated or self.wrong)


def judge(output: Path, whole: Path) -> Judged:
    """Holds an output against the undisturbed one: every byte, but for times."""
    mine, reference = common.contents(output), _contents(whole)
    wrong = [
        f"{path}: {'other bytes' if path in mine and path in reference else problem}"
        for problem, paths in (
            ("missing", reference.keys() - mine.keys()),
            ("not of the undisturbed run", mine.keys() - reference.keys()),
            ("", mine.keys() & reference.keys()),
        )
        for path in sorted(paths)
        if mine.get(path) != reference.get(path)
    ]
    wrong += _manifests(output, whole)
    wrong += [f"{path}: left over" for path in sorted(_files(output) - _files(whole) - mine.keys())]
    try:
        if common.croissant_without_times(output) != _croissant(whole):
            wrong.append("croissant.json: says other things")
    except (OSError, ValueError, KeyError) as error:
        wrong.append(f"croissant.json: {error!r}")
    lost, duplicated = _records(output, whole) if wrong else (0, 0)
    return Judged(lost, duplicated, tuple(wrong))


def partial(output: Path, states: Sequence[Path]) -> list[str]:
    """What looks whole and is not: held against the states that the output may be in.

    A table or folder with a manifest is one of a state, with all its files. With the Croissant, the
    whole output is.

    Args:
        output: What a fault left.
        states: Undisturbed outputs: before the run, after it.
    """
    found = []
    layout = Layout(output)
    for place, folder in _places(layout):
        known = [_named(state, place) for state in states]
        try:
            mine = _named(output, place)
        except DataError as error:
            found.append(f"{place}: {error}")
            continue
        if mine is None:
            continue
        if mine not in known:
            found.append(f"{place}: has a manifest, and other files than in any undisturbed run")
            continue
        for name, sha256 in mine.items():
            if not (folder / name).is_file():
                found.append(f"{place}/{name}: is named by the manifest, and missing")
            elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
                found.append(f"{place}/{name}: not the bytes that the manifest names")
    if layout.croissant.exists():
        named = {place: _named(output, place) for place, _ in _places(layout)}
        if not any(named == {place: _named(state, place) for place in named} for state in states):
            found.append("croissant.json: is there, and the curation is of no undisturbed run")
    return found


def _files(output: Path) -> set[str]:
    """Every file, those of staging too, by its path."""
    return {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}


def _places(layout: Layout) -> list[tuple[str, Path]]:
    return [*((f"tables/{name}", layout.table(name)) for name in TABLES), *layout.folders.items()]


def _named(output: Path, place: str) -> dict[str, str] | None:
    """Files that a manifest names, with their hashes; None without a manifest."""
    folder = output / place
    if place.startswith("tables/"):
        manifest = Layout(output).manifest(folder.name)
        if manifest is None:
            return None
        return {part.file: part.sha256 for part in manifest.parts() if part.file is not None}
    listed = read_file_list(folder)
    return None if listed is None else {file.path: file.sha256 for file in listed.files}


def _manifests(output: Path, whole: Path) -> list[str]:
    """Manifests that say other things than those of the undisturbed run, times aside."""
    found = []
    for place, _ in _places(Layout(output)):
        mine, reference = (_head(root / place) for root in (output, whole))
        if mine != reference:
            names = {
                key
                for key in (mine or {}).keys() | (reference or {}).keys()
                if (mine or {}).get(key) != (reference or {}).get(key)
            }
            found.append(f"{place}/_manifest.json: other {', '.join(sorted(names))}")
    return found


def _head(folder: Path) -> dict[str, Any] | None:
    path = folder / "_manifest.json"
    if not path.exists():
        return None
    try:
        head: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError:
        return {"damaged": True}
    head.pop("seal", None)
    for name in ("started", "ended"):
        head["origin"].pop(name)
    return head


def _records(output: Path, whole: Path) -> tuple[int, int]:
    """Records lost and duplicated, over all tables."""
    lost = duplicated = 0
    for name in TABLES:
        mine, reference = _ids(output, name), _ids(whole, name)
        lost += (reference - mine).total()
        duplicated += sum(
            count - max(1, reference[record])
            for record, count in mine.items()
            if count > max(1, reference[record])
        )
    return lost, duplicated


def _ids(output: Path, name: str) -> Counter[str]:
    """How often each record, or refused input, stands in a table's files."""
    ids: Counter[str] = Counter()
    for file in (
        (_named(output, f"tables/{name}") or {}) if (output / "tables" / name).exists() else {}
    ):
        try:
            with pq.ParquetFile(output / "tables" / name / file) as part:
                names = part.schema_arrow.names
                column = (
                    "record_id" if "record_id" in names else "path" if "path" in names else None
                )
                if column is not None:
                    ids.update(part.read([column]).column(0).to_pylist())
        except (OSError, ValueError):
            continue  # its records are lost
    return ids


@cache
def _contents(whole: Path) -> dict[str, str]:
    return common.contents(whole)


@cache
def _croissant(whole: Path) -> dict[str, Any]:
    return common.croissant_without_times(whole)
