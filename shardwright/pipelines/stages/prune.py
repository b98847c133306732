"""``prune``: the decision on every record, with the stage, the reason and the numbers behind it."""

from shardwright.errors import UserError
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import DECISIONS
from shardwright.pipelines.alive import DROPS, alive_rows, drop_parameters, drops_query
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.sections import Prune
from shardwright.quality.pruning.methods import METHODS

VERSION = "3"
# What is computed beside, where labels lie, and what a training run may take decide nothing here.
_ASIDE = {"scores", "classifier", "budget"}
_NOTHING = (
    "SELECT ''::VARCHAR AS record_id, false AS pruned, ''::VARCHAR AS reason, "
    "0::DOUBLE AS score, 0::DOUBLE AS threshold WHERE false"
)


def run_prune(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    records = run.layout.need("records", "ingest")
    lookup = run.layout.need("lookup", "ingest")
    drops, dropping = drops_query(run)
    prune = run.recipe.prune
    inputs = [lookup, *dropping]
    scored = _NOTHING
    if prune is not None:
        found = _scores(run, prune, lookup)
        if found:
            inputs += [*found, records]
            scored = _pruned(prune, run.recipe.modality)
    # A record that several stages dropped counts for the first of them.
    order = " ".join(f"WHEN '{stage}' THEN {place}" for place, stage in enumerate(DROPS))
    query = f"""
    WITH drops AS (
      SELECT * FROM ({drops})
      QUALIFY row_number() OVER (PARTITION BY record_id ORDER BY CASE stage {order} END) = 1),
    scored AS ({scored})
    SELECT part, lookup.record_id AS record_id,
      drops.record_id IS NULL AND NOT coalesce(pruned, false) AS keep,
      CASE WHEN drops.record_id IS NOT NULL THEN drops.stage
           WHEN pruned THEN 'prune' ELSE 'keep' END AS stage,
      CASE WHEN drops.record_id IS NOT NULL THEN drops.reason
           WHEN pruned THEN scored.reason ELSE 'kept' END AS reason,
      coalesce(drops.score, scored.score) AS score,
      CASE WHEN drops.record_id IS NOT NULL THEN drops.threshold ELSE scored.threshold END
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
            **({} if prune is None else prune.model_dump(mode="json", exclude=_ASIDE)),
            **drop_parameters(run),
        },
        inputs=inputs,
        aligned=records,
    )
    progress.records = records.rows


def _scores(run: Run, prune: Prune, lookup: Manifest) -> list[Manifest]:
    """The tables of scores; none where no record is alive.

    Raises:
        UserError: They were made for another recipe.
    """
    embeddings = run.layout.manifest("embeddings")
    if embeddings is not None and not alive_rows(run, embeddings, "prune"):
        return []
    scores = run.layout.need("scores", "score")
    if scores.origin.parameters != prune.parameters() or prune.method not in scores.schema.names:
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
    return [scores, run.layout.need("score_explanations", "score")]


def _pruned(prune: Prune, modality: str) -> str:
    """Who goes: the lowest ``fraction`` of the scores, of all records or of each group of them.

    The threshold is the lowest score that stays; of equal scores the lowest ids go first.
    """
    group = "NULL" if prune.within is None else f"coalesce(records.{prune.within}, '')"
    score = f"scores.{prune.method}"
    share = f"round_even({prune.fraction!r}::DOUBLE * count(*) OVER (PARTITION BY {group}), 0)"
    return f"""
    SELECT record_id, pruned, reason, score,
      coalesce(min(score) FILTER (NOT pruned) OVER (PARTITION BY grp), max(score) OVER (
        PARTITION BY grp)) AS threshold
    FROM (
      SELECT record_id, {group} AS grp, {score} AS score, {_reason(prune, modality)} AS reason,
        row_number() OVER (PARTITION BY {group} ORDER BY {score}, record_id) <= {share} AS pruned
      FROM scores JOIN score_explanations USING (record_id) JOIN records USING (record_id))"""


def _reason(prune: Prune, modality: str) -> str:
    """SQL for why a record is pruned."""
    reasons = {method.name: method.reasons for method in METHODS}[prune.method]
    if prune.method == "scip":
        return f"CASE criterion WHEN 'size' THEN '{reasons[0]}' ELSE '{reasons[1]}' END"
    if prune.method == "ssl_prototypes":
        return f"'{reasons[prune.ssl_prototypes.keep != 'hard']}'"
    if prune.method == "length":
        return f"'{reasons[modality != 'code']}'"
    return f"'{reasons[0]}'"
