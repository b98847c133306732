"""What ``heterogeneity`` works on: images measured part by part, and a sample of groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.sampling import sample_keys
from shardwright.metadata.schemas import device_statistics
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.jobs import Output

_ROWS = 64
_OWN = ("repository", "source", "format", "software", "label", "device_make", "device_model")
"""Columns of ``records`` that a rule may name, beside the attributes."""


@dataclass(frozen=True)
class MeasureDevices:
    """Tells the group of each image of a part, and measures it.

    Attributes:
        rule: How groups are told.
    """

    rule: str

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` into ``device_statistics``."""
        from shardwright.quality.heterogeneity.device_statistics import STATISTICS

        if payload["records"] is None:
            return
        schema = device_statistics([one.name for one in STATISTICS])
        columns = ["record_id", "path", "image", "attributes", *_OWN]
        for batch in read_batches(Path(payload["records"]), columns, rows=_ROWS):
            rows = [self._row(batch, row) for row in range(batch.num_rows)]
            # NaN says that a statistic does not apply, as null does in a table
            columns_of = [
                pa.array([row[field.name] for row in rows], field.type, from_pandas=True)
                for field in schema
            ]
            output.write("device_statistics", pa.RecordBatch.from_arrays(columns_of, schema=schema))

    def _row(self, batch: pa.RecordBatch, row: int) -> dict[str, Any]:
        from shardwright.embeddings.pixels import decode_rgb
        from shardwright.quality.heterogeneity.device_statistics import measure
        from shardwright.quality.heterogeneity.groups import group_of
        from shardwright.quality.heterogeneity.provenance import read_provenance

        told = {name: batch.column(name)[row].as_py() for name in ("record_id", "path", *_OWN)}
        attributes = dict(batch.column("attributes")[row].as_py())
        data = batch.column("image")[row].as_buffer().to_pybytes()
        facts = read_provenance(data)
        group = group_of(self.rule, facts, told["path"], {**told, **attributes})
        measured = measure(np.asarray(decode_rgb(data)), facts)
        return {"record_id": told["record_id"], "group": group, **measured}


@dataclass(frozen=True)
class Sample:
    """Images of the groups that are compared, in the order of their ids.

    Attributes:
        record_ids: n ids.
        groups: The group of each.
        labels: The label of each, or None.
        strata: What stands for the content of each, or None; None where nothing does.
        statistics: float64 [n, m], NaN where one does not apply.
        vectors: float32 [n, d], or None without embeddings.
    """

    record_ids: list[str]
    groups: list[str]
    labels: list[str | None]
    strata: list[str | None] | None
    statistics: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float32] | None

    def of(self, names: Sequence[str]) -> "Sample":
        """The images of some groups."""
        rows = [row for row, name in enumerate(self.groups) if name in names]
        return Sample(
            [self.record_ids[row] for row in rows],
            [self.groups[row] for row in rows],
            [self.labels[row] for row in rows],
            None if self.strata is None else [self.strata[row] for row in rows],
            self.statistics[rows],
            None if self.vectors is None else self.vectors[rows],
        )

    def sides(
        self, pair: Sequence[str], least: int | None, seed: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of two groups: with matched content where ``least`` are left, else all of them.

        Args:
            pair: The groups.
            least: Rows that a matched group needs; None to match nothing.
            seed: Of the choice among rows of one stratum.
        """
        a, b = (np.flatnonzero(np.array(self.groups) == name) for name in pair)
        if self.strata is None or least is None:
            return a, b
        from shardwright.quality.heterogeneity.matching import match

        keys = sample_keys(self.record_ids, seed)
        content = np.array([stratum or "" for stratum in self.strata])
        x, y = (rows[content[rows] != ""] for rows in (a, b))
        found = match(content[x], content[y], keys[x], keys[y])
        return (x[found.x], y[found.y]) if found.rows >= least else (a, b)

    def save(self, path: Path) -> None:
        """Writes it whole as one Parquet file."""
        columns: dict[str, Any] = {
            "record_id": self.record_ids,
            "group": self.groups,
            "label": pa.array(self.labels, pa.string()),
            "statistics": _lists(self.statistics),
        }
        if self.strata is not None:
            columns["stratum"] = pa.array(self.strata, pa.string())
        if self.vectors is not None:
            columns["vector"] = _lists(self.vectors)
        staged = path.with_suffix(".staged")
        pq.write_table(pa.table(columns), staged)
        staged.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Sample":
        """Reads what ``save`` wrote."""
        table = pq.read_table(path)
        texts = {
            name: table.column(name).to_pylist()
            for name in ("record_id", "group", "label", "stratum")
            if name in table.column_names
        }
        return cls(
            texts["record_id"],
            texts["group"],
            texts["label"],
            texts.get("stratum"),
            _matrix(table, "statistics"),
            _matrix(table, "vector") if "vector" in table.column_names else None,
        )


def _lists(values: npt.NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _matrix(table: pa.Table, name: str) -> npt.NDArray[Any]:
    column = table.column(name).combine_chunks()
    found: npt.NDArray[Any] = column.flatten().to_numpy().reshape(len(column), -1)
    return found
