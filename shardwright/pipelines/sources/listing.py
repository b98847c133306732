"""Listing what a uri names, on this machine or on any of Beam's filesystems.

The order is that of the paths' components, byte by byte, whatever order a file system has.
"""

import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import replace

from shardwright.errors import UserError
from shardwright.pipelines.sources.names import Globs, has_magic, shown, split_glob
from shardwright.pipelines.sources.storage import (
    explain,
    filesystems,
    is_remote,
    kind_of,
    local_path,
)
from shardwright.pipelines.sources.types import Source, Unit


def list_files(uri: str, globs: Globs) -> Iterator[Unit]:
    """Lists the wanted files of a uri, in the order of their paths' components.

    Links, pipes, sockets, devices and folders that cannot be listed come as units with a problem,
    for they are inputs too. Links are never followed, except for the uri itself.

    Args:
        uri: A folder, a file or a glob.
        globs: What is wanted of it, by the path relative to the uri's folder.

    Raises:
        UserError: The uri names nothing, or nothing that can be listed.
    """
    if uri.startswith("file://") or not is_remote(uri):
        return _list_local(uri, globs)
    return _list_remote(uri, globs)


def list_suffixed(uri: str, globs: Globs, suffixes: tuple[str, ...]) -> Iterator[Unit]:
    """Lists the files that end so; a uri that names one file needs no suffix."""
    own = uri.rstrip("/").rpartition("/")[2]
    for unit in list_files(uri, globs):
        if unit.path.lower().endswith(suffixes) or unit.path == own:
            yield unit


def first_inputs(units: Iterator[Unit], limit: int | None) -> Iterator[Unit]:
    """Units of at most so many inputs; one without a count is one input."""
    for unit in units:
        if limit is None or unit.take == 0:
            yield unit
            continue
        rows = 1 if unit.take is None else min(unit.take, limit)
        yield unit if unit.take is None else replace(unit, take=rows)
        limit -= rows
        if limit <= 0:
            return


def count_inputs(files: Iterator[Unit], limit: int, source: Source) -> Iterator[Unit]:
    """Cuts a listing off after so many inputs, where only reading tells how many a file holds."""
    for unit in files:
        count = sum(1 for _ in itertools.islice(source.read([unit]), limit))
        if count:
            yield replace(unit, take=count)
        limit -= count
        if limit <= 0:
            return


def _list_local(uri: str, globs: Globs) -> Iterator[Unit]:
    path = local_path(uri)
    named: Globs | None = None
    if has_magic(path) and not os.path.lexists(path):
        path, pattern = split_glob(path)
        path = path or ("/" if uri.startswith("/") or uri.startswith("file:") else ".")
        named = Globs((pattern,))
    try:
        root = os.path.realpath(path)  # the uri may be a link; what is below it may not
        status = os.stat(root)
        if stat.S_ISDIR(status.st_mode):
            os.scandir(root).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"source.uri {uri!r}: {explain(error)}; name a folder, a file or a glob that is there"
        ) from None
    if stat.S_ISDIR(status.st_mode):
        return _walk(root, globs, named)
    name = os.path.basename(path.rstrip("/"))
    return iter([_local_unit(shown(name), root, status)] if globs.wants(shown(name)) else [])


def _walk(root: str, globs: Globs, named: Globs | None) -> Iterator[Unit]:
    """Walks a folder, one folder's names in memory per level."""
    # per level: names still to come, the folder's location, its shown path, its fault
    top = _entries(root)
    assert isinstance(top, list)  # the caller has just opened it
    stack = [(top, root, "", False)]
    while stack:
        entries, folder, prefix, doubtful = stack[-1]
        if not entries:
            stack.pop()
            continue
        name, kind, clash = entries.pop()
        path = prefix + shown(name)
        location = f"{folder.rstrip('/')}/{name}"
        if kind == "folder":
            if globs.skips_folder(path):
                continue
            below = _entries(location)
            if isinstance(below, list):
                stack.append((below, location, f"{path}/", doubtful or clash))
            else:
                yield Unit(path, location, 0, "", ("unreadable", f"a folder: {below}"))
            continue
        if not globs.wants(path) or not (named is None or named.wants(path)):
            continue
        try:
            status = os.lstat(location)
        except OSError as error:
            yield Unit(path, location, 0, "", ("unreadable", explain(error)))
            continue
        if doubtful or clash:
            yield _local_unit(
                path,
                location,
                status,
                ("duplicate_path", "another name that is no UTF-8 is shown just like this one"),
            )
        else:
            yield _local_unit(path, location, status)


def _entries(folder: str) -> list[tuple[str, str, bool]] | str:
    """A folder's names in falling order (the next one is popped from the end).

    Each with ``folder`` or ``file`` and whether an earlier name is shown alike. Or what went
    wrong.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                (entry.name, "folder" if entry.is_dir(follow_symlinks=False) else "file")
                for entry in entries
            ]
    except OSError as error:
        return explain(error)
    found.sort(key=lambda entry: os.fsencode(entry[0]))
    seen: set[tuple[str, str]] = set()
    plain = all(name.isascii() for name, _ in found) or all(shown(n) == n for n, _ in found)
    result = []
    for name, kind in found:
        clash = False
        if not plain:
            key = (shown(name), kind)
            clash = key in seen
            seen.add(key)
        result.append((name, kind, clash))
    result.reverse()
    return result


def _local_unit(
    path: str, location: str, status: os.stat_result, problem: tuple[str, str] | None = None
) -> Unit:
    if problem is None and not stat.S_ISREG(status.st_mode):
        problem = ("not_regular_file", f"{kind_of(status.st_mode)}, and no file")
    state = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Unit(path, location, size, state, problem)


def _list_remote(uri: str, globs: Globs) -> Iterator[Unit]:
    from apache_beam.io.filesystem import BeamIOError

    named: Globs | None = None
    base = uri.rstrip("/")
    try:
        found = filesystems().match([base])[0].metadata_list if not has_magic(base) else []
        if found:
            base = base.rpartition("/")[0]
        else:
            if has_magic(base):
                base, pattern = split_glob(base)
                named = Globs((pattern,))
            found = filesystems().match([f"{base}/**"])[0].metadata_list
    except (BeamIOError, ValueError, OSError, ImportError) as error:
        raise UserError(f"source.uri {uri!r} cannot be listed: {explain(error)}") from None
    if not found:
        raise UserError(f"source.uri {uri!r} names no file; name a folder, a file or a glob")
    found.sort(key=lambda metadata: metadata.path.split("/"))
    for metadata in found:
        path = shown(metadata.path[len(base) + 1 :])
        if path.endswith("/") or not path:
            continue  # an object that stands for a folder
        if globs.wants(path) and (named is None or named.wants(path)):
            size = metadata.size_in_bytes
            state = f"{size}:{metadata.last_updated_in_seconds}"
            yield Unit(path, metadata.path, size, state)
