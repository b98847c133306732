"""SemDeDup from Parquet vectors to decisions, against the published loop, in one run.

Vectors are made up: lognormal cluster sizes, rests whose variance falls off as that of real text
embeddings does, one row in five a near copy of another. On the CPU vectors move through files, as
in the stages; with ``--device cuda`` they stay on the card between reading and deciding. It runs
with pyarrow, torch, NumPy and, on a card, NVIDIA's bindings; with faiss the published clustering
runs beside it.

    python benchmarks/semdedup.py [--device cpu|cuda] [--rows N] [--dimension D] [--clusters K]
        [--threshold T] [--dtype float16|float32] [--quick] [--one-cluster N]
"""

import argparse
import importlib.util
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rounds
import torch

from shardwright.embeddings.hierarchical import fit_centroids
from shardwright.embeddings.kmeans import KMeans
from shardwright.embeddings.sampling import automatic_k, sample_size
from shardwright.metadata.bucketed import list_bucketed, open_listed, write_bucketed
from shardwright.quality import semantic
from shardwright.quality.close_pairs import close_pairs, narrow_basis
from shardwright.quality.pruning.scip import scip
from shardwright.quality.semdedup import MEANINGS, Verdicts

DENSITY = 8_800
"""Rows of a cluster, on average, in the paper: 440 million and 50,000 clusters."""
PART = 50_000
"""Rows of a part."""
DECAY = 0.7
"""The i-th principal direction of the rests has a variance in proportion to i ** -DECAY."""
REST = 0.75
"""Length of a rest beside that of the centroid's direction, which is 1."""


