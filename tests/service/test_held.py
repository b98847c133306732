"""What a service holds in memory says the same as the files, to many at once."""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from metadata.sample_output import build, make_records

from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import StoredRows
from shardwright.service import rows
from shardwright.service.app import create_app
from shardwright.service.library import Content
from shardwright.service.rows import HeldRows
from shardwright.service.settings import Settings
from shardwright.service.together import Together

pytest_plugins = ("service.served",)


def ids_of(layout: Layout) -> list[str]:
    modality = "image" if layout.root.name == "image" else "code"
    return [row["record_id"] for row in make_records(modality, 30)]


def strange(one: str) -> list[str]:
    return ["", "ü", one + "0", one[:-1], "f" * len(one), "0" * len(one), "a\0b"]


@pytest.fixture(scope="module", params=["code", "image"])
def layout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return build(tmp_path_factory.mktemp("held") / request.param, request.param)


@pytest.mark.parametrize("held_bytes", [0, 1000, 256_000_000])
def test_rows_are_those_of_the_files(
    layout: Layout, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_HELD", held_bytes)
    ids = ids_of(layout)
    every = [*ids, *strange(ids[0])]
    with connect(layout) as connection:
        held, stored = HeldRows(layout, connection), StoredRows(layout, connection)
        assert held.ids.to_pylist() == sorted(held.ids.to_pylist())
        rng = random.Random(1)
        for columns in (None, ["path"], ["bytes", "record_id", "source"]):
            for count in (0, 1, 5, len(every)):
                asked = rng.sample(every, count)
                found = held.read(asked, columns)
                assert found == stored.read(asked, columns)
                assert list(found) == [one for one in asked if one in ids]
                assert held._columns._bytes <= held_bytes
        decisions = layout.need("decisions", "prune")
        for record_id in every:
            assert held.part(record_id) == stored.part(record_id)
            for file in decisions.files():
                found = held.find(file, record_id, ["record_id", "stage", "score"])
                assert found == stored.find(file, record_id, ["record_id", "stage", "score"])


def test_columns_of_tables_with_a_row_for_each_record(settings: Settings) -> None:
    layout = Layout(settings.folders["code"])
    table = layout.need("signatures", "duplicates")
    with connect(layout) as connection:
        held = HeldRows(layout, connection)
        query = "SELECT record_id, shingles FROM signatures ORDER BY record_id"
        expected = dict(connection.execute(query).fetchall())
    ids = held.ids.to_pylist()
    for count in (0, 1, 7, len(ids)):
        places = np.random.default_rng(count).permutation(len(ids))[:count]
        found = held.aligned(table, "shingles", places).to_pylist()
        assert found == [expected[ids[place]] for place in places]


@pytest.mark.parametrize("held_bytes", [0, 100, 10_000])
def test_rows_of_many_groups_come_in_order(
    tmp_path: Path, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_HELD", held_bytes)
    path = tmp_path / "numbers.parquet"
    ids = [f"{i:03}" for i in range(50)]
    table = pa.table({"record_id": ids, "square": [i * i for i in range(50)]})
    pq.write_table(table, path, row_group_size=3)
    columns = rows._Columns()
    for seed in range(5):
        wanted = np.random.default_rng(seed).permutation(60)[:20].astype(np.int32)
        found = columns.take(path, wanted, ["square"])["square"].to_pylist()
        assert found == [int(i) ** 2 for i in wanted if i < 50]
    for i in (0, 2, 3, 49):
        assert columns.find(path, ids[i], ["square"]) == {"square": i * i}
    assert columns.find(path, "050", ["square"]) is None


def test_rows_for_many_at_once(layout: Layout) -> None:
    ids = ids_of(layout)
    with connect(layout) as connection:
        held = HeldRows(layout, connection)
        expected = {one: StoredRows(layout, connection).read([one]) for one in ids}

    def ask(number: int) -> None:
        for one in random.Random(number).sample(ids, len(ids)):
            assert held.read([one]) == expected[one]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))


def test_nothing_is_there(tmp_path: Path) -> None:
    layout = build(tmp_path / "out", count=0, embedding=False)
    with connect(layout) as connection:
        held = HeldRows(layout, connection)
    assert held.read(["00ff"]) == {}
    assert held.part("00ff") is None


@dataclass
class Slow:
    """A function whose first call ends when it is told to."""

    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    calls: list[list[int]] = field(default_factory=list)

    def answers(self, questions: Sequence[int]) -> list[str]:
        self.calls.append(list(questions))
        self.started.set()
        assert self.go.wait(60)
        if min(questions) < 0:
            raise ValueError(f"{min(questions)}: no question")
        return [f"answer to {one}" for one in questions]


def asked_at_once(slow: Slow, *questions: int) -> list[str]:
    """Answers to a first question and to others that come while it is answered."""
    together = Together(slow.answers)

    def ask(question: int) -> str:
        try:
            return together.answer(question)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(questions)) as threads:
        first = threads.submit(ask, questions[0])
        assert slow.started.wait(60)
        rest = [threads.submit(ask, one) for one in questions[1:]]
        while len(together._waiting) < len(rest):
            pass
        slow.go.set()
        return [one.result() for one in (first, *rest)]


def test_questions_that_wait_are_one_call() -> None:
    slow = Slow()
    assert asked_at_once(slow, *range(9)) == [f"answer to {one}" for one in range(9)]
    assert slow.calls[0] == [0]
    assert [sorted(call) for call in slow.calls[1:]] == [list(range(1, 9))]


def test_an_error_is_of_the_one_who_asked() -> None:
    slow = Slow()
    found = asked_at_once(slow, 0, 1, -2, 3, -4)
    assert found == [
        "answer to 0",
        "answer to 1",
        "-2: no question",
        "answer to 3",
        "-4: no question",
    ]


def test_searches_at_once_find_what_they_find_alone(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        held = client.app.state.library.get("code")  # type: ignore[attr-defined]
        ids = held.rows.ids.to_pylist()[:12]
        texts = [Content(held.rows.read([one])[one]["content"].encode()) for one in ids]
        asked = [
            *texts,
            *(Content(one.data, record=name) for one, name in zip(texts, ids, strict=True)),
        ]
        queries = [(asked[i : i + 3], 1 + i % 4) for i in range(0, len(asked), 3)]
        alone = [held._nearest([query], kept) for query in queries for kept in (False, True)]
        with ThreadPoolExecutor(8) as threads:
            every = [(*query, kept) for query in queries for kept in (False, True)]
            at_once = list(
                threads.map(lambda one: held.nearest(one[0], one[1], kept=one[2]), every)
            )
    for (expected,), found in zip(alone, at_once, strict=True):
        for a, b in zip(expected, found, strict=True):
            assert np.allclose([one for _, one in a], [one for _, one in b], atol=1e-6)
