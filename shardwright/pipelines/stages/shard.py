"""``shard``: the kept records in global random order, as shard files and whole as ``curated``.

Where every record goes is decided first, from narrow columns alone: its split and its order by
keyed hashes, its shard by a cut of the ordered sizes. Then contents move twice: each worker reads
its part of ``records``, writes its part of ``curated`` and the samples grouped by shard (a bucketed
table); and for each shard a worker reads its row group of every part and writes the file.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shardwright.metadata.bucketed import list_bucketed, open_listed, write_bucketed
from shardwright.metadata.catalog import connect
from shardwright.metadata.filelist import ListedFile, read_file_list, write_file_list
from shardwright.metadata.files import fingerprint, sha256_file
from shardwright.metadata.manifest import Manifest, Origin
from shardwright.metadata.schemas import SHARDS, curated
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.jobs import Job, Output, Task, commit_job
from shardwright.pipelines.masking import mask_found
from shardwright.pipelines.placement import assign, sample_schema
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run
from shardwright.shards.formats import FORMATS
from shardwright.shards.mds import ShardFile

VERSION = "1"
# Samples that a worker groups by shard at a time; a part larger than this leaves several files.
_GROUPED_BYTES = 64_000_000


@dataclass(frozen=True)
class GroupPart:
    """Writes a part's kept records to ``curated``, and its samples grouped by shard."""

    modality: str
    first_bucket: dict[str, int]
    masked: tuple[str, ...]

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]``, in step with its parts of other tables."""
        if payload["shards"] is None:
            return
        places = pa.Table.from_batches(read_batches(Path(payload["shards"])), SHARDS)
        starts = [self.first_bucket[split] for split in places.column("split").to_pylist()]
        buckets = places.column("shard").to_numpy() + np.array(starts, np.int32)
        kept_ids = places.column("record_id").to_pylist()
        schema = curated(self.modality)
        held: list[pa.RecordBatch] = []
        held_bytes = done = flushed = 0
        found = self._found(payload)
        for batch in read_batches(Path(payload["records"]), rows=256):
            if self.masked:
                batch = mask_found(batch, next(found), self.masked)
            ids = batch.column("record_id").to_pylist()
            keep = _in_order(ids, kept_ids, done)
            if not keep:
                continue
            if len(keep) < batch.num_rows:
                batch = batch.take(pa.array(keep))
            here = places.slice(done, len(keep))
            split = here.column("split").combine_chunks()
            output.write(
                "curated", pa.RecordBatch.from_arrays([*batch.columns, split], schema=schema)
            )
            samples = batch.select(sample_schema(self.modality).names)
            position = here.column("position").combine_chunks()
            held.append(samples.append_column(pa.field("position", pa.int32()), position))
            held_bytes += samples.nbytes
            done += len(keep)
            if held_bytes >= _GROUPED_BYTES:
                self._flush(output, held, buckets[flushed:done])
                held, held_bytes, flushed = [], 0, done
        if held:
            self._flush(output, held, buckets[flushed:done])
        if done != len(kept_ids):
            raise AssertionError(f"{payload['records']}: {len(kept_ids) - done} kept rows missing")

    def _found(self, payload: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        """What the masking filters counted, in step with the records."""
        if self.masked:
            yield from read_batches(Path(payload["scores"]), self.masked, rows=256)

    def _flush(
        self, output: Output, held: list[pa.RecordBatch], buckets: np.ndarray[Any, Any]
    ) -> None:
        files = output.result.setdefault("files", [])
        path = output.file(f".{len(files)}.samples.parquet")
        write_bucketed(path, pa.Table.from_batches(held), buckets.astype(np.int32))
        files.append(path.name)


def _in_order(ids: list[str], kept: list[str], first: int) -> list[int]:
    """Places in ``ids`` of the next kept ids, which stand in the same order."""
    places = []
    for place, record_id in enumerate(ids):
        if first < len(kept) and kept[first] == record_id:
            places.append(place)
            first += 1
    return places


@dataclass(frozen=True)
class WriteShard:
    """Gathers one shard's samples from every part and writes its file."""

    modality: str
    format: str
    size: int
    grouped: Path

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Writes shard number ``payload["shard"]`` of its split."""
        table = open_listed(self.grouped).read(payload["bucket"])
        order = np.argsort(table.column("position").to_numpy(), kind="stable")
        kind = FORMATS[self.format]
        path = output.file(kind.suffix)
        shard = kind.write(path, table, sample_schema(self.modality), self.size, order)
        output.result = asdict(replace(shard, basename=kind.basename(payload["shard"])))


def run_shard(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    started = time.time()
    layout, settings = run.layout, run.recipe.shards
    records_table = layout.need("records", "ingest")
    decisions = layout.need("decisions", "prune")
    shards = assign(run, VERSION, records_table, decisions)
    parameters, inputs = settings.model_dump(mode="json"), [records_table, shards]
    scores = None
    if run.recipe.masked:
        parameters["masked"] = list(run.recipe.masked)
        scores = layout.need("filter_scores", "filter")
        inputs.append(scores)
    origin = run.origin("shard", VERSION, parameters, inputs, started)
    work = fingerprint(version=VERSION, parameters=parameters, inputs=origin.inputs)
    progress.records, progress.bytes = shards.rows, records_table.bytes
    listed, table = read_file_list(layout.shards), layout.manifest("curated")
    if (
        listed is not None
        and listed.fingerprint == work
        and table is not None
        and table.origin.same_work(origin)
        and all((layout.shards / file.path).exists() for file in listed.files)
        and all(path.exists() for path in table.files())
        and not run.force
    ):
        progress.parts = progress.reused = table.count + len(listed.files)
        for job in ("group", "write"):  # what a run left that was cut off behind its commit
            shutil.rmtree(layout.staging(job), ignore_errors=True)
        return
    buckets = _buckets(run)
    first = {split: bucket for bucket, (split, shard, _) in enumerate(buckets) if shard == 0}
    grouping = run.plan(
        "group",
        {"curated": curated(run.recipe.modality)},
        _group_tasks(records_table, shards, scores, work),
        staged_only=True,
    )
    run.execute(
        "shard", grouping, GroupPart(run.recipe.modality, first, run.recipe.masked), progress
    )
    writing = run.plan("write", {}, _write_tasks(buckets, work, settings.size), staged_only=True)
    if writing.todo:
        names = [name for _, left in grouping.results() for name in left.get("files", ())]
        files = [grouping.folder / name for name in names]
        listing = list_bucketed(files, len(buckets), grouping.folder)
        work_on = WriteShard(run.recipe.modality, settings.format, settings.size, listing)
        run.execute("shard", writing, work_on, progress)
    run.incomplete()
    _commit_shards(run, writing, buckets, work, replace(origin, ended=time.time()))
    commit_job(grouping, replace(origin, ended=time.time()))
    shutil.rmtree(grouping.folder)
    shutil.rmtree(writing.folder)


def _buckets(run: Run) -> list[tuple[str, int, int]]:
    """(split, shard, samples) of every shard, in the recipe's order of splits."""
    order = {split: place for place, split in enumerate(run.recipe.shards.split)}
    with connect(run.layout, tables=["shards"]) as connection:
        rows = connection.execute(
            "SELECT split, shard, count(*) FROM shards GROUP BY split, shard"
        ).fetchall()
    return sorted(rows, key=lambda row: (order[row[0]], row[1]))


