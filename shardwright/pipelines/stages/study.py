"""``study``: records damaged on purpose, to see where damage goes and to calibrate detectors.

A sample of the live records is damaged, embedded and observed by workers; models of texts are
fitted before that and detectors after it, in the driver.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.errors import UserError
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import CORRUPTED, CORRUPTION_STUDY, DETECTORS
from shardwright.pipelines.alive import (
    alive_parts,
    alive_rows,
    drop_parameters,
    drops_query,
)
from shardwright.pipelines.clustering import sample
from shardwright.pipelines.damage import (
    CHUNK,
    SLOWNESS,
    CorruptChunk,
    Models,
    assigned,
    gather,
    smallest,
    write_sample,
)
from shardwright.pipelines.encoding import encoding
from shardwright.pipelines.jobs import Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run

VERSION = "2"
TABLES = ("corrupted", "corruption_study", "detectors")
STUDIED = ("perplexity", "scip_probe", "damage")
"""Methods whose scores come from the study."""
LEAST = 40
"""Of fewer live records nothing is calibrated."""


def wanted(run: Run) -> bool:
    """Whether a score is asked for that needs the study."""
    prune = run.recipe.prune
    if prune is None or run.recipe.embedding is None:
        return False
    return bool(set(STUDIED) & set(prune.methods(run.recipe.modality)))


def check_study(recipe: Recipe) -> None:
    """Raises UserError if the recipe leaves out a family that there is not."""
    from shardwright.quality.corruptions import corruptions

    known = {kind.family for kind in corruptions(recipe.modality).values()}
    for family in recipe.study.without:
        if family not in known:
            raise UserError(
                f"study.without: {family!r} is no family of damage; there are "
                f"{', '.join(sorted(known))}"
            )


def run_study(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    if not wanted(run):
        _drop(run)
        return
    embeddings = run.layout.need("embeddings", "embed")
    rows = alive_rows(run, embeddings, "study")
    if rows < LEAST:
        if rows:
            run.reporter.note(f"study: {rows} live records are too few to calibrate detectors on")
        _drop(run)
        return
    records = run.layout.need("records", "ingest")
    clusters = run.layout.need("clusters", "cluster")
    centroids = run.layout.need("centroids", "cluster")
    inputs = [records, embeddings, clusters, centroids, *drops_query(run, "study")[1]]
    parameters = {
        **run.recipe.study.model_dump(mode="json"),
        "encoder_fingerprint": run.encoder.fingerprint,
        **drop_parameters(run),
    }
    work = fingerprint(
        version=VERSION,
        parameters=parameters,
        inputs={table.table: table.content_sha256 for table in inputs},
    )

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        _Study(run, records, embeddings, clusters, centroids, work).find(connection, progress)

    tables = commit_query(
        run,
        "study",
        VERSION,
        {
            "corrupted": (
                CORRUPTED,
                "SELECT * FROM found_corrupted ORDER BY record_id, corruption",
            ),
            "corruption_study": (
                CORRUPTION_STUDY,
                "SELECT * FROM found_effects ORDER BY corruption",
            ),
            "detectors": (DETECTORS, "SELECT * FROM found_detectors ORDER BY name"),
        },
        parameters=parameters,
        inputs=inputs,
        prepare=prepare,
    )
    progress.records, progress.bytes = rows, records.bytes
    progress.details["damaged"] = tables["corrupted"].rows


def _drop(run: Run) -> None:
    for table in TABLES:
        run.drop(table)


@dataclass(frozen=True)
class _Gathered:
    """What the workers found, a row for each record of the sample and for each damaged copy."""

    kinds: npt.NDArray[np.str_]
    sources: npt.NDArray[np.int64]
    ids: npt.NDArray[np.str_]
    languages: list[str | None]
    lengths: npt.NDArray[np.int64]
    documents: npt.NDArray[np.float32]
    windows: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Study:
    """The work of the stage."""

    run: Run
    records: Manifest
    embeddings: Manifest
    clusters: Manifest
    centroids: Manifest
    work: str

    def find(self, connection: duckdb.DuckDBPyConnection, progress: StageProgress) -> None:
        """Makes ``found_corrupted``, ``found_effects`` and ``found_detectors``."""
        folder = self.run.layout.staging("study")
        folder.mkdir(parents=True, exist_ok=True)
        drawn, models = self._drawn(folder)
        found = self._corrupted(folder, drawn, models, progress)
        query = "SELECT cluster, count(*) AS n FROM clusters GROUP BY cluster"
        counts = dict(connection.sql(query).fetchall())
        sizes = np.array([counts.get(c, 0) for c in range(self.centroids.rows)], np.int64)
        tables = _results(self, found, sizes, models, folder)
        for name, table in tables.items():
            connection.register(name, table)

    def _drawn(self, folder: Path) -> tuple[Path, Path | None]:
        """The sampled records, in an order that is the seed's, and models fitted on more of them.

        Texts that models are fitted on are held in memory: ``files`` of the recipe says how many.
        """
        settings, modality = self.run.recipe.study, self.run.recipe.modality
        path = folder / f"sample-{self.work[:16]}.parquet"
        models = folder / f"models-{self.work[:16]}.npz" if modality == "code" else None
        if path.exists() and (models is None or models.exists()):
            return path, models
        live = list(alive_parts(self.run, self.records, "study"))
        size = max(settings.documents, settings.files if models is not None else 0)
        rows = smallest(self.records, live, size, settings.seed, modality)
        if models is not None:
            from shardwright.quality.views import fit

            files = [(row["record_id"], row["content"], row["language"]) for row in rows]
            fit(files[: settings.files]).save(models)
        write_sample(rows[: settings.documents], path)
        return path, models

    def _corrupted(
        self, folder: Path, drawn: Path, models: Path | None, progress: StageProgress
    ) -> _Gathered:
        """Runs the job over the sample."""
        with pq.ParquetFile(drawn) as file:
            groups = file.num_row_groups
        size = drawn.stat().st_size * SLOWNESS // max(groups, 1)
        tasks = (
            Task(
                f"{group:08d}",
                fingerprint(job="study-corrupt", work=self.work, group=group),
                {"group": group, "first": group * CHUNK},
                size,
            )
            for group in range(groups)
        )
        job = self.run.plan("study-corrupt", {}, tasks, staged_only=True)
        with encoding(self.run) as settings:
            work = CorruptChunk(settings, self.run.recipe.study, drawn, Models(models))
            self.run.execute("study", job, work, progress)
        return _Gathered(**gather([job.folder / left["file"] for _, left in job.results()]))


def _results(
    study: _Study,
    found: _Gathered,
    sizes: npt.NDArray[np.int64],
    models: Path | None,
    folder: Path,
) -> dict[str, pa.Table]:
    """The tables, from what the workers found."""
    from shardwright.quality.calibrate import DOCUMENTS, Observed, calibrate
    from shardwright.quality.corruptions import corruptions
    from shardwright.quality.probe import Vectors
    from shardwright.quality.study import Places
    from shardwright.quality.study import study as effects_of

    run = study.run
    families = {kind.name: kind.family for kind in corruptions(run.recipe.modality).values()}
    cluster, distance = assigned(found.documents, study.centroids.files()[0])
    size = np.maximum(sizes[cluster], 1)
    clean = np.flatnonzero(found.kinds == "")
    bad = np.flatnonzero(found.kinds != "")
    before = clean[found.sources[bad]]  # every record of the sample stands there as it is
    if not len(bad):
        raise UserError(
            "study: nothing in the sample can be damaged; set prune.scores without perplexity, "
            "scip_probe and damage"
        )
    kinds = found.kinds[bad].tolist()
    named = [families[kind] for kind in kinds]

    def places(rows: npt.NDArray[np.int64]) -> Places:
        return Places(cluster[rows], size[rows], distance[rows])

    effects = effects_of(places(before), places(bad), kinds, families)
    live = list(alive_parts(run, study.embeddings, "study"))
    rows = study.embeddings.rows - sum(len(dropped) for _, dropped in live)
    drawn = sample(
        study.embeddings,
        live,
        min(rows, DOCUMENTS),
        run.recipe.study.seed + 1,
        folder / "sample.bin",
    )
    vectors = Vectors(found.documents, found.windows, found.starts)
    seen = Observed(vectors, found.values, found.languages, size, distance, found.lengths)
    path = folder / "detectors.npz"
    calibrate(run.recipe.modality, drawn, seen, found.sources, found.kinds).save(path)
    blobs = {"detectors": path.read_bytes()}
    if models is not None:
        blobs["models"] = models.read_bytes()
    columns = {
        "record_id": found.ids[bad],
        "corruption": kinds,
        "family": named,
        "cluster": cluster[bad],
        "cluster_before": cluster[before],
        "cluster_size": size[bad],
        "cluster_size_before": size[before],
        "distance": distance[bad],
        "distance_before": distance[before],
    }
    return {
        "found_corrupted": pa.table({name: pa.array(column) for name, column in columns.items()}),
        "found_effects": pa.Table.from_pylist([asdict(effect) for effect in effects]),
        "found_detectors": pa.table(
            {"name": list(blobs), "data": pa.array(blobs.values(), pa.large_binary())}
        ),
    }
