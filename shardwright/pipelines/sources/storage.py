"""Opening and reading what a name names, on this machine or on any of Beam's filesystems.

A local name is a path, in which undecodable bytes are kept by surrogate escapes; a remote one has
a scheme. Local files are opened without following links and without waiting for a pipe's other
end, and what has been opened is looked at before it is read, so that a file which changes into
something else between listing and reading does no harm.
"""

import errno
import io
import os
import re
import stat
import urllib.parse
from typing import Any, BinaryIO

from shardwright.errors import DataError, UserError
from shardwright.metadata.credentials import without_credentials
from shardwright.pipelines.sources.names import shown
from shardwright.pipelines.sources.types import Refusal

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NO_FILE = {errno.ELOOP, errno.ENXIO, errno.ENODEV}


def is_remote(location: str) -> bool:
    """Whether a name is for Beam's filesystems."""
    return _SCHEME.match(location) is not None


def local_path(uri: str) -> str:
    """A plain path of a plain path or a ``file://`` uri."""
    if not uri.startswith("file://"):
        return uri
    host, slash, path = uri[7:].partition("/")
    if host not in ("", "localhost"):
        raise UserError(f"source.uri {uri!r} names the host {host!r}; write file:///path")
    return urllib.parse.unquote(slash + path, errors="surrogateescape")


def open_file(location: str) -> BinaryIO:
    """Opens a file for reading, its bytes as they are stored.

    Raises:
        IsNoFileError: The location is a link, a pipe, a socket, a device or a folder.
        OSError: It cannot be opened.
        DataError: Its store cannot be reached.
    """
    if not is_remote(location):
        return os.fdopen(_open_local(location)[0], "rb")
    if location.startswith(("http://", "https://")):
        from shardwright.pipelines.sources.web import open_web

        return open_web(location)
    from apache_beam.io.filesystem import CompressionTypes

    try:  # by default Beam decompresses by extension
        file = filesystems().open(location, compression_type=CompressionTypes.UNCOMPRESSED)
    except OSError:
        raise
    except Exception as error:  # each store has classes of its own
        raise _away(location, error) from None
    return io.BufferedReader(_StoredFile(location, file))


class _StoredFile(io.RawIOBase):
    """A file of a store. That it cannot be read is no fault of it: another run may read it."""

    def __init__(self, location: str, file: BinaryIO) -> None:
        self._location = location
        self._file = file

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """As the store has it."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Reads some bytes.

        Raises:
            DataError: The store does not give them, however often it is asked.
        """
        try:
            data = self._file.read(len(buffer))
        except Exception as error:
            raise _away(self._location, error) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes it."""
        self._file.close()
        super().close()


def _away(location: str, error: Exception) -> DataError:
    return DataError(
        f"{shown(location)}: its store does not give it ({explain(error)}); run the same command "
        "again when the store is back"
    )


def filesystems() -> Any:
    """Beam's filesystems. They have options from the first pipeline on; that of S3 needs some."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([]))
    return FileSystems


def read_file(location: str, path: str, max_bytes: int) -> bytes | Refusal:
    """Reads a whole file, never more than ``max_bytes`` and one.

    Args:
        location: What to open.
        path: The name for a refusal.
        max_bytes: The most that is accepted.
    """
    try:
        if is_remote(location):
            with open_file(location) as file:
                data = file.read(max_bytes + 1)
            return data if len(data) <= max_bytes else too_large(path, None, max_bytes)
        descriptor, size = _open_local(location)
        try:
            if size > max_bytes:
                return too_large(path, size, max_bytes)
            data = os.read(descriptor, size + 1)
            if len(data) != size:  # it has changed, or its size says nothing (/proc)
                while len(data) <= max_bytes:
                    more = os.read(descriptor, max_bytes + 1 - len(data))
                    if not more:
                        break
                    data += more
        finally:
            os.close(descriptor)
        return data if len(data) <= max_bytes else too_large(path, None, max_bytes)
    except IsNoFileError as error:
        return Refusal(path, "not_regular_file", str(error))
    except OSError as error:
        return Refusal(path, "unreadable", explain(error))


class IsNoFileError(Exception):
    """The location holds something that is no regular file."""


def too_large(path: str, size: int | None, max_bytes: int) -> Refusal:
    """The refusal of an input with more bytes than the recipe's limit."""
    found = "more bytes" if size is None else f"{size:,} bytes"
    return Refusal(path, "too_large", f"{found}; the limit is {max_bytes:,}")


def explain(error: BaseException) -> str:
    """One line for what went wrong, the same in every run and on every machine."""
    if isinstance(error, RecursionError):
        return "nested too deeply"  # how Python says it depends on where it noticed
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return without_credentials(_ADDRESS.sub("", " ".join(shown(str(text)).split())))[:500]


def _open_local(path: str) -> tuple[int, int]:
    """Opens a regular file; returns its descriptor and its size."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise IsNoFileError("a link, a socket or a device, and no file") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise IsNoFileError(f"{kind_of(status.st_mode)}, and no file")
    return descriptor, status.st_size


def kind_of(mode: int) -> str:
    """What a mode of ``stat`` says that a name is."""
    kinds = (
        (stat.S_ISLNK, "a link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((kind for test, kind in kinds if test(mode)), "something unknown")
