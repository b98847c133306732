"""Tables of ids and numbers of any length, as the stages before would have left them."""

from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa
from metadata import Table

from shardwright.metadata import schemas
from shardwright.metadata.layout import Layout

STAGES = ("duplicates", "score", "prune")
SETTINGS = (
    *("duplicates.near=null", "filters=[]", "index=null"),
    'prune.scores=["scip", "length", "random"]',
)
PART_ROWS = 1_000_000
CLUSTERS = 1000
ALIKE = 20
"""One record in so many has the content of the one before."""

# Ids as they come: hexadecimal, without an order. Hashes as long as a SHA-256.
_RECORDS = f"""
  SELECT md5(i::VARCHAR) AS record_id, 'scale' AS source, 'folder' || i // 1000 || '/' || i AS path,
    'code' AS modality, 200 + hash(i) % 1300 AS bytes,
    md5(n::VARCHAR) || md5((n + 1)::VARCHAR) AS content_sha256, '' AS content,
    'python' AS language, 10 + hash(i) % 40 AS lines,
    (hash(i + 1) % {CLUSTERS})::INT AS cluster,
    (hash(i + 2) % 1000003) / 1000003.0 AS distance
  FROM (SELECT i, i - (i % {ALIKE} = 1)::INT AS n FROM range(?, ?) AS r(i))"""


def make(folder: Path, rows: int) -> None:
    """Writes ``records``, ``lookup``, ``embeddings``, ``centroids`` and ``clusters``."""
    layout = Layout(folder)
    embedded = schemas.embeddings(1, "float16")
    every = {
        "records": schemas.CODE_RECORDS,
        "lookup": schemas.LOOKUP,
        "embeddings": embedded,
        "clusters": schemas.CLUSTERS,
    }
    tables = {name: Table(layout, name, schema) for name, schema in every.items()}
    connection = duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(folder)})
    connection.execute("CREATE TABLE places (record_id VARCHAR, part INT, row INT)")
    bounds = [*range(0, rows, PART_ROWS), rows]
    for part, (low, high) in enumerate(pairwise(bounds)):
        made = connection.sql(_RECORDS, params=[low, high]).to_arrow_table()
        columns = {name: made.column(name).combine_chunks() for name in made.column_names}
        count = high - low
        kind = schemas.CODE_RECORDS.field("attributes").type
        columns["attributes"] = pa.array([[]], kind).take(pa.array([0] * count))
        vector = pa.FixedSizeListArray.from_arrays(pa.array([1.0] * count, pa.float16()), 1)
        columns |= {"vector": vector.cast(embedded.field("vector").type)}
        columns |= {"model": pa.array(["made"] * count)}
        tables["records"].write({name: columns[name] for name in _named(every["records"], columns)})
        alive = pa.array([i % ALIKE != 1 for i in range(low, high)])
        live = {name: values.filter(alive) for name, values in columns.items()}
        for name in ("embeddings", "clusters"):
            tables[name].write({key: live[key] for key in _named(every[name], live)})
        connection.register("ids", pa.table({"record_id": columns["record_id"]}))
        connection.execute(
            "INSERT INTO places SELECT record_id, ?, row_number() OVER () - 1 FROM ids", [part]
        )
    ordered = connection.sql("FROM places ORDER BY record_id").to_arrow_reader(PART_ROWS)
    for batch in ordered:
        tables["lookup"].write(dict(zip(batch.schema.names, batch.columns, strict=True)))
    connection.close()
    accepted = tables["records"].commit("ingest", [])
    tables["lookup"].commit("ingest", [accepted])
    Table(layout, "rejects", schemas.REJECTS).commit("ingest", [])
    vectors = tables["embeddings"].commit("embed", [accepted])
    centroids = Table(layout, "centroids", schemas.centroids(1))
    centroids.write({"cluster": range(CLUSTERS), "vector": [[1.0]] * CLUSTERS})
    fitted = centroids.commit("cluster", [vectors])
    tables["clusters"].commit("cluster", [vectors, fitted])


def _named(schema: pa.Schema, columns: dict[str, pa.Array]) -> list[str]:
    return [name for name in schema.names if name in columns]
