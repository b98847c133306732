"""From a curation, or a location with its shards, to a dataset for a training job."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from shardwright.errors import DataError, UserError
from shardwright.metadata.curation import Curation
from shardwright.metadata.filelist import ListedFile, read_file_list
from shardwright.metadata.layout import Layout, opened
from shardwright.metadata.manifest import MANIFEST
from shardwright.shards.packing import unpack
from shardwright.shards.readers import ShardSet
from shardwright.shards.sampling import Remainder, Split, dataset_sha256
from shardwright.shards.store import Store, Verify, open_store

if TYPE_CHECKING:
    from shardwright.shards.dataset import ShardDataset, Source

CACHE_BYTES: Final = 100 * 10**9


class LoadingOptions(TypedDict, total=False):
    """How samples come; every option has a default.

    Attributes:
        batch_size: Samples that the loader takes into a batch on this rank (default 1).
        seed: Seed of the order (default 0).
        epoch: Epoch to begin with (default 0).
        canonical_nodes: Contiguous streams of the order, one for each machine of the largest job
            that shall ever run it (default 1).
        shuffle: Whether samples are shuffled (default true).
        window: Shards that are shuffled into each other (default 8).
        remainder: ``repeat`` (default): streams begin again until the last step is full, so that
            every sample comes at least once. ``drop``: the epoch ends with the last full step.
        rank: Number of this process; together with ``ranks``. Default: of torch.distributed where
            it is initialised, else the variables RANK and WORLD_SIZE.
        ranks: Number of processes.
        replication: So many consecutive ranks get the same samples (default 1).
        columns: Columns of a sample (default all).
        transform: Called with each sample in the worker; what it returns is yielded.
        cache: Folder for shards of a remote location.
        cache_bytes: What the folder may hold at most (default 100 GB).
        verify: When a process hashes a shard that is there: on its ``first`` use (default),
            ``always``, or never, only its ``size`` is looked at.
    """

    batch_size: int | None
    seed: int
    epoch: int
    canonical_nodes: int
    shuffle: bool
    window: int
    remainder: Remainder
    rank: int | None
    ranks: int | None
    replication: int
    columns: Sequence[str] | None
    transform: Callable[[dict[str, Any]], Any] | None
    cache: str | Path | None
    cache_bytes: int
    verify: Verify


@dataclass(frozen=True, kw_only=True)
class _Loading:
    """The options with their defaults."""

    batch_size: int | None = None
    seed: int = 0
    epoch: int = 0
    canonical_nodes: int = 1
    shuffle: bool = True
    window: int = 8
    remainder: Remainder = "repeat"
    rank: int | None = None
    ranks: int | None = None
    replication: int = 1
    columns: Sequence[str] | None = None
    transform: Callable[[dict[str, Any]], Any] | None = None
    cache: str | Path | None = None
    cache_bytes: int = CACHE_BYTES
    verify: Verify = "first"

    def split(self, files: Sequence[ListedFile]) -> Split:
        """The order of shard files."""
        named = [(file.path.rpartition("/")[2], file.rows, file.sha256) for file in files]
        sizes = tuple(file.rows for file in files)
        return Split(sizes, dataset_sha256(named), self.seed, self.shuffle, self.window)

    def opener(self) -> Callable[[str], Store]:
        """Opens the store of a location."""
        cache = None if self.cache is None else Path(self.cache)
        return partial(open_store, cache=cache, cache_bytes=self.cache_bytes, verify=self.verify)

    def files(self, location: str | Path, split: str) -> tuple[str, list[ListedFile]]:
        """Where the shards of a curation lie, and the shard files of a split in order.

        Raises:
            UserError: There are no shards there, or no such split.
            DataError: The list of shards cannot be read.
        """
        place = f"{str(location).rstrip('/')}/shards"
        listed = _listed(self.opener()(place), place) if "://" in place else _local_list(place)
        shards = [file for file in listed if file.holds_samples]
        found = [file for file in shards if file.path.startswith(f"{split}/")]
        if not found:
            names = sorted({file.path.partition("/")[0] for file in shards})
            raise UserError(f"{place}: no split {split!r}; there are {', '.join(names) or 'none'}")
        return place, found

    def dataset(self, source: "Source", files: list[tuple[str, ListedFile]]) -> "ShardDataset":
        """The dataset of a source whose shards are ``files``."""
        from shardwright.shards.dataset import ShardDataset, find_world

        return ShardDataset(
            source,
            ShardSet(files, self.opener(), self.columns),
            batch_size=self.batch_size,
            epoch=self.epoch,
            canonical_nodes=self.canonical_nodes,
            remainder=self.remainder,
            world=find_world(self.rank, self.ranks, self.replication),
            transform=self.transform,
        )


@dataclass(frozen=True)
class ShardedCuration(Curation):
    """A curation that training jobs read too."""

    def dataset(self, split: str = "train", **options: Unpack[LoadingOptions]) -> "ShardDataset":
        """The samples of a split as a torch ``IterableDataset``; see ``LoadingOptions``.

        Raises:
            UserError: There is no such split, or options do not fit each other.
        """
        return dataset(self.root, split, **options)

    def tokens(self, split: str = "train", **options: Unpack[LoadingOptions]) -> "ShardDataset":
        """The packed sequences of a split, as ``dataset`` gives samples.

        Each is a dict of arrays of one length, which collate: ``tokens``, ``positions`` in the
        document and ``documents``, see ``packing.unpack``. Another ``transform`` gets the sequence
        as it is stored, and None leaves it so.

        Raises:
            UserError: There are no sequences, no such split, or options do not fit each other.
        """
        sequences = Layout(self.root).sequences
        if not (sequences / MANIFEST).exists():
            raise UserError(
                f"{sequences}: no sequences of tokens; give shards.tokens in the recipe and run "
                "stage 'shard' again"
            )
        unpacked = LoadingOptions(transform=unpack)
        unpacked.update(options)
        return dataset(sequences.parent, split, **unpacked)


def open_curation(folder: str | Path) -> ShardedCuration:
    """Opens an output folder.

    Raises:
        UserError: There is no such folder, or it holds no table.
    """
    return ShardedCuration(opened(Path(folder)).root)


def dataset(
    location: str | Path, split: str = "train", **options: Unpack[LoadingOptions]
) -> "ShardDataset":
    """The samples of a split, from a folder or from a store.

    Args:
        location: Folder of a curation, or its address: ``s3://``, ``https://`` and what else fsspec
            opens. Of the curation only ``shards/`` has to be there.
        split: Name of the split.
        **options: See ``LoadingOptions``.

    Raises:
        UserError: There is no such split, or options do not fit each other.
        DataError: The list of shards cannot be read.
    """
    loading = _Loading(**options)
    place, files = loading.files(location, split)
    return loading.dataset(loading.split(files), [(place, file) for file in files])


def mixture(
    sources: Mapping[str, tuple[str | Path | Curation, float]],
    split: str = "train",
    *,
    samples: int | None = None,
    **options: Unpack[LoadingOptions],
) -> "ShardDataset":
    """Samples of several curations in one order, each with a share that its weight sets.

    A source that runs out goes on with its own next epoch; which sample comes when depends on
    contents, weights, seed and epoch only.

    Args:
        sources: Curation or location, and weight, of each source by name.
        split: Name of the split in each.
        samples: Samples of an epoch; as many as all sources hold if None.
        **options: See ``LoadingOptions``.

    Raises:
        UserError: A weight is not above 0, a split is missing, or options do not fit each other.
        DataError: A list of shards cannot be read.
    """
    from shardwright.shards.mixture import mixture as mixed

    loading = _Loading(**options)
    parts: dict[str, tuple[Split, float]] = {}
    files: list[tuple[str, ListedFile]] = []
    for name in sorted(sources):
        location, weight = sources[name]
        root = location.root if isinstance(location, Curation) else location
        place, found = loading.files(root, split)
        parts[name] = (loading.split(found), weight)
        files += [(place, file) for file in found]
    return loading.dataset(mixed(parts, loading.seed, samples), files)


def _local_list(place: str) -> tuple[ListedFile, ...]:
    listed = read_file_list(Path(place))
    if listed is None:
        raise UserError(f"{place}: no shards; run stage 'shard' first")
    return listed.files


def _listed(store: Store, place: str) -> tuple[ListedFile, ...]:
    try:
        return tuple(ListedFile(**entry) for entry in json.loads(store.read(MANIFEST))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}/{MANIFEST}: damaged ({error})") from None
