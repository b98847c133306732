"""Distributions as inline SVG that takes its colours from the page, light or dark."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from shardwright.service.measures import Distribution
from shardwright.service.text import shown

# Stand-ins that become the page's colours.
INK, ALL, KEPT, MARK, GRID = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    INK: "var(--soft)",
    ALL: "var(--before)",
    KEPT: "var(--after)",
    MARK: "var(--mark)",
    GRID: "var(--line)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shardwright",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,
}


def picture(distribution: Distribution) -> Markup:
    """An ``<svg>`` element. Its ids begin with the distribution's key."""
    with matplotlib.rc_context(STYLE):
        rows = len(distribution.names or ())
        figure = Figure(figsize=(5.0, 0.9 + 0.29 * rows if rows else 2.6), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        if distribution.names is not None:
            _categories(axes, distribution)
        else:
            _histogram(axes, distribution)
        return drawn(figure, distribution.key, distribution.title)


def effects_picture(effects: Sequence[tuple[str, float, float]]) -> Markup:
    """An ``<svg>`` element: how kinds of damage move records among the clusters.

    Args:
        effects: Kind, effect on the logarithm of the cluster's size, and on the distance to the
            centroid; both are means over standard deviations.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.25 * len(effects)), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(1, 2, sharey=True)
        places = np.arange(len(effects))
        titles = ("size of its cluster, effect", "distance to the centroid, effect")
        for axes, title, column in zip(panels, titles, (1, 2), strict=True):
            axes.barh(places, [effect[column] for effect in effects], 0.66, color=KEPT)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.grid(axis="x", color=GRID, linewidth=0.7)
            axes.set_xlabel(title)
        panels[0].set_yticks(places, [shown(kind, 28) for kind, _, _ in effects])
        panels[0].invert_yaxis()
        return drawn(figure, "effects", "What damage does to records among the clusters")


def areas_picture(
    methods: Sequence[tuple[str, float, float | None, float | None, Sequence[float]]],
) -> Markup:
    """An ``<svg>`` element: how well methods find planted damage.

    Args:
        methods: Name, area under the ROC curve, the ends of its interval if it has one, and the
            area of each family of damage.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.3 * len(methods)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for place, (_, area, low, high, families) in enumerate(methods):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=ALL, linewidth=7)
            axes.plot(families, [place] * len(families), "o", color=INK, markersize=4)
            axes.plot([area], [place], "D", color=MARK, markersize=5.5)
        axes.axvline(0.5, color=INK, linewidth=0.8)
        axes.set_xlim(-0.02, 1.02)
        axes.set_yticks(range(len(methods)), [shown(name, 28) for name, *_ in methods])
        axes.invert_yaxis()
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_xlabel("area under the ROC curve")
        return drawn(figure, "areas", "How well each method finds planted damage")


def drawn(figure: Figure, key: str, title: str) -> Markup:
    """A figure as an ``<svg>`` element for a page; its ids begin with the key."""
    for axes in figure.axes:
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0, pad=6)
        axes.set_axisbelow(True)
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_inline(out.getvalue(), key, title))


def _histogram(axes: Axes, distribution: Distribution) -> None:
    edges = np.asarray(distribution.edges, dtype=np.float64)
    for series, colour in zip(distribution.series, (ALL, KEPT), strict=True):
        axes.stairs(np.asarray(series.counts), edges, fill=True, color=colour, linewidth=0)
    for _, value in distribution.marks:
        axes.axvline(value, color=MARK, linewidth=1.4, linestyle=(0, (4, 3)), zorder=5)
    if distribution.logarithmic:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(_size))
        axes.minorticks_off()
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_count))
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_xlabel(distribution.unit)


def _categories(axes: Axes, distribution: Distribution) -> None:
    names = [shown(name, 24) for name in distribution.names or ()]
    places = np.arange(len(names))
    for series, colour in zip(distribution.series, (ALL, KEPT), strict=True):
        axes.barh(places, series.counts, 0.66, color=colour, linewidth=0)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_count))
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_xlabel(distribution.unit)


def _size(value: float, _place: object = None) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B" if value >= 1 else "0"


def _count(value: float, _place: object = None) -> str:
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.0f}"


def _inline(text: str, key: str, title: str) -> str:
    """The drawing without its file's head, sized by the page, its ids its own."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    prefix = f"{key}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    label = re.sub(r"[<>&\"]", "", title)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
