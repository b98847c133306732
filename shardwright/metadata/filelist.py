"""Manifests of folders that hold files of a foreign format: shards and indexes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from shardwright.errors import DataError
from shardwright.metadata.files import write_whole
from shardwright.metadata.manifest import MANIFEST, Origin, sealed

_INDEXES: Final = ("json", "faiss")
"""Formats of files that hold no samples."""


@dataclass(frozen=True)
class ListedFile:
    """One committed file: its path below the folder, its size and hash, and what it holds.

    Attributes:
        path: Relative to the folder, with '/'.
        bytes: Size.
        sha256: Hash of the bytes.
        rows: Samples or vectors inside; 0 for an index file.
        format: ``mds``, ``webdataset``, ``parquet``, ``json``, ``faiss``, or what a package adds.
    """

    path: str
    bytes: int
    sha256: str
    rows: int
    format: str

    @property
    def holds_samples(self) -> bool:
        """Whether it is a shard, of whatever format."""
        return self.format not in _INDEXES


@dataclass(frozen=True)
class FileList:
    """What a folder holds and where it came from."""

    folder: Path
    fingerprint: str
    origin: Origin
    files: tuple[ListedFile, ...]

    @property
    def shards(self) -> tuple[ListedFile, ...]:
        """Of a folder of shards the files that hold samples: splits and shards in order."""
        return tuple(file for file in self.files if file.holds_samples)

    def shard(self, split: str, number: int) -> ListedFile | None:
        """The file that the table ``shards`` calls by these, or None."""
        stem = shard_stem(split, number)
        return next((file for file in self.shards if file.path.startswith(f"{stem}.")), None)


def shard_stem(split: str, number: int) -> str:
    """Path of a shard file below the folder of all shards, without the suffix of its format."""
    return f"{split}/shard.{number:05d}"


def write_file_list(
    folder: Path, fingerprint: str, origin: Origin, files: Sequence[ListedFile]
) -> FileList:
    """Commits a folder: from here on it holds exactly these files."""
    listed = FileList(folder, fingerprint, origin, tuple(files))
    head = {
        "format": 1,
        "fingerprint": fingerprint,
        "origin": asdict(origin),
        "files": [asdict(file) for file in files],
    }
    write_whole(folder / MANIFEST, sealed(head))
    return listed


def read_file_list(folder: Path) -> FileList | None:
    """What a folder was committed to hold, or None.

    Raises:
        DataError: Its manifest is damaged.
    """
    path = folder / MANIFEST
    try:
        head = json.loads(path.read_text())
        return FileList(
            folder,
            head["fingerprint"],
            Origin(**head["origin"]),
            tuple(ListedFile(**file) for file in head["files"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); run the curation again") from None
