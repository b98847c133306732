"""The torch dataset: real loaders with workers give one order, whoever loads."""

import functools
import http.server
import json
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from shard_files import sample, write_shards
from torch.utils.data import DataLoader

import shardwright
from shardwright.errors import DataError, UserError
from shardwright.pipelines.curate import curate
from shardwright.pipelines.recipe import load_recipe
from shardwright.shards import store
from shardwright.shards.dataset import ShardDataset, find_world

SIZES = [7, 0, 13, 5, 20, 1, 9, 3, 3, 10, 10]
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_shards(root, SIZES)
    return root


def numbers(loader: Any) -> list[list[int]]:
    return [batch["lines"].tolist() for batch in loader]


def only_line(found: dict[str, Any]) -> int:
    return found["lines"] * 10


def test_yields_what_was_written(root: Path) -> None:
    found = list(shardwright.dataset(root, window=3))
    assert sorted(s["lines"] for s in found) == list(range(TOTAL))
    assert all(s == sample("a", s["lines"]) for s in found)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_same_batches_for_any_workers(root: Path, workers: int) -> None:
    data = shardwright.dataset(root, batch_size=4, window=3, canonical_nodes=2)
    loader = DataLoader(data, 4, num_workers=workers)
    batches = numbers(loader)
    assert len(batches) == len(loader) == 21
    assert [n for batch in batches for n in batch] == [s["lines"] for s in data]
    assert set().union(*batches) == set(range(TOTAL))


