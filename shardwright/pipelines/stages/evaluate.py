"""``evaluate``: how well each method finds damage that is planted, and what it takes besides.

A sample of the live records is damaged in part, trial by trial; workers embed and observe it, and
the driver fits models before that and scores by every method after it. Side effects are counted on
the curation's own scores.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.sampling import automatic_k
from shardwright.errors import UserError
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import EVALUATION, SIDE_EFFECTS, STABILITY
from shardwright.pipelines.alive import alive_parts, alive_rows, drop_parameters, drops_query
from shardwright.pipelines.clustering import sample
from shardwright.pipelines.damage import (
    CHUNK,
    SLOWNESS,
    Models,
    TrialChunk,
    gather,
    smallest,
    write_sample,
)
from shardwright.pipelines.encoding import encoding
from shardwright.pipelines.grouping import grouping_tables
from shardwright.pipelines.jobs import Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.quality_sections import Evaluate, Prune
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.side_effects import (
    groupings,
    prepare_side_effects,
    side_effects_query,
)
from shardwright.pipelines.stages.study import LEAST

if TYPE_CHECKING:
    from shardwright.quality.trials import Looked, Trial
    from shardwright.quality.trials_scores import Rules
    from shardwright.quality.trials_summary import Found

VERSION = "1"
TABLES = ("evaluation", "side_effects", "stability")
_STARTS = 5
"""Seeds of k-means among which pruned sets are compared."""


def check_evaluate(recipe: Recipe) -> None:
    """Raises UserError if the recipe asks for an evaluation of nothing."""
    if recipe.evaluate is None:
        return
    for key in ("embedding", "prune"):
        if getattr(recipe, key) is None:
            raise UserError(
                f"evaluate judges the methods that score records, and {key} is null; "
                f"set {key}, or set evaluate to null"
            )


def run_evaluate(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    settings, prune = run.recipe.evaluate, run.recipe.prune
    if settings is None or prune is None or run.recipe.embedding is None:
        _drop(run)
        return
    embeddings = run.layout.need("embeddings", "embed")
    rows = alive_rows(run, embeddings, "evaluate")
    if rows < LEAST:
        run.reporter.note(f"evaluate: {rows} live records are too few to judge methods on")
        _drop(run)
        return
    records = run.layout.need("records", "ingest")
    scores = run.layout.need("scores", "score")
    if scores.origin.parameters != prune.parameters() or scores.rows != rows:
        raise UserError(f"{scores.folder}: scored for another recipe; run stage 'score' first")
    devices = None if run.recipe.heterogeneity is None else run.recipe.heterogeneity.group
    grouped = groupings(run.recipe.modality, devices is not None)
    inputs = [records, embeddings, scores, *drops_query(run, "evaluate")[1]]
    size = min(settings.files, rows)
    parameters = {
        **settings.model_dump(mode="json"),
        "files": size,
        "methods": scores.schema.names[1:],
        "rules": asdict(_rules(run.recipe, prune, size)),
        "within": prune.within,
        "groupings": list(grouped),
        "study": run.recipe.study.model_dump(mode="json", exclude={"seed"}),
        "encoder_fingerprint": run.encoder.fingerprint,
        **drop_parameters(run),
    }
    work = fingerprint(
        version=VERSION,
        settings={**parameters, "methods": [], "rules": {}, "within": None},
        inputs={table.table: table.content_sha256 for table in inputs if table is not scores},
    )
    if devices is not None:
        inputs += grouping_tables(run.layout, devices, "device")
    evaluation = _Evaluation(run, settings, prune, records, embeddings, scores, size, work)

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        evaluation.find(connection, progress)
        prepare_side_effects(connection, grouped, prune, evaluation.methods)

    commit_query(
        run,
        "evaluate",
        VERSION,
        {
            "evaluation": (EVALUATION, "SELECT * FROM found_evaluation"),
            "side_effects": (SIDE_EFFECTS, side_effects_query(grouped)),
            "stability": (STABILITY, "SELECT * FROM found_stability"),
        },
        parameters=parameters,
        inputs=inputs,
        prepare=prepare,
    )
    shutil.rmtree(evaluation.folder, ignore_errors=True)
    for seed in evaluation.seeds:
        shutil.rmtree(run.layout.staging(f"evaluate-{seed}"), ignore_errors=True)
    progress.records, progress.bytes = size, records.bytes


def _drop(run: Run) -> None:
    for table in TABLES:
        run.drop(table)


def _rules(recipe: Recipe, prune: Prune, records: int) -> "Rules":
    """The recipe's settings of the methods, for a sample of so many records."""
    from shardwright.quality.trials_scores import Rules

    k = recipe.clusters.k
    return Rules(
        fraction=prune.fraction,
        k=min(automatic_k(records) if isinstance(k, str) else k, records),
        cluster_seed=recipe.clusters.seed,
        alpha=prune.alpha,
        keep=prune.ssl_prototypes.keep,
        balance=prune.ssl_prototypes.balance,
        dedup=prune.d4.dedup,
        tau=prune.density.tau,
        min_samples=prune.density.min_samples,
        random_seed=prune.seed,
    )


