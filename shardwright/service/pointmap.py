"""The map of a curation: a point for each record, near those whose vectors are near."""

import base64
import gzip
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import matplotlib
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shardwright.embeddings.projection import project
from shardwright.metadata.files import write_whole
from shardwright.metadata.layout import Layout
from shardwright.service.blocks import Block, Heading, PointMap
from shardwright.service.text import number, shown

MOST: Final = 100_000
"""Points at most: those of the smallest ids, a fair draw as ids are hashes."""
_FEWEST = 5
_NAMES, _PATH = 20, 160
_KEY = b"shardwright.embeddings"
"""Hash of the vectors, in the schema of the places that were found for them."""


@dataclass(frozen=True)
class Places:
    """Where records stand on the map, in the order of their ids.

    Attributes:
        record_ids: (n,).
        xy: (n, 2), float32.
        live: How many records have a vector.
    """

    record_ids: pa.StringArray
    xy: npt.NDArray[np.float32]
    live: int


def places(layout: Layout, connection: duckdb.DuckDBPyConnection) -> Places:
    """The places of records; found once for the same vectors and kept as ``report/map.parquet``.

    Raises:
        UserError: There are no vectors.
    """
    embeddings = layout.need("embeddings", "embed")
    path = layout.root / "report" / "map.parquet"
    key = embeddings.content_sha256.encode()
    if path.exists():
        kept = pq.read_table(path)
        if (kept.schema.metadata or {}).get(_KEY) == key:
            xy = np.stack([kept["x"].to_numpy(), kept["y"].to_numpy()], axis=1)
            return Places(kept["record_id"].combine_chunks(), xy, embeddings.rows)
    record_ids, vectors = _vectors(connection, embeddings.rows)
    xy = project(vectors)
    table = pa.table({"record_id": record_ids, "x": xy[:, 0], "y": xy[:, 1]})
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_KEY: key}), out)
    with suppress(OSError):  # a folder that may only be read
        write_whole(path, out.getvalue())
    return Places(record_ids, xy, embeddings.rows)


