"""CPU shapes and competitors for ``benchmarks/kernels.py``.

Rows have unit norm, so that inner product, cosine and Euclidean distance rank alike and every
competitor may use what suits it best. All are float32.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from rounds import Case, Entry, Goal, Run
from torch import Tensor

from shardwright import kernels

try:
    import faiss
except ImportError:
    faiss = None
try:
    from threadpoolctl import threadpool_limits
except ImportError:
    threadpool_limits = None
try:
    import sklearn
    from sklearn.metrics import pairwise_distances_argmin
    from sklearn.neighbors import NearestNeighbors
except ImportError:
    sklearn = None

_SCORES = 1 << 21
"""Scores that the plain chunked products hold at once: what was fastest here for most shapes."""
NEAREST = (
    (8192, 8192, 768),
    (65536, 1000, 768),
    (65536, 1000, 384),
    (65536, 1000, 128),
    (32768, 4096, 128),
    (100_000, 100, 256),
)
GAMMAS = (0.25, 0.5, 1.0, 2.0)
FLOPS = ("GFLOP/s", 1e9)


def limit_threads(count: int) -> str:
    """The same number of threads for every library; a line for the header."""
    torch.set_num_threads(count)
    names = ["torch"]
    if faiss is not None:
        faiss.omp_set_num_threads(count)
        names.append(f"faiss-cpu {faiss.__version__}")
    if sklearn is not None:
        names.append(f"scikit-learn {sklearn.__version__}")
    if threadpool_limits is not None:
        # NumPy's, SciPy's and FAISS' own BLAS and OpenMP libraries
        threadpool_limits(count)
        names.append("their BLAS")
    return (
        f"{count} threads each for {', '.join(names)}; "
        "50 ms of rest before each reading, so that no library's waiting threads disturb the next"
    )


def cases(quick: bool) -> Iterator[Case]:
    """All CPU cases; ``quick`` has an eighth of the rows or fewer."""
    shrink = 8 if quick else 1
    for count, k, dimension in NEAREST:
        yield _nearest(count // shrink, k, dimension, "cosine")
    yield _nearest(16384 // shrink, 4096, 256, "l2")
    for k in (10, 100):
        yield _topk(2048 // shrink, 32768 // shrink, 384, k)
    sizes = lognormal_sizes(10_000 if quick else 60_000, 200)
    yield _group_max(sizes, 384)
    yield _pairs_above(sizes, 384)
    for dimension in (128, 768):
        yield _kernel_sum(4096 // shrink, 8192 // shrink, dimension)


def unit_rows(count: int, dimension: int, seed: int) -> Tensor:
    """Random directions, float32 [count, dimension]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dimension, generator=generator))


def lognormal_sizes(count: int, median: float) -> list[int]:
    """Sizes of clusters, lognormal with sigma 1, that add up to ``count``."""
    rng = np.random.default_rng(0)
    sizes: list[int] = []
    while (left := count - sum(sizes)) > 0:
        sizes.append(min(left, max(1, round(rng.lognormal(math.log(median), 1.0)))))
    return sizes


def semdedup_loop(x: Tensor, sizes: list[int], batch: int = 1024) -> Tensor:
    """SemDeDup's inner loop in NeMo Curator's form: product, upper triangle, maximum of columns.

    One cluster after the other and a batch of columns at a time; see
    ``pairwise_cosine_similarity_batched`` in NeMo Curator's semantic deduplication.
    """
    values = []
    for rows in x.split(sizes):
        for start in range(0, len(rows), batch):
            scores = torch.mm(rows, rows[start : start + batch].T)
            values.append(torch.triu(scores, diagonal=1 - start).max(dim=0).values)
    return torch.cat(values)


