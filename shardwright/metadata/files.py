"""Files that appear whole or not at all, and hashes of their bytes."""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self


def fingerprint(**values: Any) -> str:
    """sha256 (hex) of the values as canonical JSON: equal values, equal fingerprint."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON text with sorted keys and no spaces, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashedFile:
    """A binary file that is written once, hashed on the way, and appears under its name at close.

    The bytes go to a temporary name beside ``path``; ``close`` makes them durable and renames.
    An exception inside the ``with`` block leaves nothing behind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        self._file: BinaryIO = self._temporary.open("wb")
        self._hash = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Hash of what was written so far."""
        return self._hash.hexdigest()

    @property
    def closed(self) -> bool:
        """Whether the file was closed; pyarrow asks."""
        return self._file.closed

    def writable(self) -> bool:
        """Always true; pyarrow asks."""
        return True

    def readable(self) -> bool:
        """Always false; pyarrow asks."""
        return False

    def seekable(self) -> bool:
        """Always false: bytes are hashed in order."""
        return False

    def tell(self) -> int:
        """Bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Hands the bytes to the operating system."""
        self._file.flush()

    def write(self, data: Any) -> int:
        """Appends a buffer."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._file.write(view)
        self.bytes += len(view)
        return len(view)

    def close(self) -> None:
        """Makes the bytes durable and gives the file its name."""
        if self._file.closed:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError:
            self.discard()
            raise
        self._temporary.replace(self._path)

    def discard(self) -> None:
        """Forgets the file, also where the disk is full and closing fails."""
        try:
            self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def make_durable(path: Path) -> None:
    """Has a file that something else wrote, or the names in a folder, on the disk from here on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def has_size(path: Path, size: int) -> bool:
    """Whether a file is there with so many bytes."""
    return path.is_file() and path.stat().st_size == size


def write_whole(path: Path, data: bytes | str) -> None:
    """Writes a file that a reader sees either as it was or as it is now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with HashedFile(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)
