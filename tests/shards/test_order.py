"""Order keys, splits and cuts: laws that the shards rely on."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright.errors import DataError, UserError
from shardwright.metadata.schemas import record_id
from shardwright.shards import order
from shardwright.shards.order import CutState, assign_split, cut, id_keys, name_keys, order_keys

SPLIT = {"train": 0.9, "validation": 0.1}


def ids(count: int, source: str = "s") -> list[str]:
    return [record_id(source, str(i)) for i in range(count)]


def plain_cut(sizes, limit, overhead):
    """The rule, one sample at a time."""
    shard = position = used = 0
    rows = []
    for size in sizes:
        if position and overhead + used + size > limit:
            shard, position, used = shard + 1, 0, 0
        rows.append((shard, position))
        position, used = position + 1, used + size
    return rows


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_id_keys_are_the_first_sixteen_digits(kind):
    names = [*ids(50), "f" * 32, "0" * 32]
    expected = [int(name[:16], 16) for name in names]
    whole = pa.array(names, kind)
    assert id_keys(whole).tolist() == expected
    assert id_keys(whole.slice(3, 9)).tolist() == expected[3:12]
    chunked = pa.chunked_array([whole.slice(0, 7), whole.slice(7, 0), whole.slice(7)])
    assert id_keys(chunked).tolist() == expected
    assert id_keys(pa.array([], kind)).dtype == np.uint64
    assert id_keys(pa.chunked_array([], kind)).shape == (0,)


@pytest.mark.parametrize("bad", [None, "", "abc", "F" * 32, "g" * 32, "0" * 33])
def test_what_is_no_record_id(bad):
    with pytest.raises(DataError, match="record_id"):
        order_keys(pa.array([*ids(2), bad]), 0)


def test_the_mix_is_splitmix64():
    # Vigna's splitmix64.c from state 1234567.
    states = np.array([1234567 + (i + 1) * order._GOLDEN & order._WORD for i in range(3)], "u8")
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert order._mix(states).tolist() == expected


def test_order_keys_known_answers():
    keys = order_keys(pa.array(ids(2)), 0)
    assert keys.tolist() == order_keys(pa.array(ids(2)), 2**64).tolist()
    assert keys.tolist() == [5227442904892341170, 4012833717229302900]


@given(seed=st.integers(-(2**63), 2**64), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_order_keys_do_not_depend_on_the_input(seed, shuffle):
    names = ids(40)
    expected = dict(zip(names, order_keys(pa.array(names), seed).tolist(), strict=True))
    shuffle.shuffle(names)
    names = names[:25]
    assert order_keys(pa.array(names), seed).tolist() == [expected[name] for name in names]


def test_orders_of_two_seeds_are_unrelated():
    names = pa.array(ids(4000))
    ranks = [np.argsort(np.argsort(order_keys(names, seed))) for seed in (0, 1)]
    assert abs(np.corrcoef(ranks)[0, 1]) < 0.06
    assert len(np.unique(order_keys(names, 0))) == 4000


def test_splits_have_their_shares_and_are_stable():
    names = pa.array(ids(20_000))
    codes = assign_split(id_keys(names), SPLIT, 3)
    assert codes.dtype == np.int32
    assert abs((codes == 1).mean() - 0.1) < 0.01
    # Another set of records, in another order: nobody moves.
    some = names.take(np.arange(20_000)[::-3])
    np.testing.assert_array_equal(assign_split(id_keys(some), SPLIT, 3), codes[::-3])
    more = assign_split(id_keys(names), {"train": 0.8, "validation": 0.2}, 3)
    assert (more[codes == 1] == 1).all()
    assert (assign_split(id_keys(names), SPLIT, 4) != codes).any()


def test_a_split_says_nothing_about_the_order():
    names = pa.array(ids(20_000))
    keys = order_keys(names, 3).astype(np.float64) / 2**64
    validation = assign_split(id_keys(names), SPLIT, 3) == 1
    assert abs(keys[validation].mean() - 0.5) < 0.03
    assert keys[validation].std() > 0.27


@given(names=st.lists(st.sampled_from("abcdefgh")), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_groups_never_straddle_splits(names, seed):
    array = pa.array(names, pa.string())
    codes = assign_split(name_keys(array), {"a": 0.5, "b": 0.3, "c": 0.2}, seed).tolist()
    found: dict[str, set[int]] = {}
    for name, code in zip(names, codes, strict=True):
        found.setdefault(name, set()).add(code)
    assert all(len(group) == 1 for group in found.values())


def test_name_keys():
    names = pa.chunked_array([["x", "é", "x"], ["", "é"]])
    expected = [
        int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        for name in names.to_pylist()
    ]
    assert name_keys(names).tolist() == expected
    assert name_keys(pa.array(["x"])).tolist() == expected[:1]
    assert name_keys(pa.array([], pa.string())).shape == (0,)
    with pytest.raises(DataError, match="group name is null"):
        name_keys(pa.array(["x", None]))


def test_fractions():
    keys = id_keys(pa.array([*ids(100), "0" * 32, "f" * 32]))
    assert set(assign_split(keys, {"all": 1.0}, 0)) == {0}
    assert set(assign_split(keys, {"all": 1.0, "none": 0.0}, 0)) == {0}
    assert set(assign_split(keys, {"none": 0, "all": 1}, 0)) == {1}
    tenths = {str(i): 0.1 for i in range(10)}
    assert set(assign_split(keys, tenths, 0)) == set(range(10))
    with pytest.raises(UserError, match=r"sums to 0\.9"):
        assign_split(keys, {"train": 0.9}, 0)
    with pytest.raises(UserError, match="sums to 0"):
        assign_split(keys, {}, 0)
    with pytest.raises(UserError, match=r"shards\.split\.b is -0\.1"):
        assign_split(keys, {"a": 1.0, "b": -0.1, "c": 0.1}, 0)
    with pytest.raises(UserError, match=r"shards\.split\.a is nan"):
        assign_split(keys, {"a": float("nan")}, 0)


@given(
    sizes=st.lists(st.integers(0, 60), max_size=60),
    limit=st.integers(11, 120),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
@settings(max_examples=300, deadline=None)
def test_cut_is_the_greedy_rule_however_the_stream_is_chunked(sizes, limit, cuts):
    expected = plain_cut(sizes, limit, 10)
    array = np.array(sizes, np.int64)
    rows, state = [], CutState()
    for chunk in np.split(array, sorted(min(c, len(sizes)) for c in cuts)):
        shards, positions, state = cut(chunk, limit, state, 10)
        assert shards.dtype == positions.dtype == np.int32
        rows += zip(shards.tolist(), positions.tolist(), strict=True)
    assert rows == expected
    assert state == cut(array, limit, CutState(), 10)[2]


def test_cut_needs_room():
    with pytest.raises(UserError, match=r"shards\.size is 10 bytes; it must be above 10"):
        cut(np.array([1]), 10, CutState(), 10)
