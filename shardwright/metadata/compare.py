"""What changed between two curations, why, and what step of the version that is.

Records are matched by their id, which is a hash of source and path; those that only one of the two
has are matched by their content, and have moved. Both curations stand in one DuckDB, under the
schemas ``a`` and ``b``; nothing is held in memory but counts, and what does not fit into DuckDB's
memory spills.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import duckdb

from shardwright.errors import DataError, UserError
from shardwright.metadata.causes import Difference, Origins, causes, differences, origins
from shardwright.metadata.differing import KINDS, STATE, curated_columns, joined
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout, opened

STEPS = ("same", "packaging", "additive", "changed")
"""Steps between two curations, smallest first: none, PATCH, MINOR and MAJOR of a version."""


@dataclass(frozen=True)
class Side:
    """One of the two curations.

    Attributes:
        folder: Its output folder.
        version: What its Croissant says, or None where there is none.
        inputs: Inputs that it saw.
        records: Inputs that it accepted.
        kept: Records that it kept.
        curated_sha256: Hash of the table ``curated``.
    """

    folder: str
    version: str | None
    inputs: int
    records: int
    kept: int
    curated_sha256: str


@dataclass(frozen=True)
class Group:
    """Inputs to which the same happened.

    Attributes:
        kind: ``added``, ``removed`` (in B there is no such input), ``moved`` (in B it has another
            path or source), ``content``, ``columns`` (of a kept record), ``decision``, ``split``,
            ``shard`` (split alike), ``position`` (shard alike).
        inputs: How many.
        example: Path of the first of them.
    """

    kind: str
    inputs: int
    example: str


@dataclass(frozen=True)
class Transition:
    """Inputs whose decision changed in the same way.

    Attributes:
        before: (decision, stage, reason) in A; decisions are ``kept``, ``dropped``, ``refused``.
        after: The same in B.
        inputs: How many.
        example: Path of the first of them.
        causes: What differs in the stages that decided, and in those before them.
    """

    before: tuple[str, str, str]
    after: tuple[str, str, str]
    inputs: int
    example: str
    causes: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """What changed from A to B.

    Attributes:
        a: The first curation.
        b: The second.
        groups: What happened to inputs, and to how many; an input may be in several.
        transitions: Changed decisions, most inputs first.
        columns: Columns of ``curated`` by how many kept records have another value in them.
        columns_added: Columns that only the ``curated`` of B has.
        columns_removed: Columns that only that of A has, or that have another type in B.
        differences: What the stages did not have alike.
        step: One of ``STEPS``.
        because: What makes it that step, in words.
        next_version: A's version after that step, or None where A's Croissant states none.
    """

    a: Side
    b: Side
    groups: tuple[Group, ...]
    transitions: tuple[Transition, ...]
    columns: dict[str, int]
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    differences: tuple[Difference, ...]
    step: str
    because: str
    next_version: str | None


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compares two output folders.

    Raises:
        UserError: There is no such folder, or a table is missing that only a whole run writes.
        DataError: A file of the tables is missing or damaged.
    """
    layouts = opened(Path(a)), opened(Path(b))
    with joined(*layouts) as connection:
        return _compared(connection, *layouts)


def write_json(a: str | Path, b: str | Path, out: TextIO) -> None:
    """Writes the comparison as JSON, and under ``changes`` every input to which anything happened.

    One input a line, in the order of their ids; memory does not grow with their number.

    Raises:
        UserError: As ``compare``.
        DataError: As ``compare``.
    """
    layouts = opened(Path(a)), opened(Path(b))
    with joined(*layouts) as connection:
        head = json.dumps(asdict(_compared(connection, *layouts)), indent=1, ensure_ascii=False)
        out.write(head.rstrip("}\n") + ',\n "changes": [')
        between = "\n"
        for change in _changes(connection):
            out.write(f"{between}  {json.dumps(change, ensure_ascii=False)}")
            between = ",\n"
        out.write("\n ]\n}\n")


def next_version(old: str, step: str) -> str:
    """The semantic version after a step; what stands behind '-' or '+' is dropped.

    Raises:
        UserError: ``old`` is no semantic version, or there is no such step.
    """
    if step not in STEPS:
        raise UserError(f"step {step!r}: no such step; choose {', '.join(STEPS)}")
    found = re.fullmatch(r"(\d+)(?:\.(\d+)(?:\.(\d+)(?:[-+][0-9A-Za-z.+-]+)?)?)?", old)
    if found is None:
        raise UserError(f"version {old!r}: no semantic version; write it as 1.2.3")
    major, minor, patch = (int(number or 0) for number in found.groups())
    return {
        "same": old,
        "packaging": f"{major}.{minor}.{patch + 1}",
        "additive": f"{major}.{minor + 1}.0",
        "changed": f"{major + 1}.0.0",
    }[step]


def _compared(connection: duckdb.DuckDBPyConnection, a: Layout, b: Layout) -> Comparison:
    counts = ", ".join(
        f"count(*) FILTER (is_{kind}), min(path) FILTER (is_{kind})" for kind in KINDS
    )
    row = connection.execute(f"SELECT {counts} FROM differing").fetchall()[0]
    groups = tuple(
        Group(kind, inputs, example)
        for kind, inputs, example in zip(KINDS, row[::2], row[1::2], strict=True)
        if inputs
    )
    made = origins(a), origins(b)
    found = [*_data(groups), *differences(*made)]
    columns = connection.execute(
        "SELECT unnest(columns) AS name, count(*) FROM differing GROUP BY name ORDER BY 2 DESC, 1"
    ).fetchall()
    _, added, removed = curated_columns(a, b)
    sides = _side(a), _side(b)
    step, because = _step(connection, a, b, added, removed)
    version = sides[0].version
    return Comparison(
        *sides,
        groups,
        tuple(_transitions(connection, found, made)),
        dict(columns),
        tuple(added),
        tuple(removed),
        tuple(found),
        step,
        because,
        None if version is None else next_version(version, step),
    )


