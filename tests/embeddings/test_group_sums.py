"""Sums of rows by label in one fixed order."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.embeddings import group_sums as module
from shardwright.embeddings.group_sums import group_sums


def added_up(rows):
    """The documented order, row by row: runs of 32, then runs of their sums."""
    while len(rows) > 1:
        sums = []
        for first in range(0, len(rows), 32):
            total = rows[first].copy()
            for row in rows[first + 1 : first + 32]:
                total = total + row
            sums.append(total)
        rows = sums
    return rows[0]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 2500),
    st.integers(1, 9),
    st.integers(1, 12),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.sampled_from([1, 8, 100, 1 << 18]),
)
def test_bits_follow_the_documented_order(seed, count, dimension, groups, dtype, block):
    rng = np.random.default_rng(seed)
    # exponents so far apart that the order of additions shows in the last bit
    widest = 12 if dtype == torch.float16 else 40
    scale = np.exp2(rng.integers(-widest, widest, (count, dimension)))
    x = torch.from_numpy(rng.standard_normal((count, dimension)) * scale).to(dtype)
    # a skewed draw, so that there are groups of one run, of many, and empty ones
    labels = np.minimum(rng.geometric(0.4, count) - 1, groups - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", {"cpu": block})
        sums, sizes = group_sums(x, torch.from_numpy(labels), groups)
    wide = x.double().numpy()
    for group in range(groups):
        members = wide[labels == group]
        assert sizes[group] == len(members)
        expected = added_up(list(members)) if len(members) else np.zeros(dimension)
        assert (sums[group].numpy() == expected).all()


def test_long_groups_are_added_accurately():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40_000, 2)).astype(np.float32)
    sums, _ = group_sums(torch.from_numpy(x), torch.zeros(len(x), dtype=torch.int64), 1)
    exact = [float(sum(map(Fraction, column.tolist()))) for column in x.T]
    np.testing.assert_allclose(sums[0], exact, rtol=0, atol=1e-11)
