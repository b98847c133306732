"""Rows that k-means starts from: a seeded sample of distinct rows, or k-means++.

Both return row numbers, depend on the rows, their order and the seed alone, and give the same
numbers on every device.
"""

import numpy as np
import numpy.typing as npt
import torch

from shardwright.embeddings.sampling import mixed, uniforms
from shardwright.kernels.exact import norms, pair_values

Int64 = npt.NDArray[np.int64]

_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Float32 products per temporary."""


def sample_start(x: torch.Tensor, k: int, seed: int) -> Int64:
    """Numbers int64 [k] of rows of ``x`` [n, d], drawn without replacement.

    Rows come in a seeded order; while there are rows of other values, no value comes twice.
    """
    order = _seeded_order(len(x), seed)
    seen: set[bytes] = set()
    chosen: list[int] = []
    repeated: list[int] = []
    for start in range(0, len(order), k):
        numbers = order[start : start + k]
        rows = x[torch.from_numpy(numbers).to(x.device)].float().cpu().numpy()
        for number, row in zip(numbers.tolist(), rows, strict=True):
            value = row.tobytes()
            (repeated if value in seen else chosen).append(number)
            seen.add(value)
        if len(chosen) >= k:
            break
    return np.array((chosen + repeated)[:k], dtype=np.int64)


def plus_plus_start(x: torch.Tensor, k: int, seed: int) -> Int64:
    """Numbers int64 [k] of rows of ``x`` [n, d], drawn by k-means++.

    Arthur and Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding", sec. 2.2: the
    first row is drawn evenly, each next one with a probability in proportion to its squared
    distance D^2 to the nearest row drawn so far. For unit rows that is 2 (1 - cosine), the measure
    of Endo and Miyamoto 2015, "Spherical k-Means++ Clustering".

    A draw costs one float32 product of all rows with the new one; only rows that it can have
    brought nearer are measured again. Distances are the kernels' canonical ones, and the running
    sums that are drawn from are NumPy's ``cumsum``, one addition after the other, so the draws do
    not depend on device or threads. When all rows left lie on a drawn one, the rest follows in
    the order of ``sample_start``.
    """
    lengths = norms(x, "x")
    draws = uniforms(k, seed)
    chosen = [int(draws[0] * len(x))]
    distances = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
    for draw in draws[1:].tolist():
        _bring_nearer(distances, x, lengths, chosen[-1])
        cumulative = np.cumsum(distances.cpu().numpy())
        total = cumulative[-1]
        if not total > 0:
            break
        # a product that rounds up to the total would name a row behind the last one
        last = int(np.searchsorted(cumulative, total, side="left"))
        chosen.append(min(int(np.searchsorted(cumulative, draw * total, side="right")), last))
    if len(chosen) < k:
        order = _seeded_order(len(x), seed)
        chosen += order[~np.isin(order, chosen)][: k - len(chosen)].tolist()
    return np.array(chosen, dtype=np.int64)


def _bring_nearer(
    distances: torch.Tensor, x: torch.Tensor, lengths: torch.Tensor, row: int
) -> None:
    """Lowers squared distances float64 [n] to those to row ``row`` where these are smaller.

    With u = 2^-24, any order of additions keeps a float32 inner product within
    ``1.1 (d + 1) u |x| |c|`` of the true one for d <= 2^20 (Higham, "Accuracy and Stability of
    Numerical Algorithms", 2nd ed., sec. 3.1), besides d 2^-126 for what underflows. Four times
    that, and one part in 10^9 for the roundings of float64, makes a distance's lower bound.
    """
    dimension = x.shape[1]
    centre = x[row].float()
    products = torch.empty(len(x), dtype=torch.float32, device=x.device)
    step = max(1, _BLOCK[x.device.type] // max(1, dimension))
    for start in range(0, len(x), step):
        # elementwise, and no matrix product: those may round to fewer bits by a global setting
        block = x[start : start + step].float() * centre
        torch.sum(block, dim=1, out=products[start : start + step])
    error = 4 * (dimension + 1) * 2.0**-24 * lengths * lengths[row] + dimension * 2.0**-124
    squares = lengths.square() + lengths[row].square()
    lowest = squares * (1 - 1e-9) - 2 * (products.double() + error)
    # of what overflowed nothing is known
    passed = (lowest >= distances) & products.isfinite()
    rows = torch.nonzero(~passed)[:, 0]
    found = pair_values(x, x[row][None], rows, torch.zeros_like(rows), "l2")
    distances[rows] = torch.minimum(distances[rows], found)


def _seeded_order(count: int, seed: int) -> Int64:
    """All row numbers int64 [count] in the order of their keys."""
    return np.argsort(mixed(np.arange(count, dtype=np.uint64), seed), kind="stable")
