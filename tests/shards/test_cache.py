"""The cache under several processes, without room, and on a full disk."""

import hashlib
import mmap
import multiprocessing
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from faulty_server import FaultyServer, faulty_server

from shardwright.errors import DataError, UserError
from shardwright.metadata.connection import Retries
from shardwright.metadata.filelist import ListedFile
from shardwright.shards.cache import Cache
from shardwright.shards.store import Store, open_store

SPAWN = multiprocessing.get_context("spawn")
QUICK = Retries(tries=3, first_wait=0.01, timeout=5)
SIZE = 1000


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


def held(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def of(*files: ListedFile) -> list[str]:
    return sorted(f"{file.sha256}.mds" for file in files)


def bounded(server: FaultyServer, cache: Path, files: float) -> Store:
    return open_store(server.url, cache, int(files * SIZE), retries=QUICK)


def age(path: Path, seconds: float) -> None:
    """Lets the last use of a file lie further back."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_least_recently_used_goes_first(server: FaultyServer, tmp_path: Path) -> None:
    a, b, c, d, e = (server.add(f"{name}.mds", SIZE) for name in "abcde")
    stranger = tmp_path / "notes.txt"
    stranger.write_bytes(bytes(10 * SIZE))
    (tmp_path / ("0" * 63)).write_bytes(bytes(10 * SIZE))
    with bounded(server, tmp_path, 3.5) as store:
        for seconds, file in ((30, a), (20, b), (10, c)):
            age(store.fetch(file), seconds)
        store.fetch(a)
        store.fetch(d)
        assert held(tmp_path) == sorted([*of(a, c, d), "notes.txt", "0" * 63])
        store.fetch(e)
        assert held(tmp_path) == sorted([*of(a, d, e), "notes.txt", "0" * 63])
    assert server.asked["a.mds"] == 1


def test_room_is_made_before_the_bytes_come(server: FaultyServer, tmp_path: Path) -> None:
    a, b = server.add("a.mds", SIZE), server.add("b.mds", SIZE)
    server.faults["b.mds"].append("stall")
    with bounded(server, tmp_path, 1.5) as store:
        store.fetch(a)
        store.prefetch([b])
        partial = tmp_path / f"{b.sha256}.mds.partial"
        deadline = time.monotonic() + 10
        while not server.busy:
            assert time.monotonic() < deadline
        assert held(tmp_path) == [partial.name]
        assert partial.stat().st_size == SIZE
        # The file that is being fetched is not removed for another: that one waits.
        thread = threading.Thread(target=store.fetch, args=(a,), daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert partial.exists()
        server.go_on.set()
        thread.join(10)
        assert held(tmp_path) == of(a)
        assert store.fetch(b).read_bytes() == server.files["b.mds"]


def test_a_mapped_file_can_be_removed(server: FaultyServer, tmp_path: Path) -> None:
    a, b = server.add("a.mds", SIZE), server.add("b.mds", SIZE)
    with bounded(server, tmp_path, 1.5) as store:
        with store.fetch(a).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        store.fetch(b)
        assert held(tmp_path) == of(b)
        assert mapped[:] == server.files["a.mds"]


def test_a_file_larger_than_the_cache_is_refused(server: FaultyServer, tmp_path: Path) -> None:
    a, b = server.add("a.mds", 500), server.add("b.mds", 1001)
    with bounded(server, tmp_path, 1) as store:
        store.fetch(a)
        with pytest.raises(UserError, match=r"cache_bytes is 1000, and b\.mds alone takes 1001"):
            store.fetch(b)
        assert held(tmp_path) == of(a)


def test_a_hash_that_is_none_names_no_file(server: FaultyServer, tmp_path: Path) -> None:
    with bounded(server, tmp_path / "cache", 9) as store:
        for sha256 in ("../" + "0" * 61, "0" * 65, ""):
            with pytest.raises(DataError, match="no such hash"):
                store.fetch(ListedFile("a.mds", 1, sha256, 1, "mds"))
    file = server.add("a.m/../x d", SIZE)
    assert Cache(tmp_path, 1).path(file) == tmp_path / file.sha256


def test_opened_again_when_removed_in_between(server: FaultyServer, tmp_path: Path) -> None:
    file = server.add("a.mds", SIZE)
    with bounded(server, tmp_path, 9) as store:
        removals = [2]

        def opener(path: Path) -> bytes:
            if removals[0]:
                removals[0] -= 1
                path.unlink()
            return path.read_bytes()

        assert store.open_with(file, opener) == server.files["a.mds"]
        assert server.asked["a.mds"] == 3
        removals[0] = 99
        with pytest.raises(DataError, match="removed from the cache 10 times"):
            store.open_with(file, opener)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.mds").write_bytes(server.files["a.mds"])
    with open_store(str(folder), None, 0) as local, pytest.raises(FileNotFoundError):
        local.open_with(file, lambda path: (path / "none").parent.with_name("b").read_bytes())


def test_a_cleared_folder_is_filled_again(server: FaultyServer, tmp_path: Path) -> None:
    file = server.add("a.mds", SIZE)
    server.faults["a.mds"].append("stall")
    with bounded(server, tmp_path, 9) as store:
        thread = threading.Thread(target=store.fetch, args=(file,), daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.busy:
            assert time.monotonic() < deadline
        for path in tmp_path.iterdir():
            path.unlink()
        # Somebody else's, of which we must not make a whole file.
        (tmp_path / f"{file.sha256}.mds.partial").write_bytes(b"half")
        server.go_on.set()
        thread.join(10)
        assert store.fetch(file).read_bytes() == server.files["a.mds"]
        assert server.asked["a.mds"] == 2
    assert held(tmp_path) == of(file)


def use_all(
    url: str, cache: Path, limit: int, files: list[ListedFile], turns: int, seed: int
) -> None:
    """Fetches files at random, ahead of time too, and looks at every byte."""
    rng = random.Random(seed)
    with open_store(url, cache, limit, retries=QUICK) as store:
        ahead = [rng.choice(files) for _ in range(4)]
        for _ in range(turns):
            ahead = [*ahead[1:], rng.choice(files)]
            store.prefetch(ahead[:3])
            data = store.open_with(ahead[0], Path.read_bytes)
            assert hashlib.sha256(data).hexdigest() == ahead[0].sha256


def in_processes(count: int, target: Callable[..., None], *arguments: object) -> None:
    processes = [SPAWN.Process(target=target, args=(*arguments, i)) for i in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count


def fetch_all(url: str, cache: Path, files: list[ListedFile], number: int) -> None:
    with open_store(url, cache, 10**9, retries=QUICK) as store:
        if number % 2:
            store.prefetch(files)
        for file in files:
            assert hashlib.sha256(store.fetch(file).read_bytes()).hexdigest() == file.sha256


def test_processes_fetch_every_file_once_together(server: FaultyServer, tmp_path: Path) -> None:
    files = [server.add(f"{i}.mds", 300_000) for i in range(20)]
    server.faults["3.mds"] += ["wrong"]
    server.faults["4.mds"] += [500, "cut"]
    in_processes(4, fetch_all, server.url, tmp_path, files)
    assert held(tmp_path) == of(*files)
    assert {path: n for path, n in server.asked.items() if n > 1} == {"3.mds": 2, "4.mds": 3}


def test_never_above_its_bound_under_churn(server: FaultyServer, tmp_path: Path) -> None:
    files = [server.add(f"{i}.mds", SIZE + 50 * i) for i in range(16)]
    limit = 6 * SIZE
    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.0005):
            # What is called off goes at any time.
            with suppress(FileNotFoundError), Cache(tmp_path, limit).alone():
                most = max(most, sum(entry.stat().st_size for entry in os.scandir(tmp_path)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    in_processes(3, use_all, server.url, tmp_path, limit, files, 60)
    over.set()
    watcher.join()
    assert 4 * SIZE < most <= limit
    assert not any(name.endswith(".partial") for name in held(tmp_path))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for four files and a half."""
    mount = shutil.which("mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=4608k", "none", str(disk)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("early", [True, False], ids=["at once", "while writing"])
def test_a_full_disk_is_freed_of_old_files(
    server: FaultyServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    if not early:  # a file system that cannot reserve
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)
    files = [server.add(f"{i}.mds", 2**20) for i in range(7)]
    with open_store(server.url, small_disk, 10**9, retries=QUICK) as store:
        for i, file in enumerate(files):
            age(store.open_with(file, lambda path: path), 100 - i)
        assert held(small_disk) == of(*files[3:])
        for file in files[3:]:
            assert store.fetch(file).read_bytes() == server.files[file.path]
        assert set(server.asked.values()) == {1}
        # All of it at once: what finds no room waits for what is on its way.
        store.prefetch(files)
        for file in files:
            assert store.open_with(file, Path.read_bytes) == server.files[file.path]


@pytest.mark.parametrize("early", [True, False], ids=["at once", "while writing"])
def test_a_disk_that_stays_full_is_an_error(
    server: FaultyServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    if not early:
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: None)
    (small_disk / "other").write_bytes(bytes(4 * 2**20))
    file = server.add("a.mds", 2**20)
    with open_store(server.url, small_disk, 10**9, retries=QUICK) as store:
        with pytest.raises(DataError, match=r"no space left for 1048576 bytes of a\.mds") as error:
            store.fetch(file)
        assert str(small_disk) in str(error.value)
        assert held(small_disk) == ["other"]
        (small_disk / "other").unlink()
        assert store.fetch(file).read_bytes() == server.files["a.mds"]


def test_a_full_disk_without_root(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same by a quota of three files on what ``os.write`` takes."""
    write = os.write

    def limited(fd: int, data: bytes) -> int:
        room = 3.5 * SIZE - sum(path.stat().st_size for path in tmp_path.glob("*.mds"))
        if os.fstat(fd).st_size == SIZE and room < SIZE:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", limited)
    files = [server.add(f"{i}.mds", SIZE) for i in range(6)]
    with bounded(server, tmp_path, 99) as store:
        for i, file in enumerate(files):
            age(store.fetch(file), 100 - i)
    assert held(tmp_path) == of(*files[3:])


def test_a_folder_that_cannot_be_written_is_named(server: FaultyServer, tmp_path: Path) -> None:
    file = server.add("a.mds", SIZE)
    cache = tmp_path / "cache"
    with bounded(server, cache, 9) as store:
        cache.rmdir()
        with pytest.raises(DataError, match=r"cache .*cache: No such file .*, while a\.mds was"):
            store.fetch(file)
