"""Members of zip archives."""

import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from shardwright.pipelines.sources.members import CORRUPTION, Member, MemberError
from shardwright.pipelines.sources.storage import explain

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}
_ENCRYPTED = 0x1


def zip_members(file: BinaryIO) -> Iterator[Member]:
    """Yields the members in the order of the archive's directory, folders left out.

    Raises:
        zipfile.BadZipFile: The archive has no directory, or a broken one; or an exception of
            ``CORRUPTION``.
    """
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            problem: tuple[str, str] | None = None
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                problem = ("not_regular_file", "a link or a device, and no file")
            elif info.flag_bits & _ENCRYPTED:
                problem = ("encrypted", "the member is encrypted")
            elif info.compress_type not in _METHODS:
                problem = ("unreadable", f"compression method {info.compress_type} is unknown")
            yield Member(info.filename, info.file_size, partial(_read, archive, info), problem)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    try:
        with archive.open(info) as member:
            return member.read(max_bytes)
    except (zipfile.BadZipFile, RuntimeError, *CORRUPTION) as error:
        raise MemberError(explain(error)) from None
