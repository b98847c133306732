"""What trials say of each method: areas and recalls by family of damage, with intervals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.evaluation import Estimate, area, recall

Trials: TypeAlias = Sequence[Mapping[str, npt.NDArray[Any]]]
"""Trials of the same n records: ``kinds`` [n], empty for no damage, and scores by method."""
ALL = "all"
"""Name of all families together."""


@dataclass(frozen=True)
class Found:
    """How well a method finds the damage of a family.

    Attributes:
        method: The method.
        family: The family, or ``ALL``.
        area: Area under the ROC curve against undamaged records.
        recall: Share of the damaged records that is pruned.
        damaged: How many records were damaged, over all trials.
        sources: How many different ones.
    """

    method: str
    family: str
    area: Estimate
    recall: Estimate
    damaged: int
    sources: int


def estimates(
    trials: Trials,
    method: str,
    wanted: Collection[str] | None,
    families: Mapping[str, str],
    folds: Mapping[str, int],
    fraction: float,
) -> tuple[Estimate, Estimate]:
    """Area and recall over trials, for the damage of some families.

    The damaged records of each fold are held against all undamaged ones, under the fold's scores;
    folds weigh as many damaged records as they have.

    Args:
        trials: One or more; scores are [n], or [n, folds] of a calibrated method.
        method: The method.
        wanted: Families; None is all.
        families: Kind of damage -> family.
        folds: Family -> the fold in which it is held out.
        fraction: Share of the rows of each trial and fold that is pruned.

    Returns:
        NaN where no record has such damage.
    """
    areas, recalls, weights = [], [], []
    for fold in sorted(set(folds.values())):
        held = {family for family, own in folds.items() if own == fold}
        held &= held if wanted is None else set(wanted)
        scores, bad, records, number = [], [], [], []
        for trial, found in enumerate(trials):
            family = np.array([families.get(kind, "") for kind in found["kinds"].tolist()])
            column = found[method]
            column = column[:, fold] if column.ndim == 2 else column
            hit = np.isin(family, sorted(held))
            rows = hit | (family == "")
            scores.append(column[rows])
            bad.append(hit[rows])
            records.append(np.flatnonzero(rows))
            number.append(np.full(rows.sum(), trial))
        count = sum(int(b.sum()) for b in bad)
        if count:
            values, hits = np.concatenate(scores), np.concatenate(bad)
            files, numbers = np.concatenate(records), np.concatenate(number)
            areas.append(area(values, hits, files))
            recalls.append(recall(values, hits, files, numbers, fraction))
            weights.append(count)
    size = len(trials[0]["kinds"])
    return _mean(areas, weights, size), _mean(recalls, weights, size)


def _mean(several: Sequence[Estimate], weights: Sequence[int], size: int) -> Estimate:
    if not several:
        return Estimate(float("nan"), np.zeros(size))
    share = np.array(weights) / sum(weights)
    influence = np.zeros(size)
    for part, one in zip(share, several, strict=True):
        influence[: len(one.influence)] += part * one.influence
    return Estimate(float(sum(p * o.value for p, o in zip(share, several, strict=True))), influence)


def summarise(
    trials: Trials,
    methods: Sequence[str],
    families: Mapping[str, str],
    folds: Mapping[str, int],
    fraction: float,
) -> list[Found]:
    """How well each method finds damage: of all families together, then of each that there is.

    Arguments are as for ``estimates``; a family of which nothing was damaged is left out.
    """
    counts: dict[str, list[int]] = {ALL: []}
    for found in trials:
        for record, kind in enumerate(found["kinds"].tolist()):
            if kind:
                counts[ALL].append(record)
                counts.setdefault(families[kind], []).append(record)
    rows = []
    for method in methods:
        for family in (ALL, *sorted(counts.keys() - {ALL})):
            wanted = None if family == ALL else [family]
            both = estimates(trials, method, wanted, families, folds, fraction)
            damaged = counts[family]
            rows.append(Found(method, family, *both, len(damaged), len(set(damaged))))
    return rows


def worst(rows: Sequence[Found], method: str) -> Found:
    """The family whose damage a method finds worst, by area."""
    return min(
        (row for row in rows if row.method == method and row.family != ALL),
        key=lambda row: row.area.value,
    )
