"""Documents to sequences of one length: a stream of tokens, cut where a sequence is full.

The documents of a split follow each other in the order of its samples. Token ``t`` of that stream
is token ``t % length`` of sequence ``t // length``: where anything stands follows from how many
tokens came before, so that any worker can write any range of sequences. A document that does not
fit goes on in the next sequence; the last sequence of a split is filled up with end tokens.

A sequence is a sample with ``record_id`` (``<split>-<number>``), ``tokens`` (int32, little-endian,
always ``length`` of them), ``boundaries`` (int32: 0 and the end of each document in the sequence,
as attention over packed documents takes them; the last one tells where filling begins),
``record_ids`` (of the documents, with spaces between) and ``offset`` (tokens of the first document
that stand in sequences before).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shardwright.errors import DataError

SEQUENCES: Final = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("tokens", pa.binary(), nullable=False),
        pa.field("boundaries", pa.binary(), nullable=False),
        pa.field("record_ids", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
"""Columns of a sequence."""
_TOKEN: Final = np.dtype("<i4")
_ID: Final = 32


@dataclass(frozen=True)
class Open:
    """The sequence that a stream of documents has begun and not filled.

    Attributes:
        tokens: Tokens in it.
        documents: Documents in it.
    """

    tokens: int = 0
    documents: int = 0


@dataclass(frozen=True)
class Documents:
    """Documents that follow each other in the stream of a split.

    Attributes:
        first: Tokens of the stream before them.
        record_ids: ``(n,)``.
        lengths: ``(n,)`` int64, tokens of each.
        tokens: Their tokens, one document after another: int32.
    """

    first: int
    record_ids: list[str]
    lengths: NDArray[np.int64]
    tokens: NDArray[np.int32]


def count_documents(
    lengths: NDArray[np.int64], length: int, start: Open
) -> tuple[NDArray[np.int64], Open]:
    """How many documents stand in each sequence that some more documents fill.

    A stream may come in chunks of any sizes: the counts are the same.

    Args:
        lengths: Tokens of each document ``(n,)``, at least one each.
        length: Tokens of a sequence.
        start: The state that the chunk before returned, or ``Open()``.

    Returns:
        Documents in each sequence that is full now, a part of one counting as one; and the state
        to go on with.
    """
    if not len(lengths):
        return np.empty(0, np.int64), start
    ends = start.tokens + np.cumsum(lengths, dtype=np.int64)
    full = int(ends[-1]) // length
    edges = np.arange(full + 1) * length
    first = np.searchsorted(ends, edges, side="right")
    last = np.searchsorted(ends, edges[1:], side="left")
    counts = last - first[:-1] + 1
    if full:
        counts[0] += start.documents
    begun = len(lengths) - int(first[-1]) + (0 if full else start.documents)
    return counts.astype(np.int64), Open(int(ends[-1]) - full * length, begun)


def sequence_bytes(
    documents: NDArray[np.int64], length: int, split: str
) -> Mapping[str, NDArray[np.int64]]:
    """Byte lengths ``(n,)`` of the columns of variable size, for ``mds.sample_sizes``.

    Args:
        documents: Documents in each sequence ``(n,)``.
        length: Tokens of a sequence.
        split: Name of the split.
    """
    return {
        "record_id": np.full(len(documents), len(sequence_name(split, 0)), np.int64),
        "tokens": np.full(len(documents), _TOKEN.itemsize * length, np.int64),
        "boundaries": _TOKEN.itemsize * (documents + 1),
        "record_ids": (_ID + 1) * documents - 1,
    }


def sequence_name(split: str, number: int) -> str:
    """``record_id`` of a sequence."""
    return f"{split}-{number:012d}"


def pack(
    split: str, first: int, count: int, length: int, fill: int, documents: Iterable[Documents]
) -> pa.Table:
    """Some sequences of a split.

    Args:
        split: Name of the split.
        first: Number of the first sequence.
        count: How many.
        length: Tokens of a sequence.
        fill: Token that the last sequence of a split is filled up with.
        documents: In order; all that have tokens in these sequences, and any others.

    Returns:
        Rows of ``SEQUENCES``.

    Raises:
        DataError: Documents are missing, or their record ids are none.
    """
    low, high = first * length, (first + count) * length
    stream = np.full(count * length, fill, _TOKEN)
    ids: list[str] = []
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for some in documents:
        ends = some.first + np.cumsum(some.lengths, dtype=np.int64)
        starts = ends - some.lengths
        here = slice(
            int(np.searchsorted(ends, low, side="right")),
            int(np.searchsorted(starts, high, side="left")),
        )
        if here.start >= here.stop:
            continue
        begin, stop = max(int(starts[here][0]), low), min(int(ends[here][-1]), high)
        stream[begin - low : stop - low] = some.tokens[begin - some.first : stop - some.first]
        ids += some.record_ids[here]
        found.append((starts[here], ends[here]))
    starts = np.concatenate([np.empty(0, np.int64), *(one for one, _ in found)])
    ends = np.concatenate([np.empty(0, np.int64), *(other for _, other in found)])
    whole = len(ends) and starts[0] <= low and ends[-1] > high - length
    if not whole or (starts[1:] != ends[:-1]).any():
        raise DataError(f"{split}: documents of sequences {first} to {first + count - 1} missing")
    if any(len(record_id) != _ID for record_id in ids):
        raise DataError(f"{split}: a document of sequence {first} or later has no record_id")
    return pa.Table.from_pylist(
        list(_sequences(split, first, stream.reshape(count, length), ids, starts, ends)), SEQUENCES
    )


def _sequences(
    split: str,
    first: int,
    rows: NDArray[np.int32],
    ids: list[str],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Iterator[dict[str, Any]]:
    length = rows.shape[1]
    for number, tokens in enumerate(rows, first):
        low, high = number * length, (number + 1) * length
        here = slice(
            int(np.searchsorted(ends, low, side="right")),
            int(np.searchsorted(starts, high, side="left")),
        )
        boundaries = np.concatenate([[0], np.minimum(ends[here], high) - low])
        yield {
            "record_id": sequence_name(split, number),
            "tokens": tokens.tobytes(),
            "boundaries": boundaries.astype(_TOKEN).tobytes(),
            "record_ids": " ".join(ids[here]),
            "offset": max(0, low - int(starts[here][0])),
        }


def unpack(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sequence as arrays of its length, that a loader collates: give it as ``transform``.

    Args:
        sample: A sequence.

    Returns:
        ``record_id``; ``tokens``, int64 ``(length,)``; ``positions``, int64: the place of each
        token in its document, counted from where the document begins in this sequence;
        ``documents``, int64: 0 for the tokens of the first document in the sequence, 1 for those
        of the next, and -1 for what fills up the last sequence of a split.
    """
    tokens = np.frombuffer(sample["tokens"], _TOKEN).astype(np.int64)
    boundaries = np.frombuffer(sample["boundaries"], _TOKEN).astype(np.int64)
    lengths = np.diff(boundaries)
    filled = len(tokens) - int(boundaries[-1])
    documents = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.arange(len(documents)) - np.repeat(boundaries[:-1], lengths)
    return {
        "record_id": sample["record_id"],
        "tokens": tokens,
        "positions": np.concatenate([positions, np.zeros(filled, np.int64)]),
        "documents": np.concatenate([documents, np.full(filled, -1)]),
    }
