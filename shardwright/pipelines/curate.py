"""A curation: the recipe's stages in order, and what is said at the end."""

import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.credentials import recipe_without_credentials
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.files import write_whole
from shardwright.metadata.integrity import lineage_faults
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.memory import limited
from shardwright.metadata.mend import drop_damaged
from shardwright.metadata.mirror import mirrored
from shardwright.metadata.openlineage import told_stages
from shardwright.pipelines.disk import told_plainly
from shardwright.pipelines.estimate import Costs, remembered, total
from shardwright.pipelines.execution import check_beam_arguments
from shardwright.pipelines.labels import check_labels
from shardwright.pipelines.opt_out import read_opt_outs
from shardwright.pipelines.progress import Reporter, StageMetrics, StageProgress
from shardwright.pipelines.prometheus import check_prometheus, tell_prometheus
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.run import Run, locked
from shardwright.pipelines.sources.names import has_magic, split_glob
from shardwright.pipelines.sources.storage import is_remote, local_path
from shardwright.pipelines.stages.cluster import check_device, run_cluster
from shardwright.pipelines.stages.decontaminate import load_items, run_decontaminate
from shardwright.pipelines.stages.describe import run_describe
from shardwright.pipelines.stages.duplicates import check_earlier, run_duplicates
from shardwright.pipelines.stages.embed import run_embed
from shardwright.pipelines.stages.evaluate import check_evaluate, run_evaluate
from shardwright.pipelines.stages.filter import run_filter
from shardwright.pipelines.stages.heterogeneity import run_heterogeneity
from shardwright.pipelines.stages.index import check_index, run_index
from shardwright.pipelines.stages.ingest import plan as plan_ingest
from shardwright.pipelines.stages.ingest import run_ingest
from shardwright.pipelines.stages.prune import run_prune
from shardwright.pipelines.stages.score import run_score
from shardwright.pipelines.stages.semantic import check_semantic, run_semantic
from shardwright.pipelines.stages.shard import run_shard
from shardwright.pipelines.stages.study import check_study, run_study
from shardwright.pipelines.token_budget import budget_lines
from shardwright.pipelines.tokenising import check_tokens

_BEAM_STAGES = (
    *("ingest", "filter", "duplicates", "embed", "decontaminate", "semantic"),
    *("cluster", "study", "score", "heterogeneity", "evaluate", "shard"),
)

_ONE_RECORD = ("files", "git")
"""Kinds of sources in which every input is one record."""

STAGES: dict[str, Callable[[Run, StageProgress], None]] = {
    "ingest": run_ingest,
    "filter": run_filter,
    "duplicates": run_duplicates,
    "embed": run_embed,
    "decontaminate": run_decontaminate,
    "semantic": run_semantic,
    "index": run_index,
    "cluster": run_cluster,
    "study": run_study,
    "score": run_score,
    "heterogeneity": run_heterogeneity,
    "evaluate": run_evaluate,
    "prune": run_prune,
    "shard": run_shard,
    "describe": run_describe,
}


@dataclass(frozen=True)
class Summary:
    """The short table that a curation ends with."""

    seen: int
    rejected: int
    dropped: dict[str, int]
    kept: int
    shards: int
    seconds: float


