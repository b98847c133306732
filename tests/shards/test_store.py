"""Fetching over real HTTP and S3 from servers that fail as planned, and from folders."""

import dataclasses
import hashlib
import multiprocessing
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_server import FaultyServer, faulty_server
from fsspec.registry import _registry

from shardwright.errors import DataError, UserError
from shardwright.metadata.connection import Retries
from shardwright.metadata.filelist import ListedFile
from shardwright.shards.store import Store, open_store

QUICK = Retries(tries=4, first_wait=0.01, timeout=0.4)
ROOM = 100_000_000


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


@pytest.fixture
def store(server: FaultyServer, tmp_path: Path) -> Iterator[Store]:
    with open_store(server.url, tmp_path / "cache", ROOM, retries=QUICK) as opened:
        yield opened


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def until(true: Callable[[], object], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_a_file_comes_once_and_is_named_by_its_hash(
    server: FaultyServer, store: Store, tmp_path: Path, size: int
) -> None:
    file = server.add("train/shard.00000.mds", size)
    path = store.fetch(file)
    assert path == tmp_path / "cache" / f"{file.sha256}.mds"
    assert path.read_bytes() == server.files[file.path]
    assert store.fetch(file) == path
    assert names(tmp_path / "cache") == [path.name]
    assert server.asked[file.path] == bool(size)


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        ([500, 500], 3),
        ([404], 2),
        ([503, "reset", "cut"], 4),
        (["short"], 2),
        (["stall"], 2),
        (["wrong"], 2),
        (["long"], 2),
        ([500, "wrong", 500, 500], 5),  # each of the two downloads has tries of its own
    ],
)
def test_what_passes_is_overcome(
    server: FaultyServer, store: Store, faults: list[int | str], asked: int
) -> None:
    file = server.add("a.mds", 200_000)
    server.faults[file.path] += faults
    assert store.fetch(file).read_bytes() == server.files[file.path]
    assert server.asked[file.path] == asked


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (500, "HTTP status 500"),
        (403, "HTTP status 403"),
        (404, "no such file there"),
        ("short", "it ended after 199999 of 200000 bytes"),
        ("cut", "ClientPayloadError"),
        ("reset", "ClientPayloadError|Connection reset"),
        ("stall", "nothing came for 0.4 s"),
    ],
)
def test_what_stays_is_an_error_that_names_url_and_reason(
    server: FaultyServer, store: Store, tmp_path: Path, fault: int | str, said: str
) -> None:
    file = server.add("train/a b#1.mds", 200_000)
    server.files["train/a%20b%231.mds"] = server.files[file.path]
    server.faults["train/a%20b%231.mds"] += [fault] * 9
    with pytest.raises(DataError, match=said) as error:
        store.fetch(file)
    assert f"{server.url}/train/a%20b%231.mds: failed in 4 tries" in str(error.value)
    assert server.asked["train/a%20b%231.mds"] == 4
    assert names(tmp_path / "cache") == []
    server.faults.clear()
    assert store.fetch(file).read_bytes() == server.files[file.path]


@pytest.mark.parametrize("fault", ["wrong", "long"])
def test_wrong_bytes_twice_name_shard_hashes_and_samples(
    server: FaultyServer, store: Store, tmp_path: Path, fault: str
) -> None:
    file = server.add("train/a.mds", 200_000)
    server.faults[file.path] += [fault] * 2
    with pytest.raises(DataError) as error:
        store.fetch(file)
    said = str(error.value)
    assert f"{server.url}/train/a.mds: has " in said
    assert f"the manifest says sha256 {file.sha256}" in said
    assert "samples (0 to 9 of train/a.mds)" in said
    data = server.files[file.path]
    wrong = data[:100_000] + bytes([data[100_000] ^ 1]) + data[100_001:]
    found = {"wrong": hashlib.sha256(wrong).hexdigest(), "long": "more than 200000 bytes"}
    assert found[fault] in said
    assert server.asked[file.path] == 2
    assert names(tmp_path / "cache") == []


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        store = open_store(
            url.replace("//", "//user:secret@"), tmp_path / "cache", ROOM, retries=QUICK
        )
        with pytest.raises(DataError) as error:
            store.fetch(ListedFile("a.mds", 1, "0" * 64, 1, "mds"))
    assert f"{url}/a.mds: failed in 4 tries" in str(error.value)
    assert "refused" in str(error.value) or "Cannot connect" in str(error.value)
    assert "secret" not in str(error.value)


def test_waits_double_and_vary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    retries = Retries(timeout=0.2)
    store = open_store("http://127.0.0.1:9", tmp_path, ROOM, retries=retries)
    with pytest.raises(DataError, match="5 tries"):
        store.read("_manifest.json")
    assert len(waits) == 4
    assert all(0.25 * 2**i <= wait <= 0.75 * 2**i for i, wait in enumerate(waits))
    assert waits[1] != 2 * waits[0]


