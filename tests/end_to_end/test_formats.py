"""Every shard format through the command line, and read by the tools that people use for it."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import common
import duckdb
import mlcroissant
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardwright.errors import UserError
from shardwright.metadata.filelist import FileList, read_file_list
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines import cli, placement
from shardwright.pipelines.placement import SAMPLE_COLUMNS
from shardwright.shards.formats import FORMATS
from shardwright.shards.parquet_reader import ParquetReader
from shardwright.shards.tar_reader import TarReader

SETTINGS = (
    *("shards.split={train: 0.7, validation: 0.3}", "shards.size=150KB"),
    *("duplicates.near={}", "embedding=null", "index=null", "prune=null"),
    *("limits.part_bytes=100KB", "limits.reject_threshold=0.5", "filters=[]"),
)
OURS = {"webdataset": TarReader, "parquet": ParquetReader}


def settings(modality: str, *more: str) -> list[str]:
    names = [*SETTINGS, *more, *(["source.exclude=[]"] if modality == "code" else [])]
    return [word for name in names for word in ("--set", name)]


def curate(modality: str, source: Path, output: Path, *arguments: str) -> None:
    recipe = {"code": "recipes/code.yaml", "image": "recipes/images.yaml"}[modality]
    given = ["shardwright", "curate", recipe, "--input", str(source), "--output", str(output)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(common.ROOT)
        patch.setattr(sys, "argv", [*given, *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(common.PICTURES / "scikit_image", folder / "image")
    common.copy_sources(folder / "code", 90)
    # No writer may trip over a path that JSON has to escape.
    text = "".join(f"print('Grüße 🚀', {i})\n" for i in range(60))
    (folder / "code" / 'a "quoted" \\ name\t.py').write_text(text)
    (folder / "code" / "near.py").write_text(f"{text}done = True\n")
    (folder / "code" / "equal.py").write_text(text)
    return {modality: folder / modality for modality in ("code", "image")}


@pytest.fixture(scope="module")
def curations(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """Every modality and format; a format is a change to a curation that is already there."""
    folder = tmp_path_factory.mktemp("curations")
    found = {}
    for modality, source in inputs.items():
        for name in FORMATS:
            output = folder / modality / name
            arguments = settings(modality, f"shards.format={name}")
            if name != "mds":
                shutil.copytree(found[modality, "mds"], output)
                arguments += ["--stage", "shard", "--stage", "describe"]
            curate(modality, source, output, *arguments)
            found[modality, name] = output
    return found


def expected(modality: str, output: Path, split: str) -> list[dict[str, Any]]:
    """A split's samples in the order that the table ``shards`` gives, payloads as hashes."""
    tables = {
        name: f"read_parquet('{output}/tables/{name}/part-*.parquet')"
        for name in ("curated", "shards")
    }
    columns = ", ".join(f"c.{name}" for name in SAMPLE_COLUMNS[modality])
    rows = duckdb.sql(
        f"SELECT {columns} FROM {tables['curated']} c JOIN {tables['shards']} s USING (record_id) "
        f"WHERE s.split = '{split}' ORDER BY s.shard, s.position"
    ).to_arrow_table()
    assert len(rows) > 5
    return [plain(row) for row in rows.to_pylist()]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A sample with its payload hashed and missing texts empty, as all formats have it."""
    row = {name: "" if value is None else value for name, value in row.items()}
    for name in {"content", "image"} & row.keys():
        data = row[name].encode() if isinstance(row[name], str) else bytes(row[name])
        row[name] = hashlib.sha256(data).hexdigest()
    return dict(sorted(row.items()))


def listing(output: Path) -> FileList:
    listed = read_file_list(Layout(output).shards)
    assert listed is not None
    return listed


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("modality", ["code", "image"])
def test_a_curation_verifies_and_lists_every_shard(
    curations: dict[tuple[str, str], Path], modality: str, name: str
) -> None:
    output = curations[modality, name]
    assert verify(Layout(output)) == []
    shards = listing(output).shards
    assert {file.format for file in shards} == {name}
    assert all(file.path.endswith(FORMATS[name].suffix) for file in shards)
    assert len(shards) > 4
    kinds = {"mds": {"mds", "json"}}.get(name, {name})
    assert {file.format for file in listing(output).files} == kinds
    many = [file for file in shards if file.rows > 1]
    assert many
    assert all(file.bytes <= 150_000 for file in many)
    croissant = json.loads((output / "croissant.json").read_text())
    told = {item["@id"]: item for item in croissant["distribution"]}
    for file in shards:
        assert told[f"shards/{file.path}"]["sha256"] == file.sha256
        assert told[f"shards/{file.path}"]["contentSize"] == f"{file.bytes} B"
    dataset = mlcroissant.Dataset(jsonld=str(output / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
@pytest.mark.parametrize("modality", ["code", "image"])
def test_a_position_is_the_place_in_the_file(
    curations: dict[tuple[str, str], Path], modality: str, name: str
) -> None:
    output = curations[modality, name]
    places = duckdb.sql(
        f"SELECT split, shard, position, record_id FROM "
        f"read_parquet('{output}/tables/shards/part-*.parquet') ORDER BY ALL"
    ).fetchall()
    found = []
    for split, shard in sorted({place[:2] for place in places}):
        file = listing(output).shard(split, shard)
        assert file is not None
        reader = OURS[name](output / "shards" / file.path)
        assert len(reader) == file.rows
        backwards = np.arange(len(reader))[::-1].copy()
        for position, sample in zip(backwards.tolist(), reader.read(backwards), strict=True):
            assert all(isinstance(value, str | bytes | int) for value in sample.values())
            assert list(sample) == list(SAMPLE_COLUMNS[modality])
            found.append((split, shard, position, sample["record_id"]))
    assert sorted(found) == places
    for split in ("train", "validation"):
        samples = [
            plain(sample)
            for file in listing(output).shards
            if file.path.startswith(f"{split}/")
            for sample in OURS[name](output / "shards" / file.path).read(np.arange(file.rows))
        ]
        assert samples == expected(modality, output, split)


# Each reader runs in a process of its own: some leave threads and shared memory behind.
_READERS = {
    ("mds", "mosaicml-streaming"): """
