"""Semantic duplicates on a card: the answers of the CPU. Needs pytest, NumPy and torch alone."""

import numpy as np
import pytest
import torch

from shardwright.quality.close_pairs import close_pairs, narrow_basis
from shardwright.quality.semdedup import MEANINGS, Verdicts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def clustered(sizes: list[int], dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((len(sizes), dimension)).astype(np.float32)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = centres[labels] + 0.5 * rng.standard_normal((len(labels), dimension))
    x[::3] = np.roll(x, 1, axis=0)[::3] + 0.05 * rng.standard_normal((len(x[::3]), dimension))
    return x.astype(np.float32), labels, centres


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dimension", [96, 384, 768])
@pytest.mark.parametrize("sizes", [[1, 40, 2, 900, 7], [5000, 3], [30] * 300])
@pytest.mark.parametrize("ruled_out", [True, False])
def test_the_card_answers_as_the_cpu(
    sizes: list[int], dimension: int, dtype: type, ruled_out: bool
) -> None:
    x, labels, centres = clustered(sizes, dimension)
    x = x.astype(dtype)
    narrow = narrow_basis(x, labels, centres, 64) if ruled_out else None
    found = {}
    for device, rows in (("cpu", x), ("cuda", x), ("cuda", torch.from_numpy(x).cuda())):
        verdicts = Verdicts(len(x))
        for pairs in close_pairs(rows, labels, 0.9, narrow, device):
            verdicts.add(*pairs)
        found[device, type(rows)] = verdicts
    first, *others = found.values()
    assert (first.representatives("ranked") != np.arange(len(x))).sum() > len(x) // 10
    for other in others:
        for meaning in MEANINGS:
            expected = first.representatives(meaning)
            np.testing.assert_array_equal(other.representatives(meaning), expected)
        np.testing.assert_array_equal(other.earlier[1], first.earlier[1])
