"""DuckDB over the tables: one view per table, over the files that its manifest names."""

import glob
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from shardwright.errors import DataError
from shardwright.metadata.connection import Connection
from shardwright.metadata.files import write_whole
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.memory import share
from shardwright.metadata.views import VIEWS
from shardwright.metadata.vocabulary import TABLES as TABLE_MEANINGS

CATALOG = "catalog.duckdb"
CATALOG_SQL = "catalog.sql"


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def file_literal(path: Path, at: str = "") -> str:
    """A file's path as SQL text; DuckDB takes it for a pattern, so such signs are escaped."""
    return quoted(glob.escape(at + path.as_posix()))


def scan(
    manifest: Manifest, *, positions: bool = False, base: Path | None = None, at: str = ""
) -> str:
    """A ``read_parquet`` call over a table's files.

    Args:
        manifest: The table.
        positions: Adds ``filename`` and ``file_row_number``.
        base: Writes the paths relative to this folder.
        at: What stands before them, such as the address of a store.
    """
    paths = manifest.files()
    if base is not None:
        paths = [path.relative_to(base) for path in paths]
    return scan_files(paths, positions=positions, at=at)


def scan_files(paths: Iterable[Path], *, positions: bool = False, at: str = "") -> str:
    """A ``read_parquet`` call over files; arguments as above."""
    files = ", ".join(file_literal(path, at) for path in paths)
    extra = ", filename = true, file_row_number = true" if positions else ""
    return f"read_parquet([{files}], hive_partitioning = false{extra})"


def view_columns(schema: pa.Schema) -> str:
    """Select list of a table's view: as stored, vectors cast to their fixed size."""
    columns = []
    for field in schema:
        name = f'"{field.name}"'
        if field.name == "vector" and pa.types.is_fixed_size_list(field.type):
            columns.append(f"{name}::FLOAT[{field.type.list_size}] AS {name}")
        else:
            columns.append(name)
    return ", ".join(columns)


def table_views(
    layout: Layout, base: Path | None = None, tables: Collection[str] = TABLES
) -> Iterator[tuple[str, str]]:
    """Yields (table, query of its view) for the committed tables.

    Args:
        layout: The output folder.
        base: Writes the paths of the files relative to this folder.
        tables: Leaves out all others.
    """
    at = ""
    if base is None and layout.url is not None:
        base, at = layout.root, f"{layout.url}/"
    for name in tables:
        manifest = layout.manifest(name)
        if manifest is not None:
            columns, files = view_columns(manifest.schema), scan(manifest, base=base, at=at)
            yield manifest.table, f"SELECT {columns} FROM {files}"


def view_statements(
    layout: Layout, base: Path | None = None, tables: Collection[str] = TABLES
) -> Iterator[tuple[str, str]]:
    """Yields (view, statement that makes it) for what ``table_views`` gives and the views over it.

    Args: As ``table_views``.
    """
    present = set()
    for table, query in table_views(layout, base, tables):
        present.add(table)
        yield table, f"CREATE OR REPLACE VIEW {table} AS {query}"
    for view in VIEWS:
        derived = view.query(present)
        if derived is not None:
            yield view.name, f"CREATE OR REPLACE VIEW {view.name} AS {derived}"


@contextmanager
def connect(
    layout: Layout, memory: str | None = None, tables: Collection[str] = TABLES
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB with the views of the catalog; spills below the output's staging.

    Args:
        layout: The output folder.
        memory: DuckDB's memory limit; without one, what a run's limit leaves it.
        tables: Makes no view of any other table.

    Raises:
        DataError: A manifest or a file that it names is missing or damaged.
    """
    with without_views(layout, memory) as connection:
        for view, statement in view_statements(layout, tables=tables):
            create(connection, view, statement)
        yield connection


@contextmanager
def without_views(layout: Layout, memory: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB without a view; spills below the output's staging."""
    with _spill_folder(layout) as spill:
        connection = duckdb.connect(
            config={
                "memory_limit": memory or f"{share()}B",
                "temp_directory": str(spill),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            }
        )
        try:
            connection.execute("SET preserve_insertion_order = true")
            if layout.url is not None:
                connection.register_filesystem(Connection(layout.url).files)
            yield connection
        finally:
            connection.close()


def create(connection: duckdb.DuckDBPyConnection, view: str, statement: str) -> None:
    """Makes a view.

    Raises:
        DataError: A file that it reads is missing or damaged.
    """
    try:
        connection.execute(statement)
    except duckdb.Error as error:
        problem = str(error).splitlines()[0]
        raise DataError(f"table {view}: {problem}; shardwright verify names every fault") from None


@contextmanager
def _spill_folder(layout: Layout) -> Iterator[Path]:
    """Where DuckDB spills: beside the tables, or elsewhere when those cannot be written to."""
    spill = layout.staging("duckdb")
    try:
        spill.mkdir(parents=True, exist_ok=True)
        writable = os.access(spill, os.W_OK)
    except OSError:
        writable = False
    if writable:
        yield spill
        return
    with tempfile.TemporaryDirectory(prefix="shardwright-") as temporary:
        yield Path(temporary)


def name_parts(
    connection: duckdb.DuckDBPyConnection, *tables: Manifest, name: str = "part_files"
) -> None:
    """Makes a relation (filename, part): which part each file is, counted through all tables."""
    parts = enumerate((table, part) for table in tables for part in table.parts())
    places = [
        (str(table.folder / part.file), place)
        for place, (table, part) in parts
        if part.file is not None
    ]
    name_files(connection, name, places)


def name_files(
    connection: duckdb.DuckDBPyConnection, name: str, places: Sequence[tuple[str, int]]
) -> None:
    """Makes a relation (filename, part) of these pairs."""
    files, parts = [file for file, _ in places], [part for _, part in places]
    listed = pa.table(
        {"filename": pa.array(files, pa.string()), "part": pa.array(parts, pa.int32())}
    )
    connection.register("listed", listed)
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS FROM listed")
    connection.unregister("listed")


def write_catalog(layout: Layout) -> None:
    """Writes ``catalog.duckdb``, views over absolute paths, and ``catalog.sql``, which remakes it.

    ``catalog.sql`` names files relative to the output folder and is the same for equal tables.
    """
    write_whole(layout.root / CATALOG_SQL, catalog_sql(layout))
    here = Layout(layout.root.absolute())
    # Made elsewhere: DuckDB reads a '?' in the path of a database as the start of options.
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / CATALOG
        with duckdb.connect(str(made)) as connection:
            for view, statement in view_statements(here):
                connection.execute(statement)
                connection.execute(_comment(view))
        write_whole(here.root / CATALOG, made.read_bytes())


def catalog_sql(layout: Layout) -> str:
    """The statements that make the catalog's views, for a DuckDB that runs in the output folder."""
    lines = [
        "-- Views over the tables of this folder. From within it:",
        "--   duckdb catalog.duckdb < catalog.sql",
    ]
    for view, statement in view_statements(layout, layout.root):
        lines += ["", f"{statement};", f"{_comment(view)};"]
    return "\n".join(lines) + "\n"


def _comment(view: str) -> str:
    means = TABLE_MEANINGS | {derived.name: derived.meaning for derived in VIEWS}
    return f"COMMENT ON VIEW {view} IS {quoted(means[view])}"
