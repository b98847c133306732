"""Cursors: plain values, and refused where the order is another one."""

import json
from dataclasses import replace
from typing import Any

import pytest

from shardwright.errors import UserError
from shardwright.shards.cursor import Cursor, check_cursor, read_cursor

CURSOR = Cursor("ab", "feistel-window-8/1", 1, 2, 48, 4, 16)
SOURCES = {"a": {"dataset_sha256": "x", "weight": 1.0, "samples": 3}}


@pytest.mark.parametrize("cursor", [CURSOR, replace(CURSOR, sources=SOURCES)])
def test_survives_json(cursor: Cursor) -> None:
    values = json.loads(json.dumps(cursor.as_dict()))
    assert read_cursor(values) == cursor
    assert ("sources" in values) == (cursor.sources is not None)


def test_has_the_fields_that_are_promised() -> None:
    assert CURSOR.as_dict() == {
        "format": 1,
        "dataset_sha256": "ab",
        "order_algorithm": "feistel-window-8/1",
        "seed": 1,
        "epoch": 2,
        "global_samples": 48,
        "canonical_nodes": 4,
        "global_batch": 16,
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset_sha256": "cd"}, "dataset_sha256 'ab', the dataset has 'cd'"),
        ({"order_algorithm": "stored/1"}, "'feistel-window-8/1', the dataset has 'stored/1'"),
        ({"seed": 0}, "seed 1, the dataset has 0"),
        ({"canonical_nodes": 1}, "canonical_nodes 4, the dataset has 1"),
        ({"global_batch": 32}, "global_batch 16, the dataset has 32; choose batch_size"),
        ({"sources": SOURCES}, "sources None, the dataset has {'a'"),
    ],
)
def test_refuses_another_order(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        check_cursor(CURSOR, replace(CURSOR, **change))
    assert says in str(caught.value)


def test_place_and_epoch_may_differ() -> None:
    check_cursor(CURSOR, replace(CURSOR, epoch=0, global_samples=0))
    moved = {"a": SOURCES["a"] | {"samples": 99}}
    check_cursor(replace(CURSOR, sources=SOURCES), replace(CURSOR, sources=moved))


def test_refuses_another_weight() -> None:
    other = {"a": SOURCES["a"] | {"weight": 2.0}}
    with pytest.raises(UserError, match="mix the sources and weights"):
        check_cursor(replace(CURSOR, sources=SOURCES), replace(CURSOR, sources=other))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"seed": "1"}, "seed is '1'; it must be of type int"),
        ({"epoch": None}, "epoch is None"),
        ({"global_samples": True}, "global_samples is True"),
        ({"dataset_sha256": 3}, "dataset_sha256 is 3"),
        ({"rank": 3}, "unknown key 'rank'"),
        ({"sources": [1]}, "they must be a mapping"),
    ],
)
def test_refuses_what_is_no_cursor(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_cursor(CURSOR.as_dict() | change)
    assert says in str(caught.value)
