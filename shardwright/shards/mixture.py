"""Several splits in one order, each with a share of the samples that its weight sets.

Which source a place belongs to is a pure function of seed, epoch and weights. The places of all
epochs form one line, ``v = epoch * samples + place``; it is shuffled in blocks, and then parted
evenly: of the first ``N`` values a source with share ``w`` owns ``floor(N w)``, as a line of slope
``w`` is drawn on a grid (Bresenham 1965), and ``v`` is the source's own sample number
``floor(v w)``. Three and more sources are parted one from the rest, then the next. So no counter
has to be carried, and any place is had at once. A source that runs out goes on with its own next
epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shardwright.errors import UserError
from shardwright.metadata.files import fingerprint
from shardwright.shards.permutation import mix, permute
from shardwright.shards.sampling import Indexes, Order, Split, Steps, derived_key

VERSION: Final = 1
"""Of the algorithm; raised when the same seed and weights give another order."""

_SHARE_BITS: Final = 24
_LINE: Final = 2**38
_BLOCK: Final = 4096
"""Values that are shuffled into each other; within a block the shares are exact to one sample."""
_KEPT_EPOCHS: Final = 8


@dataclass(frozen=True)
class Source:
    """One of the splits that are mixed.

    Attributes:
        name: Names it among the sources.
        split: Its own order.
        weight: Its share of the samples, before all are divided by their sum.
    """

    name: str
    split: Split
    weight: float


@dataclass(frozen=True)
class Mixture:
    """What the order of mixed splits depends on, whatever the epoch.

    Attributes:
        sources: In the order of their names.
        seed: Any integer.
        samples: Places of an epoch.
    """

    sources: tuple[Source, ...]
    seed: int
    samples: int

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if not names or names != sorted(set(names)):
            raise UserError(f"sources {names} must be different names in order, at least one")
        if self.samples < 1:
            raise UserError(f"an epoch of the mixture has {self.samples} samples; it needs one")
        for source in self.sources:
            if not 0 < source.weight < float("inf"):
                raise UserError(
                    f"the weight of {source.name!r} is {source.weight}; it must be above 0 "
                    "(leave out a source that is not wanted)"
                )
            if not source.split.samples:
                raise UserError(f"source {source.name!r} holds no sample")
        if any(not 0 < share < 2**_SHARE_BITS for share in self._shares):
            raise UserError(f"the weights {self.weights} lie too far apart to be mixed")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each source by name."""
        return {source.name: source.weight for source in self.sources}

    @property
    def algorithm(self) -> str:
        """Name and version of what makes the order, for cursors."""
        return f"mixture-{VERSION}-{self.sources[0].split.algorithm}"

    @property
    def dataset_sha256(self) -> str:
        """Names contents and weights of all sources, and the length of an epoch."""
        sources = [[s.name, s.weight, s.split.dataset_sha256] for s in self.sources]
        return fingerprint(sources=sources, samples=self.samples)

    @cached_property
    def _shares(self) -> list[int]:
        """Share of each source but the last among itself and those behind it, in 2**-24."""
        weights = [source.weight for source in self.sources]
        return [
            round(2**_SHARE_BITS * weight / sum(weights[place:]))
            for place, weight in enumerate(weights[:-1])
        ]

    def order(self, epoch: int) -> "MixedOrder":
        """The order of one epoch.

        Raises:
            UserError: The epoch is so late that its numbers would not fit.
        """
        if (epoch + 1) * self.samples > _LINE:
            raise UserError(f"epoch {epoch} is beyond the {_LINE} samples that a mixture can give")
        return MixedOrder(self, epoch)

    def part(self, line: Indexes) -> list[tuple[NDArray[np.intp], Indexes]]:
        """Parts values of the line among the sources.

        Args:
            line: ``v``, ``(k,)``.

        Returns:
            For each source the indexes in ``line`` of what it owns, and the source's own sample
            numbers there.
        """
        block, inside = np.divmod(line, _BLOCK)
        key = np.uint64(derived_key("mixture", VERSION, self.seed))
        keys = mix(block.astype(np.uint64) + np.uint64(1)) ^ key
        left = block * _BLOCK + permute(inside, _BLOCK, keys)
        where = np.arange(len(line))
        parts = []
        for share in self._shares:
            number = left * share >> _SHARE_BITS
            own = (left + 1) * share >> _SHARE_BITS > number
            parts.append((where[own], number[own]))
            left, where = (left - number)[~own], where[~own]
        return [*parts, (where, left)]

    def counts(self, first: int, last: int) -> list[int]:
        """How many values of the line from ``first`` to ``last - 1`` each source owns."""
        low, high = self._counts_below(first), self._counts_below(last)
        return [b - a for a, b in zip(low, high, strict=True)]

    def _counts_below(self, end: int) -> list[int]:
        whole = end - end % _BLOCK
        counts, left = [], whole
        for share in self._shares:
            counts.append(left * share >> _SHARE_BITS)
            left -= counts[-1]
        rest = self.part(np.arange(whole, end))
        return [count + len(own) for count, (own, _) in zip([*counts, left], rest, strict=True)]

    def taken(self, steps: Steps, epoch: int, position: int) -> dict[str, dict[str, Any]]:
        """For a cursor: what each source is, and how many samples of it came in the epoch so far.

        Samples that a stream repeats at its end are not counted.
        """
        first = epoch * self.samples
        ranges = steps.begun(position)
        each = [self.counts(first + low, first + high) for low, high in ranges]
        return {
            source.name: {
                "dataset_sha256": source.split.dataset_sha256,
                "weight": source.weight,
                "samples": sum(counts[place] for counts in each),
            }
            for place, source in enumerate(self.sources)
        }