from streaming import StreamingDataset
from streaming.base.util import clean_stale_shared_memory
clean_stale_shared_memory()
def read(shards, cache):
    data = StreamingDataset(remote=shards, local=cache, shuffle=False, batch_size=1,
                            validate_hash="sha256")
    return [dict(data[i]) for i in range(len(data))]
""",
    ("mds", "litdata"): """
from litdata import StreamingDataset
def read(shards, cache):
    data = StreamingDataset(shards, shuffle=False)
    return [dict(data[i]) for i in range(len(data))]
""",
    ("webdataset", "webdataset"): """
import glob, webdataset
def read(shards, cache):
    files = sorted(glob.glob(f"{shards}/*.tar"))
    rows = []
    for item in webdataset.WebDataset(files, shardshuffle=False).decode(only=["json", "txt"]):
        told, key = item.pop("json"), item.pop("__key__")
        (payload,) = [value for name, value in item.items() if not name.startswith("__")]
        assert key == told["record_id"]
        rows.append(told | {"image" if "width" in told else "content": payload})
    return rows
""",
    ("parquet", "datasets"): """
import datasets
datasets.disable_progress_bars()
def read(shards, cache):
    data = datasets.load_dataset("parquet", data_files={"s": f"{shards}/*.parquet"}, split="s",
                                 cache_dir=cache)
    return list(data)
""",
    ("parquet", "DuckDB"): """
import duckdb
def read(shards, cache):
    return duckdb.sql(
        f"FROM read_parquet('{shards}/*.parquet', filename = true, file_row_number = true) "
        "SELECT * EXCLUDE (filename, file_row_number) ORDER BY filename, file_row_number"
    ).to_arrow_table().to_pylist()
""",
}
_PRINT = """
import hashlib, json, sys
def plain(row):
    for name in {"content", "image"} & row.keys():
        data = row[name].encode() if isinstance(row[name], str) else bytes(row[name])
        row[name] = hashlib.sha256(data).hexdigest()
    return row
for shards, cache in zip(sys.argv[1::2], sys.argv[2::2]):
    print("ROWS" + json.dumps([plain(dict(row)) for row in read(shards, cache)], default=int))
