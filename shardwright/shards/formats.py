"""The formats of shard files by name: how large a sample is in each, and how files are written.

All hold the same samples in the same order: a missing text is the empty text, and a sample's place
in its file is its ``position``. Packages add formats, see ``added``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shardwright.errors import DataError
from shardwright.metadata.files import sha256_file
from shardwright.shards import mds, parquet, tar
from shardwright.shards.added import AddedFormat, added_format
from shardwright.shards.mds import ShardFile

Order: TypeAlias = NDArray[np.int64] | None


@dataclass(frozen=True)
class ShardFormat:
    """How samples become files of one format.

    Attributes:
        name: As in the recipe and in the list of files.
        suffix: What the names of its files end on.
        size_sql: (schema, lengths) -> SQL (DuckDB) over rows of the schema for the bytes that each
            adds to its file; ``lengths`` holds SQL for the byte lengths of columns that are better
            not read. Never too small.
        overhead: (schema, size limit) -> bytes of a file without samples.
        write: (path, samples, schema, size limit, order) -> the written file.
        write_index: (folder, files, schema, size limit) -> the files that were written beside.
    """

    name: str
    suffix: str
    size_sql: Callable[[pa.Schema, Mapping[str, str]], str]
    overhead: Callable[[pa.Schema, int], int]
    write: Callable[[Path, pa.Table, pa.Schema, int, Order], ShardFile]
    write_index: Callable[[Path, Sequence[ShardFile], pa.Schema, int], tuple[Path, ...]]

    def basename(self, shard: int) -> str:
        """Name of a shard's file in the folder of its split."""
        return f"shard.{shard:05d}{self.suffix}"


def _mds_size(schema: pa.Schema, lengths: Mapping[str, str]) -> str:
    columns = mds.columns_for(schema)
    layout = mds.sample_layout(columns)
    measure = {"str": "strlen", "bytes": "octet_length"}
    terms = [
        lengths.get(name) or f'coalesce({measure[columns[name]]}("{name}"), 0)'
        for name in layout.variable
    ]
    return " + ".join([str(layout.fixed), *terms])


def _mds_index(
    folder: Path, files: Sequence[ShardFile], schema: pa.Schema, size_limit: int
) -> tuple[Path, ...]:
    index = folder / mds.INDEX
    mds.write_index(index, files, mds.columns_for(schema), size_limit)
    return (index,)


def _no_index(*_: object) -> tuple[Path, ...]:
    return ()


FORMATS: Final[Mapping[str, ShardFormat]] = {
    known.name: known
    for known in (
        ShardFormat(
            "mds",
            ".mds",
            _mds_size,
            lambda schema, limit: mds.shard_overhead(mds.columns_for(schema), limit),
            lambda path, table, schema, limit, order: mds.write_shard(
                path, table, mds.columns_for(schema), limit, order
            ),
            _mds_index,
        ),
        ShardFormat(
            "webdataset",
            ".tar",
            tar.size_sql,
            lambda schema, limit: tar.shard_overhead(),
            lambda path, table, schema, limit, order: tar.write_shard(path, table, schema, order),
            _no_index,
        ),
        ShardFormat(
            "parquet",
            ".parquet",
            parquet.size_sql,
            lambda schema, limit: parquet.shard_overhead(schema),
            lambda path, table, schema, limit, order: parquet.write_shard(
                path, table, schema, order
            ),
            _no_index,
        ),
    )
}


def shard_format(name: str) -> ShardFormat:
    """A format by its name: one that ships, or one that a package adds.

    Raises:
        UserError: There is none of this name, or two.
    """
    return FORMATS[name] if name in FORMATS else _from_added(name, added_format(name))


def _from_added(name: str, own: AddedFormat) -> ShardFormat:
    def write(
        path: Path, table: pa.Table, schema: pa.Schema, limit: int, order: Order
    ) -> ShardFile:
        samples = table.select(schema.names)
        own.write(path, _filled(samples if order is None else samples.take(order)))
        size = path.stat().st_size
        if size > limit and samples.num_rows > 1:
            raise DataError(
                f"{path}: {samples.num_rows} samples take {size} bytes as {name!r}, above "
                f"shards.size {limit}: its size_sql or overhead promises too little"
            )
        return ShardFile(path.name, samples.num_rows, size, sha256_file(path))

    return ShardFormat(
        name, own.suffix, own.size_sql, lambda schema, limit: own.overhead(schema), write, _no_index
    )


def _filled(samples: pa.Table) -> pa.Table:
    """The samples with empty texts in place of missing ones."""
    for place, field in enumerate(samples.schema):
        if field.type in (pa.string(), pa.large_string()):
            whole = pc.fill_null(samples.column(place), pa.scalar("", field.type))
            samples = samples.set_column(place, field.with_nullable(False), whole)
    return samples
