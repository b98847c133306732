"""Which sample comes when: the order of an epoch, its steps, and what each worker yields of them.

Three pure functions, each in memory proportional to the shards at most:

- ``Order`` shuffles: place in the epoch to (shard, row);
- ``Steps`` deals: position in the delivered order to place. ``canonical_nodes`` contiguous streams
  of places each give an equal share of every global batch, so that one node of as many reads its
  own shards only;
- ``Plan`` shares out: the k-th sample of a worker to position. A rank takes its contiguous slice of
  each global batch, a worker every so-manieth batch of its rank.

So the delivered order is the same for any number of ranks and workers. The split of order,
partition and ranks follows mosaicml-streaming, whose tables over samples these functions replace.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from shardwright.errors import UserError
from shardwright.metadata.files import canonical_json
from shardwright.shards.permutation import mix, permute

Remainder = Literal["repeat", "drop"]
Indexes = NDArray[np.int64]

VERSION: Final = 1
"""Of the algorithm; raised when the same seed gives another order."""


def derived_key(*values: str | int) -> int:
    """A key of 64 bits from the values, for ``permute``."""
    digest = hashlib.sha256(canonical_json(list(values)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


@dataclass(frozen=True)
class Split:
    """What the order of a split depends on, whatever the epoch.

    Attributes:
        shard_sizes: Samples of each shard, in the order of the file list.
        dataset_sha256: Names the contents.
        seed: Any integer.
        shuffle: Whether there is a shuffle; else samples come as they stand in the shards.
        window: Shards that are shuffled into each other.
    """

    shard_sizes: tuple[int, ...]
    dataset_sha256: str
    seed: int = 0
    shuffle: bool = True
    window: int = 8

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UserError(f"window is {self.window} shards; it must be at least 1")

    @cached_property
    def samples(self) -> int:
        """Samples of an epoch."""
        return sum(self.shard_sizes)

    @property
    def algorithm(self) -> str:
        """Name and version of what makes the order, for cursors."""
        return f"feistel-window-{self.window}/{VERSION}" if self.shuffle else f"stored/{VERSION}"

    def order(self, epoch: int) -> "Order":
        """The order of one epoch."""
        return Order(self, epoch)

    def taken(self, steps: "Steps", epoch: int, position: int) -> None:
        """For a cursor: nothing beyond the position, as there are no several sources."""


class Order:
    """The order of one epoch of a split.

    Shards are shuffled; runs of ``window`` of them are cut off, and the samples of a run are
    shuffled into each other. Nothing is stored but the shards' order and bounds.
    """

    def __init__(self, split: Split, epoch: int) -> None:
        key = derived_key(split.algorithm, split.dataset_sha256, split.seed, epoch)
        sizes = np.array(split.shard_sizes, np.int64)
        self._order = np.arange(len(sizes))
        if split.shuffle:
            self._order = permute(self._order, len(sizes), key)
        self._bounds = np.concatenate([[0], np.cumsum(sizes[self._order])])
        self._window = split.window
        self._runs = np.append(self._bounds[: len(sizes) : split.window], self._bounds[-1])
        self._key = np.uint64(key)
        self._shuffle = split.shuffle

    def at(self, places: Indexes) -> tuple[Indexes, Indexes]:
        """What stands at places of the epoch.

        Args:
            places: ``(k,)``, each in ``[0, samples)``.

        Returns:
            Shard numbers and rows in them, each ``(k,)`` int64.
        """
        if self._shuffle and len(places):
            run = self._run(places)
            if run[0] == run[-1] and (run == run[0]).all():
                run = run[:1]
            first, total = self._runs[run], self._runs[run + 1] - self._runs[run]
            keys = mix(run.astype(np.uint64) + np.uint64(1)) ^ self._key
            places = first + permute(places - first, total, keys)
        slot = np.searchsorted(self._bounds, places, side="right") - 1
        return self._order[slot], places - self._bounds[slot]

    def ahead(self, places: Indexes, shards: int) -> Indexes:
        """Shards that a reader of these places needs now and next, soonest first.

        Args:
            places: ``(k,)``, those that are about to be read.
            shards: How many shards to name beyond the runs in which the places lie.

        Returns:
            Shard numbers, int64, each once.
        """
        here = np.unique(self._run(places)) * self._window
        slots = [here + i for i in range(self._window + shards)]
        near = np.concatenate(slots)
        _, first = np.unique(near, return_index=True)
        near = near[np.sort(first)]
        found: Indexes = self._order[near[near < len(self._order)]]
        return found

    def _run(self, places: Indexes) -> Indexes:
        return np.searchsorted(self._runs, places, side="right") - 1


@dataclass(frozen=True)
class Steps:
    """How the places of an epoch are dealt into global batches.

    Attributes:
        samples: Places of the epoch, ``n``.
        canonical_nodes: Contiguous streams, ``C``; each gives ``B / C`` samples of a batch.
        global_batch: Samples of a step over all ranks, ``B``.
        remainder: ``repeat``: a stream that ends before the last step begins again, so that every
            sample comes at least once. ``drop``: the epoch ends with the last step that all streams
            can fill.
    """

    samples: int
    canonical_nodes: int
    global_batch: int
    remainder: Remainder = "repeat"

    def __post_init__(self) -> None:
        nodes, batch = self.canonical_nodes, self.global_batch
        if nodes < 1 or batch < 1:
            raise UserError(
                f"canonical_nodes is {nodes} and the global batch {batch}; both must be at least 1"
            )
        if batch % nodes:
            raise UserError(
                f"the global batch {batch} (batch_size times ranks) is no multiple of "
                f"canonical_nodes {nodes}; change one of them"
            )
        if self.remainder not in ("repeat", "drop"):
            raise UserError(f"remainder is {self.remainder!r}; it must be 'repeat' or 'drop'")
        if self.samples < nodes:
            raise UserError(
                f"{self.samples} samples are too few for {nodes} canonical_nodes; "
                "each needs one at least"
            )
        if not self.steps:
            raise UserError(
                f"remainder 'drop' leaves nothing: {self.samples} samples do not fill a global "
                f"batch of {batch}; take a smaller batch, or remainder 'repeat'"
            )

    @property
    def steps(self) -> int:
        """Global batches of the epoch."""
        share = self.global_batch // self.canonical_nodes
        if self.remainder == "drop":
            return self.samples // self.canonical_nodes // share
        return -(-self.samples // (self.canonical_nodes * share))

    @property
    def length(self) -> int:
        """Samples that all ranks together deliver in the epoch, repeats included."""
        return self.steps * self.global_batch

    def places(self, positions: Indexes) -> Indexes:
        """Place of each position ``(k,)`` of the delivered order."""
        first, size, inside = self._streams(positions)
        return first + inside % size

    def repeats(self, positions: Indexes) -> NDArray[np.bool_]:
        """Whether a position ``(k,)`` delivers a sample that came before in the epoch."""
        _, size, inside = self._streams(positions)
        repeated: NDArray[np.bool_] = inside >= size
        return repeated

    def begun(self, position: int) -> list[tuple[int, int]]:
        """The places before a position, stream by stream: first and end."""
        step, offset = divmod(position, self.global_batch)
        share = self.global_batch // self.canonical_nodes
        found = []
        for stream in range(self.canonical_nodes):
            first = stream * self.samples // self.canonical_nodes
            end = (stream + 1) * self.samples // self.canonical_nodes
            done = step * share + min(max(offset - stream * share, 0), share)
            found.append((first, min(first + done, end)))
        return found

    def _streams(self, positions: Indexes) -> tuple[Indexes, Indexes, Indexes]:
        """Start and size of each position's stream, and how far along it the position is."""
        share = self.global_batch // self.canonical_nodes
        step, offset = np.divmod(positions, self.global_batch)
        stream, inside = np.divmod(offset, share)
        first = stream * self.samples // self.canonical_nodes
        size = (stream + 1) * self.samples // self.canonical_nodes - first
        return first, size, step * share + inside


