"""Sequences of tokens beside the shards: the last step of the stage ``shard``, where asked for.

It goes as the shards do. Each worker tokenises its part of ``curated``, and leaves how many tokens
each record has (a narrow table) and the tokens grouped by the record's shard (a bucketed table).
The stream of a split is its samples in order, so where each record begins is a running sum over the
narrow table: ``tokens``. Sequences are cut into files by sizes that follow from it; and for each
file a worker reads the buckets that reach into it.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers

from shardwright.errors import DataError, UserError
from shardwright.metadata.bucketed import list_bucketed, open_listed, write_bucketed
from shardwright.metadata.filelist import ListedFile, read_file_list, write_file_list
from shardwright.metadata.files import canonical_json, fingerprint, sha256_file, write_whole
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import MANIFEST, Manifest, Origin
from shardwright.metadata.schemas import SHARDS, TOKENS
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.jobs import Job, Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.sequencing import (
    COLUMNS,
    SequenceFile,
    buckets_of,
    count_tokens,
    first_buckets,
    place_tokens,
    plan_files,
)
from shardwright.shards import mds
from shardwright.shards.formats import FORMATS
from shardwright.shards.packing import SEQUENCES, Documents, pack
from shardwright.shards.tokens import Fim, Tokeniser, TokenizerFile, load_tokenizer

VERSION = "1"
_COUNTS = pa.schema([TOKENS.field("record_id"), TOKENS.field("tokens")])
_GROUPED = pa.schema(
    [
        pa.field("record_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("tokens", pa.large_binary()),
    ]
)
_FORMAT = FORMATS["mds"]
# Tokens that a worker groups at a time, and records that it tokenises at a time.
_GROUPED_BYTES = 64_000_000
_ROWS = 64


def check_tokens(recipe: Recipe) -> TokenizerFile | None:
    """The tokenizer that a recipe asks for, or None.

    Raises:
        UserError: There is no such tokenizer, it lacks a token, or the recipe is of images.
    """
    settings = recipe.shards.tokens
    if settings is None:
        return None
    if recipe.modality != "code":
        raise UserError(f"shards.tokens: {recipe.modality} has no text; set it to null")
    return load_tokenizer(settings.tokenizer, settings.end, fim=settings.fim > 0)


@lru_cache(maxsize=1)
def _tokeniser(path: Path, end: str, sentinels: tuple[str, str, str] | None, fim: Fim) -> Tokeniser:
    """A process builds a tokenizer once."""
    return Tokeniser(TokenizerFile(path.read_text(), end, sentinels), fim)


@dataclass(frozen=True)
class TokenisePart:
    """Tokenises a part's kept records, grouped by shard."""

    tokenizer: Path
    end: str
    sentinels: tuple[str, str, str] | None
    fim: Fim
    first_bucket: dict[str, int]

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["curated"]`` in step with its part of ``shards``."""
        if payload["curated"] is None:
            return
        tokeniser = _tokeniser(self.tokenizer, self.end, self.sentinels, self.fim)
        places = pa.Table.from_batches(read_batches(Path(payload["shards"])), SHARDS)
        starts = [self.first_bucket[split] for split in places.column("split").to_pylist()]
        buckets = (places.column("shard").to_numpy() + np.array(starts, np.int32)).astype(np.int32)
        held: list[pa.RecordBatch] = []
        held_bytes = done = flushed = 0
        for batch in read_batches(Path(payload["curated"]), ["record_id", "content"], rows=_ROWS):
            ids = batch.column("record_id")
            here = places.slice(done, batch.num_rows)
            if ids.to_pylist() != here.column("record_id").to_pylist():
                raise DataError(
                    f"{payload['curated']}: its records are not those of {payload['shards']}; "
                    "run the stage shard again with --force"
                )
            found = tokeniser.encode(ids.to_pylist(), batch.column("content").to_pylist())
            lengths = pa.array([len(tokens) for tokens in found], pa.int32())
            output.write("token_counts", pa.RecordBatch.from_arrays([ids, lengths], schema=_COUNTS))
            blobs = pa.array(
                [tokens.astype("<i4").tobytes() for tokens in found], pa.large_binary()
            )
            position = here.column("position").combine_chunks()
            held.append(pa.RecordBatch.from_arrays([ids, position, blobs], schema=_GROUPED))
            held_bytes += held[-1].nbytes
            done += batch.num_rows
            if held_bytes >= _GROUPED_BYTES:
                _flush(output, held, buckets[flushed:done])
                held, held_bytes, flushed = [], 0, done
        if held:
            _flush(output, held, buckets[flushed:done])
        if done != places.num_rows:
            raise AssertionError(f"{payload['curated']}: {places.num_rows - done} rows missing")


def _flush(output: Output, held: list[pa.RecordBatch], buckets: np.ndarray[Any, Any]) -> None:
    files = output.result.setdefault("files", [])
    path = output.file(f".{len(files)}.tokens.parquet")
    write_bucketed(path, pa.Table.from_batches(held), buckets)
    files.append(path.name)


@dataclass(frozen=True)
class WriteSequences:
    """Gathers the documents of one file's sequences and writes it."""

    length: int
    size: int
    fill: int
    grouped: Path

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Writes sequences ``first`` to ``first + count - 1`` of a split."""
        table = pack(
            payload["split"],
            payload["first"],
            payload["count"],
            self.length,
            self.fill,
            (self._documents(bucket, before) for bucket, before in payload["buckets"]),
        )
        written = mds.write_shard(output.file(_FORMAT.suffix), table, COLUMNS, self.size)
        output.result = asdict(replace(written, basename=_FORMAT.basename(payload["shard"])))

    def _documents(self, bucket: int, before: int) -> Documents:
        table = open_listed(self.grouped).read(bucket)
        table = table.take(np.argsort(table.column("position").to_numpy(), kind="stable"))
        tokens = table.column("tokens").combine_chunks()
        _, offsets, data = tokens.buffers()
        bounds = np.frombuffer(offsets, np.int64)[tokens.offset : tokens.offset + len(tokens) + 1]
        return Documents(
            before,
            table.column("record_id").to_pylist(),
            np.asarray(pc.binary_length(tokens)) // 4,
            np.frombuffer(data, "<i4")[bounds[0] // 4 : bounds[-1] // 4],
        )


def write_tokens(run: Run, progress: StageProgress) -> None:
    """Makes the sequences what the recipe asks for, or takes them away."""
    started = time.time()
    layout, settings, folder = run.layout, run.recipe.shards.tokens, run.layout.sequences
    tokenizer = check_tokens(run.recipe)
    if settings is None or tokenizer is None:
        _drop(run)
        return
    shards, curated = layout.need("shards", "shard"), layout.need("curated", "shard")
    fim = Fim(settings.fim, settings.fim_mode, run.recipe.shards.seed)
    parameters = {
        "length": settings.length,
        "end": tokenizer.end,
        "fim": asdict(fim) if fim.rate else None,
        "tokenizer_sha256": tokenizer.sha256,
        "library": f"tokenizers {tokenizers.__version__}",
    }
    origin = run.origin("shard", VERSION, parameters, [curated, shards], started)
    size = run.recipe.shards.size
    work = fingerprint(version=VERSION, parameters=parameters, inputs=origin.inputs, size=size)
    if not run.force and _is_current(layout, origin, work, progress):
        return
    firsts = first_buckets(layout)
    counting = run.plan(
        "tokenise", {"token_counts": _COUNTS}, _count_tasks(curated, shards, work), staged_only=True
    )
    kept = counting.folder / "tokenizer.json"
    write_whole(kept, tokenizer.json)
    part_work = TokenisePart(kept, tokenizer.end, tokenizer.sentinels, fim, firsts)
    run.execute("shard", counting, part_work, progress)
    sidecars = (counting.sidecar(task)["parts"]["token_counts"]["file"] for task in counting.tasks)
    counted = [counting.folder / "token_counts" / name for name in sidecars if name is not None]
    tokens = commit_query(
        run,
        "shard",
        VERSION,
        {"tokens": (TOKENS, "SELECT part, * EXCLUDE (part, row) FROM placed ORDER BY part, row")},
        parameters=parameters,
        inputs=[curated, shards],
        aligned=shards,
        prepare=lambda connection: place_tokens(connection, counted, shards, settings.length),
    )["tokens"]
    files = plan_files(layout, tokens, firsts, settings.length, size)
    packing = run.plan("pack", {}, _pack_tasks(files, work), staged_only=True)
    if packing.todo:
        names = [name for _, left in counting.results() for name in left.get("files", ())]
        paths = [counting.folder / name for name in names]
        listing = list_bucketed(paths, sum(1 for _ in buckets_of(layout)), counting.folder)
        fill = Tokeniser(tokenizer).end
        run.execute(
            "shard", packing, WriteSequences(settings.length, size, fill, listing), progress
        )
    run.incomplete()
    counts = count_tokens(layout, tokens, settings.length) | {"format": 1, **parameters}
    extra = {"counts.json": canonical_json(counts), "tokenizer.json": tokenizer.json}
    _commit(folder, packing, files, size, work, replace(origin, ended=time.time()), extra)
    progress.details["tokens"] = sum(split["tokens"] for split in counts["splits"].values())
    progress.details["sequences"] = sum(file.count for file in files)
    if tokens.rows != shards.rows:
        raise AssertionError(f"tokens of {tokens.rows} records, not of {shards.rows}")
    shutil.rmtree(counting.folder)
    shutil.rmtree(packing.folder)


def _drop(run: Run) -> None:
    run.drop("tokens")
    folder = run.layout.sequences
    if folder.exists():
        run.incomplete()
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder.parent)
    _clear(run.layout)


def _clear(layout: Layout) -> None:
    """Removes what a run left that was cut off."""
    for job in ("tokenise", "pack", "tokens"):
        shutil.rmtree(layout.staging(job), ignore_errors=True)


def _is_current(layout: Layout, origin: Origin, work: str, progress: StageProgress) -> bool:
    """Whether all is as it would be made; then what a run left that was cut off is cleared."""
    listed, table = read_file_list(layout.sequences), layout.manifest("tokens")
    if listed is None or listed.fingerprint != work:
        return False
    if table is None or not table.origin.same_work(origin):
        return False
    paths = [*table.files(), *(listed.folder / file.path for file in listed.files)]
    if not all(path.exists() for path in paths):
        return False
    progress.parts += len(listed.shards)
    progress.reused += len(listed.shards)
    _clear(layout)
    return True


def _count_tasks(curated: Manifest, shards: Manifest, work: str) -> Iterator[Task]:
    places = {part.key: part for part in shards.parts()}
    for part in curated.parts():
        if part.key != "empty":
            place = places[part.key]
            yield Task(
                part.key,
                fingerprint(job=work, curated=part.sha256, shards=place.sha256),
                {
                    "curated": None if part.file is None else str(curated.folder / part.file),
                    "shards": None if place.file is None else str(shards.folder / place.file),
                },
                part.bytes,
            )


def _pack_tasks(files: list[SequenceFile], work: str) -> Iterator[Task]:
    for file in files:
        yield Task(
            f"{file.split}-{file.shard:05d}",
            fingerprint(job=work, split=file.split, shard=file.shard),
            asdict(file),
            0,
        )


def _commit(
    root: Path,
    job: Job,
    files: list[SequenceFile],
    size: int,
    work: str,
    origin: Origin,
    extra: dict[str, str],
) -> None:
    """Moves the files into place, writes what indexes each split, and the list of all."""
    root.mkdir(parents=True, exist_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)
    by_split: dict[str, list[mds.ShardFile]] = {}
    for file, (task, result) in zip(files, job.results(), strict=True):
        written = mds.ShardFile(**result)
        if written.samples != file.count:
            raise AssertionError(f"{task.name}: {written.samples} sequences, not {file.count}")
        (root / file.split).mkdir(exist_ok=True)
        staged = job.folder / f"{task.name}{_FORMAT.suffix}"
        staged.replace(root / file.split / written.basename)
        by_split.setdefault(file.split, []).append(written)
    listed: list[ListedFile] = []
    for split, shards in by_split.items():
        listed += [
            ListedFile(f"{split}/{s.basename}", s.bytes, s.sha256, s.samples, _FORMAT.name)
            for s in shards
        ]
        for path in _FORMAT.write_index(root / split, shards, SEQUENCES, size):
            listed.append(_json(root, path))
    for name, text in extra.items():
        write_whole(root / name, text)
        listed.append(_json(root, root / name))
    named = {root / file.path for file in listed}
    for path in [path for path in root.rglob("*") if path.is_file() and path not in named]:
        path.unlink()
    for folder in [path for path in root.iterdir() if path.is_dir() and not any(path.iterdir())]:
        folder.rmdir()
    write_file_list(root, work, origin, listed)


def _json(root: Path, path: Path) -> ListedFile:
    name = path.relative_to(root).as_posix()
    return ListedFile(name, path.stat().st_size, sha256_file(path), 0, "json")
