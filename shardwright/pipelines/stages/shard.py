"""``shard``: the kept records in global random order, as shard files and whole as ``curated``.

Where every record goes is decided first, from narrow columns alone: its split and its order by
keyed hashes, its shard by a cut of the ordered sizes. Then contents move twice: each worker reads
its part of ``records``, writes its part of ``curated`` and the samples grouped by shard (a bucketed
table); and for each shard a worker reads its row group of every part and writes the file. Shard
files in which no record came, went or moved stay, and so do parts of ``curated``.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shardwright.metadata.bucketed import list_bucketed, open_listed, write_bucketed
from shardwright.metadata.catalog import connect
from shardwright.metadata.filelist import ListedFile, read_file_list, write_file_list
from shardwright.metadata.files import fingerprint, sha256_file
from shardwright.metadata.manifest import Manifest, Origin, Part, write_manifest
from shardwright.metadata.schemas import SHARDS, curated
from shardwright.metadata.tables import read_batches, write_empty
from shardwright.pipelines.jobs import Job, Output, Task, place, remove_unnamed
from shardwright.pipelines.masking import mask_found
from shardwright.pipelines.placement import assign, sample_schema, taken_out
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run
from shardwright.pipelines.tokenising import write_tokens
from shardwright.pipelines.unchanged import Unchanged, find_unchanged, forget_places
from shardwright.shards.formats import shard_format
from shardwright.shards.mds import ShardFile

VERSION = "1"
# Samples that a worker groups by shard at a time; a part larger than this leaves several files.
_GROUPED_BYTES = 64_000_000


@dataclass(frozen=True)
class GroupPart:
    """Writes a part's kept records to ``curated``, and its samples grouped by shard.

    Attributes:
        modality: Of the records.
        first_bucket: Bucket of each split's shard 0.
        written: Buckets of the shards that are written; samples of others are left out.
        masked: Filters that mask.
    """

    modality: str
    first_bucket: dict[str, int]
    written: tuple[int, ...]
    masked: tuple[str, ...]

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]``, in step with its parts of other tables."""
        if payload["shards"] is None:
            return
        places = pa.Table.from_batches(read_batches(Path(payload["shards"])), SHARDS)
        starts = [self.first_bucket[split] for split in places.column("split").to_pylist()]
        buckets = places.column("shard").to_numpy() + np.array(starts, np.int32)
        wanted = np.isin(buckets, self.written)
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
            samples = samples.append_column(pa.field("position", pa.int32()), position)
            chosen = wanted[done : done + len(keep)]
            done += len(keep)
            if not chosen.all():
                samples = samples.filter(pa.array(chosen))
            held.append(samples)
            held_bytes += samples.nbytes
            if held_bytes >= _GROUPED_BYTES:
                self._flush(output, held, buckets[flushed:done][wanted[flushed:done]])
                held, held_bytes, flushed = [], 0, done
        if wanted[flushed:done].any():
            self._flush(output, held, buckets[flushed:done][wanted[flushed:done]])
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
    for row, record_id in enumerate(ids):
        if first < len(kept) and kept[first] == record_id:
            places.append(row)
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
        kind = shard_format(self.format)
        path = output.file(kind.suffix)
        shard = kind.write(path, table, sample_schema(self.modality), self.size, order)
        output.result = asdict(replace(shard, basename=kind.basename(payload["shard"])))


def run_shard(run: Run, progress: StageProgress) -> None:
    """Runs the stage: the shards, and the sequences of tokens where they are asked for."""
    _write_shards(run, progress)
    write_tokens(run, progress)


def _write_shards(run: Run, progress: StageProgress) -> None:
    started = time.time()
    layout, settings = run.layout, run.recipe.shards
    records_table = layout.need("records", "ingest")
    decisions = layout.need("decisions", "prune")
    gone = taken_out(run)
    shards = assign(run, VERSION, records_table, decisions, gone)
    parameters, inputs = settings.parameters(), [records_table, shards]
    scores = None
    if run.recipe.masked:
        parameters["masked"] = list(run.recipe.masked)
        scores = layout.need("filter_scores", "filter")
        inputs.append(scores)
    if gone:
        parameters["taken_out"] = gone
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
        forget_places(run)
        return
    same = find_unchanged(run, shards, origin)
    buckets = _buckets(run)
    first = _first_buckets(buckets)
    written = [bucket for bucket in buckets if bucket[:2] not in same.files]
    progress.parts = progress.reused = len(same.parts) + len(buckets) - len(written)
    numbers = tuple(first[split] + shard for split, shard, _ in written)
    rows = _row_fingerprints(run, records_table, shards, scores)
    job = fingerprint(work=work, written=numbers)
    grouping = run.plan(
        "group",
        {"curated": curated(run.recipe.modality)},
        _group_tasks(records_table, shards, scores, job, rows, same),
        staged_only=True,
    )
    group = GroupPart(run.recipe.modality, first, numbers, run.recipe.masked)
    run.execute("shard", grouping, group, progress)
    writing = run.plan(
        "write", {}, _write_tasks(written, numbers, work, settings.size), staged_only=True
    )
    if writing.todo:
        names = [name for _, left in grouping.results() for name in left.get("files", ())]
        files = [grouping.folder / name for name in names]
        listing = list_bucketed(files, len(written), grouping.folder)
        work_on = WriteShard(run.recipe.modality, settings.format, settings.size, listing)
        run.execute("shard", writing, work_on, progress)
    run.incomplete()
    origin = replace(origin, ended=time.time())
    _commit_shards(run, writing, buckets, same, work, origin)
    _commit_curated(run, grouping, rows, same, origin)
    shutil.rmtree(grouping.folder)
    shutil.rmtree(writing.folder)
    forget_places(run)