def _side(layout: Layout) -> Side:
    records, curated = layout.need("records", "ingest"), layout.need("curated", "shard")
    version = None
    if layout.croissant.exists():
        try:
            version = json.loads(layout.croissant.read_bytes()).get("version")
        except (ValueError, AttributeError) as error:
            raise DataError(f"{layout.croissant}: damaged ({error}); run it again") from None
    return Side(
        str(layout.root),
        version,
        records.rows + layout.need("rejects", "ingest").rows,
        records.rows,
        curated.rows,
        curated.content_sha256,
    )


def _data(groups: tuple[Group, ...]) -> Iterator[Difference]:
    """That the curations did not see the same inputs, if so."""
    changed = {
        group.kind: group.inputs
        for group in groups
        if group.kind in ("added", "removed", "moved", "content")
    }
    if changed:
        yield Difference("ingest", "data", "inputs", None, changed)


def _transitions(
    connection: duckdb.DuckDBPyConnection,
    found: list[Difference],
    made: tuple[Origins, Origins],
) -> Iterator[Transition]:
    states = [f"{side}_{name}" for side in "ab" for name in ("decision", "stage", "reason")]
    columns = ", ".join(f"coalesce({state}, '') AS {state}" for state in states)
    for *state, inputs, example in connection.execute(
        f"SELECT {columns}, count(*) AS inputs, min(path) FROM differing WHERE is_decision "
        "GROUP BY ALL ORDER BY inputs DESC, min(path)"
    ).fetchall():
        before, after = tuple(state[:3]), tuple(state[3:])
        deciding = {stage for _, stage, _ in (before, after)} - {"keep", ""}
        opted_out = "opt_out" in (before[2], after[2])
        yield Transition(before, after, inputs, example, causes(deciding, opted_out, found, *made))


def _step(
    connection: duckdb.DuckDBPyConnection,
    a: Layout,
    b: Layout,
    added: list[str],
    removed: list[str],
) -> tuple[str, str]:
    """The step of the version, and why: the greatest of what was found."""
    lost, moved, changed, gained = connection.execute(
        "SELECT count(*) FILTER (a_decision = 'kept' AND b_decision IS DISTINCT FROM 'kept'), "
        "count(*) FILTER (a_decision = 'kept' AND b_decision = 'kept' AND is_moved), "
        "count(*) FILTER (a_decision = 'kept' AND b_decision = 'kept' AND NOT is_moved "
        "AND (is_rewritten OR is_columns OR is_split)), "
        "count(*) FILTER (b_decision = 'kept' AND a_decision IS DISTINCT FROM 'kept') "
        "FROM differing"
    ).fetchall()[0]
    if lost or moved or changed or removed:
        parts = [
            f"{lost} kept records went" if lost else "",
            f"{moved} kept records moved" if moved else "",
            f"{changed} kept records changed" if changed else "",
            f"columns went or changed their type: {', '.join(removed)}" if removed else "",
        ]
        return "changed", "; ".join(filter(None, parts))
    if gained or added:
        parts = [
            f"{gained} kept records more" if gained else "",
            f"columns more: {', '.join(added)}" if added else "",
        ]
        return "additive", "; ".join(filter(None, parts))
    if _hashes(a) != _hashes(b):
        return "packaging", "the same kept records, and other files"
    return "same", "every table and every file is the same"


def _hashes(layout: Layout) -> dict[str, Any]:
    """Hashes of all tables, and of all files in folders of shards, tokens and indexes."""
    found: dict[str, Any] = {
        manifest.table: manifest.content_sha256 for manifest in layout.manifests()
    }
    for name, folder in layout.folders.items():
        listed = read_file_list(folder)
        if listed is not None:
            found[f"{name}/"] = [(file.path, file.sha256) for file in listed.files]
    return found


def _changes(connection: duckdb.DuckDBPyConnection) -> Iterator[dict[str, Any]]:
    """Yields every input to which anything happened, in the order of ids."""
    kinds = ", ".join(f"is_{kind}" for kind in KINDS)
    states = ", ".join(f"{side}_{name}" for side in "ab" for name in STATE)
    connection.execute(
        f"SELECT record_id, source, path, was, was_source, was_path, columns, {kinds}, {states} "
        "FROM differing ORDER BY record_id"
    )
    while rows := connection.fetchmany(1024):
        for record_id, source, path, was, was_source, was_path, columns, *rest in rows:
            happened = [kind for kind, holds in zip(KINDS, rest, strict=False) if holds]
            had, has = rest[len(KINDS) :][: len(STATE)], rest[-len(STATE) :]
            before = {"record_id": was, "source": was_source, "path": was_path}
            yield {
                "record_id": record_id,
                "source": source,
                "path": path,
                "kinds": happened,
                **({"moved_from": before} if was is not None else {}),
                **({"columns": columns} if columns else {}),
                "a": None if "added" in happened else _state(had),
                "b": None if "removed" in happened else _state(has),
            }


def _state(values: list[Any]) -> dict[str, Any]:
    """What is known of an input in one curation."""
    return {name: value for name, value in zip(STATE, values, strict=True) if value is not None}
