"""OpenLineage events of a curation: what each stage read and wrote, to a file or an endpoint.

What an event says of tables is read from their manifests. A curation is a run, and so is each of
its stages, whose parent it is. What started it names its own run in ``OPENLINEAGE_PARENT_ID``, as
Airflow's macros write it. The first event must arrive; one that is lost later is a line on stderr,
and does not stop what may have run for hours.
"""

import json
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import pyarrow as pa

import shardwright
from shardwright.errors import DataError, UserError
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.files import canonical_json, sha256_file
from shardwright.metadata.layout import TABLES, Layout
from shardwright.metadata.manifest import Manifest, Origin
from shardwright.metadata.provenance import read_elsewhere
from shardwright.metadata.vocabulary import COLUMNS

Stages: TypeAlias = Callable[[str], AbstractContextManager[object]]
"""Gives for a stage's name the context that it runs in."""

_WEB = ("http://", "https://")
_SECRET = re.compile(r"://[^/@\s]*@")


@contextmanager
def told_stages(
    target: str | None, layout: Layout, recipe: Mapping[str, Any], note: Callable[[str], None]
) -> Iterator[Stages]:
    """Tells of a curation for as long as the context lasts.

    Args:
        target: A file, to whose end events are put as JSON lines, or the address of a server of
            OpenLineage; None tells nobody.
        layout: The output folder.
        recipe: The resolved recipe.
        note: Shows the user a line.

    Yields:
        What gives each stage its context: it tells of the start, and of how the stage ends.

    Raises:
        UserError: ``target`` cannot be written to, the client is not installed, or the environment
            names a run in another form than it should.
    """
    if target is None:
        yield lambda _: nullcontext()
        return
    parent, root = _run_above("OPENLINEAGE_PARENT_ID"), _run_above("OPENLINEAGE_ROOT_PARENT_ID")
    namespace = os.environ.get("OPENLINEAGE_NAMESPACE", "shardwright")
    teller = _Teller(_client(target), target, layout, recipe, note, namespace)
    name = str(recipe["name"])
    try:
        with teller.told(_Job(name, None, parent, root)) as run:
            whole = _Run(namespace, name, run)
            root = root if parent is not None else whole
            yield lambda stage: teller.told(_Job(f"{name}.{stage}", stage, whole, root))
    finally:
        teller.client.close()


@dataclass(frozen=True)
class _Run:
    """A run of a job, by the names that OpenLineage knows it by."""

    namespace: str
    job: str
    id: str


def _run_above(variable: str) -> _Run | None:
    """The run that an environment variable names as NAMESPACE/JOB/RUN.

    That is the form of Airflow's macros ``lineage_parent_id`` and ``lineage_root_parent_id``, and
    the variables are those that OpenLineage's dbt integration reads. A namespace may hold '/'.

    Raises:
        UserError: It is of another form.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    namespace, job, run = (["", "", *value.rsplit("/", 2)])[-3:]
    try:
        run = str(UUID(run))
    except ValueError:
        run = ""
    if not (namespace and job and run):
        raise UserError(
            f"{variable} {value!r}: names no run; write NAMESPACE/JOB/RUN with the UUID of the run"
        )
    return _Run(namespace, job, run)


@dataclass(frozen=True)
class _Job:
    """What runs: a curation or one of its stages, with what started it and the first of all."""

    name: str
    stage: str | None
    parent: _Run | None
    root: _Run | None


class _Teller:
    """Sends the events of one curation."""

    def __init__(
        self,
        client: Any,
        target: str,
        layout: Layout,
        recipe: Mapping[str, Any],
        note: Callable[[str], None],
        namespace: str,
    ) -> None:
        self.client = client
        self._target = _SECRET.sub("://", target)
        self._layout = layout
        self._recipe = recipe
        self._note = note
        self._arrived = False
        self._namespace = namespace

    @contextmanager
    def told(self, job: _Job) -> Iterator[str]:
        """Tells of a job's start and of its end; yields the id of its run."""
        from openlineage.client.uuid import generate_new_uuid

        run = str(generate_new_uuid())
        self._send(job, run, "START")
        try:
            yield run
        except Exception as error:
            self._send(job, run, "FAIL", error)
            raise
        except BaseException:  # interrupted
            self._send(job, run, "ABORT")
            raise
        self._send(job, run, "COMPLETE")

    def _send(self, job: _Job, run: str, state: str, error: Exception | None = None) -> None:
        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState

        origins, inputs, outputs = self._datasets(job) if state == "COMPLETE" else ([], [], [])
        event = RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            eventType=RunState[state],
            run=Run(run, self._run_facets(job, error)),
            job=Job(self._namespace, job.name, _job_facets(job, origins)),
            inputs=inputs,
            outputs=outputs,
            producer=f"urn:shardwright:{shardwright.__version__}",
        )
        try:
            self.client.emit(event)
            self._arrived = True
        except Exception as problem:  # whatever a transport raises
            why = _SECRET.sub("://", " ".join(f"{problem}".split()))[:300]
            said = f"--openlineage {self._target}: {why or type(problem).__name__}"
            if not self._arrived:
                raise UserError(f"{said}; name a file, or the address of a server") from None
            self._note(f"{said}; the event {state} of {job.name} is lost")

    def _run_facets(self, job: _Job, error: Exception | None) -> dict[str, Any]:
        from openlineage.client.facet_v2 import (
            error_message_run,
            parent_run,
            processing_engine_run,
        )

        facets: dict[str, Any] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version("apache-beam"), "Apache Beam", shardwright.__version__
            )
        }
        if job.parent is not None:
            parent, root = job.parent, job.root
            facets["parent"] = parent_run.ParentRunFacet(
                parent_run.Run(parent.id),
                parent_run.Job(parent.namespace, parent.job),
                parent_run.Root(
                    parent_run.RootRun(root.id), parent_run.RootJob(root.namespace, root.job)
                )
                if root is not None
                else None,
            )
        if error is not None:
            expected = isinstance(error, UserError | DataError)
            trace = None if expected else "".join(traceback.format_exception(error))
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                _SECRET.sub("://", str(error)),
                "Python",
                None if trace is None else _SECRET.sub("://", trace),
            )
        return facets

    def _datasets(self, job: _Job) -> tuple[list[Origin], list[Any], list[Any]]:
        """What a stage has written, and from what."""
        made: list[tuple[Origin, str, Any]] = []
        for manifest in self._layout.manifests():
            if manifest.origin.stage == job.stage:
                made.append((manifest.origin, manifest.table, self._table(manifest)))
        for name, folder in self._layout.folders.items():
            listed = read_file_list(folder)
            if listed is not None and listed.origin.stage == job.stage:
                size = sum(file.bytes for file in listed.files)
                rows = sum(file.rows for file in listed.shards)
                output = _output(folder, None, rows, size, len(listed.files))
                made.append((listed.origin, name, output))
        outputs = [output for _, _, output in made]
        if job.stage == "describe" and self._layout.croissant.exists():
            path = self._layout.croissant
            outputs.append(_output(path, sha256_file(path), None, path.stat().st_size, 1))
        read = read_elsewhere((origin, name) for origin, name, _ in made)
        inputs = [self._input(name, sha256) for name, sha256 in read]
        if job.stage == "ingest":
            inputs.append(_source(str(self._recipe["source"]["uri"])))
        return [origin for origin, _, _ in made], inputs, outputs

    def _table(self, manifest: Manifest) -> Any:
        return _output(
            manifest.folder,
            manifest.content_sha256,
            manifest.rows,
            manifest.bytes,
            sum(1 for part in manifest.parts() if part.file is not None),
            manifest.schema,
        )

    def _input(self, name: str, sha256: str) -> Any:
        from openlineage.client.event_v2 import InputDataset

        place = ("shardwright", name)
        manifest = None
        if name in TABLES:
            place = _named(self._layout.table(name))
            manifest = self._layout.manifest(name)
        schema = None if manifest is None else manifest.schema
        return InputDataset(*place, facets=_facets(sha256, schema))


