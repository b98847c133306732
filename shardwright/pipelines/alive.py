"""Who is alive: the rows of each part of ``records`` that an earlier stage dropped."""

from collections.abc import Iterator
from itertools import groupby

from shardwright.metadata.catalog import connect
from shardwright.metadata.manifest import Manifest, Part
from shardwright.pipelines.relational import stream
from shardwright.pipelines.run import Run

# Tables of dropping stages, in stage order, with the reason that their rows stand for. A record
# that several dropped counts for the first.
DROPS = {
    "duplicates": (
        "SELECT record_id, 'duplicates' AS stage, kind || '_duplicate' AS reason, "
        "similarity AS score, similarity AS threshold, representative_id FROM duplicates "
        "WHERE record_id <> representative_id"
    ),
}


def drops_query(run: Run) -> tuple[str, list[Manifest]]:
    """Query for everything dropped before embedding, and the tables that it reads."""
    present = {name: run.layout.manifest(name) for name in DROPS}
    used = [manifest for manifest in present.values() if manifest is not None]
    queries = [DROPS[manifest.table] for manifest in used] or [
        "SELECT ''::VARCHAR AS record_id, ''::VARCHAR AS stage, ''::VARCHAR AS reason, "
        "0::DOUBLE AS score, 0::DOUBLE AS threshold, ''::VARCHAR AS representative_id WHERE false"
    ]
    return " UNION ALL ".join(queries), used


def alive_parts(run: Run, records: Manifest) -> Iterator[tuple[Part, list[int]]]:
    """Yields each part of ``records`` with the rows in it that are not alive, ascending."""
    query, used = drops_query(run)
    with connect(run.layout, tables=["lookup", *(m.table for m in used)]) as connection:
        batches = stream(
            connection,
            f"SELECT DISTINCT part, row FROM ({query}) JOIN lookup USING (record_id) "
            "ORDER BY part, row",
        )
        rows = (
            pair
            for batch in batches
            for pair in zip(
                batch.column("part").to_pylist(), batch.column("row").to_pylist(), strict=True
            )
        )
        groups = groupby(rows, key=lambda pair: pair[0])
        ahead = next(groups, None)
        for ordinal, part in enumerate(records.parts()):
            dropped: list[int] = []
            if ahead is not None and ahead[0] == ordinal:
                dropped = [row for _, row in ahead[1]]
                ahead = next(groups, None)
            if part.key != "empty":
                yield part, dropped
