"""Going on where a job stopped: worker by worker, or from a cursor on any number of ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from shard_files import write_shards
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import shardwright
from shardwright.errors import UserError
from shardwright.shards.dataset import ShardDataset

SIZES = [7, 13, 5, 20, 1, 9, 3, 10]
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), SIZES)


def dataset(root: Path, **options: Any) -> ShardDataset:
    return shardwright.dataset(root, **({"batch_size": 4, "window": 3, "seed": 5} | options))


def lines(loader: Any) -> list[list[int]]:
    return [batch["lines"].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 6, 16, 17])
def test_stateful_loader_goes_on(root: Path, workers: int, taken: int) -> None:
    whole = lines(DataLoader(dataset(root, epoch=3), 4))
    assert len(whole) == 17
    loader = StatefulDataLoader(dataset(root, epoch=3), 4, num_workers=workers)
    batches = iter(loader)
    for _ in range(taken):
        next(batches)
    state = loader.state_dict()
    assert len(json.dumps(state, default=str)) < 5000
    # The epoch is in the state.
    fresh = StatefulDataLoader(dataset(root), 4, num_workers=workers)
    fresh.load_state_dict(state)
    assert lines(fresh) == whole[taken:]


def test_stateful_loader_after_an_epoch(root: Path) -> None:
    data = dataset(root)
    loader = StatefulDataLoader(data, 4, num_workers=2)
    next(iter(loader))
    again = dataset(root)
    resumed = StatefulDataLoader(again, 4, num_workers=2)
    resumed.load_state_dict(loader.state_dict())
    list(resumed)
    again.set_epoch(1)
    assert lines(resumed) == lines(DataLoader(dataset(root, epoch=1), 4))


def test_state_of_another_number_of_workers_is_refused(root: Path) -> None:
    state = iter(dataset(root)).state_dict()
    with pytest.raises(UserError, match="has workers 2, this iterator 1; with another number"):
        iter(dataset(root)).load_state_dict(state | {"workers": 2})


def test_iterator_goes_on_from_every_sample(root: Path) -> None:
    whole = [s["lines"] for s in dataset(root)]
    walk = iter(dataset(root))
    for taken in range(len(whole) + 1):
        other = iter(dataset(root))
        other.load_state_dict(json.loads(json.dumps(walk.state_dict())))
        assert [s["lines"] for s in other] == whole[taken:]
        if taken < len(whole):
            next(walk)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 6}, "seed 5, the dataset has 6"),
        ({"batch_size": 8}, "global_batch 4, the dataset has 8"),
        ({"window": 2}, "order_algorithm"),
        ({"rank": 1, "ranks": 2, "batch_size": 2}, "go on from dataset.cursor"),
    ],
)
def test_state_of_another_order_is_refused(root: Path, change: dict[str, Any], says: str) -> None:
    state = iter(dataset(root)).state_dict()
    with pytest.raises(UserError, match=says):
        iter(dataset(root, **change)).load_state_dict(state)


def test_state_of_other_contents_is_refused(root: Path, tmp_path: Path) -> None:
    state = iter(dataset(root)).state_dict()
    with pytest.raises(UserError, match="dataset_sha256"):
        iter(dataset(write_shards(tmp_path, SIZES, "b"))).load_state_dict(state)


def on_ranks(root: Path, ranks: int, cursor: dict[str, Any] | None, workers: int = 0) -> list[int]:
    """The delivered order of a job with a global batch of 12."""
    batch = 12 // ranks
    shares = []
    for rank in range(ranks):
        data = dataset(root, rank=rank, ranks=ranks, batch_size=batch, canonical_nodes=2)
        if cursor is not None:
            data.resume(cursor)
        loader = DataLoader(data, batch, num_workers=workers)
        batches = lines(loader)
        assert len(batches) == len(loader) == -(-len(data) // batch)
        shares.append(batches)
    return [n for step in zip(*shares, strict=True) for share in step for n in share]


@pytest.mark.parametrize("before", [1, 2, 3, 4, 6])
def test_cursor_on_any_ranks(root: Path, before: int) -> None:
    whole = on_ranks(root, 1, None)
    assert set(whole) == set(range(TOTAL))
    data = dataset(root, rank=0, ranks=before, batch_size=12 // before, canonical_nodes=2)
    for steps in range(0, data.global_length // 12 + 1):
        cursor = json.loads(json.dumps(data.cursor(steps * data.global_batch)))
        for ranks in (1, 2, 3, 4, 6):
            assert on_ranks(root, ranks, cursor) == whole[12 * steps :]


@pytest.mark.parametrize("workers", [0, 2])
def test_cursor_at_every_sample_of_one_rank(root: Path, workers: int) -> None:
    whole = on_ranks(root, 1, None)
    data = dataset(root, batch_size=12, canonical_nodes=2)
    for taken in range(0, len(whole) + 1, 1 if workers == 0 else 11):
        assert on_ranks(root, 1, data.cursor(taken), workers) == whole[taken:]


def test_epoch_after_a_cursor(root: Path) -> None:
    cursor = dataset(root, epoch=2).cursor(8)
    data = dataset(root)
    data.resume(cursor)
    assert data.epoch == 2
    data.set_epoch(2)
    assert len(lines(DataLoader(data, 4))) == 15
    data.set_epoch(3)
    assert lines(DataLoader(data, 4)) == lines(DataLoader(dataset(root, epoch=3), 4))


def test_state_after_a_cursor(root: Path) -> None:
    whole = lines(DataLoader(dataset(root), 4))
    data = dataset(root)
    data.resume(data.cursor(12))
    loader = StatefulDataLoader(data, 4, num_workers=2)
    batches = iter(loader)
    next(batches), next(batches)
    fresh = StatefulDataLoader(dataset(root), 4, num_workers=2)
    fresh.load_state_dict(loader.state_dict())
    assert lines(fresh) == whole[5:]


def test_cursors_are_refused(root: Path) -> None:
    data = dataset(root, rank=0, ranks=2)
    with pytest.raises(UserError, match="within a step"):
        data.cursor(4)
    with pytest.raises(UserError, match="this epoch has 72"):
        data.cursor(80)
    with pytest.raises(UserError, match="global_batch 4, the dataset has 8"):
        data.resume(dataset(root).cursor(8))
    with pytest.raises(UserError, match="format None"):
        data.resume({})


def test_dead_worker_is_seen(root: Path) -> None:
    data = dataset(root, transform=dies)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(DataLoader(data, 4, num_workers=1, multiprocessing_context="fork"))


def dies(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["lines"] == 30:
        time.sleep(0.5)  # until what was sent before is read; torch tells a torn message otherwise
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


JOB = """
import sys, time
import shardwright
from torch.utils.data import DataLoader
data = shardwright.dataset(sys.argv[1], batch_size=4)
while True:
    for batch in DataLoader(data, 4, num_workers=2):
        print("batch", flush=True)
        time.sleep(0.02)
"""


def test_interrupt_leaves_nothing(root: Path, tmp_path: Path) -> None:
    files = sorted(root.rglob("*"))
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert job.stdout is not None
    assert job.stdout.readline() == b"batch\n"
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to the job and its workers
    assert job.wait(timeout=240) != 0
    job.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(job.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("a worker outlived the job")
    assert sorted(root.rglob("*")) == files
    # multiprocessing makes an empty folder in each worker that passes tensors on, and does not come
    # to remove it where the interrupt meets it as it ends.
    assert [path for path in tmp_path.rglob("*") if not path.name.startswith("pymp-")] == []
    if os.path.isdir("/dev/shm"):
        left = set(os.listdir("/dev/shm")) - shared
        assert [name for name in left if str(job.pid) in name] == []
