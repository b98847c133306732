"""Scores that packages add: what they are handed, what they may give, and how they are found."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pretended import pretend

from shardwright.embeddings import rows
from shardwright.errors import UserError
from shardwright.metadata.catalog import connect
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.curate import curate
from shardwright.pipelines.recipe import Recipe, load_recipe
from shardwright.quality import filters
from shardwright.quality.pruning import LiveRecords, Method
from shardwright.quality.pruning.added import ENTRY_POINTS, added_score, find_method

BOTH = frozenset({"code", "image"})
METHOD = Method("acme_sum", BOTH, frozenset({"vectors"}), ("acme_low",), "", "Prunes by the sum.")


class Sum:
    """The sum of everything that a score is handed."""

    method = METHOD

    def score(self, records):
        assert not records.vectors.flags.writeable
        narrow = records.lengths + records.clusters + records.distances
        return narrow + records.vectors.sum(axis=1, dtype=np.float64)


class Given:
    """Gives what it was made with."""

    def __init__(self, values=None, **change):
        self.method = replace(METHOD, **change)
        self._values = values

    def score(self, records):
        return self._values


SUM = Sum()
SHORT, NARROW = Given(np.zeros(2)), Given(np.zeros(3, np.float32))
NAN = Given(np.array([0, np.nan, 1]))
OTHER_NAME, TWO_REASONS = Given(name="acme_total"), Given(reasons=("one", "two"))
QUOTED_REASON, NO_SCORE = Given(reasons=("it's",)), METHOD
PICTURES = Given(modalities=frozenset({"image"}))


@pytest.fixture
def packages(monkeypatch):
    """Installs packages: name of an entry point, what it loads, and of which package."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Sum.__module__])

    def install(*points, group=ENTRY_POINTS):
        pretend(monkeypatch, __name__, group, points)

    return install


def recipe(folder: Path, *overrides: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text("{name: n, modality: code, source: {kind: files, uri: x}}")
    return load_recipe(path, overrides, str(folder / "in"))


def live(n: int = 3) -> LiveRecords:
    ids = pa.array([f"{i:032x}" for i in range(n)])
    zeros = np.zeros(n, np.int64)
    vectors = np.zeros((n, 2), np.float32)
    return LiveRecords("code", ids, zeros, zeros.astype(np.int32), np.zeros(n), lambda: vectors)


@pytest.mark.parametrize("held", [1 << 30, 0])
def test_a_score_sees_the_live_records_in_step(packages, tmp_path: Path, monkeypatch, held):
    packages(("acme_sum", "SUM", "acme 1.0"), ("acme_broken", "NOTHING", "acme 1.0"))
    monkeypatch.setattr(rows, "share", lambda: held)
    (tmp_path / "in").mkdir()
    for i in range(40):
        text = f"value_{i * i} = {i % 7}\n" * (1 + i % 9)
        (tmp_path / "in" / f"m{i:02d}.py").write_text(text + "x" * (200 if i % 5 == 0 else 0))
    settings = (
        *("limits.part_bytes=1KB", "index=null", "duplicates.exact=false", "clusters.k=3"),
        *("filters=[{name: max_line_length, most: 100}]", "prune.fraction=0.25"),
        *("prune.method=acme_sum", "prune.scores=[length]", "shards.size=10KB"),
    )
    output = tmp_path / "out"
    curate(recipe(tmp_path, *settings), output, beam_arguments=("--runner=FnApiRunner",))
    assert verify(Layout(output)) == []
    with connect(Layout(output)) as connection:
        parts = connection.sql("SELECT count(DISTINCT part) FROM lookup").fetchall()[0][0]
        found = connection.sql(
            "SELECT * FROM embeddings JOIN records USING (record_id) "
            "JOIN clusters USING (record_id) JOIN scores USING (record_id) "
            "JOIN decisions USING (record_id) ORDER BY record_id"
        ).fetchnumpy()
    assert parts > 2
    assert len(found["record_id"]) == 32
    vectors = np.stack(list(found["vector"])).sum(axis=1, dtype=np.float64)
    narrow = found["bytes"] + found["cluster"] + found["distance"]
    np.testing.assert_allclose(found["acme_sum"], narrow + vectors, rtol=1e-12)
    gone = np.lexsort((found["record_id"], found["acme_sum"]))[:8]
    assert set(np.flatnonzero(~found["keep"])) == set(gone)
    assert set(found["reason"][gone]) == {"acme_low"}
    assert list(output.glob(".staging/score-added")) == []


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("acme_sum", "OTHER_NAME", "has a method named 'acme_total': give both one name"),
        ("acme_sum", "TWO_REASONS", r"gives the reasons \['one', 'two'\]: a score has one"),
        ("acme_sum", "QUOTED_REASON", "gives the reasons"),
        ("acme_sum", "NO_SCORE", "has no Method as its method, or no function score"),
        ("acme_sum", "NOTHING", r"'acme_sum' .*\(acme 1.0: .*cannot be imported \(AttributeErr"),
        ("select", "SUM", "becomes a column: name it in lower case"),
        ("record_id", "SUM", "becomes a column"),
        ("acme_sum; x", "SUM", "becomes a column"),
        ("scip", "SUM", "'scip' of .* has a name that is Shardwright's own"),
        ("acme_total", "SUM", "named 'acme_sum'"),
    ],
)
def test_what_is_no_score(packages, tmp_path: Path, name, what, message):
    packages((name, what, "acme 1.0"))
    with pytest.raises(UserError, match=message):
        find_method(name)
    for key in (f"prune.method={name}", f"prune.scores=[{name}]"):
        with pytest.raises(UserError, match=f"prune.{key[6:12]}.*{message}"):
            recipe(tmp_path, key)


