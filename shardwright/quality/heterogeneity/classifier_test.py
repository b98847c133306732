"""Classifier two-sample test: can held-out rows be told apart?

Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests". The classifier is ridge
regression of the label on standardised features, which for two classes points where the linear
discriminant points (Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", ex. 4.2).
Its coefficients are linear in the labels, so all deals of a fold take one solution of one system.

Folds have the same share of either sample, in every stratum as far as counts allow, so they know
the labels. The test stays exact because labels are dealt within the folds: given folds, rows, and
how many of a fold are of either sample, every such arrangement is as likely under the null.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from shardwright.quality.heterogeneity.permutation import (
    Bool,
    Float64,
    Outcome,
    Pooled,
    Strata,
    check_permutations,
    deals,
    outcome,
    pool,
)

Int64: TypeAlias = npt.NDArray[np.int64]

FOLDS = 5
_DIGITS = 9
"""Decimals of scores that count, of the largest: equal rows get equal ranks."""


@dataclass(frozen=True)
class Told:
    """How well two samples are told apart.

    Attributes:
        area: Of the ROC curve of held-out rows, mean over folds, with its test. The effect size is
            the area less 0.5.
        accuracy: Mean of the shares of either sample that are told right, of held-out rows, cut
            halfway between the mean scores of the two in training.
    """

    area: Outcome
    accuracy: float


def classifier_test(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    folds: int = FOLDS,
    permutations: int = 999,
    seed: int = 0,
    strata: Strata | None = None,
    together: Strata | None = None,
) -> Told:
    """Tells two samples apart by a cross-validated ridge classifier, with a permutation test.

    The ridge adds d to the diagonal of the d x d products of standardised rows, in which each of
    the n rows adds 1: light where rows are many, heavy where they are fewer than dimensions.

    Args:
        x: Numbers [n, d], finite.
        y: Numbers [m, d], likewise.
        folds: How many, at least 2; each sample needs so many rows.
        permutations: How many deals; at least 1.
        seed: Of folds and deals; not negative.
        strata: The strata of the rows of x and y within which labels are dealt.
        together: Which rows of x and y belong together (copies of one picture): rows of equal
            labels stay in one fold. Where all of them are of one sample, they change labels as
            one, with as large others; else they change labels among themselves.

    Raises:
        ValueError: see ``pool``; there is no permutation; a sample has fewer rows (or rows that
            belong together) than there are folds; or ``together`` does not fit the rows.
    """
    check_permutations(permutations)
    both = pool(x, y, strata)
    if folds < 2 or min(both.counts) < folds:
        raise ValueError(
            f"{folds} folds of samples of {both.counts[0]} and {both.counts[1]} rows: there must "
            "be at least 2, and no more than rows of the smaller"
        )
    blocks = _blocks(both, together)
    fold = _folds(both, blocks, folds, seed)
    for side in (both.first, ~both.first):
        if len(np.unique(fold[side])) < folds:
            raise ValueError(
                f"{folds} folds are too many: a sample has fewer rows, or rows that belong "
                "together, than that; use fewer"
            )
    features = both.rows - both.rows.mean(axis=0)
    deviations = features.std(axis=0)
    features /= np.where(deviations > 0, deviations, 1)
    splits = [_split(features, fold == number) for number in range(folds)]
    value = float(_areas(splits, both.first[None])[0])
    null = np.concatenate(
        [_areas(splits, labels) for labels in _dealt(both, blocks, fold, permutations, seed)]
    )
    area = outcome(value, value, null, value - 0.5)
    return Told(area, _accuracy(splits, both.first))


@dataclass(frozen=True)
class _Split:
    """A fold.

    Attributes:
        train: int64 [n], rows outside it.
        test: int64 [k], rows in it.
        weights: float64 [k + n, n], which make scores of test and of training rows of labels.
    """

    train: Int64
    test: Int64
    weights: Float64


def _split(features: Float64, held: Bool) -> _Split:
    """Solves a fold, for any labels: the hat matrix with its centring."""
    train, test = np.flatnonzero(~held), np.flatnonzero(held)
    rows = features[train]
    centred = rows - rows.mean(axis=0)
    products = centred.T @ centred
    products[np.diag_indices_from(products)] += features.shape[1]
    coefficients = np.linalg.solve(products, centred.T)  # times labels; a constant adds nothing
    return _Split(train, test, features[np.append(test, train)] @ coefficients)


def _areas(splits: list[_Split], labels: Bool) -> Float64:
    """Mean area over folds of deals [P, N]."""
    total = np.zeros(len(labels))
    for split in splits:
        learned = labels[:, split.train].astype(np.float64)
        scores = split.weights[: len(split.test)] @ learned.T
        scores /= np.maximum(np.abs(scores).max(axis=0), 1e-300)
        ranks = rankdata(np.round(scores, _DIGITS), axis=0)
        held = labels[:, split.test].T
        n = held.sum(axis=0)
        above = (ranks * held).sum(axis=0) - n * (n + 1) / 2
        total += above / (n * (len(held) - n))
    found: Float64 = total / len(splits)
    return found


def _accuracy(splits: list[_Split], first: Bool) -> float:
    """Mean over samples of the share that is told right, of the labels as they are."""
    right = np.zeros(len(first))
    for split in splits:
        learned = first[split.train]
        scores = split.weights @ learned.astype(np.float64)
        held, trained = scores[: len(split.test)], scores[len(split.test) :]
        cut = (trained[learned].mean() + trained[~learned].mean()) / 2
        guess = np.where(held == cut, 0.5, held > cut)
        right[split.test] = np.where(first[split.test], guess, 1 - guess)
    return float((right[first].mean() + right[~first].mean()) / 2)


def _blocks(both: Pooled, together: Strata | None) -> Int64:
    """The number of what each row belongs to, int64 [N], from 0 in order of first appearance."""
    if together is None:
        return np.arange(len(both.first))
    of_x, of_y = (np.asarray(part) for part in together)
    if (len(of_x) + len(of_y),) != both.first.shape or of_x.ndim != 1:
        raise ValueError(
            f"together has {of_x.shape} and {of_y.shape} labels: each row must have one"
        )
    given = np.concatenate([of_x, of_y])[both.places]
    _, firsts, codes = np.unique(given, return_index=True, return_inverse=True)
    numbers: Int64 = np.argsort(np.argsort(firsts))[codes]
    return numbers


def _folds(both: Pooled, blocks: Int64, folds: int, seed: int) -> Int64:
    """The fold of each row, int64 [N].

    Blocks come in a random order. Each goes where its rows' kinds (stratum and sample) are fewest;
    of such folds where the other sample has more of its strata, so that labels can change; of such
    where its sample has fewest. Which of two rows of one kind went where is chance.
    """
    side = both.first.astype(np.int64)
    order = np.random.default_rng([seed, 2]).permutation(int(blocks.max()) + 1)
    members = _members(blocks)
    counts = np.zeros((folds, int(both.cells.max()) + 1, 2), np.int64)
    sizes = np.zeros((folds, 2), np.int64)
    fold = np.empty(len(blocks), np.int64)
    for number in order:
        rows = members[number]
        cells, sides = both.cells[rows], side[rows]
        same = counts[:, cells, sides].sum(axis=1)
        other = counts[:, cells, 1 - sides].sum(axis=1)
        chosen = np.lexsort((sizes[:, sides].sum(axis=1), -other, same))[0]
        fold[rows] = chosen
        np.add.at(counts[chosen], (cells, sides), 1)
        np.add.at(sizes[chosen], sides, 1)
    return fold


def _dealt(
    both: Pooled, blocks: Int64, fold: Int64, permutations: int, seed: int
) -> Iterator[Bool]:
    """Deals [P, N] within folds, strata and what belongs together."""
    units = np.empty(len(blocks), np.int64)  # what changes labels as one
    leads: list[int] = []
    kinds: list[tuple[int, ...]] = []
    for number, rows in enumerate(_members(blocks)):
        whole = both.first[rows].all() or not both.first[rows].any()
        for part in [rows] if whole else rows[:, None]:
            units[part] = len(leads)
            leads.append(int(part[0]))
            among = (0, int(fold[part[0]])) if whole else (1, number)
            kinds.append((*among, *sorted(both.cells[part].tolist())))
    cells = {kind: code for code, kind in enumerate(sorted(set(kinds)))}
    codes = np.array([cells[kind] for kind in kinds])
    for labels in deals(both.first[leads], codes, permutations, seed):
        yield labels[:, units]


def _members(blocks: Int64) -> list[Int64]:
    """The rows of each block, ascending."""
    return np.split(np.argsort(blocks, kind="stable"), np.cumsum(np.bincount(blocks))[:-1])