class MixedOrder:
    """The order of one epoch of a mixture; shards are numbered through all sources."""

    def __init__(self, mixture: Mixture, epoch: int) -> None:
        self._mixture = mixture
        self._first = epoch * mixture.samples
        counts = [len(source.split.shard_sizes) for source in mixture.sources]
        self._offsets = np.cumsum([0, *counts])
        self._orders: dict[tuple[int, int], Order] = {}

    def at(self, places: Indexes) -> tuple[Indexes, Indexes]:
        """What stands at places ``(k,)`` of the epoch: shard numbers and rows, as of ``Order``."""
        shards, rows = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
        for where, order, own, offset in self._parts(places):
            found, rows[where] = order.at(own)
            shards[where] = found + offset
        return shards, rows

    def ahead(self, places: Indexes, shards: int) -> Indexes:
        """Shards that a reader of these places needs now and next, soonest first."""
        parts = self._parts(places)
        now = [order.ahead(own, 0) + offset for _, order, own, offset in parts]
        later = [order.ahead(own, shards) + offset for _, order, own, offset in parts]
        named = np.concatenate([*now, *later])
        _, first = np.unique(named, return_index=True)
        found: Indexes = named[np.sort(first)]
        return found

    def _parts(self, places: Indexes) -> list[tuple[NDArray[np.intp], Order, Indexes, int]]:
        """Indexes in ``places``, order, places in it, and number of its first shard."""
        parts = []
        for source, (where, numbers) in enumerate(self._mixture.part(places + self._first)):
            epochs, own = np.divmod(numbers, self._mixture.sources[source].split.samples)
            for epoch in np.unique(epochs).tolist():
                here = epochs == epoch
                offset = int(self._offsets[source])
                parts.append((where[here], self._order(source, epoch), own[here], offset))
        return parts

    def _order(self, source: int, epoch: int) -> Order:
        key = (source, epoch)
        if key not in self._orders:
            held = [other for other in self._orders if other[0] == source]
            if len(held) >= _KEPT_EPOCHS:
                del self._orders[min(held)]
            self._orders[key] = self._mixture.sources[source].split.order(epoch)
        return self._orders[key]


def mixture(splits: Mapping[str, tuple[Split, float]], seed: int, samples: int | None) -> Mixture:
    """A mixture of splits with weights, by name.

    Args:
        splits: Split and weight of each source.
        seed: Any integer.
        samples: Places of an epoch; as many as all sources hold if None.

    Raises:
        UserError: A weight is not positive, or a source is empty.
    """
    if samples is None:
        samples = sum(split.samples for split, _ in splits.values())
    sources = tuple(
        Source(name, split, float(weight)) for name, (split, weight) in sorted(splits.items())
    )
    return Mixture(sources, seed, samples)
