"""``heterogeneity``: what made each image, and how far what it made lies apart.

Every image is measured, whoever is dropped. A sample of the live images of the largest groups is
compared, pair by pair in workers; transfer and leakage are judged in the driver.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from shardwright.embeddings.sampling import sample_keys
from shardwright.errors import UserError
from shardwright.metadata.catalog import quoted
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import (
    DEVICE_ATTRIBUTION,
    DEVICE_GROUPS,
    DEVICE_LEAKAGE,
    DEVICE_SHIFT,
    DEVICE_TRANSFER,
    device_statistics,
)
from shardwright.pipelines.alive import drop_parameters, drops_query
from shardwright.pipelines.device_pairs import ComparePair, adjusted, pairs, write_images
from shardwright.pipelines.devices import MeasureDevices, Sample
from shardwright.pipelines.encoding import Encoding, encoding
from shardwright.pipelines.jobs import Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.quality_sections import Heterogeneity
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.vectors import matrix

VERSION = "2"
_MEASURED = "device_statistics"
_FOUND = {
    "device_groups": DEVICE_GROUPS,
    "device_shift": DEVICE_SHIFT,
    "device_attribution": DEVICE_ATTRIBUTION,
    "device_transfer": DEVICE_TRANSFER,
    "device_leakage": DEVICE_LEAKAGE,
}
_ALPHA = 0.05
"""The adjusted p up to which stages are named."""
_IMAGES = 64
_LABELLED = 50_000
"""Labelled images that leakage is judged on at the most."""


def run_heterogeneity(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    settings = run.recipe.heterogeneity
    if settings is None:
        for table in (_MEASURED, *_FOUND):
            run.drop(table)
        return
    records = run.layout.need("records", "ingest")
    measured = _measure(run, settings, records, progress)
    optional = [run.layout.manifest(name) for name in ("embeddings", "clusters")]
    there = [table for table in optional if table is not None]
    if settings.match == "cluster" and all(table.table != "clusters" for table in there):
        raise UserError(
            "heterogeneity.match cluster: there are no clusters; give embedding and clusters, or "
            "match by label"
        )
    inputs = [records, measured, *there, *drops_query(run, "heterogeneity")[1]]
    parameters = {**settings.model_dump(mode="json"), **drop_parameters(run)}
    comparison = _Comparison(
        run,
        settings,
        inputs,
        progress,
        fingerprint(
            version=VERSION,
            parameters=parameters,
            inputs={table.table: table.content_sha256 for table in inputs},
        ),
    )
    commit_query(
        run,
        "heterogeneity",
        VERSION,
        {name: (schema, f"SELECT * FROM found_{name}") for name, schema in _FOUND.items()},
        parameters=parameters,
        inputs=inputs,
        prepare=comparison.find,
    )
    shutil.rmtree(comparison.folder, ignore_errors=True)
    shutil.rmtree(run.layout.staging("device_pairs"), ignore_errors=True)
    progress.records = measured.rows


def _measure(
    run: Run, settings: Heterogeneity, records: Manifest, progress: StageProgress
) -> Manifest:
    """Commits ``device_statistics``: a part for each part of records."""
    from shardwright.quality.heterogeneity.device_statistics import STATISTICS

    started = time.time()
    decisive = {"group": settings.group}

    def tasks() -> Iterator[Task]:
        for part in records.parts():
            if part.key != "empty":
                file = None if part.file is None else str(records.folder / part.file)
                yield Task(
                    part.key,
                    fingerprint(stage=_MEASURED, version=VERSION, records=part.sha256, **decisive),
                    {"records": file},
                    part.bytes,
                )

    schema = device_statistics([one.name for one in STATISTICS])
    job = run.plan(_MEASURED, {_MEASURED: schema}, tasks())
    run.execute("heterogeneity", job, MeasureDevices(settings.group), progress)
    progress.bytes = job.bytes
    origin = run.origin("heterogeneity", VERSION, decisive, [records], started)
    return run.commit(job, origin)[_MEASURED]


@dataclass(frozen=True)
class _Comparison:
    """The comparison of groups."""

    run: Run
    settings: Heterogeneity
    inputs: list[Manifest]
    progress: StageProgress
    work: str

    @property
    def folder(self) -> Path:
        """Where the sample lies."""
        return self.run.layout.staging("heterogeneity")

    def find(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Makes ``found_<table>`` for every table."""
        names = {table.table for table in self.inputs}
        drops, _ = drops_query(self.run, "heterogeneity")
        cluster = "cluster::VARCHAR" if "clusters" in names else "NULL::VARCHAR"
        joined = "LEFT JOIN clusters USING (record_id)" if "clusters" in names else ""
        connection.execute(
            f'CREATE TEMP TABLE members AS SELECT record_id, "group", label, {cluster} AS cluster '
            "FROM device_statistics JOIN records USING (record_id) "
            f"{joined} ANTI JOIN ({drops}) AS gone USING (record_id)"
        )
        compared = self._groups(connection)
        sample = self._sample(connection, compared, "embeddings" in names)
        shift, attribution = self._shift(sample, compared)
        self._show(connection, "device_shift", shift)
        self._show(connection, "device_attribution", attribution)
        self._show(connection, "device_transfer", self._transfer(sample))
        self._show(connection, "device_leakage", self._leakage(connection))

    def _show(
        self, connection: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]
    ) -> None:
        connection.register(f"found_{table}", pa.Table.from_pylist(rows, _FOUND[table]))

    def _groups(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """Counts groups, largest first; those that are compared."""
        counted = connection.execute(
            'SELECT "group", count(*) FROM members GROUP BY ALL ORDER BY count(*) DESC, "group"'
        ).fetchall()
        settings = self.settings
        enough = [name for name, count in counted if name is not None and count >= settings.least]
        compared = enough[: settings.groups]
        self._show(
            connection,
            "device_groups",
            [
                {
                    "group": name,
                    "records": count,
                    "enough": name is not None and count >= settings.least,
                    "compared": name in compared and len(compared) > 1,
                }
                for name, count in counted
            ],
        )
        note = self.run.reporter.note
        small = sum(name is not None for name, _ in counted) - len(enough)
        if small:
            note(
                f"heterogeneity: not enough data in {small} of {small + len(enough)} groups: "
                f"fewer than {settings.least} live images"
            )
        if len(enough) > len(compared):
            note(f"heterogeneity: the {len(compared)} largest of {len(enough)} groups are compared")
        return compared if len(compared) > 1 else []

    def _sample(
        self, connection: duckdb.DuckDBPyConnection, compared: list[str], embedded: bool
    ) -> Sample | None:
        """Live images of the compared groups; None where there is nothing to compare."""
        if not compared:
            return None
        settings = self.settings
        chosen: list[str] = []
        shown: list[tuple[str, str]] = []
        for name in compared:
            ids = _arrow(
                connection, f'SELECT record_id FROM members WHERE "group" = {quoted(name)}'
            ).column("record_id")
            keys = sample_keys(ids, settings.seed)
            order = np.argsort(keys, kind="stable")[: settings.most]
            mine = ids.take(pa.array(order)).to_pylist()
            chosen += mine
            shown += [(name, record_id) for record_id in mine[: settings.images]]
        connection.register("chosen", pa.table({"record_id": chosen}))
        vector = ", vector" if embedded else ""
        joined = "JOIN embeddings USING (record_id)" if embedded else ""
        table = _arrow(
            connection,
            f"SELECT m.label, m.cluster, d.*{vector} FROM chosen JOIN members AS m "
            "USING (record_id) JOIN device_statistics AS d USING (record_id) "
            f"{joined} ORDER BY record_id",
        )
        labels = table.column("label").to_pylist()
        match = settings.match
        if match == "auto":
            match = "label" if any(label is not None for label in labels) else "cluster"
        strata = None if match is None else table.column(match).to_pylist()
        if strata is not None and not any(stratum is not None for stratum in strata):
            strata = None
        known = {"label", "cluster", "record_id", "group", "vector"}
        statistics = [name for name in table.column_names if name not in known]
        found = Sample(
            table.column("record_id").to_pylist(),
            table.column("group").to_pylist(),
            labels,
            strata,
            np.column_stack(
                [table.column(name).to_numpy().astype(np.float64) for name in statistics]
            ),
            matrix(table.column("vector").combine_chunks()).astype(np.float32)
            if embedded
            else None,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        found.save(self._path)
        if shown:
            groups, ids = (list(column) for column in zip(*shown, strict=True))
            connection.register("shown", pa.table({"name": groups, "record_id": ids}))
            query = (
                "SELECT name, record_id, image FROM shown JOIN records USING (record_id) "
                "ORDER BY name, record_id"
            )
            batches = connection.sql(query).to_arrow_reader(_IMAGES)
            write_images(
                self._images,
                (
                    (row["name"], row["record_id"], row["image"])
                    for batch in batches
                    for row in batch.to_pylist()
                ),
            )
        return found

    @property
    def _path(self) -> Path:
        return self.folder / f"sample-{self.work[:16]}.parquet"

    @property
    def _images(self) -> Path:
        return self.folder / f"images-{self.work[:16]}.parquet"

    def _shift(
        self, sample: Sample | None, compared: list[str]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of ``device_shift`` and ``device_attribution``, pairs in the order of names."""
        from shardwright.quality.heterogeneity.multiplicity import adjust
        from shardwright.quality.heterogeneity.shift import Settings

        if sample is None:
            return [], []
        settings = Settings(
            least=self.settings.least,
            most=self.settings.most,
            permutations=self.settings.permutations,
            frechet_permutations=min(self.settings.permutations, 99),
            correction=self.settings.correction,
            seed=self.settings.seed,
        )
        tasks = (
            Task(
                f"{number:08d}",
                fingerprint(job="device_pairs", work=self.work, pair=pair),
                {"pair": pair},
                1,
            )
            for number, pair in enumerate(pairs(compared))
        )
        job = self.run.plan("device_pairs", {}, tasks, staged_only=True)
        images = self._images if self.settings.images else None
        with self._encoding(sample) as how:
            work = ComparePair(self._path, images, settings, how)
            self.run.execute("heterogeneity", job, work, self.progress)
        found = [left for _, left in job.results()]
        rows = [row for left in found for row in left["shift"]]
        for note in sorted({note for left in found for note in left["notes"]}):
            self.run.reporter.note(f"heterogeneity: {note}")
        named = list(zip(pairs(compared), found, strict=True))
        tested = [(pair, left) for pair, left in named if left["p_value"] is not None]
        values = adjust([left["p_value"] for _, left in tested], self.settings.correction)
        stages = [
            {"group_a": a, "group_b": b, "rank": rank, "stage": stage, "share": share}
            for ((a, b), left), p in zip(tested, values, strict=True)
            if p <= _ALPHA
            for rank, (stage, share) in enumerate(left["stages"], 1)
        ]
        return adjusted(rows, self.settings.correction), stages

    @contextmanager
    def _encoding(self, sample: Sample) -> Iterator[Encoding | None]:
        if sample.vectors is None:
            yield None
        else:
            with encoding(self.run) as how:
                yield how

    def _transfer(self, sample: Sample | None) -> list[dict[str, Any]]:
        from shardwright.quality.heterogeneity.transfer import transfer

        if sample is None or sample.vectors is None:
            return []
        found = transfer(
            sample.record_ids,
            sample.groups,
            sample.labels,
            sample.vectors,
            seed=self.settings.seed,
        )
        if found.missing is not None:
            self.run.reporter.note(f"heterogeneity: no transfer: {found.missing}")
        return [asdict(row) for row in found.rows]

    def _leakage(self, connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
        from shardwright.quality.heterogeneity.leakage import label_leakage

        table = _arrow(
            connection,
            'SELECT record_id, "group", label FROM members '
            'WHERE "group" IS NOT NULL AND label IS NOT NULL',
        )
        keys = sample_keys(table.column("record_id"), self.settings.seed)
        some = table.take(pa.array(np.argsort(keys, kind="stable")[:_LABELLED]))
        groups, labels = (some.column(name).to_pylist() for name in ("group", "label"))
        if len(set(groups)) < 2 or len(set(labels)) < 2:
            return []
        found = label_leakage(
            groups,
            labels,
            permutations=self.settings.permutations,
            seed=self.settings.seed,
        )
        return [asdict(found)]


def _arrow(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    reader: pa.RecordBatchReader = connection.sql(query).to_arrow_reader()
    return reader.read_all()