@dataclass(frozen=True)
class _Evaluation:
    """The work of the stage."""

    run: Run
    settings: Evaluate
    prune: Prune
    records: Manifest
    embeddings: Manifest
    scores: Manifest
    size: int
    work: str

    @property
    def folder(self) -> Path:
        """Where the sample and the models lie."""
        return self.run.layout.staging("evaluate")

    @property
    def methods(self) -> list[str]:
        """The columns of ``scores``."""
        return [name for name in self.scores.schema.names if name != "record_id"]

    @property
    def seeds(self) -> range:
        """Of the trials."""
        return range(self.settings.seed, self.settings.seed + self.settings.seeds)

    def find(self, connection: duckdb.DuckDBPyConnection, progress: StageProgress) -> None:
        """Makes ``found_evaluation`` and ``found_stability``."""
        from shardwright.quality.trials import deal, families_of
        from shardwright.quality.trials_scores import overlaps, score
        from shardwright.quality.trials_summary import summarise

        modality = self.run.recipe.modality
        rules = _rules(self.run.recipe, self.prune, self.size)
        drawn = self._drawn()
        ids = pq.read_table(drawn, columns=["record_id"]).column("record_id").to_pylist()
        trials: list[dict[str, Any]] = []
        for trial in self._trials():
            looked = self._looked(trial, drawn, progress)
            scores = score(trial, looked, rules, self.settings.folds, self.methods)
            trials.append({"kinds": looked.kinds, **scores})
        families = families_of(modality)
        folds = deal(families.values(), self.settings.folds)
        judged = [name for name in self.methods if name in trials[0]]
        found = summarise(trials, judged, families, folds, rules.fraction)
        rows = [_row(one, len(trials)) for one in found if one.damaged]
        connection.register("found_evaluation", pa.Table.from_pylist(rows, EVALUATION))
        live = list(alive_parts(self.run, self.embeddings, "evaluate"))
        scratch = self.folder / "vectors.bin"
        vectors = sample(self.embeddings, live, self.size, self.settings.seed, scratch)
        first = self.run.recipe.clusters.seed
        starts = range(first, first + _STARTS)
        shared = overlaps(self.methods, ids, np.asarray(vectors), rules, starts)
        stable = [{"method": name, "overlap": value} for name, value in shared.items()]
        connection.register("found_stability", pa.Table.from_pylist(stable, STABILITY))

    def _trials(self) -> Iterator["Trial"]:
        from shardwright.quality.trials import Trial

        study = self.run.recipe.study
        for seed in self.seeds:
            yield Trial(
                self.run.recipe.modality,
                self.size,
                seed,
                self.settings.share,
                self.settings.dose,
                study.documents,
                study.copies,
                study.dose,
                study.without,
            )

    def _drawn(self) -> Path:
        """The sampled records, in an order that is the seed's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"sample-{self.work[:16]}.parquet"
        if not path.exists():
            live = list(alive_parts(self.run, self.records, "evaluate"))
            modality = self.run.recipe.modality
            rows = smallest(self.records, live, self.size, self.settings.seed, modality)
            write_sample(rows, path)
        return path

    def _models(self, trial: "Trial", drawn: Path) -> Path | None:
        """Models of the trial's texts, fitted on them as they stand there, damage and all."""
        if trial.modality != "code":
            return None
        path = self.folder / f"models-{self.work[:16]}-{trial.seed}.npz"
        if not path.exists():
            from shardwright.quality.views import fit

            rows = pq.read_table(drawn).to_pylist()
            files = []
            for record in trial.order[: self.run.recipe.study.files]:
                key, content, language = rows[record].values()
                files.append((key, trial.plant(record, key, content, language)[1], language))
            fit(files).save(path)
        return path

    def _looked(self, trial: "Trial", drawn: Path, progress: StageProgress) -> "Looked":
        """Runs the job of a trial over the sample."""
        from shardwright.quality.probe import Vectors
        from shardwright.quality.trials import Looked

        models = self._models(trial, drawn)
        with pq.ParquetFile(drawn) as file:
            groups = file.num_row_groups
        size = drawn.stat().st_size * SLOWNESS // max(groups, 1)
        name = f"evaluate-{trial.seed}"
        tasks = (
            Task(
                f"{group:08d}",
                fingerprint(job=name, work=self.work, group=group),
                {"group": group, "first": group * CHUNK},
                size,
            )
            for group in range(groups)
        )
        job = self.run.plan(name, {}, tasks, staged_only=True)
        with encoding(self.run) as settings:
            work = TrialChunk(settings, trial, drawn, Models(models))
            self.run.execute("evaluate", job, work, progress)
        found = gather([job.folder / left["file"] for _, left in job.results()])
        own, copies = (np.flatnonzero((found["kinds"] == "") == is_own) for is_own in (True, False))
        rows = np.concatenate([own, copies])
        return Looked(
            found["ids"][own].tolist(),
            found["planted"][own],
            found["extents"][own],
            found["sources"][copies],
            found["kinds"][copies],
            Vectors(found["documents"], found["windows"], found["starts"]).take(rows),
            found["values"][rows],
            [found["languages"][row] for row in rows],
            found["lengths"][rows],
        )


def _row(found: "Found", trials: int) -> dict[str, Any]:
    """A row of ``evaluation``; one record, or many that are all alike, give no interval."""
    row: dict[str, Any] = {"method": found.method, "family": found.family}
    for name, estimate in (("area", found.area), ("recall", found.recall)):
        known = found.sources > 1 and estimate.error > 0
        row[name] = estimate.value
        row[f"{name}_low"] = max(estimate.low, 0.0) if known else None
        row[f"{name}_high"] = min(estimate.high, 1.0) if known else None
    return row | {"damaged": found.damaged, "trials": trials}
