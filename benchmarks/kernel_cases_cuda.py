"""CUDA shapes and competitors for ``benchmarks/kernels.py``.

Inputs are larger than the L2 cache, and where a result could stay in it, two inputs alternate.
Rates count 2 N K d operations, for groups those of the pairs i < j. cuBLAS is ``torch.mm`` into
a buffer that is there already, in chunks of 16,896 rows: 132 tiles of 128 rows.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from kernel_cases_cpu import GAMMAS, float64_kernel_sum, lognormal_sizes, semdedup_loop
from rounds import Case, Entry, Goal, Run
from torch import Tensor

from shardwright import kernels

try:
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton
except ImportError:
    euclid_assign_triton = None

CHUNK = 16896
"""Rows of a chunk of the plain products."""
CENTROIDS = 50176
NEAREST_GOAL = {128: 0.72, 768: 0.86, 1536: 0.87}
TOPK_GOAL = {10: 0.75, 100: 0.6}
FLOPS = ("TFLOP/s", 1e12)
BYTES = ("GB/s", 1e9)
CUBLAS = "cuBLAS"


def cases(quick: bool) -> Iterator[Case]:
    """All CUDA cases; ``quick`` has an eighth of the rows."""
    shrink = 8 if quick else 1
    for dimension in (128, 768, 1536):
        yield _nearest(16 * CHUNK // shrink, CENTROIDS, dimension)
    for dimension in (384, 768):
        for k in (100, 1000):
            yield _few_centroids((1 << 22) // shrink, k, dimension)
    yield _topk(CHUNK, (1 << 20) // shrink, 768)
    sizes = lognormal_sizes(2_000_000 // shrink, 1000)
    yield _group_max(sizes, 768)
    yield _pairs_above(sizes, 768)
    yield _kernel_sum(CHUNK, 32768 // shrink, 768)


def random_rows(count: int, dimension: int, seed: int) -> Tensor:
    """Standard normal float16 [count, dimension] on the card."""
    generator = torch.Generator("cuda").manual_seed(seed)
    options = {"generator": generator, "device": "cuda", "dtype": torch.float16}
    return torch.randn(count, dimension, **options)


def clustered_rows(count: int, centroids: Tensor) -> Tensor:
    """float32 rows around the centroids, half as far from them as they lie from the origin."""
    generator = torch.Generator("cuda").manual_seed(9)
    labels = torch.randint(len(centroids), (count,), generator=generator, device="cuda")
    rows = torch.randn(count, centroids.shape[1], generator=generator, device="cuda")
    return rows.mul_(0.5).add_(centroids[labels])


def chunked(inputs: list[Tensor], c: Tensor, reduce: Callable[[Tensor], object] | None) -> Run:
    """``torch.mm`` in chunks of rows into one buffer, then ``reduce``."""
    buffer = torch.empty(CHUNK, len(c), dtype=c.dtype, device="cuda")

    def run(turn: int) -> None:
        for part in inputs[turn % len(inputs)].split(CHUNK):
            scores = torch.mm(part, c.T, out=buffer[: len(part)])
            if reduce is not None:
                reduce(scores)

    return run


def nearest_run(inputs: list[Tensor], c: Tensor, precision: str, metric: str = "cosine") -> Run:
    """Our ``nearest`` on inputs that take turns."""
    return lambda turn: kernels.nearest(inputs[turn % len(inputs)], c, metric, precision=precision)


def _flash_kmeans(inputs: list[Tensor], c: Tensor) -> Run | str:
    """Assignment by flash-kmeans, squared norms and output made beforehand."""
    if euclid_assign_triton is None:
        return "not installed"
    squares = [x.float().square().sum(1)[None] for x in inputs]
    c_squares = c.float().square().sum(1)[None]
    labels = torch.empty(1, len(inputs[0]), dtype=torch.int32, device="cuda")

    def run(turn: int) -> None:
        i = turn % len(inputs)
        euclid_assign_triton(inputs[i][None], c[None], squares[i], out=labels, c_sq=c_squares)

    return run


def _nearest(count: int, k: int, dimension: int) -> Case:
    torch_argmax, flash = "torch.mm + argmax", "flash-kmeans"
    goals = [Goal(CUBLAS, rate=NEAREST_GOAL[dimension]), Goal(torch_argmax, rate=2.0)]
    if dimension >= 512:
        goals.append(Goal(flash, rate=1.3))
    certified = (Goal("nearest fast", time=1.15),)

    def prepare() -> Mapping[str, Run | str]:
        inputs = [random_rows(count, dimension, seed) for seed in (0, 1)]
        c = random_rows(k, dimension, 2)
        wide, wide_c = inputs[0].float(), torch.randn(k, dimension, device="cuda")
        wide.add_(1e-4 * torch.randn_like(wide))  # numbers that float16 does not hold
        near = clustered_rows(count, wide_c)
        return {
            CUBLAS: chunked(inputs, c, None),
            "nearest fast": nearest_run(inputs, c, "fast"),
            "nearest fast, l2": nearest_run(inputs, c, "fast", "l2"),
            "nearest": nearest_run(inputs, c, "exact"),
            "nearest, float32": nearest_run([wide], wide_c, "exact"),
            "nearest, float32, clustered": nearest_run([near], wide_c, "exact"),
            torch_argmax: chunked(inputs, c, lambda scores: scores.argmax(1)),
            flash: _flash_kmeans(inputs, c),
        }

    return Case(
        name=f"nearest {count}x{k}x{dimension}",
        title=f"`nearest`, cosine, float16, N = {count:,}, K = {k:,}, d = {dimension}",
        work=2.0 * count * k * dimension,
        unit=FLOPS,
        shares=True,
        entries=(
            Entry(CUBLAS),
            Entry("nearest fast", tuple(goals)),
            Entry("nearest fast, l2"),
            Entry("nearest", counted=True),
            Entry("nearest, float32", certified, counted=True),
            Entry("nearest, float32, clustered", certified, counted=True),
            Entry(torch_argmax),
            Entry(flash),
        ),
        prepare=prepare,
    )


def _few_centroids(count: int, k: int, dimension: int) -> Case:
    """Bytes are those of ``x``; at K = 1,000 each is worth 1,000 operations, so cuBLAS is there."""
    copy, product = "copy", "cuBLAS (reads x, writes products)"
    read = 2.0 * count * dimension

    def prepare() -> Mapping[str, Run | str]:
        inputs = [random_rows(count, dimension, seed) for seed in (0, 1)]
        c = random_rows(k, dimension, 2)
        target = torch.empty_like(inputs[0])
        return {
            copy: lambda turn: target.copy_(inputs[turn % 2]),
            "nearest fast": nearest_run(inputs, c, "fast"),
            "nearest": nearest_run(inputs, c, "exact"),
            product: chunked(inputs, c, None),
            "torch.mm + argmax": chunked(inputs, c, lambda scores: scores.argmax(1)),
            "flash-kmeans": _flash_kmeans(inputs, c),
        }

    return Case(
        name=f"nearest {count}x{k}x{dimension}",
        title=f"`nearest`, cosine, float16, N = {count:,}, K = {k:,}, d = {dimension}: bandwidth",
        work=read,
        unit=BYTES,
        shares=True,
        entries=(
            Entry(copy, work=2 * read),
            Entry("nearest fast", (Goal(copy, rate=0.85),)),
            Entry("nearest", counted=True),
            Entry(product),
            Entry("torch.mm + argmax"),
            Entry("flash-kmeans"),
        ),
        prepare=prepare,
    )


def _topk(count: int, many: int, dimension: int) -> Case:
    columns = 65536

    def prepare() -> Mapping[str, Run | str]:
        x, y = random_rows(count, dimension, 0), random_rows(many, dimension, 1)
        buffer = torch.empty(count, columns, dtype=torch.float16, device="cuda")

        def products() -> Iterator[Tensor]:
            for part in y.split(columns):
                yield torch.mm(x, part.T, out=buffer[:, : len(part)])

        def plain(k: int) -> Run:
            def run(_turn: int) -> None:
                best = [scores.topk(k) for scores in products()]
                values = torch.cat([part.values for part in best], 1)
                torch.topk(values, k)

            return run

        runs: dict[str, Run | str] = {CUBLAS: lambda _: [None for _ in products()]}
        for k in TOPK_GOAL:
            runs[f"topk {k} fast"] = _topk_run(x, y, k, "fast")
            runs[f"topk {k}"] = _topk_run(x, y, k, "exact")
            runs[f"torch.mm + topk {k}"] = plain(k)
        return runs

    entries = [Entry(CUBLAS)]
    for k, share in TOPK_GOAL.items():
        goals = (Goal(CUBLAS, rate=share), Goal(f"torch.mm + topk {k}", rate=2.0))
        entries += [
            Entry(f"topk {k} fast", goals),
            Entry(f"topk {k}", counted=True),
            Entry(f"torch.mm + topk {k}"),
        ]
    return Case(
        name=f"topk {count}x{many}x{dimension}",
        title=f"`topk`, cosine, float16, N = {count:,}, M = {many:,}, d = {dimension}",
        work=2.0 * count * many * dimension,
        unit=FLOPS,
        shares=True,
        entries=tuple(entries),
        prepare=prepare,
    )


def _topk_run(x: Tensor, y: Tensor, k: int, precision: str) -> Run:
    return lambda _: kernels.topk(x, y, k, precision=precision)


def _useful(sizes: list[int], dimension: int) -> float:
    """Operations of the pairs i < j within groups."""
    return float(sum(n * (n - 1) for n in sizes)) * dimension


def _group_max(sizes: list[int], dimension: int) -> Case:
    loop, wide_loop = "SemDeDup loop", "SemDeDup loop, float32 (as NeMo Curator runs it)"
    square = 2.0 * CHUNK * CENTROIDS * dimension

    def prepare() -> Mapping[str, Run | str]:
        x = torch.nn.functional.normalize(random_rows(sum(sizes), dimension, 0).float())
        half = x.half()
        offsets = torch.tensor([0, *sizes], device="cuda").cumsum(0)
        plain = chunked([half[:CHUNK], half[-CHUNK:]], random_rows(CENTROIDS, dimension, 2), None)
        return {
            CUBLAS: plain,
            "group_max fast": lambda _: kernels.group_max(half, offsets, precision="fast"),
            "group_max": lambda _: kernels.group_max(half, offsets),
            "group_max, float32": lambda _: kernels.group_max(x, offsets),
            loop: lambda _: semdedup_loop(half, sizes),
            wide_loop: lambda _: semdedup_loop(x, sizes),
        }

    return Case(
        name=f"group_max {sum(sizes)}x{dimension}",
        title=f"`group_max`, cosine, float16, N = {sum(sizes):,} in {len(sizes)} lognormal groups, "
        f"d = {dimension} (operations of pairs i < j only; cuBLAS: {CHUNK:,} x {CENTROIDS:,})",
        work=_useful(sizes, dimension),
        unit=FLOPS,
        shares=True,
        entries=(
            Entry(CUBLAS, work=square),
            Entry("group_max fast", (Goal(CUBLAS, rate=0.68), Goal(loop, rate=10.0))),
            Entry("group_max", counted=True),
            Entry("group_max, float32", (Goal(wide_loop, rate=10.0),), counted=True),
            Entry(loop),
            Entry(wide_loop),
        ),
        prepare=prepare,
    )


def _pairs_above(sizes: list[int], dimension: int, threshold: float = 0.9) -> Case:
    loop = "torch.mm, mask, nonzero"

    def prepare() -> Mapping[str, Run | str]:
        x = torch.nn.functional.normalize(random_rows(sum(sizes), dimension, 0).float()).half()
        copies = torch.arange(0, len(x) - 1, 100, device="cuda")
        x[copies + 1] = x[copies]
        offsets = torch.tensor([0, *sizes], device="cuda").cumsum(0)

        def plain(_turn: int) -> None:
            for rows in x.split(sizes):
                torch.triu(torch.mm(rows, rows.T), diagonal=1).gt(threshold).nonzero()

        return {
            loop: plain,
            "pairs_above fast": lambda _: kernels.pairs_above(
                x, threshold, offsets, precision="fast"
            ),
            "pairs_above": lambda _: kernels.pairs_above(x, threshold, offsets),
        }

    return Case(
        name=f"pairs_above {sum(sizes)}x{dimension}",
        title=f"`pairs_above` {threshold}, the same groups, one row in a hundred a copy",
        work=_useful(sizes, dimension),
        unit=FLOPS,
        shares=True,
        entries=(Entry(loop), Entry("pairs_above fast"), Entry("pairs_above", counted=True)),
        prepare=prepare,
    )


def _kernel_sum(count: int, many: int, dimension: int) -> Case:
    product, plain = "float64 torch.mm alone", "float64 torch.mm + exp"

    def prepare() -> Mapping[str, Run | str]:
        x, y = (
            torch.nn.functional.normalize(random_rows(n, dimension, n).float())
            for n in (count, many)
        )
        half = x.half(), y.half()
        gammas = torch.tensor(GAMMAS, dtype=torch.float64, device="cuda")
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
        shares=True,
        entries=tuple(map(Entry, (product, plain, "kernel_sum", "kernel_sum, float16"))),
        prepare=prepare,
    )