def _buckets(run: Run) -> list[tuple[str, int, int]]:
    """(split, shard, samples) of every shard, in the recipe's order of splits."""
    order = {split: place for place, split in enumerate(run.recipe.shards.split)}
    with connect(run.layout, tables=["shards"]) as connection:
        rows = connection.execute(
            "SELECT split, shard, count(*) FROM shards GROUP BY split, shard"
        ).fetchall()
    return sorted(rows, key=lambda row: (order[row[0]], row[1]))


def _first_buckets(buckets: list[tuple[str, int, int]]) -> dict[str, int]:
    """Bucket of each split's shard 0; a shard that lost all its records leaves its bucket empty."""
    first, count = {}, 0
    for split, shards in groupby(buckets, key=lambda bucket: bucket[0]):
        first[split] = count
        count += max(shard for _, shard, _ in shards) + 1
    return first


def _row_fingerprints(
    run: Run, records_table: Manifest, shards: Manifest, scores: Manifest | None
) -> dict[str, str]:
    """Hash of what decides the rows of each part of ``curated``, by key, in the order of parts.

    What else a task writes beside its part depends on the files that are there; its rows do not.
    """
    places = {part.key: part.sha256 for part in shards.parts()}
    found = {} if scores is None else {part.key: part.sha256 for part in scores.parts()}
    masked = list(run.recipe.masked)
    return {
        part.key: fingerprint(
            version=VERSION,
            masked=masked,
            records=part.sha256,
            shards=places[part.key],
            scores=found.get(part.key),
        )
        for part in records_table.parts()
        if part.key != "empty"
    }


def _group_tasks(
    records_table: Manifest,
    shards: Manifest,
    scores: Manifest | None,
    job: str,
    rows: dict[str, str],
    same: Unchanged,
) -> Iterator[Task]:
    places = {part.key: part for part in shards.parts()}
    measured = {} if scores is None else {part.key: part for part in scores.parts()}
    for part in records_table.parts():
        if part.key == "empty" or part.key in same.parts:
            continue
        placed, found = places[part.key], measured.get(part.key)
        yield Task(
            part.key,
            fingerprint(job=job, rows=rows[part.key]),
            {
                "records": None if part.file is None else str(records_table.folder / part.file),
                "shards": None if placed.file is None else str(shards.folder / placed.file),
                "scores": None
                if scores is None or found is None or found.file is None
                else str(scores.folder / found.file),
            },
            part.bytes,
        )


def _write_tasks(
    written: Sequence[tuple[str, int, int]], numbers: Sequence[int], work: str, size: int
) -> Iterator[Task]:
    for (split, shard, _), bucket in zip(written, numbers, strict=True):
        yield Task(
            f"{split}-{shard:05d}",
            fingerprint(job=work, split=split, shard=shard),
            {"bucket": bucket, "shard": shard},
            size,
        )


def _commit_shards(
    run: Run,
    job: Job,
    buckets: list[tuple[str, int, int]],
    same: Unchanged,
    work: str,
    origin: Origin,
) -> None:
    """Moves the shard files into place, writes what indexes each split, and the list of all."""
    root, settings = run.layout.shards, run.recipe.shards
    kind, schema = shard_format(settings.format), sample_schema(run.recipe.modality)
    root.mkdir(parents=True, exist_ok=True)
    (root / "_manifest.json").unlink(missing_ok=True)
    for index in root.glob("*/index.json"):
        index.unlink()
    made = job.results()
    by_split: dict[str, list[ShardFile]] = {}
    for split, number, samples in buckets:
        stays = same.files.get((split, number))
        if stays is not None:
            name = stays.path.rpartition("/")[2]
            shard = ShardFile(name, stays.rows, stays.bytes, stays.sha256)
        else:
            task, result = next(made)
            shard = ShardFile(**result)
            (root / split).mkdir(exist_ok=True)
            staged = job.folder / f"{task.name}{kind.suffix}"
            staged.replace(root / split / shard.basename)
        if shard.samples != samples:
            raise AssertionError(
                f"{split}/{shard.basename}: {shard.samples} samples, not {samples}"
            )
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


def _commit_curated(
    run: Run, job: Job, rows: dict[str, str], same: Unchanged, origin: Origin
) -> None:
    """Commits ``curated``: the parts that were written, and those that stay."""
    folder, schema = run.layout.table("curated"), curated(run.recipe.modality)
    folder.mkdir(parents=True, exist_ok=True)
    made = {task.key: Part(**job.sidecar(task)["parts"]["curated"]) for task in job.tasks}
    parts = [
        replace(
            same.parts.get(key) or place(made[key], job.folder / "curated", folder),
            fingerprint=rows[key],
        )
        for key in rows
    ]
    if not any(part.rows for part in parts):
        parts.insert(0, write_empty(folder / "part-empty.parquet", schema, "empty", ""))
    remove_unnamed(write_manifest(folder, "curated", schema, origin, parts))
