"""Groups matched by stratum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.embeddings.sampling import mixed
from shardwright.quality.heterogeneity.matching import match

labels = st.lists(st.sampled_from("abcd"), max_size=30)


def keys(count, seed):
    return mixed(np.arange(count, dtype=np.uint64), seed)


@given(labels, labels, st.integers(0, 5))
def test_counts_are_those_of_the_smaller_in_every_stratum(x, y, seed):
    found = match(x, y, keys(len(x), seed), keys(len(y), seed + 100))
    wanted = {s: min(x.count(s), y.count(s)) for s in "abcd"}
    assert [x[i] for i in found.x] == [y[j] for j in found.y]
    assert {s: [x[i] for i in found.x].count(s) for s in "abcd"} == wanted
    assert len(set(found.x.tolist())) == len(set(found.y.tolist())) == found.rows
    assert found.strata == sum(count > 0 for count in wanted.values())
    assert (found.left_x, found.left_y) == (len(x) - found.rows, len(y) - found.rows)


def test_rows_of_the_smallest_keys_are_taken_in_any_order():
    x, y = np.repeat([0, 1], [50, 20]), np.repeat([1, 0], [30, 10])
    of_x, of_y = keys(70, 1), keys(40, 2)
    found = match(x, y, of_x, of_y)
    assert sorted(found.x[x[found.x] == 0]) == sorted(np.argsort(of_x[:50])[:10])
    assert sorted(found.y[y[found.y] == 1]) == sorted(np.argsort(of_y[:30])[:20])
    order = np.random.default_rng(0).permutation(70)
    again = match(x[order], y, of_x[order], of_y)
    assert (order[again.x] == found.x).all()
    assert (again.y == found.y).all()
    swapped = match(y, x, of_y, of_x)
    assert (swapped.x == found.y).all()
    assert (swapped.y == found.x).all()


def test_each_row_needs_both():
    with pytest.raises(ValueError, match="each row must have one of both"):
        match([1, 2], [1], keys(1, 0), keys(1, 0))
