"""An iterator that runs ahead in a thread."""

import threading
import time

import pytest

from shardwright.embeddings.read_ahead import read_ahead


def test_same_items_in_order():
    assert list(read_ahead(iter(range(100)), 3)) == list(range(100))
    assert list(read_ahead([], 1)) == []
    assert list(read_ahead([None, None], 1)) == [None, None]


def test_another_thread_makes_the_next_items_and_no_more():
    made = []

    def items():
        for number in range(10):
            made.append(threading.current_thread())
            yield number

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 0
    until = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(made) == 4  # one taken, two ready, one in the making
    assert threading.current_thread() not in made
    ahead.close()


def test_a_fault_comes_where_its_item_would_have():
    def items():
        yield 1
        raise ValueError("second")

    ahead = read_ahead(items(), 4)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="second"):
        next(ahead)


def test_closing_early_stops_the_thread():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    before = threading.active_count()
    ahead = read_ahead(items(), 1)
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
    assert len(made) < 5
