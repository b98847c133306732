"""The order of an epoch: a permutation, the same for any ranks and workers, from any place on."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.errors import UserError
from shardwright.shards.sampling import Plan, Split, Steps, World, dataset_sha256

SHARDS = st.lists(st.integers(0, 12), min_size=1, max_size=30).filter(any)


def flat(split: Split, epoch: int) -> list[int]:
    """The samples of an epoch, numbered through all shards."""
    shards, rows = split.order(epoch).at(np.arange(split.samples))
    starts = np.cumsum([0, *split.shard_sizes])
    assert (rows < np.array(split.shard_sizes)[shards]).all()
    return (starts[shards] + rows).tolist()


def delivered(steps: Steps, ranks: int, workers: int, start: int = 0) -> list[int]:
    """Positions as a training job sees them: step by step, rank by rank, a worker in turn."""
    plans = [
        [Plan(steps, World(rank, ranks, worker, workers), start) for worker in range(workers)]
        for rank in range(ranks)
    ]
    batch = plans[0][0].batch
    count = plans[0][0].rank_length
    found: list[int] = []
    for number, first in enumerate(range(0, count, batch)):
        for rank in plans:
            turn, worker = divmod(number, workers)
            found += rank[worker].positions(turn * batch, (turn + 1) * batch).tolist()
        assert first < count
    assert len(found) == count * ranks == sum(plan.length for rank in plans for plan in rank)
    return found


@given(SHARDS, st.integers(0, 5), st.integers(0, 3), st.integers(1, 9), st.booleans())
def test_epoch_is_a_permutation(
    sizes: list[int], seed: int, epoch: int, window: int, shuffle: bool
) -> None:
    split = Split(tuple(sizes), "d", seed, shuffle, window)
    order = flat(split, epoch)
    assert sorted(order) == list(range(sum(sizes)))
    if not shuffle:
        assert order == sorted(order)


@given(SHARDS, st.integers(1, 9), st.integers(0, 2**30))
def test_any_places_at_once_or_alone(sizes: list[int], window: int, seed: int) -> None:
    split = Split(tuple(sizes), "d", window=window)
    whole = flat(split, 0)
    places = np.random.default_rng(seed).integers(0, split.samples, 20)
    shards, rows = split.order(0).at(places)
    starts = np.cumsum([0, *sizes])
    assert (starts[shards] + rows).tolist() == [whole[place] for place in places]


@given(
    st.integers(1, 200),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 12),
    st.sampled_from(["repeat", "drop"]),
)
def test_steps_give_every_sample_and_name_the_repeats(
    samples: int, nodes: int, share: int, remainder: str
) -> None:
    try:
        steps = Steps(samples, nodes, nodes * share, remainder)  # type: ignore[arg-type]
    except UserError:
        assert samples < nodes or (remainder == "drop" and samples < nodes * share)
        return
    positions = np.arange(steps.length)
    places, repeats = steps.places(positions), steps.repeats(positions)
    first = places[~repeats].tolist()
    assert len(first) == len(set(first))
    if remainder == "repeat":
        assert sorted(first) == list(range(samples))
        assert steps.length < samples + steps.global_batch + nodes
        assert set(places[repeats]) <= set(first)
    else:
        assert not repeats.any()
        assert samples - len(first) < steps.global_batch + nodes
    if nodes == 1:
        assert places.tolist() == [position % samples for position in range(steps.length)]
    for position in range(0, steps.length + 1, 5):
        begun = [place for low, high in steps.begun(position) for place in range(low, high)]
        assert sorted(begun) == sorted(set(places[:position].tolist()))


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_same_order_for_any_ranks_and_workers(ranks: int, workers: int, nodes: int) -> None:
    steps = Steps(301, nodes, 24)
    assert delivered(steps, ranks, workers) == list(range(steps.length))


@pytest.mark.parametrize("remainder", ["repeat", "drop"])
def test_resume_at_every_boundary(remainder: str) -> None:
    steps = Steps(101, 2, 12, remainder)  # type: ignore[arg-type]
    for start in range(steps.length + 1):
        rest = list(range(start, steps.length))
        assert delivered(steps, 1, 1, start) == rest
        assert delivered(steps, 1, 5, start) == rest
        if start % 12 == 0:
            for ranks, workers in ((2, 1), (3, 2), (4, 5)):
                assert delivered(steps, ranks, workers, start) == rest


def test_a_worker_goes_on_from_every_sample() -> None:
    plan = Plan(Steps(101, 2, 12), World(1, 3, 1, 2))
    whole = plan.positions(0, plan.length).tolist()
    assert len(whole) == plan.length
    for taken in range(plan.length + 1):
        assert plan.positions(taken, plan.length + 7).tolist() == whole[taken:]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(8, 90))
def test_ranks_get_equally_many(ranks: int, batch: int, workers: int, samples: int) -> None:
    steps = Steps(samples, 1, batch * ranks)
    lengths = {
        sum(Plan(steps, World(rank, ranks, w, workers)).length for w in range(workers))
        for rank in range(ranks)
    }
    assert lengths == {steps.length // ranks}


def test_replicated_ranks_get_the_same() -> None:
    steps = Steps(100, 1, 8)
    got = [Plan(steps, World(r, 8, replication=4)).positions(0, 10**6).tolist() for r in range(8)]
    assert got[:4] == [got[0]] * 4
    assert got[4:] == [got[4]] * 4
    assert sorted(got[0] + got[4]) == list(range(steps.length))


def test_canonical_nodes_keep_to_their_streams() -> None:
    steps = Steps(400, 4, 16)
    streams = [set(range(first, first + 100)) for first in (0, 100, 200, 300)]
    for ranks in (1, 2, 4):
        for rank in range(ranks):
            places = steps.places(Plan(steps, World(rank, ranks)).positions(0, 400))
            own = range(rank * 4 // ranks, (rank + 1) * 4 // ranks)
            assert set(places.tolist()) == set().union(*(streams[i] for i in own))


def test_order_depends_on_what_it_says() -> None:
    base = Split((40, 50, 60), "d", 0)
    orders = [
        flat(base, 0),
        flat(base, 1),
        flat(Split((40, 50, 60), "e", 0), 0),
        flat(Split((40, 50, 60), "d", 1), 0),
        flat(Split((40, 50, 60), "d", 0, window=1), 0),
    ]
    assert len({tuple(order) for order in orders}) == 5
    assert flat(base, 0) == orders[0]


def test_never_changes() -> None:
    assert flat(Split((3, 4, 5), "d", 0, window=2), 0) == [3, 2, 0, 6, 4, 5, 1, 7, 10, 9, 8, 11]
    assert dataset_sha256([("shard.00000.mds", 3, "ab")])[:8] == "60f2ed33"


def test_ten_billion_samples_in_little_memory() -> None:
    tracemalloc.start()
    try:
        split = Split((50_000,) * 200_000, "d")
        order = split.order(3)
        shards, rows = order.at(np.arange(5 * 10**9, 5 * 10**9 + 2048))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert split.samples == 10**10
    assert len(np.unique(shards)) == 8
    assert len(np.unique(rows)) > 1900
    assert peak < 100_000_000


def test_ahead_names_what_comes_next() -> None:
    split = Split((10,) * 40, "d", window=4)
    order = split.order(0)
    shards, _ = order.at(np.arange(400))
    named = order.ahead(np.arange(43, 60), 4).tolist()
    assert set(named[:4]) == set(shards[40:80].tolist())
    assert set(named[4:8]) == set(shards[80:120].tolist())
    assert len(named) == len(set(named)) == 8
    assert set(order.ahead(np.array([399]), 8).tolist()) == set(shards[360:].tolist())


def neighbours(labels: np.ndarray) -> float:
    """How far the share of equal neighbours is from a perfect shuffle's, in its deviations."""
    # Runs of one label among shuffles: Mood 1940, "The Distribution Theory of Runs".
    count = len(labels)
    sizes = np.unique(labels, return_counts=True)[1].astype(float)
    squares, cubes = float((sizes**2).sum()), float((sizes**3).sum())
    expected = squares / count - 1
    variance = squares * (squares + count * (count + 1)) - 2 * count * cubes - count**3
    equal = int(np.count_nonzero(labels[1:] == labels[:-1]))
    return (equal - expected) / float(np.sqrt(variance / (count**2 * (count - 1))))


