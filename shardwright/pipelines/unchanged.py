"""What the stage ``shard`` need not write again, because no record in it came, went or moved.

Told from the table ``shards``: as it was when the files were written, and as it is now.
"""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import duckdb
import pyarrow as pa

from shardwright.metadata.catalog import connect, name_parts, scan
from shardwright.metadata.filelist import FileList, ListedFile, read_file_list
from shardwright.metadata.manifest import Manifest, Origin, Part, read_manifest
from shardwright.pipelines.run import Run

Shard: TypeAlias = tuple[str, int]
"""Split, and number in it."""

_REMEMBERED: Final = "placed"


@dataclass(frozen=True)
class Unchanged:
    """What stays as it lies.

    Attributes:
        files: Shard files by split and number.
        parts: Parts of ``curated`` by key.
    """

    files: dict[Shard, ListedFile] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)


def remember_places(run: Run) -> None:
    """Keeps the table ``shards`` that the shard files were written from, before it is replaced.

    It is kept until files are written from another: a run that is cut off in between takes nothing
    for changed that is not.
    """
    table, listed = run.layout.manifest("shards"), read_file_list(run.layout.shards)
    if table is None or listed is None or not _made_from(listed.origin, table):
        return
    kept = run.layout.staging(_REMEMBERED)
    copy = kept.with_name(f"{_REMEMBERED}.copy")
    for folder in (kept, copy):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(table.folder, copy, copy_function=_link)
    copy.rename(kept)


def forget_places(run: Run) -> None:
    """Drops what was remembered."""
    shutil.rmtree(run.layout.staging(_REMEMBERED), ignore_errors=True)


def find_unchanged(run: Run, shards: Manifest, origin: Origin) -> Unchanged:
    """What the files and parts that are there share with those that are to be.

    Args:
        run: The run.
        shards: Where each kept record goes now.
        origin: What the shard files and ``curated`` will be made from. Files that were made from
            anything else than ``shards`` in another way are all changed.
    """
    listed, curated = read_file_list(run.layout.shards), run.layout.manifest("curated")
    if run.force or listed is None or not _alike(listed.origin, origin):
        return Unchanged()
    before = _as_placed(run, shards, listed.origin)
    if before is None:
        return Unchanged()
    with connect(run.layout, tables=()) as connection:
        stale = _differing(connection, before, shards)
        files = _standing(listed, stale)
        if curated is None or not _alike(curated.origin, origin):
            return Unchanged(files)
        then = _as_placed(run, shards, curated.origin)
        if then is None:
            return Unchanged(files)
        touched = _touched(connection, shards, files)
        for one, other in ((then, shards), (shards, then)):
            touched |= _moved(connection, one, other)
    parts = {
        part.key: part
        for part in curated.parts()
        if part.key not in touched
        and (part.file is None or (curated.folder / part.file).exists())
        and part.key != "empty"
    }
    return Unchanged(files, parts)


def _link(source: str, target: str) -> None:
    """Committed files are never written to again, so that a second name is a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _made_from(origin: Origin, shards: Manifest) -> bool:
    return origin.inputs.get("shards") == shards.content_sha256


def _alike(old: Origin, new: Origin) -> bool:
    """Whether both come from the same, but for where the records go."""
    return _elsewhere(old).same_work(_elsewhere(new))


def _elsewhere(origin: Origin) -> Origin:
    parameters = {name: v for name, v in origin.parameters.items() if name != "taken_out"}
    inputs = {name: sha256 for name, sha256 in origin.inputs.items() if name != "shards"}
    return replace(origin, parameters=parameters, inputs=inputs)


def _as_placed(run: Run, shards: Manifest, origin: Origin) -> Manifest | None:
    """The table ``shards`` that something was made from, if it is still there."""
    for manifest in (shards, read_manifest(run.layout.staging(_REMEMBERED))):
        if manifest is not None and _made_from(origin, manifest):
            return manifest
    return None


def _differing(
    connection: duckdb.DuckDBPyConnection, before: Manifest, now: Manifest
) -> set[Shard]:
    """Shards that hold other records, or in other places."""
    if before.content_sha256 == now.content_sha256:
        return set()
    one, other = (f"(FROM {scan(table)})" for table in (before, now))
    rows = connection.execute(
        f"SELECT DISTINCT split, shard FROM (({one} EXCEPT {other}) UNION ALL "
        f"({other} EXCEPT {one}))"
    ).fetchall()
    return {(split, shard) for split, shard in rows}


def _standing(listed: FileList, stale: Collection[Shard]) -> dict[Shard, ListedFile]:
    """The listed shard files that are not stale and are there."""
    standing = {}
    for file in listed.shards:
        split, _, name = file.path.partition("/")
        shard = int(name.split(".")[1])
        if (split, shard) not in stale and _size(listed.folder / file.path) == file.bytes:
            standing[split, shard] = file
    return standing


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _touched(
    connection: duckdb.DuckDBPyConnection, shards: Manifest, files: Collection[Shard]
) -> set[str]:
    """Keys of the parts with records of shards whose files have to be written."""
    standing = pa.table(
        {
            "split": pa.array([split for split, _ in files], pa.string()),
            "shard": pa.array([shard for _, shard in files], pa.int32()),
        }
    )
    connection.register("standing", standing)
    return _keys(connection, shards, "ANTI JOIN standing USING (split, shard)")


def _moved(connection: duckdb.DuckDBPyConnection, one: Manifest, other: Manifest) -> set[str]:
    """Keys of the parts of ``one`` with rows that ``other`` has not."""
    if one.content_sha256 == other.content_sha256:
        return set()
    columns = ", ".join(other.schema.names)
    return _keys(connection, one, f"ANTI JOIN {scan(other)} AS o USING ({columns})")


def _keys(connection: duckdb.DuckDBPyConnection, table: Manifest, join: str) -> set[str]:
    """Keys of the parts with rows that a join leaves."""
    name_parts(connection, table)
    keys = [part.key for part in table.parts()]
    rows = connection.execute(
        f"SELECT DISTINCT part FROM {scan(table, positions=True)} AS r "
        f"JOIN part_files USING (filename) {join}"
    ).fetchall()
    return {keys[part] for (part,) in rows}
