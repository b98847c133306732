"""Inverted files (IVF-flat and IVF-PQ) built in parts and merged into one FAISS file.

Vectors go to the list of their nearest centroid (Sivic and Zisserman 2003, "Video Google", sec. 4).
A list holds them as they are, or as product-quantised residuals (Jegou, Douze and Schmid 2011,
"Product Quantization for Nearest Neighbor Search", sec. IV), and then the file holds the vectors
too, behind the lists, to rank candidates by: FAISS's ``IndexRefineFlat``.

k-means and the choice of lists and codes are this package's own, exact on every device, so the
file's bytes depend on the vectors and their order alone. FAISS writes an index only when it holds
all of it; here the parts are merged list by list. What stands before and behind the lists is
written by FAISS itself, and the layout of the lists is proven on a tiny index each time.

k-means, and torch with it, is imported where it runs: searching needs neither.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from shardwright.embeddings.index import flat_header
from shardwright.embeddings.recall import Float32

POINTS = 64
"""Vectors a centroid is trained on; FAISS warns below 39."""
CODES = 256
"""Codes of a sub-quantiser: one byte."""
_MOVES, _CODE_MOVES = 6, 4
"""How often k-means moves the centroids of lists, and of codes: good enough will do."""
CODE_SAMPLE = POINTS * CODES
"""Vectors that codebooks are trained on."""
_BLOCK = 16384
"""Rows assigned at once."""

_PROOF = ".proof.faiss"

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """What an inverted file is trained to: the same for all its parts.

    Attributes:
        centroids: float32 [lists, d], unit rows.
        codebooks: float32 [m, 256, d / m] for product quantisation, or None.
    """

    centroids: Float32
    codebooks: Float32 | None

    @property
    def code_size(self) -> int:
        """Bytes of a vector in its list, without its row number."""
        return 4 * self.centroids.shape[1] if self.codebooks is None else len(self.codebooks)


@dataclass(frozen=True)
class Part:
    """Vectors sorted by list, in files beside each other.

    Attributes:
        path: files are named after it: ``.sizes.npy``, ``.codes.npy``, ``.rows.npy`` and, with
            product quantisation, ``.vectors.npy``.
    """

    path: Path

    def load(self, name: str) -> npt.NDArray[Any]:
        """One of its arrays, mapped."""
        mapped: npt.NDArray[Any] = np.load(self.file(name), mmap_mode="r")
        return mapped

    def file(self, name: str) -> Path:
        """File of one of its arrays."""
        return self.path.with_name(f"{self.path.name}.{name}.npy")


def train_lists(
    sample: Float32, lists: int, code_size: int | None, seed: int = 0, device: Any = "cpu"
) -> Lists:
    """Learns centroids and, for product quantisation, codebooks.

    Args:
        sample: unit vectors float32 [n, d], at least one for each list and, with codes, 256.
        lists: how many lists.
        code_size: sub-quantisers, a divisor of d; None for whole vectors.
        seed: of both.
        device: ``auto``, ``cpu`` or ``cuda``; the result is the same.
    """
    from shardwright.embeddings.hierarchical import fit_centroids
    from shardwright.embeddings.kmeans import KMeans

    settings = KMeans(lists, seed=seed, iterations=_MOVES, device=device)
    centroids = fit_centroids(sample[: POINTS * lists], settings)
    if code_size is None:
        return Lists(centroids, None)
    rows = np.array(sample[:CODE_SAMPLE])
    labels, _ = settings.assign(rows, centroids)
    pieces = _pieces(rows - centroids[labels], code_size)
    books = KMeans(CODES, metric="l2", seed=seed, iterations=_CODE_MOVES, device=device)
    return Lists(centroids, np.stack([books.fit(piece).centroids for piece in pieces]))


def write_part(
    file: Callable[[str], Path], lists: Lists, vectors: Float32, device: Any = "cpu"
) -> None:
    """Sorts vectors float32 [n, d] by list and writes them; row numbers count from 0 in each part.

    A worker of its own can do it for each part.

    Args:
        file: where to write an array of a name; as ``Part.file`` says.
        lists: what was trained.
        vectors: of the part.
        device: ``auto``, ``cpu`` or ``cuda``; the result is the same.
    """
    from shardwright.embeddings.kmeans import KMeans

    settings = KMeans(1, device=device)
    labels = np.empty(len(vectors), np.int64)
    codes = np.empty((len(vectors), lists.code_size), np.uint8)
    for start in range(0, len(vectors), _BLOCK):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK], np.float32)
        mine = settings.assign(block, lists.centroids)[0]
        labels[start : start + len(block)] = mine
        codes[start : start + len(block)] = _encoded(block, mine, lists, device)
    order = np.argsort(labels, kind="stable")
    np.save(file("sizes"), np.bincount(labels, minlength=len(lists.centroids)))
    np.save(file("codes"), codes[order])
    np.save(file("rows"), order)
    if lists.codebooks is not None:
        np.save(file("vectors"), np.ascontiguousarray(vectors, np.float32))


def _encoded(vectors: Float32, labels: Int64, lists: Lists, device: Any) -> UInt8:
    """Bytes uint8 [n, code_size] of vectors in their lists."""
    if lists.codebooks is None:
        return vectors.astype("<f4", copy=False).view(np.uint8)
    from shardwright.embeddings.kmeans import KMeans

    settings = KMeans(CODES, metric="l2", device=device)
    pieces = _pieces(vectors - lists.centroids[labels], len(lists.codebooks))
    columns = [
        settings.assign(piece, book)[0].astype(np.uint8)
        for piece, book in zip(pieces, lists.codebooks, strict=True)
    ]
    return np.stack(columns, axis=1)


def _pieces(vectors: Float32, count: int) -> list[Float32]:
    """The columns [n, d / count] that each sub-quantiser sees."""
    return [np.ascontiguousarray(piece) for piece in np.split(vectors, count, axis=1)]


def merge_parts(path: Path, lists: Lists, parts: Sequence[Part]) -> int:
    """Writes one FAISS file of all parts, list by list, and returns how many vectors it holds.

    Row numbers go on from part to part. The bytes are those that ``faiss.write_index`` gives for
    an index to which all vectors were added at once, in as many lists and with the same codes.

    Raises:
        RuntimeError: the installed FAISS lays its file out in another way.
    """
    if path.name != _PROOF:
        _verify_layout(path.parent, lists.codebooks is not None)
    sizes = np.array([part.load("sizes") for part in parts]).reshape(len(parts), -1)
    starts = np.cumsum(sizes, axis=1) - sizes
    firsts = np.cumsum(sizes.sum(axis=1)) - sizes.sum(axis=1)
    rows = int(sizes.sum())
    codes = [part.load("codes") for part in parts]
    numbers = [part.load("rows") for part in parts]
    with path.open("wb") as file:
        file.write(_before(lists, rows, 1))
        file.write(_list_sizes(sizes.sum(axis=0), lists.code_size))
        for number in range(len(lists.centroids)):
            cuts = [
                slice(start, start + size)
                for start, size in zip(starts[:, number], sizes[:, number], strict=True)
            ]
            for held, cut in zip(codes, cuts, strict=True):
                file.write(held[cut].tobytes())
            for held, cut, first in zip(numbers, cuts, firsts, strict=True):
                file.write((held[cut] + first).astype("<i8").tobytes())
        if lists.codebooks is not None:
            _write_flat(file, lists.centroids.shape[1], rows, parts)
            file.write(struct.pack("<f", 1))
    return rows


def _write_flat(file: BinaryIO, dimension: int, rows: int, parts: Sequence[Part]) -> None:
    """The vectors as they are, as an ``IndexFlatIP``."""
    file.write(flat_header(dimension, rows))
    for part in parts:
        vectors = part.load("vectors")
        for start in range(0, len(vectors), _BLOCK):
            file.write(vectors[start : start + _BLOCK].astype("<f4").tobytes())


def set_effort(path: Path, lists: Lists, rows: int, probes: int, factor: int) -> None:
    """Stores in a merged file how many lists a search visits, and how many candidates per answer.

    Plain ``faiss.read_index`` then searches that way. ``factor`` counts with codes only.
    """
    with path.open("r+b") as file:
        file.write(_before(lists, rows, probes))
        if lists.codebooks is not None:
            file.seek(-4, 2)
            file.write(struct.pack("<f", factor))


def _list_sizes(sizes: Int64, code_size: int) -> bytes:
    """What stands before the lists: FAISS's ``ArrayInvertedLists``."""
    head = b"ilar" + struct.pack("<QQ", len(sizes), code_size)
    filled = np.flatnonzero(sizes)
    if len(filled) > len(sizes) // 2:
        kind, values = b"full", sizes
    else:
        kind, values = b"sprs", np.stack([filled, sizes[filled]], axis=1).reshape(-1)
    return head + kind + struct.pack("<Q", len(values)) + values.astype("<u8").tobytes()


