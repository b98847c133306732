"""The kinds of index: what each holds in memory, and which are tried for a recall and a budget."""

from math import isqrt
from typing import Literal, get_args

from shardwright.embeddings.hnsw import LINKS
from shardwright.embeddings.ivf import CODES
from shardwright.errors import UserError

Kind = Literal["flat", "ivf_flat", "ivf_pq", "hnsw"]

SMALL = 10_000
"""Below so many vectors an index is flat: comparing with all of them takes about a millisecond."""
_ROW = 8
"""Bytes of a row number in a list."""


def list_count(rows: int) -> int:
    """Lists of an inverted file: four times the root, as FAISS advises for up to a million."""
    return max(1, min(4 * isqrt(rows), rows // 40))


def memory_of(kind: Kind, rows: int, dimension: int, code_bytes: int = 0) -> int:
    """Bytes that searches touch, and that should therefore stay in memory.

    A flat index, lists and graphs are read where the queries lead, so all of them count. Of
    ``ivf_pq`` the codes count and the vectors do not: a query reads a few hundred of them, from a
    mapped file.
    """
    vector, centroids = 4 * dimension, 4 * dimension * list_count(rows)
    if kind == "flat":
        return rows * vector
    if kind == "ivf_flat":
        return rows * (vector + _ROW) + centroids
    if kind == "hnsw":  # links of the lowest level, of those above, and where they begin
        return rows * (vector + 8 * LINKS + 4 * LINKS // (LINKS - 1) + 12)
    return rows * (code_bytes + _ROW) + centroids + 4 * CODES * dimension


def code_size(rows: int, dimension: int, memory: int | None) -> int:
    """Bytes of a product-quantised vector: a quarter of the dimension, or what memory allows.

    Raises:
        UserError: not even one byte fits.
    """
    sizes = [m for m in range(max(1, dimension // 4), 0, -1) if dimension % m == 0]
    for size in sizes:
        if memory is None or memory_of("ivf_pq", rows, dimension, size) <= memory:
            return size
    least = memory_of("ivf_pq", rows, dimension, 1)
    raise UserError(
        f"index.memory is {memory:,} bytes: {rows:,} vectors of {dimension} dimensions need at "
        f"least {least:,} (ivf_pq); raise it, or leave it out and map the file"
    )


def check_memory(kind: Kind, rows: int, dimension: int, memory: int | None) -> None:
    """Raises UserError if an index of a kind does not fit."""
    if memory is None:
        return
    if kind == "ivf_pq":
        code_size(rows, dimension, memory)
        return
    needed = memory_of(kind, rows, dimension)
    if needed > memory:
        raise UserError(
            f"index.memory is {memory:,} bytes: kind {kind} needs {needed:,} for {rows:,} vectors "
            f"of {dimension} dimensions; raise it, or use kind auto or ivf_pq"
        )


def fitting(rows: int, dimension: int, memory: int | None) -> list[Kind]:
    """The kinds that fit into memory, at least one.

    Raises:
        UserError: none does; says what would.
    """
    found: list[Kind] = []
    for kind in get_args(Kind):
        try:
            check_memory(kind, rows, dimension, memory)
        except UserError:
            if kind == "ivf_pq":
                raise
        else:
            found.append(kind)
    return found
