"""Selection against counting in Python: fraction of each group, then a cap for each group."""

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardwright.quality.pruning.relations import rows
from shardwright.quality.pruning.selection import (
    Cap,
    Most,
    caps_query,
    cuts_query,
    fewest_groups,
    kept_groups_query,
    selection_query,
)

Row = dict[str, Any]
LIVE = "SELECT * FROM live"
SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("grp", pa.string()),
        ("cap_grp", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)
GROUPS = st.sampled_from(["", "a", "b", "c", "d"])
MEMBERS = st.lists(
    st.tuples(GROUPS, GROUPS, st.sampled_from([0.0, 0.5, 0.5, 1.0, -2.0])), max_size=50
)


def table(members: list[tuple[str, str, float]]) -> pa.Table:
    """Ids ascend in another order than the rows stand in."""
    made = [
        {"record_id": f"{(i * 37) % 1009:032x}", "grp": grp, "cap_grp": cap}
        | {"score": score, "reason": "poor"}
        for i, (grp, cap, score) in enumerate(members)
    ]
    return pa.Table.from_pylist(made, SCHEMA)


def selected(live: pa.Table, fraction: float, cap: Cap | None) -> dict[str, Row]:
    cuts = rows(cuts_query(LIVE, fraction), live=live)
    query, relations = selection_query(LIVE, "cuts"), {"live": live, "cuts": cuts}
    if cap is not None:
        relations["caps"] = rows(caps_query(LIVE, "cuts", cap), **relations)
        query = selection_query(LIVE, "cuts", "caps")
    found = rows(query, **relations)
    assert len(set(found.column_names)) == found.num_columns
    return {row["record_id"]: row for row in found.to_pylist()}


def grouped(members: list[Row], by: str) -> dict[str, list[Row]]:
    groups = defaultdict(list)
    for row in sorted(members, key=lambda row: (row["score"], row["record_id"])):
        groups[row[by]].append(row)
    return groups


def bound(sizes: list[int], cap: Cap) -> int:
    """The most records of one group, by trying all."""
    if isinstance(cap.most, int):
        return cap.most
    if cap.most == "smallest":
        return min((n for n in sizes if n >= cap.least), default=0)
    share = cap.most
    for most in range(max(sizes, default=0), -1, -1):
        cut = [min(n, most) for n in sizes]
        if not any(n > share * sum(cut) + 1e-9 for n in cut):
            return most
    raise AssertionError


def check(members: list[tuple[str, str, float]], fraction: float, cap: Cap | None) -> None:
    live = table(members)
    records = live.to_pylist()
    gone = set()
    for group in grouped(records, "grp").values():
        gone |= {row["record_id"] for row in group[: round(fraction * len(group))]}
    over = set()
    if cap is not None:
        left = grouped([row for row in records if row["record_id"] not in gone], "cap_grp")
        if len(left) < fewest_groups(cap):
            return
        most = bound([len(group) for group in left.values()], cap)
        for group in left.values():
            over |= {row["record_id"] for row in group[: max(len(group) - most, 0)]}
    found = selected(live, fraction, cap)
    assert set(found) == {row["record_id"] for row in records}
    assert {name for name, row in found.items() if row["pruned"]} == gone | over
    assert {name for name, row in found.items() if row["reason"] == "group_cap"} == over
    for name, row in found.items():
        compared = [one for one in records if one["grp"] == row["grp"]]
        stay = [one for one in compared if one["record_id"] not in gone]
        others = {one["cap_grp"] for one in records if one["record_id"] in over}
        if name not in gone and row["cap_grp"] in others:
            left = [one for one in records if one["record_id"] not in gone]
            compared = [one for one in left if one["cap_grp"] == row["cap_grp"]]
            stay = [one for one in compared if one["record_id"] not in over]
        bounds = [one["score"] for one in stay]
        assert row["threshold"] == (min(bounds) if stay else max(o["score"] for o in compared))
    for row in found.values():  # what decisions promise, and verify checks
        decided = row["score"] - row["threshold"]
        assert decided <= 0 if row["pruned"] else decided >= 0


@settings(max_examples=60, deadline=None)
@given(
    MEMBERS,
    st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    st.sampled_from([None, 1, 3, 0.2, 0.25, 0.5, 0.9, "smallest"]),
    st.integers(1, 4),
)
@example([("", "a", -2.0), ("", "a", 0.0), ("", "a", 0.5), ("", "a", 1.0)], 0.2, 1, 1)
@example([("", "a", 1.0)] * 9 + [("", "b", 1.0)] * 5 + [("", "c", 1.0)] * 5, 0.0, 1 / 3, 1)
def test_who_goes(
    members: list[tuple[str, str, float]], fraction: float, most: Most | None, least: int
) -> None:
    check(members, fraction, None if most is None else Cap(most, least))


@pytest.mark.parametrize("groups", range(1, 12))
def test_a_share_that_all_groups_reach_just_so(groups: int) -> None:
    """1 / groups leaves all groups equal, whatever the rounding of floats."""
    members = [("", str(g), float(i)) for g in range(groups) for i in range(5 + 3 * g)]
    share = 1 / groups
    cap = Cap(share if share < 1 else 5)
    assert fewest_groups(cap) == (groups if groups > 1 else 1)
    found = selected(table(members), 0.0, cap).values()
    assert sum(not row["pruned"] for row in found) == 5 * groups


def test_groups_are_counted_after_the_fraction() -> None:
    members = [("", "a", 1.0), ("", "a", 2.0), ("", "b", 0.0), ("", "b", 0.5)]
    live = table(members)
    cuts = rows(cuts_query(LIVE, 0.5), live=live)
    counted = rows(kept_groups_query(LIVE, "cuts"), live=live, cuts=cuts).column(0).to_pylist()
    assert counted == [1]


@pytest.mark.parametrize("most", [1, 0.5, "smallest"])
def test_nothing_gives_nothing(most: Most) -> None:
    assert selected(table([]), 0.2, Cap(most)) == {}
