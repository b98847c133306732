"""A finished curation as a notebook sees it: tables, queries, metadata."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from shardwright.metadata.layout import TABLES, Layout, complete, opened
from shardwright.metadata.manifest import MANIFEST, Manifest
from shardwright.metadata.query import query
from shardwright.metadata.tables import read_part


@dataclass(frozen=True)
class Table:
    """One committed table; reads nothing until asked to."""

    manifest: Manifest

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema."""
        return self.manifest.schema

    def __len__(self) -> int:
        return self.manifest.rows

    def dataset(self) -> pyarrow.dataset.Dataset:
        """The table as a pyarrow dataset, for filters and projections."""
        files = [str(path) for path in self.manifest.files()]
        return pyarrow.dataset.dataset(files, schema=self.schema, format="parquet")

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Streams the rows in order, in bounded memory."""
        for part in self.manifest.parts():
            yield from read_part(self.manifest, part, columns)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole table in memory, its rows in order."""
        chosen = None if columns is None else list(columns)
        return self.dataset().to_table(columns=chosen)


class _Tables(Mapping[str, Table]):
    """Committed tables by name, each manifest read when it is asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __getitem__(self, name: str) -> Table:
        manifest = self._layout.manifest(name) if name in TABLES else None
        if manifest is None:
            raise KeyError(f"{name}: no such table here; there are {', '.join(self)}")
        return Table(manifest)

    def __iter__(self) -> Iterator[str]:
        return (name for name in TABLES if (self._layout.table(name) / MANIFEST).exists())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<tables {', '.join(self)}>"


@dataclass(frozen=True)
class Curation:
    """What ``shardwright.open`` gives.

    Attributes:
        root: The output folder.
    """

    root: Path

    @cached_property
    def _layout(self) -> Layout:
        return Layout(self.root)

    @property
    def tables(self) -> Mapping[str, Table]:
        """The committed tables by name."""
        return _Tables(self._layout)

    def sql(self, text: str) -> pa.Table:
        """Answers one read-only query with DuckDB over the tables.

        Raises:
            UserError: The query is wrong or would do more than read.
        """
        return query(self._layout, text)

    @property
    def croissant(self) -> dict[str, Any]:
        """The Croissant metadata.

        Raises:
            DataError: The curation did not run to its end.
        """
        complete(self._layout)
        metadata: dict[str, Any] = json.loads(self._layout.croissant.read_bytes())
        return metadata


def open_curation(folder: str | Path) -> Curation:
    """Opens an output folder.

    Raises:
        UserError: There is no such folder, or it holds no table.
    """
    return Curation(opened(Path(folder)).root)
