"""``prune``: the decision on every record, with the stage, the reason and the numbers behind it."""

import duckdb

from shardwright.errors import UserError
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import DECISIONS
from shardwright.pipelines.alive import DROPS, alive_rows, drop_parameters, drops_query
from shardwright.pipelines.grouping import group_of, grouping_tables, with_groups
from shardwright.pipelines.opt_out import (
    name_opted_out,
    note_unmatched,
    opt_out_parameters,
    read_opt_outs,
)
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.quality_sections import Prune
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run
from shardwright.pipelines.stretches import IN_STRETCH
from shardwright.quality.pruning.added import find_method
from shardwright.quality.pruning.scip import criterion
from shardwright.quality.pruning.selection import (
    Cap,
    caps_query,
    cuts_query,
    fewest_groups,
    kept_groups_query,
    selection_query,
)

VERSION = "5"
# What is computed beside, where labels lie, and what a training run may take decide nothing here.
_ASIDE = {"scores", "classifier", "budget"}
_NOTHING = (
    "SELECT ''::VARCHAR AS record_id, false AS pruned, ''::VARCHAR AS reason, "
    "0::DOUBLE AS score, 0::DOUBLE AS threshold WHERE false"
)

# What is named goes, whatever was decided. A record that would be kept is dropped here, and no
# score had a part in it; one that is not keeps its stage and its numbers.
_OPTED_OUT = """
    SELECT part, row, decided.record_id AS record_id,
      keep AND o.record_id IS NULL AS keep,
      CASE WHEN keep AND o.record_id IS NOT NULL THEN 'prune' ELSE stage END AS stage,
      CASE WHEN o.record_id IS NOT NULL THEN 'opt_out' ELSE reason END AS reason,
      CASE WHEN keep AND o.record_id IS NOT NULL THEN NULL ELSE score END AS score,
      CASE WHEN keep AND o.record_id IS NOT NULL THEN NULL ELSE threshold END AS threshold,
      representative_id
    FROM decided LEFT JOIN opted_out o ON o.record_id = decided.record_id"""


def run_prune(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    records = run.layout.need("records", "ingest")
    lookup = run.layout.need("lookup", "ingest")
    drops, dropping = drops_query(run)
    prune = run.recipe.prune
    inputs = [lookup, records, *dropping]
    scored, live, beside = _NOTHING, None, [records]
    if prune is not None:
        found = _scores(run, prune, lookup)
        if found:
            inputs += found
            beside += found
            live = _live(prune, run.recipe.modality, found[0].rows)
            scored = selection_query(live, "cuts", None if prune.cap is None else "caps")
    opt_outs = read_opt_outs(run.recipe.opt_out)
    if opt_outs:
        progress.details["opt_outs_unmatched"] = note_unmatched(run, opt_outs)

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        if opt_outs:
            name_opted_out(connection, opt_outs)
        if prune is not None and live is not None:
            _find_edges(connection, prune, live)
        connection.execute(f"CREATE TABLE dropped AS {_dropped_query(drops)}")

    query = f"""
    WITH drops AS (FROM dropped WHERE {IN_STRETCH}),
    scored AS ({scored}),
    decided AS (
      SELECT r.part, r.row, r.record_id AS record_id,
        drops.stage IS NULL AND NOT coalesce(pruned, false) AS keep,
        CASE WHEN drops.stage IS NOT NULL THEN drops.stage
             WHEN pruned THEN 'prune' ELSE 'keep' END AS stage,
        CASE WHEN drops.stage IS NOT NULL THEN drops.reason
             WHEN pruned THEN scored.reason ELSE 'kept' END AS reason,
        coalesce(drops.score, scored.score) AS score,
        CASE WHEN drops.stage IS NOT NULL THEN drops.threshold ELSE scored.threshold END
          AS threshold,
        drops.representative_id AS representative_id
      FROM records AS r LEFT JOIN drops ON drops.part = r.part AND drops.row = r.row
        LEFT JOIN scored ON scored.record_id = r.record_id)
    {_OPTED_OUT if opt_outs else "FROM decided"} ORDER BY part, row"""
    commit_query(
        run,
        "prune",
        VERSION,
        {"decisions": (DECISIONS, query)},
        parameters={
            **({} if prune is None else prune.model_dump(mode="json", exclude=_ASIDE)),
            **drop_parameters(run),
            **opt_out_parameters(opt_outs),
        },
        inputs=inputs,
        aligned=records,
        beside=beside,
        prepare=prepare,
    )
    progress.records = records.rows


def _dropped_query(drops: str) -> str:
    """Whoever earlier stages dropped, by place; of several stages the first counts."""
    order = " ".join(f"WHEN '{stage}' THEN {place}" for place, stage in enumerate(DROPS))
    return f"""
    SELECT part, row, stage, reason, score, threshold, representative_id
    FROM (
      SELECT * FROM ({drops})
      QUALIFY row_number() OVER (PARTITION BY record_id ORDER BY CASE stage {order} END) = 1)
    JOIN lookup USING (record_id) ORDER BY part, row"""


def _scores(run: Run, prune: Prune, lookup: Manifest) -> list[Manifest]:
    """The tables of scores and groups; none where no record is alive.

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
    rule = None if run.recipe.heterogeneity is None else run.recipe.heterogeneity.group
    cap = None if prune.cap is None else prune.cap.by
    grouped = grouping_tables(run.layout, rule, prune.within, cap)
    return [scores, *grouped]


def _live(prune: Prune, modality: str, records: int) -> str:
    """The live records with their score, and the groups that are cut and capped."""
    cap = None if prune.cap is None else prune.cap.by
    groups = [grouping for grouping in (prune.within, cap) if grouping is not None]
    joined = f"JOIN records USING (record_id) {with_groups(*groups)}" if groups else ""
    return f"""
    SELECT record_id, {group_of(prune.within)} AS grp, {group_of(cap)} AS cap_grp,
      scores.{prune.method} AS score, {_reason(prune, modality, records)} AS reason
    FROM scores {joined}"""


def _find_edges(connection: duckdb.DuckDBPyConnection, prune: Prune, live: str) -> None:
    """Makes ``cuts`` and, with a cap, ``caps``.

    Raises:
        UserError: There are so few groups that they cannot each be at most their share.
    """
    connection.execute(f"CREATE TABLE cuts AS {cuts_query(live, prune.fraction)}")
    if prune.cap is None:
        return
    cap = Cap(prune.cap.most, prune.cap.least)
    groups = int(connection.execute(kept_groups_query(live, "cuts")).fetchall()[0][0])
    if 0 < groups < fewest_groups(cap):
        raise UserError(
            f"prune.cap.most {cap.most!r}: the live records are in {groups} groups by "
            f"{prune.cap.by}, and of so few one is at least {1 / groups:.3g} of what is kept; "
            "give a larger share, a number of records, or smallest"
        )
    connection.execute(f"CREATE TABLE caps AS {caps_query(live, 'cuts', cap)}")


def _reason(prune: Prune, modality: str, records: int) -> str:
    """SQL for why a record is pruned."""
    reasons = find_method(prune.method).reasons
    if prune.method == "scip":
        why = criterion(records, prune.fraction, prune.alpha)
        return f"CASE {why} WHEN 'size' THEN '{reasons[0]}' ELSE '{reasons[1]}' END"
    if prune.method == "ssl_prototypes":
        return f"'{reasons[prune.ssl_prototypes.keep != 'hard']}'"
    if prune.method == "length":
        return f"'{reasons[modality != 'code']}'"
    return f"'{reasons[0]}'"
