"""Tasks of one thread each: order, errors, and torch's number of threads afterwards."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from shardwright.kernels.threads import in_threads


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_keep_the_order_of_tasks():
    def late(number):
        time.sleep(0.01 * (5 - number))
        return number, torch.get_num_threads()

    assert in_threads(late, range(6)) == [(number, 1) for number in range(6)]
    assert torch.get_num_threads() == 3


def test_an_error_passes_and_threads_come_back():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 // number, [1, 0, 2])
    assert torch.get_num_threads() == 3


def test_calls_beside_each_other_leave_no_trace():
    def call(number):
        torch.set_num_threads(3)  # a new thread takes the process's number, which a call changes
        done = in_threads(lambda task: (time.sleep(0.005 * number), task)[1], range(4))
        return done, torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(8))) == [([0, 1, 2, 3], 3)] * 8
    assert torch.get_num_threads() == 3
