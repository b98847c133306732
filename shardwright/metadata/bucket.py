"""Files below one address of an object store: listed, fetched, put, created once, deleted."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from shardwright.errors import UserError
from shardwright.metadata.connection import S3, WEB, Connection, Retries

# A call is given up after three time-outs, and for each byte what this rate takes, bytes a second.
# The clients' own time-outs do not notice every connection that stands still.
_TIMEOUTS: Final = 3
_SLOWEST: Final = 100_000


class Bucket:
    """A folder of a store that can be written to.

    A file appears whole when its last byte has arrived, as object stores have it; there is no
    rename. Every method raises ``DataError`` when it failed as often as it may.

    Attributes:
        location: Its URL, without a final slash.
    """

    def __init__(self, location: str, retries: Retries | None = None) -> None:
        if location.partition("://")[0] in WEB:
            raise UserError(f"{location}: a web server cannot be written to; name an object store")
        self._connection = Connection(location, retries)
        self.location = self._connection.location
        if self._connection.protocol in S3:
            # Of a file in several parts only those that failed are put again.
            self._connection.files.retries = self._connection.retries.tries

    def url(self, path: str) -> str:
        """Address of a file."""
        return self._connection.url(path)

    def files(self, below: str = "") -> dict[str, int]:
        """Path -> bytes of all files, or of those in a folder and the folders in it."""
        self._connection.files.invalidate_cache()
        root = self._connection.files._strip_protocol(self.location)
        found = self._do(below, "find", f"{root}/{below}".rstrip("/"), detail=True)
        return {
            name[len(root) + 1 :]: int(facts["size"])
            for name, facts in found.items()
            if facts["type"] == "file" and len(name) > len(root)
        }

    def read(self, path: str) -> bytes | None:
        """A small file whole, or None where there is none."""
        data: bytes | None = self._do(path, "cat_file", self._connection.address(path), miss=None)
        return data

    def fetch(self, path: str, target: Path, size: int = 0) -> None:
        """Copies a file of so many bytes to the local disk."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._do(path, "get_file", self._connection.address(path), str(target), size=size)

    def put(self, path: str, source: Path) -> None:
        """Copies a local file into the store, in place of what is there."""
        size = source.stat().st_size
        self._do(path, "put_file", str(source), self._connection.address(path), size=size)

    def write(self, path: str, data: bytes) -> None:
        """Puts a small file, in place of what is there."""
        self._do(path, "pipe_file", self._connection.address(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Puts a small file unless there is another: whoever is first has it, in one request.

        The bytes should tell who it was: those of an attempt whose answer was lost are known by
        them.
        """
        with suppress(_ThereError):
            self._do(path, "pipe_file", self._connection.address(path), data, mode="create")
            return True
        return self.read(path) == data

    def delete(self, paths: Iterable[str]) -> None:
        """Removes files; what is not there is no fault."""
        for path in paths:
            self._do(path, "rm_file", self._connection.address(path), miss=None)

    def _do(self, path: str, method: str, *given: Any, size: int = 0, **options: Any) -> Any:
        """Calls a method of the filesystem; ``miss`` is what it gives where there is no file."""
        from fsspec.asyn import sync

        files = self._connection.files
        seconds = _TIMEOUTS * self._connection.retries.timeout + size / _SLOWEST
        has_miss, miss = "miss" in options, options.pop("miss", None)

        def call(_: Any) -> Any:
            try:
                if not files.async_impl:
                    return getattr(files, method)(*given, **options)
                work = getattr(files, f"_{method}")
                return sync(files.loop, work, *given, timeout=seconds, **options)
            except FileNotFoundError:
                if has_miss:
                    return miss
                raise

        def attempt() -> Any:
            try:
                return self._connection.attempt(call)
            except Exception as error:
                if isinstance(error.__cause__, FileExistsError):
                    raise _ThereError from None
                raise

        return self._connection.patiently(path, attempt)


class _ThereError(Exception):
    """A file that was to be created is there."""
