"""The shift between every two groups: rows of the table ``device_shift``.

Each pair of groups that are large enough is compared by five measures, on embeddings or on
statistics, as the groups are and, where strata are given, with content matched: as many rows of
either group in every stratum, and labels dealt within strata. What a pair is found to be depends on
the rows of its two groups alone, in no order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.sampling import mixed, sample_keys
from shardwright.quality.heterogeneity.classifier_test import FOLDS, classifier_test
from shardwright.quality.heterogeneity.frechet import frechet
from shardwright.quality.heterogeneity.matching import match
from shardwright.quality.heterogeneity.mmd import MULTIPLE, mmd
from shardwright.quality.heterogeneity.multiplicity import Correction, adjust
from shardwright.quality.heterogeneity.permutation import Float64, Outcome, Strata
from shardwright.quality.heterogeneity.wasserstein import sliced_wasserstein

Int64: TypeAlias = npt.NDArray[np.int64]
UInt64: TypeAlias = npt.NDArray[np.uint64]
Space = Literal["embedding", "statistics"]
Pair: TypeAlias = tuple[str, str]

NOT_ENOUGH = "not enough data"


@dataclass(frozen=True)
class Settings:
    """How groups are compared.

    Attributes:
        least: Rows that a group needs, and each side of a matched pair.
        most: Rows of a group that are compared; of more, a seeded sample.
        permutations: Deals of every measure but the Frechet distance.
        frechet_permutations: Deals of the Frechet distance, which costs most.
        correction: How p is adjusted over the pairs of one measure, space and matching.
        seed: Of samples, directions, folds and deals; not negative.
    """

    least: int = 50
    most: int = 2000
    permutations: int = 999
    frechet_permutations: int = 99
    correction: Correction = "holm"
    seed: int = 0


@dataclass(frozen=True)
class ShiftRow:
    """A row of ``device_shift``; fields are its columns.

    ``group_a`` sorts before ``group_b``; ``n_a`` and ``n_b`` are the rows that were compared.
    """

    group_a: str
    group_b: str
    n_a: int
    n_b: int
    space: Space
    matched: bool
    measure: str
    value: float
    effect_size: float
    null_mean: float
    p_value: float
    p_adjusted: float
    ruler_stage: str | None = None
    ruler_amount: float | None = None


@dataclass(frozen=True)
class Shift:
    """What comparing the groups found.

    Attributes:
        rows: By pair, matching and measure.
        too_small: Group -> its rows, where they are too few: "not enough data".
        too_few_matched: Pair -> its matched rows, where they are too few: likewise.
        sampled: Group -> its rows, where only a sample of them was compared.
        dropped: Pair -> columns that one of its groups lacks entirely, left out for this pair.
        unmatched: Pair -> rows of its groups that matching left out.
    """

    rows: tuple[ShiftRow, ...]
    too_small: Mapping[str, int] = field(default_factory=dict)
    too_few_matched: Mapping[Pair, int] = field(default_factory=dict)
    sampled: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[Pair, tuple[str, ...]] = field(default_factory=dict)
    unmatched: Mapping[Pair, tuple[int, int]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each thing that was not compared, or not whole."""
        return (
            *(f"{name}: {NOT_ENOUGH}, {n} rows" for name, n in self.too_small.items()),
            *(
                f"{a} and {b}: {NOT_ENOUGH}, {n} matched rows of either"
                for (a, b), n in self.too_few_matched.items()
            ),
            *(f"{name}: a sample of its {n} rows" for name, n in self.sampled.items()),
            *(
                f"{a} and {b}: one lacks {', '.join(names)}"
                for (a, b), names in self.dropped.items()
            ),
        )


