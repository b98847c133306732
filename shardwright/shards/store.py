"""Where shard files come from: a folder, a web server or an object store, always as local paths.

A store gives a file's path once its size and sha256 are those of the manifest. A local folder is
used in place; what is remote goes through a bounded cache that the processes of a machine share.
Threads bring ahead of time what will be asked for. They belong to this process alone: they end
with it, a pickled store has none, and a forked child starts its own.

**How far ahead.** Let a consumer use ``b`` bytes a second of shards of ``s`` bytes, and the store
answer after ``L`` seconds with ``W`` bytes a second over all ``p`` connections. Nobody can keep
from waiting when ``b > W``. Else:

- One connection idles for ``L`` in every ``L + s / W`` seconds; the others fill the gap when
  ``p >= 1 + L W / s``. With 0.1 s and 50 MB/s the four threads of ``parallel=4`` suffice from
  shards of 1.7 MB on; of 64 MB two do.
- A file that starts now shares the line with ``p - 1`` others and is there after ``L + p s / W``;
  until then the consumer uses ``b / s`` files a second. So the depth is
  ``d >= p b / W + b L / s`` files: 5 for shards of 64 MB at ``b = W``, 3 at half of that.
- An order that mixes a window of ``w`` shards needs all ``w`` at its first sample. Ask for the next
  window when one begins: it takes ``L + w s / W`` to come and there are ``w s / b`` seconds, so a
  depth of one window is enough while ``b <= W / (1 + L W / (w s))``, 0.99 of the line for eight
  shards of 64 MB. The cache must hold both windows of every process that reads other shards.

A file that is read by ranges (all stores but HTTP) takes a request, so ``L``, for every 16 MiB.
"""

import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, get_args
from urllib.parse import unquote

from shardwright.errors import DataError, UserError
from shardwright.metadata.connection import Retries
from shardwright.metadata.filelist import ListedFile
from shardwright.metadata.files import sha256_file
from shardwright.shards.cache import Cache, StoppedError, abandon_all, touch
from shardwright.shards.remote import Remote, lost

T = TypeVar("T")

Verify = Literal["first", "always", "size"]
"""When a file that is there is hashed: at its first use in a process, at every use, or never.

Its size is looked at every time, and what is downloaded is always hashed on the way.
"""

_REMOVED: Final = 10
"""Times that a file may be gone from the cache between its fetch and its opening."""


def open_store(
    location: str,
    cache: Path | None,
    cache_bytes: int,
    *,
    verify: Verify = "first",
    parallel: int = 4,
    retries: Retries | None = None,
) -> "Store":
    """Opens a folder of files that a manifest lists.

    Args:
        location: The folder: a path, ``file://``, ``http(s)://``, ``s3://`` or what else fsspec
            has. Credentials and endpoints come from the environment and fsspec's configuration.
        cache: Folder for what is downloaded, made if need be; may be shared by the processes and
            the datasets of one machine. A local location needs none.
        cache_bytes: What the cache may take.
        verify: When a file that is there already is hashed.
        parallel: Most files that threads fetch at a time.
        retries: How long to try.

    Raises:
        UserError: No such folder, no cache for a remote location, a setting that cannot be, or
            what the protocol needs is not installed.
    """
    if verify not in get_args(Verify):
        raise UserError(f"verify is {verify!r}; it is one of {', '.join(get_args(Verify))}")
    if parallel < 1:
        raise UserError(f"parallel is {parallel}; it must be at least 1")
    protocol = re.match(r"(\w[\w+.-]*)://", location)
    if protocol is None or protocol[1] == "file":
        folder = Path(location if protocol is None else unquote(location[len("file://") :]))
        if not folder.is_dir():
            raise UserError(f"{location}: no such folder; name the one that holds _manifest.json")
        return Store(folder.absolute(), None, verify, parallel)
    if cache is None:
        raise UserError(f"{location} is remote; name a folder for its files with cache=")
    if cache_bytes < 1:
        raise UserError(f"cache_bytes is {cache_bytes}; give the cache some room")
    remote = Remote(location, retries or Retries())
    try:
        cache.mkdir(parents=True, exist_ok=True)
        held = Cache(cache.absolute(), cache_bytes)
        held.sweep()
    except OSError as error:
        raise UserError(f"cache={cache}: {error.strerror or error}; name another folder") from None
    return Store(remote, held, verify, parallel)


