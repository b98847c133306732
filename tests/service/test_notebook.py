"""A curation shows itself, and hostile records stay in their frame."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
from service.hostile import HOSTILE

import shardwright
from shardwright.errors import UserError

pytest_plugins = ("service.served",)


def framed(text: str) -> str:
    found = re.fullmatch(
        r'<iframe sandbox srcdoc="([^"]*)" style="[^"]*" title="[^"]*"></iframe>', text
    )
    assert found is not None
    return html.unescape(found[1])


def test_a_curation(code_folder: Path) -> None:
    curation = shardwright.open(code_folder)
    funnel = curation.funnel().to_pydict()
    assert list(funnel) == ["stage", "reason", "records"]
    assert sum(funnel["records"]) == len(curation.tables["records"])
    page = framed(curation._repr_html_())
    for reason in funnel["reason"]:
        assert reason in page
    assert "<script" not in page


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_records(code_folder: Path, path: str) -> None:
    curation = shardwright.open(code_folder)
    pattern = path.split("\n")[0].replace("\u202e", "%").replace("/", "%")
    rows = curation.sql(f"SELECT record_id FROM records WHERE path LIKE '{pattern}%'")
    record_id = rows["record_id"][0].as_py()
    shown = curation.show(record_id)
    assert f"record_id: {record_id}" in repr(shown)
    page = framed(shown._repr_html_())
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert len(page) < 100_000


def test_no_such_record(code_folder: Path) -> None:
    with pytest.raises(UserError, match="no record"):
        shardwright.open(code_folder).show("none")


def test_opening_stays_light() -> None:
    code = "import sys, shardwright; shardwright.open; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("matplotlib", "torch", "apache_beam", "fastapi", "jinja2"):
        assert f"'{heavy}'" not in done.stdout
