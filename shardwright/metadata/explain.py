"""One record's life: where it came from, what was measured, what was decided, where it went."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import duckdb

from shardwright.errors import DataError, UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.filelist import read_file_list, shard_stem
from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import Rows, StoredRows, rows_of

# Columns of records that hold payloads or nested values.
_LARGE = ("content", "image", "attributes")
_LISTED = 10


Nearest = Callable[[str], tuple[str, float] | None]
"""Gives the kept record that is nearest to another one, and the cosine of their vectors."""


def explain(
    layout: Layout,
    record: str,
    connection: duckdb.DuckDBPyConnection | None = None,
    rows: Rows | None = None,
    nearest: Nearest | None = None,
) -> dict[str, Any]:
    """All that the tables say of one input.

    Args:
        layout: The output folder.
        record: A record's id, or the exact path of a record or a refused input.
        connection: Has the views of the catalog; without one it is made.
        rows: Finds records; without it their files are read.
        nearest: Finds the nearest kept record; without it all vectors are read.

    Returns:
        Names and values in reading order: ``source``, ``path`` and sizes; ``scores``, ``cluster``
        and ``distance`` as far as measured; ``decision`` (kept, dropped, rejected), ``stage``,
        ``reason``, ``score`` and ``threshold``; ``representative`` of a duplicate;
        ``nearest_kept`` by cosine of the embeddings; ``split``, ``shard`` and ``position``.

    Raises:
        UserError: There is no such input, or several have this path.
        DataError: The tables contradict each other.
    """
    layout.need("records", "ingest")
    with connect(layout) if connection is None else nullcontext(connection) as opened:
        if rows is None and layout.manifest("lookup") is not None:
            rows = StoredRows(layout, opened)
        record_id, reject = _resolve(layout, opened, rows, record)
        if reject is not None:
            return reject
        life = _Life(layout, opened, rows, record_id, nearest)
        return life.told()


def _resolve(
    layout: Layout, connection: duckdb.DuckDBPyConnection, rows: Rows | None, record: str
) -> tuple[str, dict[str, Any] | None]:
    """The id that is meant, or the life of a refused input."""
    if rows is not None and rows.part(record) is not None:
        return record, None
    accepted = connection.execute(
        "SELECT record_id, source FROM records WHERE path = ? OR record_id = ? ORDER BY ALL",
        [record, record],
    ).fetchall()
    refused: list[dict[str, Any]] = []
    if layout.manifest("rejects") is not None:
        refused = rows_of(connection, "SELECT * FROM rejects WHERE path = ? ORDER BY ALL", [record])
    if len(accepted) + len(refused) > 1:
        names = [f"{record_id} (source {source})" for record_id, source in accepted]
        names += [f"refused input of source {row['source']}" for row in refused]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise UserError(
            f"{record}: {len(names)} inputs have this path; give an id: "
            f"{', '.join(names[:_LISTED])}{more}"
        )
    if refused:
        row = refused[0]
        return "", {
            "source": row["source"],
            "path": row["path"],
            "decision": "rejected",
            "stage": row["stage"],
            "reason": row["reason"],
            "message": row["message"],
        }
    if not accepted:
        raise UserError(
            f"{record}: no record and no refused input of {layout.root} has this id or path; "
            f'shardwright query {layout.root} "SELECT record_id, path FROM records '
            "WHERE path LIKE '%...%'\" finds it by a piece of its path"
        )
    return str(accepted[0][0]), None


class _Life:
    """Point look-ups of one record: of its own part where tables are cut like ``records``."""

    def __init__(
        self,
        layout: Layout,
        connection: duckdb.DuckDBPyConnection,
        rows: Rows | None,
        record_id: str,
        nearest: Nearest | None,
    ) -> None:
        self._layout = layout
        self._connection = connection
        self._rows = rows
        self._id = record_id
        self._nearest = nearest or self._read_nearest
        self._record, self._key = self._find()

    def told(self) -> dict[str, Any]:
        """The record's life."""
        told = {name: value for name, value in self._record.items() if value is not None}
        told |= self._measured()
        decision = self._row("decisions")
        if decision is None:
            return told | {"decision": "none yet"}
        told["decision"] = "kept" if decision["keep"] else "dropped"
        for name in ("stage", "reason", "score", "threshold"):
            if decision[name] is not None:
                told[name] = decision[name]
        if decision["representative_id"] is not None:
            told["representative"] = self._named(decision["representative_id"])
        nearest = self._nearest_kept()
        if nearest is not None:
            told["nearest_kept"] = nearest
        place = self._row("shards")
        if place is not None:
            told["split"] = place["split"]
            told["shard"] = self._shard_file(place["split"], place["shard"])
            told["position"] = place["position"]
        return told

    def _find(self) -> tuple[dict[str, Any], str | None]:
        """The row of ``records`` without its payload, and the key of its part."""
        records = self._layout.need("records", "ingest")
        columns = [name for name in records.schema.names if name not in _LARGE]
        if self._rows is None:
            names = ", ".join(f'"{name}"' for name in columns)
            query = f"SELECT {names} FROM records WHERE record_id = ?"
            return rows_of(self._connection, query, [self._id])[0], None
        part = self._rows.part(self._id)
        found = self._rows.read([self._id], columns)
        if part is not None and self._id in found:
            return found[self._id], part.key
        raise DataError(
            f"{self._id}: lookup is not of these records; run stage 'ingest' again, or "
            "shardwright verify to see more"
        )

    def _row(self, table: str) -> dict[str, Any] | None:
        """The record's first row in a table, read from the part of its key where there is one.

        Of several groups of duplicates the one in which another record stays.
        """
        manifest = self._layout.manifest(table)
        if manifest is None:
            return None
        names = [name for name in manifest.schema.names if name not in (*_LARGE, "vector")]
        same = next((part for part in manifest.parts() if part.key == self._key), None)
        if same is not None and self._rows is not None:
            if same.file is None:
                return None
            return self._rows.find(manifest.folder / same.file, self._id, names)
        narrow = ", ".join(f'"{name}"' for name in names)
        first = "representative_id = record_id, " if "kind" in names else ""
        rows = rows_of(
            self._connection,
            f"SELECT {narrow} FROM {table} WHERE record_id = ? ORDER BY {first}{narrow} LIMIT 1",
            [self._id],
        )
        return rows[0] if rows else None

    def _shard_file(self, split: str, shard: int) -> str:
        """Path of a shard below the output folder, as the list of files has it."""
        listed = read_file_list(self._layout.shards)
        file = None if listed is None else listed.shard(split, shard)
        return f"shards/{shard_stem(split, shard) if file is None else file.path}"

    def _measured(self) -> dict[str, Any]:
        """Scores of filters and methods, the cluster, and the group of duplicates."""
        told: dict[str, Any] = {}
        scores = {
            name: value
            for table in ("filter_scores", "scores")
            for name, value in (self._row(table) or {}).items()
            if name != "record_id"
        }
        if scores:
            told["scores"] = scores
        for table in ("clusters", "score_explanations"):
            for name, value in (self._row(table) or {}).items():
                if name != "record_id" and value is not None:
                    told[name] = value
        hits = (
            rows_of(
                self._connection,
                "SELECT benchmark, item, method, similarity FROM contamination WHERE record_id = ? "
                "ORDER BY similarity DESC, benchmark, item, method LIMIT 10",
                [self._id],
            )
            if self._layout.manifest("contamination") is not None
            else []
        )
        if hits:
            told["contamination"] = hits
        for table in ("duplicates", "semantic_duplicates"):
            group = self._row(table)
            if group is not None:
                size = self._connection.execute(
                    f"SELECT count(*) FROM {table} WHERE kind = ? AND group_id = ?",
                    [group["kind"], group["group_id"]],
                ).fetchall()[0][0]
                told[table] = {
                    "kind": group["kind"],
                    "group_id": group["group_id"],
                    "group_size": size,
                    "similarity": group["similarity"],
                }
        return told

    def _named(self, record_id: str) -> dict[str, Any]:
        if self._rows is not None:
            path = self._rows.read([record_id], ["path"]).get(record_id, {}).get("path")
            return {"record_id": record_id, "path": path}
        rows = self._connection.execute(
            "SELECT path FROM records WHERE record_id = ?", [record_id]
        ).fetchall()
        return {"record_id": record_id, "path": rows[0][0] if rows else None}

    def _nearest_kept(self) -> dict[str, Any] | None:
        """The kept record whose vector has the largest cosine with this one's, the record aside."""
        if self._layout.manifest("embeddings") is None:
            return None
        found = self._nearest(self._id)
        return None if found is None else self._named(found[0]) | {"similarity": found[1]}

    def _read_nearest(self, record_id: str) -> tuple[str, float] | None:
        """DuckDB streams the vectors and holds the kept ids; the first by id wins a tie."""
        rows = self._connection.execute(
            """
            SELECT e.record_id, array_cosine_similarity(e.vector, mine.vector) AS similarity
            FROM embeddings AS e SEMI JOIN (SELECT record_id FROM decisions WHERE keep) AS kept
              USING (record_id),
              (SELECT vector FROM embeddings WHERE record_id = $id) AS mine
            WHERE e.record_id <> $id AND isfinite(similarity)
            ORDER BY similarity DESC, e.record_id LIMIT 1
            """,
            {"id": record_id},
        ).fetchall()
        return rows[0] if rows else None
