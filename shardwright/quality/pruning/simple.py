"""Scores that look at no vector: length and chance, what every other method is held against."""

from typing import Literal, TypeAlias, get_args

import pyarrow as pa

from shardwright.quality.pruning.relations import Float64, Ids, evaluate, relation

Modality: TypeAlias = Literal["code", "image"]

_SIZES: dict[Modality, str] = {"code": "bytes::DOUBLE", "image": "width::DOUBLE * height"}


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


def random_query(records: str, seed: int = 0) -> str:
    """SQL for the score: a number drawn for each record from its id and the seed alone.

    So it is the same for any order, parts and workers, and unrelated for two seeds.

    Args:
        records: A relation with ``record_id``.
        seed: Any integer.

    Returns:
        A query that yields ``record_id`` and ``random``: the first 52 bits of the sha256 of seed
        and id, in [0, 1).
    """
    drawn = f"sha256('{seed} ' || record_id)[1:13]"
    return f"""
    SELECT record_id, ('0x' || {drawn})::UBIGINT::DOUBLE / {1 << 52}::DOUBLE AS random
    FROM {records}"""


def random_score(record_ids: Ids, seed: int = 0) -> Float64:
    """The score in memory: what ``random_query`` says.

    Args:
        record_ids: n ids.
        seed: Any integer.

    Returns:
        float64 [n] in [0, 1), multiples of 2^-52.

    Raises:
        ValueError: an id comes twice.
    """
    table = relation(record_ids)
    score: Float64 = evaluate(random_query("records", seed), record_ids, records=table)
    return score
