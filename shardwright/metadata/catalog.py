"""DuckDB over the tables: one view per table, over the files that its manifest names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def scan(manifest: Manifest, *, positions: bool = False) -> str:
    """A ``read_parquet`` call over a table's files.

    Args:
        manifest: The table.
        positions: Adds ``filename`` and ``file_row_number``.
    """
    files = ", ".join(quoted(str(path)) for path in manifest.files())
    extra = ", filename = true, file_row_number = true" if positions else ""
    return f"read_parquet([{files}], hive_partitioning = false{extra})"


def view_columns(schema: pa.Schema) -> str:
    """Select list of a table's view: as stored, vectors cast to their fixed size."""
    columns = []
    for field in schema:
        name = f'"{field.name}"'
        if pa.types.is_fixed_size_list(field.type):
            columns.append(f"{name}::FLOAT[{field.type.list_size}] AS {name}")
        else:
            columns.append(name)
    return ", ".join(columns)


@contextmanager
def connect(layout: Layout, memory: str = "1GB") -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB with a view per committed table; spills below the output's staging."""
    spill = layout.staging("duckdb")
    spill.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(
        config={
            "memory_limit": memory,
            "temp_directory": str(spill),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    try:
        connection.execute("SET preserve_insertion_order = true")
        for manifest in layout.manifests():
            connection.execute(
                f"CREATE VIEW {manifest.table} AS SELECT {view_columns(manifest.schema)} "
                f"FROM {scan(manifest)}"
            )
        yield connection
    finally:
        connection.close()


def part_files(manifest: Manifest) -> pa.Table:
    """(filename, part): which part each file of a table is, by its place in the manifest."""
    files: list[str] = []
    ordinals: list[int] = []
    for ordinal, part in enumerate(manifest.parts()):
        if part.file is not None:
            files.append(str(Path(manifest.folder) / part.file))
            ordinals.append(ordinal)
    return pa.table({"filename": files, "part": pa.array(ordinals, pa.int32())})
