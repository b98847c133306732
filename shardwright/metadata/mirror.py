"""A curation in an object store, and the local folder that it is built in.

The store has no rename, so nothing is staged there. After each stage what the folder committed is
put into the store: a table's parts first, its manifest last. Readers of the store go through
manifests as readers of a folder do, and see a table as it was or as it is. ``croissant.json``
leaves the store before anything else changes and comes back last of all.

The local folder is a copy that may be lost: on another machine, or in an empty folder, a run begins
with what the store has. What the store had when the two last met is remembered under
``.staging/store``; where the store still has that, a folder that differs is ahead of it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardwright.errors import DataError, UserError
from shardwright.metadata.bucket import Bucket
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.files import fingerprint, sha256_file, write_whole
from shardwright.metadata.layout import Layout, opened
from shardwright.metadata.lease import Lease, Pace, leased
from shardwright.metadata.manifest import MANIFEST, read_manifest

_STAGING: Final = ".staging"
# In this order they leave the store before a change; they come back after all else.
_WHOLE: Final = ("croissant.json", "croissant-published.json")
# What lies below these and in no folder with a manifest was left by a run that was cut off.
_COMMITTED: Final = ("tables/", "indexes/", "shards/", "tokens/")
_AT_ONCE: Final = 8
# Names files of this machine; `catalog.sql`, which names none, remakes it.
_OURS: Final = "catalog.duckdb"


@dataclass(frozen=True)
class Named:
    """A file that a manifest names.

    Attributes:
        bytes: Size.
        sha256: Hash of the bytes.
    """

    bytes: int
    sha256: str


class Mirror:
    """Keeps a folder of an object store and a local folder alike.

    Attributes:
        bucket: The folder of the store.
        layout: The local folder.
    """

    def __init__(self, bucket: Bucket, layout: Layout, lease: Lease | None = None) -> None:
        self.bucket = bucket
        self.layout = layout
        self._lease = lease
        self._known = Layout(layout.staging("store"))
        self._sent: dict[str, str] = {}
        self._loose: set[str] = set()
        self._whole: set[str] = set()

    def pull(self) -> None:
        """Brings what the store has and the folder lacks, each file checked against its manifest.

        Raises:
            DataError: A file of the store is missing or damaged, or the store cannot be read.
        """
        files = self.bucket.files()
        units = {path.rpartition("/")[0] for path in files if path.endswith(f"/{MANIFEST}")}
        units -= {unit for unit in units if unit.startswith(_STAGING)}
        ahead = False
        for unit in sorted(units):
            coming = self._fetch_manifest(unit, files)
            mine, before, now = (
                _text(folder / MANIFEST)
                for folder in (self.layout.root / unit, self._known.root / unit, coming)
            )
            if mine != now and before == now:
                ahead = True
            elif mine != now:
                self._bring(unit, coming)
            # Known from now on: a run that dies before has not met the store.
            shutil.rmtree(self._known.root / unit, ignore_errors=True)
            (self._known.root / unit).parent.mkdir(parents=True, exist_ok=True)
            coming.rename(self._known.root / unit)
        for old in _units(self._known.root) - units:
            shutil.rmtree(self._known.root / old)
        self._whole = files.keys() & set(_WHOLE)
        self._loose = {
            path
            for path in files.keys() - self._whole
            if _unit_of(path, units) is None and not path.startswith(f"{_STAGING}/")
        }
        for unit in units:  # what a run that was cut off had no time to delete
            keep = {f"{unit}/{path}" for path in (MANIFEST, *named(self._known.root / unit))}
            self._loose |= {path for path in files if path.startswith(f"{unit}/")} - keep
        alike = not ahead and _units(self.layout.root) == units
        for path in sorted(self._loose | (self._whole if alike else set())):
            if not path.startswith(_COMMITTED) and not (self.layout.root / path).exists():
                self.bucket.fetch(path, self.layout.root / path, files[path])

    def push(self) -> None:
        """Puts what the folder has committed into the store; manifests last, the Croissant after.

        Raises:
            DataError: The store could not be written to, or another run took it over.
        """
        root = self.layout.root
        units, known = _units(root), _units(self._known.root)
        changed = [
            unit
            for unit in sorted(units)
            if _text(root / unit / MANIFEST) != _text(self._known.root / unit / MANIFEST)
        ]
        here = set(_walk(root))
        loose = {
            path: sha256_file(root / path)
            for path in here
            if _unit_of(path, units) is None and path not in (*_WHOLE, _OURS)
        }
        fresh = [path for path, sha256 in sorted(loose.items()) if self._sent.get(path) != sha256]
        whole = {name: _text(root / name) for name in _WHOLE if (root / name).exists()}
        same = self._whole == whole.keys() and all(
            self.bucket.read(name) == text for name, text in whole.items()
        )
        if changed or known - units or not same:
            self._open()
        for unit in sorted(known - units):
            self._drop(unit)
        for unit in changed:
            self._put(unit)
        self._send(fresh)
        self._sent |= {path: loose[path] for path in fresh}
        self.bucket.delete(sorted(self._loose - here))
        self._loose = set(loose)
        if not self._whole:
            self._check()
            for name in reversed(whole):
                self.bucket.put(name, root / name)
            self._whole = set(whole)

    def _open(self) -> None:
        """Says in the store that the curation is being changed."""
        if self._whole:
            self._check()
            self.bucket.delete(_WHOLE)
            self._whole = set()

    def _put(self, unit: str) -> None:
        """Commits a folder of files: what is new, then the manifest, then away with the old."""
        folder = self.layout.root / unit
        wanted, had = named(folder), named(self._known.root / unit)
        there = self.bucket.files(unit)
        below = {path: f"{unit}/{path}" for path in wanted}
        if any(wanted[path] != had[path] for path in wanted.keys() & had.keys()):
            self._check()  # a name is used again: no manifest may speak of both
            self.bucket.delete([f"{unit}/{MANIFEST}"])
        new = [
            below[path]
            for path, file in wanted.items()
            if had.get(path) != file
            and not (file.sha256[:16] in path and there.get(below[path]) == file.bytes)
        ]
        self._send(new)
        self._check()
        self.bucket.put(f"{unit}/{MANIFEST}", folder / MANIFEST)
        keep = {*below.values(), f"{unit}/{MANIFEST}"}
        self.bucket.delete(path for path in there if path not in keep)
        shutil.rmtree(self._known.root / unit, ignore_errors=True)
        for path in folder.glob("_manifest*"):
            write_whole(self._known.root / unit / path.name, path.read_bytes())

    def _drop(self, unit: str) -> None:
        self._check()
        self.bucket.delete([f"{unit}/{MANIFEST}"])
        self.bucket.delete(self.bucket.files(unit))
        shutil.rmtree(self._known.root / unit)

    def _send(self, paths: list[str]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda path: self.bucket.put(path, self.layout.root / path), paths):
                pass

    def _bring(self, unit: str, coming: Path) -> None:
        """Copies what a manifest of the store names, the manifest last."""
        folder = self.layout.root / unit
        (folder / MANIFEST).unlink(missing_ok=True)
        wanted = named(coming)
        missing = [path for path, file in wanted.items() if not _is(folder / path, file)]

        def fetch(path: str) -> None:
            self.bucket.fetch(f"{unit}/{path}", folder / path, wanted[path].bytes)
            if not _is(folder / path, wanted[path]):
                (folder / path).unlink()
                raise DataError(
                    f"{self.bucket.url(f'{unit}/{path}')}: not the bytes that its manifest names; "
                    "put the file there again, or remove the manifest and run the curation again"
                )

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(fetch, missing):
                pass
        write_whole(folder / MANIFEST, (coming / MANIFEST).read_bytes())
        for path in _walk(folder):
            if path not in wanted and path != MANIFEST:
                (folder / path).unlink()

    def _fetch_manifest(self, unit: str, files: dict[str, int]) -> Path:
        """Copies the manifest that the store has of a folder, and its leaves, into staging."""
        target = self.layout.staging("store-coming") / unit
        shutil.rmtree(target, ignore_errors=True)
        for path in sorted(files):
            folder, _, name = path.rpartition("/")
            if folder == unit and name.startswith("_manifest"):
                self.bucket.fetch(path, target / name, files[path])
        return target

    def _check(self) -> None:
        if self._lease is not None:
            self._lease.check()


@contextmanager
def mirrored(
    location: str | None,
    layout: Layout,
    note: Callable[[str], None] = lambda _: None,
    pace: Pace | None = None,
) -> Iterator[Callable[[], None]]:
    """Holds an output in a store for one run, with what it has in the local folder.

    Args:
        location: The store's address; None where the folder itself is the output.
        layout: The local folder.
        note: Told what takes a while.
        pace: How the lease on the store is kept.

    Yields:
        What is to be called after each stage.

    Raises:
        UserError: Another run writes there.
        DataError: The store cannot be read, or what it has is damaged.
    """
    if location is None:
        yield lambda: None
        return
    bucket = Bucket(location)
    with leased(bucket, pace, note) as lease:
        mirror = Mirror(bucket, layout, lease)
        mirror.pull()
        yield mirror.push


@contextmanager
def at_hand(location: str, *, only_manifests: bool = False) -> Iterator[Layout]:
    """A curation, wherever it is: one in a store is copied to a temporary folder, unchecked.

    Args:
        location: A folder, or the address of one in a store.
        only_manifests: Leaves the rest in the store; DuckDB reads it there.

    Raises:
        UserError: No curation is there.
        DataError: The store cannot be read.
    """
    if not is_store(location):
        yield opened(Path(location))
        return
    bucket = Bucket(location)
    with tempfile.TemporaryDirectory(prefix="shardwright-") as temporary:
        root = Path(temporary)
        sizes = bucket.files()
        paths = [path for path in sizes if not path.startswith(f"{_STAGING}/")]
        if not any(path.endswith(f"/{MANIFEST}") for path in paths):
            raise UserError(f"{location}: holds no committed table; run shardwright curate first")
        if only_manifests:
            paths = [path for path in paths if path.rpartition("/")[2].startswith("_manifest")]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda path: bucket.fetch(path, root / path, sizes[path]), paths):
                pass
        yield Layout(root, bucket.location if only_manifests else None)


def put_loose(location: str, layout: Layout, path: Path) -> str:
    """Puts a file that no manifest names into a store; returns its address."""
    bucket, below = Bucket(location), path.relative_to(layout.root).as_posix()
    bucket.put(below, path)
    return bucket.url(below)


def work_folder(location: str) -> Path:
    """Where an output in a store is built unless said otherwise: a folder of its own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = location.rstrip("/")
    return cache / "shardwright" / fingerprint(location=name)[:16]


