"""Whole curations into a real S3 server: by the command line, from two machines, killed."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import common
import pytest
from s3_server import KEY, SECRET, Fault, Proxy, credentials, faulty, s3_server

SHARDWRIGHT = [str(Path(common.sys.executable).with_name("shardwright"))]
STAGES = ["ingest", "filter", "duplicates", "embed", "index", "cluster", "prune", "shard"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with faulty(server) as running, credentials(running.url):
        yield running


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common.copy_sources(tmp_path_factory.mktemp("corpus"), 60)


@pytest.fixture(scope="module")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the curation has in a folder, without any store."""
    output = tmp_path_factory.mktemp("plain") / "out"
    done = subprocess.run(command(corpus, str(output)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return common.contents(output)


def command(corpus: Path, output: str, *more: str) -> list[str]:
    sets = ["limits.part_bytes=100KB", "shards.size=100KB", "prune.scores=[]"]
    given = [word for one in sets for word in ("--set", one)]
    recipe = str(common.ROOT / "recipes" / "code.yaml")
    base = [*SHARDWRIGHT, "curate", recipe, "--output", output, "--input", str(corpus)]
    return [*base, *given, *more, "--", "--runner=FnApiRunner", "--direct_num_workers=1"]


def run(corpus: Path, output: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(corpus, output, *more), capture_output=True, text=True)


def stored(location: str, folder: Path) -> dict[str, str]:
    from shardwright.metadata.mirror import at_hand

    with at_hand(location) as layout:
        shutil.copytree(layout.root, folder)
    return common.contents(folder)


@pytest.mark.slow
def test_it_is_the_output_of_a_folder(
    proxy: Proxy, corpus: Path, plain: dict[str, str], tmp_path: Path
) -> None:
    place = "s3://bucket/whole"
    done = run(corpus, place, "--work", str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    assert stored(place, tmp_path / "copy") == plain
    for name, says in (("verify", "is as the manifests say"), ("report", f"{place}/report/")):
        shown = subprocess.run([*SHARDWRIGHT, name, place], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert says in shown.stdout
    count = "SELECT count(*) AS n FROM records JOIN decisions USING (record_id)"
    asked = [*SHARDWRIGHT, "query", place, count, "--format", "json"]
    found = subprocess.run(asked, capture_output=True, text=True)
    assert json.loads(found.stdout) == [{"n": 60}], found.stderr

    # Nothing that is written or said anywhere holds the credentials.
    said = done.stdout + done.stderr + shown.stdout + shown.stderr + found.stdout + found.stderr
    texts = [path for path in (*tmp_path.rglob("*"),) if path.is_file()]
    for secret in (KEY, SECRET):
        assert secret not in said
        assert not [path for path in texts if secret.encode() in path.read_bytes()]

    # A machine that has nothing of it redoes nothing.
    again = run(corpus, place, "--work", str(tmp_path / "b"))
    assert again.returncode == 0, again.stderr
    assert stored(place, tmp_path / "copy-again") == plain
    for table in ("records", "embeddings", "clusters", "shards"):
        manifest = Path("tables") / table / "_manifest.json"
        old, new = ((tmp_path / one / manifest).read_bytes() for one in ("copy", "copy-again"))
        assert old == new  # times included

    # One byte of the store is changed behind its back.
    bucket_file = next(path for path in plain if path.startswith("tables/records/part-"))
    from shardwright.metadata.bucket import Bucket

    data = Bucket(place).read(bucket_file)
    assert data is not None
    Bucket(place).write(bucket_file, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    shown = subprocess.run([*SHARDWRIGHT, "verify", place], capture_output=True, text=True)
    assert shown.returncode == 1
    assert Path(bucket_file).name in shown.stdout


def test_through_a_bad_network(
    proxy: Proxy, corpus: Path, plain: dict[str, str], tmp_path: Path
) -> None:
    proxy.plan.share = 0.03
    done = run(corpus, "s3://bucket/bad", "--work", str(tmp_path / "a"))
    proxy.plan.share = 0.0
    assert done.returncode == 0, done.stderr
    assert len(proxy.plan.done) > 3
    assert stored("s3://bucket/bad", tmp_path / "copy") == plain


@pytest.mark.slow  # a lease of a minute
def test_killed_while_it_commits_and_run_elsewhere(
    proxy: Proxy, corpus: Path, plain: dict[str, str], tmp_path: Path
) -> None:
    place = "s3://bucket/killed"
    proxy.plan.faults = [Fault("stall", "PUT", "tables/embeddings/part-", 99)]
    child = subprocess.Popen(
        command(corpus, place, "--work", str(tmp_path / "a")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    ends = time.monotonic() + 300
    while "stall" not in proxy.plan.done:
        assert child.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.05)
    second = run(corpus, place, "--work", str(tmp_path / "b"))
    assert second.returncode == 2
    assert f"{place}: another run is writing here" in second.stderr
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    proxy.plan.faults = []
    before = stored(place, tmp_path / "between")
    assert before
    assert not any(path.startswith("tables/embeddings") for path in before)
    assert set(before.items()) <= set(plain.items())
    done = run(corpus, place, "--work", str(tmp_path / "b"))  # waits for the lease of the dead
    assert done.returncode == 0, done.stderr
    assert stored(place, tmp_path / "copy") == plain


@pytest.mark.slow
def test_sources_in_a_store_that_loses_connections(
    proxy: Proxy, server: str, corpus: Path, plain: dict[str, str], tmp_path: Path
) -> None:
    with credentials(server):
        client = boto3.client("s3")
        paths = [path for path in corpus.rglob("*") if path.is_file()]
        for path in paths:
            client.upload_file(path, "bucket", f"source/{path.relative_to(corpus).as_posix()}")
    proxy.plan.faults = [Fault("cut", "GET", f"/{paths[3].name}", 1)]
    given = command(corpus, str(tmp_path / "out"))
    given[given.index("--input") + 1] = "s3://bucket/source"
    done = subprocess.run(given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert proxy.plan.done == ["cut"]
    assert common.contents(tmp_path / "out") == plain


def test_a_store_that_is_away_is_one_line(corpus: Path, tmp_path: Path) -> None:
    with credentials("http://127.0.0.1:9"):
        done = run(corpus, "s3://bucket/away", "--work", str(tmp_path / "a"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("shardwright: s3://bucket/away/")
    assert "Traceback" not in done.stderr
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in done.stderr