def test_two_packages_cannot_share_a_name(packages):
    packages(("acme_sum", "SUM", "acme 1.0"), ("acme_sum", "NAN", "other 2.0"))
    with pytest.raises(UserError, match=r"\(acme 1.0: .*\) and .*\(other 2.0: .*\) have one name"):
        find_method("acme_sum")
    with pytest.raises(UserError, match=r"no such method as 'nothing'; there are scip, .*acme_sum"):
        find_method("nothing")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("SHORT", r"returned float64 \[2\] for 3 records: a score is float64 \[3\]"),
        ("NARROW", r"returned float32 \[3\] for 3 records"),
        ("NAN", r"scored record 0{31}1 nan, and 1 in all so: a score is finite"),
    ],
)
def test_what_no_score_may_give(packages, what, message):
    packages(("acme_sum", what, "acme 1.0"))
    with pytest.raises(UserError, match=message):
        added_score("acme_sum", live())


def test_named_scores_are_added_to_those_that_ship(packages, tmp_path: Path):
    packages(("acme_sum", "SUM", "acme 1.0"))
    every = recipe(tmp_path).prune
    both = recipe(tmp_path, "prune.scores=[acme_sum, length]").prune
    decides = recipe(tmp_path, "prune.method=acme_sum").prune
    assert "acme_sum" not in every.methods("code")
    assert both.methods("code") == ("scip", "length", "acme_sum")
    assert decides.methods("code") == (*every.methods("code"), "acme_sum")
    assert "packages" not in every.parameters()
    assert both.parameters()["packages"] == {"acme_sum": "acme 1.0"}
    packages(("acme_sum", "SUM", "acme 1.1"))
    assert both.parameters()["packages"] == {"acme_sum": "acme 1.1"}
    packages(("acme_sum", "PICTURES", "acme 1.1"))
    assert both.methods("code") == ("scip", "length")


def test_filters_of_one_name_are_both_named(packages):
    packages(
        *(("one", "ADDED", "acme 1.0"), ("two", "ADDED", "other 2.0")),
        group=filters.ENTRY_POINTS,
    )
    filters._added.cache_clear()
    with pytest.raises(UserError, match=r"'two'.*\(other 2.0: .*'own'.*'one'.*\(acme 1.0: "):
        filters.filters("code")
    packages(("one", "ADDED", "acme 1.0"), group=filters.ENTRY_POINTS)
    assert filters.filter_packages("code", ["own", "secrets"]) == {"own": "acme 1.0"}
    filters._added.cache_clear()


class Added:
    filter = filters.Filter("own", "code", "number", None, None, "None.", "own")
    measure = None


ADDED = Added()
