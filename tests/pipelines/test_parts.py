"""Boundaries of parts: by content, local under change, balanced by weight."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.errors import DataError
from shardwright.pipelines.parts import plan_parts
from shardwright.pipelines.sources.types import Unit


def unit(path: str, size: int) -> Unit:
    return Unit(path, f"/data/{path}", size, f"{size}:0")


def listing(count: int, seed: int = 0) -> list[Unit]:
    draw = random.Random(seed)
    return [unit(f"d{i // 50:04}/f{i:06}.py", draw.randrange(20_000)) for i in range(count)]


@given(st.lists(st.integers(0, 5000), max_size=300), st.integers(1000, 100_000))
def test_parts_hold_every_unit_once_in_order(sizes: list[int], target: int) -> None:
    units = [unit(f"{i:05}", size) for i, size in enumerate(sizes)]
    parts = list(plan_parts(units, target))
    assert [u for _, part in parts for u in part] == units
    assert len({key for key, _ in parts}) == len(parts)
    for _, part in parts:
        assert sum(u.size + 1024 for u in part[:-1]) < 4 * target


def test_mean_part_is_about_the_target_whatever_the_units_weigh() -> None:
    for size in (1_000, 50_000, 700_000):
        units = [unit(f"{i:06}", size) for i in range(20_000_000_000 // size // 100)]
        parts = list(plan_parts(units, 2_000_000))
        mean = sum(u.size for _, part in parts for u in part) / len(parts)
        assert 1_000_000 < mean < 3_500_000


def test_one_more_file_changes_at_most_two_parts() -> None:
    units = listing(15_000)
    before = dict(plan_parts(units, 4_000_000))
    assert len(before) > 20
    for place in (0, 7_000, 14_999):
        extra = unit(units[place].path + "x", 12_345)
        after = dict(plan_parts(sorted([*units, extra], key=lambda u: u.path), 4_000_000))
        changed = [key for key, part in after.items() if before.get(key) != part]
        assert 1 <= len(changed) <= 2


def test_equal_paths_are_refused() -> None:
    with pytest.raises(DataError, match="stands twice"):
        list(plan_parts([unit("a", 1), unit("a", 1)], 100))
