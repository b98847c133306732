"""Transforms for people's own Beam pipelines, on Arrow RecordBatches throughout."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.coders.typecoders import registry

from shardwright.embeddings.encoder import Encoder, load_encoder
from shardwright.metadata.layout import opened
from shardwright.metadata.tables import read_batches


class RecordBatchCoder(beam.coders.Coder):
    """Sends RecordBatches in Arrow's IPC format.

    Beam would pickle them, and a pickled slice of ten rows carries the buffers of the whole batch.
    """

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """The batch as an IPC stream."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def decode(self, data: bytes) -> pa.RecordBatch:
        """The batch of an IPC stream."""
        return pa.ipc.open_stream(data).read_next_batch()

    def is_deterministic(self) -> bool:
        """False: never a key."""
        return False

    def to_type_hint(self) -> Any:
        """The type that the coder is for."""
        return pa.RecordBatch


registry.register_coder(pa.RecordBatch, RecordBatchCoder)


@dataclass
class ReadTable(beam.PTransform[Any, Any]):
    """Reads a committed table, a part at a time.

    Attributes:
        folder: Output folder of a curation.
        table: Name of the table.
        columns: Columns to read; None for all.
        rows: Most rows in a batch.
    """

    folder: str
    table: str
    columns: tuple[str, ...] | None = None
    rows: int = 1024

    def expand(self, pipeline: beam.Pipeline) -> Any:
        """Wires it.

        Raises:
            UserError: There is no such table.
        """
        manifest = opened(Path(self.folder)).need(self.table, "describe")
        return (
            pipeline
            | "Files" >> beam.Create([str(path) for path in manifest.files()])  # path
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(self._read).with_output_types(pa.RecordBatch)  # RecordBatch
        )

    def _read(self, path: str) -> Iterator[pa.RecordBatch]:
        return read_batches(Path(path), self.columns, self.rows)


@dataclass
class Embed(beam.PTransform[Any, Any]):
    """Adds a ``vector`` column (fixed-size list of float32) to RecordBatches.

    Attributes:
        model: An encoder's name, as in a recipe.
        modality: ``code`` or ``image``.
        column: Column of texts or of encoded pictures.
        device: ``auto``, ``cpu`` or ``cuda``.
        batch_size: Inputs that a torch model sees at once.
    """

    model: str
    modality: str
    column: str
    device: str = "auto"
    batch_size: int = 256

    def expand(self, batches: Any) -> Any:
        """Wires it."""
        return batches | "Encode" >> beam.ParDo(_Encode(self)).with_output_types(pa.RecordBatch)


@dataclass
class _Encode(beam.DoFn):
    settings: Embed
    _encoder: Encoder | None = field(default=None, init=False)

    def setup(self) -> None:
        settings = self.settings
        self._encoder = load_encoder(
            settings.model,
            modality=settings.modality,
            device=settings.device,
            dtype="float32",
            batch_size=settings.batch_size,
        )

    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        assert self._encoder is not None
        vectors = self._encoder.encode(batch.column(self.settings.column).to_pylist())
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, self._encoder.dimension)
        yield batch.append_column("vector", column)
