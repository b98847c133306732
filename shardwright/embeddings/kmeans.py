"""k-means on exact nearest centroids, with the same bits on every device.

Lloyd's algorithm: each row goes to its nearest centroid, each centroid to the mean of its rows.
For ``cosine`` it is spherical k-means (Dhillon and Modha 2001, "Concept Decompositions for Large
Sparse Text Data Using Clustering", Machine Learning 42, sec. 3): rows and centroids are unit
vectors, and a centroid is the normalised sum of its rows.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from shardwright import kernels
from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.group_sums import group_sums
from shardwright.embeddings.starts import plus_plus_start, sample_start
from shardwright.kernels.exact import fold, norms, root

Array = TypeVar("Array", npt.NDArray[Any], torch.Tensor)

_TILE_BYTES = 1 << 30
"""Rows that go to another device at once."""
_UNIT_TOLERANCE = 1e-2
"""How far from 1 a row's norm may lie; half precision stays within 1e-3."""


@dataclass(frozen=True)
class Clustering(Generic[Array]):
    """What ``KMeans.fit`` found; arrays are of the kind of its input, on the input's device.

    Attributes:
        centroids: float32 [k, d]; unit rows for ``cosine``.
        labels: int64 [n], the nearest centroid of each row, the lowest of equally near ones.
        distances: float64 [n] to it: 1 - cosine, or the squared Euclidean distance.
        inertia: sum of the distances.
        iterations: how many times the centroids were moved.
        certified: share of all assignments that the kernels' filter decided at once; 0 with
            ``precision="fast"``, which certifies nothing.
    """

    centroids: Array
    labels: Array
    distances: Array
    inertia: float
    iterations: int
    certified: float


