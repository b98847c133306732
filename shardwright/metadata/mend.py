"""What a run cannot build on: manifests that are damaged, or that name files which are not there.

A run begins by dropping these manifests, so that the stages that wrote them do so again. Sizes are
looked at and no bytes are read: that is for ``verify``.
"""

from collections.abc import Iterator
from pathlib import Path

from shardwright.errors import DataError
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.files import has_size
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.manifest import MANIFEST, read_manifest, unbroken


def drop_damaged(layout: Layout) -> Iterator[str]:
    """Drops the manifest of each table and folder that is not as it says.

    Yields:
        A line for each, before it is dropped.
    """
    tables = [layout.table(name) for name in TABLES]
    for folder in (*tables, *layout.folders.values()):
        problem = _problem(folder, folder in tables)
        if problem is not None:
            yield f"{folder.relative_to(layout.root)}: {problem}; it is made again"
            layout.croissant.unlink(missing_ok=True)
            layout.published.unlink(missing_ok=True)
            (folder / MANIFEST).unlink()


def _problem(folder: Path, is_table: bool) -> str | None:
    """What is wrong with a committed folder, if something is."""
    try:
        sizes = _table(folder) if is_table else _files(folder)
        if sizes and not unbroken((folder / MANIFEST).read_bytes()):
            return "its manifest was changed"
    except DataError as error:
        return str(error).removeprefix(f"{folder}/").partition(";")[0]
    for name, size in sizes.items():
        if not has_size(folder / name, size):
            return f"{name} is missing or has another size than the manifest says"
    return None


def _table(folder: Path) -> dict[str, int]:
    manifest = read_manifest(folder)
    parts = () if manifest is None else manifest.parts()
    return {part.file: part.bytes for part in parts if part.file is not None}


def _files(folder: Path) -> dict[str, int]:
    listed = read_file_list(folder)
    return {} if listed is None else {file.path: file.bytes for file in listed.files}
