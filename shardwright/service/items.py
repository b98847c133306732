"""Items that requests bring: texts, images and records, as the curation's model reads them."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardwright.errors import DataError, UserError
from shardwright.quality.faults import Fault
from shardwright.quality.sandbox import ImageDecoder
from shardwright.service.library import Held
from shardwright.service.models import Found, Item, Neighbour
from shardwright.service.presence import Match
from shardwright.service.shared_index import SharedIndex

_PIXELS = 50_000_000
_SECONDS = 10.0


@dataclass(frozen=True)
class Read:
    """An item as bytes, and a text's language: empty is none that is known, None is not said."""

    data: bytes
    language: str | None


def read_items(held: Held, items: Sequence[Item]) -> list[Read]:
    """The contents of items.

    Raises:
        UserError: An item does not fit the curation, is no image, or names no record.
    """
    wanted = [item.record for item in items if item.record is not None]
    records = held.rows.read(wanted) if wanted else {}
    found = [_read(held, item, records) for item in items]
    if held.modality == "image":
        brought = [one.data for one, item in zip(found, items, strict=True) if item.record is None]
        _check_images(brought)
    return found


def _read(held: Held, item: Item, records: dict[str, Any]) -> Read:
    if item.record is not None:
        if item.record not in records:
            raise UserError(f"{item.record}: no record of {held.name} has this id")
        row = records[item.record]
        if held.modality == "image":
            return Read(row["image"], None)
        return Read(row["content"].encode(), row["language"] or "")
    if held.modality == "image":
        if item.image is None:
            raise UserError(f"{held.name}: holds images; give an image or a record")
        try:
            return Read(base64.b64decode(item.image, validate=True), None)
        except binascii.Error as error:
            raise UserError(f"image: no base64 ({error})") from None
    if item.text is None:
        raise UserError(f"{held.name}: holds code; give a text or a record")
    try:
        data = item.text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"text: no Unicode text ({error.reason})") from None
    return Read(data, item.language)


def _check_images(images: Sequence[bytes]) -> None:
    """Decodes images of strangers in a child process first."""
    with ImageDecoder(_PIXELS, _SECONDS) as decoder:
        for place, fact in decoder.decode_all(enumerate(images)):
            if isinstance(fact, Fault):
                raise UserError(f"image {place}: {fact.reason}: {fact.message}")


def embedded(held: Held, items: Sequence[Read]) -> npt.NDArray[np.float32]:
    """Unit vectors [n, d] of items, by the curation's model.

    Raises:
        UserError: The curation has no vectors, or an item cannot be embedded.
    """
    encoder = held.encoder
    try:
        if held.modality == "image":
            return encoder.encode([one.data for one in items])
        return encoder.encode([one.data.decode() for one in items])
    except DataError as error:
        raise UserError(str(error)) from None


def neighbours(
    held: Held, index: SharedIndex, vectors: npt.NDArray[np.float32], k: int
) -> list[list[Neighbour]]:
    """The nearest records of each vector in an index of the curation, best first."""
    ids, similarities = index.search(vectors, k)
    paths = _paths(held, sorted({name for name in ids.ravel() if name is not None}))
    return [
        [
            Neighbour(record_id=name, path=paths[name], similarity=float(similarity))
            for name, similarity in zip(*row, strict=True)
            if name is not None
        ]
        for row in zip(ids, similarities, strict=True)
    ]


def present(held: Held, items: Sequence[Read], semantic: float | None) -> list[list[Found]]:
    """The records that each item is a copy of.

    Raises:
        UserError: ``semantic`` is asked for, and there are no vectors or no index.
    """
    matches = [held.presence.find(one.data, one.language) for one in items]
    if semantic is not None:
        ids, similarities = held.index.search(embedded(held, items), 20)
        for found, names, values in zip(matches, ids, similarities, strict=True):
            known = {match.record_id for match in found}
            found += [
                Match("semantic", name, min(float(value), 1.0))
                for name, value in zip(names, values, strict=True)
                if name is not None and value >= semantic and name not in known
            ]
    paths = _paths(held, sorted({match.record_id for found in matches for match in found}))
    return [
        [
            Found.model_validate(
                {
                    "kind": match.kind,
                    "record_id": match.record_id,
                    "path": paths[match.record_id],
                    "similarity": match.similarity,
                }
            )
            for match in found
        ]
        for found in matches
    ]


def _paths(held: Held, record_ids: Sequence[str]) -> dict[str, str]:
    return {name: row["path"] for name, row in held.rows.read(record_ids, ["path"]).items()}
