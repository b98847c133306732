"""The table of shifts: who is compared, with which rows, and what is found."""

from dataclasses import replace

import numpy as np
import pytest

from shardwright.quality.heterogeneity.mmd import mmd
from shardwright.quality.heterogeneity.multiplicity import benjamini_hochberg, holm
from shardwright.quality.heterogeneity.shift import Settings, device_shift

MEASURES = ["mmd", "mmd_multi", "sliced_wasserstein", "frechet", "classifier"]
QUICK = Settings(least=20, most=60, permutations=49, frechet_permutations=19)


def ids(count, first=0):
    rng = np.random.default_rng(77)
    return [row.tobytes().hex() for row in rng.integers(256, size=(first + count, 16), dtype="u1")][
        first:
    ]


def collection(seed=0, shift=1.0):
    """Groups a and b are alike, c is shifted, d is too small, and some rows have no group."""
    rng = np.random.default_rng(seed)
    groups = ["a"] * 40 + ["b"] * 30 + ["c"] * 35 + ["d"] * 5 + [None] * 9
    values = rng.normal(size=(len(groups), 4))
    values[70:105] += shift
    return ids(len(groups)), groups, values


@pytest.fixture(scope="module")
def found():
    return device_shift(*collection(), "embedding", settings=QUICK)


def test_every_pair_of_large_groups_has_every_measure(found):
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(r.group_a, r.group_b, r.measure) for r in found.rows] == [
        (*pair, measure) for pair in pairs for measure in MEASURES
    ]
    assert found.too_small == {"d": 5}
    assert found.notes == ("d: not enough data, 5 rows",)
    assert {(r.space, r.matched, r.ruler_stage, r.ruler_amount) for r in found.rows} == {
        ("embedding", False, None, None)
    }
    sizes = {(r.group_a, r.group_b): (r.n_a, r.n_b) for r in found.rows if r.measure == "mmd"}
    assert sizes == {("a", "b"): (40, 30), ("a", "c"): (40, 35), ("b", "c"): (30, 35)}
    equal = [(r.n_a, r.n_b) for r in found.rows if r.measure == "frechet"]
    assert equal == [(30, 30), (35, 35), (30, 30)]


def test_only_the_shifted_group_stands_out(found):
    for row in found.rows:
        if "c" in (row.group_a, row.group_b):
            assert row.p_value == (1 / 20 if row.measure == "frechet" else 1 / 50)
            assert row.effect_size > 0.05
        else:
            assert row.p_value > 0.05
            assert abs(row.effect_size) < 0.2


def test_values_are_those_of_the_measures(found):
    _, groups, values = collection()
    a, c = (values[[g == name for g in groups]] for name in "ac")
    wanted = mmd(a, c, permutations=49)
    row = next(r for r in found.rows if (r.group_b, r.measure) == ("c", "mmd"))
    assert (row.value, row.effect_size, row.null_mean, row.p_value) == (
        wanted.value,
        wanted.effect_size,
        wanted.null_mean,
        wanted.p_value,
    )


def test_p_is_adjusted_over_the_pairs_of_a_measure(found):
    other = device_shift(
        *collection(), "embedding", settings=replace(QUICK, correction="benjamini_hochberg")
    )
    for correct, rows in ((holm, found.rows), (benjamini_hochberg, other.rows)):
        for measure in MEASURES:
            some = [r for r in rows if r.measure == measure]
            wanted = correct([r.p_value for r in some])
            assert [r.p_adjusted for r in some] == wanted.tolist()


def test_order_of_rows_and_other_groups_change_nothing(found):
    record_ids, groups, values = collection()
    order = np.random.default_rng(1).permutation(len(groups))
    again = device_shift(
        [record_ids[i] for i in order],
        [groups[i] for i in order],
        values[order],
        "embedding",
        settings=QUICK,
    )
    assert again == found
    alone = device_shift(
        record_ids,
        [None if g == "b" else g for g in groups],
        values,
        "embedding",
        settings=replace(QUICK, least=5),
    )
    values_of = {(r.group_a, r.group_b, r.measure): (r.value, r.p_value) for r in alone.rows}
    for row in found.rows:
        if "b" not in (row.group_a, row.group_b):
            assert values_of[row.group_a, row.group_b, row.measure] == (row.value, row.p_value)


def test_names_of_groups_do_not_matter(found):
    record_ids, groups, values = collection()
    renamed = {"a": "z", "b": "y", "c": "x", "d": "w", None: None}
    again = device_shift(
        record_ids, [renamed[g] for g in groups], values, "embedding", settings=QUICK
    )
    one = {
        (frozenset((renamed[r.group_a], renamed[r.group_b])), r.measure): (r.value, r.p_value)
        for r in found.rows
    }
    two = {(frozenset((r.group_a, r.group_b)), r.measure): (r.value, r.p_value) for r in again.rows}
    assert one == two


def test_large_groups_are_sampled_and_it_is_said():
    found = device_shift(*collection(), "embedding", settings=replace(QUICK, most=32))
    assert found.sampled == {"a": 40, "c": 35}
    assert "a: a sample of its 40 rows" in found.notes
    assert {(r.n_a, r.n_b) for r in found.rows if r.measure == "mmd"} == {
        (32, 30),
        (32, 32),
        (30, 32),
    }


