"""A limit changes what is held and how many work at a time, and no byte of the output."""

import os
from pathlib import Path

import common
import duckdb
import numpy as np
import pytest

from shardwright.embeddings import rows
from shardwright.errors import UserError
from shardwright.metadata import memory
from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.pipelines import execution, relational
from shardwright.pipelines import memory as workers


def test_sizes_are_read_and_others_refused() -> None:
    assert memory.parse_limit("4GB", "x") == 4_000_000_000
    assert memory.parse_limit("2GiB", "x") == 2 << 30
    for wrong in ("much", "-4GB", "", "4 furlongs"):
        with pytest.raises(UserError, match=r"--memory-limit .*: is no size"):
            memory.parse_limit(wrong, "--memory-limit")
    with pytest.raises(UserError, match="needs 2GB at least"):
        memory.parse_limit("1GB", "--memory-limit")


def test_the_limit_is_of_this_process_and_its_children_and_goes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(memory.ENVIRONMENT, raising=False)
    free = memory.share()
    with memory.limited(2_000_000_000):
        assert os.environ[memory.ENVIRONMENT] == "2000000000"
        assert memory.share() < free
    assert memory.ENVIRONMENT not in os.environ
    monkeypatch.setenv(memory.ENVIRONMENT, "3GB")
    with memory.limited(2_000_000_000):
        assert memory.memory_limit() == 2_000_000_000
    assert memory.memory_limit() == 3_000_000_000
    with memory.limited(None):
        assert memory.memory_limit() == 3_000_000_000


def test_the_database_takes_its_share(tmp_path: Path) -> None:
    setting = "SELECT current_setting('memory_limit')"
    with memory.limited(2_000_000_000), connect(Layout(tmp_path)) as connection:
        [(told,)] = connection.execute(setting).fetchall()
    with connect(Layout(tmp_path)) as connection:
        [(free,)] = connection.execute(setting).fetchall()
    assert told == "476.8 MiB"  # a quarter
    assert free == "953.6 MiB"


def test_the_database_of_a_stage_takes_what_a_limit_leaves() -> None:
    found = []
    for limit in (None, 2_000_000_000, 3_000_000_000, 10_000_000_000):
        with memory.limited(limit):
            found.append(memory.database_share())
    assert found == [1_000_000_000, 800_000_000, 1_800_000_000, 8_800_000_000]


def test_the_database_of_a_stage_gives_way_to_workers() -> None:
    setting = "SELECT current_setting('memory_limit')"
    with memory.limited(4_000_000_000), duckdb.connect() as connection:
        connection.execute("CREATE TABLE rows AS FROM range(10)")
        with relational.resting(connection):
            [(meanwhile,)] = connection.execute(setting).fetchall()
        [(after,)] = connection.execute(setting).fetchall()
    assert (meanwhile, after) == ("953.6 MiB", "2.6 GiB")


def test_too_many_rows_for_the_database_are_told_in_one_line() -> None:
    with (
        pytest.raises(UserError, match=r"^stage prune: .* 0\.1 GB .* higher --memory-limit$"),
        relational._told_of_memory("prune", 100_000_000),
        duckdb.connect(config={"memory_limit": "10MB", "max_temp_directory_size": "0B"}) as small,
    ):
        small.execute("SELECT list(i) FROM range(10000000) AS r(i)")


@pytest.mark.parametrize(("share", "mapped"), [(80, False), (79, True)])
def test_more_vectors_than_the_share_are_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int, mapped: bool
) -> None:
    monkeypatch.setattr(rows, "share", lambda: share)
    made = rows.new_rows((5, 4), np.float32, tmp_path / "deep" / "rows.bin")
    assert made.shape == (5, 4)
    assert isinstance(made, np.memmap) is mapped
    assert (tmp_path / "deep" / "rows.bin").exists() is mapped


def test_fewer_workers_below_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "held", lambda: 1_000_000_000)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def chosen(limit: int | None, size: int, *arguments: str) -> int:
        with memory.limited(limit):
            options = execution.pipeline_options(arguments, 100, size)
        return int(options.get_all_options()["direct_num_workers"])

    small, large = 1_000, 1 << 40
    assert chosen(None, small) == chosen(None, large) == 8
    assert chosen(3_000_000_000, small) == 5
    assert chosen(3_000_000_000, large) == 2  # processes, with libraries of their own
    assert chosen(2_000_000_000, large) == 1
    assert chosen(100_000_000_000, large) == 8
    assert chosen(2_000_000_000, large, "--direct_num_workers=6") == 6  # the user's word


def test_the_same_bytes_below_a_limit(tmp_path: Path) -> None:
    source = common.copy_sources(tmp_path / "in", 30)
    recipe = common.recipe("code", source)
    common.curate(recipe, tmp_path / "free")
    common.curate(recipe, tmp_path / "limited", memory=2_000_000_000)
    assert common.contents(tmp_path / "free") == common.contents(tmp_path / "limited")


def test_a_limit_that_is_none_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    source = common.copy_sources(tmp_path / "in", 1)
    output = ("--output", str(tmp_path / "out"))
    limit = ("--memory-limit", "lots")
    done = common.shardwright(
        "curate", "recipes/code.yaml", *output, "--input", str(source), *limit
    )
    assert done.returncode == 2
    assert "--memory-limit lots: is no size" in done.stderr
    assert not (tmp_path / "out").exists()
