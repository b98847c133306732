"""Records by what is known of them, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import duckdb

from shardwright.errors import UserError
from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import rows_of

_COLUMNS = (
    "record_id",
    "source",
    "path",
    "bytes",
    "language",
    "label",
    "format",
    "width",
    "height",
)
"""Of ``records``, as far as a modality has them."""


@dataclass(frozen=True)
class Filter:
    """What records must be like; None does not matter.

    Attributes:
        keep: Whether they are kept.
        stage: The stage that dropped them, or ``keep``.
        reason: Why they were dropped.
        language: As detected.
        label: Of an image.
        cluster: Number of their cluster.
        path: A piece of the path, whatever its case.
    """

    keep: bool | None = None
    stage: str | None = None
    reason: str | None = None
    language: str | None = None
    label: str | None = None
    cluster: int | None = None
    path: str | None = None


@dataclass(frozen=True)
class Page:
    """Some records in the order of their ids.

    Attributes:
        rows: Of ``records`` without contents, with decision, cluster and score.
        next: What to give as ``after`` for the next page; None after the last.
    """

    rows: Sequence[dict[str, Any]]
    next: str | None


def page(
    layout: Layout,
    connection: duckdb.DuckDBPyConnection,
    wanted: Filter,
    *,
    after: str = "",
    limit: int = 50,
) -> Page:
    """A page of the records that pass a filter.

    Raises:
        UserError: The filter asks for what this curation does not have.
    """
    known = layout.need("records", "ingest").schema.names
    tables = {manifest.table for manifest in layout.manifests()}
    columns = [f'r."{name}"' for name in _COLUMNS if name in known]
    joins, conditions, values = [], ["r.record_id > ?"], [after]
    if "decisions" in tables:
        columns += ["d.keep", "d.stage", "d.reason", "d.score"]
        joins.append("JOIN decisions AS d USING (record_id)")
    if "clusters" in tables:
        columns.append("c.cluster")
        joins.append("LEFT JOIN clusters AS c USING (record_id)")
    places = {
        **{name: f"d.{name} = ?" for name in ("keep", "stage", "reason") if "decisions" in tables},
        **{name: f"r.{name} = ?" for name in ("language", "label") if name in known},
        **({"cluster": "c.cluster = ?"} if "clusters" in tables else {}),
        "path": "contains(lower(r.path), lower(?))",
    }
    for field in fields(wanted):
        value = getattr(wanted, field.name)
        if value is None:
            continue
        if field.name not in places:
            raise UserError(f"{field.name}: this curation has no such value to filter by")
        conditions.append(places[field.name])
        values.append(value)
    rows = rows_of(
        connection,
        f"SELECT {', '.join(columns)} FROM records AS r {' '.join(joins)} "
        f"WHERE {' AND '.join(conditions)} ORDER BY r.record_id LIMIT {int(limit) + 1}",
        values,
    )
    more = len(rows) > limit
    return Page(rows[:limit], rows[limit - 1]["record_id"] if more else None)
