"""Who goes: the lowest scores of each group, and then what is above a cap for each group."""

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


def _cut(live: str, fraction: float) -> str:
    """``live`` with ``gone``: the rounded fraction of each ``grp`` that scores lowest."""
    return f"""
    SELECT *, row_number() OVER (PARTITION BY grp ORDER BY score, record_id)
      <= round_even({fraction!r}::DOUBLE * count(*) OVER (PARTITION BY grp), 0) AS gone
    FROM ({live})"""


def selection_query(live: str, fraction: float, cap: Cap | None = None) -> str:
    """SQL for who goes, and the score that decided.

    Args:
        live: A query that yields ``record_id``, ``score``, ``reason`` (why it goes, if it does),
            ``grp`` (the fraction goes of each), and with a cap ``cap_grp``.
        fraction: Share of each ``grp`` that goes; of equal scores the lowest ids go first.
        cap: Of what is left, each ``cap_grp`` keeps its best so many.

    Returns:
        A query that yields ``record_id``, ``pruned``, ``reason``, ``score`` and ``threshold``: the
        lowest score that stays among those that the record was compared with, or the highest of
        them where none stays.
    """
    lowest = (
        "coalesce(min(score) FILTER (NOT gone) OVER (PARTITION BY grp), "
        "max(score) OVER (PARTITION BY grp))"
    )
    if cap is None:
        return f"""
        SELECT record_id, gone AS pruned, reason, score, {lowest} AS threshold
        FROM ({_cut(live, fraction)})"""
    return f"""
    WITH cut AS ({_cut(live, fraction)}),
    sizes AS (SELECT cap_grp, count(*) AS n FROM cut WHERE NOT gone GROUP BY cap_grp),
    bound AS ({_bound(cap)}),
    capped AS (
      SELECT *, NOT gone AND row_number() OVER (PARTITION BY cap_grp, gone
        ORDER BY score DESC, record_id DESC) > most AS over
      FROM cut, bound)
    SELECT record_id, gone OR over AS pruned, score,
      CASE WHEN over THEN '{GROUP_CAP}' ELSE reason END AS reason,
      CASE WHEN gone OR NOT bool_or(over) OVER (PARTITION BY cap_grp) THEN {lowest}
        ELSE coalesce(min(score) FILTER (NOT gone AND NOT over) OVER (PARTITION BY cap_grp),
          max(score) OVER (PARTITION BY cap_grp)) END AS threshold
    FROM capped"""


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


def kept_groups_query(live: str, fraction: float) -> str:
    """SQL that counts the values of ``cap_grp`` among what the fraction leaves, see above."""
    return f"SELECT count(DISTINCT cap_grp) FROM ({_cut(live, fraction)}) WHERE NOT gone"


def fewest_groups(cap: Cap) -> int:
    """How many groups there must be, that each can be at most its share of what is kept."""
    return math.ceil(1 / cap.most) if isinstance(cap.most, float) else 1
