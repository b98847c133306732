"""The classifier test: its areas and deals against a loop, its folds, and what it finds."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from shardwright.quality.heterogeneity import classifier_test as module
from shardwright.quality.heterogeneity.classifier_test import classifier_test
from shardwright.quality.heterogeneity.permutation import p_value, pool


def samples(seed, n=40, m=30, d=4, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def area_of(features, labels, fold, folds):
    """Mean area over folds of a ridge regression, which is least squares with d more rows."""
    found = []
    for number in range(folds):
        held = fold == number
        rows = features[~held] - features[~held].mean(axis=0)
        d = features.shape[1]
        wanted = np.append(labels[~held] - labels[~held].mean(), np.zeros(d))
        weights = np.linalg.lstsq(np.vstack([rows, np.sqrt(d) * np.eye(d)]), wanted)[0]
        found.append(roc_auc_score(labels[held], features[held] @ weights))
    return np.mean(found)


@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("d", [4, 90])
def test_area_and_null_are_those_of_a_loop(strata, d):
    x, y = samples(1, d=d, shift=0.2 if d < 9 else 0.05)
    kinds = (np.arange(40) % 2, np.arange(30) % 2) if strata else None
    found = classifier_test(x, y, folds=4, permutations=30, seed=3, strata=kinds)
    both = pool(x, y, kinds)
    features = (both.rows - both.rows.mean(axis=0)) / both.rows.std(axis=0)
    blocks = module._blocks(both, None)
    fold = module._folds(both, blocks, 4, 3)
    value = area_of(features, both.first, fold, 4)
    loop = np.array(
        [
            area_of(features, labels, fold, 4)
            for block in module._dealt(both, blocks, fold, 30, 3)
            for labels in block
        ]
    )
    assert found.area.value == pytest.approx(value, rel=1e-12)
    assert found.area.effect_size == found.area.value - 0.5
    assert found.area.null_mean == pytest.approx(loop.mean(), rel=1e-12)
    assert found.area.null_sd == pytest.approx(loop.std(), rel=1e-10)
    assert found.area.p_value == p_value(value, loop)
    assert 1 / 31 < found.area.p_value < 0.9


def test_deals_stay_in_folds_and_strata():
    x, y = samples(2)
    kinds = np.arange(40) % 3, np.arange(30) % 3
    both = pool(x, y, kinds)
    blocks = module._blocks(both, None)
    fold = module._folds(both, blocks, 5, 0)
    cell = fold * 3 + both.cells
    dealt = np.concatenate(list(module._dealt(both, blocks, fold, 500, 0)))
    wanted = np.bincount(cell, both.first, 15)
    assert all((np.bincount(cell, labels, 15) == wanted).all() for labels in dealt)
    assert len(np.unique(dealt, axis=0)) > 490
    for side in (both.first, ~both.first):
        for kind in range(3):
            sizes = np.bincount(fold[side & (both.cells == kind)], minlength=5)
            assert sizes.max() - sizes.min() <= 1


def test_matched_rows_of_a_stratum_share_folds():
    """Otherwise small strata would have nothing to deal."""
    x, y = samples(3, 40, 40)
    kinds = np.arange(40) // 2
    both = pool(x, y, (kinds, kinds))
    fold = module._folds(both, np.arange(80), 5, 0)
    for kind in range(20):
        a, b = (np.sort(fold[side & (both.cells == kind)]) for side in (both.first, ~both.first))
        assert (a == b).all()


def test_what_belongs_together_stays_in_a_fold_and_changes_labels_as_one():
    x, y = samples(4)
    # pairs within x, pairs within y, and one row of x with one of y
    together = np.repeat(np.arange(20), 2), 20 + np.repeat(np.arange(15), 2)
    together[1][:2] = 0
    together[0][:2] = [0, 50]
    both = pool(x, y)
    blocks = module._blocks(both, together)
    fold = module._folds(both, blocks, 5, 1)
    dealt = np.concatenate(list(module._dealt(both, blocks, fold, 400, 1)))
    mixed = 0
    for number in np.unique(blocks):
        rows = blocks == number
        assert len(np.unique(fold[rows])) == 1
        same = both.first[rows].all() or not both.first[rows].any()
        split = dealt[:, rows]
        if same:
            assert (split.all(axis=1) | ~split.any(axis=1)).all()
        else:
            mixed += 1
            assert (split.sum(axis=1) == both.first[rows].sum()).all()
            assert np.ptp(split.astype(int), axis=0).all()
    assert mixed == 1
    assert (dealt.sum(axis=1) == both.first.sum()).all()
    found = classifier_test(x, y, permutations=50, seed=1, together=together)
    assert 0 < found.area.p_value <= 1


def test_copies_are_told_apart_only_if_they_are_not_kept_together():
    """Each sample is ten things three times: rows in training give the held-out ones away."""
    rng = np.random.default_rng(6)
    rows = np.repeat(rng.normal(size=(20, 30)), 3, axis=0) + 0.01 * rng.normal(size=(60, 30))
    names = np.repeat(np.arange(20), 3)
    x, y = rows[:30], rows[30:]
    apart = classifier_test(x, y, permutations=199)
    kept = classifier_test(x, y, permutations=199, together=(names[:30], names[30:]))
    assert apart.area.p_value == 1 / 200
    assert kept.area.p_value > 0.05


def test_planted_shift_is_found():
    found = classifier_test(*samples(7, 200, 150, shift=0.5), permutations=199)
    assert found.area.p_value == 1 / 200
    assert 0.68 < found.area.value < 0.82
    assert 0.6 < found.accuracy < 0.8
    assert found.area.effect_size == found.area.value - 0.5
    certain = classifier_test(*samples(7, 200, 50, shift=50.0), permutations=19)
    assert (certain.area.value, certain.accuracy) == (1, 1)


def test_accuracy_has_no_gain_from_unequal_sizes():
    x, y = samples(8, 400, 40)
    assert 0.35 < classifier_test(x, y, permutations=19).accuracy < 0.65


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 27)])
def test_order_of_rows_and_samples_changes_nothing(n, m):
    x, y = samples(9, n, m)
    kinds, names = (np.arange(n) % 2, np.arange(m) % 2), (np.arange(n) // 2, 90 + np.arange(m))
    wanted = classifier_test(x, y, permutations=30, strata=kinds, together=names)
    swapped = classifier_test(y, x, permutations=30, strata=kinds[::-1], together=names[::-1])
    assert swapped == wanted
    moved = classifier_test(
        x[::-1],
        y,
        permutations=30,
        strata=(kinds[0][::-1], kinds[1]),
        together=(names[0][::-1], names[1]),
    )
    assert moved == wanted


def test_equal_rows_tie():
    x = np.repeat(np.eye(2), 10, axis=0)
    found = classifier_test(x, x, permutations=99)
    assert found.area.value == pytest.approx(0.5, abs=0.2)
    constant = classifier_test(np.ones((10, 2)), np.ones((12, 2)), permutations=9)
    assert (constant.area.value, constant.area.p_value, constant.accuracy) == (0.5, 1, 0.5)


@pytest.mark.parametrize("strata", [False, True])
def test_equal_groups_give_uniform_p(strata):
    rng = np.random.default_rng(40)
    found = []
    for repeat in range(200):
        x, y = samples(7000 + repeat, 16, 14, d=3)
        kinds = None
        if strata:
            kinds = np.arange(16) % 2, np.arange(14) % 2
            x, y = x + 5 * kinds[0][:, None], y + 5 * kinds[1][:, None]
        found.append(
            classifier_test(x, y, folds=3, permutations=49, seed=repeat, strata=kinds).area.p_value
        )
    assert kstest(np.array(found) - rng.random(200) / 50, "uniform").pvalue > 0.01


def test_wrong_input_is_named():
    x, y = samples(0)
    with pytest.raises(ValueError, match="5 folds of samples of 4 and 40 rows"):
        classifier_test(x, y[:4])
    with pytest.raises(ValueError, match="1 folds"):
        classifier_test(x, y, folds=1)
    with pytest.raises(ValueError, match="5 folds are too many"):
        classifier_test(x, y, together=(np.arange(40), np.arange(30) % 4 + 40))
    with pytest.raises(ValueError, match="each row must have one"):
        classifier_test(x, y, together=(np.arange(40), np.arange(3)))