def device_shift(
    record_ids: Sequence[str],
    groups: Sequence[str | None],
    values: npt.ArrayLike,
    space: Space,
    *,
    columns: Sequence[str] = (),
    strata: Sequence[str | int | None] | None = None,
    settings: Settings | None = None,
) -> Shift:
    """Compares every two groups.

    Args:
        record_ids: n different ids, 32 hex digits.
        groups: The group of each row; rows of None are left out.
        values: Numbers [n, d]. NaN is allowed in the space ``statistics``: a column that one group
            of a pair lacks entirely is left out of that pair, and a single gap gets the median of
            the pair's rows. Statistics have units of their own, so those of a pair are divided by
            their standard deviations.
        space: ``embedding`` or ``statistics``.
        columns: Names of the d columns, for ``dropped``; their numbers if there are none.
        strata: The class or cluster of each row; rows of None are not matched. Without strata
            nothing is matched.
        settings: How groups are compared.

    Raises:
        ValueError: lengths do not fit; an id comes twice or is none; an embedding holds NaN; a
            number is infinite; the space is unknown; or the least size is below the folds.
    """
    chosen = settings or Settings()
    table = np.asarray(values)
    _check(record_ids, groups, table, space, columns, strata, chosen)
    keys = sample_keys(record_ids, chosen.seed)
    names = tuple(columns) or tuple(str(j) for j in range(table.shape[1]))
    content = np.array(["" if s is None else f"={s}" for s in strata or ()])
    members: dict[str, list[int]] = {}
    for row in np.argsort(np.asarray(record_ids), kind="stable").tolist():
        group = groups[row]
        if group is not None:
            members.setdefault(group, []).append(row)
    counts = {name: len(members[name]) for name in sorted(members)}
    large = {n: np.array(members[n]) for n, count in counts.items() if count >= chosen.least}
    rows: list[ShiftRow] = []
    dropped: dict[Pair, tuple[str, ...]] = {}
    few: dict[Pair, int] = {}
    left: dict[Pair, tuple[int, int]] = {}
    for pair in combinations(large, 2):
        a, b = (_sample(large[name], keys, chosen.most) for name in pair)
        rows += _compare(pair, (a, b), None, keys, table, space, names, chosen, dropped)
        if strata is None:
            continue
        a, b = (large[name][content[large[name]] != ""] for name in pair)
        found = match(content[a], content[b], keys[a], keys[b])
        left[pair] = counts[pair[0]] - found.rows, counts[pair[1]] - found.rows
        if found.rows < chosen.least:
            few[pair] = found.rows
            continue
        a, b = a[found.x], b[found.y]
        # the i-th rows of both are of one stratum: a sample of pairs is matched too
        drawn = np.argsort(mixed(keys[a] ^ keys[b], chosen.seed), kind="stable")[: chosen.most]
        a, b = a[drawn], b[drawn]
        alike = content[a], content[b]
        rows += _compare(pair, (a, b), alike, keys, table, space, names, chosen, dropped)
    return Shift(
        rows=_adjusted(rows, chosen.correction),
        too_small={name: n for name, n in counts.items() if n < chosen.least},
        too_few_matched=few,
        sampled={name: n for name, n in counts.items() if name in large and n > chosen.most},
        dropped=dropped,
        unmatched=left,
    )


