"""Records to look at: kept ones, some for each reason to drop, the most and the least valued."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from PIL import Image

from shardwright.embeddings.pixels import SILENCE
from shardwright.metadata.lookup import Rows, rows_of
from shardwright.metadata.schemas import blob
from shardwright.quality.exif import upright
from shardwright.service.addresses import at
from shardwright.service.blocks import Block, Card, Gallery, Heading, Words
from shardwright.service.text import number, shown, size

_REASONS = 16
_EACH = {"code": 4, "image": 5}
_THUMBNAIL = 176
# Larger pictures are not decoded for a thumbnail.
_MAX_PIXELS = 50_000_000

Row = Mapping[str, Any]
Href = Callable[[str], str]


@dataclass(frozen=True)
class Outcome:
    """Records of one fate.

    Attributes:
        stage: The stage that dropped them, or ``keep``.
        reason: Why.
        records: How many there are.
        shown: Ids of some of them.
    """

    stage: str
    reason: str
    records: int
    shown: Sequence[str]


def outcomes(connection: duckdb.DuckDBPyConnection, each: int) -> list[Outcome]:
    """The fates of records, kept first, then by count.

    The records with the smallest ids are shown: ids are hashes, so that is a fair draw, and the
    same one every time. What its owner opted out of is not shown.
    """
    rows = connection.execute(
        f"SELECT stage, reason, count(*) AS records, min(record_id, {each}) FROM decisions "
        "WHERE reason <> 'opt_out' GROUP BY stage, reason "
        f"ORDER BY stage <> 'keep', records DESC, stage, reason LIMIT {_REASONS}"
    ).fetchall()
    return [Outcome(*row) for row in rows]


def samples_section(
    connection: duckdb.DuckDBPyConnection, stored: Rows, modality: str
) -> Iterator[Block]:
    """Some records of each fate; the table ``decisions`` is there."""
    fates = outcomes(connection, _EACH[modality])
    wanted = [record_id for fate in fates for record_id in fate.shown]
    if not wanted:
        return
    records = stored.read(wanted)
    decisions = _by_id(connection, "decisions", wanted)
    yield Heading("Samples")
    for fate in fates:
        title = "kept" if fate.stage == "keep" else f"{shown(fate.reason, 60)} ({fate.stage})"
        yield Heading(title, 3, f"{number(fate.records)} records")
        yield Gallery(
            [
                card(records[record_id], modality, _judged(decisions[record_id]))
                for record_id in fate.shown
                if record_id in records
            ]
        )


def extremes_section(
    connection: duckdb.DuckDBPyConnection,
    stored: Rows,
    modality: str,
    method: str,
    linked: str | None = None,
) -> Iterator[Block]:
    """The most and the least valued records by a column of ``scores``."""
    each = _EACH[modality]
    ranked = (
        f'SELECT record_id, "{method}" FROM scores LEFT JOIN decisions USING (record_id) '
        "WHERE reason IS DISTINCT FROM 'opt_out' ORDER BY 2 {order}, record_id LIMIT ?"
    )
    ends = [
        (title, connection.execute(ranked.format(order=order), [each]).fetchall())
        for title, order in (("Most valued", "DESC"), ("Least valued", "ASC"))
    ]
    records = stored.read([row[0] for _, rows in ends for row in rows])
    if not records:
        return
    yield Heading("The most and the least valued")
    yield Words(f"By the method {method}: the higher, the more worth keeping.")
    for title, rows in ends:
        yield Heading(title, 3)
        yield Gallery(
            [
                card(
                    records[record_id],
                    modality,
                    [f"{method} {score:.6g}"],
                    "" if linked is None else at(linked, "records", record_id),
                )
                for record_id, score in rows
                if record_id in records
            ]
        )


def card(record: Row, modality: str, about: Sequence[str] = (), href: str = "") -> Card:
    """A record to look at; ``about`` comes after what its row says."""
    facts = [size(record["bytes"])]
    facts += [str(record[name]) for name in ("language", "format", "label") if record.get(name)]
    if modality == "image":
        facts.append(f"{record['width']} x {record['height']}")
    payload = record[blob(modality)]
    facts += about
    if modality == "image":
        return Card(record["path"], facts, image=thumbnail(payload) or "", href=href)
    return Card(record["path"], facts, text=payload, href=href)


def _judged(decision: Row) -> list[str]:
    facts = [
        f"{name} {decision[name]:.6g}"
        for name in ("score", "threshold")
        if decision[name] is not None
    ]
    if decision["representative_id"] is not None:
        facts.append(f"as {shown(decision['representative_id'], 32)}")
    return facts


def _by_id(
    connection: duckdb.DuckDBPyConnection, table: str, record_ids: Sequence[str]
) -> dict[str, Row]:
    rows = rows_of(
        connection,
        f"SELECT * FROM {table} WHERE record_id IN (SELECT unnest(?::VARCHAR[]))",
        [list(record_ids)],
    )
    return {row["record_id"]: row for row in rows}


def thumbnail(data: bytes) -> str | None:
    """A small WebP of an image as a data URI, or None where it cannot be drawn."""
    try:
        with SILENCE, Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MAX_PIXELS:
                return None
            image.draft("RGB", (2 * _THUMBNAIL, 2 * _THUMBNAIL))
            image.load()
            small = upright(image, image, data)
            small.thumbnail((_THUMBNAIL, _THUMBNAIL))
            out = io.BytesIO()
            small.convert("RGBA" if small.has_transparency_data else "RGB").save(
                out, "WEBP", quality=75
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
