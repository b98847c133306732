"""``embed``: a vector for each live record, cached by content."""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardwright.embeddings.encoder import encode_stream
from shardwright.metadata.catalog import connect, file_literal, scan
from shardwright.metadata.files import HashedFile, fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import blob, embeddings
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.alive import alive_parts, drops_query, live_batches
from shardwright.pipelines.encoding import Encoding, encoding
from shardwright.pipelines.jobs import Job, Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import stream
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import column, matrix

VERSION = "1"
# Records that an encoder is handed at a time: enough to sort by length, bounded in bytes.
_WINDOW_ROWS = 2048
_WINDOW_BYTES = 16_000_000


@dataclass(frozen=True)
class EmbedPart:
    """Encodes the live records of a part, except those whose vector is cached."""

    encoding: Encoding
    cached: Path | None

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` without the rows ``payload["dropped"]``."""
        known = self._known(payload["key"])
        payload_column = blob(self.encoding.modality)
        schema = embeddings(self.encoding.encoder.dimension, self.encoding.dtype)
        encoded = cached = 0
        read: deque[tuple[pa.Table, list[str]]] = deque()

        def missing() -> Generator[list[Any], None, None]:
            """Contents without a known vector, a window at a time, ahead of the encoder."""
            for window in self._windows(payload):
                hashes = window.column("content_sha256").to_pylist()
                rows = [i for i, sha256 in enumerate(hashes) if sha256 not in known]
                contents = window.column(payload_column).take(pa.array(rows, pa.int64()))
                read.append((window.drop_columns([payload_column]), hashes))
                yield contents.to_pylist()

        with closing(encode_stream(self.encoding.encoder, missing())) as found:
            for rows in found:
                window, hashes = read.popleft()
                encoded, cached = encoded + len(rows), cached + len(hashes) - len(rows)
                fresh = iter(rows)
                vectors = np.stack([known[h] if h in known else next(fresh) for h in hashes])
                output.write("embeddings", self._batch(schema, window, vectors))
        output.result = {"encoded": encoded, "cached": cached}

    def _windows(self, payload: dict[str, Any]) -> Iterator[pa.Table]:
        """Live rows of the part, as many at a time as the encoder is handed."""
        if payload["records"] is None:
            return
        columns = ["record_id", "content_sha256", blob(self.encoding.modality)]
        held: list[pa.RecordBatch] = []
        rows = size = 0
        path = Path(payload["records"])
        for batch in live_batches(path, columns, payload["dropped"], rows=256):
            held.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= _WINDOW_ROWS or size >= _WINDOW_BYTES:
                yield pa.Table.from_batches(held)
                held, rows, size = [], 0, 0
        if held:
            yield pa.Table.from_batches(held)

    def _batch(
        self, schema: pa.Schema, window: pa.Table, vectors: np.ndarray[Any, Any]
    ) -> pa.RecordBatch:
        columns = [
            window.column("record_id").combine_chunks(),
            column(vectors, schema.field("vector").type),
            pa.array([self.encoding.encoder.name] * window.num_rows, pa.string()),
            window.column("content_sha256").combine_chunks(),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _known(self, key: str) -> dict[str, np.ndarray[Any, Any]]:
        """Vectors of earlier runs for this part's contents, by content hash."""
        if self.cached is None:
            return {}
        places = pq.read_table(self.cached, filters=[("key", "=", key)])
        known: dict[str, np.ndarray[Any, Any]] = {}
        for file in sorted(set(places.column("filename").to_pylist())):
            here = places.filter(pc.equal(places.column("filename"), file))
            rows = here.column("row").to_numpy()
            hashes = here.column("content_sha256").to_pylist()
            for row, vector in _vectors(Path(file), rows):
                known[hashes[row]] = vector
        return known


def _vectors(file: Path, rows: np.ndarray[Any, Any]) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """Yields (place in ``rows``, vector) for the asked rows of a part, reading it once."""
    offset = 0
    for batch in read_batches(file, ["vector"], rows=4096):
        rows_here = matrix(batch.column("vector"))
        for place in np.flatnonzero((rows >= offset) & (rows < offset + batch.num_rows)):
            yield int(place), rows_here[rows[place] - offset]
        offset += batch.num_rows


def plan(run: Run, records: Manifest) -> Iterator[Task]:
    """A part of vectors for each part of records."""
    assert run.recipe.embedding is not None
    for part, dropped in alive_parts(run, records, "embed"):
        file = None if part.file is None else str(records.folder / part.file)
        yield Task(
            part.key,
            fingerprint(
                stage="embed",
                version=VERSION,
                model=run.encoder.fingerprint,
                dtype=run.recipe.embedding.dtype,
                records=part.sha256,
                dropped=dropped,
            ),
            {"key": part.key, "records": file, "dropped": dropped},
            part.bytes,
        )


def run_embed(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    started = time.time()
    embedding = run.recipe.embedding
    if embedding is None:
        run.drop("embeddings")
        return
    records = run.layout.need("records", "ingest")
    _, drops = drops_query(run, "embed")
    encoder = run.encoder
    schema = embeddings(encoder.dimension, embedding.dtype)
    job = run.plan("embed", {"embeddings": schema}, plan(run, records))
    parameters = {
        # Not the model's address: the same weights in another folder are the same model.
        # What only torch models are told stands in the encoder's description.
        **embedding.model_dump(mode="json", include={"dtype", "batch_size"}),
        "encoder": {"name": encoder.name, **encoder.description},
        "encoder_fingerprint": encoder.fingerprint,
    }
    with encoding(run) as settings:
        run.execute("embed", job, EmbedPart(settings, _cached(run, job, parameters)), progress)
    results = [result for _, result in job.results()]
    progress.details["encoded"] = sum(result["encoded"] for result in results)
    progress.cached = sum(result["cached"] for result in results)
    progress.device = run.model.runs_on
    origin = run.origin("embed", VERSION, parameters, [records, *drops], started)
    table = run.commit(job, origin)["embeddings"]
    progress.records, progress.bytes = table.rows, job.bytes


def _cached(run: Run, job: Job, parameters: dict[str, Any]) -> Path | None:
    """Writes where the earlier ``embeddings`` have vectors for the contents of the open tasks.

    The earlier table is the cache: it holds content hashes, and its files stay until the new one
    is committed. Vectors of another model, dtype or code version do not count.
    """
    old = run.layout.manifest("embeddings")
    if old is None or run.force or not job.todo or old.rows == 0:
        return None
    if not all(path.exists() for path in old.files()):
        return None
    same = {**old.origin.parameters} == parameters and old.origin.version == VERSION
    if not same or not old.schema.equals(job.schemas["embeddings"]):
        return None
    path = job.folder / "cached.parquet"
    with connect(run.layout, tables=()) as connection:
        tasks = ((task.key, task.payload["records"]) for task in job.pending())
        open_parts = [(key, file) for key, file in tasks if file is not None]
        if not open_parts:
            return None
        connection.register("open_parts", _keys(open_parts))
        files = ", ".join(file_literal(Path(file)) for _, file in open_parts)
        batches = stream(
            connection,
            f"""
            WITH wanted AS (
              SELECT DISTINCT key, content_sha256
              FROM read_parquet([{files}], filename = true) JOIN open_parts USING (filename)),
            held AS (
              SELECT content_sha256, min_by((filename, file_row_number),
                (filename, file_row_number)) AS place
              FROM {scan(old, positions=True)} GROUP BY content_sha256)
            SELECT key, content_sha256, place[1] AS filename, place[2] AS row
            FROM wanted JOIN held USING (content_sha256) ORDER BY key, filename, row
            """,
        )
        with HashedFile(path) as file:
            writer: pq.ParquetWriter | None = None
            for batch in batches:
                writer = writer or pq.ParquetWriter(file, batch.schema)
                writer.write_batch(batch)
            if writer is not None:
                writer.close()
    return path if writer is not None else None


def _keys(parts: Sequence[tuple[str, str]]) -> pa.Table:
    return pa.table({"key": [key for key, _ in parts], "filename": [file for _, file in parts]})
