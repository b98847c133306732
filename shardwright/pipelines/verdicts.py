"""What ``shardwright evaluate`` ends with: two tables for a terminal."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.service.evaluation import judged, most_pruned, ranged
from shardwright.service.text import percent, shown

_TABLES = ("evaluation", "side_effects")


def verdicts(layout: Layout) -> Iterator[Table]:
    """How well each method finds planted damage, and of whom it prunes most, if it was tried."""
    if any(layout.manifest(name) is None for name in _TABLES):
        return
    with connect(layout, tables=_TABLES) as connection:
        methods, hits = judged(connection), most_pruned(connection)
    table = Table("method", title="planted damage", title_justify="left")
    for head in ("area (95%)", "worst family", "recall"):
        table.add_column(head, justify="right")
    for one in methods:
        worst = "" if not one.families else "{} {:.3f}".format(*one.families[0])
        area = ranged(one.area, one.low, one.high)
        table.add_row(one.method, area, worst, f"{one.recall:.3f}")
    yield table
    groupings = list(dict.fromkeys(hit.grouping for hit in hits))
    if not groupings:
        return
    table = Table("method", title="pruned most of", title_justify="left")
    for grouping in groupings:
        table.add_column(grouping.replace("_", " "))
    cells = {(hit.method, hit.grouping): hit for hit in hits}
    for one in methods:
        row = []
        for grouping in groupings:
            hit = cells.get((one.method, grouping))
            said = "" if hit is None else f"{shown(hit.group or '(none)', 32)}: "
            row.append(Text(said + ("" if hit is None else percent(hit.pruned, hit.records))))
        table.add_row(one.method, *row)
    yield table
