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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.shingles import GOLDEN, mix64

Hashes: TypeAlias = NDArray[np.uint64]

_STEP = np.uint64(0xA0761D6478BD642F)
_EDGE = np.uint64(0x1D8E4E27C47D124F)  # stands before the first and behind the last token


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
class _Table:
    """A map from hashes to numbers, looked up without a search.

    Hashes are uniform, so the place of one among the sorted keys is told by its first bits up to
    a few places.
    """

    keys: Hashes
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    shift: int
    longest: int

    @classmethod
    def build(cls, keys: Hashes, values: NDArray[np.float64]) -> "_Table":
        bits = len(keys).bit_length() + 1
        starts = np.zeros((1 << bits) + 1, np.int64)
        shift = 64 - bits
        buckets = (keys >> np.uint64(shift)).astype(np.int64)
        np.cumsum(np.bincount(buckets, minlength=1 << bits), out=starts[1:])
        longest = int(np.diff(starts).max())
        return cls(keys, values.astype(np.float32), starts, shift, longest)

    def find(self, wanted: Hashes, absent: float) -> NDArray[np.float64]:
        """float64 of the shape of ``wanted``; ``absent`` where a hash is no key."""
        found = np.full(len(wanted), absent, np.float64)
        if not len(self.keys):
            return found
        bucket = (wanted >> np.uint64(self.shift)).astype(np.int64)
        place, stop = self.starts[bucket], self.starts[bucket + 1]
        left = np.flatnonzero(place < stop)
        place, stop, wanted = place[left], stop[left], wanted[left]
        for _ in range(self.longest):
            hit = self.keys[place] == wanted
            found[left[hit]] = self.values[place[hit]]
            place = place + 1
            open_ = ~hit & (place < stop)
            left, place, stop, wanted = left[open_], place[open_], stop[open_], wanted[open_]
            if not len(left):
                break
        return found


@dataclass(frozen=True)
class NgramModel:
    """Interpolated probabilities of symbols in chains of contexts.

    Attributes:
        alphas: For each order, discounted probability of a symbol in a context, by the hash of
            both.
        gammas: For each order, the probability that a context leaves to the order below.
        floor: Probability of a symbol never seen, below the first order.
    """

    alphas: tuple[_Table, ...]
    gammas: tuple[_Table, ...]
    floor: float

    @property
    def orders(self) -> int:
        """Length of the chains."""
        return len(self.alphas)

    @property
    def entries(self) -> int:
        """Numbers that the model holds."""
        return sum(len(table.keys) for table in self.alphas + self.gammas)

    def surprise(self, events: Events) -> NDArray[np.float64]:
        """-log2 of the probability of each event.

        Args:
            events: Chains as long as the model's orders.

        Returns:
            float64 [events], bits, above 0.
        """
        probability = np.full(len(events.symbols), self.floor)
        known = np.arange(len(events.symbols))
        for contexts, alpha, gamma in zip(events.contexts, self.alphas, self.gammas, strict=True):
            here = contexts[known]
            left = gamma.find(here, -1.0)
            seen = left >= 0
            # A context that was never seen has no longer one that was.
            known, here = known[seen], here[seen]
            seen_symbols = _joined(here, events.symbols[known])
            probability[known] *= left[seen]
            probability[known] += alpha.find(seen_symbols, 0.0)
        bits: NDArray[np.float64] = -np.log2(probability)
        return bits

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The model as plain arrays by name, for ``numpy.savez``."""
        named: dict[str, NDArray[np.generic]] = {"floor": np.array([self.floor])}
        for kind, tables in (("alpha", self.alphas), ("gamma", self.gammas)):
            for order, table in enumerate(tables):
                named[f"{kind}{order}.keys"] = table.keys
                named[f"{kind}{order}.values"] = table.values
        return named

    @classmethod
    def from_arrays(cls, named: dict[str, NDArray[np.generic]]) -> "NgramModel":
        """The inverse of ``arrays``."""

        def tables(kind: str) -> tuple[_Table, ...]:
            found: list[_Table] = []
            while f"{kind}{len(found)}.keys" in named:
                keys = named[f"{kind}{len(found)}.keys"].astype(np.uint64)
                values = named[f"{kind}{len(found)}.values"].astype(np.float64)
                found.append(_Table.build(keys, values))
            return tuple(found)

        return cls(tables("alpha"), tables("gamma"), float(named["floor"].astype(np.float64)[0]))


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
    alphas: list[_Table] = []
    gammas: list[_Table] = []
    which = np.arange(len(symbols))
    needed = np.zeros(0, np.uint64)
    for order in range(len(contexts), 0, -1):
        here = contexts[order - 1][which]
        keys, first, counts = np.unique(
            _joined(here, symbols[which]), return_index=True, return_counts=True
        )
        which = which[first]
        least = 2 if order > prune_above else 1
        alpha, gamma, useful = _estimate(keys, here[first], counts, least, needed)
        alphas.append(alpha)
        gammas.append(gamma)
        # A longer context that is kept is found through the shorter ones, so these stay too.
        needed = np.unique(contexts[max(order - 2, 0)][which[useful]])
    distinct = len(np.unique(symbols[which]))
    return NgramModel(tuple(alphas[::-1]), tuple(gammas[::-1]), 1 / (distinct + 1))


def _joined(contexts: Hashes, symbols: Hashes) -> Hashes:
    return mix64(contexts * _STEP + symbols)


def _estimate(
    keys: Hashes, contexts: Hashes, counts: NDArray[np.int64], least: int, needed: Hashes
) -> tuple[_Table, _Table, NDArray[np.int64]]:
    """Discounted probabilities of one order, what is left for the order below, and where.

    Returns:
        The symbols' table, the contexts' table, and for each kept context an index into ``keys``
        of one of its symbols.
    """
    several = [int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4)]
    discounts = _discounts(several)
    owners, first, owner = np.unique(contexts, return_index=True, return_inverse=True)
    totals = np.bincount(owner, weights=counts).astype(np.float64)
    alpha = (counts - discounts[np.minimum(counts, 3)]) / totals[owner]
    kept = counts >= least
    taken = np.bincount(owner[kept], weights=alpha[kept], minlength=len(owners))
    useful = (taken > 0) | np.isin(owners, needed)
    return (
        _Table.build(keys[kept], alpha[kept]),
        _Table.build(owners[useful], np.subtract(1.0, taken[useful], dtype=np.float64)),
        first[useful],
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