@dataclass(frozen=True)
class KMeans:
    """Settings of k-means; ``fit`` learns centroids and ``assign`` uses them.

    With ``precision="exact"`` the result depends on the rows, their order and the first six
    settings, and on nothing else: threads, device and memory change no bit.

    Attributes:
        k: number of clusters.
        metric: ``cosine`` (rows must be unit vectors) or ``l2``.
        start: ``sample`` (a seeded sample of distinct rows) or ``k-means++``, which passes over
            the rows once for each cluster and ends at a lower inertia where groups are distinct.
        seed: any integer; chooses the rows to start from.
        iterations: how often the centroids move at most, at least 1.
        tolerance: stop when a move lowers the inertia by less than this share of it; 0 stops
            only when no label changes.
        precision: ``exact``, or ``fast``, which takes the answers of the kernels' filter: those
            can be wrong for near ties, and can depend on device and threads.
        device: ``auto`` (a GPU if torch sees one), ``cpu`` or ``cuda``.
    """

    k: int
    metric: Literal["cosine", "l2"] = "cosine"
    start: Literal["sample", "k-means++"] = "sample"
    seed: int = 0
    iterations: int = 20
    tolerance: float = 0.0
    precision: Literal["exact", "fast"] = "exact"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        """Checks what does not depend on the data."""
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use {' or '.join(known)}")
        if self.k < 1:
            raise ValueError(f"k is {self.k}: it must be at least 1")
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}: it must be at least 1")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance}: it must lie between 0 and 1")

    def fit(self, x: Array) -> Clustering[Array]:
        """Learns ``k`` centroids.

        A cluster that loses all its rows takes the row of the largest cluster that is farthest
        from its centroid. The inertia never rises from one iteration to the next but for the
        rounding of centroids to float32. Nothing of the size n x k is held.

        Args:
            x: rows [n, d], n >= k: float32, float16 or (torch) bfloat16, on any device. If they
                have fewer than ``k`` distinct values, some centroids are equal.

        Raises:
            TypeError: ``x`` has another type.
            ValueError: ``k`` exceeds the number of rows, a row holds NaN or infinity, or, for
                ``cosine``, is no unit vector.
            UserError: ``device`` is ``cuda`` and there is none.
        """
        rows = self._placed(_tensor(x))
        if self.k > len(rows):
            raise ValueError(
                f"k is {self.k}: it must lie between 1 and the number of rows, {len(rows)}"
            )
        _check_rows(rows, self.metric)
        with kernels.counting() as count:
            centroids, labels, values, moves = self._lloyd(rows)
        distances = self._distances(values)
        return Clustering(
            _like(x, centroids),
            _like(x, labels),
            _like(x, distances),
            _total(distances),
            moves,
            count.share if self.precision == "exact" else 0.0,
        )

    def assign(self, x: Array, centroids: Array) -> tuple[Array, Array]:
        """Finds the nearest centroid of each row.

        Args:
            x: rows [n, d], as for ``fit``; any norm will do.
            centroids: [m, d] of the same kind.

        Returns:
            ``labels`` int64 [n] and ``distances`` float64 [n], as in ``Clustering``.

        Raises:
            TypeError: an input is neither float32, float16 nor bfloat16.
            ValueError: shapes do not fit, or a row holds NaN or infinity.
            UserError: ``device`` is ``cuda`` and there is none.
        """
        labels, values = self._nearest(_tensor(x), _tensor(centroids))
        return _like(x, labels), _like(x, self._distances(values))

    def _lloyd(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Centroids, the rows' nearest ones and the values for them, and the number of moves."""
        if self.start == "sample":
            chosen = sample_start(rows, self.k, self.seed)
        else:
            chosen = plus_plus_start(rows, self.k, self.seed)
        centroids = rows[torch.from_numpy(chosen).to(rows.device)].float()
        before = torch.full((len(rows),), -1, dtype=torch.int64, device=rows.device)
        inertia = float("inf")
        for moves in range(self.iterations + 1):
            nearest, values = self._nearest(rows, centroids)
            if moves == self.iterations:
                break
            if self.tolerance:
                last, inertia = inertia, _total(self._distances(values))
                if moves and last - inertia <= self.tolerance * last:
                    break
            labels = self._without_empty(nearest, values)
            if torch.equal(labels, before):
                break
            before = labels
            centroids = self._means(rows, labels, centroids)
        return centroids, nearest, values, moves

    def _nearest(
        self, rows: torch.Tensor, centroids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Index int64 [n] and value float64 [n] of the nearest centroids, where ``rows`` lie."""
        device = resolve_device(self.device)
        target = centroids.to(device)
        index = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
        value = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        step = max(1, _TILE_BYTES // max(1, rows.shape[1] * rows.element_size()))
        for start in range(0, len(rows), step):
            tile = slice(start, start + step)
            found = kernels.nearest(
                rows[tile].to(device), target, self.metric, precision=self.precision
            )
            index[tile], value[tile] = found[0].to(rows.device), found[1].to(rows.device)
        return index, value

    def _distances(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.metric == "l2" else (1.0 - values).clamp_(min=0.0)

    def _without_empty(self, labels: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Labels in which each cluster without a row has one; see ``fill_empty``."""
        if int(torch.bincount(labels, minlength=self.k).min()) > 0:
            return labels
        filled = labels.cpu().numpy().copy()
        farness = values if self.metric == "l2" else -values
        fill_empty(filled, farness.cpu().numpy(), self.k)
        return torch.from_numpy(filled).to(labels.device)

    def _means(
        self, rows: torch.Tensor, labels: torch.Tensor, centroids: torch.Tensor
    ) -> torch.Tensor:
        """Means float32 [k, d] of the rows of each label, to unit length for ``cosine``.

        Where rows cancel out and leave no direction, the old centroid stays.
        """
        sums, sizes = group_sums(rows, labels, self.k)
        if self.metric == "l2":
            return (sums / sizes[:, None]).float()
        lengths = root(fold(sums.square()))[:, None]
        return torch.where(lengths > 0, (sums / lengths).float(), centroids)

    def _placed(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows on the device that computes, or left where they are if it has no room for them.

        The results are the same either way; rows that stay behind travel in tiles.
        """
        device = resolve_device(self.device)
        if device == "cuda" and rows.device.type != "cuda":
            free, _ = torch.cuda.mem_get_info()
            if rows.numel() * rows.element_size() > free // 2:
                return rows
        return rows.to(device)


_CHOICES = {
    "metric": ("cosine", "l2"),
    "start": ("sample", "k-means++"),
    "precision": ("exact", "fast"),
    "device": ("auto", "cpu", "cuda"),
}


def fill_empty(labels: npt.NDArray[np.int64], farness: npt.NDArray[np.float64], k: int) -> None:
    """Gives each empty cluster, in order, the farthest row of the largest one; ties to the first.

    Args:
        labels: int64 [n], changed in place; n >= k.
        farness: float64 [n], how far the rows lie from the centroids they had.
        k: number of clusters.
    """
    sizes = np.bincount(labels, minlength=k)
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        members = np.flatnonzero(labels == largest)
        labels[members[farness[members].argmax()]] = empty
        sizes[largest] -= 1
        sizes[empty] = 1


def _total(distances: torch.Tensor) -> float:
    """The sum of float64 [n], added on the CPU so that its bits are the same for every device."""
    return float(distances.cpu().numpy().sum())


def _check_rows(rows: torch.Tensor, metric: str) -> None:
    """Finds what would spoil a start or a mean before anything is computed from it."""
    lengths = norms(rows, "x")
    if metric == "cosine":
        wrong = ((lengths - 1).abs() > _UNIT_TOLERANCE).nonzero()
        if len(wrong):
            row = int(wrong[0, 0])
            raise ValueError(
                f"row {row} of x has norm {float(lengths[row]):g}: cosine needs unit rows"
            )


def _tensor(x: npt.NDArray[Any] | torch.Tensor) -> torch.Tensor:
    """The array as a tensor, which shares its memory if torch can: not what is read-only."""
    if isinstance(x, torch.Tensor):
        rows = x.detach()
    else:
        rows = torch.from_numpy(np.require(x, requirements=["C", "W"]))
    if rows.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"x is {rows.dtype}: use float32, float16 or bfloat16")
    if rows.ndim != 2:
        raise ValueError(f"x has shape {tuple(rows.shape)}: it must be [rows, dimension]")
    return rows


def _like(x: Array, result: torch.Tensor) -> Array:
    """The result as an array where ``x`` is one, else as a tensor on its device."""
    return result.to(x.device) if isinstance(x, torch.Tensor) else result.cpu().numpy()
