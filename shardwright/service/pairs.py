"""Groups of duplicates, side by side: texts as a diff, images as thumbnails."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import duckdb

from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import Rows
from shardwright.service.blocks import Block, Heading, Pair, Table, Words
from shardwright.service.samples import Row, card
from shardwright.service.text import number, percent

_SHOWN = 3
"""Groups of each kind."""
_LINES, _WIDTH = 400, 400
"""What of a text is compared; difflib takes quadratic time."""
_CONTEXT, _MOST = 2, 40
"""Lines of a diff around a change, and altogether."""
TABLES = ("duplicates", "semantic_duplicates")
_KINDS = {
    "exact": "equal bytes, or equal text once it is normalised",
    "near": "nearly the same",
    "semantic": "the same in other words, by their vectors",
}


@dataclass(frozen=True)
class Group:
    """A group of duplicates.

    Attributes:
        kind: ``exact``, ``near`` or ``semantic``.
        group_id: Of the group.
        records: How many are in it.
        representative: Id of the record that stays.
        farthest: Id of the member that is least like it.
        similarity: Of that member.
    """

    kind: str
    group_id: str
    records: int
    representative: str
    farthest: str
    similarity: float


def groups(
    connection: duckdb.DuckDBPyConnection, table: str, most: int = _SHOWN, offset: int = 0
) -> list[Group]:
    """Groups of a table, those of the least similar members of each kind first.

    They are where a threshold is judged; groups of copies of one text say little. ``most`` holds
    for each kind.
    """
    rows = connection.execute(
        f"""
        SELECT kind, group_id, count(*), any_value(representative_id),
          arg_min(record_id, (similarity, record_id)), min(similarity) AS least
        FROM {table} WHERE record_id <> representative_id
        GROUP BY kind, group_id
        QUALIFY row_number() OVER (PARTITION BY kind ORDER BY least, group_id)
          BETWEEN {offset + 1} AND {offset + most}
        ORDER BY kind, least, group_id
        """
    ).fetchall()
    # The member that stays is in its group too.
    return [Group(kind, group, count + 1, *rest) for kind, group, count, *rest in rows]


def duplicates_section(
    layout: Layout, connection: duckdb.DuckDBPyConnection, stored: Rows, modality: str
) -> Iterator[Block]:
    """The groups that were found, and some of them."""
    tables = [table for table in TABLES if layout.manifest(table) is not None]
    counts = [
        row
        for table in tables
        for row in connection.execute(
            f"SELECT kind, count(DISTINCT group_id), count(*), "
            f"count(*) FILTER (record_id <> representative_id) FROM {table} "
            "GROUP BY kind ORDER BY kind"
        ).fetchall()
    ]
    if not counts:
        return
    yield Heading("Duplicates")
    rows = [
        (kind, _KINDS.get(kind, ""), number(many), number(members), number(members - many))
        for kind, many, members, _ in counts
    ]
    heads = ("kind", "what they are", "groups", "records in them", "beyond the first")
    yield Table(heads, rows, (2, 3, 4))
    found = [group for table in tables for group in groups(connection, table)]
    wanted = [record for group in found for record in (group.representative, group.farthest)]
    records = stored.read(wanted)
    yield Words("Of each kind the groups whose members are the least alike.")
    for group in found:
        if group.representative in records and group.farthest in records:
            yield pair(group, records, modality)


def pair(
    group: Group,
    records: Mapping[str, Row],
    modality: str,
    href: Callable[[str], str] = lambda _: "",
) -> Pair:
    """The record that stays beside the one that is least like it; ``href`` leads to records."""
    about = (
        f"{group.kind}, {number(group.records)} records, similarity "
        f"{percent(group.similarity, 1)} at least"
    )
    return beside(about, records[group.representative], records[group.farthest], modality, href)


def beside(
    about: str, kept: Row, other: Row, modality: str, href: Callable[[str], str] = lambda _: ""
) -> Pair:
    """Two records side by side, texts as the changes from the first to the second."""
    left, right = (
        card(record, modality, href=href(record["record_id"])) for record in (kept, other)
    )
    if modality == "image":
        return Pair(about, left, right)
    diff = compared(kept["content"], other["content"])
    # The diff shows them.
    return Pair(about, replace(left, text=""), replace(right, text=""), diff)


def compared(a: str, b: str) -> list[tuple[str, str]]:
    """(sign, line) of the changes from one text to another; bounded, see ``Pair``."""
    left, right = (
        [line[:_WIDTH] for line in text[: _LINES * _WIDTH].splitlines()[:_LINES]] for text in (a, b)
    )
    lines: list[tuple[str, str]] = []
    for line in difflib.unified_diff(left, right, n=_CONTEXT, lineterm=""):
        if line.startswith(("---", "+++")) and len(lines) == 0:
            continue
        sign = line[0] if line else " "
        lines.append(("@", "") if sign == "@" else (sign, line[1:]))
        if len(lines) > _MOST:
            return [*lines[:_MOST], ("@", "more changes follow")]
    if not lines:
        return [] if a == b else [("@", "the same but for what is not compared")]
    return lines
