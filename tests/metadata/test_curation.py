"""``shardwright.open``, and an import that costs nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import shardwright
from shardwright.errors import DataError, UserError
from shardwright.metadata.layout import Layout

pytest_plugins = ("metadata.outputs",)


def test_tables(code: Layout) -> None:
    curation = shardwright.open(code.root)
    assert list(curation.tables)[:3] == ["records", "rejects", "lookup"]
    records = curation.tables["records"]
    assert len(records) == records.read(["path"]).num_rows == 30
    assert sum(batch.num_rows for batch in records.batches(["record_id"])) == 30
    assert records.dataset().count_rows() == 30
    assert "embeddings" in curation.tables
    with pytest.raises(KeyError, match="no such table here; there are records"):
        curation.tables["../records"]


def test_rows_in_order(code: Layout) -> None:
    table = shardwright.open(str(code.root)).tables["records"]
    paths = [p for batch in table.batches(["path"]) for p in batch.column("path").to_pylist()]
    assert paths == table.read(["path"]).column("path").to_pylist()


def test_empty_table(outputs: dict[str, Layout]) -> None:
    table = shardwright.open(outputs["nothing kept"].root).tables["curated"]
    assert table.read().num_rows == 0
    assert table.read().schema.equals(table.schema)


def test_sql_and_croissant(copied: Callable[[str], Layout]) -> None:
    layout = copied("image")
    curation = shardwright.open(layout.root)
    assert curation.sql("SELECT count(*) AS n FROM curated").to_pylist() == [{"n": 27}]
    assert curation.croissant["name"] == "sample"
    layout.croissant.unlink()
    with pytest.raises(DataError, match="not complete"):
        _ = curation.croissant


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        shardwright.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="no committed table"):
        shardwright.open(tmp_path)


@pytest.mark.parametrize("module", ["shardwright", "shardwright.kernels"])
def test_import_is_light(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print([m for m in ('apache_beam', 'torch', 'pyarrow', 'duckdb') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_packages_come_when_asked_for() -> None:
    code = (
        "import shardwright, sys; shardwright.kernels.nearest; shardwright.quality; "
        "print('apache_beam' in sys.modules); shardwright.pipelines; print(dir(shardwright))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[0] == "False"
    assert "'open'" in found.stdout
    with pytest.raises(AttributeError, match="nonsense"):
        _ = shardwright.nonsense
