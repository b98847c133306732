"""Heterogeneity in the report: groups, how far they lie apart, why, and what it does to a model."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import duckdb

from shardwright.quality.heterogeneity.changes import CHANGES
from shardwright.quality.heterogeneity.transfer import fairness
from shardwright.service.device_figures import matrix_picture, shares_picture
from shardwright.service.text import escaped, number, percent

_SIGNIFICANT = 0.05
_MOST = 12
"""Groups in the table of groups; the others are counted."""
_SPACES = {"statistics": "what the pipeline left in the pixels", "embedding": "the embeddings"}


def heterogeneity_section(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """The section, if images were grouped; the tables of the stage ``heterogeneity`` are there."""
    groups = connection.execute(
        'SELECT "group", records, enough, compared FROM device_groups '
        'ORDER BY records DESC, "group"'
    ).fetchall()
    if not groups:
        return
    yield "<h2>What made the images</h2>"
    yield from _groups(groups)
    compared = sorted(name for name, _, _, chosen in groups if chosen)
    if not compared:
        yield "<p>Not enough data: fewer than two groups have enough images to be compared.</p>"
        return
    yield from _shift(connection, compared)
    yield from _attribution(connection)
    yield from _transfer(connection, compared)
    yield from _leakage(connection)


def _groups(groups: Sequence[tuple[Any, ...]]) -> Iterator[str]:
    small = sum(not enough for name, _, enough, _ in groups if name is not None)
    body = "".join(
        f"<tr><td>{'<i>none</i>' if name is None else escaped(name, 60)}</td>"
        f'<td class="n">{number(records)}</td>'
        f"<td>{'compared' if chosen else 'not compared' if enough else 'not enough data'}</td></tr>"
        for name, records, enough, chosen in groups[:_MOST]
    )
    yield (
        '<p class="soft">Live images by what made them. '
        f"{number(small)} groups have too few images to say anything about.</p>"
        '<div class="scroll"><table><thead><tr><th>group</th><th class="n">images</th>'
        f"<th></th></tr></thead><tbody>{body}</tbody></table></div>"
    )
    if len(groups) > _MOST:
        yield f'<p class="soft">{number(len(groups) - _MOST)} more groups are not shown.</p>'


def _shift(connection: duckdb.DuckDBPyConnection, compared: Sequence[str]) -> Iterator[str]:
    rows = connection.execute(
        "SELECT group_a, group_b, space, matched, measure, n_a, n_b, value, effect_size, "
        "null_mean, p_value, p_adjusted FROM device_shift ORDER BY ALL"
    ).fetchall()
    yield (
        '<p class="soft">How well a linear classifier tells two groups apart, held out: 0.5 is not '
        "at all, 1 is always. A star says that chance does not do that (adjusted p below "
        f"{_SIGNIFICANT}).</p>"
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
                yield f"<figure>{matrix_picture(key, title, compared, cells)}"
                yield f"<figcaption>{title}</figcaption></figure>"
    yield from _readings(connection)
    body = "".join(
        f"<tr><td>{escaped(a, 40)}</td><td>{escaped(b, 40)}</td><td>{space}</td>"
        f"<td>{'matched' if matched else ''}</td><td>{escaped(measure, 30)}</td>"
        + "".join(
            f'<td class="n">{text}</td>'
            for text in (
                number(n_a),
                number(n_b),
                f"{value:.4g}",
                f"{effect:.3g}",
                f"{null:.4g}",
                f"{p:.2g}",
                f"{adjusted:.2g}",
            )
        )
        + "</tr>"
        for a, b, space, matched, measure, n_a, n_b, value, effect, null, p, adjusted in rows
    )
    heads = ("n", "n", "value", "effect", "by chance", "p", "adjusted")
    yield (
        '<details><summary>the numbers</summary><div class="scroll"><table><thead><tr>'
        "<th>group</th><th>group</th><th>space</th><th></th><th>measure</th>"
        + "".join(f'<th class="n">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _readings(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT group_a, group_b, space, matched, ruler_stage, ruler_where, ruler_amount "
        "FROM device_shift WHERE ruler_amount IS NOT NULL AND p_adjusted < ? ORDER BY ALL",
        [_SIGNIFICANT],
    ).fetchall()
    if not rows:
        return
    yield "<ul>"
    for a, b, space, matched, stage, where, amount in rows:
        how = {"within": "as far apart as", "below": "nearer than", "above": "farther than"}[where]
        by = f"{_SPACES[space]}{', content matched' if matched else ''}"
        yield (
            f"<li>By {by}: {escaped(a, 60)} and {escaped(b, 60)} lie {how} "
            f"{stage.replace('_', ' ')} {amount:.3g} ({CHANGES[stage].unit}) moves the images of "
            "one of them.</li>"
        )
    yield "</ul>"


def _attribution(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
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
    yield "<h3>Which stages make the difference</h3>"
    yield (
        '<p class="soft">The share of the difference that goes when one stage after the other is '
        "made equal in both groups.</p>"
    )
    yield f"<figure>{shares_picture(pairs)}</figure>"
    body = "".join(
        f"<tr><td>{escaped(a, 40)}</td><td>{escaped(b, 40)}</td><td>"
        + escaped(", ".join(f"{stage} {percent(share, 1)}" for stage, share in found), 200)
        + "</td></tr>"
        for (a, b), found in pairs
    )
    yield (
        '<details><summary>the numbers</summary><div class="scroll"><table><thead><tr>'
        "<th>group</th><th>group</th><th>stages</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _transfer(connection: duckdb.DuckDBPyConnection, compared: Sequence[str]) -> Iterator[str]:
    rows = connection.execute(
        "SELECT train_group, test_group, accuracy, n FROM device_transfer"
    ).fetchall()
    if not rows:
        return
    table = {(train, test): accuracy for train, test, accuracy, _ in rows}
    tested = {test: n for _, test, _, n in rows}
    yield "<h3>Trained on one group, tested on another</h3>"
    yield (
        '<p class="soft">Accuracy of a linear probe of the label on the embeddings, all groups cut '
        "to the same labels and sizes.</p>"
    )
    heads = "".join(f'<th class="n">{escaped(name, 30)}</th>' for name in compared)
    body = ""
    for train in (*compared, None):
        found = fairness({name: table[train, name] for name in compared}, tested)
        cells = "".join(f'<td class="n">{table[train, name]:.3f}</td>' for name in compared)
        body += (
            f"<tr><td>{'all others' if train is None else escaped(train, 40)}</td>{cells}"
            f'<td class="n">{found.mean:.3f}</td><td class="n">{found.variance:.5f}</td>'
            f'<td class="n">{found.floor:.5f}</td><td>{escaped(found.worst_group, 40)}</td></tr>'
        )
    yield (
        '<div class="scroll"><table><thead><tr><th>trained on</th>'
        f'{heads}<th class="n">mean</th><th class="n">variance</th>'
        '<th class="n">of it noise</th><th>worst</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _leakage(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    for accuracy, baseline, chance, p, rows in connection.execute(
        "SELECT accuracy, baseline, null_accuracy, p_value, rows FROM device_leakage"
    ).fetchall():
        verdict = "predicts" if p < _SIGNIFICANT else "is not shown to predict"
        yield (
            f"<p>The group of an image {verdict} its label: guessing the label from the group is "
            f"right for {percent(accuracy, 1)} of {number(rows)} images, by chance for "
            f"{percent(chance, 1)}, always guessing the commonest for {percent(baseline, 1)} "
            f"(p {p:.2g}).</p>"
        )