def test_small_files_are_read_whole(server: FaultyServer, store: Store) -> None:
    server.files["_manifest.json"] = b"{}"
    server.faults["_manifest.json"] += [500, "cut"]
    assert store.read("_manifest.json") == b"{}"


def test_prefetch_returns_at_once_and_brings_in_order(
    server: FaultyServer, store: Store, tmp_path: Path
) -> None:
    files = [server.add(f"{i}.mds", 50_000) for i in range(12)]
    for file in files[:4]:
        server.faults[file.path].append("stall")
    patient = open_store(server.url, tmp_path / "other", ROOM)
    patient.prefetch(files)
    patient.prefetch(files)
    until(lambda: server.busy == 4)
    time.sleep(0.1)
    assert set(server.asked) == {f"{i}.mds" for i in range(4)}
    # The one that waits for its turn is fetched at once, in this thread.
    assert patient.fetch(files[9]).read_bytes() == server.files["9.mds"]
    server.go_on.set()
    assert patient.fetch(files[0]).read_bytes() == server.files["0.mds"]
    until(lambda: len(names(tmp_path / "other")) == 12)
    until(lambda: not any(name.endswith(".partial") for name in names(tmp_path / "other")))
    assert set(server.asked.values()) == {1}
    assert server.most_busy <= 5
    patient.close()


def test_what_prefetch_ran_into_is_raised_by_fetch_once(server: FaultyServer, store: Store) -> None:
    good, bad = server.add("good.mds", 1000), server.add("bad.mds", 1000)
    server.faults["bad.mds"] += [500] * 4
    store.prefetch([bad, good])
    assert store.fetch(good).exists()
    with pytest.raises(DataError, match=r"bad\.mds: failed in"):
        store.fetch(bad)
    assert store.fetch(bad).read_bytes() == server.files["bad.mds"]
    assert server.asked["bad.mds"] == 5


def test_prefetch_takes_no_more_than_the_cache_holds(server: FaultyServer, tmp_path: Path) -> None:
    files = [server.add(f"{i}.mds", 1000) for i in range(10)]
    with open_store(server.url, tmp_path / "cache", 4500, retries=QUICK) as small:
        small.prefetch(files)
        until(lambda: len(server.asked) == 4 and not server.busy)
        time.sleep(0.1)
        assert set(server.asked) == {f"{i}.mds" for i in range(4)}


def test_close_calls_off_what_is_under_way(server: FaultyServer, tmp_path: Path) -> None:
    files = [server.add(f"{i}.mds", 50_000) for i in range(6)]
    for file in files:
        server.faults[file.path].append("stall")
    store = open_store(server.url, tmp_path / "cache", ROOM)
    store.prefetch(files)
    until(lambda: len(names(tmp_path / "cache")) == 4)
    store.close()
    assert names(tmp_path / "cache") == []
    server.go_on.set()
    time.sleep(0.2)
    assert names(tmp_path / "cache") == []
    server.faults.clear()
    assert store.fetch(files[0]).read_bytes() == server.files["0.mds"]
    store.prefetch(files)
    assert store.fetch(files[5]).read_bytes() == server.files["5.mds"]
    store.close()


def test_pickled_without_threads_or_connections(server: FaultyServer, store: Store) -> None:
    files = [server.add(f"{i}.mds", 1000) for i in range(4)]
    store.prefetch(files[:2])
    store.fetch(files[0])
    text = pickle.dumps(store)
    assert len(text) < 1000
    with pickle.loads(text) as other:
        other.prefetch(files)
        assert other.fetch(files[3]).read_bytes() == server.files["3.mds"]
        assert other.fetch(files[0]) == store.fetch(files[0])


def test_a_forked_child_starts_its_own_threads(server: FaultyServer, tmp_path: Path) -> None:
    held, free = server.add("held.mds", 50_000), server.add("free.mds", 50_000)
    both = server.add("both.mds", 50_000)
    server.faults["held.mds"].append("stall")
    server.faults["both.mds"].append("stall")
    with open_store(server.url, tmp_path / "cache", ROOM) as store:
        store.prefetch([held, both])
        until(lambda: server.busy == 2)

        def child() -> None:
            store.prefetch([free])
            assert store.fetch(free).stat().st_size == 50_000
            # The parent's thread is bringing this one: wait for it, do not touch its file.
            server.go_on.set()
            os.kill(os.getppid(), signal.SIGUSR1)
            assert store.fetch(both).stat().st_size == 50_000

        before = signal.signal(signal.SIGUSR1, lambda *_: server.go_on.set())
        try:
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join(20)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert process.exitcode == 0
        assert store.fetch(held).read_bytes() == server.files["held.mds"]
        assert store.fetch(both).read_bytes() == server.files["both.mds"]
    assert dict(server.asked) == {"held.mds": 1, "both.mds": 1, "free.mds": 1}


