"""Mixtures: shares as the weights say, each source in its own order, any place at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_files import record_id, write_shards

import shardwright
from shardwright.errors import UserError
from shardwright.shards.mixture import Mixture, mixture
from shardwright.shards.sampling import Split, Steps

A, B, C = (Split((size,) * 6, name) for name, size in (("a", 50), ("b", 20), ("c", 7)))
WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=4)


def mixed(*weights: float, samples: int | None = 1000, seed: int = 0) -> Mixture:
    splits = zip((A, B, C, A), weights, strict=False)
    return mixture(dict(zip("abcd", splits, strict=False)), seed, samples)


@given(WEIGHTS, st.integers(0, 3))
def test_sources_own_the_line_without_gap(weights: list[float], seed: int) -> None:
    mix = mixed(*weights, seed=seed)
    # Whole blocks, since numbers are shuffled inside of a block.
    count = 3 * 4096
    parts = mix.part(np.arange(count))
    assert sorted(np.concatenate([where for where, _ in parts]).tolist()) == list(range(count))
    for weight, (_, numbers) in zip(weights, parts, strict=True):
        assert sorted(numbers.tolist()) == list(range(len(numbers)))
        assert len(numbers) == pytest.approx(count * weight / sum(weights), abs=3)


@given(WEIGHTS, st.integers(0, 20_000), st.integers(0, 9000))
def test_counts(weights: list[float], first: int, more: int) -> None:
    mix = mixed(*weights)
    parts = mix.part(np.arange(first, first + more))
    assert mix.counts(first, first + more) == [len(numbers) for _, numbers in parts]


def test_any_places_at_once_or_alone() -> None:
    order = mixed(3, 1, 0.5).order(1)
    shards, rows = order.at(np.arange(1000))
    places = np.random.default_rng(0).integers(0, 1000, 64)
    again = order.at(places)
    assert np.array_equal(again[0], shards[places])
    assert np.array_equal(again[1], rows[places])


def test_sources_go_on_with_their_next_epoch() -> None:
    mix = mixed(1, 1, samples=4096)
    seen: dict[tuple[int, int], int] = {}
    for epoch in range(3):
        shards, rows = mix.order(epoch).at(np.arange(4096))
        for sample in zip(shards.tolist(), rows.tolist(), strict=True):
            seen[sample] = seen.get(sample, 0) + 1
    times = {sample: count for sample, count in seen.items() if sample[0] >= 6}
    assert len(times) == 120
    assert sum(times.values()) == 3 * 2048
    assert set(times.values()) == {3 * 2048 // 120, 3 * 2048 // 120 + 1}


def test_a_short_run_is_mixed_by_chance() -> None:
    """Batches hold a source as often as draws would, not in a fixed pattern."""
    owner = np.empty(40960, np.int64)
    for source, (where, _) in enumerate(mixed(3, 1).part(np.arange(40960))):
        owner[where] = source
    counts = owner.reshape(-1, 32).sum(axis=1)
    assert counts.mean() == 8
    assert counts.std() == pytest.approx((32 * 3 / 16) ** 0.5, rel=0.1)
    assert abs(np.corrcoef(owner[1:], owner[:-1])[0, 1]) < 0.02


def test_seed_and_weights_decide() -> None:
    orders = {
        tuple(mix.order(0).at(np.arange(300))[0].tolist())
        for mix in (mixed(1, 1), mixed(1, 1, seed=1), mixed(1, 2))
    }
    assert len(orders) == 3
    assert mixed(1, 1).dataset_sha256 != mixed(1, 2).dataset_sha256
    assert mixed(1, 1).dataset_sha256 == mixed(1.0, 1).dataset_sha256


def test_ahead_names_shards_of_every_source() -> None:
    order = mixed(1, 1, 1).order(0)
    shards, _ = order.at(np.arange(200))
    named = order.ahead(np.arange(200), 2).tolist()
    assert set(shards.tolist()) <= set(named)
    assert len(named) == len(set(named))


def test_taken_counts_what_came() -> None:
    mix = mixed(3, 1, samples=120)
    steps = Steps(120, 2, 8)
    for position in (0, 3, 8, 60, 120):
        places = steps.places(np.arange(position))
        shards, _ = mix.order(2).at(places)
        taken = mix.taken(steps, 2, position)
        assert taken["a"]["samples"] == np.count_nonzero(shards < 6)
        assert taken["b"]["samples"] == np.count_nonzero(shards >= 6)


def test_mixture_of_folders(tmp_path: Path) -> None:
    left = write_shards(tmp_path / "left", [30, 30, 30], "l")
    right = write_shards(tmp_path / "right", [8, 8], "r")
    names = {record_id(f"l {i}"): "l" for i in range(90)} | {
        record_id(f"r {i}"): "r" for i in range(16)
    }
    sources = {"l": (left, 3), "r": (str(right), 1.0)}

    def ids(ranks: int, rank: int, cursor: dict[str, object] | None = None) -> list[str]:
        data = shardwright.mixture(
            sources, samples=96, batch_size=12 // ranks, rank=rank, ranks=ranks
        )
        if cursor is not None:
            data.resume(cursor)
        return [sample["record_id"] for sample in data]

    whole = ids(1, 0)
    kinds = [names[name] for name in whole]
    assert len(whole) == 96
    assert 18 <= kinds.count("r") <= 30
    data = shardwright.mixture(sources, samples=96, batch_size=12)
    cursor = data.cursor(36)
    assert cursor["sources"]["r"]["samples"] == kinds[:36].count("r")
    assert ids(1, 0, cursor) == whole[36:]
    halves = ids(2, 0, cursor), ids(2, 1, cursor)
    joined = [halves[i // 6 % 2][i // 12 * 6 + i % 6] for i in range(60)]
    assert joined == whole[36:]
    other = shardwright.mixture({"l": (left, 2), "r": (right, 1)}, samples=96, batch_size=12)
    with pytest.raises(UserError, match="dataset_sha256"):
        other.resume(cursor)


def test_refusals() -> None:
    for weights in ((0, 1), (-1, 1), (float("inf"), 1), (float("nan"), 1)):
        with pytest.raises(UserError, match="must be above 0"):
            mixed(*weights)
    with pytest.raises(UserError, match="too far apart"):
        mixed(1, 1e-12)
    with pytest.raises(UserError, match="holds no sample"):
        mixture({"a": (Split((0,), "a"), 1)}, 0, 5)
    with pytest.raises(UserError, match="at least one"):
        mixture({}, 0, 5)
    with pytest.raises(UserError, match="0 samples"):
        mixed(1, samples=0)
    with pytest.raises(UserError, match="beyond"):
        mixed(1, 1).order(2**38)
