"""The torch datasets: samples in their order for one rank and worker, and a view by index.

A dataset is values: a list of files, an order and a place. Everything that runs or is open belongs
to one process and is dropped when the dataset is pickled for another. There is no shared memory, no
process and no file of the dataset's own, so nothing is left behind however a job ends.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch.distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from shardwright.errors import UserError
from shardwright.shards.cursor import Cursor, check_cursor, read_cursor
from shardwright.shards.mixture import Mixture
from shardwright.shards.readers import ShardSet
from shardwright.shards.sampling import Plan, Remainder, Split, Steps, World

Source: TypeAlias = Split | Mixture
Transform: TypeAlias = Callable[[dict[str, Any]], Any]

_BLOCK_BYTES: Final = 16_000_000
_BLOCK_SAMPLES: Final = 16_384
"""Samples are read so many at a time at most: each shard is gone through once in a block."""
_FIRST_BLOCK: Final = 512
"""The first block is small, so that the first batch comes soon."""
_AHEAD: Final = 8
"""Shards that are asked for beyond those in use."""


def find_world(rank: int | None, ranks: int | None, replication: int) -> World:
    """This process among the ranks: as given, of torch.distributed, or of RANK and WORLD_SIZE.

    Raises:
        UserError: Only one of rank and ranks is given, or they do not fit each other.
    """
    if (rank is None) != (ranks is None):
        raise UserError(f"rank is {rank} and ranks {ranks}; give both or neither")
    if rank is None or ranks is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            here, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
            try:
                rank, ranks = int(here), int(size)
            except ValueError:
                raise UserError(
                    f"RANK is {here!r} and WORLD_SIZE {size!r}; they must be whole numbers"
                ) from None
    return World(rank, ranks, replication=replication)


class ShardDataset(IterableDataset[Any]):
    """Samples in the order of an epoch, those of this rank and worker.

    Samples are dicts of plain values with ``record_id``, or what ``transform`` makes of them. The
    order depends on the contents of the shards, the seed, the epoch, ``canonical_nodes`` and the
    global batch, and on nothing else.

    Args:
        source: What the order depends on.
        shards: The files; their numbers are those of ``source``.
        batch_size: Samples that the loader takes into a batch on this rank; 1 if None. It decides
            which samples a worker yields, so that batches come in the same order for any number of
            workers.
        epoch: The epoch to begin with.
        canonical_nodes: Contiguous streams of the order.
        remainder: ``repeat`` or ``drop``, see ``Steps``.
        world: This rank.
        transform: Called with each sample, in the worker. If it has ``at``, an epoch begins with
            the transformation that ``at(epoch)`` returns.

    Raises:
        UserError: The numbers do not fit each other.
    """

    def __init__(
        self,
        source: Source,
        shards: ShardSet,
        *,
        batch_size: int | None,
        epoch: int,
        canonical_nodes: int,
        remainder: Remainder,
        world: World,
        transform: Transform | None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1, or None")
        self.source = source
        self.world = world
        self.transform = transform
        self.steps = Steps(
            source.samples, canonical_nodes, (batch_size or 1) * world.groups, remainder
        )
        self.shards = shards
        self._epoch, self._start = epoch, 0
        self._served_worker = False

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration gives."""
        return self._epoch

    @property
    def global_batch(self) -> int:
        """Samples of a step over all ranks; ranks with the same samples count once."""
        return self.steps.global_batch

    @property
    def global_length(self) -> int:
        """Samples of an epoch over all ranks, repeats included."""
        return self.steps.length

    def __len__(self) -> int:
        """Samples that this rank gets in the next iteration; equal on every rank."""
        return self.plan(self.world).rank_length

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration; another epoch begins at its beginning.

        Workers are told when they start. Workers that a loader keeps (``persistent_workers``) go on
        to the next epoch by themselves.
        """
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0

    def cursor(self, global_samples: int) -> dict[str, Any]:
        """The place behind so many samples of the epoch, counted over all ranks.

        After ``n`` steps of an epoch that is ``n * global_batch``, whatever was done before a
        resume: steps of the epoch count, not steps since the resume.

        Returns:
            Plain integers and strings; ``resume`` takes them on any number of ranks and workers.

        Raises:
            UserError: The epoch has no such place.
        """
        Plan(self.steps, self.world, global_samples)
        return self._cursor(self._epoch, global_samples).as_dict()

    def resume(self, cursor: Mapping[str, Any]) -> None:
        """Makes the next iteration go on from a cursor.

        Raises:
            UserError: The cursor was made with another dataset, algorithm, seed, number of
                ``canonical_nodes`` or global batch.
        """
        given = read_cursor(cursor)
        check_cursor(given, self._cursor(given.epoch, 0))
        Plan(self.steps, self.world, given.global_samples)
        self._epoch, self._start = given.epoch, given.global_samples

    def as_map(self) -> "MapView":
        """All samples of the split by index, in the order of the shards."""
        return MapView(self.shards, self.transform)

    def check(self) -> None:
        """Brings and hashes every shard now, rather than when it is first read.

        Workers that are forked from this process later take the shards as checked.

        Raises:
            DataError: A shard is damaged or cannot be had: names it.
        """
        self.shards.check()

    def plan(self, world: World) -> Plan:
        """What a worker yields in the next iteration."""
        return Plan(self.steps, world, self._start)

    def __iter__(self) -> "ShardIterator":
        worker = get_worker_info()
        world = self.world
        if worker is not None:
            if self._served_worker:
                self.set_epoch(self._epoch + 1)
            self._served_worker = True
            world = World(world.rank, world.ranks, worker.id, worker.num_workers, world.replication)
        return ShardIterator(self, world)

    def _cursor(self, epoch: int, global_samples: int) -> Cursor:
        source = self.source
        return Cursor(
            source.dataset_sha256,
            source.algorithm,
            source.seed,
            epoch,
            global_samples,
            self.steps.canonical_nodes,
            self.global_batch,
            source.taken(self.steps, epoch, global_samples),
        )


class ShardIterator(Iterator[Any]):
    """One pass over what one worker yields of an epoch.

    It has the ``state_dict`` and ``load_state_dict`` of torchdata's ``StatefulDataLoader``: a state
    tells what was yielded, not what was read ahead.
    """

    def __init__(self, dataset: ShardDataset, world: World) -> None:
        self._dataset, self._world = dataset, world
        self._ready: Iterator[Any] = iter(())
        sizes = [file.bytes for _, file in dataset.shards.files]
        counts = sum(file.rows for _, file in dataset.shards.files)
        fitting = _BLOCK_BYTES * counts // max(sum(sizes), 1)
        self._block_samples = int(np.clip(fitting, 1, _BLOCK_SAMPLES))
        self._begin(0)

    def __next__(self) -> Any:
        try:
            sample = next(self._ready)
        except StopIteration:
            self._ready = self._read()
            sample = next(self._ready)
        self._yielded += 1
        return sample

    def state_dict(self) -> dict[str, Any]:
        """What was yielded: plain integers and strings."""
        return self._identity | {"yielded": self._yielded}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the sample that was yielded last when the state was taken.

        Raises:
            UserError: The state is of another dataset, order, rank or worker.
        """
        dataset = self._dataset
        dataset.resume(state["cursor"])
        self._begin(0)
        for name, ours in self._identity.items():
            theirs = state.get(name)
            if name != "cursor" and theirs != ours:
                raise UserError(
                    f"the state has {name} {theirs!r}, this iterator {ours!r}; with another number "
                    "of ranks or workers go on from dataset.cursor"
                )
        self._begin(int(state["yielded"]))

    def _begin(self, yielded: int) -> None:
        dataset, world = self._dataset, self._world
        plan = dataset.plan(world)
        self._plan = plan
        self._order = dataset.source.order(dataset.epoch)
        self._yielded = self._read_to = yielded
        at = getattr(dataset.transform, "at", None)
        self._transform = dataset.transform if at is None else at(dataset.epoch)
        self._ready = iter(())
        self._seen: set[int] = set()
        self._asked: set[int] = set()
        self._next_block = min(_FIRST_BLOCK, self._block_samples)
        self._identity: dict[str, Any] = {
            "cursor": dataset._cursor(dataset.epoch, plan.start).as_dict(),
            "group": world.group,
            "groups": world.groups,
            "worker": world.worker,
            "workers": world.workers,
        }

    def _read(self) -> Iterator[Any]:
        """The samples of the next block, not transformed before they are asked for."""
        positions = self._plan.positions(self._read_to, self._read_to + self._next_block)
        places = self._dataset.steps.places(positions)
        shards, rows = self._order.at(places)
        here = set(np.unique(shards).tolist())
        if not here <= self._seen:
            self._seen |= here
            near = self._order.ahead(places, _AHEAD)
            fresh = np.array([s for s in near.tolist() if s not in self._asked], np.int64)
            self._asked.update(fresh.tolist())
            self._dataset.shards.prefetch(fresh)
        samples = self._dataset.shards.read(shards, rows)
        self._read_to += len(samples)
        self._next_block = self._block_samples
        return iter(samples) if self._transform is None else map(self._transform, samples)


class MapView(Dataset[Any]):
    """Samples by index, in the order of the shards."""

    def __init__(self, shards: ShardSet, transform: Transform | None) -> None:
        self._shards, self._transform = shards, transform
        self._bounds = np.cumsum([0, *(file.rows for _, file in shards.files)])

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indexes: Sequence[int]) -> list[Any]:
        """Samples by their indexes, read together."""
        places = np.array(indexes, np.int64)
        if len(places) and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"indexes must be in 0 to {len(self) - 1}")
        shards = np.searchsorted(self._bounds, places, side="right") - 1
        samples = self._shards.read(shards, places - self._bounds[shards])
        return samples if self._transform is None else [self._transform(s) for s in samples]
