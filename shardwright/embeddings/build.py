"""Building an index of a kind, and tuning it on held-out queries to the recall that is asked for.

The queries are records of the collection that the index does not know yet, or that are barred
from its answers, while it is tuned. The effort that reaches the recall is stored in the file, so
plain ``faiss.read_index`` searches with it.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.hnsw import LINKS, HnswBuilder
from shardwright.embeddings.index import FlatIndexWriter
from shardwright.embeddings.ivf import Part, merge_parts, set_effort, train_lists, write_part
from shardwright.embeddings.kinds import Kind, code_size, list_count
from shardwright.embeddings.recall import Float32, K, Recall, Truth, steps, tune
from shardwright.errors import UserError

Int64 = npt.NDArray[np.int64]

DEEPEST = 2048
"""Most candidates of an HNSW search; beyond, inverted lists are faster."""
LARGEST_FACTOR = 64
"""Most candidates per answer that are ranked by their vectors."""


@dataclass(frozen=True)
class Wish:
    """What an index is to be.

    Attributes:
        kind: of the index.
        recall: share of the ten nearest neighbours to find.
        memory: most bytes that a search holds, or None.
        seed: of k-means.
        device: where k-means, codes and exact answers are computed; no part of the result.
        part_bytes: vectors of a part; no part of the result.
    """

    kind: Kind
    recall: float = 0.95
    memory: int | None = None
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    part_bytes: int = 1 << 28


@dataclass(frozen=True)
class Built:
    """What came of it.

    Attributes:
        kind: of the index.
        settings: its sizes, and the effort of its searches, by name.
        recall: as measured; None for a flat index, which finds all.
        compared: vectors or codes that a query was compared with, on average.
    """

    kind: Kind
    settings: dict[str, int]
    recall: Recall | None
    compared: float

    def __str__(self) -> str:
        named = ", ".join(f"{name} {value:,}" for name, value in self.settings.items())
        said = "exact" if self.recall is None else str(self.recall)
        return f"{self.kind}: {said}{named and '; ' + named}"


def build(
    path: Path,
    wish: Wish,
    blocks: Iterable[Float32],
    held: Int64,
    queries: Float32,
    training: Float32,
    rows: int,
    scratch: Path,
) -> Built:
    """Writes an index file and stores in it the effort that reaches the recall.

    Args:
        path: the file; it appears when it is whole.
        wish: what it is to be.
        blocks: all vectors float32 [n, d] in order; read once.
        held: rows among them of the queries, ascending; empty if they are not among them.
        queries: vectors [q, d] that are held out; those of ``held`` if that names any.
        training: vectors for k-means, without the queries.
        rows: how many vectors the blocks hold.
        scratch: folder for what is built on the way; empty afterwards.

    Returns:
        What was built. An HNSW index holds the queries behind all other vectors, the others in
        order; the other kinds hold vectors in order.

    Raises:
        UserError: the recall or the memory cannot be had with this kind; says with which.
    """
    if wish.kind == "flat":
        with FlatIndexWriter(path, queries.shape[1]) as writer:
            for block in blocks:
                writer.add(block)
        return Built("flat", {}, None, float(rows))
    scratch.mkdir(parents=True, exist_ok=True)
    truth = Truth(queries, resolve_device(wish.device, "index.device"))
    parted = _set_apart(blocks, held, truth)
    staged = scratch / path.name
    if wish.kind == "hnsw":
        built = _hnsw(staged, wish, parted, truth, bool(len(held)))
    else:
        built = _ivf(staged, wish, parted, held, truth, training, rows)
    if built.recall is None or built.recall.mean < wish.recall:
        raise UserError(
            f"index.recall is {wish.recall:g}: {built} is the most that {wish.kind} reaches here; "
            "use kind flat, which is exact, or ivf_flat, or ask for less"
        )
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.replace(path)
    shutil.rmtree(scratch)
    return built


def _set_apart(
    blocks: Iterable[Float32], held: Int64, truth: Truth
) -> Iterator[tuple[Float32, Float32]]:
    """Yields blocks whole and without the queries; what is no query counts for the truth."""
    first = 0
    for block in blocks:
        known = np.ones(len(block), bool)
        inside = held[(held >= first) & (held < first + len(block))]
        known[inside - first] = False
        first += len(block)
        truth.add(block[known])
        yield block, block[known]


def _hnsw(
    path: Path,
    wish: Wish,
    blocks: Iterable[tuple[Float32, Float32]],
    truth: Truth,
    add_queries: bool,
) -> Built:
    """Links all but the queries, tunes, then links the queries."""
    faiss: Any = import_module("faiss")

    builder = HnswBuilder(truth.queries.shape[1])
    for _, known in blocks:
        builder.add(known)
    builder.flush()
    compared: dict[int, float] = {}

    def search(depth: int) -> Float32:
        faiss.cvar.hnsw_stats.reset()
        asked = faiss.SearchParametersHNSW(efSearch=depth)
        found: Float32 = builder.index.search(truth.queries, K, params=asked)[0]
        compared[depth] = faiss.cvar.hnsw_stats.ndis / len(found)
        return found

    depth, recall = tune(search, [e for e in steps(DEEPEST) if e >= K], truth, wish.recall)
    if add_queries:
        builder.add(truth.queries)
    builder.write(path, depth)
    return Built("hnsw", {"links": LINKS, "depth": depth}, recall, compared[depth])


def _ivf(
    path: Path,
    wish: Wish,
    blocks: Iterable[tuple[Float32, Float32]],
    held: Int64,
    truth: Truth,
    training: Float32,
    rows: int,
) -> Built:
    """Builds parts, merges them, and tunes on the merged file, which is mapped."""
    faiss: Any = import_module("faiss")

    dimension, count = truth.queries.shape[1], list_count(rows)
    size = code_size(rows, dimension, wish.memory) if wish.kind == "ivf_pq" else None
    lists = train_lists(training, count, size, wish.seed, wish.device)
    parts: list[Part] = []
    most = max(1, wish.part_bytes // (4 * dimension))
    for vectors in _regrouped((whole for whole, _ in blocks), most):
        parts.append(Part(path.with_name(f"part-{len(parts)}")))
        write_part(parts[-1], lists, vectors, wish.device)
    merge_parts(path, lists, parts)
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    barred = faiss.IDSelectorNot(faiss.IDSelectorBatch(held)) if len(held) else None
    compared: dict[int, float] = {}

    def search(probes: int, factor: int) -> Float32:
        faiss.cvar.indexIVF_stats.reset()
        asked = ivf_parameters(probes, None if size is None else factor, barred)
        found: Float32 = index.search(truth.queries, K, params=asked)[0]
        compared[probes] = count + faiss.cvar.indexIVF_stats.ndis / len(found)
        return found

    factor = 1
    if size is not None:
        # as few candidates as leave half of what may be missed to the lists that are not visited
        enough = [1 << e for e in range(LARGEST_FACTOR.bit_length())]
        factor, _ = tune(lambda f: search(count, f), enough, truth, (1 + wish.recall) / 2)
    probes, recall = tune(lambda p: search(p, factor), steps(count), truth, wish.recall)
    set_effort(path, lists, rows, probes, factor)
    settings = {"lists": count, "probes": probes}
    if size is not None:
        settings |= {"code_bytes": size, "factor": factor}
    return Built(wish.kind, settings, recall, compared[probes])


def ivf_parameters(probes: int, factor: int | None, selector: Any) -> Any:
    """FAISS's parameters of a search in inverted lists; with a factor, of one that ranks codes."""
    faiss: Any = import_module("faiss")

    named = {} if selector is None else {"sel": selector}
    inner = faiss.SearchParametersIVF(nprobe=probes, **named)
    if factor is None:
        return inner
    return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)


def _regrouped(blocks: Iterable[Float32], rows: int) -> Iterator[Float32]:
    """The same vectors, so many at a time."""
    waiting: list[Float32] = []
    count = 0
    for block in blocks:
        while len(block):
            piece, block = block[: rows - count], block[rows - count :]
            waiting.append(piece)
            count += len(piece)
            if count == rows:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
