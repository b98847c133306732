"""The data of ``loader.py``: the same samples in the format of each loader, in equally many files.

Texts are pieces of real source files of some 1,000 characters; pictures are real photographs, cut
out at random places and encoded as JPEG.
"""

import hashlib
import io
import os
import sysconfig
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shardwright.metadata.filelist import ListedFile, write_file_list
from shardwright.metadata.manifest import Origin
from shardwright.shards import mds, tar

SHARDS = 16
PIECE = 1_000
SIDE = 224
LIMIT = 2**31
PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png"),
    *("motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg"),
)
PAYLOAD = {"text": "content", "jpeg": "image"}
SCHEMAS = {
    "text": pa.schema(
        [
            ("record_id", pa.string()),
            ("path", pa.string()),
            ("lines", pa.int64()),
            ("content", pa.large_string()),
        ]
    ),
    "jpeg": pa.schema(
        [
            ("record_id", pa.string()),
            ("path", pa.string()),
            ("format", pa.string()),
            ("image", pa.large_binary()),
        ]
    ),
}


def _pieces() -> Iterator[tuple[str, str]]:
    """Names and texts: runs of lines of the environment's source files."""
    for root in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for where, folders, names in os.walk(root):
            folders[:] = sorted(set(folders) - {"site-packages", "__pycache__"})
            for name in sorted(names):
                if not name.endswith((".py", ".h", ".js", ".c", ".cpp")):
                    continue
                path = Path(where, name)
                piece, size = [], 0
                for line in path.read_text(errors="replace").splitlines(keepends=True):
                    piece.append(line)
                    size += len(line)
                    if size >= PIECE:
                        yield str(path.relative_to(root)), "".join(piece)
                        piece, size = [], 0


def texts(count: int) -> pa.Table:
    """The first ``count`` pieces."""
    rows: list[dict[str, Any]] = []
    for path, text in _pieces():
        key = hashlib.sha256(f"{path} {len(rows)}".encode()).hexdigest()[:32]
        lines = text.count("\n")
        rows.append({"record_id": key, "path": path, "lines": lines, "content": text})
        if len(rows) == count:
            return pa.Table.from_pylist(rows, SCHEMAS["text"])
    raise SystemExit(f"only {len(rows)} texts here, of {count}")


def jpegs(count: int) -> pa.Table:
    """``count`` cuttings of photographs of scikit-image, of 224 x 224 pixels, quality 90."""
    import skimage.data

    random = np.random.default_rng(0)
    folder = Path(skimage.data.__file__).parent
    photographs = [Image.open(folder / name).convert("RGB") for name in PHOTOGRAPHS]
    rows = []
    for number in range(count):
        name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
        photograph = photographs[number % len(PHOTOGRAPHS)]
        side = int(random.integers(SIDE, min(photograph.size) + 1))
        left = int(random.integers(photograph.width - side + 1))
        top = int(random.integers(photograph.height - side + 1))
        encoded = io.BytesIO()
        cut = photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
        cut.save(encoded, "JPEG", quality=90)
        key = hashlib.sha256(encoded.getvalue() + bytes([number % 256])).hexdigest()[:32]
        rows.append({"record_id": key, "path": name, "format": "jpeg", "image": encoded.getvalue()})
    return pa.Table.from_pylist(rows, SCHEMAS["jpeg"])


def write(table: pa.Table, folder: Path) -> None:
    """Writes the samples in random order for every loader.

    Below ``folder``: ``mds`` looks like a curation's ``shards``, and is read by mosaicml-streaming
    too; ``tar`` for webdataset, ``parquet``, and ``litdata`` as its own writer makes it.
    """
    table = table.take(np.random.default_rng(1).permutation(table.num_rows))
    bounds = np.linspace(0, table.num_rows, SHARDS + 1).astype(int)
    parts = [table.slice(low, high - low) for low, high in pairwise(bounds)]
    train = folder / "mds" / "shards" / "train"
    for place in (train, folder / "tar", folder / "parquet"):
        place.mkdir(parents=True)
    columns = mds.columns_for(table.schema)
    files = []
    for number, part in enumerate(parts):
        path = train / f"shard.{number:05d}.mds"
        files.append(mds.write_shard(path, part, columns, LIMIT))
        tar.write_shard(folder / "tar" / f"{number:05d}.tar", part, table.schema)
        group = max(1, min(1_024, part.num_rows // 4))
        pq.write_table(part, folder / "parquet" / f"{number:05d}.parquet", row_group_size=group)
    mds.write_index(train / mds.INDEX, files, columns, LIMIT)
    listed = [
        ListedFile(f"train/{file.basename}", file.bytes, file.sha256, file.samples, "mds")
        for file in files
    ]
    write_file_list(folder / "mds" / "shards", "benchmark", Origin("shard", "1"), listed)
    _write_litdata(table, folder / "litdata", parts[0].num_rows)


def _write_litdata(table: pa.Table, folder: Path, rows: int) -> None:
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_size=rows)
    for number, row in enumerate(table.to_pylist()):
        writer[number] = row
    writer.done()
    writer.merge(num_workers=1)
