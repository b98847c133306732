"""What runs that were cut off or damaged left: manifests to be dropped, files to be removed.

A run begins by dropping manifests that are damaged, or that name files which are not there, so that
the stages that wrote them do so again. Sizes are looked at and no bytes are read: that is for
``verify``. It ends by removing what no manifest names.
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

    Shards keep theirs where only files are not as it says: those go, and are made again alone.

    Yields:
        A line for each, before it is dropped.
    """
    for folder in _folders(layout):
        wrong: list[str] = []
        problem = _changed(layout, folder)
        if problem is None:
            sizes = _sizes(layout, folder)
            wrong = [name for name, size in sizes.items() if not has_size(folder / name, size)]
            if wrong:
                problem = f"{wrong[0]} is missing or has another size than the manifest says"
        if problem is not None:
            yield f"{folder.relative_to(layout.root)}: {problem}; it is made again"
            layout.croissant.unlink(missing_ok=True)
            layout.published.unlink(missing_ok=True)
            again = wrong if wrong and folder == layout.shards else [MANIFEST]
            for name in again:
                (folder / name).unlink(missing_ok=True)


def sweep(layout: Layout) -> None:
    """Removes files that no manifest names, and those that were being written.

    A stage that finds its table as it would be does not look at what else lies there.
    """
    for folder in _folders(layout):
        if not (folder / MANIFEST).exists():
            continue
        manifest = None if folder in layout.folders.values() else read_manifest(folder)
        leaves = () if manifest is None else manifest.leaf_names()
        named = {folder / name for name in (MANIFEST, *leaves, *_sizes(layout, folder))}
        for path in list(folder.rglob("*")):
            if path.is_file() and path not in named:
                path.unlink()
    for pattern in (".*.tmp", "report/.*.tmp"):
        for path in layout.root.glob(pattern):
            path.unlink()


def _folders(layout: Layout) -> list[Path]:
    return [*(layout.table(name) for name in TABLES), *layout.folders.values()]


def _sizes(layout: Layout, folder: Path) -> dict[str, int]:
    """Files that a manifest names, with their sizes."""
    return _files(folder) if folder in layout.folders.values() else _table(folder)


def _changed(layout: Layout, folder: Path) -> str | None:
    """What is wrong with a folder's manifest, if something is."""
    try:
        _sizes(layout, folder)
        if (folder / MANIFEST).exists() and not unbroken((folder / MANIFEST).read_bytes()):
            return "its manifest was changed"
    except DataError as error:
        return str(error).removeprefix(f"{folder}/").partition(";")[0]
    return None


def _table(folder: Path) -> dict[str, int]:
    manifest = read_manifest(folder)
    parts = () if manifest is None else manifest.parts()
    return {part.file: part.bytes for part in parts if part.file is not None}


def _files(folder: Path) -> dict[str, int]:
    listed = read_file_list(folder)
    return {} if listed is None else {file.path: file.bytes for file in listed.files}
