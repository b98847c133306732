"""Members of tar archives, read forwards only and bounded in memory.

Python's ``tarfile`` ends quietly at a broken header or at a single block of zeros, and never reads
on to a compressed stream's checksum; here all three are errors, because what follows would be lost
without a trace.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, Self, cast

from shardwright.pipelines.sources.members import Member

_CHUNK = 1 << 16
_HEADER_BYTES = 1 << 20  # most that all headers of a member may hold, and all global ones
_PADDING_BYTES = 1 << 26  # how far behind the end marker the checksum is looked for
_XZ_MEMORY = 1 << 28
# What holds more than this, and more than so many times its size, was made to.
_BOMB_BYTES, _BOMB_TIMES = 1 << 30, 1000
_RECORD = re.compile(rb"([1-9]\d{0,6}) [^=\n]+=")
# tarfile of Python 3.11.9 and older looks for numbers with a pattern that backtracks over digits
# (CVE-2024-6232).
_DIGITS = re.compile(rb"\d{257}")


def tar_members(file: BinaryIO, max_bytes: int) -> Iterator[Member]:
    """Yields the members in the archive's order, folders left out.

    Args:
        file: The archive, compressed or not.
        max_bytes: The most that anyone will read of a member.

    Raises:
        tarfile.TarError: The archive is broken or cut short; or an exception of ``CORRUPTION``.
    """
    stream = _Forwards(file)
    with _Archive(
        fileobj=cast(BinaryIO, stream),
        mode="r",
        tarinfo=_StrictInfo,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # else every header stays in memory
            stream.allow(max_bytes)
            if info.isdir():
                stream.allow(_HEADER_BYTES)
                continue
            problem = None if info.isreg() else ("not_regular_file", f"{_kind(info)}, and no file")
            yield Member(info.name, info.size, partial(_read, archive, info), problem)
            stream.allow(_HEADER_BYTES)
    stream.end()


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

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # One of the methods that tarfile means to be overridden; it reads the records next.
        stream = cast(_Forwards, archive.fileobj)
        stream.expect_records(self.size if self.type == tarfile.XGLTYPE else 0)
        return cast(tarfile.TarInfo, super()._proc_pax(archive))  # type: ignore[misc]


class _Archive(tarfile.TarFile):
    """Declares the list of headers seen, which is emptied as we go."""

    members: list[tarfile.TarInfo]


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link"
    return "a pipe" if info.isfifo() else "a device"


class _Forwards:
    """What an archive holds, read forwards only and never much at once.

    Args:
        file: The archive, compressed or not.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflated = _inflated(file)
        self._at = 0
        self._allowed = _HEADER_BYTES
        self._globals = 0
        self._records_next = False

    def allow(self, count: int) -> None:
        """Allows so many bytes to be read from here on."""
        self._allowed = count

    def expect_records(self, of_all: int) -> None:
        """What is read next are records of a pax header; so many bytes of them stay in memory."""
        self._globals += of_all
        if self._globals > _HEADER_BYTES:
            raise tarfile.ReadError(f"global headers of {self._globals:,} bytes")
        self._records_next = True

    def read(self, size: int) -> bytes:
        self._allowed -= size
        if self._allowed < 0:
            raise tarfile.ReadError(f"headers of more than {_HEADER_BYTES:,} bytes")
        data = self._more(size)
        if self._records_next:
            self._records_next = False
            _check_records(data)
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, target: int) -> None:
        if target < self._at:
            raise tarfile.ReadError("the archive points backwards")
        if self._inflated is self._file:
            self._at = self._file.seek(target)
            return
        while self._at < target and self._more(min(target - self._at, _CHUNK)):
            pass

    def end(self) -> None:
        """Reads what stands behind the end marker: zeros, and what checks the compression.

        Raises:
            tarfile.ReadError: Something else stands there.
        """
        target = self._at + _PADDING_BYTES
        while self._at < target and (data := self._more(_CHUNK)):
            if data.count(0) < len(data):
                raise tarfile.ReadError("more stands behind the end marker")

    def _more(self, size: int) -> bytes:
        data = self._inflated.read(size)
        self._at += len(data)
        if self._at > _BOMB_BYTES and self._at > _BOMB_TIMES * self._file.tell():
            raise tarfile.ReadError(f"inflates to more than {_BOMB_TIMES:,} times its size")
        return data


def _check_records(block: bytes) -> None:
    """Raises unless a pax header is made of records, none of which reaches into another.

    Of keys that reach beyond their record tarfile keeps each whole: gigabytes from a megabyte.
    """
    at = 0
    while at < len(block) and block[at]:
        record = _RECORD.match(block, at)
        end = at + int(record[1]) if record else 0
        if record is None or end <= record.end() or block[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a broken extended header")
        at = end
    if _DIGITS.search(block):
        raise tarfile.ReadError("an extended header with a number of more than 256 digits")


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
