"""Every query of docs/queries.md runs and finds something."""

import re
from pathlib import Path

import pytest

from shardwright.metadata.layout import Layout
from shardwright.metadata.query import query

pytest_plugins = ("metadata.outputs",)

TEXT = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()
QUERIES = dict(re.findall(r"^## (.+?)\n.*?```sql\n(.*?)```", TEXT, flags=re.M | re.S))


def test_all_are_found() -> None:
    assert len(QUERIES) == TEXT.count("```sql") == 12


@pytest.mark.parametrize("title", QUERIES)
def test_query_runs_and_answers(code: Layout, title: str) -> None:
    assert query(code, QUERIES[title]).num_rows > 0


def test_answers_are_right(code: Layout) -> None:
    def rows(title: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = query(code, QUERIES[title]).to_pylist()
        return found

    assert sum(int(str(row["records"])) for row in rows("What became of every input?")) == 32
    like = rows("What is most like this record?")
    assert like[0] == {"path": "pkg/file0012.py", "cosine": 1.0}
    assert rows("How close to the threshold was it?")[0]["path"] == "pkg/file0011.py"
    assert rows("Which records went, and which stayed in their place?") == [
        {"dropped": "pkg/file0029.py", "stays": "pkg/file0028.py", "reason": "exact_duplicate"}
    ]
    shares = rows("Did the mix change?")
    assert sum(float(str(row["percent_after"])) for row in shares) == pytest.approx(100, abs=0.2)
