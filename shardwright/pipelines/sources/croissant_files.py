"""The files of a Croissant: where they lie, what the document says of them, and what is missing."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from shardwright.errors import UserError
from shardwright.pipelines.sources.archive import SUFFIXES as ARCHIVES
from shardwright.pipelines.sources.croissant_document import Document, FileNode, below
from shardwright.pipelines.sources.listing import list_files
from shardwright.pipelines.sources.names import Globs, shown
from shardwright.pipelines.sources.storage import explain, filesystems, is_remote, local_path
from shardwright.pipelines.sources.types import Unit
from shardwright.pipelines.sources.web import SCHEMES, web_facts

_ARCHIVE_TYPES = ("zip", "x-tar", "x-gtar", "tar", "gzip", "x-gzip", "x-bzip2", "x-xz")
_FORMATS = {
    **dict.fromkeys(("x-parquet", "parquet", "vnd.apache.parquet"), "parquet"),
    **dict.fromkeys(("csv", "x-csv"), "csv"),
    **dict.fromkeys(("tab-separated-values", "tsv", "x-tsv"), "tsv"),
    **dict.fromkeys(("jsonlines", "x-ndjson", "jsonl", "x-jsonlines", "ndjson"), "jsonl"),
}
_SUFFIXES = {
    **{".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv"},
    **{".jsonl": "jsonl", ".ndjson": "jsonl"},
}


@dataclass(frozen=True)
class Folder:
    """A place that names of files are relative to.

    Attributes:
        location: A local folder, or a uri.
        container: Id of what the document says is there; None for its own folder.
        prefix: What is put before the paths of its files, so that two folders do not clash.
    """

    location: str
    container: str | None
    prefix: str = ""


@dataclass(frozen=True)
class Files:
    """The files that a record set is read from.

    Attributes:
        document: The document.
        node: Its FileObject or FileSet.
        mapping: Where files or folders lie that the document names otherwise, by id.
        holds: Ids of what this contains, inside out, where it was come upon as a container.
    """

    document: Document
    node: FileNode
    mapping: Mapping[str, str]
    holds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.mapping:
            if name not in self.document.files:
                raise UserError(
                    f"source.mapping: the document has no file or file set {name!r}; it has "
                    f"{', '.join(list(self.document.files)[:20])}"
                )

    @property
    def format(self) -> str:
        """``parquet``, ``csv``, ``tsv`` or ``jsonl``.

        Raises:
            UserError: It is none of them.
        """
        for stated in self.node.formats:
            found = _FORMATS.get(stated.partition(";")[0].rpartition("/")[2].strip())
            if found is not None:
                return found
        names = [self.node.url, *(self.node.includes or ())]
        for name in (name.lower().removesuffix(".gz") for name in names):
            for suffix, found in _SUFFIXES.items():
                if name.endswith(suffix):
                    return found
        raise UserError(
            f"source: {self.node.id!r} is {', '.join(self.node.formats) or 'of no stated format'}; "
            "tables that are read are Parquet, CSV, TSV and JSON lines"
        )

    @property
    def members(self) -> Globs | None:
        """The wanted members, where the files are members of archives that are not unpacked."""
        if not any(self._is_archive(name) for name in self._containers):
            return None
        if self.node.includes is None:
            return Globs((_escaped(self.node.url),))
        return Globs(_patterns(self.node.includes), _patterns(self.node.excludes))

    def units(self) -> Iterator[tuple[Unit, str | None]]:
        """Yields each file, or archive of files, with the checksum that the document gives it.

        Sorted by path. A file that the document lists and that is not there comes last of its
        folder, as a unit with a problem.

        Raises:
            UserError: The document does not say where the files lie, or that cannot be read.
        """
        if self.members is not None:
            for name in sorted(self._containers):
                yield from self._container(name).units()
        elif self.node.includes is None:
            yield self._single()
        else:
            matches = Globs(_patterns(self.node.includes), _patterns(self.node.excludes)).wants
            for name in sorted(self._containers):
                if not self._is_folder(name):
                    yield from (
                        found for found in self._container(name).units() if matches(found[0].path)
                    )
            for folder in self._folders():
                yield from self._listed(folder, matches)

    @property
    def _containers(self) -> tuple[str, ...]:
        return () if self.node.id in self.mapping else self.node.containers

    def _listed(
        self, folder: Folder, matches: Callable[[str], bool]
    ) -> Iterator[tuple[Unit, str | None]]:
        """What lies in a folder, and what the document says should."""
        said = {path: node for path, node in self._said(folder).items() if matches(path)}
        in_order = sorted(said, key=lambda path: path.split("/"))
        if folder.location.startswith(SCHEMES):  # nothing lists a web address
            if not said:
                raise UserError(
                    f"source: file set {self.node.id!r} lies at a web address, which cannot be "
                    "listed; fetch it and name the folder in source.mapping, or as source.uri"
                )
            for path in in_order:
                unit = _unit(_joined(folder.location, path), folder.prefix + path)
                yield unit, said[path].checksum
            return
        for unit in list_files(folder.location, Globs(("**/*",), (".git/**",))):
            if matches(unit.path):
                node = said.pop(unit.path, None)
                checksum = None if node is None else node.checksum
                yield replace(unit, path=folder.prefix + unit.path), checksum
        for path in in_order:
            if path in said:
                yield _missing(folder.prefix + path), said[path].checksum

    def _single(self) -> tuple[Unit, str | None]:
        mapped = self.mapping.get(self.node.id)
        if mapped is not None:  # an address says nothing that lasts
            return _unit(_absolute(mapped), shown(self.node.id)), self.node.checksum
        if is_remote(self.node.url) and not self.node.url.startswith("file:"):
            return _unit(self.node.url, shown(self.node.id)), self.node.checksum
        path = below(self.node.url)
        folders = self._folders()
        if path is None or not folders:
            raise UserError(self._outside())
        location = _joined(folders[0].location, path)
        if not is_remote(location):
            inside = os.path.realpath(folders[0].location).rstrip("/") + "/"
            if not os.path.realpath(location).startswith(inside):
                raise UserError(self._outside())
        return _unit(location, shown(path)), self.node.checksum

    def _outside(self) -> str:
        return (
            f"source: {self.node.id!r}: contentUrl {self.node.url!r} leads out of the folder of "
            "the document; if it is to be read, name where it lies in source.mapping"
        )

    def _folders(self) -> list[Folder]:
        """Folders that the names of this node are relative to."""
        if self.node.id in self.mapping:
            container = next(iter(self.node.containers), None)
            return [Folder(_absolute(self.mapping[self.node.id]), container)]
        if not self._containers:
            return [Folder(self.document.folder, None)]
        found = []
        for name in sorted(self._containers):
            if not self._is_folder(name):
                continue
            location = self._place(name)
            if location is None:
                raise UserError(
                    f"source: {self.node.id!r} lies in {name!r} ({self._node(name).url}); clone it "
                    f"and name the folder: source.mapping: {{{name}: ./folder}}"
                )
            many = len(self._containers) > 1
            found.append(Folder(location, name, f"{shown(name)}/" if many else ""))
        return found

    def _said(self, folder: Folder) -> dict[str, FileNode]:
        """FileObjects of a folder by their path in it."""
        found: dict[str, FileNode] = {}
        for node in self.document.files.values():
            path = below(node.url)
            container = next(iter(node.containers), None)
            if node.includes is None and path is not None and container == folder.container:
                found[shown(path)] = node
        return found

    def _container(self, name: str) -> "Files":
        if name in (*self.holds, self.node.id):
            raise UserError(f"source: {name!r} is contained in itself; mend the document")
        return replace(self, node=self._node(name), holds=(*self.holds, self.node.id))

    def _node(self, name: str) -> FileNode:
        node = self.document.files.get(name)
        if node is None:
            raise UserError(
                f"source: {self.node.id!r} is contained in {name!r}, which the document lacks"
            )
        return node

    def _is_folder(self, name: str) -> bool:
        """Whether a container is a folder: a repository, or mapped to one."""
        mapped = self.mapping.get(name)
        if mapped is None:
            return _is_repository(self._node(name))
        if is_remote(mapped) and not mapped.startswith("file://"):
            return not mapped.lower().endswith(ARCHIVES)
        return os.path.isdir(local_path(mapped))

    def _is_archive(self, name: str) -> bool:
        if self._is_folder(name):
            return False
        node = self._node(name)
        names = (node.url, self.mapping.get(name, ""), *(node.includes or ()))
        return any(text.lower().endswith(ARCHIVES) for text in names) or any(
            stated.rpartition("/")[2] in _ARCHIVE_TYPES for stated in node.formats
        )

    def _place(self, name: str) -> str | None:
        """Where a container that is a folder lies; None where the document does not say."""
        if name in self.mapping:
            return _absolute(self.mapping[name])
        url = self._node(name).url
        path = below(url)
        if url not in (".", "./") and path is None:
            return None
        return self.document.folder if path is None else _joined(self.document.folder, path)


def _is_repository(node: FileNode) -> bool:
    return any("git+" in stated for stated in (node.url.lower(), *node.formats))


def _absolute(location: str) -> str:
    if is_remote(location) and not location.startswith("file://"):
        return location.rstrip("/")
    return os.path.realpath(local_path(location))


def _unit(location: str, path: str) -> Unit:
    """A file that is named alone."""
    if location.startswith(SCHEMES):
        try:
            facts = web_facts(location)
        except OSError as error:
            return Unit(path, location, 0, "", ("unreadable", explain(error)))
        return _missing(path) if facts is None else Unit(path, location, facts[0], facts[1])
    if is_remote(location):
        from apache_beam.io.filesystem import BeamIOError

        try:
            found = filesystems().match([location])[0].metadata_list
        except (BeamIOError, ValueError, OSError, ImportError) as error:
            raise UserError(f"source: {location!r} cannot be read: {explain(error)}") from None
        if not found:
            return _missing(path)
        size = found[0].size_in_bytes
        return Unit(path, location, size, f"{size}:{found[0].last_updated_in_seconds}")
    if not os.path.exists(location):
        return _missing(path)
    if os.path.isdir(location):
        return Unit(path, location, 0, "", ("not_regular_file", "a folder, and no file"))
    unit = next(iter(list_files(location, Globs(("**",)))))
    return replace(unit, path=path)


def _missing(path: str) -> Unit:
    return Unit(path, path, 0, "", ("missing_file", "the document lists it, and it is not there"))


def _joined(folder: str, path: str) -> str:
    if folder.startswith(SCHEMES):
        path = quote(path, safe="/%")
    return f"{folder.rstrip('/')}/{path}"


def _patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Croissant's patterns as ours: its ``*`` crosses folders, as in mlcroissant."""
    return tuple("/".join(_crossing(pattern.removeprefix("./").split("/"))) for pattern in patterns)


def _crossing(components: list[str]) -> Iterator[str]:
    for place, component in enumerate(components, start=1):
        if component == "*" and place < len(components):
            yield "?**"  # one folder at least
        else:
            yield component if component == "**" else re.sub(r"\*+", "**", component)


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
