"""Heterogeneity in the report: groups, how far they lie apart, why, and what it does to a model."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import duckdb

from shardwright.quality.heterogeneity.changes import CHANGES
from shardwright.quality.heterogeneity.transfer import fairness
from shardwright.service.blocks import Block, Heading, Listed, Picture, Table, Words
from shardwright.service.device_figures import matrix_picture, shares_picture
from shardwright.service.text import number, percent, shown

_SIGNIFICANT = 0.05
_MOST = 12
"""Groups in the table of groups; the others are counted."""
_SPACES = {"statistics": "what the pipeline left in the pixels", "embedding": "the embeddings"}


def heterogeneity_section(connection: duckdb.DuckDBPyConnection) -> Iterator[Block]:
    """The section, if images were grouped; the tables of the stage ``heterogeneity`` are there."""
    groups = connection.execute(
        'SELECT "group", records, enough, compared FROM device_groups '
        'ORDER BY records DESC, "group"'
    ).fetchall()
    if not groups:
        return
    yield Heading("What made the images")
    yield from _groups(groups)
    compared = sorted(name for name, _, _, chosen in groups if chosen)
    if not compared:
        yield Words(
            "Not enough data: fewer than two groups have enough images to be compared.", soft=False
        )
        return
    yield from _shift(connection, compared)
    yield from _attribution(connection)
    yield from _transfer(connection, compared)
    yield from _leakage(connection)


def _groups(groups: Sequence[tuple[Any, ...]]) -> Iterator[Block]:
    small = sum(not enough for name, _, enough, _ in groups if name is not None)
    yield Words(
        f"Live images by what made them. {number(small)} groups have too few images to say "
        "anything about."
    )
    rows = [
        (
            "(none)" if name is None else shown(name, 60),
            number(records),
            "compared" if chosen else "not compared" if enough else "not enough data",
        )
        for name, records, enough, chosen in groups[:_MOST]
    ]
    yield Table(("group", "images", "compared?"), rows, (1,))
    if len(groups) > _MOST:
        yield Words(f"{number(len(groups) - _MOST)} more groups are not shown.")


def _shift(connection: duckdb.DuckDBPyConnection, compared: Sequence[str]) -> Iterator[Block]:
    rows = connection.execute(
        "SELECT group_a, group_b, space, matched, measure, n_a, n_b, value, effect_size, "
        "null_mean, p_value, p_adjusted FROM device_shift ORDER BY ALL"
    ).fetchall()
    yield Words(
        "How well a linear classifier tells two groups apart, held out: 0.5 is not at all, 1 is "
        "always. A star says that chance does not do that (adjusted p below "
        f"{_SIGNIFICANT})."
    )
    for space, meaning in _SPACES.items():
        for matched in (False, True):
            cells = {
                (a, b): (value, p < _SIGNIFICANT)
                for a, b, of, is_matched, measure, _, _, value, _, _, _, p in rows
                if (of, is_matched, measure) == (space, matched, "classifier")
            }
            if cells:
                title = f"By {meaning}, {'with content matched' if matched else 'as they are'}"
                key = f"shift-{space}-{'matched' if matched else 'plain'}"
                yield Picture(matrix_picture(key, title, compared, cells), title)
    yield from _readings(connection)
    heads = ("group", "group", "space", "content", "measure", "n", "n", "value", "effect")
    numbers = [
        (
            shown(a, 40),
            shown(b, 40),
            space,
            "matched" if matched else "",
            shown(measure, 30),
            number(n_a),
            number(n_b),
            f"{value:.4g}",
            f"{effect:.3g}",
            f"{null:.4g}",
            f"{p:.2g}",
            f"{adjusted:.2g}",
        )
        for a, b, space, matched, measure, n_a, n_b, value, effect, null, p, adjusted in rows
    ]
    yield Table((*heads, "by chance", "p", "adjusted"), numbers, range(5, 12), folded="the numbers")


def _readings(connection: duckdb.DuckDBPyConnection) -> Iterator[Block]:
    rows = connection.execute(
        "SELECT group_a, group_b, space, matched, ruler_stage, ruler_where, ruler_amount "
        "FROM device_shift WHERE ruler_amount IS NOT NULL AND p_adjusted < ? ORDER BY ALL",
        [_SIGNIFICANT],
    ).fetchall()
    if rows:
        yield Listed([_reading(*row) for row in rows])


def _reading(
    a: str, b: str, space: str, matched: bool, stage: str, where: str, amount: float
) -> str:
    how = {"within": "as far apart as", "below": "nearer than", "above": "farther than"}[where]
    by = f"{_SPACES[space]}{', content matched' if matched else ''}"
    return (
        f"By {by}: {shown(a, 60)} and {shown(b, 60)} lie {how} {stage.replace('_', ' ')} "
        f"{amount:.3g} ({CHANGES[stage].unit}) moves the images of one of them."
    )


def _attribution(connection: duckdb.DuckDBPyConnection) -> Iterator[Block]:
    rows = connection.execute(
        "SELECT group_a, group_b, stage, share FROM device_attribution "
        "ORDER BY group_a, group_b, rank"
    ).fetchall()
    if not rows:
        return
    pairs = [
        (pair, [(stage, share) for _, _, stage, share in found])
        for pair, found in groupby(rows, key=lambda row: (row[0], row[1]))
    ]
    yield Heading("Which stages make the difference", 3)
    yield Words(
        "The share of the difference that goes when one stage after the other is made equal in "
        "both groups."
    )
    numbers = [
        (
            shown(a, 40),
            shown(b, 40),
            ", ".join(f"{stage} {percent(share, 1)}" for stage, share in found),
        )
        for (a, b), found in pairs
    ]
    heads = ("group", "group", "stages")
    yield Picture(shares_picture(pairs), numbers=Table(heads, numbers, folded="the numbers"))


def _transfer(connection: duckdb.DuckDBPyConnection, compared: Sequence[str]) -> Iterator[Block]:
    rows = connection.execute(
        "SELECT train_group, test_group, accuracy, n FROM device_transfer"
    ).fetchall()
    if not rows:
        return
    table = {(train, test): accuracy for train, test, accuracy, _ in rows}
    tested = {test: n for _, test, _, n in rows}
    yield Heading("Trained on one group, tested on another", 3)
    yield Words(
        "Accuracy of a linear probe of the label on the embeddings, all groups cut to the same "
        "labels and sizes."
    )
    body = []
    for train in (*compared, None):
        found = fairness({name: table[train, name] for name in compared}, tested)
        body.append(
            (
                "all others" if train is None else shown(train, 40),
                *(f"{table[train, name]:.3f}" for name in compared),
                f"{found.mean:.3f}",
                f"{found.variance:.5f}",
                f"{found.floor:.5f}",
                shown(found.worst_group, 40),
            )
        )
    heads = ("trained on", *(shown(name, 30) for name in compared))
    yield Table(
        (*heads, "mean", "variance", "of it noise", "worst"), body, range(1, len(compared) + 4)
    )


def _leakage(connection: duckdb.DuckDBPyConnection) -> Iterator[Block]:
    for accuracy, baseline, chance, p, rows in connection.execute(
        "SELECT accuracy, baseline, null_accuracy, p_value, rows FROM device_leakage"
    ).fetchall():
        verdict = "predicts" if p < _SIGNIFICANT else "is not shown to predict"
        yield Words(
            f"The group of an image {verdict} its label: guessing the label from the group is "
            f"right for {percent(accuracy, 1)} of {number(rows)} images, by chance for "
            f"{percent(chance, 1)}, always guessing the commonest for {percent(baseline, 1)} "
            f"(p {p:.2g}).",
            soft=False,
        )
