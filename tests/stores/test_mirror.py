"""A store and a folder kept alike: at every point at which a run may die, and from two machines."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from s3_server import Proxy

from shardwright.errors import DataError, UserError
from shardwright.metadata.bucket import Bucket
from shardwright.metadata.connection import Retries
from shardwright.metadata.filelist import ListedFile, read_file_list, write_file_list
from shardwright.metadata.files import sha256_file, write_whole
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import MANIFEST, Origin, read_manifest, write_manifest
from shardwright.metadata.mirror import Mirror, at_hand, named
from shardwright.metadata.tables import PartWriter

QUICK = Retries(tries=3, first_wait=0.01, timeout=5.0)
SCHEMA = pa.schema([("number", pa.int64())])


class DiedError(Exception):
    """The run was killed here."""


class Mortal(Bucket):
    """A bucket whose run dies before a certain request that changes something."""

    lives = math.inf

    def _do(self, path: str, method: str, *given: Any, size: int = 0, **options: Any) -> Any:
        if method in ("put_file", "pipe_file", "rm_file"):
            if not self.lives:
                raise DiedError
            self.lives -= 1
        return super()._do(path, method, *given, size=size, **options)


def table(root: Path, name: str, parts: dict[str, int]) -> None:
    """Commits a table whose parts hold a number each."""
    folder = root / "tables" / name
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for key, number in parts.items():
        writer = PartWriter(folder / f"staged-{key}.parquet", SCHEMA)
        writer.write(pa.record_batch([pa.array([number] * 10)], schema=SCHEMA))
        part = writer.close(key, f"{number}").named()
        (folder / f"staged-{key}.parquet").replace(folder / str(part.file))
        made.append(part)
    write_manifest(folder, name, SCHEMA, Origin("ingest", "1"), made)
    keep = {part.file for part in made}
    for path in folder.glob("part-*"):
        if path.name not in keep:
            path.unlink()


def shards(root: Path, contents: dict[str, bytes]) -> None:
    """Commits shard files, whose names say nothing of their contents."""
    folder = root / "shards"
    if folder.exists():
        shutil.rmtree(folder)
    files = []
    for path, data in contents.items():
        write_whole(folder / path, data)
        files.append(ListedFile(path, len(data), sha256_file(folder / path), 1, "mds"))
    write_file_list(folder, "f", Origin("shard", "1"), files)


def first(root: Path) -> None:
    table(root, "records", {"a": 1, "b": 2})
    table(root, "clusters", {"a": 3})
    shards(root, {"train/shard.00000.mds": b"one", "train/shard.00001.mds": b"two"})
    write_whole(root / "metrics.json", "{}")
    write_whole(root / "croissant.json", '{"version": 1}')
    write_whole(root / "croissant-published.json", '{"published": 1}')


def second(root: Path) -> None:
    """One part less and one more, a table gone, one new, a shard rewritten, one gone."""
    table(root, "records", {"a": 1, "c": 5})
    table(root, "scores", {"a": 4})
    shutil.rmtree(root / "tables" / "clusters")
    shards(root, {"train/shard.00000.mds": b"ONE"})
    write_whole(root / "metrics.json", "{ }")
    write_whole(root / "croissant.json", '{"version": 2}')
    (root / "croissant-published.json").unlink()


def state(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".staging" not in path.parts
    }


def stored(bucket: Bucket, folder: Path) -> dict[str, bytes]:
    """What the store has, but for staging."""
    for path in bucket.files():
        if not path.startswith(".staging/"):
            bucket.fetch(path, folder / path)
    return state(folder) if folder.exists() else {}


@pytest.fixture
def versions(tmp_path: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    first(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second(tmp_path / "second")
    return state(tmp_path / "first"), state(tmp_path / "second")


def pushed(bucket: Bucket, root: Path) -> None:
    mirror = Mirror(bucket, Layout(root))
    mirror.pull()
    mirror.push()


def consistent(found: dict[str, bytes], root: Path) -> None:
    """Every manifest in the store names files that are there, with the bytes that it says."""
    for path in found:
        folder, _, name = path.rpartition("/")
        if name == MANIFEST:
            for below, file in named(root / folder).items():
                assert sha256_file(root / folder / below) == file.sha256, (folder, below)


@pytest.mark.slow
def test_whatever_request_a_run_dies_at(
    place: str, tmp_path: Path, versions: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    old, new = versions
    work = tmp_path / "work"
    for lives in range(200):
        bucket = Mortal(f"{place}/{lives}", QUICK)
        for folder in (work, *tmp_path.glob("store-*"), *tmp_path.glob("other*")):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "first", work)
        pushed(bucket, work)
        second(work)
        bucket.lives = lives
        try:
            pushed(bucket, work)
        except DiedError:
            alive = False
        else:
            alive = True
        bucket.lives = math.inf
        found = stored(bucket, tmp_path / "store-now")
        consistent(found, tmp_path / "store-now")
        if "croissant.json" in found:  # whole: the one or the other
            assert found in (old, new) or found == {
                name: data for name, data in old.items() if name != "croissant-published.json"
            }
        # Another machine finds what can be read, and the same machine goes on to the end.
        Mirror(bucket, Layout(tmp_path / "other")).pull()
        left = {path for path in found if path.startswith(("tables/", "shards/"))}
        for folder in {path.rpartition("/")[0] for path in found if path.endswith(MANIFEST)}:
            left -= {
                f"{folder}/{one}" for one in (MANIFEST, *named(tmp_path / "store-now" / folder))
            }
        assert state(tmp_path / "other") == {
            path: data for path, data in found.items() if path not in left
        }
        pushed(bucket, work)
        assert stored(bucket, tmp_path / "store-end") == new
        if alive:
            break
    assert 10 < lives < 199


def test_nothing_new_is_nothing_sent(place: str, proxy: Proxy, tmp_path: Path) -> None:
    first(tmp_path / "work")
    pushed(Bucket(place, QUICK), tmp_path / "work")
    mirror = Mirror(Bucket(place, QUICK), Layout(tmp_path / "work"))
    mirror.pull()
    mirror.push()
    proxy.plan.asked.clear()
    mirror.push()
    assert not [one for one in proxy.plan.asked if one.startswith(("PUT", "POST", "DELETE"))]


def test_a_part_that_is_there_is_not_sent_again(place: str, proxy: Proxy, tmp_path: Path) -> None:
    first(tmp_path / "work")
    pushed(Bucket(place, QUICK), tmp_path / "work")
    table(tmp_path / "work", "records", {"a": 1, "b": 2, "c": 9})
    proxy.plan.asked.clear()
    pushed(Bucket(place, QUICK), tmp_path / "work")
    sent = [one for one in proxy.plan.asked if one.startswith("PUT") and "part-" in one]
    assert len(sent) == 1
    assert "part-c-" in sent[0]


def test_two_machines_in_turn(
    place: str, tmp_path: Path, versions: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    shutil.copytree(tmp_path / "first", a)
    pushed(Bucket(place, QUICK), a)
    Mirror(Bucket(place, QUICK), Layout(b)).pull()
    assert state(b) == versions[0]
    second(b)
    pushed(Bucket(place, QUICK), b)
    # The first machine's folder is behind: the store is right, and nothing of it is lost.
    mirror = Mirror(Bucket(place, QUICK), Layout(a))
    mirror.pull()
    mine = state(a)
    for name, data in versions[1].items():
        if name.startswith(("tables/", "shards/")):
            assert mine[name] == data
    assert not (a / "tables" / "clusters").exists() or "tables/clusters" in str(mine)


def test_a_damaged_file_of_the_store_is_named(place: str, tmp_path: Path) -> None:
    first(tmp_path / "work")
    pushed(Bucket(place, QUICK), tmp_path / "work")
    manifest = read_manifest(tmp_path / "work" / "tables" / "records")
    assert manifest is not None
    path = f"tables/records/{manifest.files()[0].name}"
    bucket = Bucket(place, QUICK)
    data = bucket.read(path)
    assert data is not None
    bucket.write(path, data[:-1] + b"?")
    with pytest.raises(DataError, match=f"{place}/{path}: not the bytes"):
        Mirror(bucket, Layout(tmp_path / "other")).pull()
    assert read_manifest(tmp_path / "other" / "tables" / "records") is None


def test_a_copy_at_hand(place: str, tmp_path: Path) -> None:
    first(tmp_path / "work")
    pushed(Bucket(place, QUICK), tmp_path / "work")
    with at_hand(place) as layout:
        assert state(layout.root) == state(tmp_path / "work")
    with at_hand(place, only_manifests=True) as layout:
        assert {path.rpartition("/")[2] for path in state(layout.root)} == {MANIFEST}
        assert layout.url == place
    assert not layout.root.exists()
    with pytest.raises(UserError, match="holds no committed table"):
        at_hand(f"{place}/none").__enter__()


def test_random_faults_of_the_network_change_nothing(
    place: str, proxy: Proxy, tmp_path: Path, versions: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    shutil.copytree(tmp_path / "first", tmp_path / "work")
    patient = Retries(tries=8, first_wait=0.01, timeout=2.0)
    proxy.plan.share = 0.2
    for change in (lambda _: None, second):
        change(tmp_path / "work")
        mirror = Mirror(Bucket(place, patient), Layout(tmp_path / "work"))
        mirror.pull()
        mirror.push()
    met = len(proxy.plan.done)
    proxy.plan.share = 0.0
    assert met > 5
    assert stored(Bucket(place, QUICK), tmp_path / "store") == versions[1]
    listed = read_file_list(tmp_path / "store" / "shards")
    assert listed is not None
    assert json.loads((tmp_path / "store" / "croissant.json").read_text()) == {"version": 2}
