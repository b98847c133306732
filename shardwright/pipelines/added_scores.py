"""Scores that packages add, for the stage ``score``: live records in, a column for each out.

They run in the driver, over all live records at once: about 100 bytes a record and score are held,
and vectors, where they are asked for, unless they are so many that they are mapped from a file.
"""

import shutil
from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardwright.embeddings.rows import new_rows
from shardwright.metadata.manifest import Manifest
from shardwright.pipelines.alive import alive_parts, live_batches
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import matrix
from shardwright.quality.pruning.added import LiveRecords, added_score
from shardwright.quality.pruning.simple import length_query


def add_scores(
    run: Run, connection: duckdb.DuckDBPyConnection, names: Sequence[str], embeddings: Manifest
) -> None:
    """Makes ``added_scores``: ``record_id`` and a column for each of the named methods.

    Args:
        run: The run.
        connection: With the tables ``records``, ``lookup`` and ``clusters``.
        names: Methods that packages add.
        embeddings: The vectors.
    """
    modality = run.recipe.modality
    lengths = length_query("records", modality)
    rows = connection.sql(
        "SELECT record_id, length::BIGINT AS length, cluster, distance FROM clusters "
        f"JOIN ({lengths}) USING (record_id) JOIN lookup USING (record_id) ORDER BY part, row"
    ).to_arrow_table()
    ids = rows.column("record_id").combine_chunks()
    found = LiveRecords(
        modality,
        ids,
        rows.column("length").to_numpy(),
        rows.column("cluster").to_numpy(),
        rows.column("distance").to_numpy(),
        lambda: _vectors(run, embeddings, ids),
    )
    columns = {name: pa.array(added_score(name, found)) for name in names}
    connection.register("added", pa.table({"record_id": ids, **columns}))
    connection.execute("CREATE OR REPLACE TABLE added_scores AS FROM added")
    connection.unregister("added")
    shutil.rmtree(run.layout.staging("score-added"), ignore_errors=True)


def _vectors(run: Run, embeddings: Manifest, ids: pa.Array) -> npt.NDArray[np.float32]:
    """The vectors of the live records in their order, float32 [n, d]."""
    shape = len(ids), embeddings.schema.field("vector").type.list_size
    scratch = run.layout.staging("score-added") / "vectors.bin"
    vectors = new_rows(shape, np.float32, scratch)
    done = 0
    for part, dropped in alive_parts(run, embeddings, "score"):
        if part.file is None:
            continue
        path = embeddings.folder / part.file
        for batch in live_batches(path, ["record_id", "vector"], dropped, rows=4096):
            here = slice(done, done + batch.num_rows)
            if not batch.column("record_id").equals(ids[here]):
                raise AssertionError(f"{path}: other live records than in clusters")
            vectors[here] = matrix(batch.column("vector"))
            done = here.stop
    if done != len(ids):
        raise AssertionError(f"{embeddings.folder}: {len(ids) - done} vectors are missing")
    vectors.flags.writeable = False
    return vectors
