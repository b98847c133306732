"""A folder of whole files that the processes of one machine share, bounded in bytes.

A file is named by its hash, so that datasets share what is equal and a rewritten shard is never
taken for the old one. It comes in under its name and ``.partial``, and whoever holds the lock on
that file writes it; at the end it is renamed. There are no other locks, and all of them are
``flock``: the kernel drops them when a process dies, and unlike a pid in a name they tell the dead
from the living across containers and reused pids. A partial file that nobody holds is rubbish,
which the next process to make room removes.

One process fetches a file and the others wait for it. To let all download and rename would need no
waiting, but ranks of a job share the slices of a batch and so want the same shards at the same
time: eight of them would fetch everything eight times.

What takes up room is what the folder lists: whole files, and partial ones at their full size from
the start. Least recently used files (by time of modification, which a use sets) go first. A file
that is mapped can be removed; its bytes are given back when the last process unmaps it.
"""

import errno
import fcntl
import hashlib
import os
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardwright.errors import DataError, UserError
from shardwright.metadata.filelist import ListedFile

_PARTIAL: Final = ".partial"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_OURS: Final = re.compile(r"[0-9a-f]{64}(\.\w+)?(\.partial)?")
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
# Seconds between two looks at a lock, or at room, that another one has.
_POLL: Final = 0.02


class StoppedError(Exception):
    """The work was called off; whoever called it off expects this."""


