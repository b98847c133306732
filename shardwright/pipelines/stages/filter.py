"""``filter``: what each quality filter measures of each record; bounds are applied when read."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import blob, filter_scores
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run
from shardwright.quality.filters import filter_packages, filters, measure_code, measure_image

VERSION = "1"
_ROWS = 256


@dataclass(frozen=True)
class MeasurePart:
    """Measures the records of a part."""

    modality: str
    kinds: dict[str, str]

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` into ``filter_scores``."""
        if payload["records"] is None:
            return
        schema = filter_scores(self.kinds)
        columns = ["record_id", blob(self.modality)]
        columns += ["language"] if self.modality == "code" else []
        for batch in read_batches(Path(payload["records"]), columns, rows=_ROWS):
            measured = [self._measure(batch, row) for row in range(batch.num_rows)]
            values = [
                pa.array([one[name] for one in measured], schema.field(name).type)
                for name in self.kinds
            ]
            output.write(
                "filter_scores",
                pa.RecordBatch.from_arrays([batch.column("record_id"), *values], schema=schema),
            )

    def _measure(self, batch: pa.RecordBatch, row: int) -> dict[str, float | str | None]:
        data = batch.column(1)[row].as_buffer().to_pybytes()
        if self.modality == "code":
            return measure_code(tuple(self.kinds), data, batch.column("language")[row].as_py())
        return measure_image(tuple(self.kinds), data)


def parameters(run: Run, kinds: dict[str, str]) -> dict[str, Any]:
    """What decides the measurements: the filters, and the packages of those that are added."""
    packages = filter_packages(run.recipe.modality, kinds)
    return {"filters": sorted(kinds), **({"packages": packages} if packages else {})}


def plan(run: Run, records: Manifest, kinds: dict[str, str]) -> Iterator[Task]:
    """A part of measurements for each part of records, whoever is dropped."""
    decisive = parameters(run, kinds)
    for part in records.parts():
        if part.key != "empty":
            file = None if part.file is None else str(records.folder / part.file)
            yield Task(
                part.key,
                fingerprint(stage="filter", version=VERSION, records=part.sha256, **decisive),
                {"records": file},
                part.bytes,
            )


def run_filter(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    started = time.time()
    if not run.recipe.filters:
        run.drop("filter_scores")
        return
    records = run.layout.need("records", "ingest")
    known = filters(run.recipe.modality)
    kinds = {item.name: known[item.name].kind for item in run.recipe.filters}
    kinds = dict(sorted(kinds.items()))
    job = run.plan("filter", {"filter_scores": filter_scores(kinds)}, plan(run, records, kinds))
    run.execute("filter", job, MeasurePart(run.recipe.modality, kinds), progress)
    origin = run.origin("filter", VERSION, parameters(run, kinds), [records], started)
    table = run.commit(job, origin)["filter_scores"]
    progress.records, progress.bytes = table.rows, job.bytes