def is_store(location: str) -> bool:
    """Whether an output is an address and no folder."""
    return "://" in location


def named(folder: Path) -> dict[str, Named]:
    """Files that the manifest of a folder names, by their path below it; none without a manifest.

    Raises:
        DataError: The manifest is damaged.
    """
    if folder.parent.name != "tables":
        listed = read_file_list(folder)
        files = () if listed is None else listed.files
        return {file.path: Named(file.bytes, file.sha256) for file in files}
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    leaves = {
        name: Named((folder / name).stat().st_size, sha256_file(folder / name))
        for name in manifest.leaf_names()
    }
    parts = {
        part.file: Named(part.bytes, part.sha256)
        for part in manifest.parts()
        if part.file is not None
    }
    return leaves | parts


def _units(root: Path) -> set[str]:
    """Folders below a root that hold a manifest."""
    return {path.rpartition("/")[0] for path in _walk(root) if path.endswith(f"/{MANIFEST}")}


def _unit_of(path: str, units: set[str]) -> str | None:
    """The committed folder that a file lies in."""
    return next((unit for unit in units if path.startswith(f"{unit}/")), None)


def _walk(root: Path) -> Iterator[str]:
    """Files below a folder but for staging, by their path."""
    for path in sorted(root.rglob("*")):
        below = path.relative_to(root).as_posix()
        if path.is_file() and not below.startswith(f"{_STAGING}/"):
            yield below


def _text(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _is(path: Path, file: Named) -> bool:
    """Whether a file has the bytes that a manifest names."""
    return path.is_file() and path.stat().st_size == file.bytes and sha256_file(path) == file.sha256
