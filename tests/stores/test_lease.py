"""One writer at a time, on a store without locks."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from s3_server import Fault, Proxy

from shardwright.errors import DataError, UserError
from shardwright.metadata.bucket import Bucket
from shardwright.metadata.connection import Retries
from shardwright.metadata.lease import Lease, Pace, leased

QUICK = Retries(tries=4, first_wait=0.01, timeout=2.0)
PACE = Pace(beat=0.2, dead=2.0)
PATIENT = Pace(beat=0.2, dead=30.0)


@pytest.fixture
def bucket(place: str) -> Bucket:
    return Bucket(place, QUICK)


def dead(bucket: Bucket, number: int) -> None:
    """A run that was killed."""
    held = {"owner": "gone", "beats": 3, "held": True}
    bucket.write(f".staging/lease/lease-{number:08d}.json", json.dumps(held).encode())


def test_the_second_says_so_and_stops(bucket: Bucket, place: str) -> None:
    notes: list[str] = []
    with leased(bucket, PATIENT) as lease:
        with pytest.raises(UserError, match=f"{place}: another run is writing here"):
            ExitStack().enter_context(leased(Bucket(place, QUICK), PATIENT, notes.append))
        lease.check()
    assert len(notes) == 1


def test_it_is_free_at_once_when_given_back(bucket: Bucket) -> None:
    watched: list[str] = []
    for _ in range(3):
        with leased(bucket, PACE, watched.append) as lease:
            lease.check()
    assert watched == []
    assert list(bucket.files()) == [".staging/lease/lease-00000003.json"]


def test_a_killed_run_is_waited_for_as_long_as_a_lease(bucket: Bucket) -> None:
    dead(bucket, 7)
    started = time.monotonic()
    with leased(bucket, PACE) as lease:
        assert time.monotonic() - started >= PACE.dead
        lease.check()
    assert list(bucket.files()) == [".staging/lease/lease-00000008.json"]


def test_of_many_at_once_one_gets_it(bucket: Bucket, place: str) -> None:
    dead(bucket, 1)
    ready = threading.Barrier(6)
    over = threading.Event()

    def run(_: int) -> bool:
        ready.wait()
        try:
            with leased(Bucket(place, QUICK), Pace(beat=0.2, dead=5.0)):
                over.wait(120)
                return True
        except UserError:
            return False

    with ThreadPoolExecutor(6) as pool:
        runs = [pool.submit(run, i) for i in range(6)]
        ends = time.monotonic() + 120
        while sum(one.done() for one in runs) < 5:
            assert time.monotonic() < ends
            time.sleep(0.05)
        over.set()
        assert sum(one.result() for one in runs) == 1


def test_a_run_that_was_asleep_finds_that_it_lost(bucket: Bucket, place: str) -> None:
    asleep = Lease(bucket, 1, Pace(beat=3600, dead=2.0))  # beats no more
    assert asleep.take()
    with leased(Bucket(place, QUICK), PACE) as lease:
        with pytest.raises(DataError, match="another run took over"):
            asleep.check()
        asleep.release()
        lease.check()


def test_beats_go_on_when_the_store_was_away(bucket: Bucket, proxy: Proxy) -> None:
    with leased(bucket, PACE) as lease:
        proxy.plan.faults = [Fault("refuse", "PUT", "lease", 40)]
        ends = time.monotonic() + 120
        while proxy.plan.faults[0].times:
            assert time.monotonic() < ends
            time.sleep(0.05)
        lease.check()
        before = bucket.read(".staging/lease/lease-00000001.json")
        while bucket.read(".staging/lease/lease-00000001.json") == before:
            assert time.monotonic() < ends
            time.sleep(0.05)