STALLED = """
import sys, time
from pathlib import Path
from shardwright.metadata.filelist import ListedFile
from shardwright.shards.store import open_store
url, cache, how, *listed = sys.argv[1:]
files = [ListedFile(p, int(n), h, 1, "mds") for p, n, h in (f.split() for f in listed)]
store = open_store(url, Path(cache), 10**9)
if how == "fetch":
    store.fetch(files[0])
store.prefetch(files)
if how == "wait":
    time.sleep(60)
sys.stdin.readline()
"""


def stalled(server: FaultyServer, cache: Path, how: str) -> "subprocess.Popen[str]":
    """A process in the middle of three downloads, or of one that it waits for."""
    files = [server.add(f"{i}.mds", 50_000) for i in range(3)]
    for file in files:
        server.faults[file.path].append("stall")
    listed = [f"{file.path} {file.bytes} {file.sha256}" for file in files]
    command = [sys.executable, "-c", STALLED, server.url, str(cache), how, *listed]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: server.busy == (1 if how == "fetch" else 3))
    until(lambda: cache.exists() and len(names(cache)) == server.busy)
    return process


@pytest.mark.parametrize(("how", "exit_code"), [("fetch", 1), ("wait", 1), ("leave", 0)])
def test_the_end_of_a_process_leaves_only_whole_files(
    server: FaultyServer, tmp_path: Path, how: str, exit_code: int
) -> None:
    with stalled(server, tmp_path / "cache", how) as process:
        if exit_code:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGINT if exit_code else 0)
    assert names(tmp_path / "cache") == []
    assert said.count("Traceback") == said.count("\nKeyboardInterrupt") == exit_code, said


