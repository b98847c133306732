"""Metadata of a large curation, and three ways to read its records.

    python benchmarks/metadata.py [--quick] [--folder DIR]

Prints Markdown tables. First the catalog and the Croissant are written, all is verified, and the
curation is compared with one in which some inputs moved and others changed, for outputs of two
sizes: memory is to stay as the size grows tenfold. A part of verifying is told by itself: the
Croissant, read back through mlcroissant and TFDS, which takes seconds however small the output. The
outputs are made up, but written with the functions that the stages write with: every file has its
hash and every record its decision.

Then the records of one output are read whole through DuckDB, ``shardwright.open`` and mlcroissant,
which take turns; figures are medians. All give the fields of the Croissant's record set; DuckDB and
``shardwright.open`` also three of them alone, which mlcroissant has no way to ask for. Each figure
is a process of its own; seconds do not count imports, megabytes do.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shardwright.metadata import schemas
from shardwright.metadata.filelist import ListedFile, shard_stem, write_file_list
from shardwright.metadata.files import sha256_file
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Manifest, Origin, Part, write_manifest
from shardwright.metadata.tables import PartWriter, write_empty

RECIPE = {"name": "made", "modality": "code", "source": {"kind": "files", "uri": "made"}}
COLUMNS = ("record_id", "path", "content")
# One record in ten is dropped.
DROPPED = 10
READERS = (
    *("DuckDB", "shardwright.open", "mlcroissant"),
    *("DuckDB, 3 columns", "shardwright.open, 3 columns"),
)
# In the second of two outputs that are compared one record in so many moved, and one changed.
DIFFERS = 1000


class Table:
    """Writes one table part by part."""

    def __init__(self, layout: Layout, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = layout.table(name), name, schema
        self._folder.mkdir(parents=True)
        self._parts: list[Part] = []

    def write(self, columns: dict[str, Any]) -> None:
        """Writes a part of these columns; columns that are not given are null."""
        key = f"{len(self._parts):05d}"
        rows = len(next(iter(columns.values())))
        arrays = [
            pa.array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(rows, field.type)
            for field in self._schema
        ]
        with PartWriter(self._folder / f"part-{key}.parquet", self._schema) as writer:
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._parts.append(writer.close(key, key))

    def commit(self, stage: str, inputs: list[Manifest]) -> Manifest:
        """Commits the table; one without a part is empty."""
        if not self._parts:
            path = self._folder / "part-empty.parquet"
            self._parts.append(write_empty(path, self._schema, "empty", ""))
        origin = Origin(stage, "1", {}, {m.table: m.content_sha256 for m in inputs}, 1e9, 1e9)
        return write_manifest(self._folder, self._name, self._schema, origin, self._parts)


def contents_of(first: int, rows: int, size: int) -> list[str]:
    """Texts of about ``size`` characters, no two alike."""
    lines = [f"value = {i}\n" for i in range(first, first + rows)]
    return [line * max(1, size // len(line)) for line in lines]


def make(folder: Path, files: int, records: int, size: int, *, later: bool = False) -> None:
    """Writes the tables and shards of an output whose Croissant lists ``files`` files.

    Args:
        folder: Where to.
        files: How many are listed.
        records: How many there are, kept and dropped.
        size: Characters of a record, about.
        later: Some records have another path, and others another content.
    """
    layout = Layout(folder)
    parts, shards = max(1, files * 2 // 5), max(1, files // 5)
    bounds = np.linspace(0, records, parts + 1).astype(int)
    per_shard = -(-records // shards)
    every = [("records", schemas.CODE_RECORDS), ("curated", schemas.curated("code"))]
    every += [("decisions", schemas.DECISIONS), ("shards", schemas.SHARDS)]
    tables = {name: Table(layout, name, schema) for name, schema in every}
    ids: list[str] = []
    taken = np.zeros(shards, int)
    for start, stop in pairwise(bounds):
        rows = int(stop - start)
        paths = [f"folder{i // 1000}/file{i}.py" for i in range(start, stop)]
        if later:
            paths = [path + "i" * (i % DIFFERS == 1) for i, path in enumerate(paths, start)]
        own = [schemas.record_id("made", path) for path in paths]
        ids += own
        texts = contents_of(int(start), rows, size)
        if later:
            texts = [text + "#" * (i % DIFFERS == 2) for i, text in enumerate(texts, start)]
        columns: dict[str, Any] = {
            "record_id": own,
            "source": ["made"] * rows,
            "path": paths,
            "modality": ["code"] * rows,
            "bytes": [len(text) for text in texts],
            "content_sha256": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "content": texts,
            "attributes": [[]] * rows,
            "language": ["python"] * rows,
            "lines": [text.count("\n") for text in texts],
        }
        tables["records"].write(columns)
        keep = np.arange(start, stop) % DROPPED != 0
        tables["decisions"].write(
            {
                "record_id": own,
                "keep": keep,
                "stage": np.where(keep, "keep", "filter").tolist(),
                "reason": np.where(keep, "kept", "too_short").tolist(),
            }
        )
        kept = np.flatnonzero(keep)
        chosen = {name: [values[i] for i in kept] for name, values in columns.items()}
        tables["curated"].write(chosen | {"split": ["train"] * len(kept)})
        shard = (start + kept) // per_shard
        order = np.arange(len(kept)) - np.searchsorted(shard, shard)
        tables["shards"].write(
            {
                "record_id": chosen["record_id"],
                "split": ["train"] * len(kept),
                "shard": shard,
                "position": taken[shard] + order,
            }
        )
        taken += np.bincount(shard, minlength=shards)
    accepted = tables["records"].commit("ingest", [])
    Table(layout, "rejects", schemas.REJECTS).commit("ingest", [])
    lookup = Table(layout, "lookup", schemas.LOOKUP)
    named = np.array(ids, dtype="S32")
    order = np.argsort(named)
    place = np.searchsorted(bounds, order, side="right") - 1
    for some in np.array_split(order, max(1, records // 1_000_000)):
        part = place[: len(some)]
        place = place[len(some) :]
        lookup.write(
            {
                "record_id": named[some].astype(str).tolist(),
                "part": part.astype(np.int32),
                "row": (some - bounds[part]).astype(np.int32),
            }
        )
    decided = tables["decisions"].commit("prune", [lookup.commit("ingest", [accepted])])
    placed = tables["shards"].commit("shard", [accepted, decided])
    tables["curated"].commit("shard", [accepted, placed])
    listed = list(shard_files(layout, taken))
    origin = Origin("shard", "1", {}, {"shards": placed.content_sha256}, 1e9, 1e9)
    write_file_list(layout.shards, "made", origin, listed)


def shard_files(layout: Layout, taken: np.ndarray) -> Iterator[ListedFile]:
    """Writes a file of noise for each shard; the metadata knows their hashes alone."""
    noise = np.random.default_rng(0)
    (layout.shards / "train").mkdir(parents=True)
    for number, samples in enumerate(taken):
        path = f"{shard_stem('train', number)}.tar"
        file = layout.shards / path
        file.write_bytes(noise.bytes(64_000))
        yield ListedFile(path, 64_000, sha256_file(file), int(samples), "webdataset")


def emit(folder: Path) -> Callable[[], int]:
    """Writes the catalog and the Croissant; the result is its size."""
    from shardwright.metadata.catalog import write_catalog
    from shardwright.metadata.croissant import write_croissant

    def run() -> int:
        write_catalog(Layout(folder))
        write_croissant(Layout(folder), RECIPE)
        return Layout(folder).croissant.stat().st_size

    return run


def verify(folder: Path) -> Callable[[], int]:
    """Finds no fault."""
    import_readers()
    from shardwright.metadata.verify import verify as faults_of

    return lambda: no_fault(faults_of(Layout(folder)))


def verify_croissant(folder: Path) -> Callable[[], int]:
    """The part of it that reads the Croissant, and finds no fault either."""
    import_readers()
    from shardwright.metadata.catalog import connect
    from shardwright.metadata.integrity import croissant_faults

    def run() -> int:
        layout = Layout(folder)
        sound = {manifest.table: manifest for manifest in layout.manifests()}
        with connect(layout) as connection:
            return no_fault(list(croissant_faults(layout, sound, connection)))

    return run


def import_readers() -> None:
    """Imports what verifying reads with, which takes seconds."""
    import mlcroissant  # noqa: F401
    from tensorflow_datasets.core.dataset_builders import croissant_builder  # noqa: F401


def no_fault(faults: list[str]) -> int:
    """Stops where there is a fault."""
    if faults:
        raise SystemExit("\n".join(faults[:10]))
    return 0


def compare(folder: Path) -> Callable[[], int]:
    """Finds what moved and what changed; the result is how much that is."""
    from shardwright.metadata.compare import compare as compared

    def run() -> int:
        found = compared(folder, later_of(folder))
        counts = {group.kind: group.inputs for group in found.groups}
        records = Layout(folder).need("records", "").rows
        if {kind: counts.get(kind) for kind in ("added", "removed", "moved", "content")} != {
            "added": None,
            "removed": None,
            "moved": len(range(1, records, DIFFERS)),
            "content": len(range(2, records, DIFFERS)),
        }:
            raise SystemExit(f"other differences than were made: {counts}")
        return counts["moved"] + counts["content"]

    return run


def later_of(folder: Path) -> Path:
    """The output that one is compared with."""
    return folder.with_name(f"{folder.name}-later")


def read(reader: str) -> Callable[[Path], Callable[[], int]]:
    """Counts the characters of all contents; every column is made a value of Python."""

    def prepare(folder: Path) -> Callable[[], int]:
        import mlcroissant

        import shardwright
        from shardwright.metadata.catalog import connect

        columns = fields_of(folder) if reader in READERS[:3] else COLUMNS

        def counted(batches: Iterator[pa.RecordBatch]) -> int:
            return sum(len(row["content"]) for batch in batches for row in batch.to_pylist())

        def by_duckdb() -> int:
            with connect(Layout(folder), tables=("curated",)) as connection:
                found = connection.sql(f"SELECT {', '.join(columns)} FROM curated")
                return counted(iter(found.to_arrow_reader(1024)))

        def by_open() -> int:
            return counted(iter(shardwright.open(folder).tables["curated"].batches(columns)))

        def by_mlcroissant() -> int:
            dataset = mlcroissant.Dataset(str(Layout(folder).croissant))
            records = dataset.records("curated")
            return sum(len(record["curated/content"]) for record in records)

        if reader == "mlcroissant":
            return by_mlcroissant
        return by_duckdb if reader.startswith("DuckDB") else by_open

    return prepare


def fields_of(folder: Path) -> tuple[str, ...]:
    """Columns that the record set of the curated records gives."""
    metadata = json.loads(Layout(folder).croissant.read_bytes())
    curated = next(one for one in metadata["recordSet"] if one["@id"] == "curated")
    return tuple(field["name"] for field in curated["field"])


TASKS: dict[str, Callable[[Path], Callable[[], int]]] = {
    "emit": emit,
    "verify": verify,
    "verify croissant": verify_croissant,
    "compare": compare,
    **{reader: read(reader) for reader in READERS},
}


def peak_megabytes() -> float:
    """Most memory that this process ever had; ``getrusage`` would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measured(task: str, folder: Path) -> dict[str, float]:
    """One task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(header: list[str], lines: list[list[str]]) -> None:
    """Prints a Markdown table."""
    for line in (header, ["---"] * len(header), *lines):
        print(f"| {' | '.join(line)} |")
    print(flush=True)


def sizes(root: Path, shapes: list[tuple[int, int]]) -> None:
    """Emits, verifies and compares outputs of some sizes."""
    lines, peaks = [], []
    for files, records in shapes:
        folder = root / f"made-{records}"
        make(folder, files, records, 24)
        make(later_of(folder), files, records, 24, later=True)
        tasks = ("emit", "verify", "verify croissant", "compare")
        found = {task: measured(task, folder) for task in tasks}
        peaks.append([one["megabytes"] for one in found.values()])
        cells = [f"{one['seconds']:.1f} s, {one['megabytes']:.0f} MB" for one in found.values()]
        size = f"{found['emit']['result'] / 1e6:.1f} MB"
        lines.append([f"{files:,}", f"{records:,}", cells[0], size, *cells[1:]])
        shutil.rmtree(folder)
        shutil.rmtree(later_of(folder))
    ratios = [f"{last / first:.2f}" for first, last in zip(peaks[0], peaks[-1], strict=True)]
    lines.append(["", "ratio of MB", ratios[0], "", *ratios[1:]])
    header = ["files", "decisions", "emit", "croissant.json", "verify", "of that the Croissant"]
    show([*header, "compare"], lines)


def readers(root: Path, records: int, turns: int) -> None:
    """Reads the same records three ways."""
    folder = root / "read"
    make(folder, 10, records, 2_000)
    emit(folder)()
    found: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
    for _ in range(turns):
        for reader in READERS:
            found[reader].append(measured(reader, folder))
    if len({one["result"] for runs in found.values() for one in runs}) > 1:
        raise SystemExit("the readers read different records")
    kept = records - -(-records // DROPPED)
    rates = {
        reader: statistics.median(kept / one["seconds"] for one in runs)
        for reader, runs in found.items()
    }
    lines = [
        [
            reader,
            f"{rates[reader]:,.0f}",
            f"{rates[reader] / rates['mlcroissant']:.1f}",
            f"{max(one['megabytes'] for one in found[reader]):.0f}",
        ]
        for reader in READERS
    ]
    show([f"{kept:,} records of 2 kB", "records/s", "times mlcroissant", "peak MB"], lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one turn")
    parser.add_argument("--folder", type=Path, help="where the outputs are made; or of --task")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task is not None:
        run = TASKS[arguments.task](arguments.folder)
        begin = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - begin
        print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes(), "result": result}))
        return
    import rounds  # and torch with it, which no task needs

    print("\n".join(rounds.header()), end="\n\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        if arguments.quick:
            sizes(Path(name), [(50, 5_000), (500, 50_000)])
            readers(Path(name), 5_000, 1)
        else:
            sizes(Path(name), [(500, 1_000_000), (5_000, 10_000_000)])
            readers(Path(name), 100_000, 3)


if __name__ == "__main__":
    main()
