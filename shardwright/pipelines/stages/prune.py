"""``prune``: the decision on every record, with the stage, the reason and the numbers behind it."""

from shardwright.errors import UserError
from shardwright.metadata.schemas import DECISIONS
from shardwright.pipelines.alive import DROPS, alive_rows, drop_parameters, drops_query
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.quality.scip import threshold

VERSION = "2"


def run_prune(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    records = run.layout.need("records", "ingest")
    lookup = run.layout.need("lookup", "ingest")
    drops, dropping = drops_query(run)
    scores = run.layout.manifest("scores")
    explanations = run.layout.manifest("score_explanations")
    prune = run.recipe.prune
    embeddings = run.layout.manifest("embeddings")
    if prune is not None and (embeddings is None or alive_rows(run, embeddings, "prune")):
        scores = run.layout.need("scores", "score")
        if scores.origin.parameters != prune.model_dump(mode="json"):
            raise UserError(
                f"{scores.folder}: scored for prune {scores.origin.parameters}, and the recipe now "
                "says otherwise; run stage 'score' first"
            )
        # a changed bound of a filter takes effect when tables are read
        alive = alive_rows(run, scores, "prune")
        if not alive == scores.rows == alive_rows(run, lookup, "prune"):
            raise UserError(
                f"{scores.folder}: made for other bounds of the filters than the recipe has now; "
                "run all stages, without --stage"
            )
    if prune is not None and scores is not None and explanations is not None:
        inputs = [lookup, *dropping, scores, explanations]
        cut = threshold(scores.rows, prune.fraction, prune.alpha)
        scored = (
            "SELECT record_id, scip, criterion FROM scores "
            "JOIN score_explanations USING (record_id)"
        )
    else:
        inputs = [lookup, *dropping]
        cut = 0.0
        scored = (
            "SELECT ''::VARCHAR AS record_id, NULL::DOUBLE AS scip, NULL::VARCHAR AS criterion "
            "WHERE false"
        )
    # A record that several stages dropped counts for the first of them.
    order = " ".join(f"WHEN '{stage}' THEN {place}" for place, stage in enumerate(DROPS))
    query = f"""
    WITH drops AS (
      SELECT * FROM ({drops})
      QUALIFY row_number() OVER (PARTITION BY record_id ORDER BY CASE stage {order} END) = 1),
    scored AS ({scored})
    SELECT part, lookup.record_id AS record_id,
      drops.record_id IS NULL AND scored.criterion IS NULL AS keep,
      CASE WHEN drops.record_id IS NOT NULL THEN drops.stage
           WHEN scored.criterion IS NOT NULL THEN 'prune' ELSE 'keep' END AS stage,
      CASE WHEN drops.record_id IS NOT NULL THEN drops.reason
           WHEN scored.criterion = 'size' THEN 'small_cluster'
           WHEN scored.criterion = 'distance' THEN 'far_from_centroid' ELSE 'kept' END AS reason,
      coalesce(drops.score, scored.scip) AS score,
      coalesce(drops.threshold, CASE WHEN scored.scip IS NOT NULL THEN {cut!r}::DOUBLE END)
        AS threshold,
      drops.representative_id AS representative_id
    FROM lookup LEFT JOIN drops ON lookup.record_id = drops.record_id
      LEFT JOIN scored ON lookup.record_id = scored.record_id
    ORDER BY part, row"""
    commit_query(
        run,
        "prune",
        VERSION,
        {"decisions": (DECISIONS, query)},
        parameters={
            **({} if prune is None else prune.model_dump(mode="json")),
            **drop_parameters(run),
        },
        inputs=inputs,
        aligned=records,
    )
    progress.records = records.rows
