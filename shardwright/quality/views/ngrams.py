"""How many bits does what stands here surprise a model that has counted a corpus?

One model for streams of tokens and for trees. An event is a symbol in a chain of contexts, each of
which tells more than the one before; the model interpolates what it has counted in all of them.
Contexts are hashes, so they may hold anything: the tokens before (an n-gram model), the tokens on
both sides, a node's parent and siblings.

The estimate is the modified Kneser-Ney one: Chen and Goodman, "An empirical study of smoothing
techniques for language modeling", Computer Speech and Language 13 (1999), section 3; equations of
interpolated form in section 2.8. Lower orders count in how many distinct longer contexts a symbol
was seen, not how often.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.shingles import GOLDEN, mix64

Hashes: TypeAlias = NDArray[np.uint64]
Map: TypeAlias = tuple[Hashes, NDArray[np.float32]]

_STEP = np.uint64(0xA0761D6478BD642F)
_EDGE = np.uint64(0x1D8E4E27C47D124F)  # stands before the first and behind the last token
_LAST = np.full(1, 2**64 - 1, np.uint64)


@dataclass(frozen=True)
class Events:
    """What happened, and in which contexts.

    Attributes:
        symbols: uint64 [events].
        contexts: uint64 [orders, events]; row k holds the hash of the context that the model of
            order k + 1 looks at. Equal rows k must have equal rows k - 1: a chain.
    """

    symbols: Hashes
    contexts: Hashes


@dataclass(frozen=True)
class _Tables:
    """For each order a map from hashes to numbers, all looked up at once and without a search.

    Hashes are uniform, so the place of one among the sorted keys is told by its first bits up to
    a few places.

    Attributes:
        absent: What a hash gives that is no key.
        keys: uint64; those of the first order, ascending, then the greatest number there is, so
            that no walk leaves the order; then those of the next.
        values: float32, as long; ``absent`` between two orders.
        bounds: int64 [orders + 1]; where the keys of each order begin.
        starts: int32; for each bucket of each order the place of the first key that is not below.
        shifts: uint64 [orders, 1]; what is left of a hash behind its bucket's bits.
        buckets: int64 [orders, 1]; number of the first bucket.
    """

    absent: np.float32
    keys: Hashes
    values: NDArray[np.float32]
    bounds: NDArray[np.int64]
    starts: NDArray[np.int32]
    shifts: Hashes
    buckets: NDArray[np.int64]

    @classmethod
    def build(cls, maps: Sequence[Map], absent: float) -> "_Tables":
        bounds = np.cumsum([0, *(len(keys) + 1 for keys, _ in maps)])
        starts, shifts = [], []
        for first, (keys, _) in zip(bounds.tolist(), maps, strict=False):
            bits = len(keys).bit_length() + 1
            shift = np.uint64(64 - bits)
            counts = np.bincount((keys >> shift).astype(np.int64), minlength=1 << bits)
            starts.append(first + np.cumsum(counts) - counts)
            shifts.append(shift)
        buckets = np.cumsum([0, *map(len, starts)])[:-1]
        return cls(
            np.float32(absent),
            np.concatenate([part for keys, _ in maps for part in (keys, _LAST)]),
            np.concatenate([np.append(values, absent) for _, values in maps]).astype(np.float32),
            bounds,
            np.concatenate(starts).astype(np.int32),
            np.array(shifts, np.uint64)[:, None],
            buckets[:, None],
        )

    def maps(self) -> Iterator[Map]:
        """Keys and values of each order."""
        for low, high in pairwise(self.bounds.tolist()):
            yield self.keys[low : high - 1], self.values[low : high - 1]

    def find(self, wanted: Hashes) -> NDArray[np.float32]:
        """Looks up a row of hashes in each order's map.

        Args:
            wanted: uint64 [orders, n].

        Returns:
            float32 [orders, n].
        """
        places = self.starts.take((wanted >> self.shifts).view(np.int64) + self.buckets).ravel()
        hashes = wanted.ravel()
        keys = self.keys.take(places)
        behind = (keys < hashes).nonzero()[0]
        while len(behind):
            places[behind] += 1
            keys[behind] = nearer = self.keys.take(places.take(behind))
            behind = behind[nearer < hashes.take(behind)]
        found = np.where(keys == hashes, self.values.take(places), self.absent)
        return found.reshape(wanted.shape)


@dataclass(frozen=True)
class NgramModel:
    """Interpolated probabilities of symbols in chains of contexts.

    Attributes:
        alphas: For each order, discounted probability of a symbol in a context, by the hash of
            both.
        gammas: For each order, the probability that a context leaves to the order below.
        floor: Probability of a symbol never seen, below the first order.
    """

    alphas: _Tables
    gammas: _Tables
    floor: float

    @classmethod
    def build(cls, alphas: Sequence[Map], gammas: Sequence[Map], floor: float) -> "NgramModel":
        """A model of one map per order."""
        # A context that was never seen leaves all to the order below.
        return cls(_Tables.build(alphas, 0.0), _Tables.build(gammas, 1.0), floor)

    @property
    def orders(self) -> int:
        """Length of the chains."""
        return len(self.alphas.bounds) - 1

    @property
    def entries(self) -> int:
        """Numbers that the model holds."""
        return len(self.alphas.keys) + len(self.gammas.keys) - 2 * self.orders

    def surprise(self, events: Events) -> NDArray[np.float64]:
        """-log2 of the probability of each event.

        Args:
            events: Chains as long as the model's orders.

        Returns:
            float64 [events], bits, above 0.
        """
        left = self.gammas.find(events.contexts)
        added = self.alphas.find(_joined(events.contexts, events.symbols))
        probability = np.full(len(events.symbols), self.floor)
        for order in range(self.orders):
            probability *= left[order]
            probability += added[order]
        bits: NDArray[np.float64] = -np.log2(probability)
        return bits

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The model as plain arrays by name, for ``numpy.savez``."""
        named: dict[str, NDArray[np.generic]] = {"floor": np.array([self.floor])}
        for kind, tables in (("alpha", self.alphas), ("gamma", self.gammas)):
            for order, (keys, values) in enumerate(tables.maps()):
                named[f"{kind}{order}.keys"] = keys
                named[f"{kind}{order}.values"] = values
        return named

    @classmethod
    def from_arrays(cls, named: dict[str, NDArray[np.generic]]) -> "NgramModel":
        """The inverse of ``arrays``."""

        def maps(kind: str) -> list[Map]:
            found: list[Map] = []
            while f"{kind}{len(found)}.keys" in named:
                keys = named[f"{kind}{len(found)}.keys"].astype(np.uint64)
                values = named[f"{kind}{len(found)}.values"].astype(np.float32)
                found.append((keys, values))
            return found

        return cls.build(maps("alpha"), maps("gamma"), float(named["floor"].astype(np.float64)[0]))