def _vectors(
    connection: duckdb.DuckDBPyConnection, rows: int
) -> tuple[pa.StringArray, npt.NDArray[Any]]:
    chosen = ""
    if rows > MOST:
        least = f"SELECT record_id FROM embeddings ORDER BY record_id LIMIT {MOST}"
        chosen = f"SEMI JOIN ({least}) AS least USING (record_id)"
    table = connection.sql(f"SELECT record_id, vector FROM embeddings {chosen}").to_arrow_table()
    order = np.argsort(table["record_id"].to_numpy(zero_copy_only=False))
    column = table["vector"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
    return table["record_id"].combine_chunks().take(pa.array(order)), vectors[order]


def map_section(
    layout: Layout, connection: duckdb.DuckDBPyConnection, method: str | None
) -> Iterator[Block]:
    """The section, if records have vectors: ``decisions`` is there."""
    rows = layout.need("embeddings", "embed").rows
    if rows < _FEWEST:
        return
    found = places(layout, connection)
    yield Heading("Map")
    yield map_block(layout, connection, found, method)


def map_block(
    layout: Layout,
    connection: duckdb.DuckDBPyConnection,
    found: Places,
    method: str | None,
    href: str = "",
) -> PointMap:
    """The map with all that its points can be coloured by; see ``PointMap`` for ``href``."""
    columns = _columns(layout, connection, found, method)
    outcomes = np.asarray(columns["outcome"])
    colours: list[dict[str, object]] = []
    for name in ("outcome", "cluster", "device", "language", "label"):
        if name in columns:
            colours.append(_named(name, columns[name]))
    if "score" in columns:
        scores = np.asarray(columns["score"], dtype=np.float64)
        colours.append({"name": method, "kind": "number", "values": _packed(scores, np.float32)})
    paths = "\n".join(shown(path, _PATH) for path in columns["path"])
    data: dict[str, object] = {
        "count": len(outcomes),
        "x": _packed(found.xy[:, 0], np.float32),
        "y": _packed(found.xy[:, 1], np.float32),
        "colours": colours,
        "paths": base64.b64encode(gzip.compress(paths.encode(), mtime=0)).decode(),
    }
    drawn = f"{number(len(outcomes))} of " if len(outcomes) < found.live else ""
    about = (
        f"{drawn}{number(found.live)} live records by their vectors (t-SNE): near points have near "
        "vectors; distances between groups and their sizes mean little."
    )
    return PointMap(data, _still(found.xy, outcomes == "kept"), about, href)


def _columns(
    layout: Layout, connection: duckdb.DuckDBPyConnection, found: Places, method: str | None
) -> dict[str, list[Any]]:
    """What is known of each point, in the order of their ids."""
    names = layout.need("records", "ingest").schema.names
    chosen = ["r.path AS path", "CASE WHEN d.keep THEN 'kept' ELSE d.reason END AS outcome"]
    joins = ["JOIN records AS r USING (record_id)", "JOIN decisions AS d USING (record_id)"]
    if layout.manifest("clusters") is not None:
        chosen.append("c.cluster AS cluster")
        joins.append("LEFT JOIN clusters AS c USING (record_id)")
    if method is not None:
        chosen.append(f's."{method}" AS score')
        joins.append("LEFT JOIN scores AS s USING (record_id)")
    if "device_make" in names:
        chosen.append("trim(concat_ws(' ', r.device_make, r.device_model)) AS device")
    chosen += [f"r.{name} AS {name}" for name in ("language", "label") if name in names]
    connection.register("points", pa.table({"record_id": found.record_ids}))
    rows = connection.sql(
        f"SELECT {', '.join(chosen)} FROM points {' '.join(joins)} ORDER BY points.record_id"
    ).to_arrow_table()
    connection.unregister("points")
    columns: dict[str, list[Any]] = rows.to_pydict()
    return {name: values for name, values in columns.items() if _varies(name, values)}


def _varies(name: str, values: list[Any]) -> bool:
    return name in ("path", "outcome", "score") or any(values[0] != value for value in values)


def _named(name: str, values: list[Any]) -> dict[str, object]:
    """A colour for each of the most frequent values, and one for all others."""
    texts = np.array(["(none)" if v in (None, "") else shown(v, 40) for v in values])
    kinds, places, counts = np.unique(texts, return_inverse=True, return_counts=True)
    order = np.lexsort((kinds, -counts))
    rank = np.empty(len(kinds), dtype=np.int64)
    rank[order] = np.arange(len(kinds))
    names = [str(kind) for kind in kinds[order][:_NAMES]]
    if len(kinds) > _NAMES:
        names.append(f"({len(kinds) - _NAMES:,} others)")
    values_of = np.minimum(rank[places], _NAMES)
    return {"name": name, "kind": "names", "names": names, "values": _packed(values_of, np.uint8)}


def _packed(values: npt.NDArray[Any], kind: type[np.generic]) -> str:
    """Little-endian numbers in base64."""
    whole = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(whole.tobytes()).decode()


def _still(xy: npt.NDArray[np.float32], kept: npt.NDArray[np.bool_]) -> Markup:
    """A picture for paper and for browsers without scripts."""
    with matplotlib.rc_context():
        figure = Figure(figsize=(7.6, 5.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_axis_off()
        mark = float(np.clip(6000 / max(len(xy), 1), 0.3, 12))
        for which, colour in ((~kept, "#c98a3c"), (kept, "#2f6f8f")):
            axes.scatter(xy[which, 0], xy[which, 1], s=mark, c=colour, linewidths=0)
        out = io.BytesIO()
        figure.savefig(out, format="webp", transparent=True)
    return Markup(
        '<img alt="Map of the records: kept ones blue, dropped ones ochre" src="{}">'
    ).format(f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}")
