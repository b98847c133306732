"""The two switches: who is below what is usual, and how that moves."""

from dataclasses import asdict

import pytest

from shardwright.errors import UserError
from shardwright.shards.switching import Switches


def test_both_are_off_before_the_first_round() -> None:
    switches = Switches()
    assert not switches.transforms(0.0)
    assert not switches.averages(0.0, 0.0)


def test_below_what_is_usual_is_on() -> None:
    switches = Switches(before=2.0, after=1.0)
    assert switches.transforms(1.9)
    assert not switches.transforms(2.0)
    assert switches.averages(1.9, 0.9)
    assert not switches.averages(1.9, 1.0)
    assert not switches.averages(2.0, 0.9)  # the second needs the first


def test_what_is_usual_is_an_exponential_average_over_rounds() -> None:
    first = Switches(memory=0.75).next_round([1.0, 3.0], [4.0, 0.0])
    assert (first.before, first.after) == (2.0, 2.0)
    second = first.next_round([6.0], [0.0])
    assert (second.before, second.after) == (0.75 * 2 + 0.25 * 6, 0.75 * 2)
    assert first.before == 2.0
    assert Switches(memory=0).next_round([1.0], [2.0]).next_round([5.0], [7.0]) == Switches(
        0, 5.0, 7.0
    )


def test_a_steady_level_is_reached_and_the_order_of_clients_is_nothing() -> None:
    switches = Switches(memory=0.9, before=50.0, after=50.0)
    losses = [0.1, 0.2, 0.3, 1e9, -1e9]
    for turn in range(500):
        given = losses[turn % 5 :] + losses[: turn % 5]
        switches = switches.next_round(given, given)
    assert switches.before == pytest.approx(0.12)
    assert Switches().next_round(losses, losses) == Switches().next_round(
        losses[::-1], losses[::-1]
    )


def test_it_goes_into_a_checkpoint() -> None:
    switches = Switches().next_round([1.5], [0.5])
    assert Switches(**asdict(switches)) == switches


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"memory is 1\.0"):
        Switches(memory=1.0)
    with pytest.raises(UserError, match="0 losses before and 0 after"):
        Switches().next_round([], [])
    with pytest.raises(UserError, match="2 losses before and 1 after"):
        Switches().next_round([1.0, 1.0], [1.0])
    with pytest.raises(UserError, match="no finite number"):
        Switches().next_round([1.0], [float("nan")])