def train(documents: Iterable[Events], prune_above: int = 3) -> NgramModel:
    """Counts events and estimates a model; the order of the documents changes nothing.

    Memory while training is 16 bytes per event and order for the chains, and some arrays of that
    length for one order at a time.

    Args:
        documents: At least one event in all, chains of one length.
        prune_above: Symbols that a context of a higher order than this has seen once are left out
            and their probability goes to the order below. Lower orders still count them.

    Raises:
        ValueError: There is no event.
    """
    parts = list(documents)
    symbols = np.concatenate([part.symbols for part in parts]) if parts else np.zeros(0, np.uint64)
    if not len(symbols):
        raise ValueError("there is nothing to train on: give at least one document with a token")
    contexts = np.concatenate([part.contexts for part in parts], axis=1)
    alphas: list[Map] = []
    gammas: list[Map] = []
    which = np.arange(len(symbols))
    needed = np.zeros(0, np.uint64)
    for order in range(len(contexts), 0, -1):
        here = contexts[order - 1][which]
        keys, one, counts, _ = _grouped(_joined(here, symbols[which]))
        which = which[one]
        least = 2 if order > prune_above else 1
        alpha, gamma, useful = _estimate(keys, here[one], counts, least, needed)
        alphas.append(alpha)
        gammas.append(gamma)
        # A longer context that is kept is found through the shorter ones, so these stay too.
        needed = np.unique(contexts[max(order - 2, 0)][which[useful]])
    distinct = len(np.unique(symbols[which]))
    return NgramModel.build(alphas[::-1], gammas[::-1], 1 / (distinct + 1))