"""


@pytest.mark.parametrize(("name", "reader"), _READERS, ids=[reader for _, reader in _READERS])
def test_other_readers_see_the_same_samples_in_order(
    curations: dict[tuple[str, str], Path], name: str, reader: str, tmp_path: Path
) -> None:
    arguments = []
    for modality in ("code", "image"):
        folder = curations[modality, name] / "shards" / "train"
        arguments += [str(folder), str(tmp_path / modality)]
    done = subprocess.run(
        [sys.executable, "-c", _READERS[name, reader] + _PRINT, *arguments],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    lines = [line[4:] for line in done.stdout.splitlines() if line.startswith("ROWS")]
    for modality, line in zip(("code", "image"), lines, strict=True):
        rows = [dict(sorted(row.items())) for row in json.loads(line)]
        assert rows == expected(modality, curations[modality, name], "train")


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
@pytest.mark.parametrize("modality", ["code", "image"])
def test_two_workers_write_the_same_bytes(
    curations: dict[tuple[str, str], Path],
    inputs: dict[str, Path],
    modality: str,
    name: str,
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    shutil.copytree(curations[modality, "mds"], output)
    common.run(
        modality,
        inputs[modality],
        output,
        *SETTINGS,
        f"shards.format={name}",
        beam=("--runner=FnApiRunner", "--direct_num_workers=2"),
    )
    assert common.contents(output) == common.contents(curations[modality, name])


def test_a_damaged_shard_is_named(curations: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    for name in ("webdataset", "parquet"):
        output = tmp_path / name
        shutil.copytree(curations["code", name], output)
        path = output / "shards" / listing(output).shards[1].path
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        (fault,) = verify(Layout(output))
        assert path.name in fault
        assert "sha256" in fault


class _Table:
    """A stand-in for a committed table: only its name is read."""

    def __init__(self, table: str) -> None:
        self.table = table


def test_groups_of_near_duplicates_hang_together() -> None:
    def pairs(*rows: str) -> pa.Table:
        split = [row.split() for row in rows]
        return pa.table(
            {"record_id": [a for a, _ in split], "representative_id": [b for _, b in split]}
        )

    with duckdb.connect() as connection:
        # c goes for b and b for a; f and e are linked through two tables; g has only itself.
        connection.register("duplicates", pairs("c b", "b a", "b b", "f y", "g g"))
        connection.register("semantic_duplicates", pairs("e y", "k earlier"))
        kept = pa.table({"record_id": list("abcefgyk"), "keep": [r in "bfeg" for r in "abcefgyk"]})
        connection.register("decisions", kept)
        tables = [_Table("duplicates"), _Table("semantic_duplicates")]
        placement.name_groups(connection, tables)  # type: ignore[arg-type]
        found = dict(connection.execute("SELECT record_id, first_id FROM near_groups").fetchall())
    # The first kept record names a group, and where none is kept the first of all.
    assert found == {
        **dict.fromkeys("abc", "b"),
        **dict.fromkeys("efy", "e"),
        **dict.fromkeys(["k", "earlier"], "earlier"),
    }


def test_finding_duplicates_moves_no_record_between_splits(
    curations: dict[tuple[str, str], Path], inputs: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(curations["code", "mds"], output)
    before = splits(output)
    assert len(pq.read_table(output / "tables" / "duplicates")) > 1
    near = (*SETTINGS, "shards.group_by=near_duplicates")
    common.run("code", inputs["code"], output, *near)
    assert splits(output) == before, "of each group one record is kept, which keeps its split"
    assert verify(Layout(output)) == []
    unlooked = (*near, "duplicates.exact=false", "duplicates.near=null")
    with pytest.raises(UserError, match="no duplicates were looked for"):
        common.run("code", inputs["code"], output, *unlooked, stages=["duplicates", "shard"])


def test_linked_records_share_a_split(
    curations: dict[tuple[str, str], Path],
    inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every kept record is linked to the first by a table of duplicates that is put in place."""
    output = tmp_path / "out"
    shutil.copytree(curations["code", "mds"], output)
    kept = sorted(splits(output))
    assert set(splits(output).values()) == {"train", "validation"}

    def planted(connection: duckdb.DuckDBPyConnection, tables: object) -> None:
        links = {"record_id": kept[1:], "representative_id": kept[:1] * (len(kept) - 1)}
        with_links = pa.table(links)
        connection.register("planted", with_links)
        real(connection, [_Table("planted")])  # type: ignore[list-item]

    real = placement.name_groups
    monkeypatch.setattr(placement, "name_groups", planted)
    near = (*SETTINGS, "shards.group_by=near_duplicates")
    common.run("code", inputs["code"], output, *near, stages=["shard"])
    assert len(set(splits(output).values())) == 1


def splits(output: Path) -> dict[str, str]:
    rows = pq.read_table(output / "tables" / "shards").to_pylist()
    return {row["record_id"]: row["split"] for row in rows}
