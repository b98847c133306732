"""k-means in two levels, for many clusters: the clusters of clusters.

Lloyd's algorithm on n rows costs n k d per move. Where k is large, rows are first put into about
sqrt(k) coarse clusters, and each of these is then cut into its share of the k: n sqrt(k) d per move
(Nister and Stewenius 2006, "Scalable Recognition with a Vocabulary Tree", sec. 3, with two levels).
What comes out is a flat list of centroids; rows are assigned to the nearest of all of them.
"""

from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.kmeans import KMeans

FLAT = 10_000
"""Most clusters that are found in one level."""

Int64 = npt.NDArray[np.int64]


def fit_centroids(x: npt.NDArray[Any], settings: KMeans) -> npt.NDArray[np.float32]:
    """Learns ``settings.k`` centroids, in two levels where there are more than ``FLAT``.

    Args:
        x: rows [n, d], float32 or float16, n >= k; may be mapped from a file: what is held is
            n / 32 sums, a tile of rows and, with two levels, the rows of one coarse cluster.
        settings: of the k-means; they hold for both levels.

    Returns:
        float32 [k, d]; those of one coarse cluster stand together.

    Raises:
        TypeError, ValueError, UserError: see ``KMeans.fit``.
    """
    if settings.k <= FLAT:
        return settings.fit(x).centroids
    coarse = replace(settings, k=isqrt(settings.k)).fit(x)
    order = np.argsort(coarse.labels, kind="stable")
    sizes = np.bincount(coarse.labels, minlength=isqrt(settings.k))
    shares = proportional(sizes, settings.k)
    found = []
    start = 0
    for size, share in zip(sizes.tolist(), shares.tolist(), strict=True):
        if share:
            rows = np.sort(order[start : start + size])
            found.append(replace(settings, k=share).fit(x[rows]).centroids)
        start += size
    return np.concatenate(found)


def proportional(sizes: Int64, total: int) -> Int64:
    """Shares int64 [g] of ``total`` in proportion to ``sizes`` [g], none above its size.

    By largest remainders; what a size leaves over goes to the others in the same way. Needs
    ``total <= sizes.sum()``.
    """
    shares = np.zeros_like(sizes)
    while (left := total - int(shares.sum())) > 0:
        room = sizes - shares
        exact = room * (left / room.sum())
        more = np.minimum(np.floor(exact).astype(np.int64), room)
        short = left - int(more.sum())
        after = np.argsort(-(exact - more), kind="stable")
        after = after[room[after] > more[after]][:short]
        more[after] += 1
        shares += more
    return shares
