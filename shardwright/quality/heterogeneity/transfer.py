"""What a shift does to a model: trained on one group, tested on another.

A linear probe on embeddings learns the labels from one group and is tested on every other, and from
all groups but one and is tested on that one. All groups are cut to the same labels and as many rows
of each, so that neither sizes nor classes differ, and what is trained on is never tested on: each
group is dealt into folds, and a fold is judged by probes that have not seen that fold of any group.

Mean, variance and worst group are what HeteroSwitch (Kim et al., MLSys 2024) judges fairness and
domain generalisation by; its exact formulas could not be read, so those here are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.sampling import sample_keys

Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]

FOLDS = 5
_MOST = 2000  # rows of a group


@dataclass(frozen=True)
class TransferRow:
    """A row of ``device_transfer``.

    Attributes:
        train_group: What the probe learned from; None for all groups but the tested one.
        test_group: What it was tested on.
        accuracy: Share of rows that it told right.
        n: Rows that were tested.
    """

    train_group: str | None
    test_group: str
    accuracy: float
    n: int


@dataclass(frozen=True)
class Fairness:
    """How accuracies of one probe differ over groups.

    Attributes:
        mean: Over groups.
        variance: Over groups, of the population.
        floor: The variance that the binomial noise of so many tests makes by itself, in the mean:
            mean of a(1 - a) / (n - 1), times (groups - 1) / groups as the variance is.
        worst_group: The group that is told worst; of equals the first by name.
        worst: Its accuracy.
    """

    mean: float
    variance: float
    floor: float
    worst_group: str
    worst: float


@dataclass(frozen=True)
class Transfer:
    """What transfer found.

    Attributes:
        rows: By training group, all but one last, and tested group; none where there is not enough.
        labels: Those that every group has enough rows of.
        missing: Why there are no rows, or None.
    """

    rows: tuple[TransferRow, ...]
    labels: tuple[str, ...] = ()
    missing: str | None = None


def transfer(
    record_ids: Sequence[str],
    groups: Sequence[str],
    labels: Sequence[str | None],
    vectors: npt.ArrayLike,
    *,
    seed: int = 0,
) -> Transfer:
    """Trains on each group and on all but one, and tests on each.

    Args:
        record_ids: n different ids, 32 hex digits; they decide samples and folds.
        groups: The group of each row.
        labels: The label of each row; rows of None are left out.
        vectors: Embeddings [n, d].
        seed: Of samples and folds.

    Raises:
        ValueError: Lengths do not fit.
    """
    table = np.asarray(vectors)
    if table.ndim != 2 or len({len(record_ids), len(groups), len(labels), len(table)}) != 1:
        raise ValueError(
            f"{len(record_ids)} ids, {len(groups)} groups, {len(labels)} labels and vectors of "
            f"shape {table.shape}: each row needs all four"
        )
    if not any(label is not None for label in labels):
        return Transfer((), missing="no record has a label")
    names = sorted(set(groups))
    if len(names) < 2:
        return Transfer((), missing="there is one group")
    cells = _cells(groups, labels)
    shared = sorted(
        label
        for label in {label for _, label in cells}
        if min(len(cells.get((name, label), ())) for name in names) >= FOLDS
    )
    if len(shared) < 2:
        return Transfer(
            (), missing=f"fewer than 2 labels have {FOLDS} records or more in every group"
        )
    each = min(min(len(cells[name, label]) for name in names for label in shared), _MOST)
    keys = sample_keys(record_ids, seed)
    drawn = {}
    for name in names:
        rows = [np.array(cells[name, label]) for label in shared]
        drawn[name] = np.stack([part[np.argsort(keys[part])][:each] for part in rows], axis=1)
    return Transfer(tuple(_judged(table, drawn)), tuple(shared))


def fairness(accuracies: Mapping[str, float], tested: Mapping[str, int]) -> Fairness:
    """Mean, variance and worst of the accuracies of one probe.

    Args:
        accuracies: Of each group; at least one.
        tested: Rows of each group, two at least.
    """
    names = sorted(accuracies)
    values = np.array([accuracies[name] for name in names])
    noise = np.mean(
        [a * (1 - a) / (tested[name] - 1) for name, a in zip(names, values, strict=True)]
    )
    worst = int(values.argmin())
    return Fairness(
        mean=float(values.mean()),
        variance=float(values.var()),
        floor=float(noise) * (len(names) - 1) / len(names),
        worst_group=names[worst],
        worst=float(values[worst]),
    )


def _cells(groups: Sequence[str], labels: Sequence[str | None]) -> dict[tuple[str, str], list[int]]:
    """Rows of each group and label."""
    found: dict[tuple[str, str], list[int]] = {}
    for row, (group, label) in enumerate(zip(groups, labels, strict=True)):
        if label is not None:
            found.setdefault((group, label), []).append(row)
    return found


def _judged(table: npt.NDArray[np.generic], drawn: Mapping[str, Int64]) -> list[TransferRow]:
    """Accuracies over all folds, from rows [each, labels] of each group."""
    names = list(drawn)
    trained: list[str | None] = [*names, None]
    each, labels = drawn[names[0]].shape
    fold = np.arange(each) % FOLDS
    answers = np.tile(np.arange(labels), (each, 1))
    right = {(source, name): 0 for source in trained for name in names}
    for number in range(FOLDS):
        held, kept = fold == number, fold != number

        def learned(sources: list[str], kept: npt.NDArray[np.bool_] = kept) -> tuple[Float64, ...]:
            rows = np.concatenate([drawn[name][kept].ravel() for name in sources])
            return _probe(table[rows], np.tile(answers[kept].ravel(), len(sources)), labels)

        probes = {name: learned([name]) for name in names}
        for name in names:
            x = table[drawn[name][held].ravel()].astype(np.float64)
            others = learned([other for other in names if other != name])
            for source in trained:
                middle, weights = others if source is None else probes[source]
                guess = ((x - middle) @ weights).argmax(axis=1)
                right[source, name] += int((guess == answers[held].ravel()).sum())
    tested = each * labels
    return [
        TransferRow(source, name, right[source, name] / tested, tested)
        for source in trained
        for name in names
    ]


def _probe(x: npt.NDArray[np.generic], answers: Int64, labels: int) -> tuple[Float64, Float64]:
    """Ridge regression of one-hot labels: the middle [d] and weights [d, labels].

    Classes are balanced, so centred one-hot labels need no intercept. The ridge is the one of the
    least leave-one-out error (Golub, Heath, Wahba 1979) among powers of ten of the mean variance.
    """
    rows = x.astype(np.float64)
    middle = rows.mean(axis=0)
    targets = (answers[:, None] == np.arange(labels)) - 1 / labels
    left, values, right = np.linalg.svd(rows - middle, full_matrices=False)
    scale = max(float((values**2).sum()) / rows.shape[1], 1e-12)
    told = left.T @ targets
    best, error = 0.0, np.inf
    for power in range(-4, 5):
        ridge = scale * 10.0**power
        shrunk = values**2 / (values**2 + ridge)
        hat = (left**2 @ shrunk)[:, None]
        apart = (targets - left @ (shrunk[:, None] * told)) / np.maximum(1 - hat, 1e-9)
        if (found := float((apart**2).sum())) < error:
            best, error = ridge, found
    return middle, right.T @ ((values / (values**2 + best))[:, None] * told)
