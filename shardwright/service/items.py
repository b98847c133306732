"""Items that requests bring: texts, images and records, as the curation's model reads them."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from shardwright.errors import UserError
from shardwright.quality.faults import Fault
from shardwright.quality.sandbox import ImageDecoder
from shardwright.service.library import Content, Held
from shardwright.service.models import Found, Item, Neighbour
from shardwright.service.presence import Match

_PIXELS = 50_000_000
_SECONDS = 10.0
_MOST = 20
"""Records that are the same by their vectors."""


def read_items(held: Held, items: Sequence[Item]) -> list[Content]:
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


def _read(held: Held, item: Item, records: dict[str, Any]) -> Content:
    if item.record is not None:
        if item.record not in records:
            raise UserError(f"{item.record}: no record of {held.name} has this id")
        row = records[item.record]
        if held.modality == "image":
            return Content(row["image"], record=item.record)
        return Content(row["content"].encode(), row["language"] or "", item.record)
    if held.modality == "image":
        if item.image is None:
            raise UserError(f"{held.name}: holds images; give an image or a record")
        try:
            return Content(base64.b64decode(item.image, validate=True))
        except binascii.Error as error:
            raise UserError(f"image: no base64 ({error})") from None
    if item.text is None:
        raise UserError(f"{held.name}: holds code; give a text or a record")
    try:
        data = item.text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"text: no Unicode text ({error.reason})") from None
    return Content(data, item.language)


def _check_images(images: Sequence[bytes]) -> None:
    """Decodes images of strangers in a child process first."""
    with ImageDecoder(_PIXELS, _SECONDS) as decoder:
        for place, fact in decoder.decode_all(enumerate(images)):
            if isinstance(fact, Fault):
                raise UserError(f"image {place}: {fact.reason}: {fact.message}")


def neighbours(held: Held, item: Content, k: int, *, kept: bool = False) -> list[Neighbour]:
    """The records nearest to an item, best first.

    Raises:
        UserError: The curation has no vectors or no index, or the item cannot be embedded.
    """
    (near,) = held.nearest([item], k, kept=kept)
    paths = _paths(held, [name for name, _ in near])
    return [Neighbour(record_id=name, path=paths[name], similarity=one) for name, one in near]


def present(held: Held, items: Sequence[Content], semantic: float | None) -> list[list[Found]]:
    """The records that each item is a copy of.

    Raises:
        UserError: ``semantic`` is asked for, and there are no vectors or no index.
    """
    matches = [held.presence.find(one.data, one.language) for one in items]
    if semantic is not None:
        for found, near in zip(matches, held.nearest(items, _MOST), strict=True):
            known = {match.record_id for match in found}
            found += [
                Match("semantic", name, min(cosine, 1.0))
                for name, cosine in near
                if cosine >= semantic and name not in known
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
