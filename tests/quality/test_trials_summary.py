"""Summaries of trials against counting by hand."""

import math

import numpy as np
import pytest

from shardwright.quality.trials_summary import ALL, estimates, summarise, worst

FAMILIES = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
FOLDS = {"a": 0, "b": 1, "c": 0}
KINDS = np.array(["", "a1", "", "b1", "", "a2", "", "b1", "", ""])
PLAIN = np.array([5.0, 1, 6, 9, 7, 5.5, 8, 2, 3, 4])
FOLD_0 = np.array([5.0, 1, 6, 0, 7, 2, 8, 0, 3, 4])  # finds a; b is none of its concern
FOLD_1 = np.array([5.0, 0, 6, 9, 7, 0, 8, 10, 3, 4])  # puts b on top
TRIAL = {"kinds": KINDS, "plain": PLAIN, "taught": np.column_stack([FOLD_0, FOLD_1])}


def counted(scores, bad):
    pairs = [(b, g) for b in scores[bad] for g in scores[KINDS == ""]]
    return sum(1.0 if b < g else 0.5 if b == g else 0.0 for b, g in pairs) / len(pairs)


def family(*names):
    return np.isin(KINDS, [kind for kind, own in FAMILIES.items() if own in names])


def test_each_fold_is_judged_by_its_own_column():
    assert estimates([TRIAL], "taught", ["a"], FAMILIES, FOLDS, 0.2)[0].value == 1.0
    assert estimates([TRIAL], "taught", ["b"], FAMILIES, FOLDS, 0.2)[0].value == 0.0
    pooled, found = estimates([TRIAL], "taught", None, FAMILIES, FOLDS, 0.25)
    assert pooled.value == pytest.approx((2 * 1.0 + 2 * 0.0) / 4)
    assert found.value == pytest.approx((2 * 1.0 + 2 * 0.0) / 4)  # 2 of 8 rows go in each fold


def test_a_plain_method_is_counted_the_same_way():
    for names in (["a"], ["b"], ["a", "c"]):
        area, _ = estimates([TRIAL], "plain", names, FAMILIES, FOLDS, 0.2)
        assert area.value == pytest.approx(counted(PLAIN, family(*names)))
    area, recall = estimates([TRIAL], "plain", None, FAMILIES, FOLDS, 0.25)
    both = (counted(PLAIN, family("a")) + counted(PLAIN, family("b"))) / 2
    assert area.value == pytest.approx(both)
    # of the rows without b the lowest two are 1 (a) and 3; of those without a 2 (b) and 3
    assert recall.value == pytest.approx(2 / 4)


def test_folds_weigh_their_damage():
    kinds = np.array(["", "a1", "", "b1", "", "", "", "b1", "", ""])
    trial = TRIAL | {"kinds": kinds}
    pooled, _ = estimates([trial], "taught", None, FAMILIES, FOLDS, 0.2)
    assert pooled.value == pytest.approx((1 * 1.0 + 2 * 0.0) / 3)


def test_trials_are_cut_each_on_its_own_and_files_stay_files():
    other = TRIAL | {"plain": PLAIN + 100}
    once, twice = (estimates(t, "plain", ["a"], FAMILIES, FOLDS, 0.25) for t in ([TRIAL], [other]))
    assert once[1].value == twice[1].value == 0.5
    both = estimates([TRIAL, other], "plain", ["a"], FAMILIES, FOLDS, 0.25)
    assert both[1].value == 0.5
    same = estimates([TRIAL, TRIAL], "plain", ["a"], FAMILIES, FOLDS, 0.25)
    assert same[0].value == once[0].value
    assert same[0].error == pytest.approx(once[0].error)  # a trial twice tells nothing new
    assert once[0].error > 0


def test_a_family_without_damage():
    area, recall = estimates([TRIAL], "plain", ["c"], FAMILIES, FOLDS, 0.2)
    assert math.isnan(area.value)
    assert math.isnan(recall.value)
    rows = summarise([TRIAL, TRIAL], ["plain", "taught"], FAMILIES, FOLDS, 0.2)
    assert [(row.method, row.family) for row in rows] == [
        *(("plain", ALL), ("plain", "a"), ("plain", "b")),
        *(("taught", ALL), ("taught", "a"), ("taught", "b")),
    ]
    assert [(row.damaged, row.sources) for row in rows] == [(8, 4), (4, 2), (4, 2)] * 2
    assert worst(rows, "taught").family == "b"
    assert worst(rows, "plain").area.value == min(r.area.value for r in rows[1:3])


def test_nothing_damaged_at_all():
    nothing = TRIAL | {"kinds": np.full(10, "")}
    (row,) = summarise([nothing], ["plain"], FAMILIES, FOLDS, 0.2)
    assert (row.family, row.damaged) == (ALL, 0)
    assert math.isnan(row.area.value)
