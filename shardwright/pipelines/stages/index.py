"""``index``: a FAISS index of the live records, with the id of each of its vectors."""

import shutil
import time

import pyarrow as pa

from shardwright.embeddings.index import FlatIndexWriter
from shardwright.metadata.filelist import ListedFile, read_file_list, write_file_list
from shardwright.metadata.files import fingerprint, sha256_file
from shardwright.metadata.tables import PartWriter
from shardwright.pipelines.alive import alive_parts, dropped_since_embed, live_batches
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import matrix

VERSION = "1"
_IDS = pa.schema([pa.field("record_id", pa.string(), nullable=False)])


def run_index(run: Run, progress: StageProgress) -> None:
    """Runs the stage: vectors stream from the parts into the file, none of it is held."""
    layout = run.layout
    if run.recipe.index is None or run.recipe.embedding is None:
        if layout.indexes.exists():
            run.incomplete()
            shutil.rmtree(layout.indexes)
        return
    started = time.time()
    embeddings = layout.need("embeddings", "embed")
    parameters = run.recipe.index.model_dump(mode="json")
    live = list(alive_parts(run, embeddings, "index"))
    rows = embeddings.rows - sum(len(dropped) for _, dropped in live)
    work = fingerprint(
        version=VERSION,
        embeddings=embeddings.content_sha256,
        dropped=[dropped for _, dropped in live],
        **parameters,
    )
    old = read_file_list(layout.indexes)
    progress.records, progress.bytes = rows, embeddings.bytes
    if old is not None and old.fingerprint == work and not run.force:
        progress.parts = progress.reused = 1
        return
    run.incomplete()
    layout.indexes.mkdir(parents=True, exist_ok=True)
    (layout.indexes / "_manifest.json").unlink(missing_ok=True)
    dimension = embeddings.schema.field("vector").type.list_size
    index, ids = layout.indexes / "flat.faiss", layout.indexes / "flat.ids.parquet"
    with FlatIndexWriter(index, dimension) as vectors, PartWriter(ids, _IDS) as names:
        for part, dropped in live:
            if part.file is None:
                continue
            path = embeddings.folder / part.file
            for batch in live_batches(path, ["record_id", "vector"], dropped):
                vectors.add(matrix(batch.column("vector")))
                names.write(batch.select(["record_id"]).cast(_IDS))
        written = names.close("ids", work)
    files = [ListedFile(index.name, index.stat().st_size, sha256_file(index), rows, "faiss")]
    if written.file is not None:
        files.append(ListedFile(ids.name, written.bytes, written.sha256, written.rows, "parquet"))
    inputs = [embeddings, *dropped_since_embed(run, "index")]
    origin = run.origin("index", VERSION, parameters, inputs, started)
    write_file_list(layout.indexes, work, origin, files)
    named = {"_manifest.json", *(file.path for file in files)}
    for path in layout.indexes.iterdir():
        if path.name not in named:  # what a run that was cut off left
            path.unlink()
    progress.parts = 1
