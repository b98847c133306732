"""Scores that look at no vector: length and chance, what every other method is held against."""

from typing import Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa

from shardwright.embeddings.sampling import sample_keys
from shardwright.quality.pruning.relations import Float64, Ids, evaluate

Modality: TypeAlias = Literal["code", "image"]

_SIZES: dict[Modality, str] = {"code": "bytes::DOUBLE", "image": "width::DOUBLE * height"}
_SALT = 0x7275_6E65_0000_0000
"""Keeps the draw apart from the samples that k-means and others take with equal seeds."""


def length_query(records: str, modality: Modality) -> str:
    """SQL for the score: bytes of a text, pixels of an image.

    Args:
        records: A relation with ``record_id`` and ``bytes``, or ``width`` and ``height``.
        modality: ``code`` or ``image``.

    Returns:
        A query that yields ``record_id`` and ``length``.

    Raises:
        ValueError: the modality is unknown.
    """
    if modality not in get_args(Modality):
        raise ValueError(f"modality is {modality!r}: use 'code' or 'image'")
    return f"SELECT record_id, {_SIZES[modality]} AS length FROM {records}"


def length_score(records: pa.Table, modality: Modality) -> Float64:
    """The score in memory.

    Args:
        records: n rows with the columns that ``length_query`` needs.
        modality: ``code`` or ``image``.

    Returns:
        float64 [n], exact up to 2^53.

    Raises:
        ValueError: the modality is unknown, or an id comes twice.
    """
    query = length_query("records", modality)
    score: Float64 = evaluate(query, records.column("record_id"), records=records)
    return score


def random_score(record_ids: Ids, seed: int = 0) -> Float64:
    """A number drawn for each record from its id and the seed alone.

    So it is the same for any order, parts and workers.

    Args:
        record_ids: n ids of 32 lower-case hex digits.
        seed: any integer; taken modulo 2^64.

    Returns:
        float64 [n] in [0, 1), multiples of 2^-53.

    Raises:
        ValueError: an id is missing or is not 32 lower-case hex digits.
    """
    ids = record_ids.tolist() if isinstance(record_ids, np.ndarray) else record_ids
    keys = sample_keys(ids, seed ^ _SALT)
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