class Partial:
    """A file on its way into the cache: the writer's end of ``Cache.claim``.

    Attributes:
        file: What is to come.
        bytes: Written since ``restart``.
        fd: Of the open file, or -1.
        named: Whether the partial file is this one: it is written here and can be removed.
        stopped: Set when the work is called off.
    """

    def __init__(self, cache: "Cache", file: ListedFile, stopped: threading.Event) -> None:
        self.stopped = stopped
        self.bytes = 0
        self.fd = -1
        self.file = file
        self.path = cache.path(file)
        self.temporary = self.path.with_name(self.path.name + _PARTIAL)
        self._cache = cache
        self._hash = hashlib.sha256()
        self.named = False

    @property
    def sha256(self) -> str:
        """Hash of what was written since ``restart`` (hex)."""
        return self._hash.hexdigest()

    def restart(self) -> None:
        """Begins at the first byte again; the room stays reserved."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._hash, self.bytes = hashlib.sha256(), 0

    def write(self, block: bytes) -> None:
        """Appends, and removes old files of the cache when the disk is full.

        Raises:
            DataError: The disk is full and nothing is left to remove.
        """
        self._hash.update(block)
        self.bytes += len(block)
        view = memoryview(block)
        while len(view):
            try:
                view = view[os.write(self.fd, view) :]
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                if not self._cache.evict_oldest():
                    raise self._cache.full(self.file) from None

    def commit(self) -> tuple[int, int]:
        """Gives the file its name.

        Returns:
            The device and the inode of the file.

        Raises:
            StoppedError: The work was called off, or somebody removed the partial file.
        """
        os.ftruncate(self.fd, self.bytes)
        os.utime(self.fd)
        # Without this, a machine that loses power can keep the name and lose the bytes.
        os.fsync(self.fd)
        # Alone, since whoever counts at this moment could see neither name.
        with self._cache.alone(), _GUARD:
            if not self.named or not _is(self.temporary, self.fd):
                raise StoppedError
            self.temporary.replace(self.path)
            self.named = False
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def try_lock(self) -> bool:
        """Opens the partial file and takes its lock, unless another holds it."""
        with _GUARD:
            if self.stopped.is_set():
                raise StoppedError
            if self.fd < 0:
                self.fd = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                _OPEN.add(self)
            if not _lock_now(self.fd):
                return False
            # The one that held it renamed or removed it: then this is no longer the partial file.
            self.named = _is(self.temporary, self.fd)
        if not self.named:
            self.close()
        return self.named

    def abandon(self) -> None:
        """Removes the partial file under a writer that still runs; its ``commit`` will raise."""
        if self.named:
            self.temporary.unlink(missing_ok=True)
            self.named = False

    def close(self) -> None:
        """Lets go of the lock; what was not committed is removed."""
        with _GUARD:
            self.abandon()
            if self.fd >= 0:
                fd, self.fd = self.fd, -1
                _OPEN.discard(self)
                # A process that was forked meanwhile may hold the lock too: closing is not enough.
                fcntl.flock(fd, fcntl.LOCK_UN)
                os.close(fd)


@dataclass(frozen=True)
class Cache:
    """The folder and its bound; holds no state, so any number of processes can have one.

    Attributes:
        folder: Where the files are; it exists.
        limit: Bytes that the files may take.
    """

    folder: Path
    limit: int

    def path(self, file: ListedFile) -> Path:
        """Where the file is, or would be: its hash and its suffix.

        Raises:
            DataError: The manifest gives it no hash.
        """
        if not _HASH.fullmatch(file.sha256):
            raise DataError(f"{file.path}: the manifest says sha256 {file.sha256!r}, no such hash")
        name = file.sha256 + Path(file.path).suffix
        return self.folder / (name if _OURS.fullmatch(name) else file.sha256)

    @contextmanager
    def claim(self, file: ListedFile, stopped: threading.Event) -> Generator[Partial, None, None]:
        """Gives the right to bring a file, once nobody else has it.

        Whoever had it may have brought the file, so look again inside the block.

        Raises:
            StoppedError: ``stopped`` was set while waiting.
        """
        partial = Partial(self, file, stopped)
        try:
            while not partial.try_lock():
                if partial.fd >= 0:
                    stopped.wait(_POLL)
            yield partial
        finally:
            partial.close()

    def reserve(self, partial: Partial) -> None:
        """Makes room for a file and takes it, on the disk too.

        Waits for files that others are fetching when there is nothing to remove but these.

        Raises:
            UserError: The cache may not grow to that size.
            DataError: The disk is full and nothing is left to remove.
            StoppedError: The work was called off while waiting.
        """
        size = partial.file.bytes
        if size > self.limit:
            raise UserError(
                f"cache_bytes is {self.limit}, and {partial.file.path} alone takes {size}; give "
                "the cache room for at least the shards that are read together"
            )
        while not self._reserve_now(partial, size):
            if partial.stopped.wait(_POLL):
                raise StoppedError

    def _reserve_now(self, partial: Partial, size: int) -> bool:
        with self.alone():
            whole, others = self._listed(partial.temporary.name)
            total = others + sum(held for _, held, _ in whole)
            while whole and total + size > self.limit:
                _, freed, path = whole.pop()
                path.unlink(missing_ok=True)
                total -= freed
            if total + size > self.limit:
                return False
            while size:
                try:
                    os.posix_fallocate(partial.fd, 0, size)
                    break
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
                    os.ftruncate(partial.fd, 0)
                    if whole:
                        whole.pop()[2].unlink(missing_ok=True)
                    elif others:
                        return False
                    else:
                        raise self.full(partial.file) from None
        return True

    def evict_oldest(self) -> bool:
        """Removes the file that was not used for the longest time; False when there is none."""
        with self.alone():
            whole, _ = self._listed("")
            if whole:
                whole[-1][2].unlink(missing_ok=True)
        return bool(whole)

    def sweep(self) -> None:
        """Removes partial files whose process died."""
        with self.alone():
            self._listed("")

    def full(self, file: ListedFile) -> DataError:
        """The error for a disk on which nothing more can be removed."""
        free = os.statvfs(self.folder)
        return DataError(
            f"{self.folder}: no space left for {file.bytes} bytes of {file.path}; "
            f"{free.f_bavail * free.f_frsize} bytes are free there and the cache holds nothing "
            "more that it could remove; free some space or put the cache on another disk"
        )

    def _listed(self, own: str) -> tuple[list[tuple[int, int, Path]], int]:
        """Time of use, size and path of whole files, the oldest last; bytes of partial ones.

        Dead partial files are removed on the way, ``own`` is left out. Files with names that are
        none of the cache's are not counted and never touched.
        """
        whole, partial = [], 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name == own or not _OURS.fullmatch(entry.name):
                    continue
                with suppress(FileNotFoundError):  # another one removed or renamed it
                    status = entry.stat(follow_symlinks=False)
                    path = self.folder / entry.name
                    if not entry.name.endswith(_PARTIAL):
                        whole.append((status.st_mtime_ns, status.st_size, path))
                    elif not _removed_dead(path):
                        partial += status.st_size
        return sorted(whole, reverse=True), partial

    @contextmanager
    def alone(self) -> Generator[None, None, None]:
        """One process at a time counts, removes and reserves: a lock on the folder itself."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def abandon_all(stopped: threading.Event) -> None:
    """Removes at once what is being written for work that was called off."""
    with _GUARD:
        for partial in _OPEN:
            if partial.stopped is stopped:
                partial.abandon()


def wait(stopped: threading.Event, seconds: float) -> None:
    """Sleeps, unless the work is called off.

    Raises:
        StoppedError: It was.
    """
    if stopped.wait(seconds):
        raise StoppedError


def touch(path: Path) -> None:
    """Notes that a file is in use; one that was removed meanwhile stays so."""
    now = time.time_ns()
    with suppress(FileNotFoundError):
        os.utime(path, ns=(now, now))


def _lock_now(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, fd: int) -> bool:
    """Whether the name stands for the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _removed_dead(path: Path) -> bool:
    """Removes a partial file if nobody writes it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _lock_now(fd):
            return False
        if _is(path, fd):
            path.unlink()
        return True
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


# Partial files of this process, and who may change them. A forked child closes its copies: they
# would keep the locks of a parent that is killed.
_OPEN: set[Partial] = set()
_GUARD = threading.RLock()


def _forked() -> None:
    global _GUARD
    _GUARD = threading.RLock()
    for partial in _OPEN:
        with suppress(OSError):  # one that was being closed
            os.close(partial.fd)
        partial.fd, partial.named = -1, False
    _OPEN.clear()


os.register_at_fork(after_in_child=_forked)