@dataclass(frozen=True)
class World:
    """Who asks for samples.

    Attributes:
        rank: Number of this process among the ``ranks`` of the training job.
        ranks: Their number.
        worker: Number of this loader worker among the ``workers`` of the rank.
        workers: Their number, 1 when the rank loads by itself.
        replication: So many consecutive ranks get the same samples, as ranks do that share one
            model by tensor or context parallelism.
    """

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1
    replication: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise UserError(f"rank {self.rank} is none of {self.ranks} ranks (0 is the first)")
        if not 0 <= self.worker < self.workers:
            raise UserError(f"worker {self.worker} is none of {self.workers} workers")
        if self.replication < 1 or self.ranks % self.replication:
            raise UserError(
                f"{self.ranks} ranks cannot form groups of replication {self.replication}"
            )

    @property
    def group(self) -> int:
        """Number of this rank's group; its ranks get the same samples."""
        return self.rank // self.replication

    @property
    def groups(self) -> int:
        """Groups of ranks; each gets other samples."""
        return self.ranks // self.replication


@dataclass(frozen=True)
class Plan:
    """The positions that one worker yields of an epoch, in its order.

    Attributes:
        steps: The epoch.
        world: Who yields.
        start: Position at which the epoch goes on; those before it were delivered already.
    """

    steps: Steps
    world: World
    start: int = 0

    def __post_init__(self) -> None:
        batch, groups = self.steps.global_batch, self.world.groups
        if batch % groups:
            raise UserError(f"the global batch {batch} cannot be shared by {groups} ranks equally")
        if not 0 <= self.start <= self.steps.length:
            raise UserError(
                f"global_samples is {self.start}; this epoch has {self.steps.length} samples"
            )
        if self.start % batch and groups > 1:
            raise UserError(
                f"global_samples {self.start} is within a step: on {groups} ranks it must be a "
                f"multiple of the global batch {batch}"
            )

    @property
    def batch(self) -> int:
        """Samples of a step on one rank."""
        return self.steps.global_batch // self.world.groups

    @property
    def rank_length(self) -> int:
        """Samples of this rank from ``start`` on; equal on every rank."""
        return (self.steps.length - self.start) // self.world.groups

    @property
    def length(self) -> int:
        """Samples of this worker from ``start`` on."""
        rounds, rest = divmod(self.rank_length, self.batch * self.world.workers)
        own = min(max(rest - self.world.worker * self.batch, 0), self.batch)
        return rounds * self.batch + own

    def positions(self, first: int, last: int) -> Indexes:
        """Positions in the delivered order of the worker's samples ``first`` to ``last - 1``."""
        batch, inside = np.divmod(np.arange(first, min(last, self.length)), self.batch)
        step = self.world.worker + batch * self.world.workers
        position: Indexes = self.start + step * self.steps.global_batch + inside
        return position + self.world.group * self.batch


def dataset_sha256(files: Sequence[tuple[str, int, str]]) -> str:
    """What names the contents of a split.

    Args:
        files: Basename, samples and sha256 (hex) of each shard file, in order.
    """
    listed: list[list[Any]] = [list(file) for file in files]
    return hashlib.sha256(canonical_json(listed).encode()).hexdigest()
