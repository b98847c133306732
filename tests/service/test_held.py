"""What a service holds in memory says the same as the files, to many at once."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metadata.sample_output import build, make_records

from shardwright.embeddings.search import Answer
from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import StoredRows
from shardwright.service import rows
from shardwright.service.rows import HeldRows
from shardwright.service.shared_index import SharedIndex


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
        for record_id in every:
            assert held.part(record_id) == stored.part(record_id)


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
    """An index whose first pass ends when it is told; an id says what was asked for."""

    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    passes: list[tuple[int, int]] = field(default_factory=list)

    def search(self, vectors: Any, k: int) -> Answer:
        self.passes.append((len(vectors), k))
        self.started.set()
        assert self.go.wait(60)
        if (vectors < 0).any():
            raise ValueError("a vector that is not one")
        ids = np.array([[f"{value:.0f}/{k}"] * k for value in vectors[:, 0]], dtype=object)
        return Answer(ids, np.repeat(vectors[:, :1], k, axis=1))


def asked_at_once(index: Slow, shared: SharedIndex, *asked: tuple[list[float], int]) -> list[Any]:
    """Answers to a first search and to others that come while it runs."""

    def ask(one: tuple[list[float], int]) -> Any:
        try:
            return shared.search(np.array(one[0], np.float32)[:, None], one[1])
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(asked)) as threads:
        first = threads.submit(ask, asked[0])
        assert index.started.wait(60)
        rest = [threads.submit(ask, one) for one in asked[1:]]
        while len(shared._waiting) < len(rest):
            pass
        index.go.set()
        return [one.result() for one in (first, *rest)]


def test_searches_that_wait_are_one_pass() -> None:
    index = Slow()
    asked = [([0.0], 2), *(([float(n), float(n + 100)], 2) for n in range(1, 6)), ([9.0], 3)]
    answers = asked_at_once(index, SharedIndex(index), *asked)  # type: ignore[arg-type]
    for (values, k), answer in zip(asked, answers, strict=True):
        assert answer.ids.tolist() == [[f"{value:.0f}/{k}"] * k for value in values]
        assert answer.similarities[:, 0].tolist() == values
    assert index.passes[0] == (1, 2)
    assert sorted(index.passes[1:]) == [(1, 3), (10, 2)]


def test_an_error_reaches_all_that_it_concerns() -> None:
    index = Slow()
    asked = [([0.0], 1), ([1.0], 1), ([-1.0], 1), ([4.0], 2)]
    first, *failed, other = asked_at_once(index, SharedIndex(index), *asked)  # type: ignore[arg-type]
    assert first.ids.tolist() == [["0/1"]]
    assert failed == ["a vector that is not one"] * 2
    assert other.ids.tolist() == [["4/2"] * 2]
