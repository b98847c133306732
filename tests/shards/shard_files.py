"""Small folders of MDS shards that look like the ``shards/`` of a curation."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from shardwright.metadata.filelist import ListedFile, write_file_list
from shardwright.metadata.manifest import Origin
from shardwright.shards.mds import columns_for, write_shard

SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("content", pa.string()),
        ("image", pa.binary()),
        ("lines", pa.int64()),
        ("score", pa.float64()),
    ]
)


def record_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sample(name: str, number: int) -> dict[str, Any]:
    """Sample ``number`` of a collection."""
    text = f"{name} {number} déjà vu ✓ " * (number % 5)
    return {
        "record_id": record_id(f"{name} {number}"),
        "content": text,
        "image": text.encode()[::-1],
        "lines": number,
        "score": number / 7,
    }


def write_shards(root: Path, sizes: Sequence[int], name: str = "a", split: str = "train") -> Path:
    """Writes a split whose shards have these sizes; the samples are numbered through."""
    folder = root / "shards" / split
    folder.mkdir(parents=True)
    files, first = [], 0
    for shard, size in enumerate(sizes):
        rows = [sample(name, number) for number in range(first, first + size)]
        table = pa.Table.from_pylist(rows, SCHEMA)
        path = folder / f"shard.{shard:05d}.mds"
        written = write_shard(path, table, columns_for(SCHEMA), 10**6)
        files.append(
            ListedFile(
                f"{split}/{path.name}", written.bytes, written.sha256, written.samples, "mds"
            )
        )
        first += size
    origin = Origin("shard", "1")
    write_file_list(root / "shards", "f", origin, files)
    return root
