"""Lineage in the report: which stage read what another wrote, as arcs and as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from shardwright.metadata.layout import Layout
from shardwright.metadata.provenance import origins, read_elsewhere, time_text
from shardwright.service.blocks import Block, Code, Heading, Picture, Table
from shardwright.service.figures import INK, KEPT, STYLE, drawn
from shardwright.service.text import shown

_HASH = 12


@dataclass(frozen=True)
class Activity:
    """One stage as it ran.

    Attributes:
        stage: Its name.
        version: Of its code.
        started: When, in ISO 8601.
        ended: When, in ISO 8601.
        read: What it read: names and hashes.
        wrote: What it wrote: names and hashes.
    """

    stage: str
    version: str
    started: str
    ended: str
    read: Mapping[str, str]
    wrote: Mapping[str, str]


def activities(layout: Layout) -> list[Activity]:
    """What ran, in the order of the stages."""
    found = []
    for stage, made in origins(layout).items():
        known = [origin for origin, _, _ in made]
        found.append(
            Activity(
                stage,
                known[0].version,
                time_text(min(origin.started for origin in known)),
                time_text(max(origin.ended for origin in known)),
                dict(read_elsewhere((origin, name) for origin, name, _ in made)),
                {name: sha256 for _, name, sha256 in made},
            )
        )
    return found


def lineage_section(layout: Layout) -> Iterator[Block]:
    """The section; nothing where no stage ran."""
    ran = activities(layout)
    if not ran:
        return
    rows = []
    for one in ran:
        for name, sha256 in one.wrote.items():
            read = ", ".join(one.read)
            code = Code(shown(sha256, _HASH + 1)[:_HASH])
            rows.append((one.stage, name, code, read, one.version[:_HASH], one.ended))
    heads = ("stage", "wrote", "content", "read", "version", "ended")
    yield Heading("Lineage")
    yield Picture(
        lineage_picture(ran),
        "What each stage read of those above it",
        numbers=Table(heads, rows, folded="the numbers"),
    )


def lineage_picture(ran: Sequence[Activity]) -> Markup:
    """An ``<svg>`` element: stages down the page, an arc from each that another one read."""
    writer = {name: place for place, one in enumerate(ran) for name in one.wrote}
    arcs = sorted(
        {
            (writer[name], place)
            for place, one in enumerate(ran)
            for name in one.read
            if name in writer and writer[name] < place
        }
    )
    reach = max((end - start for start, end in arcs), default=1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.5 + 0.36 * len(ran)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for start, end in arcs:
            bend = 0.9 * (end - start) / reach + 0.15
            axes.add_patch(
                FancyArrowPatch(
                    (0, start),
                    (0, end),
                    connectionstyle=f"arc3,rad={bend / (end - start):.4f}",
                    arrowstyle="-|>",
                    mutation_scale=7,
                    shrinkA=3,
                    shrinkB=5,
                    color=INK,
                    linewidth=0.8,
                )
            )
        axes.plot([0] * len(ran), range(len(ran)), "o", color=KEPT, markersize=6)
        for place, one in enumerate(ran):
            axes.text(0.06, place, shown(one.stage, 24), va="center", weight="bold")
            axes.text(0.5, place, shown(", ".join(one.wrote), 80), va="center")
        axes.set_xlim(-1.1, 2.2)
        axes.set_ylim(len(ran) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines["bottom"].set_visible(False)
        return drawn(figure, "lineage", "Lineage of the tables")
