"""``semantic``: SemDeDup on clusters of its own.

Records are numbered in the order in which they are preferred for keeping (their *vertex*). What
follows is arithmetic on these numbers; who goes is decided bucket by bucket, and read together in
DuckDB.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.sampling import mixed
from shardwright.errors import UserError
from shardwright.metadata.bucketed import list_bucketed, open_listed
from shardwright.metadata.catalog import file_literal, name_parts, quoted, scan
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.files import fingerprint, write_whole
from shardwright.metadata.layout import opened
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import SEMANTIC_DUPLICATES, SEMANTIC_SUMMARY
from shardwright.pipelines.alive import alive_parts, drops_query
from shardwright.pipelines.clustering import cluster_count, train
from shardwright.pipelines.jobs import Job
from shardwright.pipelines.keep import keep_order
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Semantic
from shardwright.pipelines.semantic import (
    AssignPart,
    CompareBucket,
    SampleBucket,
    SearchPart,
    bucket_tasks,
    part_tasks,
)

VERSION = "1"
# One bucket in so many tells the threshold for a target.
_SAMPLED_BUCKETS = 20

_DUPLICATES = """
SELECT v.record_id, 'semantic' AS kind, r.record_id AS group_id, r.record_id AS representative_id,
  similarity, threshold
FROM gone JOIN numbered v ON v.vertex = gone.vertex JOIN numbered r ON r.vertex = representative,
  decided
UNION ALL
SELECT DISTINCT r.record_id, 'semantic', r.record_id, r.record_id, 1.0::DOUBLE, threshold
FROM gone JOIN numbered r ON r.vertex = representative, decided
UNION ALL
SELECT n.record_id, 'semantic', earlier, earlier, similarity, threshold
FROM known JOIN all_numbered n USING (vertex), decided
ORDER BY group_id, record_id
"""
_SUMMARY = """
SELECT semantics, chosen, removed, threshold, clusters, sampled, crossing, crossing_low,
  crossing_high