class Store:
    """Files by the manifest's paths; made by ``open_store``.

    Safe to use from several threads, to pickle and to fork. ``close`` ends the threads and drops
    connections; a later call begins anew.
    """

    def __init__(
        self, origin: Path | Remote, cache: Cache | None, verify: Verify, parallel: int
    ) -> None:
        self._origin = origin
        self._cache = cache
        self._verify = verify
        self._parallel = parallel
        self._begin()

    def _begin(self) -> None:
        # Device, inode and, where others may write, time of writing of files that were sound.
        self._sound: dict[Path, tuple[int, int, int]] = {}
        self._ahead: _Ahead | None = None
        self._lock = threading.Lock()
        _STORES.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_origin", "_cache", "_verify", "_parallel")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fetch(self, file: ListedFile) -> Path:
        """Path of a local file with the bytes that the manifest promises.

        In a cache it can be removed again by another process that needs the room; use
        ``open_with`` to be safe from that. Once open or mapped it stays readable.

        Raises:
            DataError: The file is damaged or cannot be had: names it, its samples, the hash that
                was expected and the one found, or the last error. What a thread ran into while it
                fetched ahead is raised here.
            UserError: The cache may not grow to the size of the file.
        """
        ahead = self._ahead
        if ahead is not None:
            ahead.settle(file)
        return self._bring(file, threading.Event())

    def open_with(self, file: ListedFile, opener: Callable[[Path], T]) -> T:
        """Fetches a file and opens it, again if it was removed from the cache in between.

        Raises:
            DataError: As ``fetch``; or the cache is so small that the file was removed each time.
        """
        for _ in range(_REMOVED):
            try:
                return opener(self.fetch(file))
            except FileNotFoundError:
                if self._cache is None:
                    raise
        raise DataError(
            f"{file.path}: removed from the cache {_REMOVED} times before it could be opened; "
            "cache_bytes is too small for the processes that share it"
        )

    def recheck(self, file: ListedFile) -> None:
        """Looks again at a file that is held open; one of a cache is nobody's to write to.

        Raises:
            DataError: A local file is not the one that was opened any more, as ``fetch`` finds it.
        """
        if self._cache is None:
            self.fetch(file)

    def prefetch(self, files: Sequence[ListedFile]) -> None:
        """Brings files in the background, in this order; returns at once.

        Takes as many, from the first on, as the cache could hold together. Local files are hashed
        ahead. What goes wrong is raised by the ``fetch`` of that file.
        """
        room = None if self._cache is None else self._cache.limit
        wanted = []
        for file in files:
            if room is not None:
                room -= file.bytes
                if room < 0:
                    break
            wanted.append(file)
        with self._lock:
            if self._ahead is None:
                self._ahead = _Ahead(self._bring, self._parallel)
            self._ahead.add(wanted)

    def read(self, path: str) -> bytes:
        """A small file that no manifest lists, such as the manifest itself: unchecked, not cached.

        Raises:
            DataError: It could not be had.
        """
        if isinstance(self._origin, Remote):
            return self._origin.read(path)
        try:
            return (self._origin / path).read_bytes()
        except OSError as error:
            raise DataError(f"{self._origin / path}: {error.strerror}") from None

    def close(self) -> None:
        """Calls off what is fetched ahead; nothing but whole files stays in the cache."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.stop()

    def _bring(self, file: ListedFile, stopped: threading.Event) -> Path:
        if isinstance(self._origin, Path):
            path = self._origin / file.path
            try:
                fault = self._fault(path, file)
            except OSError as error:
                fault = error.strerror or str(error)
            if fault is not None:
                raise DataError(f"{path}: {fault}; {lost(file)}")
            return path
        assert self._cache is not None
        path = self._cache.path(file)
        try:
            while self._fault(path, file) is not None:
                with suppress(StoppedError):
                    self._download(self._origin, self._cache, file, stopped)
                    return path
                # Called off, or somebody cleared the cache's folder.
                if stopped.is_set():
                    raise StoppedError
        except OSError as error:
            raise DataError(
                f"cache {self._cache.folder}: {error.strerror or error}, while {file.path} was "
                "fetched; check the folder, or name another"
            ) from error
        touch(path)
        return path

    def _download(
        self, remote: Remote, cache: Cache, file: ListedFile, stopped: threading.Event
    ) -> None:
        with cache.claim(file, stopped) as partial:
            if self._fault(partial.path, file) is not None:
                cache.reserve(partial)
                remote.download(file, partial)
                self._sound[partial.path] = (*partial.commit(), 0)

    def _fault(self, path: Path, file: ListedFile) -> str | None:
        """What is wrong with a local file, or None."""
        try:
            status = path.stat()
            if status.st_size != file.bytes:
                return f"holds {status.st_size} bytes, the manifest says {file.bytes}"
            # what is fetched from a cache is touched, which says nothing of its bytes
            written = status.st_mtime_ns if self._cache is None else 0
            identity = (status.st_dev, status.st_ino, written)
            if self._verify == "size" or (
                self._verify == "first" and self._sound.get(path) == identity
            ):
                return None
            found = sha256_file(path)
        except FileNotFoundError:
            return "missing"
        if found != file.sha256:
            return f"sha256 is {found}, the manifest says {file.sha256}"
        self._sound[path] = identity
        return None

    def _after_fork(self) -> None:
        # What the parent found sound stays so. Its threads are not here, and its locks may be held
        # by them; what it was fetching is no concern of ours.
        self._lock = threading.Lock()
        self._ahead = None
        if isinstance(self._origin, Remote):
            self._origin.forget()


class _Ahead:
    """Threads that bring files of one store, in one process.

    They are daemons and end when nothing is left to do, so a store that is dropped without
    ``close`` leaves none. ThreadPoolExecutor would not do: the interpreter waits for its threads,
    and they for the network.
    """

    def __init__(self, bring: Callable[[ListedFile, threading.Event], Path], parallel: int) -> None:
        self.stopped = threading.Event()
        self._bring = bring
        self._parallel = parallel
        self._lock = threading.Lock()
        self._waiting: deque[tuple[ListedFile, Future[Path]]] = deque()
        # What waits, is being brought, or failed and was not asked for yet.
        self._known: dict[ListedFile, Future[Path]] = {}
        self._threads = 0
        # Runs at the end of the process, in those of multiprocessing too, where atexit does not.
        self._at_exit = Finalize(self, _call_off, (self.stopped,), exitpriority=0)

    def add(self, files: Sequence[ListedFile]) -> None:
        """Queues files, and starts threads for them while there may be more."""
        with self._lock:
            for file in files:
                if file in self._known:
                    continue
                self._known[file] = Future()
                self._waiting.append((file, self._known[file]))
                if self._threads < self._parallel:
                    self._threads += 1
                    threading.Thread(target=self._run, name="prefetch", daemon=True).start()

    def settle(self, file: ListedFile) -> None:
        """Waits for a file that is being brought, and raises what it ran into.

        One that still waits for its turn is left to the caller.
        """
        future = self._known.get(file)
        if future is None:
            return
        try:
            if not future.cancel():
                with suppress(StoppedError, CancelledError):
                    future.result()
        finally:
            self._forget(file, future)

    def stop(self) -> None:
        """Calls everything off; what was being written is gone when this returns."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            future.cancel()
        self._at_exit()

    def _forget(self, file: ListedFile, future: "Future[Path]") -> None:
        with self._lock:
            if self._known.get(file) is future:
                del self._known[file]

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self.stopped.is_set():
                    self._threads -= 1
                    return
                file, future = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                path = self._bring(file, self.stopped)
            except BaseException as error:  # raised again in the caller's thread
                future.set_exception(error)
            else:
                self._forget(file, future)
                future.set_result(path)


def _call_off(stopped: threading.Event) -> None:
    stopped.set()
    abandon_all(stopped)


def _forked() -> None:
    for store in _STORES:
        store._after_fork()


# Every store of this process, for a child that is forked.
_STORES: weakref.WeakSet[Store] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forked)
