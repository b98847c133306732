"""Does the group predict the label? What a model may learn of the device in place of the content.

Where all cats were taken with one camera, a model can learn the camera. How much the group says
of the label is given as normalised mutual information (Strehl and Ghosh 2002, "Cluster Ensembles",
with the mean of the entropies) and as the accuracy of the best guess from the group. Both are above
their floor by chance alone, the more so the more groups and labels there are; so each stands beside
its mean over labels that were dealt anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.heterogeneity.permutation import Float64, check_permutations, p_value

Int64: TypeAlias = npt.NDArray[np.int64]

_BLOCK = 256
"""Deals per seed. It is part of what a seed means."""


@dataclass(frozen=True)
class Leakage:
    """How much the group says of the label.

    Attributes:
        information: Normalised mutual information, 0 to 1.
        null_information: Its mean where labels have nothing to do with groups.
        accuracy: Share of rows whose label is the most frequent of their group.
        baseline: Share of rows whose label is the most frequent of all.
        null_accuracy: Mean accuracy where labels have nothing to do with groups: from the baseline
            upwards, because the best guess is fitted to the rows that it is judged by.
        p_value: (1 + deals with as much information) / (1 + deals).
        rows: Rows with a group and a label.
        groups: How many groups.
        labels: How many labels.
    """

    information: float
    null_information: float
    accuracy: float
    baseline: float
    null_accuracy: float
    p_value: float
    rows: int
    groups: int
    labels: int


def label_leakage(
    groups: Sequence[str], labels: Sequence[str], *, permutations: int = 999, seed: int = 0
) -> Leakage:
    """Measures how much the group of a row says of its label.

    Args:
        groups: The group of each row.
        labels: The label of each row.
        permutations: How many deals of labels; at least 1.
        seed: Of the deals; not negative.

    Raises:
        ValueError: there is no row, there are not as many labels as groups, or no permutation.
    """
    check_permutations(permutations)
    if not len(groups) or len(groups) != len(labels):
        raise ValueError(f"{len(groups)} groups and {len(labels)} labels: each row needs both")
    group_names, of_group = np.unique(np.asarray(groups), return_inverse=True)
    label_names, of_label = np.unique(np.asarray(labels), return_inverse=True)
    order = np.lexsort((of_label, of_group))  # the order of rows must not matter
    of_group, of_label = of_group[order], of_label[order]
    shape = len(group_names), len(label_names)
    table = _tables(of_group, of_label[None], shape)
    information, accuracy = _measures(table)
    found = []
    for block in range(-(-permutations // _BLOCK)):
        rng = np.random.default_rng([seed, block])
        dealt = rng.permuted(np.broadcast_to(of_label, (_BLOCK, len(of_label))), axis=1)
        kept = dealt[: permutations - block * _BLOCK]
        found.append(_measures(_tables(of_group, kept, shape)))
    null, null_accuracy = (np.concatenate(part) for part in zip(*found, strict=True))
    return Leakage(
        information=float(information[0]),
        null_information=float(null.mean()),
        accuracy=float(accuracy[0]),
        baseline=float(np.bincount(of_label).max() / len(of_label)),
        null_accuracy=float(null_accuracy.mean()),
        p_value=p_value(float(information[0]), null),
        rows=len(of_label),
        groups=shape[0],
        labels=shape[1],
    )


def _tables(of_group: Int64, of_label: Int64, shape: tuple[int, int]) -> Int64:
    """Counts int64 [P, groups, labels] of deals of labels [P, N]."""
    cells = of_group * shape[1] + of_label
    cells += (np.arange(len(of_label)) * (shape[0] * shape[1]))[:, None]
    counts = np.bincount(cells.ravel(), minlength=len(of_label) * shape[0] * shape[1])
    return counts.reshape(len(of_label), *shape)


def _measures(tables: Int64) -> tuple[Float64, Float64]:
    """Normalised mutual information and accuracy of tables [P, groups, labels]."""
    joint = tables / tables[0].sum()
    by_group, by_label = _entropy(joint[0].sum(axis=1)), _entropy(joint[0].sum(axis=0))
    mean = (by_group + by_label) / 2
    together = _entropy(joint.reshape(len(joint), -1))
    information = np.maximum(by_group + by_label - together, 0)
    normalised = information / mean if mean > 0 else np.zeros(len(joint))
    return normalised, tables.max(axis=2).sum(axis=1) / tables[0].sum()


def _entropy(shares: Float64) -> Float64:
    """Entropy in nats along the last axis."""
    logs = np.log(np.where(shares > 0, shares, 1))
    entropy: Float64 = -(shares * logs).sum(axis=-1)
    return entropy
