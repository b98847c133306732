"""``study``: records damaged on purpose, to see where damage goes and to calibrate detectors.

A sample of the live records is damaged, embedded and observed by workers; models of texts are
fitted before that and detectors after it, in the driver.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.sampling import sample_keys
from shardwright.errors import UserError
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import CORRUPTED, CORRUPTION_STUDY, DETECTORS, blob
from shardwright.pipelines.alive import (
    LivePart,
    alive_parts,
    alive_rows,
    drop_parameters,
    drops_query,
    live_batches,
)
from shardwright.pipelines.clustering import sample
from shardwright.pipelines.damage import (
    EXTRA,
    REFERENCE,
    CorruptChunk,
    as_rows,
    assigned,
    with_extra,
)
from shardwright.pipelines.encoding import encoding
from shardwright.pipelines.jobs import Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.recipe import Recipe
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.quality import observations

VERSION = "1"
TABLES = ("corrupted", "corruption_study", "detectors")
STUDIED = ("perplexity", "scip_probe", "damage")
"""Methods whose scores come from the study."""
_CHUNK = 16
_SLOWNESS = 4000
"""A byte takes about so many times as long as in a stage that only reads and writes."""
_REFERENCE_DOCUMENTS = 4096
_LEAST = 40


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
    if rows < _LEAST:
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

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "_Gathered":
        """Reads the files of all chunks, in order."""
        chunks = []
        shift = 0
        for path in paths:
            with np.load(path, allow_pickle=False) as archive:
                chunk = dict(archive)
            chunk["starts"] = chunk["starts"] + shift
            shift += len(chunk["windows"])
            chunks.append(chunk)
        joined = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        languages = [language or None for language in joined.pop("languages").tolist()]
        return cls(languages=languages, **joined)


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
        rows = _smallest(self.records, live, size, settings.seed, modality)
        if models is not None:
            from shardwright.quality.views import fit

            files = [(row["record_id"], row["content"], row["language"]) for row in rows]
            fit(files[: settings.files]).save(models)
        schema = pa.schema(
            [
                ("record_id", pa.string()),
                ("content", pa.large_binary()),
                ("language", pa.string()),
            ]
        )
        table = pa.Table.from_pylist(rows[: settings.documents], schema)
        staged = path.with_suffix(".staged")
        pq.write_table(table, staged, row_group_size=_CHUNK)
        staged.rename(path)
        return path, models

    def _corrupted(
        self, folder: Path, drawn: Path, models: Path | None, progress: StageProgress
    ) -> _Gathered:
        """Runs the job over the sample."""
        with pq.ParquetFile(drawn) as file:
            groups = file.num_row_groups
        size = drawn.stat().st_size * _SLOWNESS // max(groups, 1)
        tasks = (
            Task(
                f"{group:08d}",
                fingerprint(job="study-corrupt", work=self.work, group=group),
                {"group": group, "first": group * _CHUNK},
                size,
            )
            for group in range(groups)
        )
        job = self.run.plan("study-corrupt", {}, tasks, staged_only=True)
        with encoding(self.run) as settings:
            work = CorruptChunk(settings, self.run.recipe.study, drawn, models)
            self.run.execute("study", job, work, progress)
        return _Gathered.read([job.folder / left["file"] for _, left in job.results()])


def _smallest(
    records: Manifest, live: Sequence[LivePart], size: int, seed: int, modality: str
) -> list[dict[str, Any]]:
    """The ``size`` records whose sample keys are smallest, in the order of the keys."""
    keys = np.empty(0, np.uint64)
    for part, dropped in live:
        if part.file is not None:
            for batch in live_batches(records.folder / part.file, ["record_id"], dropped, 65536):
                keys = np.concatenate([keys, sample_keys(batch.column("record_id"), seed)])
                keys = np.partition(keys, size - 1)[:size] if len(keys) > size else keys
    wanted = set(keys.tolist())
    columns = ["record_id", blob(modality)]
    columns += ["language"] if modality == "code" else []
    found: list[tuple[int, dict[str, Any]]] = []
    for part, dropped in live:
        if part.file is not None:
            for batch in live_batches(records.folder / part.file, columns, dropped, 256):
                mine = sample_keys(batch.column("record_id"), seed).tolist()
                hits = [place for place, key in enumerate(mine) if key in wanted]
                rows = as_rows(batch.take(pa.array(hits, pa.int64())), modality)
                found += [(mine[place], row) for place, row in zip(hits, rows, strict=True)]
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def _results(
    study: _Study,
    found: _Gathered,
    sizes: npt.NDArray[np.int64],
    models: Path | None,
    folder: Path,
) -> dict[str, pa.Table]:
    """The tables, from what the workers found."""
    from dataclasses import asdict

    from shardwright.quality.corruptions import corruptions
    from shardwright.quality.damage import fit_damage
    from shardwright.quality.detectors import Detectors
    from shardwright.quality.probe import Vectors, fit_probe
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
    vectors = Vectors(found.documents, found.windows, found.starts)
    plain = found.sources[clean] % REFERENCE == 0
    reference = vectors.take(clean[plain])
    pairs = clean[~plain]
    place = np.full(len(clean), -1)
    place[np.flatnonzero(~plain)] = np.arange(len(pairs))
    live = list(alive_parts(run, study.embeddings, "study"))
    rows = study.embeddings.rows - sum(len(dropped) for _, dropped in live)
    drawn = sample(
        study.embeddings,
        live,
        min(rows, _REFERENCE_DOCUMENTS),
        run.recipe.study.seed + 1,
        folder / "sample.bin",
    )
    probe = fit_probe(
        drawn,
        reference.windows,
        vectors.take(pairs),
        vectors.take(bad),
        place[found.sources[bad]],
        named,
    )
    probed = probe.judge(vectors)
    values = with_extra(found.values, probed, size, distance, found.lengths)
    names = [view.name for view in observations.views(run.recipe.modality)] + list(EXTRA)
    odd = [view.odd for view in observations.views(run.recipe.modality)]
    odd += [name == "length" for name in EXTRA]
    languages = np.array(found.languages, dtype=object)
    damage = fit_damage(
        names,
        odd,
        values[pairs],
        languages[pairs].tolist(),
        values[bad],
        languages[bad].tolist(),
        named,
    )
    path = folder / "detectors.npz"
    Detectors(probe, damage).save(path)
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
