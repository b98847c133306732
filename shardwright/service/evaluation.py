"""What the evaluation found, for the report and the command line: methods, and side effects."""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
from markupsafe import Markup

from shardwright.service.blocks import Block, Heading, Picture, Table, Words
from shardwright.service.figures import areas_picture
from shardwright.service.text import number, percent, shown

ALL = "all"
"""Family of the rows that hold all families together."""


@dataclass(frozen=True)
class Judged:
    """How well a method finds planted damage.

    Attributes:
        method: The method.
        area: Area under the ROC curve, of all families together.
        low: Lower end of its 95% interval; None where there is none.
        high: Upper end.
        families: Area of each family, the worst first.
        recall: Share of the damaged records that are pruned, of all families together.
        recall_low: As ``low``.
        recall_high: As ``high``.
    """

    method: str
    area: float
    low: float | None
    high: float | None
    families: tuple[tuple[str, float], ...]
    recall: float
    recall_low: float | None
    recall_high: float | None


@dataclass(frozen=True)
class Hit:
    """The group of records that a method prunes most of, among those of a grouping."""

    method: str
    grouping: str
    group: str
    records: int
    pruned: int


def judged(connection: duckdb.DuckDBPyConnection) -> list[Judged]:
    """The methods of the table ``evaluation``, the best first."""
    areas: dict[str, list[tuple[str, float]]] = {}
    for method, family, area in connection.execute(
        f"SELECT method, family, area FROM evaluation WHERE family <> '{ALL}' ORDER BY area, family"
    ).fetchall():
        areas.setdefault(method, []).append((family, area))
    pooled = connection.execute(
        "SELECT method, area, area_low, area_high, recall, recall_low, recall_high FROM evaluation "
        f"WHERE family = '{ALL}' ORDER BY area DESC, method"
    ).fetchall()
    return [
        Judged(method, area, low, high, tuple(areas.get(method, ())), *recall)
        for method, area, low, high, *recall in pooled
    ]


def most_pruned(connection: duckdb.DuckDBPyConnection) -> list[Hit]:
    """Of each method and grouping the group of which the largest share would go.

    Groups of fewer than 10 records are passed over; so are groupings of one group.
    """
    rows = connection.execute(
        'SELECT method, grouping, "group", records, pruned FROM side_effects '
        "QUALIFY count(*) OVER (PARTITION BY method, grouping) > 1 AND records >= 10 "
        'ORDER BY method, grouping, share DESC, records DESC, "group"'
    ).fetchall()
    first: dict[tuple[str, str], Hit] = {}
    for row in rows:
        first.setdefault((row[0], row[1]), Hit(*row))
    return list(first.values())


def ranged(value: float, low: float | None, high: float | None) -> str:
    """A value with its interval, if there is one."""
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def evaluation_section(connection: duckdb.DuckDBPyConnection) -> Iterator[Block]:
    """The section, if methods were evaluated; the tables of the stage ``evaluate`` are there."""
    methods = judged(connection)
    if not methods:
        return
    ((damaged, trials),) = connection.execute(
        f"SELECT max(damaged), max(trials) FROM evaluation WHERE family = '{ALL}'"
    ).fetchall()
    yield Heading("How well each method finds planted damage")
    yield Words(
        f"In {number(trials)} trials {number(damaged)} records in all were damaged and hidden "
        "among the others of a sample. The area is how often a damaged record scores below an "
        "undamaged one: 0.5 is chance. Bars are 95% intervals, dots are single families of damage; "
        "methods that learn from damage had not seen the families that they are judged on."
    )
    numbers = [
        (
            shown(one.method, 40),
            ranged(one.area, one.low, one.high),
            _worst(one),
            ranged(one.recall, one.recall_low, one.recall_high),
        )
        for one in methods
    ]
    heads = ("method", "area", "worst family", "damaged records that go")
    areas = [
        (one.method, one.area, one.low, one.high, [area for _, area in one.families])
        for one in methods
    ]
    yield Picture(
        areas_picture(areas), numbers=Table(heads, numbers, (1, 2, 3), folded="the numbers")
    )
    hits = most_pruned(connection)
    if not hits:
        return
    yield Heading("What else they prune", 3)
    yield Words(
        Markup(
            "Of all live records, the group that would lose the largest share to each method. A "
            "quota, <code>prune.within</code>, takes the same share of each group."
        )
    )
    rows = [
        (
            shown(hit.method, 40),
            shown(hit.grouping.replace("_", " "), 40),
            shown(hit.group or "(none)", 60),
            number(hit.records),
            percent(hit.pruned, hit.records),
        )
        for hit in hits
    ]
    yield Table(("method", "by", "group", "records", "would go"), rows, (3, 4))


def _worst(one: Judged) -> str:
    if not one.families:
        return ""
    family, area = one.families[0]
    return f"{shown(family, 40)} {area:.3f}"
