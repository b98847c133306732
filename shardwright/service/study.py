"""The corruption study in the report: a picture and a table."""

from collections.abc import Iterator

import duckdb

from shardwright.service.figures import effects_picture
from shardwright.service.text import escaped, number


def study_section(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """The section, if records were damaged on purpose; the table ``corruption_study`` is there."""
    rows = connection.execute(
        "SELECT corruption, family, pairs, moved, size, size_effect, size_p, distance, "
        "distance_effect, distance_p FROM corruption_study "
        "ORDER BY distance_effect DESC, corruption"
    ).fetchall()
    if not rows:
        return
    yield "<h2>What damage does to records</h2>"
    yield (
        '<p class="soft">A sample of the records was damaged on purpose and held against itself: '
        "how the cluster that it is nearest to, and the distance to its centroid, change. An "
        "effect is the mean change over its standard deviation; p is that of a sign test.</p>"
    )
    yield f"<figure>{effects_picture([(row[0], row[5], row[8]) for row in rows])}</figure>"
    body = "".join(
        f"<tr><td>{escaped(kind, 40)}</td><td>{escaped(family, 40)}</td>"
        + "".join(
            f'<td class="n">{text}</td>'
            for text in (
                number(pairs),
                f"{100 * moved:.0f} %",
                f"{size:+.3f}",
                f"{size_p:.2g}",
                f"{distance:+.4f}",
                f"{distance_p:.2g}",
            )
        )
        + "</tr>"
        for kind, family, pairs, moved, size, _, size_p, distance, _, distance_p in rows
    )
    heads = ("pairs", "in another cluster", "ln size", "p", "distance", "p")
    yield (
        '<details><summary>the numbers</summary><div class="scroll"><table><thead><tr>'
        "<th>damage</th><th>family</th>"
        + "".join(f'<th class="n">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{body}</tbody></table></div></details>"
    )