def _client(target: str) -> Any:
    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.transport.file import FileConfig, FileTransport
        from openlineage.client.transport.http import HttpConfig, HttpTransport
    except ImportError:
        raise UserError(
            "--openlineage needs the package openlineage-python; "
            "pip install 'shardwright[openlineage]'"
        ) from None
    if not target.startswith(_WEB):
        if "://" in target and not target.startswith("file://"):
            raise UserError(
                f"--openlineage {_SECRET.sub('://', target)}: name a local file, or http(s)://"
            )
        path = urlsplit(target).path if target.startswith("file://") else target
        transport = FileTransport(FileConfig(os.path.abspath(path), append=True))
        return OpenLineageClient(transport=transport)
    parts = urlsplit(target)
    web: dict[str, Any] = {"url": f"{parts.scheme}://{parts.netloc}"}
    if parts.path.strip("/"):
        web["endpoint"] = parts.path.lstrip("/")
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        web["auth"] = {"type": "api_key", "apiKey": key}
    return OpenLineageClient(transport=HttpTransport(HttpConfig.from_dict(web)))


def _job_facets(job: _Job, origins: list[Origin]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import job_type_job, source_code_job

    kind = "CURATION" if job.stage is None else "STAGE"
    facets: dict[str, Any] = {"jobType": job_type_job.JobTypeJobFacet("BATCH", "SHARDWRIGHT", kind)}
    if origins:
        parameters = {canonical_json(origin.parameters) for origin in origins}
        code = {
            "shardwright": shardwright.__version__,
            "stage": job.stage,
            "version": origins[0].version,
            "parameters": [json.loads(text) for text in sorted(parameters)],
        }
        facets["sourceCode"] = source_code_job.SourceCodeJobFacet("JSON", canonical_json(code))
    return facets


def _output(
    path: Path,
    sha256: str | None,
    rows: int | None,
    size: int,
    files: int,
    schema: pa.Schema | None = None,
) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rows, size, files
    )
    return OutputDataset(
        *_named(path),
        facets=_facets(sha256, schema),
        outputFacets={"outputStatistics": statistics},
    )


def _facets(sha256: str | None, schema: pa.Schema | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    facets: dict[str, Any] = {}
    if sha256 is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(sha256)
    if schema is not None:
        fields = [
            schema_dataset.SchemaDatasetFacetFields(
                field.name, str(field.type), COLUMNS.get(field.name), place
            )
            for place, field in enumerate(schema, start=1)
        ]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields)
    return facets


def _source(uri: str) -> Any:
    from openlineage.client.event_v2 import InputDataset

    parts = urlsplit(uri)
    if not parts.scheme or not uri.startswith(f"{parts.scheme}://") or parts.scheme == "file":
        path = parts.path if uri.startswith("file://") else uri
        return InputDataset(*_named(Path(path)))
    host = parts.netloc.rpartition("@")[2]
    return InputDataset(f"{parts.scheme}://{host}", parts.path.lstrip("/") or "/")


def _named(path: Path) -> tuple[str, str]:
    """Namespace and name of a local path, as OpenLineage has them."""
    return "file", os.path.abspath(path)
