"""Pictures of heterogeneity: a matrix of groups, and shares of stages."""

from collections.abc import Mapping, Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from shardwright.service.figures import GRID, KEPT, STYLE, drawn
from shardwright.service.text import shown


def matrix_picture(
    key: str,
    title: str,
    groups: Sequence[str],
    cells: Mapping[tuple[str, str], tuple[float, bool]],
) -> Markup:
    """An ``<svg>`` element: how well every two groups are told apart.

    Args:
        key: Of the picture; its ids begin with it.
        title: Of the picture.
        groups: In their order.
        cells: Of two groups, the first before the second: an area of 0.5 to 1, and whether it is
            significant.
    """
    count = len(groups)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.0 + 0.34 * count), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for (a, b), (area, significant) in cells.items():
            row, column = groups.index(b), groups.index(a)
            depth = min(max(2 * area - 1, 0.0), 1.0)
            for x, y in ((column, row), (row, column)):
                corner = (x - 0.5, y - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, color=KEPT, alpha=0.5 * depth, linewidth=0))
                axes.text(x, y, f"{area:.2f}{'*' if significant else ''}", ha="center", va="center")
        names = [shown(name, 22) for name in groups]
        axes.set_xticks(
            range(count),
            names,
            rotation=20 if count > 4 else 0,
            ha="right" if count > 4 else "center",
        )
        axes.set_yticks(range(count), names)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        for edge in range(1, count):
            axes.axvline(edge - 0.5, color=GRID, linewidth=0.7)
            axes.axhline(edge - 0.5, color=GRID, linewidth=0.7)
        return drawn(figure, key, title)


def shares_picture(
    pairs: Sequence[tuple[tuple[str, str], Sequence[tuple[str, float]]]],
) -> Markup:
    """An ``<svg>`` element: of each pair of groups, the stages and their shares, 0 to 1."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.42 * len(pairs)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for place, (_, stages) in enumerate(pairs):
            left = 0.0
            for rank, (_, share) in enumerate(stages):
                alpha = max(0.7 - 0.2 * rank, 0.15)
                axes.barh(place, share, 0.62, left, color=KEPT, alpha=alpha, linewidth=0)
                left += share
            words = ", ".join(f"{stage.replace('_', ' ')} {share:.0%}" for stage, share in stages)
            axes.annotate(
                words, (left, place), (6, 0), textcoords="offset points", va="center", clip_on=False
            )
        labels = [f"{shown(a, 20)} / {shown(b, 20)}" for (a, b), _ in pairs]
        axes.set_yticks(range(len(pairs)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.set_xlabel("share of the difference")
        return drawn(figure, "shares", "Which stages make the difference")
