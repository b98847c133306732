"""Members of archives: tar (plain, gzip, bzip2, xz) and zip, streamed and never unpacked to disk.

A member is an input and is named ``archive.tar!member``. Headers are hints: a member is refused
for the size that its header claims, and is never read beyond the limit whatever it claims.
"""

import itertools
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from shardwright.pipelines.sources.listing import count_inputs, list_suffixed
from shardwright.pipelines.sources.members import CORRUPTION, Member, MemberError
from shardwright.pipelines.sources.names import Globs, folder_label, shown
from shardwright.pipelines.sources.storage import IsNoFileError, explain, open_file, too_large
from shardwright.pipelines.sources.tars import tar_members
from shardwright.pipelines.sources.types import Input, Refusal, Unit
from shardwright.pipelines.sources.zips import zip_members

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
_NESTED_SUFFIXES = (*SUFFIXES, ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".jar", ".whl")
_NESTED_MAGIC = re.compile(
    rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|BZh[1-9]1AY&SY|\xfd7zXZ\0|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07"
    rb"|\x28\xb5\x2f\xfd|.{257}ustar",
    re.DOTALL,
)
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class ArchiveSource:
    """Members of an archive, or of all archives of a folder or a glob.

    Attributes:
        uri: A folder, an archive or a glob.
        globs: Which members are wanted, by their name in the archive.
        max_bytes: Most bytes of a member; a larger one is not inflated beyond it.
        labelled: Whether the folder that holds a member is its label.
    """

    uri: str
    globs: Globs
    max_bytes: int
    labelled: bool

    def units(self, limit: int | None) -> Iterator[Unit]:
        """Lists the archives; with a limit their members are counted by reading them."""
        archives = list_suffixed(self.uri, Globs(), SUFFIXES)
        return archives if limit is None else count_inputs(archives, limit, self)

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every wanted member, in the archives' order."""
        for unit in units:
            yield from itertools.islice(self._read(unit), unit.take)

    def _read(self, unit: Unit) -> Iterator[Input | Refusal]:
        if unit.problem is not None:
            yield Refusal(unit.path, *unit.problem)
            return
        try:
            with open_file(unit.location) as file:
                seen: set[str] = set()
                for member in _members(file, unit.path, self.max_bytes + 1):
                    found = self._member(unit.path, member, seen)
                    if found is not None:
                        yield found
        except IsNoFileError as error:
            yield Refusal(unit.path, "not_regular_file", str(error))
        except (tarfile.TarError, zipfile.BadZipFile, *CORRUPTION) as error:
            yield Refusal(unit.path, "unreadable_archive", explain(error))

    def _member(self, archive: str, member: Member, seen: set[str]) -> Input | Refusal | None:
        """One member as an input, as a refusal, or as None when it is not wanted."""
        raw = shown(member.name)
        components = re.split(r"[/\\]", raw)
        escapes = ".." in components or _ABSOLUTE.match(raw) is not None
        name = raw if escapes else "/".join(c for c in raw.split("/") if c not in ("", "."))
        if not name:
            return Refusal(f"{archive}!", "unreadable", "a member without a name")
        if not self.globs.wants(name):
            return None
        path = f"{archive}!{name}"
        if name in seen:
            return Refusal(path, "duplicate_path", "the archive has an earlier member of this name")
        seen.add(name)
        if escapes:
            return Refusal(path, "path_escape", "the name leads out of the archive")
        if member.problem is not None:
            return Refusal(path, *member.problem)
        if name.lower().endswith(_NESTED_SUFFIXES):
            return Refusal(path, "nested_archive", "an archive in an archive; unpack it first")
        if member.size > self.max_bytes:
            return too_large(path, member.size, self.max_bytes)
        try:
            data = member.read(self.max_bytes + 1)
        except MemberError as error:
            return Refusal(path, "unreadable", str(error))
        if len(data) > self.max_bytes:
            return too_large(path, None, self.max_bytes)
        if _NESTED_MAGIC.match(data):
            return Refusal(path, "nested_archive", "an archive in an archive; unpack it first")
        label = folder_label(name) if self.labelled else None
        return Input(path, data, label=label)


def _members(file: BinaryIO, path: str, max_bytes: int) -> Iterator[Member]:
    head = file.read(4)
    file.seek(0)
    if path.lower().endswith(".zip") or head in (b"PK\x03\x04", b"PK\x05\x06"):
        return zip_members(file)
    return tar_members(file, max_bytes)
