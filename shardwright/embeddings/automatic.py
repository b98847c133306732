"""``auto``: the kind of index that reads least per query at a recall, within a memory budget.

The user names the recall and the system picks and tunes the index: the idea of FANNS (Jiang et
al. 2023, "Co-design Hardware and Algorithm for Vector Search", arXiv:2306.11182, sec. 5). Each
kind that fits is built and tuned on a sample. What it then compares a query with is counted, not
timed, so the choice is the same on every machine.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import log, sqrt
from pathlib import Path

import numpy as np

from shardwright.embeddings.build import Built, Wish, build
from shardwright.embeddings.kinds import Kind, fitting
from shardwright.embeddings.recall import Float32, K
from shardwright.errors import UserError

SAMPLE = 32_768
"""Vectors on which the kinds are tried."""
_SCATTERED = 3.0
"""Cost of comparing with a vector from anywhere, where one of a row of vectors costs 1."""
_LOOKUP = 4.0
"""Cost of one byte of a code, where one component of a vector costs 1."""


def choose(
    wish: Wish, rows: int, sample: Float32, queries: Float32, scratch: Path
) -> tuple[Wish, dict[Kind, float]]:
    """Tries the kinds on a sample.

    Args:
        wish: what is asked for; its kind does not count.
        rows: how many vectors the index will hold.
        sample: some of them, float32 [n, d].
        queries: others, float32 [q, d].
        scratch: folder for what is built on the way.

    Returns:
        The wish with the kind, and for each kind that was tried what a query costs with all
        ``rows`` vectors, in comparisons with a vector of a flat index.

    Raises:
        UserError: no kind fits into the memory.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    costs: dict[Kind, float] = {}
    for kind in fitting(rows, sample.shape[1], wish.memory):
        # the budget is that of the whole: here it decides the bytes of a code
        share = None if wish.memory is None else wish.memory * len(sample) // rows
        mine = replace(wish, kind=kind, memory=share)
        nobody = np.empty(0, np.int64)
        try:
            built = build(
                scratch / "tried.faiss",
                mine,
                _blocks(sample),
                nobody,
                queries,
                sample,
                len(sample),
                scratch / kind,
            )
        except UserError:  # this kind does not reach the recall
            continue
        costs[kind] = _cost(built, sample, rows)
    (scratch / "tried.faiss").unlink(missing_ok=True)
    if not costs:
        raise UserError(
            f"index.recall is {wish.recall:g}: no index that fits into index.memory "
            f"({wish.memory:,} bytes) reaches it on a sample; raise index.memory or lower "
            "index.recall"
        )
    return replace(wish, kind=min(costs, key=lambda kind: costs[kind])), costs


def _cost(built: Built, sample: Float32, rows: int) -> float:
    """What a query costs with all vectors, from what it compared with those of the sample."""
    growth = rows / len(sample)
    if built.kind == "flat":
        return rows
    if built.kind == "hnsw":
        return _SCATTERED * built.compared * log(rows) / log(len(sample))
    if built.kind == "ivf_flat":
        return built.compared * sqrt(growth)
    per_code: float = _LOOKUP * built.settings["code_bytes"] / sample.shape[1]
    ranked: float = _SCATTERED * K * built.settings["factor"]
    return built.compared * sqrt(growth) * per_code + ranked


def _blocks(vectors: Float32, rows: int = 4096) -> Iterator[Float32]:
    for start in range(0, len(vectors), rows):
        yield np.array(vectors[start : start + rows])
