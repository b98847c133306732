"""Files of a store that is reached over a network, by fsspec; patient with it, within bounds."""

import random
import re
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from shardwright.errors import DataError, UserError
from shardwright.metadata.filelist import ListedFile
from shardwright.shards.cache import Partial, StoppedError, wait

T = TypeVar("T")

_WEB: Final = ("http", "https")
_S3: Final = ("s3", "s3a")
# What to install for the protocols that a class of fsspec needs more for.
_INSTALL: Final = {
    **dict.fromkeys(_WEB, "'fsspec[http]'"),
    **dict.fromkeys(_S3, "'shardwright[aws]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
}
# Bytes of one request where a file is read by ranges, and of one read where it is streamed.
_RANGE: Final = 16 * 2**20
_READ: Final = 2**20


@dataclass(frozen=True)
class Retries:
    """How long to try: with the defaults five times, within about 8 s beside the requests.

    Attributes:
        tries: Attempts in all, at least 1.
        first_wait: Seconds after the first failure; they double with every further one, and each
            is drawn from half of it to one and a half, so that many ranks do not come back at once.
        timeout: Seconds without a connection, or without a byte, after which an attempt has failed.
    """

    tries: int = 5
    first_wait: float = 0.5
    timeout: float = 20.0


def lost(file: ListedFile) -> str:
    """What a damaged file means, and what to do: the end of an error's message."""
    samples = f"its samples (0 to {file.rows - 1} of {file.path})" if file.rows else file.path
    return f"{samples} cannot be read; put the file there again or run the curation again"


class _FailedError(Exception):
    """One attempt failed: what is retried."""


class Remote:
    """A folder of a store.

    Picklable, and usable after a fork: connections stay behind, and new ones are made.

    Attributes:
        location: Its URL, without a final slash.
        retries: How long to try.
    """

    def __init__(self, location: str, retries: Retries) -> None:
        self.location = location.rstrip("/")
        self.retries = retries
        self._protocol = location.partition("://")[0]
        self._files: Any = None
        if self._protocol in _WEB and re.search(r"[?#]", location):
            raise UserError(
                f"{self._shown(location)}: a store's address ends in its folder, without '?' and "
                "'#'; give credentials by fsspec's configuration"
            )
        self._connected()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": None}

    def forget(self) -> None:
        """Drops connections that belong to another process.

        They are kept alive, out of use: what closes them would wait for a thread that is not here.
        """
        _LEFT_BEHIND.append(self._files)
        self._files = None

    def url(self, path: str) -> str:
        """Address of a file, without user and password."""
        return self._shown(self._address(path))

    def read(self, path: str) -> bytes:
        """A small file whole.

        Raises:
            DataError: It could not be had in as many attempts as there are.
        """

        def attempt() -> bytes:
            try:
                data: bytes = self._connected().cat_file(self._address(path))
            except Exception as error:  # whatever a filesystem of fsspec raises
                raise _FailedError(self._explained(error)) from error
            return data

        return self._patiently(path, attempt, threading.Event())

    def download(self, file: ListedFile, into: Partial) -> None:
        """Streams a file into the cache and checks it.

        Raises:
            DataError: It could not be had in as many attempts as there are, or its bytes were not
                those of the manifest twice.
            StoppedError: The work was called off.
        """
        for _ in range(2):
            self._patiently(file.path, lambda: self._stream(file, into), into.stopped)
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
            raise _FailedError(f"it ended after {into.bytes} of {file.bytes} bytes")

    def _blocks(self, file: ListedFile) -> Generator[bytes, None, None]:
        """Blocks of a file in order: one request over HTTP, one for each range elsewhere."""
        web = self._protocol in _WEB
        how = {"block_size": 0} if web else {"block_size": _RANGE, "cache_type": "none"}
        if not file.bytes:  # fsspec takes a size of 0 for an unknown one
            return
        try:
            files, address = self._connected(), self._address(file.path)
            with files.open(address, "rb", size=file.bytes, **how) as stream:
                while block := stream.read(_READ if web else _RANGE):
                    yield block
        except Exception as error:  # whatever a filesystem of fsspec raises
            raise _FailedError(self._explained(error)) from error

    def _patiently(self, path: str, attempt: Callable[[], T], stopped: threading.Event) -> T:
        started, pause = time.monotonic(), self.retries.first_wait
        for left in reversed(range(self.retries.tries)):
            try:
                return attempt()
            except _FailedError as error:
                last = error
            if left:
                wait(stopped, pause * random.uniform(0.5, 1.5))
                pause *= 2
        raise DataError(
            f"{self.url(path)}: could not be fetched in {self.retries.tries} tries over "
            f"{time.monotonic() - started:.1f} s; the last error: {last}; check the address, the "
            "credentials and the network"
        ) from last.__cause__

    def _address(self, path: str) -> str:
        return f"{self.location}/{quote(path) if self._protocol in _WEB else path}"

    def _shown(self, address: str) -> str:
        if self._protocol not in _WEB:
            return address
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _explained(self, error: Exception) -> str:
        """One line that tells no password."""
        status = getattr(error, "status", None)
        if status is not None:
            return f"HTTP status {status}"
        if isinstance(error, FileNotFoundError):
            return "no such file there"
        if isinstance(error, TimeoutError):
            return f"nothing came for {self.retries.timeout:g} s"
        text = " ".join(str(error).split()).replace(self.location, self._shown(self.location))
        return f"{type(error).__name__}: {text}" if text else type(error).__name__

    def _connected(self) -> Any:
        """The filesystem, our own instance: fsspec would share one with other threads' settings."""
        if self._files is None:
            import fsspec

            try:
                files = fsspec.filesystem(
                    self._protocol, skip_instance_cache=True, **self._options()
                )
            except ImportError as error:
                needed = _INSTALL.get(self._protocol)
                remedy = f"pip install {needed}" if needed else str(error)
                raise UserError(
                    f"{self._shown(self.location)}: what {self._protocol}:// needs is not "
                    f"installed; {remedy}"
                ) from None
            except ValueError as error:
                raise UserError(f"{self._shown(self.location)}: {error}") from None
            if self._protocol in _S3:
                files.retries = 1  # we count tries ourselves
            self._files = files
        return self._files

    def _options(self) -> dict[str, Any]:
        """Time-outs, and no tries but ours, beside what fsspec's configuration says."""
        timeout = self.retries.timeout
        ours: dict[str, Any] = {}
        if self._protocol in _WEB:
            import aiohttp

            limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
            ours = {"client_kwargs": {"timeout": limits}}
        elif self._protocol in _S3:
            limit = {"connect_timeout": timeout, "read_timeout": timeout}
            ours = {"config_kwargs": limit | {"retries": {"total_max_attempts": 1}}}
        from fsspec.config import conf

        said = conf.get(self._protocol, {})
        return {name: said.get(name, {}) | value for name, value in ours.items()}


# Connections of a parent process.
_LEFT_BEHIND: list[Any] = []