def curate(
    recipe: Recipe,
    output: Path,
    *,
    stages: Sequence[str] = (),
    limit: int | None = None,
    force: bool = False,
    beam_arguments: Sequence[str] = (),
    reporter: Reporter | None = None,
    openlineage: str | None = None,
    store: str | None = None,
    prometheus: str | None = None,
    memory: int | None = None,
) -> Summary | None:
    """Runs a recipe's stages, or the named ones, into an output folder.

    With ``openlineage``, a file or an address, each stage's start and end is told there. With
    ``store``, an address, the output is there and the folder is where it is built: what each stage
    committed goes to the store when the stage ends. With ``prometheus``, a file or the address of a
    push gateway, what each stage did is told there at the end, also of a run that fails. With
    ``memory``, bytes, the run's processes on this machine hold no more than that: fewer work at a
    time, and more lies in files.

    Returns:
        What became of the records, or None when the named stages do not decide it.

    Raises:
        UserError: Wrong usage, recipe or output.
        DataError: The data failed: too much was rejected, or nothing found.
    """
    started = time.monotonic()
    names = _chosen(stages)
    _check(recipe, output, names, beam_arguments)
    if prometheus is not None:
        check_prometheus(prometheus)
    layout = Layout(output.absolute())
    run = Run(recipe, layout, beam_arguments, limit, force, reporter or Reporter())
    if "embed" in names and recipe.embedding is not None:
        _ = run.encoder  # a model that is not there is known before hours of reading
    if "duplicates" in names:
        check_earlier(recipe)  # and so is an earlier curation,
    if "decontaminate" in names:
        load_items(recipe)  # a benchmark
    if "semantic" in names:
        check_semantic(recipe.duplicates.semantic)
    if "index" in names:
        check_index(recipe.index)
    if "study" in names:
        check_study(recipe)
    if "shard" in names:
        check_tokens(recipe)
    if "cluster" in names:
        check_device(recipe)  # and a device
    if "score" in names:
        check_labels(run, "ingest" in names)
    resolved = recipe.model_dump(mode="json")
    with (
        limited(memory),
        locked(layout.root),
        told_plainly(layout.root),
        mirrored(store, layout, run.reporter.note) as commit,
        told_stages(openlineage, layout, resolved, run.reporter.note) as told,
        _measured(prometheus, recipe.name, run.reporter),
    ):
        for line in drop_damaged(layout):
            run.reporter.note(line)
        costs = Costs.of(recipe, layout)
        for name in names:
            with told(name), run.reporter.stage(name) as progress:
                since = time.time_ns()
                STAGES[name](run, progress)
                progress.written = _written(layout, since)
            done = run.reporter.metrics[-1]
            if memory is not None and done.peak_bytes > memory:
                held, most = done.peak_bytes / 1e9, memory / 1e9
                run.reporter.note(f"{name}: held {held:.2f} GB, the limit is {most:.2f} GB")
            _remember(layout, done, costs)
            commit()
        return summarise(layout, time.monotonic() - started)


@contextmanager
def _measured(target: str | None, curation: str, reporter: Reporter) -> Iterator[None]:
    """Tells Prometheus, where asked to, what the stages did that ended."""
    try:
        yield
    finally:
        if target is not None:
            tell_prometheus(target, curation, reporter.metrics)


def _written(layout: Layout, since: int) -> int:
    """Bytes of the output's files that were made since a moment, in nanoseconds of the epoch."""
    tables = [layout.table(name) for name in TABLES]
    changed = [table for table in tables if _made(table / "_manifest.json", since)]
    files = [path for folder in changed for path in folder.iterdir()]
    files += [path for folder in layout.folders.values() for path in folder.rglob("*")]
    files += [path for path in layout.root.iterdir() if path.is_file()]
    return sum(_made(path, since) for path in files)


def _made(path: Path, since: int) -> int:
    """Bytes of a file that was made since, else 0."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    return found.st_size if found.st_mtime_ns >= since and stat.S_ISREG(found.st_mode) else 0


def _remember(layout: Layout, done: StageMetrics, costs: Costs) -> None:
    """Puts what a stage did into ``metrics.json``, in place of what it did in an earlier run.

    Beside it stands what the model of costs had said for as much input.
    """
    by_stage = remembered(layout) | {done.stage: asdict(done)}
    if "ingest" in by_stage:
        ingest = by_stage["ingest"]
        expected = costs.estimate(done.stage, ingest["records"], ingest["bytes"])
        by_stage[done.stage]["estimate"] = None if expected is None else asdict(expected)
    stages = [by_stage[name] for name in STAGES if name in by_stage]
    metrics = {"stages": stages, "seconds": sum(stage["seconds"] for stage in stages)}
    write_whole(layout.root / "metrics.json", json.dumps(metrics, indent=1) + "\n")


def _chosen(stages: Sequence[str]) -> list[str]:
    for name in stages:
        if name not in STAGES:
            raise UserError(f"--stage {name}: no such stage; there are {', '.join(STAGES)}")
    return [name for name in STAGES if not stages or name in stages]


def _check(
    recipe: Recipe, output: Path, names: Sequence[str], beam_arguments: Sequence[str]
) -> None:
    """Finds the mistakes that can be found before anything runs."""
    for name in recipe.runner:
        if name not in ("all", *_BEAM_STAGES):
            known = ", ".join(["all", *_BEAM_STAGES])
            raise UserError(f"runner.{name}: no Beam job has this name; there are {known}")
    for arguments in [beam_arguments, *recipe.runner.values()]:
        check_beam_arguments(arguments)
    if "evaluate" in names:
        check_evaluate(recipe)
    if "prune" in names:
        read_opt_outs(recipe.opt_out)
    _check_apart(recipe, output)
    _check_ours(output)


def _check_apart(recipe: Recipe, output: Path) -> None:
    uri = recipe.source.uri
    if recipe.source.kind == "git" or (is_remote(uri) and not uri.startswith("file://")):
        return
    path = local_path(uri)
    base = split_glob(path)[0] if has_magic(path) else path
    if recipe.source.kind == "croissant" and not os.path.isdir(base):
        base = os.path.dirname(base)  # of the document, whose files lie beside it
    source, target = Path(base).resolve(), output.resolve()
    if source.is_dir() and (target == source or source in target.parents):
        raise UserError(
            f"--output {output} lies inside the input {uri}; "
            "the next run would read what this one wrote: choose a folder outside"
        )


def _check_ours(output: Path) -> None:
    """A run deletes what its manifests do not name: only in folders that are Shardwright's own."""
    try:
        str(output.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(f"--output {str(output)!r}: the path is no UTF-8; choose another") from None
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"--output {output}: is a file; name a folder")
    ours = (output / ".staging").is_dir() or any((output / "tables").glob("*/_manifest.json"))
    if not ours and any(output.iterdir()):
        raise UserError(
            f"--output {output}: holds files that are of no curation; name a new or empty folder"
        )


