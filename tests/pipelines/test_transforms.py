"""Transforms for people's own pipelines, eager and against direct calls."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.testing.util import assert_that, equal_to

from shardwright.embeddings.encoder import load_encoder
from shardwright.metadata.manifest import Origin, write_manifest
from shardwright.metadata.tables import PartWriter
from shardwright.pipelines.transforms import Embed, ReadTable, RecordBatchCoder

SCHEMA = pa.schema([("record_id", pa.string()), ("content", pa.large_string())])
ROWS = {"record_id": ["a", "b", "c"], "content": ["x = 1", "def f(): pass", "x = 1"]}


def test_a_slice_travels_without_its_parent() -> None:
    batch = pa.RecordBatch.from_pydict({"n": list(range(100_000))})
    coder = RecordBatchCoder()
    sent = coder.encode(batch.slice(500, 10))
    assert len(sent) < 2_000
    assert coder.decode(sent).equals(batch.slice(500, 10))
    assert isinstance(beam.coders.registry.get_coder(pa.RecordBatch), RecordBatchCoder)


def test_embed_equals_the_encoder() -> None:
    batch = pa.RecordBatch.from_pydict(ROWS, SCHEMA)
    (embedded,) = [batch] | Embed("builtin:hashing", modality="code", column="content")
    vectors = embedded.column("vector").flatten().to_numpy().reshape(3, -1)
    encoder = load_encoder(
        "builtin:hashing", modality="code", device="cpu", dtype="float32", batch_size=8
    )
    assert np.array_equal(vectors, encoder.encode(ROWS["content"]))


def test_read_table_reads_what_was_committed(tmp_path: Path) -> None:
    folder = tmp_path / "tables" / "records"
    folder.mkdir(parents=True)
    writer = PartWriter(folder / "part-a.parquet", SCHEMA)
    writer.write(pa.RecordBatch.from_pydict(ROWS, SCHEMA))
    write_manifest(folder, "records", SCHEMA, Origin("ingest", "1"), [writer.close("a", "f")])
    (folder / "part-stray.parquet").write_bytes(b"not of the table")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ids = (
            pipeline
            | ReadTable(str(tmp_path), "records", columns=("record_id",), rows=2)
            | beam.FlatMap(lambda batch: batch.column("record_id").to_pylist())
        )
        assert_that(ids, equal_to(ROWS["record_id"]))