def _joined(contexts: Hashes, symbols: Hashes) -> Hashes:
    sums = contexts * _STEP
    sums += symbols
    return mix64(sums)


def _grouped(
    hashes: Hashes,
) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct hashes, where one of each stands, how many there are, and the order by hash.

    ``numpy.unique`` looks for the first place of each, for which it needs a slower sort.
    """
    order = np.argsort(hashes)
    ordered = hashes[order]
    opens = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    return ordered[opens], order[opens], np.diff(opens, append=len(ordered)), order


def _estimate(
    keys: Hashes, contexts: Hashes, counts: NDArray[np.int64], least: int, needed: Hashes
) -> tuple[Map, Map, NDArray[np.int64]]:
    """Discounted probabilities of one order, what is left for the order below, and where.

    Returns:
        The symbols' map, the contexts' map, and for each kept context an index into ``keys``
        of one of its symbols.
    """
    several = [int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4)]
    discounts = _discounts(several)
    owners, one, sizes, order = _grouped(contexts)
    owner = np.empty(len(contexts), np.int64)
    owner[order] = np.repeat(np.arange(len(owners)), sizes)
    totals = np.bincount(owner, weights=counts).astype(np.float64)
    alpha = (counts - discounts[np.minimum(counts, 3)]) / totals[owner]
    kept = counts >= least
    taken = np.bincount(owner[kept], weights=alpha[kept], minlength=len(owners))
    useful = (taken > 0) | np.isin(owners, needed)
    left = 1 - taken[useful]
    return (
        (keys[kept], alpha[kept].astype(np.float32)),
        (owners[useful], left.astype(np.float32)),
        one[useful],
    )


def _discounts(several: Sequence[int]) -> NDArray[np.float64]:
    """Chen and Goodman's D1, D2 and D3+ (equation 17 there) from counts of counts.

    Where a corpus is too small for the estimate, 0.5, 0.75 and 0.9.
    """
    fallback = np.array([0.0, 0.5, 0.75, 0.9])
    if min(several) == 0:
        return fallback
    one, two, three, four = several
    ratio = one / (one + 2 * two)
    found = [1 - 2 * ratio * two / one, 2 - 3 * ratio * three / two, 3 - 4 * ratio * four / three]
    wise = all(0 < value < limit for limit, value in enumerate(found, 1))
    return np.array([0.0, *found]) if wise else fallback


def left_chain(tokens: Hashes, order: int) -> Events:
    """Events of a sequence: each token after none, one, .. ``order - 1`` tokens before it.

    Args:
        tokens: uint64 [tokens].
        order: 1 or more.
    """
    return chain(tokens, [-distance for distance in range(1, order)])


def chain(tokens: Hashes, distances: Sequence[int]) -> Events:
    """Events of a sequence: each token in a context that grows by one neighbour at a time.

    ``[-1, -2]`` is a trigram model; ``[1, -1, 2, -2]`` looks at both sides (a cloze).

    Args:
        tokens: uint64 [tokens].
        distances: Where the neighbours stand, relative to the token.
    """
    reach = max([abs(distance) for distance in distances], default=0)
    edge = np.full(reach, _EDGE)
    padded = np.concatenate([edge, tokens, edge])
    columns = [padded[reach + distance : reach + distance + len(tokens)] for distance in distances]
    return grow(tokens, columns)


def grow(symbols: Hashes, columns: Sequence[Hashes]) -> Events:
    """Events whose context grows by one column at a time, from none.

    Args:
        symbols: uint64 [events].
        columns: uint64 [events] each, the most telling first.
    """
    contexts = np.empty((len(columns) + 1, len(symbols)), np.uint64)
    contexts[0] = GOLDEN
    for place, column in enumerate(columns):
        contexts[place + 1] = mix64(contexts[place] * _STEP + column)
    return Events(symbols, contexts)