def test_spawned_workers(root: Path) -> None:
    data = shardwright.dataset(root, batch_size=4, transform=only_line)
    next(iter(data))
    next(iter(data.as_map()))  # so that files are open when the dataset is pickled
    spawned = DataLoader(data, 4, num_workers=2, multiprocessing_context="spawn")
    assert [batch.tolist() for batch in spawned] == [
        batch.tolist() for batch in DataLoader(data, 4)
    ]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_same_global_order_for_any_ranks(root: Path, ranks: int) -> None:
    whole = [s["lines"] for s in shardwright.dataset(root, batch_size=24)]
    batch = 24 // ranks
    shares = [
        [s["lines"] for s in shardwright.dataset(root, batch_size=batch, rank=rank, ranks=ranks)]
        for rank in range(ranks)
    ]
    assert {len(share) for share in shares} == {len(whole) // ranks}
    joined = [
        n
        for first in range(0, len(shares[0]), batch)
        for share in shares
        for n in share[first : first + batch]
    ]
    assert joined == whole


def test_replicated_ranks_get_the_same(root: Path) -> None:
    shares = [
        [
            s["lines"]
            for s in shardwright.dataset(root, batch_size=4, rank=rank, ranks=4, replication=2)
        ]
        for rank in range(4)
    ]
    assert shares[0] == shares[1] != shares[2] == shares[3]
    assert set(shares[0] + shares[2]) == set(range(TOTAL))


def test_epochs(root: Path) -> None:
    data = shardwright.dataset(root)
    orders = []
    for epoch in range(3):
        data.set_epoch(epoch)
        orders.append([s["lines"] for s in data])
    assert len({tuple(order) for order in orders}) == 3
    data.set_epoch(1)
    assert [s["lines"] for s in data] == orders[1]
    assert [s["lines"] for s in shardwright.dataset(root, epoch=2)] == orders[2]


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_reach_workers(root: Path, persistent: bool) -> None:
    data = shardwright.dataset(root, batch_size=4)
    loader = DataLoader(data, 4, num_workers=2, persistent_workers=persistent)
    for epoch in range(3):
        data.set_epoch(epoch)
        assert numbers(loader) == numbers(DataLoader(data, 4))


@dataclass(frozen=True)
class Marked:
    """A transformation that draws anew in each epoch."""

    epoch: int = -1

    def at(self, epoch: int) -> "Marked":
        return Marked(epoch)

    def __call__(self, found: dict[str, Any]) -> int:
        return self.epoch


@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_reach_transformations(root: Path, persistent: bool) -> None:
    data = shardwright.dataset(root, batch_size=4, transform=Marked())
    loader = DataLoader(data, 4, num_workers=2, persistent_workers=persistent)
    for epoch in range(3):  # workers that are kept count on by themselves
        data.set_epoch(epoch)
        assert {int(n) for batch in loader for n in batch} == {epoch}


def test_stored_order(root: Path) -> None:
    assert [s["lines"] for s in shardwright.dataset(root, shuffle=False)] == list(range(TOTAL))


def test_dropped_remainder(root: Path) -> None:
    data = shardwright.dataset(root, batch_size=16, remainder="drop")
    found = [s["lines"] for s in data]
    assert len(found) == len(set(found)) == len(data) == TOTAL // 16 * 16


def test_columns(root: Path) -> None:
    data = shardwright.dataset(root, columns=("record_id", "lines"))
    assert {tuple(s) for s in data} == {("record_id", "lines")}
    with pytest.raises(UserError, match="no column 'none'"):
        next(iter(shardwright.dataset(root, columns=["none"])))


def test_map_view(root: Path) -> None:
    view = shardwright.dataset(root).as_map()
    assert len(view) == TOTAL
    assert view[7] == sample("a", 7)
    assert view.__getitems__([80, 3, 3]) == [sample("a", n) for n in (80, 3, 3)]
    batches = numbers(DataLoader(view, 8, num_workers=1))
    assert [n for batch in batches for n in batch] == list(range(TOTAL))
    for wrong in (TOTAL, -1):
        with pytest.raises(IndexError):
            view[wrong]
    assert shardwright.dataset(root, transform=only_line).as_map()[2] == 20


def test_world_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (find_world(None, None, 1).rank, find_world(None, None, 1).ranks) == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    world = find_world(None, None, 2)
    assert (world.rank, world.ranks, world.group, world.groups) == (3, 8, 1, 4)
    assert find_world(0, 2, 1).ranks == 2
    with pytest.raises(UserError, match="both or neither"):
        find_world(0, None, 1)
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(UserError, match="whole numbers"):
        find_world(None, None, 1)


def test_pickles_small(root: Path) -> None:
    data = shardwright.dataset(root)
    first = [s["lines"] for s in data]
    text = pickle.dumps(data)
    assert len(text) < 5000
    assert b"MdsReader" not in text
    assert [s["lines"] for s in pickle.loads(text)] == first


def copied(root: Path, to: Path) -> Path:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            target = to / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize(
    ("damage", "workers"), [("changed", 0), ("cut", 0), ("gone", 0), ("changed", 1)]
)
def test_damaged_shard_is_never_read(root: Path, tmp_path: Path, damage: str, workers: int) -> None:
    path = copied(root, tmp_path) / "shards/train/shard.00004.mds"
    data = path.read_bytes()
    if damage == "changed":
        path.write_bytes(data[:-3] + b"\0" + data[-2:])
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    loader = DataLoader(shardwright.dataset(tmp_path, batch_size=4), 4, num_workers=workers)
    with pytest.raises(DataError, match=r"shard\.00004\.mds"):
        list(loader)


def test_check_finds_damage_and_spares_workers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(root, tmp_path) / "shards/train/shard.00006.mds"
    data = shardwright.dataset(tmp_path, batch_size=4)
    data.check()
    with monkeypatch.context() as patch:
        patch.setattr(store, "sha256_file", lambda path: "hashed again")
        forked = DataLoader(data, 4, num_workers=1, multiprocessing_context="fork")
        assert len(list(forked)) == 21
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(DataError, match=r"shard\.00006\.mds"):
        shardwright.dataset(tmp_path).check()


def test_failing_transform_is_seen(root: Path) -> None:
    data = shardwright.dataset(root, transform=lambda s: 1 // (s["lines"] - 5))
    with pytest.raises(ZeroDivisionError):
        list(data)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(root: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


RECIPE = """
name: small
modality: code
source: {kind: files, uri: ., include: ["*.py"]}
embedding: null
prune: null
shards: {size: 20kB, split: {train: 0.8, validation: 0.2}}
"""


@pytest.mark.parametrize("kind", ["mds", "webdataset", "parquet"])
def test_curation_gives_its_kept_records(tmp_path: Path, kind: str) -> None:
    (tmp_path / "code").mkdir()
    for number in range(40):
        (tmp_path / "code" / f"{number}.py").write_text(f"x = {number}\n" * (number + 1))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    output = tmp_path / "curated"
    curate(
        load_recipe(tmp_path / "recipe.yaml", [f"shards.format={kind}"], str(tmp_path / "code")),
        output,
    )
    curation = shardwright.open(output)
    kept = curation.sql("SELECT record_id, content FROM curated WHERE split = 'train'").to_pylist()
    data = curation.dataset("train", columns=["record_id", "content"])
    assert sorted(data, key=repr) == sorted(kept, key=repr)
    mixture = shardwright.mixture({"a": (curation, 1), "b": (output, 1)}, samples=4096)
    assert {s["record_id"] for s in mixture} == {record["record_id"] for record in kept}


def test_same_samples_over_http(root: Path, tmp_path: Path, address: str) -> None:
    far = shardwright.dataset(address, batch_size=4, window=2, cache=tmp_path)
    near = shardwright.dataset(root, batch_size=4, window=2)
    assert numbers(DataLoader(far, 4, num_workers=2)) == numbers(DataLoader(near, 4))
    assert far.source == near.source
    with pytest.raises(UserError, match="no split 'test'; there are train"):
        shardwright.dataset(address, "test", cache=tmp_path)


def test_refusals(root: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"split": "validation"}, "no split 'validation'; there are train"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"canonical_nodes": 2}, "no multiple of canonical_nodes 2"),
        ({"verify": "never"}, "verify is 'never'"),
    ):
        with pytest.raises(UserError, match=message):
            next(iter(shardwright.dataset(root, **options)))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="run stage 'shard' first"):
        shardwright.dataset(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/_manifest.json").write_text(json.dumps({"files": [1]}))
    with pytest.raises(DataError, match="damaged"):
        shardwright.dataset(tmp_path)
    assert isinstance(shardwright.dataset(root), ShardDataset)
