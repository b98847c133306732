"""Recall, size, build time and speed of each kind of index, against exact search in the same run.

Vectors are those of ``builtin:hashing`` for windows of 20 lines of the Python files of this
environment. 1,000 of them are in no index and had no say in its tuning: they are the queries.
Vectors are kept under ``.cache`` for the next run. Each index is also asked for the rows that pass
a filter: one that half of the rows pass by lot, and one that the half nearest to some vector pass.

    python benchmarks/indexes.py [--kinds flat,ivf_flat,ivf_pq,hnsw,auto] [--recall 0.95]
"""

import argparse
import os
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from rounds import header

from shardwright import kernels
from shardwright.embeddings import load_encoder
from shardwright.embeddings.automatic import SAMPLE, choose
from shardwright.embeddings.build import Wish, build
from shardwright.embeddings.kinds import memory_of
from shardwright.embeddings.recall import QUERIES, K
from shardwright.embeddings.search import OneIndex, filtered

CACHE = Path(__file__).parents[1] / ".cache" / "index-vectors.npy"
WINDOWS = 112_000
LINES = 20


def windows() -> list[str]:
    """Distinct windows of the source files of the standard library and of what is installed."""
    paths = sysconfig.get_paths()
    files = (p for root in ("stdlib", "purelib") for p in sorted(Path(paths[root]).rglob("*.py")))
    found: dict[str, None] = {}
    for path in files:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
        for start in range(0, len(lines), LINES):
            text = "\n".join(lines[start : start + LINES])
            if len(text) > 200:
                found[text] = None
        if len(found) >= WINDOWS:
            break
    return list(found)[:WINDOWS]


def vectors() -> np.ndarray[Any, Any]:
    """Vectors of the windows, in an order that tells nothing."""
    if not CACHE.exists():
        texts = windows()
        encoder = load_encoder(
            "builtin:hashing", modality="code", device="cpu", dtype="float32", batch_size=256
        )
        blocks = [encoder.encode(texts[i : i + 1024]) for i in range(0, len(texts), 1024)]
        CACHE.parent.mkdir(exist_ok=True)
        np.save(CACHE, np.concatenate(blocks))
    rows: np.ndarray[Any, Any] = np.load(CACHE)
    return rows[np.random.default_rng(0).permutation(len(rows))]


def per_second(index: Any, queries: np.ndarray[Any, Any]) -> float:
    """Queries a second, one at a time on one thread, as a service gets them."""
    index.search(queries[:10], K)
    start = time.perf_counter()
    for query in queries[:300]:
        index.search(query[None], K)
    return 300 / (time.perf_counter() - start)


def _stored(rows: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """The rows in the order of the index: a graph has those that were held out at its end."""
    return np.roll(rows, -QUERIES, axis=0) if kind == "hnsw" else rows


def under_filters(
    kind: Any, raw: Any, rows: np.ndarray[Any, Any], queries: np.ndarray[Any, Any], target: float
) -> str:
    """Recall of queries among the rows that pass a filter, and queries a second, per filter."""
    names = pa.array([str(i) for i in range(len(rows))])
    whole = OneIndex(kind, rows.shape[1], None, len(rows), names, raw)
    near = np.argsort(-(rows @ queries[0]))[: len(rows) // 2]
    by_lot = np.random.default_rng(1).permutation(len(rows))[: len(rows) // 2]
    said = []
    for name, passing in (("by lot", np.sort(by_lot)), ("nearest half", np.sort(near))):
        index = filtered(whole, passing, target)
        exact = kernels.topk(queries, rows[passing], K, "dot")[1][:, -1:]
        start = time.perf_counter()
        found = index.search(queries, K).similarities
        speed = len(queries) / (time.perf_counter() - start)
        how = "exact" if index.recall is None else f"as opened {index.recall.mean:.4f}"
        said.append(f"{name} {np.mean(found >= exact - 1e-5):.4f} ({how}, {speed:,.0f}/s)")
    return "; ".join(said)


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", default="flat,ivf_flat,ivf_pq,hnsw,auto")
    parser.add_argument("--recall", type=float, default=0.95)
    options = parser.parse_args()
    rows = vectors()
    unseen, rows = rows[:QUERIES], np.ascontiguousarray(rows[QUERIES:])
    count, dimension = rows.shape
    held = np.arange(QUERIES)  # rows stand in no order, so the first are as good as any
    print("\n".join(header()), f"\n{count:,} vectors of {dimension} dimensions, FAISS", end=" ")
    print(f"{faiss.__version__}; {os.getloadavg()[0]:.1f} processes were running", flush=True)
    exact = kernels.topk(unseen, rows, K, "dot")[1][:, -1:]
    print(
        "| kind | recall@10, unseen queries | target | as tuned | settings | bytes a vector in "
        "the file | bytes a vector in memory | build s | queries/s | filtered |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            path, scratch = Path(folder) / "index.faiss", Path(folder) / "scratch"
            start = time.perf_counter()
            wish = Wish("flat" if name == "auto" else name, options.recall)
            if name == "auto":
                tried = rows[QUERIES : QUERIES + SAMPLE]
                wish, costs = choose(wish, count, tried, rows[:QUERIES], scratch)
                name = f"auto: {wish.kind} ({', '.join(f'{k} {c:,.0f}' for k, c in costs.items())})"
            blocks = (rows[i : i + 1024] for i in range(0, count, 1024))
            training = rows[QUERIES:]
            built = build(path, wish, blocks, held, rows[:QUERIES], training, count, scratch)
            seconds = time.perf_counter() - start
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            recall = float(np.mean(index.search(unseen, K)[0] >= exact - 1e-5))
            faiss.omp_set_num_threads(1)
            speed = per_second(index, unseen)
            confined = under_filters(
                built.kind, index, _stored(rows, built.kind), unseen, options.recall
            )
            faiss.omp_set_num_threads(os.cpu_count() or 1)
            code = built.settings.get("code_bytes", 0)
            held_bytes = memory_of(built.kind, count, dimension, code) / count
            tuned = "exact" if built.recall is None else f"{built.recall.mean:.4f}"
            settings = ", ".join(f"{key} {value:,}" for key, value in built.settings.items())
            print(
                f"| {name} | {recall:.4f} | {options.recall:g} | {tuned} | {settings} | "
                f"{path.stat().st_size / count:,.0f} | {held_bytes:,.0f} | {seconds:.1f} | "
                f"{speed:,.0f} | {confined} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