def _compare(
    pair: Pair,
    members: tuple[Int64, Int64],
    strata: Strata | None,
    keys: UInt64,
    table: npt.NDArray[Any],
    space: Space,
    names: tuple[str, ...],
    settings: Settings,
    dropped: dict[Pair, tuple[str, ...]],
) -> list[ShiftRow]:
    """All measures of a pair, p not adjusted; what a group lacks is added to ``dropped``."""
    a, b = (table[part].astype(np.float64) for part in members)
    if space == "statistics":
        lacking = np.isnan(a).all(axis=0) | np.isnan(b).all(axis=0)
        if lacking.any():
            before = dropped.get(pair, ())
            dropped[pair] = tuple(
                name for name, lacks in zip(names, lacking, strict=True) if lacks or name in before
            )
        if lacking.all():
            return []
        a, b = _standardised(a[:, ~lacking], b[:, ~lacking])
    seed, deals = settings.seed, settings.permutations
    # unequal groups, which only unmatched ones are: the Frechet distance takes a sample
    n = min(len(a), len(b))
    even_a, even_b = (
        part[np.sort(np.argsort(keys[rows], kind="stable")[:n])] if len(part) > n else part
        for part, rows in zip((a, b), members, strict=True)
    )
    measures: dict[str, Callable[[], Outcome]] = {
        "mmd": lambda: mmd(a, b, permutations=deals, seed=seed, strata=strata),
        "mmd_multi": lambda: mmd(
            a, b, factors=MULTIPLE, permutations=deals, seed=seed, strata=strata
        ),
        "sliced_wasserstein": lambda: sliced_wasserstein(
            a, b, permutations=deals, seed=seed, strata=strata
        ),
        "frechet": lambda: frechet(
            even_a, even_b, permutations=settings.frechet_permutations, seed=seed, strata=strata
        ),
        "classifier": lambda: (
            classifier_test(a, b, permutations=deals, seed=seed, strata=strata).area
        ),
    }
    rows = []
    for measure, run in measures.items():
        found = run()
        n_a, n_b = (n, n) if measure == "frechet" else (len(a), len(b))
        rows.append(
            ShiftRow(
                *pair,
                n_a=n_a,
                n_b=n_b,
                space=space,
                matched=strata is not None,
                measure=measure,
                value=found.value,
                effect_size=found.effect_size,
                null_mean=found.null_mean,
                p_value=found.p_value,
                p_adjusted=found.p_value,
            )
        )
    return rows


def _standardised(a: Float64, b: Float64) -> tuple[Float64, Float64]:
    """Statistics of a pair with gaps filled, in standard deviations of both together."""
    both = np.concatenate([a, b])
    both = np.where(np.isnan(both), np.nanmedian(both, axis=0), both)
    both -= both.mean(axis=0)
    deviations = both.std(axis=0)
    both /= np.where(deviations > 0, deviations, 1)
    return both[: len(a)], both[len(a) :]


def _sample(rows: Int64, keys: UInt64, most: int) -> Int64:
    """A seeded sample of rows of the table, at most so many, in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.argsort(keys[rows], kind="stable")[:most])]


def _adjusted(rows: list[ShiftRow], correction: Correction) -> tuple[ShiftRow, ...]:
    """Rows with p adjusted over the pairs of one measure and matching."""
    adjusted = list(rows)
    for kind in {(row.measure, row.matched) for row in rows}:
        places = [i for i, row in enumerate(rows) if (row.measure, row.matched) == kind]
        found = adjust([rows[i].p_value for i in places], correction)
        for i, p in zip(places, found.tolist(), strict=True):
            adjusted[i] = replace(rows[i], p_adjusted=p)
    return tuple(adjusted)


def _check(
    record_ids: Sequence[str],
    groups: Sequence[str | None],
    table: npt.NDArray[Any],
    space: Space,
    columns: Sequence[str],
    strata: Sequence[str | int | None] | None,
    settings: Settings,
) -> None:
    if space not in get_args(Space):
        raise ValueError(f"space {space!r} is unknown: use 'embedding' or 'statistics'")
    if table.ndim != 2 or len({len(record_ids), len(groups), len(table)}) != 1:
        raise ValueError(
            f"{len(record_ids)} ids, {len(groups)} groups and values of shape {table.shape}: "
            "each row needs all three"
        )
    if strata is not None and len(strata) != len(table):
        raise ValueError(f"{len(strata)} strata for {len(table)} rows: each must have one or None")
    if columns and len(columns) != table.shape[1]:
        raise ValueError(f"{len(columns)} names for {table.shape[1]} columns")
    if len(set(record_ids)) != len(record_ids):
        raise ValueError("a record id comes twice: each row must be a record of its own")
    if settings.least < FOLDS:
        raise ValueError(f"the least size {settings.least} is below the {FOLDS} folds")
    bad = ~np.isfinite(table) if space == "embedding" else np.isinf(table)
    if bad.any():
        row = int(np.flatnonzero(bad.any(axis=1))[0])
        kind = "NaN or infinity" if space == "embedding" else "infinity"
        raise ValueError(f"record {record_ids[row]} holds {kind}")
