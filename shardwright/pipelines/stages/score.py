"""``score``: how much each live record is worth keeping, by every method, and why."""

from collections.abc import Mapping, Sequence

import duckdb

from shardwright.errors import UserError
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import SCORE_EXPLANATIONS, scores
from shardwright.pipelines.added_scores import add_scores
from shardwright.pipelines.alive import alive_rows
from shardwright.pipelines.classified import commit_classified
from shardwright.pipelines.clustering import read_centroids
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.quality_sections import Prune
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.similarities import cluster_again, commit_similarities
from shardwright.pipelines.stages.study import STUDIED, wanted
from shardwright.pipelines.stretches import IN_STRETCH, show_whole
from shardwright.pipelines.views import commit_views
from shardwright.quality.pruning.cut import pruned_count
from shardwright.quality.pruning.d4 import d4_query, survivors_query
from shardwright.quality.pruning.prototypes import ssl_prototypes_query
from shardwright.quality.pruning.scip import criterion, ranking_query
from shardwright.quality.pruning.semdedup import semdedup_query
from shardwright.quality.pruning.simple import length_query, random_query

VERSION = "2"
BY_ROW = {"length", "random"}
"""Scores of a record by itself: their queries may see some records at a time."""
TABLES = ("views", "similarities", "classified", "scores", "score_explanations")


def run_score(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    prune = run.recipe.prune
    clusters: Manifest | None = None
    if prune is not None and run.recipe.embedding is not None:
        embeddings = run.layout.need("embeddings", "embed")
        clusters = (
            run.layout.need("clusters", "cluster") if alive_rows(run, embeddings, "score") else None
        )
    if prune is None or clusters is None:
        for table in TABLES:
            run.drop(table)
        return
    methods = _methods(run, prune)
    records = run.layout.need("records", "ingest")
    centroids = run.layout.need("centroids", "cluster")
    inputs = [records, embeddings, clusters, centroids, run.layout.need("lookup", "ingest")]
    if {"semdedup", "d4"} & set(methods):
        inputs.append(commit_similarities(run, embeddings, clusters, progress))
    else:
        run.drop("similarities")
    if set(STUDIED) & set(methods):
        inputs.append(commit_views(run, records, embeddings, clusters, progress))
    else:
        run.drop("views")
    if "classifier" in methods:
        inputs.append(commit_classified(run, records, embeddings, progress))
    else:
        run.drop("classified")

    queries = _queries(run.recipe.modality, prune, clusters.rows)
    placed = [name for name in methods if name not in {"scip", *BY_ROW}]

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        _prepare(run, connection, prune, methods, embeddings, clusters, centroids, progress)
        show_whole(connection, records, clusters)
        ranking = ranking_query("clusters", clusters.rows, prune.fraction, prune.alpha)
        _place(connection, ranking, {name: queries[name] for name in placed})

    joined = [f"JOIN ({queries[name]}) USING (record_id)" for name in methods if name in BY_ROW]
    joined += [
        f"JOIN (FROM placed_{name} WHERE {IN_STRETCH}) USING (part, row)"
        for name in ["scip", *placed]
    ]
    why = criterion(clusters.rows, prune.fraction, prune.alpha)
    query = f"""
    SELECT part, record_id, {", ".join(methods)},
      cluster, cluster_size, distance, {why} AS criterion
    FROM clusters JOIN sizes USING (cluster) {" ".join(joined)} ORDER BY part, row"""
    commit_query(
        run,
        "score",
        VERSION,
        {"scores": (scores(methods), query), "score_explanations": (SCORE_EXPLANATIONS, query)},
        parameters=prune.parameters(),
        inputs=inputs,
        aligned=records,
        beside=[records, clusters],
        prepare=prepare,
    )
    progress.records = clusters.rows


def _methods(run: Run, prune: Prune) -> list[str]:
    """The methods that can be scored: those of the study only if there were records enough.

    Raises:
        UserError: The recipe prunes by one that cannot.
    """
    methods = list(prune.methods(run.recipe.modality))
    if prune.method not in methods:
        raise UserError(f"prune.method {prune.method}: it does not score {run.recipe.modality}")
    if wanted(run) and run.layout.manifest("detectors") is None:
        if prune.method in STUDIED:
            raise UserError(
                f"prune.method {prune.method}: no detectors; run stage 'study' first, on 40 live "
                "records at least"
            )
        methods = [name for name in methods if name not in STUDIED]
    return methods


def _place(connection: duckdb.DuckDBPyConnection, ranking: str, queries: Mapping[str, str]) -> None:
    """Makes scores that depend on other records findable by the place of their own.

    Makes ``sizes(cluster, cluster_size)``, and for SCIP's ranking and each of the queries a table
    ``placed_NAME(part, row, NAME)`` in the order of ``clusters``.
    """
    connection.execute(
        "CREATE TABLE sizes AS "
        "SELECT cluster, count(*) AS cluster_size FROM clusters GROUP BY cluster"
    )
    by_place = {"scip": f"SELECT part, row, scip FROM ({ranking})"}
    for name, query in queries.items():
        by_place[name] = f"SELECT part, row, {name} FROM ({query}) JOIN clusters USING (record_id)"
    for name, query in by_place.items():
        connection.execute(f"CREATE TABLE placed_{name} AS {query} ORDER BY part, row")


def _queries(modality: str, prune: Prune, records: int) -> dict[str, str]:
    """Method but ``scip`` -> a query that yields ``record_id`` and its score, of all live ones."""
    prototypes = prune.ssl_prototypes
    return {
        **{name: f"SELECT record_id, {name} FROM added_scores" for name in prune.added()},
        "ssl_prototypes": ssl_prototypes_query(
            "clusters", records, prune.fraction, prototypes.keep, prototypes.balance
        ),
        "semdedup": semdedup_query("similarities"),
        "d4": d4_query("similarities", "clusters_again", records),
        "density": "SELECT record_id, density FROM by_density",
        "length": length_query("records", "code" if modality == "code" else "image"),
        "random": random_query("clusters", prune.seed),
        # a text of a language without a model is neither plain nor surprising
        "perplexity": "SELECT record_id, -coalesce(cloze, (SELECT median(cloze) FROM views), 0) "
        "AS perplexity FROM views",
        "scip_probe": "SELECT record_id, -scip_probe AS scip_probe FROM views",
        "damage": "SELECT record_id, -damage AS damage FROM views",
        "classifier": "SELECT record_id, classifier FROM classified",
    }


def _prepare(
    run: Run,
    connection: duckdb.DuckDBPyConnection,
    prune: Prune,
    methods: Sequence[str],
    embeddings: Manifest,
    clusters: Manifest,
    centroids: Manifest,
    progress: StageProgress,
) -> None:
    """Makes the relations that the methods' queries name, beside committed tables."""
    added = [name for name in prune.added() if name in methods]
    if added:
        add_scores(run, connection, added, embeddings)
    if "d4" in methods:
        left = survivors_query("similarities", clusters.rows, prune.fraction, prune.d4.dedup)
        cluster_again(run, connection, embeddings, left, progress)
    if "density" in methods:
        from shardwright.quality.pruning.density import density_query, quotas, spread_query

        kept = clusters.rows - pruned_count(clusters.rows, prune.fraction)
        spread = connection.sql(spread_query("clusters")).to_arrow_table()
        centres = read_centroids(centroids.files()[0])
        allowed = quotas(spread, centres, kept, prune.density.tau, prune.density.min_samples)
        connection.register("quotas", allowed)
        query = density_query("clusters", "quotas", clusters.rows)
        connection.execute(f"CREATE TABLE by_density AS {query}")
