"""What a curation is in a few numbers: its funnel, its refusals, its shards, its stages."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import rows_of

_STEPS = 200
_REASONS = 50


@dataclass(frozen=True)
class Totals:
    """What became of the inputs.

    Attributes:
        rejected: Inputs that were refused.
        records: Inputs that were accepted.
        kept: Records that no stage dropped; None before there are decisions.
    """

    rejected: int
    records: int
    kept: int | None

    @property
    def seen(self) -> int:
        """All inputs."""
        return self.rejected + self.records

    @property
    def dropped(self) -> int:
        """Records that a stage dropped."""
        return 0 if self.kept is None else self.records - self.kept


@dataclass(frozen=True)
class Step:
    """Inputs that a stage refused or dropped for a reason; those that stay have stage ``keep``."""

    stage: str
    reason: str
    records: int

    @property
    def kind(self) -> str:
        """``kept``, ``dropped`` or ``rejected``."""
        return {"keep": "kept", "ingest": "rejected"}.get(self.stage, "dropped")


@dataclass(frozen=True)
class SplitSize:
    """How much a split holds.

    Attributes:
        name: Of the split.
        shards: Files.
        samples: Records in them.
        bytes: Size of the files.
    """

    name: str
    shards: int
    samples: int
    bytes: int


def totals(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Totals:
    """Counts all inputs.

    Raises:
        UserError: There are no records.
    """
    records = layout.need("records", "ingest").rows
    rejects = layout.manifest("rejects")
    kept = None
    if layout.manifest("decisions") is not None:
        counted = "SELECT count(*) FROM decisions WHERE keep"
        kept = int(connection.execute(counted).fetchall()[0][0])
    return Totals(0 if rejects is None else rejects.rows, records, kept)


def modality(layout: Layout) -> str:
    """``code`` or ``image``."""
    records = layout.need("records", "ingest")
    return "image" if "image" in records.schema.names else "code"


def funnel(connection: duckdb.DuckDBPyConnection) -> list[Step]:
    """Outcomes in the order of the stages; none before there are decisions."""
    views = connection.execute("SELECT view_name FROM duckdb_views()").fetchall()
    if ("funnel",) not in views:
        return []
    rows = connection.execute(f"SELECT stage, reason, records FROM funnel LIMIT {_STEPS}")
    return [Step(*row) for row in rows.fetchall()]


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
        f"GROUP BY stage, reason ORDER BY records DESC, stage, reason LIMIT {_REASONS}",
    )


def splits(layout: Layout) -> list[SplitSize]:
    """What each split holds; none before there are shards."""
    listed = read_file_list(layout.shards)
    if listed is None:
        return []
    sizes: dict[str, list[int]] = {}
    for file in listed.shards:
        counts = sizes.setdefault(file.path.partition("/")[0], [0, 0, 0])
        for place, count in enumerate((1, file.rows, file.bytes)):
            counts[place] += count
    return [SplitSize(name, *counts) for name, counts in sizes.items()]


def metrics(layout: Layout) -> dict[str, Any]:
    """What the last runs of the stages took; nothing where it cannot be read."""
    return _json_object(layout, "metrics.json")


def recipe(layout: Layout) -> dict[str, Any]:
    """The recipe as it ran; nothing where it cannot be read."""
    return _json_object(layout, "recipe.json")


def method(layout: Layout, recipe: Mapping[str, Any]) -> str | None:
    """The column of ``scores`` that the recipe prunes by, else the first; None without scores."""
    scores = layout.manifest("scores")
    if scores is None:
        return None
    prune = recipe.get("prune")
    asked = prune.get("method") if isinstance(prune, dict) else None
    methods = [name for name in scores.schema.names if name != "record_id"]
    return asked if asked in methods else next(iter(methods), None)


def _json_object(layout: Layout, name: str) -> dict[str, Any]:
    try:
        data = json.loads((layout.root / name).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
