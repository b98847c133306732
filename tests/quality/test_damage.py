"""``damage`` on planted views: what it adds up, what it never does, and what it finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.quality.damage import fit_damage
from shardwright.quality.evaluation import area

NAMES = ("parser", "model", "lint", "length", "noise")
ODD = (False, False, False, True, False)
FAMILIES = ("brackets", "flips", "cuts")
LANGUAGES = ("Python", "C")


def clean(rng, rows):
    """Views of sound records: of other units and tails in each language, some missing."""
    values = np.column_stack(
        [
            np.exp(rng.normal(size=rows)),
            rng.normal(5, 1, rows),
            rng.poisson(1.0, rows),
            rng.normal(40, 8, rows),
            rng.normal(size=rows),
        ]
    )
    groups = rng.choice(np.array(LANGUAGES), rows)
    values[groups == "C", 1] += 4.0
    values[rng.random(rows) < 0.1, 2] = np.nan
    return values, groups.tolist()


def damaged(rng, family, rows):
    """Brackets are seen by the parser alone, flips by the model and lint, cuts by the length."""
    values, groups = clean(rng, rows)
    if family == "brackets":
        values[:, 0] *= np.exp(rng.uniform(1.5, 3.5, rows))
    elif family == "flips":
        values[:, 1] += rng.uniform(0.5, 3, rows)
        values[:, 2] += rng.poisson(2.0, rows)
    else:
        values[:, 3] += rng.choice(np.array([-1.0, 1.0]), rows) * rng.uniform(12, 30, rows)
        values[:, 0] *= np.exp(rng.uniform(0.0, 1.5, rows))
    return values, groups


def planted(seed, rows, families=FAMILIES):
    """Arguments of ``fit_damage``, from clean records on."""
    rng = np.random.default_rng(seed)
    good, good_groups = clean(rng, 3 * rows)
    found = [damaged(rng, family, rows) for family in families]
    values = np.concatenate([each for each, _ in found])
    groups = [group for _, several in found for group in several]
    return good, good_groups, values, groups, np.repeat(families, rows).tolist()


MODEL = fit_damage(NAMES, ODD, *planted(0, 200))
NUMBER = st.one_of(st.just(float("nan")), st.floats(-60, 120, allow_subnormal=False))
ROW = st.lists(NUMBER, min_size=5, max_size=5)
GROUP = st.sampled_from([*LANGUAGES, "Zig", None])


def found(one, other):
    scores = -np.concatenate([one, other])
    rows = np.arange(len(scores))
    return area(scores, rows >= len(one), rows).value


@given(st.lists(st.tuples(ROW, GROUP), min_size=1, max_size=12))
def test_contributions_add_up(records):
    values = np.array([row for row, _ in records])
    groups = [group for _, group in records]
    added = MODEL.contributions(values, groups)
    assert added.shape == values.shape
    assert np.isfinite(added).all()
    assert (added >= 0).all()
    np.testing.assert_allclose(MODEL.judge(values, groups), added.sum(axis=1) + MODEL.bias)
    assert (added[np.isnan(values)] == 0).all()
    for place, group in enumerate(groups):  # and a record is judged alone
        alone = MODEL.contributions(values[place : place + 1], [group])
        np.testing.assert_array_equal(alone[0], added[place])


@given(ROW, GROUP, st.sampled_from([0, 1, 2, 4]), st.floats(0, 50))
def test_worse_never_helps(row, group, view, step):
    values = np.array([row, row])
    values[1, view] += step
    before, after = MODEL.judge(values, [group, group])
    assert after >= before


@settings(max_examples=100)
@given(GROUP, st.floats(0, 60), st.floats(0, 60), st.booleans())
def test_either_end_of_an_odd_view_is_worse(group, near, far, below):
    """About its median, which no other view needs."""
    knots = MODEL.gauge.knots[group if group in MODEL.gauge.knots else ""][3]
    middle = float(np.median(knots))
    near, far = sorted((near, far))
    sign = -1 if below else 1
    values = np.full((3, 5), np.nan)
    values[:, 3] = middle, middle + sign * near, middle + sign * far
    at, closer, farther = MODEL.judge(values, [group] * 3)
    assert at - 0.1 <= closer <= farther


def test_both_ends_count():
    values = np.full((3, 5), np.nan)
    values[:, 3] = 40, 8, 72
    middle, low, high = MODEL.contributions(values, ["Python"] * 3)[:, 3]
    assert middle < 0.2 * min(low, high)
    assert low == pytest.approx(high, rel=0.25)


def test_a_better_value_says_nothing():
    """Below the median a view that is not odd adds nothing, however far."""
    values = np.full((2, 5), np.nan)
    values[0, :3] = -100, -100, -100
    added = MODEL.contributions(values, ["Python", "C"])
    assert (added == 0).all()
    assert MODEL.judge(values, ["Python", None]).tolist() == [MODEL.bias] * 2


def test_what_falls_with_damage_speaks_for_no_record():
    """Damage that lowers a view does not make high values of it a recommendation."""
    good, good_groups, values, groups, families = planted(9, 100)
    values[:, 4] -= 2.0
    model = fit_damage(NAMES, ODD, good, good_groups, values, groups, families)
    good[:, 4] += 3.0
    assert (model.contributions(good, good_groups) >= 0).all()
    raised = good + np.eye(5)[4]
    assert (model.judge(raised, good_groups) >= model.judge(good, good_groups)).all()


def test_noise_weighs_little():
    """A view that tells nothing says little of new records, beside those that tell."""
    values, groups = planted(1, 200)[2:4]
    added = MODEL.contributions(values, groups).mean(axis=0)
    told = dict(zip(NAMES, added, strict=True))
    assert told["noise"] < 0.25 * min(told[name] for name in ("parser", "model", "length"))


def test_damage_is_found():
    good, good_groups, values, groups, _ = planted(2, 200)
    assert found(MODEL.judge(good, good_groups), MODEL.judge(values, groups)) > 0.85


@pytest.mark.parametrize("family", FAMILIES)
def test_unseen_damage_is_found_if_a_view_sees_it(family):
    """Cuts are seen by no view that brackets and flips teach but the parser, and less well."""
    taught = [name for name in FAMILIES if name != family]
    model = fit_damage(NAMES, ODD, *planted(3, 200, taught))
    good, good_groups, values, groups, _ = planted(4, 200, [family])
    ours = found(model.judge(good, good_groups), model.judge(values, groups))
    noise = found(good[:, 4], values[:, 4])
    assert ours > 0.62
    assert ours > noise + 0.08


def test_a_language_is_judged_by_its_own():
    """Surprise that is usual in C is odd in Python."""
    values = np.full((2, 5), np.nan)
    values[:, 1] = 9.0
    python, c = MODEL.contributions(values, ["Python", "C"])[:, 1]
    assert python > c + 0.5


def test_families_count_alike():
    """Ten times as much of one family does not make it the only one."""
    good, good_groups, values, groups, families = planted(5, 100)
    many = np.array(families) == "brackets"
    rows = np.concatenate([np.flatnonzero(~many), np.tile(np.flatnonzero(many), 10)])
    model = fit_damage(
        NAMES,
        ODD,
        good,
        good_groups,
        values[rows],
        [groups[i] for i in rows],
        [families[i] for i in rows],
    )
    once = fit_damage(NAMES, ODD, good, good_groups, values, groups, families)
    asked, asked_groups = planted(6, 100)[2:4]
    np.testing.assert_allclose(
        model.judge(asked, asked_groups), once.judge(asked, asked_groups), atol=0.1
    )


def test_a_view_that_is_missing_throughout():
    good, good_groups, values, groups, families = planted(7, 60)
    good[:, 2] = np.nan
    values[:, 2] = np.nan
    model = fit_damage(NAMES, ODD, good, good_groups, values, groups, families)
    judged = model.judge(values, groups)
    assert np.isfinite(judged).all()
    values[:, 2] = 50.0  # appears only later, so nothing is known of it
    np.testing.assert_array_equal(model.judge(values, groups), judged)


def test_a_single_family_and_few_records():
    good, good_groups, values, groups, families = planted(8, 2, ["brackets"])
    model = fit_damage(NAMES, ODD, good, good_groups, values, groups, families)
    assert np.isfinite(model.judge(values, groups)).all()
    assert model.names == NAMES
