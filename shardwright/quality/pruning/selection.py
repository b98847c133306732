"""Who goes: the lowest scores of each group, and then what is above a cap for each group.

First the last record that goes is found, for each group; then any record can be told by itself.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

GROUP_CAP: Final = "group_cap"
"""Reason of a record that went because too many of its group were left."""

Most: TypeAlias = int | float | Literal["smallest"]


@dataclass(frozen=True)
class Cap:
    """How many records of one group may be kept.

    Attributes:
        most: A number of records; a share below 1 of all that is kept in the end; or ``smallest``:
            as many as the smallest group keeps, so that all groups weigh the same.
        least: ``smallest`` passes over groups of fewer records.
    """

    most: Most
    least: int = 1


def cuts_query(live: str, fraction: float) -> str:
    """SQL for where each group is cut.

    Args:
        live: A query that yields ``record_id``, ``grp`` and ``score``.
        fraction: Share of each ``grp`` that goes, rounded; of equal scores the lowest ids go first.

    Returns:
        A query that yields ``grp``; ``last_score`` and ``last_id`` of the last record that goes,
        NULL where none goes; and ``lowest``, the lowest score that stays, or the highest of all
        where none stays.
    """
    goes = f"round_even({fraction!r}::DOUBLE * count(*), 0)"
    return _edges_query(f"SELECT record_id, grp, score FROM ({live})", goes)


def caps_query(live: str, cuts: str, cap: Cap) -> str:
    """SQL for where a cap cuts what the fraction leaves.

    Args:
        live: As above, with ``cap_grp``: each of them keeps its best so many.
        cuts: Relation that ``cuts_query`` made.
        cap: How many.

    Returns:
        A query with the columns of ``cuts_query``, whose ``grp`` is a ``cap_grp``.
    """
    left = f"SELECT record_id, cap_grp AS grp, score FROM ({_left(live, cuts)})"
    sizes = f"SELECT count(*) AS n, cap_grp FROM ({_left(live, cuts)}) GROUP BY cap_grp"
    most = f"(WITH sizes AS ({sizes}) {_bound(cap)})"
    return _edges_query(left, f"greatest(count(*) - {most}, 0)")


def selection_query(live: str, cuts: str, caps: str | None = None) -> str:
    """SQL for who goes, and the score that decided.

    Args:
        live: A query that yields ``record_id``, ``score``, ``reason`` (why it goes, if it does),
            ``grp``, and with caps ``cap_grp``; of all live records, or of some.
        cuts: Relation that ``cuts_query`` made of all.
        caps: Relation that ``caps_query`` made of all.

    Returns:
        A query that yields the columns of ``live`` and ``pruned``, ``reason`` and ``threshold``:
        the lowest score that stays among those that the record was compared with, or the highest of
        them where none stays.
    """
    gone = _goes("live", "c")
    if caps is None:
        return f"""
        SELECT live.*, {gone} AS pruned, c.lowest AS threshold
        FROM ({live}) AS live JOIN {cuts} AS c USING (grp)"""
    return f"""
    SELECT * EXCLUDE (gone, over, capped, within) REPLACE (
        CASE WHEN over THEN '{GROUP_CAP}' ELSE reason END AS reason,
        CASE WHEN gone OR NOT capped THEN threshold ELSE within END AS threshold),
      gone OR over AS pruned
    FROM (
      SELECT live.*, {gone} AS gone, NOT gone AND {_goes("live", "o")} AS over,
        o.last_id IS NOT NULL AS capped, c.lowest AS threshold, o.lowest AS within
      FROM ({live}) AS live JOIN {cuts} AS c USING (grp)
        LEFT JOIN {caps} AS o ON o.grp = live.cap_grp)"""


def kept_groups_query(live: str, cuts: str) -> str:
    """SQL that counts the values of ``cap_grp`` among what the fraction leaves, see above."""
    return f"SELECT count(DISTINCT cap_grp) FROM ({_left(live, cuts)})"


def _goes(rows: str, edges: str) -> str:
    """SQL for whether a row is at an edge or below it."""
    return (
        f"coalesce({rows}.score < {edges}.last_score OR ({rows}.score = {edges}.last_score "
        f"AND {rows}.record_id <= {edges}.last_id), false)"
    )


def _left(live: str, cuts: str) -> str:
    return (
        f"SELECT live.* FROM ({live}) AS live JOIN {cuts} AS c USING (grp) "
        f"WHERE NOT {_goes('live', 'c')}"
    )


def _edges_query(rows: str, goes: str) -> str:
    """SQL for the last of the lowest rows of each group, see ``cuts_query``.

    Only scores are sorted; of ids only those that have the last score.

    Args:
        rows: Query that yields ``record_id``, ``grp`` and ``score``.
        goes: SQL of an aggregate: how many rows of a group go.
    """
    return f"""
    WITH members AS NOT MATERIALIZED ({rows}),
    sizes AS MATERIALIZED (
      SELECT grp, count(*) AS n, {goes}::BIGINT AS goes FROM members GROUP BY grp),
    cuts AS (
      SELECT grp, goes, (sum(n) OVER (ORDER BY grp) - n + goes)::BIGINT AS cut FROM sizes),
    ordered AS (
      SELECT grp, score, row_number() OVER () AS place
      FROM (SELECT grp, score FROM members ORDER BY grp, score)),
    lasts AS MATERIALIZED (
      SELECT grp, any_value(goes) AS goes, max(score) FILTER (place = cut) AS last_score,
        coalesce(min(score) FILTER (place > cut), max(score)) AS lowest
      FROM ordered JOIN cuts USING (grp) GROUP BY grp),
    before AS MATERIALIZED (
      SELECT grp, count(*) AS below
      FROM members JOIN lasts USING (grp) WHERE score < last_score GROUP BY grp),
    ids AS (
      SELECT grp, record_id AS last_id
      FROM members JOIN lasts USING (grp) LEFT JOIN before USING (grp)
      WHERE score = last_score
      QUALIFY row_number() OVER (PARTITION BY grp ORDER BY record_id) = goes - coalesce(below, 0))
    SELECT grp, last_score, last_id, lowest FROM lasts LEFT JOIN ids USING (grp)"""


def _bound(cap: Cap) -> str:
    """A query over ``sizes`` that yields ``most``, the records that a group may keep."""
    if cap.most == "smallest":
        return f"SELECT coalesce(min(n), 0) AS most FROM sizes WHERE n >= {cap.least}"
    if isinstance(cap.most, int):
        return f"SELECT {cap.most} AS most"
    # With the j largest groups cut to m records each, and `rest` in the others, m is the share s
    # of all: m = s (j m + rest). The right j is that at which m, rounded down, lies between the
    # sizes of the j-th group and the next. Where there is none, no group has more than its share.
    s = f"{cap.most!r}::DOUBLE"
    rounding = 1e-6  # of m, where it would be whole
    return f"""
    SELECT coalesce(max(m), (SELECT coalesce(max(n), 0) FROM sizes)) AS most
    FROM (
      SELECT n, lead(n, 1, 0) OVER largest AS next, row_number() OVER largest AS j,
        floor({s} * (sum(n) OVER () - sum(n) OVER largest)
          / (1 - row_number() OVER largest * {s}) + {rounding}) AS m
      FROM sizes
      WINDOW largest AS (ORDER BY n DESC, cap_grp ROWS UNBOUNDED PRECEDING))
    WHERE j * {s} < 1 AND m < n AND m >= next"""


def fewest_groups(cap: Cap) -> int:
    """How many groups there must be, that each can be at most its share of what is kept."""
    return math.ceil(1 / cap.most) if isinstance(cap.most, float) else 1
