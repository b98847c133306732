"""One run of a recipe into an output folder: what every stage is handed."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from shardwright.embeddings.encoder import Encoder
from shardwright.embeddings.model import Model
from shardwright.errors import UserError
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest, Origin
from shardwright.pipelines.execution import pipeline_options, run_each
from shardwright.pipelines.jobs import Job, Task, Work, commit_job, plan_job
from shardwright.pipelines.progress import Reporter, StageProgress
from shardwright.pipelines.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """A recipe, where its output goes, and how to run it."""

    recipe: Recipe
    layout: Layout
    beam_arguments: Sequence[str] = ()
    limit: int | None = None
    force: bool = False
    reporter: Reporter = field(default_factory=Reporter)

    @property
    def model(self) -> Model:
        """The recipe's model.

        Raises:
            UserError: It has none.
        """
        embedding = self.recipe.embedding
        if embedding is None:
            raise UserError("embedding is null in the recipe; set embedding.model to embed")
        return Model(
            embedding.model,
            self.recipe.modality,
            embedding.device,
            embedding.dtype,
            embedding.batch_size,
            embedding.options,
        )

    @cached_property
    def encoder(self) -> Encoder:
        """The recipe's encoder, loaded once in the driver."""
        return self.model.load()

    def plan(
        self, name: str, schemas: Mapping[str, pa.Schema], tasks: Iterable[Task], **options: Any
    ) -> Job:
        """Plans a job; see ``plan_job``."""
        return plan_job(self.layout, name, schemas, tasks, force=self.force, **options)

    def execute(self, stage: str, job: Job, work: Work, progress: StageProgress) -> None:
        """Runs a job's open tasks as one Beam job."""
        progress.parts += len(job.tasks)
        progress.reused += len(job.tasks) - len(job.todo)
        if not job.todo:
            return
        arguments = [
            *self.recipe.runner.get("all", ()),
            *self.recipe.runner.get(stage, ()),
            *self.beam_arguments,
        ]
        options = pipeline_options(arguments, len(job.todo), job.todo_bytes)
        before = job.staged_bytes()
        with progress.watch(job.folder, len(job.todo)):
            try:
                run_each(stage, job.todo, job.runner(work), options)
            except Exception:
                job.raise_fault()
                raise
        progress.shuffled += job.staged_bytes() - before

    def commit(self, job: Job, origin: Origin) -> dict[str, Manifest]:
        """Commits a job's tables and clears its staging."""
        if not job.is_current(origin):
            self.incomplete()
        manifests = commit_job(job, origin)
        shutil.rmtree(job.folder)
        return manifests

    def drop(self, table: str) -> None:
        """Removes a table that the recipe no longer asks for."""
        if self.layout.table(table).exists():
            self.incomplete()
            self.layout.drop_table(table)

    def incomplete(self) -> None:
        """Says that the curation is being changed; ``describe`` says when it is whole again."""
        self.layout.croissant.unlink(missing_ok=True)
        self.layout.published.unlink(missing_ok=True)

    def origin(
        self,
        stage: str,
        version: str,
        parameters: Mapping[str, Any],
        inputs: Iterable[Manifest],
        started: float,
    ) -> Origin:
        """Where the tables that a stage is about to commit come from."""
        return Origin(
            stage,
            version,
            dict(parameters),
            {manifest.table: manifest.content_sha256 for manifest in inputs},
            started,
            time.time(),
        )


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Holds an output folder for one run; the lock dies with the process.

    Raises:
        UserError: Another run holds it, or it cannot be written to.
    """
    path = root / ".staging" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}; name an output folder to write to") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{root}: another run is writing here; wait for it or choose another --output"
            ) from None
        yield
    finally:
        os.close(handle)