FROM removed, decided ORDER BY semantics
"""


def check_semantic(settings: Semantic | None) -> None:
    """Raises UserError if the recipe asks for a device that is not there."""
    if settings is not None and settings.clusters.device == "cuda":
        resolve_device("cuda", "duplicates.semantic.clusters.device")


def run_semantic(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    settings = run.recipe.duplicates.semantic
    rows = 0
    if settings is not None:
        embeddings = run.layout.need("embeddings", "embed")
        live = list(alive_parts(run, embeddings, "semantic"))
        rows = embeddings.rows - sum(len(dropped) for _, dropped in live)
    if settings is None or rows == 0:
        for table in ("semantic_centroids", "semantic_duplicates", "semantic_summary"):
            run.drop(table)
        return
    from shardwright.quality.semantic import ITERATIONS

    k = cluster_count(run, "duplicates.semantic.clusters.k", settings.clusters.k, rows)
    seeded = {"k": k, "seed": settings.clusters.seed, "iterations": ITERATIONS}
    device = settings.clusters.device
    centroids = train(run, "semantic", "semantic_centroids", embeddings, live, seeded, device)
    records = run.layout.need("records", "ingest")
    inputs = [records, embeddings, centroids, *drops_query(run, "semantic")[1]]
    parameters = settings.model_dump(mode="json", exclude={"clusters": {"device"}})
    if run.recipe.duplicates.against:
        parameters["against"] = [_earlier(run, uri) for uri in run.recipe.duplicates.against]
    parameters["clusters"]["k"] = k
    gone = [dropped for _, dropped in live]
    work = fingerprint(
        version=VERSION,
        parameters=parameters,
        dropped=gone,
        inputs={table.table: table.content_sha256 for table in inputs},
    )
    search = _Search(run, settings, embeddings, centroids, rows, k, work)

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        _number(run, connection, settings, embeddings)
        search.find(connection, progress)

    tables = commit_query(
        run,
        "semantic",
        VERSION,
        {
            "semantic_duplicates": (SEMANTIC_DUPLICATES, _DUPLICATES),
            "semantic_summary": (SEMANTIC_SUMMARY, _SUMMARY),
        },
        parameters={**parameters, "alive": fingerprint(dropped=gone)},
        inputs=inputs,
        prepare=prepare,
    )
    for folder in run.layout.staging(".").glob("semantic-*"):
        shutil.rmtree(folder)
    progress.records, progress.bytes = rows, embeddings.bytes
    progress.details["listed"] = tables["semantic_duplicates"].rows


def _earlier(run: Run, uri: str) -> dict[str, str]:
    """What an earlier curation's index is, for the fingerprint.

    Raises:
        UserError: It is not there, or holds vectors of another encoder.
    """
    layout = opened(Path(uri))
    theirs, listed = layout.need("embeddings", "embed"), read_file_list(layout.indexes)
    if listed is None:
        raise UserError(f"duplicates.against {uri}: no index; run stage 'index' there first")
    used, wanted = (
        table.origin.parameters["encoder"]["name"]
        for table in (theirs, run.layout.need("embeddings", "embed"))
    )
    if used != wanted:
        raise UserError(
            f"duplicates.against {uri}: holds vectors of {used}, and this recipe compares those "
            f"of {wanted}; curate it with the same embedding.model"
        )
    decisions = layout.need("decisions", "prune").content_sha256
    return {"index": listed.fingerprint, "decisions": decisions}


def _number(
    run: Run, connection: duckdb.DuckDBPyConnection, settings: Semantic, embeddings: Manifest
) -> None:
    """Makes ``numbered(vertex, part, row, record_id)``, live records in order of preference.

    Where the centroid decides, they are in the order of ``keep: first``.
    """
    drops, _ = drops_query(run, "semantic")
    keep = settings.keep
    order, join = keep_order(
        run.recipe.modality,
        "first" if isinstance(keep, str) and keep in ("farthest", "nearest") else keep,
    )
    name_parts(connection, embeddings)
    connection.execute(
        f"""CREATE TABLE numbered AS
        SELECT row_number() OVER (ORDER BY {order}) - 1 AS vertex, part,
          e.file_row_number AS row, e.record_id
        FROM {scan(embeddings, positions=True)} e JOIN part_files USING (filename)
          JOIN records r ON r.record_id = e.record_id {join}
          ANTI JOIN ({drops}) AS drops ON drops.record_id = e.record_id"""
    )


@dataclass(frozen=True)
class _Search:
    """What the jobs are made of."""

    run: Run
    settings: Semantic
    embeddings: Manifest
    centroids: Manifest
    rows: int
    k: int
    work: str

    def find(self, connection: duckdb.DuckDBPyConnection, progress: StageProgress) -> None:
        """Makes ``gone(vertex, representative, similarity)``, ``removed`` and ``decided``."""
        from shardwright.quality.semantic import VERDICTS, Sample, asked
        from shardwright.quality.semdedup import interval

        self._hold_against(connection, progress)
        listing, samples = self._assigned(connection, progress)
        buckets = open_listed(listing).buckets.tolist()
        threshold = self.settings.threshold
        if threshold is None:
            threshold = self._found_threshold(listing, buckets, progress)
        file = self.centroids.files()[0]
        work = CompareBucket(self.settings, threshold, listing, samples, file)
        job = self._run("semantic-compare", buckets, work, progress)
        connection.register("no_verdicts", VERDICTS.empty_table())
        connection.execute("CREATE TABLE verdicts AS FROM no_verdicts")
        files = ", ".join(file_literal(job.folder / left["file"]) for _, left in job.results())
        if files:  # there is none where an earlier curation holds all
            connection.execute(f"INSERT INTO verdicts FROM read_parquet([{files}])")
        _decide(connection, self.settings)
        left = [np.load(job.folder / result["crossed"]) for _, result in job.results()]
        crossed = np.unique(np.concatenate([np.empty(0, np.int64), *left]))
        sampled = asked(Sample.read([Path(name) for name in json.loads(samples.read_text())]))
        connection.register("crossed", pa.table({"vertex": crossed}))
        query = "SELECT count(*) FROM crossed ANTI JOIN ranked_rows USING (vertex)"
        lost = connection.execute(query).fetchall()[0][0]
        low, high = interval(lost, len(sampled))
        share = lost / max(len(sampled), 1)
        connection.execute(
            f"""CREATE TABLE decided AS SELECT {threshold!r}::DOUBLE AS threshold,
            {self.k} AS clusters, {len(sampled)} AS sampled, {share!r}::DOUBLE AS crossing,
            {low!r}::DOUBLE AS crossing_low, {high!r}::DOUBLE AS crossing_high"""
        )
        counts = connection.execute("SELECT semantics, removed FROM removed ORDER BY ALL")
        said = ", ".join(f"{name} {count:,}" for name, count in counts.fetchall())
        self.run.reporter.note(
            f"semantic: threshold {threshold:.4f}, {self.k:,} clusters; removed: {said}; "
            f"duplicates lost between clusters: {share:.2%} of the records "
            f"({low:.2%} to {high:.2%}, by {len(sampled):,} of them)"
        )

    def _run(self, name: str, buckets: Sequence[int], work: Any, progress: StageProgress) -> Job:
        tasks = bucket_tasks(name, self.work, buckets)
        job = self.run.plan(name, {}, tasks, staged_only=True)
        self.run.execute("semantic", job, work, progress)
        return job

    def _numbered(self, connection: duckdb.DuckDBPyConnection, name: str) -> Path:
        """File of (part, row, vertex) of the records that are compared."""
        folder = self.run.layout.staging(name)
        folder.mkdir(parents=True, exist_ok=True)
        vertices = folder / f"vertices-{self.work[:16]}.parquet"
        connection.execute(
            "COPY (SELECT part, row, vertex FROM numbered ORDER BY part, row) "
            f"TO {quoted(str(vertices))} (FORMAT parquet)"
        )
        return vertices

    def _over_parts(self, name: str, work: Any, progress: StageProgress) -> Job:
        """Runs a job over the parts of the vectors."""
        files = [
            None if part.file is None else self.embeddings.folder / part.file
            for part in self.embeddings.parts()
        ]
        job = self.run.plan(name, {}, part_tasks(name, self.work, files), staged_only=True)
        self.run.execute("semantic", job, work, progress)
        return job

    def _hold_against(self, connection: duckdb.DuckDBPyConnection, progress: StageProgress) -> None:
        """Makes ``known(vertex, earlier, similarity)``, and takes these out of ``numbered``."""
        connection.execute(
            "CREATE TABLE known(vertex BIGINT, earlier VARCHAR, similarity DOUBLE);"
            "CREATE TABLE all_numbered AS FROM numbered"
        )
        for place, uri in enumerate(self.run.recipe.duplicates.against):
            assert self.settings.threshold is not None
            name = f"semantic-against-{place}"
            vertices = self._numbered(connection, name)
            work = SearchPart(Path(uri).absolute(), self.settings.threshold, vertices)
            if work.index.recall is not None:
                self.run.reporter.note(
                    f"semantic: the index of {uri} is approximate, {work.index.recall}"
                )
            job = self._over_parts(name, work, progress)
            files = ", ".join(file_literal(job.folder / left["file"]) for _, left in job.results())
            connection.execute(
                f"INSERT INTO known FROM read_parquet([{files}]);"
                "DELETE FROM numbered WHERE vertex IN (SELECT vertex FROM known)"
            )

    def _assigned(
        self, connection: duckdb.DuckDBPyConnection, progress: StageProgress
    ) -> tuple[Path, Path]:
        """Vectors by bucket, and the sample: lists of their files."""
        from shardwright.quality.semantic import SAMPLE, bucket_count

        vertices = self._numbered(connection, "semantic-assign")
        dimension = self.embeddings.schema.field("vector").type.list_size
        buckets = bucket_count(self.rows, dimension, self.k)
        share = min(1.0, SAMPLE / self.rows)
        work = AssignPart(self.settings, self.centroids.files()[0], vertices, buckets, share)
        job = self._over_parts("semantic-assign", work, progress)
        left = [result for _, result in job.results()]
        samples = job.folder / f"samples-{self.work[:16]}.json"
        write_whole(samples, json.dumps([str(job.folder / result["sample"]) for result in left]))
        files = [job.folder / result["file"] for result in left]
        return list_bucketed(files, buckets, job.folder), samples

    def _found_threshold(self, listing: Path, buckets: list[int], progress: StageProgress) -> float:
        """The threshold at which the target share of a sample of clusters stays."""
        from shardwright.quality.semdedup import threshold_for

        assert self.settings.target is not None
        order = np.argsort(mixed(np.array(buckets, np.uint64), self.settings.clusters.seed))
        some = sorted(buckets[place] for place in order[: -(-len(buckets) // _SAMPLED_BUCKETS)])
        job = self._run("semantic-sample", some, SampleBucket(self.settings, listing), progress)
        highest = [np.load(job.folder / left["file"]) for _, left in job.results()]
        return threshold_for(np.concatenate(highest), self.settings.target)


def _decide(connection: duckdb.DuckDBPyConnection, settings: Semantic) -> None:
    """Makes ``gone`` by the meaning that was chosen, and ``removed`` of all that were decided."""
    connection.execute(
        """CREATE TABLE ranked_rows AS
        SELECT vertex, ranked AS closest, ranked AS representative,
          ranked_similarity AS similarity
        FROM verdicts WHERE ranked IS NOT NULL
        QUALIFY row_number() OVER (
          PARTITION BY vertex ORDER BY ranked_similarity DESC, ranked) = 1"""
    )
    # where the way from a row to the closest earlier one, and on from that, ends
    while connection.execute(
        "SELECT count(*) FROM ranked_rows a JOIN ranked_rows b ON b.vertex = a.representative"
    ).fetchall()[0][0]:
        connection.execute(
            """CREATE OR REPLACE TABLE ranked_rows AS
            SELECT a.vertex, a.closest, coalesce(b.representative, a.representative)
              AS representative, a.similarity
            FROM ranked_rows a LEFT JOIN ranked_rows b ON b.vertex = a.representative"""
        )
    chosen = settings.semantics
    others = ("greedy", "components") if settings.clusters.probes == 1 else ()
    counts = [
        f"SELECT 'ranked' AS semantics, {chosen == 'ranked'} AS chosen, count(*) AS removed "
        "FROM ranked_rows"
    ]
    counts += [
        f"SELECT '{name}', {chosen == name}, count(*) FROM verdicts WHERE {name} IS NOT NULL"
        for name in others
    ]
    connection.execute(f"CREATE TABLE removed AS {' UNION ALL '.join(counts)}")
    connection.execute(
        "CREATE VIEW gone AS "
        + (
            "SELECT vertex, representative, similarity FROM ranked_rows"
            if chosen == "ranked"
            else f"SELECT vertex, {chosen} AS representative, {chosen}_similarity AS similarity "
            f"FROM verdicts WHERE {chosen} IS NOT NULL"
        )
    )
