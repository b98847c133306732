"""What goes wrong under a whole training job: an error that says what, or the very same samples.

Processes die, and stores and disks fail, below a loader with workers. Whatever came before the
fault is the beginning of the right order, and a job that goes on gives the rest of it.
"""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed
from faulty_server import FaultyServer, Handler, faulty_server
from shard_files import write_shards
from torch.utils.data import DataLoader

import shardwright
from shardwright.errors import DataError
from shardwright.metadata.connection import Retries
from shardwright.shards import dataset, store
from shardwright.shards.dataset import ShardDataset

SIZES = [9, 12, 7, 11, 8, 10, 12, 3]
TOTAL = sum(SIZES)
BATCH = 4
GLOBAL = 12
QUICK = Retries(tries=3, first_wait=0.01, timeout=5)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), SIZES)


@pytest.fixture
def server(root: Path) -> Iterator[FaultyServer]:
    """Serves the shards; who reads them reads little ahead, and is patient for a short time."""
    with faulty_server() as running, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Retries", lambda: QUICK)
        for name, least in (("_FIRST_BLOCK", 1), ("_BLOCK_SAMPLES", 1), ("_AHEAD", 1)):
            patch.setattr(dataset, name, least)  # shards are so small that one block has them all
        for path in (root / "shards").rglob("*"):
            if path.is_file():
                running.files[path.relative_to(root / "shards").as_posix()] = path.read_bytes()
        yield running


def opened(location: str | Path, cache: Path | None = None, **options: Any) -> ShardDataset:
    given = {"batch_size": BATCH, "window": 2, "seed": 3, "cache": cache} | options
    return shardwright.dataset(location, "train", **given)


def address(server: FaultyServer) -> str:
    return server.url.removesuffix("/shards")


def loader(data: ShardDataset, workers: int = 1) -> DataLoader[Any]:
    # Workers are forked, so that they have the server's short patience.
    return DataLoader(
        data, BATCH, num_workers=workers, multiprocessing_context="fork" if workers else None
    )


def numbers(batches: Any, found: list[int] | None = None) -> list[int]:
    """The samples, put into ``found`` as they come."""
    found = [] if found is None else found
    for batch in batches:
        found += batch["lines"].tolist()
    return found


def until_it_fails(batches: Any, kind: type[Exception], says: str) -> list[int]:
    """What came before the error."""
    found: list[int] = []
    with pytest.raises(kind, match=says):
        numbers(batches, found)
    return found


