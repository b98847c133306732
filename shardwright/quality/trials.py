"""Trials of pruning methods: damage planted into records, so that it can be sought.

A share of the records is damaged, each in one way, and other records teach what damage looks like
by damaged copies of them. Methods that are calibrated on copies must not have seen the kind that
they are asked to find: families of damage are dealt into folds, and each fold's are judged by
detectors calibrated on all other families.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shardwright.quality.calibrate import Float64, Int64
from shardwright.quality.calibrate_copies import damaged_copies
from shardwright.quality.corruptions import corruptions
from shardwright.quality.probe import Vectors


def families_of(modality: str) -> dict[str, str]:
    """Kind of damage -> its family."""
    return {kind.name: kind.family for kind in corruptions(modality).values()}


def deal(families: Collection[str], folds: int) -> dict[str, int]:
    """The fold in which each family is held out.

    Args:
        families: Names; one may come several times.
        folds: How many folds; from the number of families on, each family is left out on its own.
    """
    names = sorted(set(families))
    return {name: place % folds for place, name in enumerate(names)}


@dataclass(frozen=True)
class Trial:
    """What one seed does to n records: which are damaged, and which teach by damaged copies.

    The seed, the number of a record and its key decide; records can be damaged anywhere and in any
    order.

    Attributes:
        modality: ``code`` or ``image``.
        records: n.
        seed: Another seed, another trial.
        share: Share of the records that is damaged.
        dose: How much, see ``corrupt_text``.
        documents: So many records teach.
        copies: So many copies of each of them.
        taught_dose: How much those are damaged.
        without: Families of damage that no copy teaches.
    """

    modality: str
    records: int
    seed: int
    share: float = 0.1
    dose: float = 0.5
    documents: int = 600
    copies: int = 3
    taught_dose: float = 0.5
    without: tuple[str, ...] = ()

    @cached_property
    def damaged(self) -> frozenset[int]:
        """The records that are damaged, if they can be."""
        drawn = random.Random(f"trial {self.seed}")
        return frozenset(drawn.sample(range(self.records), round(self.share * self.records)))

    @cached_property
    def order(self) -> list[int]:
        """Records in an order of the seed's; the first ``documents`` of them teach."""
        order = list(range(self.records))
        random.Random(f"order {self.seed}").shuffle(order)
        return order

    @cached_property
    def _places(self) -> dict[int, int]:
        return {record: place for place, record in enumerate(self.order)}

    def plant(
        self, record: int, key: str, content: bytes, language: str | None
    ) -> tuple[str, bytes]:
        """The kind of damage of a record, empty for none, and its content.

        Args:
            record: Its number.
            key: Its id or name, by which the damage is drawn.
            content: As ``plain_copy`` leaves it.
            language: Of a text, or None.
        """
        if record in self.damaged:
            for copy in self._copies(f"{self.seed} {key}", content, language, 1, self.dose, ()):
                return copy
        return "", content

    def teach(
        self, record: int, key: str, content: bytes, language: str | None
    ) -> list[tuple[str, bytes]]:
        """Kinds and contents of the copies of a record that teach; arguments as for ``plant``.

        What is copied is the record as it stands in the trial: nobody knows which are damaged.
        """
        place = self._places[record]
        if place >= self.documents:
            return []
        drawn = f"study {self.seed} {key}"
        return self._copies(drawn, content, language, self.copies, self.taught_dose, self.without)

    def _copies(
        self,
        key: str,
        content: bytes,
        language: str | None,
        count: int,
        dose: float,
        without: Sequence[str],
    ) -> list[tuple[str, bytes]]:
        seed = random.Random(key).getrandbits(32)
        order = random.Random(key)
        return damaged_copies(
            self.modality, content, language, order, seed, count=count, dose=dose, without=without
        )


@dataclass(frozen=True)
class Looked:
    """What was seen of the n records of a trial, and behind them of the c copies that teach.

    Attributes:
        ids: n record ids, each once, 32 characters long.
        kinds: [n], the damage of each record, empty for none.
        extents: int64 [n], what ``length`` measures.
        sources: int64 [c], the record that each copy was made of.
        taught: [c], the kind of damage of each copy.
        vectors: Of n + c.
        values: float64 [n + c, m], the views.
        languages: Of n + c.
        lengths: int64 [n + c], bytes.
    """

    ids: Sequence[str]
    kinds: npt.NDArray[np.str_]
    extents: Int64
    sources: Int64
    taught: npt.NDArray[np.str_]
    vectors: Vectors
    values: Float64
    languages: Sequence[str | None]
    lengths: Int64


def study_rows(trial: Trial, looked: Looked) -> tuple[Int64, Int64, npt.NDArray[np.str_]]:
    """The rows that detectors are calibrated on.

    Returns:
        Rows of ``looked`` int64 [s]: each record that teaches, and behind it its copies; the place
        of that record among them int64 [s]; and the kinds of damage [s], empty for the records.
    """
    rows: list[int] = []
    sources: list[int] = []
    for place, record in enumerate(trial.order[: trial.documents]):
        copies = np.flatnonzero(looked.sources == record) + len(looked.ids)
        rows += [record, *copies.tolist()]
        sources += [place] * (1 + len(copies))
    kinds = np.concatenate([np.full(len(looked.ids), "", looked.taught.dtype), looked.taught])
    return np.array(rows), np.array(sources), kinds[rows]
