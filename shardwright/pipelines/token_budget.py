"""What ``--dry-run`` says of a training run: the worth of each fraction for so many tokens."""

from collections.abc import Callable
from dataclasses import replace

from shardwright.metadata.catalog import connect, scan
from shardwright.pipelines.alive import drops_query
from shardwright.pipelines.run import Run
from shardwright.quality.budget import FRACTIONS, RepetitionLaw, describe, plan


def budget_lines(run: Run, listed: Callable[[], int]) -> list[str]:
    """Lines of text, none without ``prune.budget``.

    Bytes are those of the records that reach the stage ``prune``, as far as the stages that drop
    records have run; before there are records, those of the inputs.

    Args:
        run: The run.
        listed: Bytes of the inputs, found by listing them; asked for only if need be.
    """
    prune = run.recipe.prune
    if prune is None or prune.budget is None:
        return []
    budget = prune.budget
    found = _live_bytes(run)
    if found is not None:
        records, size = found
        basis = f"{records:,} live records of the run before"
    else:
        size = listed()
        basis = "the inputs as they lie, before anything is refused or dropped"
    if not size:
        return ["budget: no bytes to count tokens of"]
    kept = round(1 - prune.fraction, 6)
    fractions = sorted({*FRACTIONS, kept}, reverse=True)
    law = replace(RepetitionLaw(), data_decay=budget.data_decay)
    rows = plan(size / budget.bytes_per_token, budget.tokens, fractions, law)
    chosen = next(row for row in rows if row.kept == kept)
    return [
        f"budget: {size / 1e6:,.1f} MB of {basis}, {budget.bytes_per_token:g} bytes a token",
        *(f"  {line}" for line in describe(rows)),
        f"  prune.fraction {prune.fraction:g} keeps {kept:g}: each token is seen "
        f"{chosen.epochs:.2f} times, and a token that is kept has to teach as much as "
        f"{chosen.gain:.3f} of all",
    ]


def _live_bytes(run: Run) -> tuple[int, int] | None:
    """How many committed records are alive before the stage ``prune``, and their bytes."""
    records = run.layout.manifest("records")
    if records is None:
        return None
    query, used = drops_query(run, "prune")
    with connect(run.layout, tables=[manifest.table for manifest in used]) as connection:
        count, size = connection.execute(
            f"SELECT count(*), coalesce(sum(bytes), 0)::BIGINT FROM {scan(records)} "
            f"ANTI JOIN ({query}) AS d USING (record_id)"
        ).fetchall()[0]
    return int(count), int(size)
