"""Leakage of the label into the group, against scikit-learn and a loop."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import normalized_mutual_info_score

from shardwright.quality.heterogeneity.leakage import _measures, _tables, label_leakage


def drawn(seed, n=120, groups=3, kinds=4):
    rng = np.random.default_rng(seed)
    return rng.integers(groups, size=n).astype(str), rng.integers(kinds, size=n).astype(str)


def test_information_is_scikit_learns():
    for seed in range(5):
        groups, labels = drawn(seed)
        found = label_leakage(groups, labels, permutations=1)
        wanted = normalized_mutual_info_score(groups, labels)
        assert found.information == pytest.approx(wanted, rel=1e-12)
        assert (found.rows, found.groups, found.labels) == (120, 3, 4)


def test_accuracy_and_baseline_by_hand():
    """The most frequent label has not the highest number: its count is the baseline."""
    groups = ["a"] * 6 + ["b"] * 4
    labels = list("xxxxxzxzzz")
    found = label_leakage(groups, labels, permutations=50)
    assert found.baseline == 0.6
    assert found.accuracy == 0.8
    assert 0.6 <= found.null_accuracy < 0.8


def test_tables_of_many_deals_are_those_of_each():
    rng = np.random.default_rng(1)
    of_group = rng.integers(3, size=50)
    deals = rng.permuted(np.broadcast_to(rng.integers(4, size=50), (7, 50)), axis=1)
    tables = _tables(of_group, deals, (3, 4))
    information, accuracy = _measures(tables)
    for labels, table, bits, right in zip(deals, tables, information, accuracy, strict=True):
        wanted = np.zeros((3, 4))
        np.add.at(wanted, (of_group, labels), 1)
        assert (table == wanted).all()
        assert bits == pytest.approx(normalized_mutual_info_score(of_group, labels), rel=1e-12)
        assert right == wanted.max(axis=1).sum() / 50


def test_group_that_says_the_label_is_found_and_chance_is_not():
    groups, labels = drawn(2)
    assert label_leakage(groups, groups).information == pytest.approx(1)
    leaking = np.where(np.random.default_rng(3).random(120) < 0.4, groups, labels)
    found = label_leakage(groups, leaking)
    assert found.p_value == 1 / 1000
    assert found.information > 4 * found.null_information
    assert found.accuracy > found.null_accuracy > found.baseline


def test_order_of_rows_changes_nothing():
    groups, labels = drawn(4)
    order = np.random.default_rng(0).permutation(120)
    assert label_leakage(groups[order], labels[order]) == label_leakage(groups, labels)


def test_one_group_or_one_label_says_nothing():
    for groups, labels in ((["a"] * 6, list("xyxyxy")), (list("abcabc"), ["x"] * 6)):
        found = label_leakage(groups, labels, permutations=20)
        assert (found.information, found.p_value) == (0, 1)


def test_unrelated_labels_give_uniform_p():
    rng = np.random.default_rng(50)
    found = []
    for repeat in range(200):
        groups, labels = drawn(9000 + repeat, n=90)
        found.append(label_leakage(groups, labels, permutations=99, seed=repeat).p_value)
    assert kstest(np.array(found) - rng.random(200) / 100, "uniform").pvalue > 0.01


def test_each_row_needs_both():
    with pytest.raises(ValueError, match="each row needs both"):
        label_leakage(["a"], ["x", "y"])
    with pytest.raises(ValueError, match="each row needs both"):
        label_leakage([], [])
