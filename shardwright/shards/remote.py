"""Files of a store that is reached over a network, streamed into the cache and checked."""

from collections.abc import Generator
from typing import Final

from shardwright.errors import DataError
from shardwright.metadata.connection import WEB, Connection, FailedError, Retries
from shardwright.metadata.filelist import ListedFile
from shardwright.shards.cache import Partial, StoppedError, wait

# Bytes of one request where a file is read by ranges, and of one read where it is streamed.
_RANGE: Final = 16 * 2**20
_READ: Final = 2**20


def lost(file: ListedFile) -> str:
    """What a damaged file means, and what to do: the end of an error's message."""
    samples = f"its samples (0 to {file.rows - 1} of {file.path})" if file.rows else file.path
    return f"{samples} cannot be read; put the file there again or run the curation again"


class Remote:
    """A folder of a store, for reading. Picklable, and usable after a fork."""

    def __init__(self, location: str, retries: Retries) -> None:
        self._connection = Connection(location, retries)

    def forget(self) -> None:
        """Drops connections that belong to another process."""
        self._connection.forget()

    def url(self, path: str) -> str:
        """Address of a file, without user and password."""
        return self._connection.url(path)

    def read(self, path: str) -> bytes:
        """A small file whole.

        Raises:
            DataError: It could not be had in as many attempts as there are.
        """
        connection, address = self._connection, self._connection.address(path)

        def attempt() -> bytes:
            data: bytes = connection.attempt(lambda files: files.cat_file(address))
            return data

        return connection.patiently(path, attempt)

    def download(self, file: ListedFile, into: Partial) -> None:
        """Streams a file into the cache and checks it.

        Raises:
            DataError: It could not be had in as many attempts as there are, or its bytes were not
                those of the manifest twice.
            StoppedError: The work was called off.
        """

        def pause(seconds: float) -> None:
            wait(into.stopped, seconds)

        for _ in range(2):
            self._connection.patiently(file.path, lambda: self._stream(file, into), pause)
            if into.bytes == file.bytes and into.sha256 == file.sha256:
                return
        found = (
            f"has sha256 {into.sha256}"
            if into.bytes == file.bytes
            else f"has more than {file.bytes} bytes"
        )
        raise DataError(
            f"{self.url(file.path)}: {found}, the manifest says sha256 {file.sha256}, and so it "
            f"came twice; {lost(file)}"
        )

    def _stream(self, file: ListedFile, into: Partial) -> None:
        into.restart()
        for block in self._blocks(file):
            if into.stopped.is_set():
                raise StoppedError
            # One byte more than expected says enough.
            into.write(block[: file.bytes + 1 - into.bytes])
            if into.bytes > file.bytes:
                return
        if into.bytes < file.bytes:
            raise FailedError(f"it ended after {into.bytes} of {file.bytes} bytes")

    def _blocks(self, file: ListedFile) -> Generator[bytes, None, None]:
        """Blocks of a file in order: one request over HTTP, one for each range elsewhere."""
        web = self._connection.protocol in WEB
        how = {"block_size": 0} if web else {"block_size": _RANGE, "cache_type": "none"}
        if not file.bytes:  # fsspec takes a size of 0 for an unknown one
            return
        address = self._connection.address(file.path)
        stream = self._connection.attempt(
            lambda files: files.open(address, "rb", size=file.bytes, **how)
        )
        try:
            while block := self._connection.attempt(
                lambda _: stream.read(_READ if web else _RANGE)
            ):
                yield block
        finally:
            stream.close()