def content(seed=3):
    """Two devices that photograph different things, but show each in the same way."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(["cat", "dog", "cat", "dog"], [70, 30, 30, 70])
    values = rng.normal(size=(200, 4)) + 2.0 * (kinds == "dog")[:, None]
    return ids(200), ["a"] * 100 + ["b"] * 100, values, kinds.tolist()


def test_matching_takes_content_out():
    record_ids, groups, values, kinds = content()
    settings = replace(QUICK, most=90)
    found = device_shift(record_ids, groups, values, "embedding", strata=kinds, settings=settings)
    assert [r.matched for r in found.rows] == [False] * 5 + [True] * 5
    for row in found.rows:
        if row.matched:
            assert (row.n_a, row.n_b) == (60, 60)
            assert row.p_value > 0.05
        else:
            assert row.p_value == (1 / 20 if row.measure == "frechet" else 1 / 50)
    assert found.unmatched == {("a", "b"): (40, 40)}
    moved = values + 1.0 * (np.array(groups) == "b")[:, None]
    again = device_shift(record_ids, groups, moved, "embedding", strata=kinds, settings=settings)
    assert all(row.p_value <= 1 / 20 for row in again.rows)


def test_matched_samples_keep_equal_counts(monkeypatch):
    from shardwright.quality.heterogeneity import shift

    seen = []
    monkeypatch.setattr(
        shift, "classifier_test", lambda a, b, **k: seen.append(k["strata"]) or FakeTold()
    )
    record_ids, groups, values, kinds = content()
    device_shift(
        record_ids, groups, values, "embedding", strata=kinds, settings=replace(QUICK, most=40)
    )
    a, b = seen[-1]
    assert len(a) == 40
    assert sorted(a) == sorted(b)
    assert min(a.tolist().count(kind) for kind in set(a)) > 12  # and not one stratum first


class FakeTold:
    area = mmd(np.eye(3), np.eye(3), permutations=1)


def test_too_few_matched_rows_are_named():
    record_ids, groups, values, kinds = content()
    kinds = [k if i < 100 else ("cat" if i < 110 else None) for i, k in enumerate(kinds)]
    found = device_shift(record_ids, groups, values, "embedding", strata=kinds, settings=QUICK)
    assert not any(row.matched for row in found.rows)
    assert found.too_few_matched == {("a", "b"): 10}
    assert "a and b: not enough data, 10 matched rows of either" in found.notes


def test_statistics_are_put_on_one_scale_and_gaps_are_said():
    record_ids, groups, values = collection(shift=0.8)
    plain = device_shift(record_ids, groups, values, "statistics", settings=QUICK)
    scaled = device_shift(
        record_ids, groups, values * [1, 1000, 0.01, 3] + 50, "statistics", settings=QUICK
    )
    for one, two in zip(plain.rows, scaled.rows, strict=True):
        assert two.value == pytest.approx(one.value, rel=1e-6)
    gaps = np.column_stack([values, np.ones(len(values))])
    gaps[:40, 2] = np.nan  # of all of a
    gaps[45, 1] = np.nan  # of one of b
    found = device_shift(
        record_ids,
        groups,
        gaps,
        "statistics",
        columns=["red", "tone", "noise", "blur", "constant"],
        settings=QUICK,
    )
    assert found.dropped == {("a", "b"): ("noise",), ("a", "c"): ("noise",)}
    assert "a and b: one lacks noise" in found.notes
    assert len(found.rows) == 15
    assert np.isfinite([[r.value, r.effect_size, r.null_mean] for r in found.rows]).all()
    nothing = device_shift(
        record_ids, groups, np.full((119, 2), np.nan), "statistics", settings=QUICK
    )
    assert nothing.rows == ()
    assert nothing.dropped[("a", "b")] == ("0", "1")


def test_no_large_pair_is_no_row():
    record_ids, groups, values = collection()
    found = device_shift(record_ids, groups, values, "embedding", settings=Settings())
    assert found.rows == ()
    assert found.too_small == {"a": 40, "b": 30, "c": 35, "d": 5}


def test_wrong_input_is_named():
    record_ids, groups, values = collection()
    with pytest.raises(ValueError, match="space 'pixels'"):
        device_shift(record_ids, groups, values, "pixels")
    with pytest.raises(ValueError, match="each row needs all three"):
        device_shift(record_ids, groups[1:], values, "embedding")
    with pytest.raises(ValueError, match="comes twice"):
        device_shift([record_ids[0], *record_ids[:-1]], groups, values, "embedding")
    with pytest.raises(ValueError, match="118 strata"):
        device_shift(record_ids, groups, values, "embedding", strata=["s"] * 118)
    with pytest.raises(ValueError, match="2 names for 4 columns"):
        device_shift(record_ids, groups, values, "statistics", columns=["x", "y"])
    with pytest.raises(ValueError, match="below the 5 folds"):
        device_shift(record_ids, groups, values, "embedding", settings=Settings(least=4))
    values[3, 1] = np.nan
    with pytest.raises(ValueError, match=f"record {record_ids[3]} holds NaN"):
        device_shift(record_ids, groups, values, "embedding")
    values[3, 1] = np.inf
    with pytest.raises(ValueError, match="holds infinity"):
        device_shift(record_ids, groups, values, "statistics")