def _group_tasks(
    records_table: Manifest, shards: Manifest, scores: Manifest | None, work: str
) -> Iterator[Task]:
    places = {part.key: part for part in shards.parts()}
    measured = {} if scores is None else {part.key: part for part in scores.parts()}
    for part in records_table.parts():
        if part.key == "empty":
            continue
        place, found = places[part.key], measured.get(part.key)
        yield Task(
            part.key,
            fingerprint(job=work, records=part.sha256, shards=place.sha256),
            {
                "records": None if part.file is None else str(records_table.folder / part.file),
                "shards": None if place.file is None else str(shards.folder / place.file),
                "scores": None
                if scores is None or found is None or found.file is None
                else str(scores.folder / found.file),
            },
            part.bytes,
        )


def _write_tasks(buckets: list[tuple[str, int, int]], work: str, size: int) -> Iterator[Task]:
    for bucket, (split, shard, _) in enumerate(buckets):
        yield Task(
            f"{split}-{shard:05d}",
            fingerprint(job=work, split=split, shard=shard),
            {"bucket": bucket, "shard": shard},
            size,
        )


def _commit_shards(
    run: Run, job: Job, buckets: list[tuple[str, int, int]], work: str, origin: Origin
) -> None:
    """Moves the shard files into place, writes what indexes each split, and the list of all."""
    root, settings = run.layout.shards, run.recipe.shards
    kind, schema = FORMATS[settings.format], sample_schema(run.recipe.modality)
    root.mkdir(parents=True, exist_ok=True)
    (root / "_manifest.json").unlink(missing_ok=True)
    for index in root.glob("*/index.json"):
        index.unlink()
    by_split: dict[str, list[ShardFile]] = {}
    for (split, _, samples), (task, result) in zip(buckets, job.results(), strict=True):
        shard = ShardFile(**result)
        if shard.samples != samples:
            raise AssertionError(
                f"{split}/{shard.basename}: {shard.samples} samples, not {samples}"
            )
        (root / split).mkdir(exist_ok=True)
        staged = job.folder / f"{task.name}{kind.suffix}"
        staged.replace(root / split / shard.basename)
        by_split.setdefault(split, []).append(shard)
    files: list[ListedFile] = []
    for split, shards in by_split.items():
        files += [
            ListedFile(f"{split}/{s.basename}", s.bytes, s.sha256, s.samples, kind.name)
            for s in shards
        ]
        for path in kind.write_index(root / split, shards, schema, settings.size):
            name = f"{split}/{path.name}"
            files.append(ListedFile(name, path.stat().st_size, sha256_file(path), 0, "json"))
    named = {root / file.path for file in files}
    for path in list(root.glob("*/*")):
        if path not in named:
            path.unlink()
    for folder in list(root.glob("*/")):
        if not any(folder.iterdir()):
            folder.rmdir()
    write_file_list(root, work, origin, files)
