"""Building an index of a kind, and tuning it on held-out queries to the recall that is asked for.

The queries are records of the collection that the index does not know yet, or that are barred
from its answers, while it is tuned. The effort that reaches the recall is stored in the file, so
plain ``faiss.read_index`` searches with it.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.hnsw import LINKS, HnswBuilder
from shardwright.embeddings.index import FlatIndexWriter
from shardwright.embeddings.ivf import (
    Lists,
    Part,
    merge_parts,
    set_effort,
    train_lists,
    write_part,
)
from shardwright.embeddings.kinds import Kind, code_size, list_count
from shardwright.embeddings.recall import Float32, K, Recall, Truth, reach, steps, tune
from shardwright.errors import UserError

Int64 = npt.NDArray[np.int64]
Fill: TypeAlias = Callable[[Lists, Truth], Sequence[Part]]
"""Writes the parts of an inverted file, in the order of the vectors, and shows the truth all
vectors but the queries."""

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
    if wish.kind == "hnsw":
        scratch.mkdir(parents=True, exist_ok=True)
        truth = Truth(queries, resolve_device(wish.device, "index.device"))
        built = _hnsw(scratch / path.name, wish, blocks, held, truth)
        return _finished(path, wish, built, scratch)

    def fill(lists: Lists, truth: Truth) -> list[Part]:
        def file(number: int, name: str) -> Path:
            return Part(scratch / f"part-{number}").file(name)

        count = fill_lists(file, lists, truth, blocks, held, wish)
        return [Part(scratch / f"part-{number}") for number in range(count)]

    return build_lists(path, wish, fill, held, queries, training, rows, scratch)


def build_lists(
    path: Path,
    wish: Wish,
    fill: Fill,
    held: Int64,
    queries: Float32,
    training: Float32,
    rows: int,
    scratch: Path,
) -> Built:
    """As ``build`` for inverted files, whose parts ``fill`` writes: workers may.

    Raises:
        UserError: the recall cannot be had with this kind; says with which.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    truth = Truth(queries, resolve_device(wish.device, "index.device"))
    built = _ivf(scratch / path.name, wish, fill, held, truth, training, rows)
    return _finished(path, wish, built, scratch)


def fill_lists(
    file: Callable[[int, str], Path],
    lists: Lists,
    truth: Truth,
    blocks: Iterable[Float32],
    held: Int64,
    wish: Wish,
    first: int = 0,
) -> int:
    """Writes vectors as parts of an inverted file, and returns how many parts these are.

    Args:
        file: where to write an array of a name of the part of a number.
        lists: what was trained.
        truth: of the queries; sees the other vectors.
        blocks: vectors float32 [n, d] that follow each other in the index.
        held: rows of the queries in the index, ascending.
        wish: says how large a part may be, and where it is computed.
        first: row of the first vector in the index.
    """
    most = max(1, wish.part_bytes // (4 * truth.queries.shape[1]))
    whole = (block for block, _ in _set_apart(blocks, held, truth, first))
    number = 0
    for number, vectors in enumerate(_regrouped(whole, most), 1):
        write_part(partial(file, number - 1), lists, vectors, wish.device)
    return number


def _finished(path: Path, wish: Wish, built: Built, scratch: Path) -> Built:
    """Moves what was built into its place if it has the recall.

    Raises:
        UserError: it has not.
    """
    if built.recall is None or built.recall.mean < wish.recall:
        raise UserError(
            f"index.recall is {wish.recall:g}: {built} is the most that {wish.kind} reaches here; "
            "use kind flat, which is exact, or ivf_flat, or ask for less"
        )
    staged = scratch / path.name
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.replace(path)
    shutil.rmtree(scratch)
    return built


def _set_apart(
    blocks: Iterable[Float32], held: Int64, truth: Truth, first: int = 0
) -> Iterator[tuple[Float32, Float32]]:
    """Yields blocks whole and without the queries; what is no query counts for the truth."""
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
    blocks: Iterable[Float32],
    held: Int64,
    truth: Truth,
) -> Built:
    """Links all but the queries, tunes, then links the queries."""
    faiss: Any = import_module("faiss")

    builder = HnswBuilder(truth.queries.shape[1])
    for _, known in _set_apart(blocks, held, truth):
        builder.add(known)
    builder.flush()
    compared: dict[int, float] = {}

    def search(depth: int) -> Float32:
        faiss.cvar.hnsw_stats.reset()
        asked = faiss.SearchParametersHNSW(efSearch=depth)
        found: Float32 = builder.index.search(truth.queries, K, params=asked)[0]
        compared[depth] = faiss.cvar.hnsw_stats.ndis / len(found)
        return found

    depth, recall = reach(search, [e for e in steps(DEEPEST) if e >= K], truth, wish.recall)
    if len(held):
        builder.add(truth.queries)
    builder.write(path, depth)
    return Built("hnsw", {"links": LINKS, "depth": depth}, recall, compared[depth])


def _ivf(
    path: Path,
    wish: Wish,
    fill: Fill,
    held: Int64,
    truth: Truth,
    training: Float32,
    rows: int,
) -> Built:
    """Has the parts written, merges them, and tunes on the merged file, which is mapped."""
    faiss: Any = import_module("faiss")

    dimension, count = truth.queries.shape[1], list_count(rows)
    size = code_size(rows, dimension, wish.memory) if wish.kind == "ivf_pq" else None
    lists = train_lists(training, count, size, wish.seed, wish.device)
    merge_parts(path, lists, fill(lists, truth))
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
    probes, recall = reach(lambda p: search(p, factor), steps(count), truth, wish.recall)
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
