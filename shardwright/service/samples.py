"""A few rows to look at: kept ones, and some for each reason to drop."""

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import duckdb
from PIL import Image

from shardwright.embeddings.pixels import SILENCE
from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import places, read_row, rows_of
from shardwright.quality.exif import upright

_REASONS = 16
_THUMBNAIL = 176
# Larger pictures are not decoded for a thumbnail.
_MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Sample:
    """One record to show.

    Attributes:
        decision: Its row of ``decisions``.
        record: Its row of ``records`` without nested columns.
    """

    decision: dict[str, Any]
    record: dict[str, Any]


def sample(
    layout: Layout, connection: duckdb.DuckDBPyConnection, each: int = 4
) -> list[tuple[str, str, int, list[Sample]]]:
    """(stage, reason, records, samples) for each outcome, kept first, then by count.

    The records with the smallest ids are shown: ids are hashes, so that is a fair draw, and the
    same one every time. What its owner opted out of is not shown.
    """
    outcomes = connection.execute(
        f"SELECT stage, reason, count(*) AS records, min(record_id, {each}) FROM decisions "
        "WHERE reason <> 'opt_out' GROUP BY stage, reason "
        f"ORDER BY stage <> 'keep', records DESC, stage, reason LIMIT {_REASONS}"
    ).fetchall()
    wanted = [record_id for *_, ids in outcomes for record_id in ids]
    if not wanted:
        return []
    records = layout.need("records", "ingest")
    columns = [name for name in records.schema.names if name != "attributes"]
    decided = {
        row["record_id"]: row
        for row in rows_of(
            connection,
            "SELECT * FROM decisions WHERE record_id IN (SELECT unnest(?::VARCHAR[]))",
            [wanted],
        )
    }
    found: dict[str, Sample] = {}
    for record_id, (part, row) in places(layout, connection, wanted).items():
        if part.file is None:
            continue
        record = read_row(records.folder / part.file, row, columns)
        if record is not None:
            found[record_id] = Sample(decided[record_id], record)
    return [
        (stage, reason, count, [found[i] for i in ids if i in found])
        for stage, reason, count, ids in outcomes
    ]


def reject_reasons(
    connection: duckdb.DuckDBPyConnection, tables: Collection[str]
) -> list[dict[str, Any]]:
    """Reasons of refusals with their counts and one example each."""
    if "rejects" not in tables:
        return []
    return rows_of(
        connection,
        "SELECT stage, reason, count(*) AS records, min_by(path, (path, source)) AS path, "
        "min_by(message, (path, source)) AS message FROM rejects "
        "GROUP BY stage, reason ORDER BY records DESC, stage, reason LIMIT 50",
    )


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