@pytest.mark.parametrize("window", [1, 8])
def test_neighbours_of_shuffled_shards_are_as_of_a_perfect_shuffle(window: int) -> None:
    # As the writer does: shuffled over all shards, so that each holds a mix of the sources.
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 1000))
    split = Split((1000,) * 50, "d", window=window)
    for epoch in range(3):
        assert abs(neighbours(labels[flat(split, epoch)])) < 4
    assert neighbours(np.sort(labels)) > 100


def test_window_mixes_shards_that_were_not_shuffled() -> None:
    labels = np.repeat(np.arange(64), 500)
    share = [
        float(np.mean(np.diff(labels[flat(Split((500,) * 64, "d", window=window), 0)]) == 0))
        for window in (1, 8, 64)
    ]
    assert share[0] > 0.9
    assert share[1] == pytest.approx(1 / 8, abs=0.01)
    assert share[2] == pytest.approx(1 / 64, abs=0.005)


def test_refusals() -> None:
    for arguments, message in (
        ((100, 3, 8), "no multiple of canonical_nodes 3"),
        ((2, 4, 8), "too few for 4"),
        ((0, 1, 8), "too few"),
        ((100, 0, 8), "must be at least 1"),
        ((7, 1, 8, "drop"), "leaves nothing"),
        ((7, 1, 8, "keep"), "'repeat' or 'drop'"),
    ):
        with pytest.raises(UserError, match=message):
            Steps(*arguments)  # type: ignore[arg-type]
    for world, message in (
        ((2, 2), "rank 2 is none of 2"),
        ((0, 2, 3, 3), "worker 3"),
        ((0, 4, 0, 1, 3), "replication 3"),
    ):
        with pytest.raises(UserError, match=message):
            World(*world)
    with pytest.raises(UserError, match="shared by 3 ranks"):
        Plan(Steps(100, 1, 8), World(0, 3))
    with pytest.raises(UserError, match="within a step"):
        Plan(Steps(100, 1, 8), World(0, 2), 12)
    with pytest.raises(UserError, match="this epoch has 104 samples"):
        Plan(Steps(100, 1, 8), World(), 105)
    with pytest.raises(UserError, match="window is 0"):
        Split((1,), "d", window=0)
