"""Adjusted p-values against values by hand and SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from shardwright.quality.heterogeneity.multiplicity import adjust, benjamini_hochberg, holm

lists = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(p).tolist() == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1, 1]
    assert holm([]).tolist() == benjamini_hochberg([]).tolist() == []


@given(lists)
def test_benjamini_hochberg_is_scipys(p):
    assert np.allclose(benjamini_hochberg(p), false_discovery_control(p, method="bh"), rtol=1e-12)


@given(lists)
def test_holm_rejects_step_by_step(p):
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for step, place in enumerate(np.argsort(p, kind="stable").tolist()):
            if p[place] * (len(p) - step) > level:
                break
            rejected.add(place)
        assert rejected == set(np.flatnonzero(adjusted <= level).tolist())


@given(lists)
def test_adjusting_keeps_order_and_never_lowers(p):
    for correction in ("holm", "benjamini_hochberg"):
        found = adjust(p, correction)
        assert (found >= np.array(p) * (1 - 1e-12)).all()
        assert (found <= 1).all()
        assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()
        assert np.allclose(adjust(p[::-1], correction), found[::-1])


def test_wrong_input_is_named():
    for values in ([0.5, 1.5], [-0.1], [float("nan")], [[0.5]]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            holm(values)
    with pytest.raises(ValueError, match="'fdr' is unknown"):
        adjust([0.5], "fdr")
