"""What came out, read by the tools that people use, where it was written and after a move."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import common
import duckdb
import faiss
import mlcroissant
import numpy as np
import pyarrow.parquet as pq
import pytest

from shardwright.metadata.layout import Layout


@pytest.fixture(scope="module", params=["code", pytest.param("image", marks=pytest.mark.slow)])
def curated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    modality = str(request.param)
    folder = tmp_path_factory.mktemp(modality)
    if modality == "code":
        source = common.copy_sources(folder / "in", 300)
    else:
        source = folder / "in"
        shutil.copytree(common.PICTURES / "scikit_image", source)
    common.run(
        modality,
        source,
        folder / "out",
        "shards.split={train: 0.8, validation: 0.2}",
        "clusters.k=10",
    )
    return modality, folder / "out"


def expected(output: Path, split: str) -> dict[str, bytes]:
    """Payload of each kept record of a split, by id."""
    rows: dict[str, bytes] = {}
    for part in (output / "tables" / "curated").glob("part-*.parquet"):
        for row in pq.read_table(part).to_pylist():
            if row["split"] == split:
                payload = row.get("content", row.get("image"))
                rows[row["record_id"]] = payload.encode() if isinstance(payload, str) else payload
    assert rows
    return rows


# Each reader runs in a process of its own: both libraries leave threads and shared memory behind.
_STREAMING = """
import sys, pickle
from streaming import StreamingDataset
from streaming.base.util import clean_stale_shared_memory
clean_stale_shared_memory()
data = StreamingDataset(remote=sys.argv[1], local=sys.argv[2], shuffle=False, batch_size=1,
                        validate_hash="sha256")
rows = [dict(data[i]) for i in range(len(data))]
"""
_LITDATA = """
import sys
from litdata import StreamingDataset
data = StreamingDataset(sys.argv[1], shuffle=False)
rows = [dict(data[i]) for i in range(len(data))]
"""
_PRINT = """
import hashlib, json
def payload(row):
    value = row.get("content", row.get("image"))
    return value.encode() if isinstance(value, str) else bytes(value)
print(json.dumps([[row["record_id"], hashlib.sha256(payload(row)).hexdigest()] for row in rows]))
"""


@pytest.mark.parametrize("reader", [_STREAMING, _LITDATA], ids=["mosaicml-streaming", "litdata"])
def test_shards_read_completely_in_order(
    curated: tuple[str, Path], reader: str, tmp_path: Path
) -> None:
    import hashlib

    _, output = curated
    places = duckdb.sql(
        f"SELECT record_id FROM read_parquet('{output}/tables/shards/part-*.parquet') "
        "WHERE split = 'train' ORDER BY shard, position"
    ).fetchall()
    command = [sys.executable, "-c", reader + _PRINT, str(output / "shards" / "train")]
    done = subprocess.run([*command, str(tmp_path / "local")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    wanted = expected(output, "train")
    assert [row[0] for row in rows] == [place[0] for place in places]
    assert {row[0]: row[1] for row in rows} == {
        record: hashlib.sha256(payload).hexdigest() for record, payload in wanted.items()
    }


def test_croissant_loads_and_reads_the_curated_records(curated: tuple[str, Path]) -> None:
    modality, output = curated
    dataset = mlcroissant.Dataset(jsonld=str(output / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    rows = list(dataset.records("curated"))
    wanted = expected(output, "train") | expected(output, "validation")
    assert {row["curated/record_id"].decode() for row in rows} == set(wanted)
    if modality == "code":
        for row in rows:
            assert row["curated/content"] == wanted[row["curated/record_id"].decode()]


def test_tables_open_through_the_catalog_and_plainly(curated: tuple[str, Path]) -> None:
    _, output = curated
    with duckdb.connect(str(output / "catalog.duckdb"), read_only=True) as catalog:
        for manifest in Layout(output).manifests():
            plain = duckdb.sql(
                f"SELECT count(*) FROM read_parquet('{manifest.folder}/part-*.parquet')"
            ).fetchall()
            view = catalog.execute(f"SELECT count(*) FROM {manifest.table}").fetchall()
            assert plain == view == [(manifest.rows,)]


def test_index_opens_with_plain_faiss(curated: tuple[str, Path]) -> None:
    _, output = curated
    index = faiss.read_index(str(output / "indexes" / "flat.faiss"))
    ids = pq.read_table(output / "indexes" / "flat.ids.parquet")["record_id"].to_pylist()
    manifest = Layout(output).manifest("embeddings")
    assert manifest is not None
    tables = [pq.read_table(path) for path in manifest.files()]
    assert ids == [i for table in tables for i in table["record_id"].to_pylist()]
    vectors = np.concatenate([np.stack(table["vector"].to_numpy()) for table in tables])
    assert np.array_equal(index.reconstruct_n(0, index.ntotal), vectors.astype(np.float32))


def test_everything_still_answers_after_a_move(curated: tuple[str, Path], tmp_path: Path) -> None:
    _, output = curated
    moved = tmp_path / "moved" / "here"
    moved.parent.mkdir()
    shutil.copytree(output, moved)
    hidden = output.with_name("hidden")
    output.rename(hidden)
    try:
        sql = "SELECT stage, count(*) AS n FROM decisions GROUP BY stage ORDER BY stage"
        done = common.shardwright("query", str(moved), sql, "--format", "csv")
        assert done.returncode == 0, done.stderr
        counts = {row["stage"]: int(row["n"]) for row in csv.DictReader(io.StringIO(done.stdout))}
        decisions = Layout(moved).manifest("decisions")
        assert decisions is not None
        assert sum(counts.values()) == decisions.rows
        assert common.shardwright("verify", str(moved)).returncode == 0
        record = next(iter(expected(moved, "train")))
        told = common.shardwright("explain", str(moved), record)
        assert told.returncode == 0, told.stderr
        assert "train" in told.stdout
    finally:
        hidden.rename(output)
