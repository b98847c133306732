"""``score``: how much each live record is worth keeping, and why."""

from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import SCORE_EXPLANATIONS, SCORES
from shardwright.pipelines.alive import alive_rows
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.quality.scip import ranking_query

VERSION = "1"


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
        run.drop("scores")
        run.drop("score_explanations")
        return
    ranking = ranking_query("clusters", clusters.rows, prune.fraction, prune.alpha)
    query = (
        "SELECT part, record_id, {columns} "
        f"FROM ({ranking}) JOIN lookup USING (record_id) ORDER BY part, row"
    )
    commit_query(
        run,
        "score",
        VERSION,
        {
            "scores": (SCORES, query.format(columns="scip")),
            "score_explanations": (
                SCORE_EXPLANATIONS,
                query.format(columns="cluster, cluster_size, distance, criterion"),
            ),
        },
        parameters=prune.model_dump(mode="json"),
        inputs=[clusters, run.layout.need("lookup", "ingest")],
        aligned=run.layout.need("records", "ingest"),
    )
    progress.records = clusters.rows