def _before(lists: Lists, rows: int, probes: int) -> bytes:
    """What stands before the lists in the file, as FAISS writes it for an index without any."""
    faiss: Any = import_module("faiss")

    index = _empty(lists)
    index.replace_invlists(None)
    index.nprobe = probes
    refine = faiss.IndexRefine(index, faiss.IndexFlatIP(lists.centroids.shape[1]))
    refine.ntotal = index.ntotal = rows
    head: bytes = faiss.serialize_index(index).tobytes()
    if lists.codebooks is None:
        return head.removesuffix(b"il00")
    whole: bytes = faiss.serialize_index(refine).tobytes()
    return whole[: whole.index(head) + len(head)].removesuffix(b"il00")


def _empty(lists: Lists) -> Any:
    """A FAISS index of no vector with all that was trained."""
    faiss: Any = import_module("faiss")

    count, dimension = lists.centroids.shape
    quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(lists.centroids)
    if lists.codebooks is None:
        index = faiss.IndexIVFFlat(quantizer, dimension, count, faiss.METRIC_INNER_PRODUCT)
    else:
        pieces = len(lists.codebooks)
        index = faiss.IndexIVFPQ(quantizer, dimension, count, pieces, 8, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(lists.codebooks.reshape(-1), index.pq.centroids)
    index.is_trained = True
    return index


def _verify_layout(folder: Path, coded: bool) -> None:
    """Raises RuntimeError unless FAISS writes a tiny index as this module does."""
    faiss: Any = import_module("faiss")

    rng = np.random.default_rng(0)
    for lists in (3, 40):  # most lists filled, most lists empty
        centroids = rng.standard_normal((lists, 4), dtype=np.float32)
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        books = rng.standard_normal((2, CODES, 2), dtype=np.float32) if coded else None
        tiny = Lists(centroids, books)
        vectors = rng.standard_normal((9, 4), dtype=np.float32)
        path, parts = folder / _PROOF, [Part(folder / f"{_PROOF}.{i}") for i in range(2)]
        try:
            for part, held in zip(parts, (vectors[:5], vectors[5:]), strict=True):
                write_part(part.file, tiny, held)
            merge_parts(path, tiny, parts)
            ours = path.read_bytes()
        finally:
            for left in folder.glob(f"{_PROOF}*"):
                left.unlink()
        if ours != faiss.serialize_index(in_memory(tiny, vectors)).tobytes():
            raise RuntimeError(
                f"FAISS {faiss.__version__} lays out inverted files in a way that this version of "
                "shardwright does not know: install another FAISS or a newer shardwright"
            )


def in_memory(lists: Lists, vectors: Float32) -> Any:
    """The FAISS index of the same lists and codebooks, filled by FAISS with all vectors at once."""
    faiss: Any = import_module("faiss")

    index = _empty(lists)
    index.add(vectors)
    if lists.codebooks is None:
        return index
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    return faiss.IndexRefine(index, flat)
