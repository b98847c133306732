"""The corruption study in the report: a picture and its numbers."""

from collections.abc import Iterator

import duckdb

from shardwright.service.blocks import Block, Heading, Picture, Table, Words
from shardwright.service.figures import effects_picture
from shardwright.service.text import number, shown

_HEADS = ("damage", "family", "pairs", "in another cluster", "ln size", "p", "distance", "p")


def study_section(connection: duckdb.DuckDBPyConnection) -> Iterator[Block]:
    """The section, if records were damaged on purpose; the table ``corruption_study`` is there."""
    rows = connection.execute(
        "SELECT corruption, family, pairs, moved, size, size_effect, size_p, distance, "
        "distance_effect, distance_p FROM corruption_study "
        "ORDER BY distance_effect DESC, corruption"
    ).fetchall()
    if not rows:
        return
    yield Heading("What damage does to records")
    yield Words(
        "A sample of the records was damaged on purpose and held against itself: how the cluster "
        "that it is nearest to, and the distance to its centroid, change. An effect is the mean "
        "change over its standard deviation; p is that of a sign test."
    )
    numbers = [
        (
            shown(kind, 40),
            shown(family, 40),
            number(pairs),
            f"{100 * moved:.0f} %",
            f"{size:+.3f}",
            f"{size_p:.2g}",
            f"{distance:+.4f}",
            f"{distance_p:.2g}",
        )
        for kind, family, pairs, moved, size, _, size_p, distance, _, distance_p in rows
    ]
    yield Picture(
        effects_picture([(row[0], row[5], row[8]) for row in rows]),
        numbers=Table(_HEADS, numbers, right=range(2, 8), folded="the numbers"),
    )
