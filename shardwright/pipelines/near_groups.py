"""The driver's side of the near duplicates: from numbered records to groups.

What a step makes is staged under a name that says all that decided it, so that a run that was cut
off goes on where it stopped. Relations live in DuckDB, which works out of core.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import duckdb

from shardwright.metadata.bucketed import list_bucketed, open_listed
from shardwright.metadata.catalog import file_literal, quoted
from shardwright.metadata.files import write_whole
from shardwright.metadata.schemas import SKETCH
from shardwright.pipelines.equal_groups import find_alike, group_alike
from shardwright.pipelines.jobs import Job
from shardwright.pipelines.near import (
    BUCKET_ROWS,
    BandPart,
    PairBucket,
    VerifyPart,
    bucket_tasks,
    part_tasks,
    verify_tasks,
)
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import resting
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Near
from shardwright.quality.groups import by_components, greedy
from shardwright.quality.minhash import banding

JOBS = ("bands", "pairs", "verify", "verify-groups")


@dataclass(frozen=True)
class NearSearch:
    """Finds near duplicates among ``vertices(vertex, part, row)``, rows of signatures.

    The signatures are the view ``hashed``. Vertices of one ``near_key`` have the same signature,
    and so the same neighbours: only the lowest of them, their leader, is compared. A vertex without
    a key is near to nothing.

    Attributes:
        run: The run.
        near: What counts as near.
        files: Signatures of each part that ``vertices`` names; None where it has no rows.
        settled: Vertices below are of earlier curations.
        work: Hash of everything that decides the result.
    """

    run: Run
    near: Near
    files: Sequence[Path | None]
    settled: int
    work: str

    @property
    def least(self) -> float:
        """Similarity from which on two records are near."""
        image = self.run.recipe.modality == "image"
        return 1 - self.near.radius / 64 if image else self.near.threshold

    def find(self, connection: duckdb.DuckDBPyConnection, progress: StageProgress) -> None:
        """Makes ``groups(vertex, representative, similarity)`` and ``removed(semantics, removed)``.

        ``groups`` holds every vertex that the chosen semantics drops.
        """
        keys = "SELECT part, row, record_id, near_key AS key FROM hashed"
        find_alike(connection, keys, "same_signature")
        group_alike(connection, "same_signature", "vertices", "led")
        connection.execute(
            """
            DROP TABLE same_signature;
            CREATE OR REPLACE TABLE leaders AS FROM vertices
              ANTI JOIN (SELECT vertex FROM led WHERE vertex <> least) USING (vertex)"""
        )
        listing = self._bands(connection, progress)
        pairs = self._pairs(connection, listing, progress)
        scanned = ", ".join(file_literal(path) for path in pairs)
        connection.execute("CREATE OR REPLACE TABLE edges(a BIGINT, b BIGINT, similarity DOUBLE)")
        if pairs:
            candidates = f"SELECT DISTINCT a, b FROM read_parquet([{scanned}])"
            edges = self._verified(connection, "verify", candidates, self.least, progress)
            connection.execute(f"INSERT INTO edges FROM {edges}")
        self._group(connection, progress)
        self._follow(connection)

    def _follow(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Those of one signature go wherever their leader goes, or for it."""
        connection.execute(
            f"""
            CREATE OR REPLACE TABLE followers AS
              SELECT vertex, least FROM led WHERE vertex <> least AND vertex >= {self.settled};
            INSERT INTO groups
              SELECT f.vertex, coalesce(representative, least), coalesce(similarity, 1.0)
              FROM followers f LEFT JOIN groups g ON g.vertex = least;
            UPDATE removed SET removed = removed + (SELECT count(*) FROM followers)"""
        )

    def _group(self, connection: duckdb.DuckDBPyConnection, progress: StageProgress) -> None:
        """Both semantics, so that what the other one would do can be said."""
        by_components(connection, "edges", "connected", self.settled)
        greedy(connection, "edges", "greedily", self.settled)
        connection.execute(
            """CREATE OR REPLACE TABLE removed AS
            SELECT 'greedy' AS semantics, count(*) AS removed FROM greedily
            UNION ALL SELECT 'components', count(*) FROM connected"""
        )
        if self.near.semantics == "greedy":
            connection.execute("CREATE OR REPLACE TABLE groups AS FROM greedily")
            return
        # the ends of a chain are no pair so far: how similar they are is measured, whatever it is
        open_pairs = (
            "SELECT representative AS a, vertex AS b FROM connected WHERE similarity IS NULL"
        )
        measured = "(SELECT 0::BIGINT AS a, 0::BIGINT AS b, 0::DOUBLE AS similarity WHERE false)"
        if connection.execute(f"SELECT count(*) FROM ({open_pairs})").fetchall()[0][0]:
            measured = self._verified(connection, "verify-groups", open_pairs, 0.0, progress)
        connection.execute(
            f"""CREATE OR REPLACE TABLE groups AS
            SELECT vertex, representative, coalesce(d.similarity, m.similarity) AS similarity
            FROM connected d LEFT JOIN {measured} m ON a = representative AND b = vertex"""
        )

    def _bands(self, connection: duckdb.DuckDBPyConnection, progress: StageProgress) -> Path:
        """Band keys by bucket: the list of their files."""
        folder = self.run.layout.staging("bands")
        folder.mkdir(parents=True, exist_ok=True)
        vertices = folder / f"vertices-{self.work[:16]}.parquet"
        count = connection.execute("SELECT count(*) FROM leaders").fetchall()[0][0]
        connection.execute(
            "COPY (SELECT part, row, vertex FROM leaders ORDER BY part, row) "
            f"TO {quoted(str(vertices))} (FORMAT parquet)"
        )
        keys = comb(self.near.radius + 2, 2)
        if self.run.recipe.modality == "code":
            keys = banding(self.near.threshold, SKETCH).bands
        buckets = 4
        while buckets * BUCKET_ROWS < count * keys:
            buckets *= 2
        tasks = part_tasks("bands", self.work, self.files)
        job = self.run.plan("bands", {}, tasks, staged_only=True)
        work = BandPart(self.run.recipe.modality, self.near, vertices, buckets)
        self._execute(connection, job, work, progress)
        return list_bucketed(_files(job), buckets, folder)

    def _pairs(
        self, connection: duckdb.DuckDBPyConnection, listing: Path, progress: StageProgress
    ) -> list[Path]:
        """Files of the pairs that share a key."""
        if not json.loads(listing.read_text()):
            return []
        buckets = open_listed(listing).buckets.tolist()
        job = self.run.plan("pairs", {}, bucket_tasks(self.work, buckets), staged_only=True)
        work = PairBucket(self.run.recipe.modality, self.near, self.settled, listing)
        self._execute(connection, job, work, progress)
        for name in ("hot", "candidates"):
            progress.details[name] = sum(result[name] for _, result in job.results())
        return _files(job)

    def _verified(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        pairs: str,
        least: float,
        progress: StageProgress,
    ) -> str:
        """The pairs (a, b) of a query whose similarity is at least ``least``, as a relation."""
        folder = self.run.layout.staging(name)
        folder.mkdir(parents=True, exist_ok=True)
        placed = folder / f"placed-{self.work[:16]}.parquet"
        connection.execute(
            f"""COPY (
              SELECT l.part AS part_a, l.row AS row_a, r.part AS part_b, r.row AS row_b, a, b
              FROM ({pairs}) JOIN leaders l ON l.vertex = a JOIN leaders r ON r.vertex = b
              ORDER BY part_a, part_b, a, b)
            TO {quoted(str(placed))} (FORMAT parquet)"""
        )
        others: dict[int, list[int]] = {}
        for part, other in connection.execute(
            f"SELECT DISTINCT part_a, part_b FROM read_parquet({file_literal(placed)})"
        ).fetchall():
            others.setdefault(part, []).append(other)
        listing = _listed(folder / f"files-{self.work[:16]}.json", self.files)
        tasks = verify_tasks(name, self.work, others)
        job = self.run.plan(name, {}, tasks, staged_only=True)
        work = VerifyPart(self.run.recipe.modality, least, placed, listing)
        self._execute(connection, job, work, progress)
        files = ", ".join(file_literal(path) for path in _files(job))
        if not files:
            return "(SELECT 0::BIGINT AS a, 0::BIGINT AS b, 0::DOUBLE AS similarity WHERE false)"
        return f"read_parquet([{files}])"

    def _execute(
        self,
        connection: duckdb.DuckDBPyConnection,
        job: Job,
        work: BandPart | PairBucket | VerifyPart,
        progress: StageProgress,
    ) -> None:
        with resting(connection):
            self.run.execute("duplicates", job, work, progress)


def clear_search(run: Run) -> None:
    """Removes what is staged, once the groups are committed."""
    for name in JOBS:
        shutil.rmtree(run.layout.staging(name), ignore_errors=True)


def _files(job: Job) -> list[Path]:
    return [job.folder / result["file"] for _, result in job.results()]


def _listed(path: Path, files: Sequence[Path | None]) -> Path:
    write_whole(path, json.dumps([None if file is None else str(file) for file in files]))
    return path
