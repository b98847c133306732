"""Files of a real store, through faults of the network between."""

import os
from pathlib import Path

import pytest
from s3_server import Fault, Proxy

from shardwright.errors import DataError, UserError
from shardwright.metadata.bucket import Bucket
from shardwright.metadata.connection import Retries

QUICK = Retries(tries=4, first_wait=0.01, timeout=1.0)


@pytest.fixture
def bucket(place: str) -> Bucket:
    return Bucket(place, QUICK)


def test_files_come_back_as_they_were_put(bucket: Bucket, tmp_path: Path) -> None:
    contents = {"a.json": b"{}", "t/part é#1%.parquet": os.urandom(70_000), "t/empty": b""}
    for path, data in contents.items():
        (tmp_path / "source").write_bytes(data)
        bucket.put(path, tmp_path / "source")
    assert bucket.files() == {path: len(data) for path, data in contents.items()}
    assert set(bucket.files("t")) == {"t/part é#1%.parquet", "t/empty"}
    for path, data in contents.items():
        bucket.fetch(path, tmp_path / "down" / path)
        assert (tmp_path / "down" / path).read_bytes() == data == bucket.read(path)
    bucket.delete(["a.json", "t/empty", "never/there"])
    assert list(bucket.files()) == ["t/part é#1%.parquet"]
    assert bucket.read("a.json") is None


def test_a_name_that_begins_alike_is_another_folder(bucket: Bucket) -> None:
    bucket.write("t/a", b"1")
    bucket.write("tt/b", b"2")
    Bucket(f"{bucket.location}x", QUICK).write("c", b"3")
    assert list(bucket.files("t")) == ["t/a"]
    assert set(bucket.files()) == {"t/a", "tt/b"}


def test_only_the_first_creates(bucket: Bucket) -> None:
    assert bucket.create("lease", b"mine")
    assert not bucket.create("lease", b"yours")
    assert bucket.read("lease") == b"mine"


def test_creating_whose_answer_was_lost_is_still_ours(bucket: Bucket, proxy: Proxy) -> None:
    proxy.plan.faults = [Fault("lost", "PUT", "lease")]
    assert bucket.create("lease", b"mine")
    assert proxy.plan.done == ["lost"]


@pytest.mark.parametrize("kind", ["throttle", "refuse", "reset", "lost", "cut", "stall"])
def test_what_passes_is_overcome(bucket: Bucket, proxy: Proxy, tmp_path: Path, kind: str) -> None:
    data = os.urandom(300_000)
    (tmp_path / "source").write_bytes(data)
    proxy.plan.faults = [
        Fault(kind, "PUT", "part", 2),
        Fault(kind, "GET", "part", 2),
        Fault(kind, "GET", "list-type", 2),
        Fault(kind, "DELETE", "old", 1),
    ]
    bucket.write("old", b"x")
    bucket.put("part", tmp_path / "source")
    bucket.fetch("part", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    bucket.delete(["old"])
    assert bucket.files() == {"part": len(data)}
    assert len(proxy.plan.done) >= 6


def test_parts_of_a_large_file_that_fail_are_put_again(
    place: str, proxy: Proxy, tmp_path: Path
) -> None:
    bucket = Bucket(place, Retries(tries=4, first_wait=0.01))
    data = os.urandom(110_000_000)  # two parts of 50 MiB and a rest
    (tmp_path / "source").write_bytes(data)
    proxy.plan.faults = [
        Fault("throttle", "PUT", r"partNumber=2"),
        Fault("lost", "PUT", r"partNumber=3"),
        Fault("reset", "POST", r"uploadId"),
    ]
    bucket.put("large", tmp_path / "source")
    assert len(proxy.plan.done) == 3
    bucket.fetch("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_what_does_not_pass_is_one_line_without_credentials(
    bucket: Bucket, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.plan.faults = [Fault("throttle", "PUT", "part", 99)]
    with pytest.raises(DataError) as error:
        bucket.write("part", b"x")
    text = str(error.value)
    assert f"{bucket.url('part')}: failed in 4 tries" in text
    assert "\n" not in text
    for secret in (os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"]):
        assert secret not in text


def test_a_web_server_is_no_place_for_an_output() -> None:
    with pytest.raises(UserError, match="cannot be written to"):
        Bucket("https://example.org/x")