def until(true: Callable[[], object], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(root: Path) -> list[int]:
    """The right order."""
    found = numbers(DataLoader(opened(root), BATCH))
    assert set(found) == set(range(TOTAL))
    return found


FORK = multiprocessing.get_context("fork")


def rank_of_a_job(
    root: Path, work: Path, rank: int, ranks: int, workers: int, killed: tuple[int, int]
) -> None:
    """A rank on gloo: logs its samples, sums gradients, and rank 0 writes every second cursor.

    It goes on from the last cursor. Of ``killed`` (rank, step) the rank gets a SIGKILL after it has
    logged the step and before the others know.
    """
    torch.set_num_threads(1)
    group = torch.distributed.FileStore(str(work / "store"), ranks)
    torch.distributed.init_process_group("gloo", store=group, rank=rank, world_size=ranks)
    batch = GLOBAL // ranks
    data = shardwright.dataset(root, batch_size=batch, canonical_nodes=2, window=3, seed=5)
    place, first = work / "cursor.json", 0
    if place.exists():
        cursor = json.loads(place.read_text())
        data.resume(cursor)
        first = cursor["global_samples"] // GLOBAL
    with (work / f"seen.{ranks}.{rank}").open("w", buffering=1) as log:
        batches = DataLoader(data, batch, num_workers=workers, multiprocessing_context="fork")
        for step, found in enumerate(batches, first):
            log.write(f"{step} {' '.join(map(str, found['lines'].tolist()))}\n")
            if (rank, step) == killed:
                os.kill(os.getpid(), signal.SIGKILL)
            gradient = found["lines"].sum().double()
            torch.distributed.all_reduce(gradient)
            if rank == 0 and step % 2:
                place.with_suffix(".staged").write_text(
                    json.dumps(data.cursor((step + 1) * GLOBAL))
                )
                place.with_suffix(".staged").replace(place)


def run_ranks(
    root: Path, work: Path, ranks: int, workers: int, killed: tuple[int, int] = (-1, -1)
) -> list[int | None]:
    """Runs a job; returns the ranks' exit codes."""
    (work / "store").unlink(missing_ok=True)
    jobs = [
        FORK.Process(target=rank_of_a_job, args=(root, work, rank, ranks, workers, killed))
        for rank in range(ranks)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    return [job.exitcode for job in jobs]


def seen(work: Path, ranks: int) -> dict[int, list[int]]:
    """The samples of each step over all ranks, as their logs have them."""
    steps: dict[int, list[int]] = {}
    for rank in range(ranks):
        for line in (work / f"seen.{ranks}.{rank}").read_text().splitlines():
            step, *samples = map(int, line.split())
            steps.setdefault(step, []).extend(samples)
    return steps


def test_killed_rank_and_the_job_goes_on_with_fewer(root: Path, tmp_path: Path) -> None:
    codes = run_ranks(root, tmp_path, 3, 1, killed=(1, 3))
    assert codes[1] == -signal.SIGKILL
    assert codes[0] == codes[2] == 1, "the others cannot go on alone"
    cursor = json.loads((tmp_path / "cursor.json").read_text())
    assert cursor["global_samples"] == 2 * GLOBAL
    assert run_ranks(root, tmp_path, 2, 2) == [0, 0]
    before, after = seen(tmp_path, 3), seen(tmp_path, 2)
    steps = -(-TOTAL // GLOBAL)
    assert set(after) == set(range(2, steps))
    # What came after the checkpoint is done again, by the same steps.
    assert sorted(before[2]) == sorted(after[2])
    taken = [n for step in (0, 1) for n in before[step]]
    taken += [n for step in sorted(after) for n in after[step]]
    data = shardwright.dataset(root, batch_size=GLOBAL, canonical_nodes=2, window=3, seed=5)
    assert sorted(taken) == sorted(s["lines"] for s in data)
    assert set(taken) == set(range(TOTAL))
    assert (
        len(taken) - TOTAL == data.global_length - TOTAL < GLOBAL
    )  # only the last step is filled up


def job_with_a_worker(location: str, work: Path) -> None:
    """Logs its samples, its worker's pid and what stopped it."""
    batches = iter(loader(opened(location, work / "cache", window=1)))
    with (work / "seen").open("w", buffering=1) as log:
        try:
            for batch in batches:
                log.write(f"{' '.join(map(str, batch['lines'].tolist()))}\n")
                (worker,) = multiprocessing.active_children()
                (work / "worker").write_text(str(worker.pid))
        except RuntimeError as error:
            (work / "error").write_text(str(error))


def test_worker_killed_while_it_fetches(server: FaultyServer, tmp_path: Path) -> None:
    """Its half of a file is never read, and a job that goes on fetches what is missing."""
    right = numbers(loader(opened(address(server), tmp_path / "other", window=1), 0))
    data = opened(address(server), tmp_path / "cache", window=1)
    order, _ = data.source.order(0).at(np.arange(TOTAL))
    late = data.shards.files[int(order[order != order[0]][0])][1]  # the second shard
    server.faults[late.path].append("stall")
    partial = tmp_path / "cache" / f"{late.sha256}.mds.partial"
    job = FORK.Process(target=job_with_a_worker, args=(address(server), tmp_path))
    job.start()
    until(lambda: partial.exists() and (tmp_path / "worker").exists())
    time.sleep(0.5)  # until what was sent before is there; torch tells a torn message otherwise
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)
    job.join(60)
    assert re.search("exited unexpectedly|killed by signal", (tmp_path / "error").read_text())
    found = list(map(int, (tmp_path / "seen").read_text().split()))
    assert found == right[: len(found)]
    assert 0 < len(found) < len(right)
    assert partial.exists()
    data.resume(data.cursor(len(found)))
    assert found + numbers(loader(data, 2)) == right
    assert not partial.exists()
    assert partial.with_suffix("").read_bytes() == server.files[late.path]


@pytest.mark.parametrize("damage", ["cut", "changed", "longer"])
def test_shard_damaged_on_the_server_between_epochs(
    server: FaultyServer, root: Path, whole: list[int], tmp_path: Path, damage: str
) -> None:
    data = opened(address(server), tmp_path / "cache")
    path = "train/shard.00003.mds"
    batches = loader(data)
    assert numbers(batches) == whole
    right = server.files[path]
    wrong = {"cut": right[:-9], "changed": right[:-9] + bytes(9), "longer": right + b"x"}
    server.files[path] = wrong[damage]
    data.set_epoch(1)
    second = numbers(DataLoader(opened(root, epoch=1), BATCH))
    assert numbers(batches) == second, "what lies in the cache is used"
    for held in (tmp_path / "cache").iterdir():
        held.unlink()
    found = until_it_fails(batches, DataError, rf"{path}.*(has sha256|failed in|has more than)")
    assert found == second[: len(found)]
    assert len(found) < len(second)
    server.files[path] = right
    data.resume(data.cursor(len(found)))
    assert found + numbers(batches) == second


def test_shard_changed_on_the_server_while_it_is_fetched(
    server: FaultyServer, whole: list[int], tmp_path: Path
) -> None:
    """The answer ends with other bytes than it began with; the next one is whole."""
    path = "train/shard.00002.mds"
    server.faults[path] += ["wrong", "cut"]
    assert numbers(loader(opened(address(server), tmp_path / "cache"))) == whole
    assert server.asked[path] == 3


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["replaced", "written over", "cut"])
def test_shard_changed_while_it_is_open(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, how: str
) -> None:
    """Who has it open is told before the next block, and so is who opens it later."""
    copy = tmp_path / "copy"
    for path in (root / "shards").rglob("*"):
        if path.is_file():
            (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(root)).write_bytes(path.read_bytes())
    for name in ("_FIRST_BLOCK", "_BLOCK_SAMPLES"):
        monkeypatch.setattr(dataset, name, BATCH)
    data = opened(copy, window=len(SIZES))
    batches = iter(loader(data, workers))
    found = numbers([next(batches) for _ in range(TOTAL // BATCH // 2)])  # all shards are open
    for path in (copy / "shards/train").glob("*.mds"):
        size = path.stat().st_size
        if how == "replaced":
            other = path.with_suffix(".new")
            other.write_bytes(bytes(size))
            other.replace(path)
        else:
            with path.open("r+b") as file:
                file.seek(size - 9)
                file.write(b"spoilt")
                file.truncate(size - 1 if how == "cut" else size)
    right = numbers(DataLoader(opened(root, window=len(SIZES)), BATCH))
    told = "holds" if how == "cut" else "sha256 is"
    with pytest.raises(DataError, match=rf"shard\.\d+\.mds: {told}"):
        numbers(batches, found)
    assert found == right[: len(found)]
    assert len(found) < len(right)
    with pytest.raises(DataError, match=rf"shard\.\d+\.mds: {told}"):
        numbers(loader(opened(copy, window=len(SIZES)), workers))


def test_full_disk_under_a_worker(
    server: FaultyServer, whole: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes three shards, of which other programs then take the room."""
    cache = tmp_path / "cache"
    room = 3.5 * max(len(data) for data in server.files.values())
    reserve = os.posix_fallocate
    told = FORK.Value("d", room)

    def limited(fd: int, first: int, size: int) -> None:
        if sum(path.stat().st_size for path in cache.iterdir()) + size > told.value:
            raise OSError(28, "No space left on device")
        reserve(fd, first, size)

    monkeypatch.setattr(os, "posix_fallocate", limited)
    data = opened(address(server), cache)
    assert numbers(loader(data)) == whole, "old shards make room"
    assert sum(path.stat().st_size for path in cache.iterdir()) <= room
    told.value = 0
    for path in cache.iterdir():
        path.unlink()
    found = until_it_fails(
        loader(data), DataError, rf"{cache}: no space left for \d+ bytes of train/shard"
    )
    assert found == whole[: len(found)]
    assert not list(cache.glob("*.mds"))
    told.value = room
    data.resume(data.cursor(len(found)))
    assert found + numbers(loader(data, 2)) == whole


def test_store_that_goes_away_in_the_middle(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = numbers(loader(opened(address(server), tmp_path / "other", window=1), 0))
    data = opened(address(server), tmp_path / "cache", window=1, cache_bytes=5000)
    gone = threading.Event()
    answer = server.finish_request

    def refuse(request: Any, client: Any) -> None:
        if not gone.is_set():
            answer(request, client)

    server.finish_request = refuse  # type: ignore[method-assign]
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.0")  # a connection a request
    batches = iter(loader(data))
    found = next(batches)["lines"].tolist()
    gone.set()
    says = rf"{server.url}/train/.*in 3 tries.*check the address"
    found += until_it_fails(batches, DataError, says)
    assert found == right[: len(found)]
    assert 0 < len(found) < len(right)
    gone.clear()
    data.resume(data.cursor(len(found)))
    assert found + numbers(loader(data, 2)) == right
