"""Members of zip archives."""

import itertools
import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from shardwright.pipelines.sources.members import CORRUPTION, Member, MemberError
from shardwright.pipelines.sources.storage import explain

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2}
_ENCRYPTED = 0x1
_END = b"PK\x05\x06"
_MEMBER_HEADER = 30  # bytes at least


def zip_members(file: BinaryIO) -> Iterator[Member]:
    """Yields the members in the order of the archive's directory, folders left out.

    Raises:
        zipfile.BadZipFile: The archive has no directory, or a broken one; or an exception of
            ``CORRUPTION``.
    """
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if not infos:
            _check_empty(file)
        overlapping = _overlapping(infos)
        for info in infos:
            if info.filename.endswith("/"):
                continue
            mode = info.external_attr >> 16
            problem: tuple[str, str] | None = None
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                problem = ("not_regular_file", "a link or a device, and no file")
            elif info.flag_bits & _ENCRYPTED:
                problem = ("encrypted", "the member is encrypted")
            elif info.compress_type not in _METHODS:
                problem = ("unreadable", f"compression method {info.compress_type} is unknown")
            elif info.header_offset in overlapping:
                problem = ("unreadable", "its bytes are another member's too")
            yield Member(info.filename, info.file_size, partial(_read, archive, info), problem)


def _check_empty(file: BinaryIO) -> None:
    """Raises where something stands in front of a directory that lists nothing."""
    file.seek(0)
    if file.read(len(_END)) != _END:
        raise zipfile.BadZipFile("the directory lists nothing, and more is there")


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Where members begin that reach into the next one.

    A bomb's do, so that every member of thousands inflates the same bytes (Fifield 2019, "A better
    zip bomb"); Python refuses such members itself from 3.11.8 on.
    """
    in_order = sorted((info.header_offset, info.compress_size) for info in infos)
    return {
        offset
        for (offset, size), (following, _) in itertools.pairwise(in_order)
        if offset + _MEMBER_HEADER + size > following
    }


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    try:
        with archive.open(info) as member:
            return member.read(max_bytes)
    except (zipfile.BadZipFile, RuntimeError, *CORRUPTION) as error:
        raise MemberError(explain(error)) from None