def dry_run(
    recipe: Recipe,
    output: Path,
    *,
    stages: Sequence[str] = (),
    limit: int | None = None,
    force: bool = False,
    beam_arguments: Sequence[str] = (),
) -> str:
    """The resolved recipe and what a run would do, as text; raises as ``curate`` would."""
    names = _chosen(stages)
    _check(recipe, output, names, beam_arguments)
    run = Run(recipe, Layout(output.absolute()), limit=limit, force=force)
    if "score" in names:
        check_labels(run, "ingest" in names)
    shown = recipe_without_credentials(recipe.model_dump(mode="json"))
    lines = [yaml.safe_dump(shown, sort_keys=False).rstrip(), "", "plan:"]
    records = run.layout.manifest("records")
    listing = _listed(run, records) if "ingest" in names else None
    for name in names:
        if name == "ingest":
            lines.append(f"  {name}: {listing}")
        elif records is None:
            lines.append(f"  {name}: over the records")
        else:
            lines.append(f"  {name}: over {records.rows:,} records or fewer")
    lines += _expected(run, names, records, listing)
    return "\n".join(lines + budget_lines(run, lambda: (listing or _listed(run, records)).bytes))


def _expected(
    run: Run, names: Sequence[str], records: Manifest | None, listing: "_Listed | None"
) -> list[str]:
    """Lines of what the stages are to take, if all parts are made."""
    if listing is not None and run.recipe.source.kind in _ONE_RECORD:
        count, size = listing.inputs, listing.bytes
    elif records is not None:
        count, size = records.rows, records.bytes
    else:
        return ["estimate: none, inputs hold any number of records; run it with --limit first"]
    costs = Costs.of(run.recipe, run.layout)
    found = {name: costs.estimate(name, count, size) for name in names}
    known = {name: one for name, one in found.items() if one is not None}
    lines = [f"  {name}: {one}" for name, one in known.items() if one.seconds]
    lines += [f"  {name}: not known" for name in found if name not in known]
    return [
        f"estimate: {total(known.values())}, if nothing is reused",
        *lines,
        f"  rates: {costs.basis}",
    ]


@dataclass(frozen=True)
class _Listed:
    """What the source holds now."""

    inputs: int
    bytes: int
    parts: int
    reused: int

    def __str__(self) -> str:
        return (
            f"{self.inputs:,} inputs, {self.bytes / 1e6:,.1f} MB, {self.parts} parts, "
            f"{self.reused} of them reused"
        )


def _listed(run: Run, records: Manifest | None) -> _Listed:
    done = {} if records is None or run.force else {p.key: p.fingerprint for p in records.parts()}
    parts = reused = units = size = 0
    for task in plan_ingest(run):
        parts += 1
        units += len(task.payload["units"])
        size += task.size
        reused += done.get(task.key) == task.fingerprint
    return _Listed(units, size, parts, reused)


def summarise(layout: Layout, seconds: float) -> Summary | None:
    """Counts what became of the records."""
    records, rejects = layout.manifest("records"), layout.manifest("rejects")
    decisions = layout.manifest("decisions")
    if records is None or rejects is None or decisions is None or any(lineage_faults(layout)):
        return None
    with connect(layout, tables=["decisions"]) as connection:
        dropped = connection.execute(
            "SELECT reason, count(*) FROM decisions WHERE NOT keep GROUP BY reason "
            "ORDER BY min(CASE stage WHEN 'prune' THEN 1 ELSE 0 END), reason"
        ).fetchall()
    listed = read_file_list(layout.shards)
    shards = 0 if listed is None else len(listed.shards)
    kept = decisions.rows - sum(count for _, count in dropped)
    seen = records.rows + rejects.rows
    return Summary(seen, rejects.rows, dict(dropped), kept, shards, seconds)
