"""A curation: the recipe's stages in order, and what is said at the end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout
from shardwright.pipelines.execution import check_beam_arguments
from shardwright.pipelines.progress import Reporter, StageProgress
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.run import Run, locked
from shardwright.pipelines.stages.cluster import run_cluster
from shardwright.pipelines.stages.describe import run_describe
from shardwright.pipelines.stages.duplicates import run_duplicates
from shardwright.pipelines.stages.embed import run_embed
from shardwright.pipelines.stages.index import run_index
from shardwright.pipelines.stages.ingest import plan as plan_ingest
from shardwright.pipelines.stages.ingest import run_ingest
from shardwright.pipelines.stages.prune import run_prune
from shardwright.pipelines.stages.score import run_score
from shardwright.pipelines.stages.shard import run_shard

STAGES: dict[str, Callable[[Run, StageProgress], None]] = {
    "ingest": run_ingest,
    "duplicates": run_duplicates,
    "embed": run_embed,
    "index": run_index,
    "cluster": run_cluster,
    "score": run_score,
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
) -> Summary | None:
    """Runs a recipe's stages, or the named ones, into an output folder.

    Returns:
        What became of the records, or None when the named stages do not decide it.

    Raises:
        UserError: Wrong usage, recipe or output.
        DataError: The data failed: too much was rejected, or nothing found.
    """
    started = time.monotonic()
    names = _chosen(stages)
    check_beam_arguments([*beam_arguments, *(a for v in recipe.runner.values() for a in v)])
    _check_runner_keys(recipe)
    _check_apart(recipe, output)
    layout = Layout(output.absolute())
    with locked(layout.root):
        run = Run(recipe, layout, beam_arguments, limit, force, reporter or Reporter())
        for name in names:
            with run.reporter.stage(name) as progress:
                STAGES[name](run, progress)
        return summarise(layout, time.monotonic() - started)


def _chosen(stages: Sequence[str]) -> list[str]:
    for name in stages:
        if name not in STAGES:
            raise UserError(f"--stage {name}: no such stage; there are {', '.join(STAGES)}")
    return [name for name in STAGES if not stages or name in stages]


def _check_runner_keys(recipe: Recipe) -> None:
    for name in recipe.runner:
        if name != "all" and name not in STAGES:
            known = ", ".join(["all", *STAGES])
            raise UserError(f"runner.{name}: no such stage; write Beam options under {known}")


def _check_apart(recipe: Recipe, output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file; name a folder")
    if "://" in recipe.source.uri or any(mark in recipe.source.uri for mark in "*?["):
        return
    source, target = Path(recipe.source.uri).resolve(), output.resolve()
    if source.is_dir() and (target == source or source in target.parents):
        raise UserError(
            f"--output {output} lies inside the input {recipe.source.uri}; "
            "the next run would read what this one wrote: choose a folder outside"
        )


def dry_run(recipe: Recipe, output: Path, stages: Sequence[str], limit: int | None) -> str:
    """The resolved recipe and what a run would do, as text."""
    names = _chosen(stages)
    _check_runner_keys(recipe)
    _check_apart(recipe, output)
    run = Run(recipe, Layout(output.absolute()), limit=limit)
    lines = [yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).rstrip(), "", "plan:"]
    records = run.layout.manifest("records")
    for name in names:
        lines.append(f"  {name}: {_plan(run, name, records)}")
    return "\n".join(lines)


def _plan(run: Run, name: str, records: Any) -> str:
    if name != "ingest":
        return "over the records" if records is None else f"over {records.rows:,} records or fewer"
    done = {} if records is None else {p.key: p.fingerprint for p in records.parts()}
    parts = reused = units = size = 0
    for task in plan_ingest(run):
        parts += 1
        units += len(task.payload["units"])
        size += task.size
        reused += done.get(task.key) == task.fingerprint
    return f"{units:,} inputs, {size / 1e6:,.1f} MB, {parts} parts, {reused} of them reused"


def summarise(layout: Layout, seconds: float) -> Summary | None:
    """Counts what became of the records."""
    records, rejects = layout.manifest("records"), layout.manifest("rejects")
    decisions = layout.manifest("decisions")
    if records is None or rejects is None or decisions is None:
        return None
    with connect(layout) as connection:
        dropped = connection.execute(
            "SELECT reason, count(*) FROM decisions WHERE NOT keep GROUP BY stage, reason "
            "ORDER BY min(CASE stage WHEN 'prune' THEN 1 ELSE 0 END), reason"
        ).fetchall()
    listed = read_file_list(layout.shards)
    shards = 0 if listed is None else sum(file.format == "mds" for file in listed.files)
    kept = decisions.rows - sum(count for _, count in dropped)
    seen = records.rows + rejects.rows
    return Summary(seen, rejects.rows, dict(dropped), kept, shards, seconds)
