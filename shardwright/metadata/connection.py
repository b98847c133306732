"""A connection to a store that is reached over a network, by fsspec: patient, within bounds."""

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from shardwright.errors import DataError, UserError

T = TypeVar("T")

WEB: Final = ("http", "https")
S3: Final = ("s3", "s3a")
# What to install for the protocols that a class of fsspec needs more for.
_INSTALL: Final = {
    **dict.fromkeys(WEB, "'fsspec[http]'"),
    **dict.fromkeys(S3, "'shardwright[aws]'"),
    **dict.fromkeys(("gs", "gcs"), "'shardwright[gcp]'"),
}


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


class FailedError(Exception):
    """One attempt failed: what is retried."""


class Connection:
    """A folder of a store.

    Picklable, and usable after a fork: what is connected stays behind, and is made anew.

    Attributes:
        location: Its URL, without a final slash.
        protocol: The URL's scheme.
        retries: How long to try.
    """

    def __init__(self, location: str, retries: Retries | None = None) -> None:
        self.location = location.rstrip("/")
        self.protocol = location.partition("://")[0]
        self.retries = retries or Retries()
        self._files: Any = None
        if self.protocol in WEB and re.search(r"[?#]", location):
            raise UserError(
                f"{self.shown(location)}: a store's address ends in its folder, without '?' and "
                "'#'; give credentials by fsspec's configuration"
            )
        _ = self.files

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": None}

    def forget(self) -> None:
        """Drops what belongs to another process.

        It is kept alive, out of use: what closes it would wait for a thread that is not here.
        """
        _LEFT_BEHIND.append(self._files)
        self._files = None

    def address(self, path: str) -> str:
        """What the filesystem calls a file."""
        return f"{self.location}/{quote(path) if self.protocol in WEB else path}"

    def url(self, path: str) -> str:
        """Address of a file, without user and password."""
        return self.shown(self.address(path))

    def shown(self, address: str) -> str:
        """An address without user and password."""
        if self.protocol not in WEB:
            return address
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def attempt(self, work: Callable[[Any], T]) -> T:
        """Does something with the filesystem once.

        Raises:
            FailedError: It failed, for whatever reason a filesystem of fsspec has.
        """
        try:
            return work(self.files)
        except Exception as error:
            raise FailedError(self._explained(error)) from error

    def patiently(
        self, path: str, attempt: Callable[[], T], wait: Callable[[float], None] | None = None
    ) -> T:
        """Tries what may raise ``FailedError`` until it does not.

        Raises:
            DataError: It failed as often as it may.
        """
        started, pause = time.monotonic(), self.retries.first_wait
        for left in reversed(range(self.retries.tries)):
            try:
                return attempt()
            except FailedError as error:
                last = error
            if left:
                (wait or time.sleep)(pause * random.uniform(0.5, 1.5))
                pause *= 2
        raise DataError(
            f"{self.url(path)}: failed in {self.retries.tries} tries over "
            f"{time.monotonic() - started:.1f} s; the last error: {last}; check the address, the "
            "credentials and the network"
        ) from last.__cause__

    def _explained(self, error: Exception) -> str:
        """One line that tells no password."""
        status = getattr(error, "status", None)
        if status is not None:
            return f"HTTP status {status}"
        if isinstance(error, FileNotFoundError):
            return "no such file there"
        if isinstance(error, TimeoutError):
            return f"nothing came for {self.retries.timeout:g} s"
        text = " ".join(str(error).split()).replace(self.location, self.shown(self.location))
        return f"{type(error).__name__}: {text}" if text else type(error).__name__

    @property
    def files(self) -> Any:
        """The filesystem, our own instance: fsspec would share one with other threads' settings.

        Raises:
            UserError: There is none for this protocol, or what it needs is not installed.
        """
        if self._files is None:
            import fsspec

            try:
                files = fsspec.filesystem(
                    self.protocol, skip_instance_cache=True, **self._options()
                )
            except ImportError as error:
                needed = _INSTALL.get(self.protocol)
                remedy = f"pip install {needed}" if needed else str(error)
                raise UserError(
                    f"{self.shown(self.location)}: what {self.protocol}:// needs is not "
                    f"installed; {remedy}"
                ) from None
            except ValueError as error:
                raise UserError(f"{self.shown(self.location)}: {error}") from None
            if self.protocol in S3:
                files.retries = 1  # we count tries ourselves
            self._files = files
        return self._files

    def _options(self) -> dict[str, Any]:
        """Time-outs, and no tries but ours, beside what fsspec's configuration says."""
        timeout = self.retries.timeout
        ours: dict[str, Any] = {}
        if self.protocol in WEB:
            import aiohttp

            limits = aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)
            ours = {"client_kwargs": {"timeout": limits}}
        elif self.protocol in S3:
            limit = {"connect_timeout": timeout, "read_timeout": timeout}
            ours = {"config_kwargs": limit | {"retries": {"total_max_attempts": 1}}}
        from fsspec.config import conf

        said = conf.get(self.protocol, {})
        return {name: said.get(name, {}) | value for name, value in ours.items()}


# Filesystems of a parent process.
_LEFT_BEHIND: list[Any] = []