def chunked(x: Tensor, y: Tensor, reduce: Callable[[Tensor], object] | None) -> Run:
    """``torch.mm`` of chunks of ``x`` with all of ``y`` into one buffer, then ``reduce``."""
    rows = min(max(_SCORES // len(y), 512), 4096)
    buffer = torch.empty(rows, len(y))

    def run(_turn: int) -> None:
        for part in x.split(rows):
            scores = torch.mm(part, y.T, out=buffer[: len(part)])
            if reduce is not None:
                reduce(scores)

    return run


def _nearest(count: int, k: int, dimension: int, metric: str) -> Case:
    others = ("torch.mm + argmax", "faiss.knn", "faiss IndexFlat", "sklearn argmin")
    plain = "torch.mm alone"
    goals = (Goal(plain, time=1.15), *(Goal(other, time=1.0) for other in others))

    def prepare() -> Mapping[str, Run | str]:
        x, c = unit_rows(count, dimension, 0), unit_rows(k, dimension, 1)
        if metric == "l2":
            half = (c * c).sum(1) / 2
            reduction = chunked(x, c, lambda scores: scores.sub_(half).argmax(1))
        else:
            reduction = chunked(x, c, lambda scores: scores.argmax(1))
        return {
            plain: chunked(x, c, None),
            "nearest": lambda _: kernels.nearest(x, c, metric),
            "nearest fast": lambda _: kernels.nearest(x, c, metric, precision="fast"),
            "torch.mm + argmax": reduction,
            **_faiss(x, c, 1, metric),
            "sklearn argmin": "not installed"
            if sklearn is None
            else lambda _: pairwise_distances_argmin(x.numpy(), c.numpy()),
        }

    return Case(
        name=f"nearest {metric} {count}x{k}x{dimension}",
        title=f"`nearest`, {metric}, float32, N = {count:,}, K = {k:,}, d = {dimension}",
        work=2.0 * count * k * dimension,
        unit=FLOPS,
        shares=False,
        entries=(
            Entry(plain),
            Entry("nearest", goals, counted=True),
            Entry("nearest fast"),
            *map(Entry, others),
        ),
        prepare=prepare,
    )


def _topk(count: int, many: int, dimension: int, k: int) -> Case:
    plain = "torch.mm alone"
    others = ("torch.mm + topk", "faiss.knn", "faiss IndexFlat", "sklearn brute")

    def prepare() -> Mapping[str, Run | str]:
        x, y = unit_rows(count, dimension, 0), unit_rows(many, dimension, 1)
        neighbours: Run | str = "not installed"
        if sklearn is not None:
            search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(y.numpy())
            neighbours = lambda _: search.kneighbors(x.numpy())  # noqa: E731
        return {
            plain: chunked(x, y, None),
            "topk": lambda _: kernels.topk(x, y, k),
            "topk fast": lambda _: kernels.topk(x, y, k, precision="fast"),
            "torch.mm + topk": chunked(x, y, lambda scores: scores.topk(k)),
            **_faiss(x, y, k, "cosine"),
            "sklearn brute": neighbours,
        }

    return Case(
        name=f"topk {k} {count}x{many}x{dimension}",
        title=f"`topk`, k = {k}, cosine, float32, N = {count:,}, M = {many:,}, d = {dimension}",
        work=2.0 * count * many * dimension,
        unit=FLOPS,
        shares=False,
        entries=(
            Entry(plain),
            Entry("topk", tuple(Goal(other, time=1.0) for other in others), counted=True),
            Entry("topk fast"),
            *map(Entry, others),
        ),
        prepare=prepare,
    )


def _faiss(x: Tensor, y: Tensor, k: int, metric: str) -> dict[str, Run | str]:
    """FAISS' two ways to search exhaustively."""
    if faiss is None:
        return {"faiss.knn": "not installed", "faiss IndexFlat": "not installed"}
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index: Any = faiss.IndexFlat(x.shape[1], kind)
    index.add(y.numpy())
    return {
        "faiss.knn": lambda _: faiss.knn(x.numpy(), y.numpy(), k, metric=kind),
        "faiss IndexFlat": lambda _: index.search(x.numpy(), k),
    }


def _grouped(sizes: list[int], dimension: int) -> tuple[Tensor, Tensor]:
    """Rows and offsets of groups."""
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    return unit_rows(sum(sizes), dimension, 2), offsets


def _useful(sizes: list[int], dimension: int) -> float:
    """Operations of the pairs i < j within groups."""
    return float(sum(n * (n - 1) for n in sizes)) * dimension


def _group_max(sizes: list[int], dimension: int) -> Case:
    loop = "SemDeDup loop"

    def prepare() -> Mapping[str, Run | str]:
        x, offsets = _grouped(sizes, dimension)
        return {
            loop: lambda _: semdedup_loop(x, sizes),
            "group_max": lambda _: kernels.group_max(x, offsets),
            "group_max fast": lambda _: kernels.group_max(x, offsets, precision="fast"),
        }

    return Case(
        name=f"group_max {sum(sizes)}x{dimension}",
        title=f"`group_max`, cosine, float32, N = {sum(sizes):,} in {len(sizes)} lognormal groups, "
        f"d = {dimension} (operations of pairs i < j only)",
        work=_useful(sizes, dimension),
        unit=FLOPS,
        shares=False,
        entries=(
            Entry(loop),
            Entry("group_max", (Goal(loop, time=1.0),), counted=True),
            Entry("group_max fast"),
        ),
        prepare=prepare,
    )


def _pairs_above(sizes: list[int], dimension: int, threshold: float = 0.2) -> Case:
    loop = "torch.mm, mask, nonzero"

    def prepare() -> Mapping[str, Run | str]:
        x, offsets = _grouped(sizes, dimension)

        def plain(_turn: int) -> None:
            for rows in x.split(sizes):
                torch.triu(torch.mm(rows, rows.T), diagonal=1).gt_(threshold).nonzero()

        return {
            loop: plain,
            "pairs_above": lambda _: kernels.pairs_above(x, threshold, offsets),
            "pairs_above fast": lambda _: kernels.pairs_above(
                x, threshold, offsets, precision="fast"
            ),
        }

    return Case(
        name=f"pairs_above {sum(sizes)}x{dimension}",
        title=f"`pairs_above` {threshold}, the same groups, d = {dimension}",
        work=_useful(sizes, dimension),
        unit=FLOPS,
        shares=False,
        entries=(
            Entry(loop),
            Entry("pairs_above", (Goal(loop, time=1.0),), counted=True),
            Entry("pairs_above fast"),
        ),
        prepare=prepare,
    )


def _kernel_sum(count: int, many: int, dimension: int) -> Case:
    product, plain = "float64 torch.mm alone", "float64 torch.mm + exp"

    def prepare() -> Mapping[str, Run | str]:
        x, y = unit_rows(count, dimension, 3), unit_rows(many, dimension, 4)
        half = x.half(), y.half()
        gammas = torch.tensor(GAMMAS, dtype=torch.float64)
        return {
            product: lambda _: float64_kernel_sum(x, y, ()),
            plain: lambda _: float64_kernel_sum(x, y, GAMMAS),
            "kernel_sum": lambda _: kernels.kernel_sum(x, y, gammas),
            "kernel_sum, float16": lambda _: kernels.kernel_sum(*half, gammas),
        }

    return Case(
        name=f"kernel_sum {count}x{many}x{dimension}",
        title=f"`kernel_sum`, {len(GAMMAS)} gammas, N = {count:,}, M = {many:,}, d = {dimension}",
        work=2.0 * count * many * dimension,
        unit=FLOPS,
        shares=False,
        entries=tuple(map(Entry, (product, plain, "kernel_sum", "kernel_sum, float16"))),
        prepare=prepare,
    )


def float64_kernel_sum(x: Tensor, y: Tensor, gammas: tuple[float, ...]) -> list[Tensor]:
    """The plain way, in chunks of rows: row sums for each gamma; products alone without any."""
    wide = y.double()
    squares = (wide * wide).sum(1)
    sums = []
    for part in x.double().split(1024):
        scores = torch.mm(part, wide.T)
        if gammas:
            scores.mul_(-2).add_((part * part).sum(1)[:, None]).add_(squares).clamp_(min=0)
        sums += [torch.exp(scores * -gamma).sum(1) for gamma in gammas]
    return sums