def test_a_killed_process_leaves_partial_files_that_the_next_one_removes(
    server: FaultyServer, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with stalled(server, cache, "wait") as process:
        process.kill()
    assert all(name.endswith(".mds.partial") for name in names(cache))
    assert len(names(cache)) == 3
    with open_store(server.url, cache, ROOM, retries=QUICK) as store:
        assert names(cache) == []
        file = server.add("0.mds", 50_000)
        assert store.fetch(file).read_bytes() == server.files["0.mds"]


def test_a_living_process_keeps_its_partial_files(server: FaultyServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with stalled(server, cache, "wait") as process, open_store(server.url, cache, ROOM) as store:
        assert len(names(cache)) == 3
        server.go_on.set()
        until(lambda: len(names(cache)) == 3 and "partial" not in str(names(cache)))
        file = server.add("0.mds", 50_000)
        assert store.fetch(file).read_bytes() == server.files["0.mds"]
        assert server.asked["0.mds"] == 1
        process.kill()


@pytest.mark.parametrize("damage", ["byte", "size"])
def test_a_damaged_file_in_the_cache_is_fetched_again(
    server: FaultyServer, store: Store, tmp_path: Path, damage: str
) -> None:
    file = server.add("a.mds", 1000)
    path = store.fetch(file)
    path.write_bytes(bytes(1000 if damage == "byte" else 999))
    with open_store(server.url, tmp_path / "cache", ROOM) as fresh:
        assert fresh.fetch(file).read_bytes() == server.files["a.mds"]
    assert server.asked["a.mds"] == 2


@pytest.mark.parametrize(("verify", "seen"), [("first", False), ("always", True), ("size", False)])
def test_hashed_at_first_use_always_or_never(
    server: FaultyServer, tmp_path: Path, verify: str, seen: bool
) -> None:
    file = server.add("a.mds", 1000)
    place = (server.url, tmp_path / "cache", ROOM)
    with open_store(*place, verify=verify) as store:
        path = store.fetch(file)
        with path.open("r+b") as damaged:
            damaged.write(b"damage")
        store.fetch(file)
        assert server.asked["a.mds"] == 1 + seen
    with open_store(*place, verify=verify) as store:
        store.fetch(file)
        assert server.asked["a.mds"] == 1 + (verify != "size")


def test_a_folder_is_used_in_place(tmp_path: Path) -> None:
    data = b"shard" * 100
    folder = tmp_path / "with space" / "shards"
    folder.joinpath("train").mkdir(parents=True)
    path = folder / "train" / "a.mds"
    path.write_bytes(data)
    file = ListedFile("train/a.mds", 500, hashlib.sha256(data).hexdigest(), 7, "mds")
    for location in (str(folder), folder.as_uri()):
        with open_store(location, None, 0) as store:
            store.prefetch([file])
            assert store.fetch(file) == path
            assert store.read("train/a.mds") == data
            assert pickle.loads(pickle.dumps(store)).fetch(file) == path
    wrong = dataclasses.replace(file, sha256="0" * 64)
    with open_store(str(folder), None, 0) as store:
        with pytest.raises(DataError, match=r"0 to 6 of train/a\.mds") as error:
            store.fetch(wrong)
        assert all(part in str(error.value) for part in (str(path), file.sha256, "0" * 64))
        store.prefetch([wrong])
        with pytest.raises(DataError, match="sha256 is"):
            store.fetch(wrong)
        with pytest.raises(DataError, match="holds 500 bytes, the manifest says 499"):
            store.fetch(dataclasses.replace(file, bytes=499))
        with pytest.raises(DataError, match=r"b\.mds: missing"):
            store.fetch(dataclasses.replace(file, path="train/b.mds"))
        with pytest.raises(DataError, match="Not a directory"):
            store.fetch(dataclasses.replace(file, path="train/a.mds/b.mds"))
        with pytest.raises(DataError, match="No such file"):
            store.read("_manifest.json")


def test_wrong_use_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/shards"
    for arguments, said in (
        ((str(tmp_path / "none"), None, 0), "none: no such folder"),
        ((url, None, ROOM), "name a folder for its files with cache="),
        ((url, tmp_path, 0), "cache_bytes is 0"),
        ((f"{url}?token=secret", tmp_path, ROOM), r"9/shards: a store's address ends in"),
        (("nosuch://host/shards", tmp_path, ROOM), "Protocol not known: nosuch"),
        ((url, Path("/proc/none"), ROOM), "cache=/proc/none: .*; name another folder"),
    ):
        with pytest.raises(UserError, match=said) as error:
            open_store(*arguments)
        assert "secret" not in str(error.value)
    with pytest.raises(UserError, match="verify is 'never'; it is one of first, always, size"):
        open_store(str(tmp_path), None, 0, verify="never")
    with pytest.raises(UserError, match="parallel is 0"):
        open_store(str(tmp_path), None, 0, parallel=0)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # an earlier test's
    with pytest.raises(UserError, match=re.escape("pip install 'shardwright[aws]'")):
        open_store("s3://bucket/shards", tmp_path, ROOM)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UserError, match=re.escape("pip install 'fsspec[http]'")):
        open_store(url, tmp_path, ROOM)


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, Callable[[str, bytes], object]]]:
    """A bucket of a real S3 server, and what puts objects there."""
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    import boto3

    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("NO_PROXY", "127.0.0.1"),
        ):
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        yield (
            "s3://bucket/curated/shards",
            lambda path, data: client.put_object(
                Bucket="bucket", Key=f"curated/shards/{path}", Body=data
            ),
        )
    server.stop()


def test_s3(bucket: tuple[str, Callable[[str, bytes], object]], tmp_path: Path) -> None:
    location, put = bucket
    files, contents = [], {}
    # The first is read by three ranges.
    for i, size in enumerate((35_000_000, 1000, 0)):
        path = f"train/a b#{i}.mds"
        contents[path] = os.urandom(size)
        put(path, contents[path])
        sha256 = hashlib.sha256(contents[path]).hexdigest()
        files.append(ListedFile(path, size, sha256, 5, "mds"))
    put("_manifest.json", b"{}")
    with open_store(location, tmp_path / "cache", ROOM, retries=QUICK) as store:
        assert store.read("_manifest.json") == b"{}"
        store.prefetch(files)
        for file in files:
            assert store.fetch(file).read_bytes() == contents[file.path]
        with pytest.raises(DataError, match=f"{location}/none: failed in .*no such file there"):
            store.fetch(dataclasses.replace(files[0], path="none", sha256="0" * 64))
        put(files[1].path, bytes(1000))
        store.fetch(files[1]).unlink()
        with pytest.raises(DataError, match=rf"{location}/train/a b#1\.mds: has sha256"):
            store.fetch(files[1])
        put(files[1].path, bytes(999))
        with pytest.raises(DataError, match=r"999 of 1000 bytes|failed in"):
            store.fetch(files[1])


def test_s3_that_is_not_there(
    bucket: tuple[str, Callable[[str, bytes], object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
        with (
            open_store(bucket[0], tmp_path / "cache", ROOM, retries=QUICK) as store,
            pytest.raises(DataError, match=r"4 tries .*Could not connect|EndpointConnection"),
        ):
            store.fetch(ListedFile("a.mds", 1, "0" * 64, 1, "mds"))
