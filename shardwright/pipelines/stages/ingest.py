"""``ingest``: raw inputs become ``records``, or rows of ``rejects`` that say why not."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from shardwright.errors import DataError
from shardwright.metadata.catalog import connect, name_parts, scan
from shardwright.metadata.files import fingerprint, write_whole
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.provenance import SOURCE_CROISSANT
from shardwright.metadata.schemas import LOOKUP, REJECTS, records
from shardwright.pipelines.ingest import ingest
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.parts import plan_parts
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import SOURCE_KINDS, SOURCES, Limits
from shardwright.pipelines.sources import open_source
from shardwright.pipelines.sources.croissant_document import lineage_document
from shardwright.pipelines.sources.types import Source, Unit
from shardwright.plugins import find

VERSION = "2"


@dataclass(frozen=True)
class IngestPart:
    """Reads a part's units and writes each input as a record or a reject."""

    source: Source
    source_name: str
    modality: str
    limits: Limits

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["units"]`` into ``records`` and ``rejects``."""
        units = [
            Unit(**{**unit, "problem": tuple(unit["problem"]) if unit["problem"] else None})
            for unit in payload["units"]
        ]
        for table, batch in ingest(
            self.source,
            units,
            source_name=self.source_name,
            modality=self.modality,
            limits=self.limits,
        ):
            output.write(table, batch)


def parameters(run: Run) -> dict[str, Any]:
    """Recipe values that decide what the stage writes; where the data lies is not among them."""
    recipe = run.recipe
    added = find(SOURCES, recipe.source.kind, SOURCE_KINDS)
    elsewhere = {"uri", "name", "mapping"}
    if recipe.source.kind != "croissant":
        elsewhere.add("record_set")
    return {
        "modality": recipe.modality,
        "source": recipe.source.model_dump(mode="json", exclude=elsewhere)
        | {"name": recipe.source_name}
        | ({} if added is None else {"package": added.package}),
        "limits": recipe.limits.model_dump(mode="json"),
        "limit": run.limit,
    }


def plan(run: Run) -> Iterator[Task]:
    """The parts of ``records``, in order."""
    recipe = run.recipe
    source = open_source(recipe.source, recipe.limits.max_bytes, recipe.modality)
    settings = parameters(run)
    del settings["limit"]  # it shows in the units
    del settings["limits"]["reject_threshold"], settings["limits"]["part_bytes"]
    tool = {"code": "magika", "image": "pillow"}[recipe.modality]
    decided_by = f"{tool} {version(tool)}"
    for key, units in plan_parts(source.units(run.limit), recipe.limits.part_bytes):
        listed = [vars(unit) for unit in units]
        identity = [{k: v for k, v in unit.items() if k != "location"} for unit in listed]
        yield Task(
            key,
            fingerprint(
                stage="ingest",
                version=VERSION,
                settings=settings,
                tool=decided_by,
                units=identity,
            ),
            {"units": listed},
            sum(unit.size for unit in units),
        )


def run_ingest(run: Run, progress: StageProgress) -> None:
    """Runs the stage.

    Raises:
        UserError: The source cannot be listed.
        DataError: Nothing was found, or more was rejected than ``limits.reject_threshold`` allows.
    """
    started = time.time()
    recipe = run.recipe
    job = run.plan("ingest", {"records": records(recipe.modality), "rejects": REJECTS}, plan(run))
    if not job.tasks:
        raise DataError(
            f"{recipe.source.uri}: nothing in it matches source.include "
            f"{list(recipe.source.include)}; check the folder and the patterns (to take all below "
            "the folders that a glob names, end it in /**)"
        )
    source = open_source(recipe.source, recipe.limits.max_bytes, recipe.modality)
    work = IngestPart(source, recipe.source_name, recipe.modality, recipe.limits)
    run.execute("ingest", job, work, progress)
    origin = run.origin("ingest", VERSION, parameters(run), (), started)
    tables = run.commit(job, origin)
    progress.records = tables["records"].rows + tables["rejects"].rows
    progress.bytes, progress.rejects = job.bytes, tables["rejects"].rows
    _carry_lineage(run)
    _look_up(run, tables["records"])
    _check_ids(run)
    _check_damage(run, tables["records"], tables["rejects"])


def _carry_lineage(run: Run) -> None:
    """Keeps a copy of the Croissant that the records come from, for the one that is to be written.

    It is no part of any table: where the input lies must not decide what is written.
    """
    path = run.layout.root / SOURCE_CROISSANT
    source = run.recipe.source
    text = lineage_document(source.uri) if source.kind == "croissant" else None
    if text == (path.read_text() if path.exists() else None):
        return
    run.incomplete()
    if text is None:
        path.unlink()
    else:
        write_whole(path, text)


def _look_up(run: Run, table: Manifest) -> None:
    """Commits ``lookup``: where each record stands, sorted by id."""
    query = (
        "SELECT record_id, part, file_row_number::INTEGER AS row "
        f"FROM {scan(table, positions=True)} JOIN part_files USING (filename) ORDER BY record_id"
    )
    commit_query(
        run,
        "ingest",
        VERSION,
        {"lookup": (LOOKUP, query)},
        parameters={},
        inputs=[table],
        prepare=lambda connection: name_parts(connection, table),
    )


def _check_ids(run: Run) -> None:
    with connect(run.layout, tables=["lookup"]) as connection:
        twice = connection.execute(
            "SELECT record_id FROM lookup GROUP BY record_id HAVING count(*) > 1 LIMIT 1"
        ).fetchall()
    if twice:
        raise DataError(
            f"record {twice[0][0]}: the source gives two inputs one path; paths must be unique"
        )


def _check_damage(run: Run, accepted: Manifest, rejected: Manifest) -> None:
    with connect(run.layout, tables=["rejects"]) as connection:
        bad, reasons = connection.execute(
            "SELECT coalesce(sum(n), 0)::BIGINT, string_agg(reason || ' ' || n, ', ') FROM "
            "(SELECT reason, count(*) AS n FROM rejects WHERE reason <> 'empty' "
            "GROUP BY reason ORDER BY n DESC, reason)"
        ).fetchone() or (0, "")
    seen = accepted.rows + rejected.rows
    threshold = run.recipe.limits.reject_threshold
    if seen and bad / seen > threshold:
        raise DataError(
            f"{bad} of {seen} inputs rejected ({bad / seen:.1%}: {reasons}), above "
            f"limits.reject_threshold {threshold:g}; look into {run.layout.table('rejects')}, or "
            "raise the threshold"
        )
