"""SemDeDup as a score on a card: the bits of the CPU."""

import numpy as np
import pytest
import torch

from shardwright.quality.pruning.similarity import earlier_similarity

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("sizes", [[1, 40, 2, 900, 7], [3000, 3], [30] * 200])
def test_the_card_answers_as_the_cpu(sizes: list[int], dtype: type) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.standard_normal((len(sizes), 96))[labels] + 0.5 * rng.standard_normal((len(labels), 96))
    x[::3] = np.roll(x, 1, axis=0)[::3]
    x = x.astype(dtype)
    distances, ties = rng.choice([0.1, 0.2, 0.3], len(labels)), rng.permutation(len(labels))
    expected = earlier_similarity(x, labels, distances, ties)
    moved = earlier_similarity(x, labels, distances, ties, "cuda")
    there = earlier_similarity(torch.from_numpy(x).cuda(), labels, distances, ties)
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(there, expected)
