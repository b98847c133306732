"""Members of tar archives, read forwards only and bounded in memory.

Python's ``tarfile`` ends quietly at a broken header and never reads on to a compressed stream's
checksum; here both are errors, because what follows would be lost without a trace.
"""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, Self, cast

from shardwright.pipelines.sources.members import Member

_CHUNK = 1 << 16
_HEADER_BYTES = 1 << 20  # most that a long name or a pax header may hold
_PADDING_BYTES = 1 << 26  # how far behind the end marker the checksum is looked for
_XZ_MEMORY = 1 << 28


def tar_members(file: BinaryIO, max_bytes: int) -> Iterator[Member]:
    """Yields the members in the archive's order, folders left out.

    Args:
        file: The archive, compressed or not.
        max_bytes: The most that anyone will read of a member.

    Raises:
        tarfile.TarError: The archive is broken or cut short; or an exception of ``CORRUPTION``.
    """
    inflated = _inflated(file)
    stream = _Forwards(inflated, max(max_bytes, _HEADER_BYTES), seeks=inflated is file)
    with _Archive(
        fileobj=cast(BinaryIO, stream),
        mode="r",
        tarinfo=_StrictInfo,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # else every header stays in memory
            if info.isdir():
                continue
            problem = None if info.isreg() else ("not_regular_file", f"{_kind(info)}, and no file")
            yield Member(info.name, info.size, partial(_read, archive, info), problem)
    if inflated is not file:
        stream.skip(_PADDING_BYTES)


def _read(archive: tarfile.TarFile, info: tarfile.TarInfo, max_bytes: int) -> bytes:
    member = archive.extractfile(info)
    assert member is not None
    with member:
        return member.read(min(info.size, max_bytes))


class _StrictInfo(tarfile.TarInfo):
    """A header that is broken, or missing where the end marker should stand, is an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # the end marker, which tarfile knows
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the archive is cut short: it has no end marker")
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a broken header: {error}") from None


class _Archive(tarfile.TarFile):
    """Declares the list of headers seen, which is emptied as we go."""

    members: list[tarfile.TarInfo]


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link"
    return "a pipe" if info.isfifo() else "a device"


class _Forwards:
    """A file that is read forwards only, and never much at once."""

    def __init__(self, file: BinaryIO, most: int, seeks: bool) -> None:
        self._file = file
        self._most = most
        self._seeks = seeks
        self._at = 0

    def read(self, size: int) -> bytes:
        if size > self._most:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        data = self._file.read(size)
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, target: int) -> None:
        if target < self._at:
            raise tarfile.ReadError("the archive points backwards")
        if self._seeks:
            self._at = self._file.seek(target)
        else:
            self.skip(target - self._at)

    def skip(self, count: int) -> None:
        while count and (data := self._file.read(min(count, _CHUNK))):
            self._at += len(data)
            count -= len(data)


def _inflated(file: BinaryIO) -> BinaryIO:
    """The archive without its compression, which its first bytes tell."""
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if head.startswith(b"\xfd7zXZ\0"):
        return cast(BinaryIO, io.BufferedReader(_Xz(file), _CHUNK))
    return file


class _Xz(io.RawIOBase):
    """Xz streams with a bound on the memory that they may ask for, which ``LZMAFile`` lacks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
        self._fresh = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        while True:
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data
                self._decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
                self._fresh = True
            if not data and self._decoder.needs_input:
                data = self._file.read(_CHUNK)
                if not data:
                    if self._fresh:
                        return b""
                    raise EOFError("compressed file ended before the end-of-stream marker")
            if self._fresh:
                data = data.lstrip(b"\0")  # padding between streams
                if not data:
                    continue
                self._fresh = False
            inflated = self._decoder.decompress(data, size)
            if inflated:
                return inflated