def made_up(rows: int, dimension: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Unit vectors float32 [rows, dimension]."""
    rng = np.random.default_rng(seed)
    groups = max(1, rows // 800)
    weights = rng.lognormal(0, 1, groups)
    label = rng.choice(groups, rows, p=weights / weights.sum())
    centres = rng.standard_normal((groups, dimension)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    scale = np.arange(1, dimension + 1) ** (-DECAY / 2)
    scale *= REST / np.linalg.norm(scale)
    x = np.empty((rows, dimension), np.float32)
    for start in range(0, rows, PART):
        part = slice(start, min(start + PART, rows))
        noise = rng.standard_normal((part.stop - start, dimension), np.float32) * scale
        x[part] = centres[label[part]] + noise.astype(np.float32)
    copies = rng.permutation(rows)[: rows // 5]
    origins = rng.integers(0, rows, len(copies))
    for start in range(0, len(copies), PART):
        some = slice(start, start + PART)
        near = rng.standard_normal((len(copies[some]), dimension), np.float32)
        near *= rng.uniform(0.02, 0.3, len(near))[:, None].astype(np.float32) / dimension**0.5
        x[copies[some]] = x[origins[some]] + near
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def write_parts(folder: Path, x: np.ndarray[Any, Any], dtype: str) -> list[Path]:
    """The vectors as Parquet, in parts."""
    kind = pa.list_({"float16": pa.float16(), "float32": pa.float32()}[dtype], x.shape[1])
    files = []
    for start in range(0, len(x), PART):
        part = x[start : start + PART].astype(dtype)
        column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), type=kind)
        file = folder / f"part-{start:09d}.parquet"
        options = {"use_dictionary": False, "compression": "zstd", "compression_level": 1}
        pq.write_table(pa.table({"vector": column}), file, row_group_size=16_384, **options)
        files.append(file)
    return files


def read_vectors(file: Path) -> pa.FixedSizeListArray:
    """A part's vectors."""
    return pq.read_table(file).column("vector").combine_chunks()


class Clock:
    """Seconds of each step, with the work that it did."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps: list[tuple[str, float, float, float]] = []

    def step(self, name: str, run: Callable[[], Any], flops: float = 0, moved: float = 0) -> Any:
        """Runs a step and keeps what it took."""
        started = time.perf_counter()
        result = run()
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.steps.append((name, time.perf_counter() - started, flops, moved))
        return result

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step[1] for step in self.steps)


def ours(
    files: list[Path], arguments: argparse.Namespace, k: int, scratch: Path
) -> tuple[Clock, dict[str, int], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Our path: who goes under each meaning, labels and centroids."""
    n, d = arguments.rows, arguments.dimension
    size = np.dtype(arguments.dtype).itemsize * n * d
    clock = Clock(arguments.device)
    sampled = sample_size(n, k)
    settings = KMeans(k, iterations=semantic.ITERATIONS, device=arguments.device)

    def sample() -> np.ndarray[Any, Any]:
        chosen = np.random.default_rng(0).permutation(n)[:sampled]
        return np.concatenate(
            [
                semantic.matrix(read_vectors(file))[chosen[chosen // PART == i] % PART]
                for i, file in enumerate(files)
            ]
        )

    x = clock.step("read a sample", sample, moved=size)
    flops = 2.0 * sampled * k * d * (settings.iterations + 1)
    centroids = clock.step("k-means", lambda: fit_centroids(x, settings), flops)
    steps = _on_card if arguments.device == "cuda" else _through_files
    removed, labels = steps(files, arguments, centroids, scratch, clock)

    def prune() -> None:
        few = KMeans(min(100, n), device=arguments.device)
        learned = fit_centroids(x[: sample_size(n, 100)], few)
        found = [few.assign(semantic.matrix(read_vectors(file)), learned) for file in files]
        table = {
            "record_id": pa.array([f"{i:032x}" for i in range(n)]),
            "cluster": np.concatenate([labels for labels, _ in found]).astype(np.int32),
            "distance": np.concatenate([distances for _, distances in found]),
        }
        scip(pa.table(table))

    clock.step("SCIP: k-means of 100, assign, rank", prune, 2.0 * n * 100 * d, size)
    return clock, removed, labels, centroids


def _through_files(
    files: list[Path],
    arguments: argparse.Namespace,
    centroids: np.ndarray[Any, Any],
    scratch: Path,
    clock: Clock,
) -> tuple[dict[str, int], np.ndarray[Any, Any]]:
    n, d, k = arguments.rows, arguments.dimension, len(centroids)
    size = np.dtype(arguments.dtype).itemsize * n * d
    buckets = semantic.bucket_count(n, d, k)
    centres = torch.from_numpy(centroids)
    chosen = np.sort(np.random.default_rng(1).permutation(n)[: semantic.SAMPLE])
    samples: list[pa.Table] = []
    labels, distances = np.empty(n, np.int64), np.empty(n)

    def assign() -> list[Path]:
        written = []
        for i, file in enumerate(files):
            vectors = read_vectors(file)
            vertices = np.arange(i * PART, i * PART + len(vectors))
            table = semantic.assign(vertices, vectors, centres, 1)
            labels[vertices] = table.column("cluster").to_numpy()
            distances[vertices] = table.column("distance").to_numpy()
            written.append(scratch / f"moved-{i}.parquet")
            where = semantic.bucket_of(table.column("cluster").to_numpy(), buckets)
            write_bucketed(written[-1], table, where)
            samples.append(table.take(pa.array(chosen[chosen // PART == i] % PART)))
        return written

    moved = clock.step("assign, write by bucket", assign, 2.0 * n * k * d, 2 * size)
    pq.write_table(pa.concat_tables(samples), scratch / "sample.parquet")
    listing = list_bucketed(moved, buckets, scratch)
    removed = dict.fromkeys(MEANINGS, 0)

    def compare() -> None:
        sample = semantic.Sample.read([scratch / "sample.parquet"])
        narrow = sample.narrow(centroids)
        for number in open_listed(listing).buckets.tolist():
            bucket = semantic.gather(open_listed(listing), number, "farthest", scratch / "large")
            verdicts = bucket.verdicts(arguments.threshold, "greedy", narrow, "cpu")
            pq.write_table(verdicts, scratch / f"verdicts-{number}.parquet")
            for meaning in MEANINGS:
                column = verdicts.column(meaning)
                removed[meaning] += len(column) - column.null_count

    pairs = float((np.bincount(labels).astype(np.float64) ** 2).sum())
    clock.step("gather, compare", compare, pairs * d, size)
    return removed, labels


def _on_card(
    files: list[Path],
    arguments: argparse.Namespace,
    centroids: np.ndarray[Any, Any],
    scratch: Path,
    clock: Clock,
) -> tuple[dict[str, int], np.ndarray[Any, Any]]:
    from shardwright import kernels

    n, d, k = arguments.rows, arguments.dimension, len(centroids)
    size = np.dtype(arguments.dtype).itemsize * n * d
    x = torch.empty(n, d, dtype=getattr(torch, arguments.dtype), device="cuda")
    centres = torch.from_numpy(centroids).cuda()

    def read() -> None:
        start = 0
        for file in files:
            rows = semantic.matrix(read_vectors(file))
            x[start : start + len(rows)] = torch.from_numpy(rows).cuda()
            start += len(rows)

    clock.step("read to the card", read, moved=size)
    index, value = clock.step("assign", lambda: kernels.nearest(x, centres), 2.0 * n * k * d)
    labels, distances = index.cpu().numpy(), (1 - value).clamp(min=0).cpu().numpy()
    removed: dict[str, int] = {}

    def compare() -> None:
        order = np.lexsort((np.arange(n), -distances, labels))
        rows = x[torch.from_numpy(order).cuda()]
        some = np.sort(np.random.default_rng(1).permutation(n)[: semantic.SAMPLE])
        sample = rows[torch.from_numpy(some).cuda()].float().cpu().numpy()
        narrow = narrow_basis(sample, labels[order][some], centroids, 128)
        verdicts = Verdicts(n)
        for found in close_pairs(rows, labels[order], arguments.threshold, narrow, "cuda"):
            verdicts.add(*found)
        for meaning in MEANINGS:
            removed[meaning] = int((verdicts.representatives(meaning) != np.arange(n)).sum())

    pairs = float((np.bincount(labels).astype(np.float64) ** 2).sum())
    clock.step("sort, compare", compare, pairs * d)
    return removed, labels


def published(
    x: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], centroids: Any, arguments: Any
) -> tuple[float, int]:
    """The loop of SemDeDup's semdedup.py over given clusters: seconds, and rows removed."""
    distances = 1 - np.einsum("nd,nd->n", x, centroids[labels])
    order = np.lexsort((np.arange(len(x)), -distances, labels))
    sizes = np.bincount(labels)
    started, removed, start = time.perf_counter(), 0, 0
    for size in sizes.tolist():
        reps = torch.from_numpy(x[order[start : start + size]]).to(arguments.device)
        start += size
        if size < 2:
            continue
        similarity = torch.mm(reps, reps.t())
        similarity.fill_diagonal_(0.0)
        highest = torch.max(torch.triu(similarity, diagonal=1), dim=0)[0].cpu()
        removed += int((highest > arguments.threshold).sum())
    return time.perf_counter() - started, removed


def published_clusters(x: np.ndarray[Any, Any], k: int) -> tuple[float, str]:
    """SemDeDup's clustering.py: faiss, spherical, 100 moves, 256 points a centroid."""
    if importlib.util.find_spec("faiss") is None:
        return float("nan"), "not measured: no faiss here"
    import faiss

    started = time.perf_counter()
    kmeans = faiss.Kmeans(x.shape[1], k, niter=100, seed=1234, spherical=True)
    kmeans.train(x)
    kmeans.index.search(x, 1)
    return time.perf_counter() - started, ""


def rates(device: str, d: int) -> tuple[float, float]:
    """Multiplications' FLOP/s (float32) and copied bytes per second, measured."""
    a, b = torch.randn(4096, d, device=device), torch.randn(d, 4096, device=device)
    big = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    found = []
    for run, work in ((lambda: a @ b, 2.0 * 4096 * 4096 * d), (big.clone, 2.0 * big.numel())):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        found.append(work / min(times))
    return found[0], found[1]


def report(arguments: argparse.Namespace, k: int) -> None:
    """Measures one shape and prints its tables."""
    n, d = arguments.rows, arguments.dimension
    scratch = Path(tempfile.mkdtemp())
    try:
        x = made_up(n, d)
        files = write_parts(scratch, x, arguments.dtype)
        stored = x.astype(arguments.dtype).astype(np.float32)
        del x
        multiply, copy = rates(arguments.device, d)
        clock, removed, labels, centroids = ours(files, arguments, k, scratch)
        seconds, theirs = published(stored, labels, centroids, arguments)
        clustering, why = published_clusters(stored, k)
    finally:
        shutil.rmtree(scratch)
    sizes = np.bincount(labels)
    print(f"\n## {n:,} x {d}, {arguments.dtype}, {k:,} clusters, above {arguments.threshold}\n")
    print(
        f"- clusters of {sizes.min():,} to {sizes.max():,} rows; float32 products at "
        f"{multiply / 1e9:,.0f} GFLOP/s, copies at {copy / 1e9:,.1f} GB/s"
    )
    print("\n| step | seconds | TFLOP | of products' rate | GB | of copies' rate |")
    print("|---|---|---|---|---|---|")
    for name, took, flops, moved in clock.steps:
        print(
            f"| {name} | {took:.2f} | {flops / 1e12:.2f} | {flops / multiply / took:.2f} | "
            f"{moved / 1e9:.2f} | {moved / copy / took:.2f} |"
        )
    everything = clock.seconds
    print(f"| all | {everything:.2f} | {n / everything:,.0f} rows/s | | | |")
    compare = clock.steps[-2][1]
    print(f"\n- removed: {', '.join(f'{name} {count:,}' for name, count in removed.items())}")
    print(
        f"- the published loop on the same clusters: {seconds:.2f} s, {theirs:,} removed; "
        f"ours, with reading and all three meanings: {compare:.2f} s, {seconds / compare:.1f} "
        "times as fast"
    )
    if why:
        print(f"- the published clustering: {why}")
    else:
        without = everything - clock.steps[-1][1]
        ratio = (clustering + seconds) / without
        print(
            f"- the published clustering (vectors in memory): {clustering:.2f} s; clustering and "
            f"loop {clustering + seconds:.2f} s, ours from Parquet to decisions without SCIP "
            f"{without:.2f} s: {ratio:.1f} times as fast"
        )
    print(f"- peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:,.1f} GB")


def one_cluster(arguments: argparse.Namespace) -> None:
    """One cluster of very many rows, against float64 products for some of its rows."""
    n, d = arguments.one_cluster, arguments.dimension or 64
    x = made_up(n, d)
    labels = np.zeros(n, np.int64)
    some = np.random.default_rng(0).permutation(n)[:4096]
    narrow = narrow_basis(x[some], labels[some], x[:1], min(d, 128))
    verdicts = Verdicts(n)
    started = time.perf_counter()
    for pairs in close_pairs(x, labels, arguments.threshold, narrow, arguments.device):
        verdicts.add(*pairs)
    seconds = time.perf_counter() - started
    gone = {m: verdicts.representatives(m) != np.arange(n) for m in MEANINGS}
    wrong = dict.fromkeys(("ranked", "greedy"), 0)
    for row in some[:1000].tolist():
        close = x[:row].astype(np.float64) @ x[row].astype(np.float64) > arguments.threshold
        wrong["ranked"] += int(close.any() != gone["ranked"][row])
        wrong["greedy"] += int((close & ~gone["greedy"][:row]).any() != gone["greedy"][row])
    print(
        f"\n## One cluster of {n:,} x {d}, above {arguments.threshold}\n\n- {seconds:.1f} s, "
        f"{n * (n - 1) / 2 / seconds / 1e6:,.0f} million pairs/s; removed: "
        + ", ".join(f"{m} {int(g.sum()):,}" for m, g in gone.items())
        + f"\n- of 1,000 rows, by float64 products with all rows before them, wrong: {wrong}"
    )


def main() -> None:
    """Measures the shapes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--dimension", type=int, default=0)
    parser.add_argument("--clusters", type=int, default=0)
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    parser.add_argument("--one-cluster", type=int, default=0, help="only this: rows of a cluster")
    arguments = parser.parse_args()
    print("\n".join(f"- {line}" for line in rounds.header()))
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("\n## CUDA\n\nnot measured: torch sees no CUDA device")
        return
    if arguments.one_cluster:
        one_cluster(arguments)
        return
    many = {"cpu": 500_000, "cuda": 10_000_000}[arguments.device]
    arguments.rows = arguments.rows or (20_000 if arguments.quick else many)
    for dimension in [arguments.dimension] if arguments.dimension else [384, 768]:
        arguments.dimension = dimension
        asked = [arguments.clusters] if arguments.clusters else [automatic_k(arguments.rows)]
        if not arguments.clusters and arguments.rows > 2 * DENSITY:
            asked.append(arguments.rows // DENSITY)
        for k in asked:
            report(arguments, k)


if __name__ == "__main__":
    main()
