"""What changed between two curations: each kind alone, all of them against a plain comparison."""

import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from metadata.sample_output import write_table

from shardwright.errors import UserError
from shardwright.metadata.causes import differences
from shardwright.metadata.compare import Comparison, compare, next_version, write_json
from shardwright.metadata.curation import Table
from shardwright.metadata.differing import KINDS
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import Origin, write_manifest
from shardwright.metadata.schemas import record_id
from shardwright.pipelines.cli import app
from shardwright.service.comparison import shown_comparison

pytest_plugins = ("metadata.outputs",)

Row = dict[str, Any]
Copied = Callable[[str], Layout]


def rewrite(layout: Layout, table: str, change: Callable[[list[Row]], object]) -> None:
    """Commits a table anew, with changed rows."""
    manifest = layout.need(table, "")
    rows = Table(manifest).read().to_pylist()
    change(rows)
    write_table(layout, table, manifest.schema, [("a0", rows)], manifest.origin)


def remade(layout: Layout, table: str, **changes: Any) -> None:
    """Commits a table as another run would have made it."""
    manifest = layout.need(table, "")
    origin = replace(manifest.origin, **changes)
    write_manifest(manifest.folder, table, manifest.schema, origin, list(manifest.parts()))


def row_of(rows: list[Row], path: str) -> Row:
    return next(row for row in rows if row["record_id"] == record_id("sample", path))


def counts(comparison: Comparison) -> dict[str, int]:
    return {group.kind: group.inputs for group in comparison.groups}


KEPT = "pkg/file0020.py"
ID = record_id("sample", KEPT)


def gone(rows: list[Row]) -> None:
    rows.remove(row_of(rows, KEPT))


def set_to(**values: object) -> Callable[[list[Row]], object]:
    return lambda rows: row_of(rows, KEPT).update(values)


MOVED = "new/name.py"


def renamed(**values: object) -> Callable[[list[Row]], object]:
    """The record has another id, and what else is said."""
    return set_to(record_id=record_id("sample", MOVED), **values)


def more(path: str, **values: object) -> Callable[[list[Row]], object]:
    """Another record, like the first one."""
    return lambda rows: rows.append(
        rows[0] | {"record_id": record_id("sample", path), "path": path} | values
    )


def narrow(path: str, **values: object) -> Callable[[list[Row]], object]:
    return lambda rows: rows.append(rows[0] | {"record_id": record_id("sample", path)} | values)


REFUSED = {
    "source": "sample",
    "path": KEPT,
    "stage": "ingest",
    "reason": "too_large",
    "message": "",
}
DROPPED = {"keep": False, "stage": "filter", "reason": "too_long"}
Changes = list[tuple[str, Callable[[list[Row]], object]]]
UNKEPT: Changes = [("curated", gone), ("shards", gone)]
CASES: dict[str, tuple[Changes, dict[str, int], str]] = {
    "nothing": ([], {}, "same"),
    "score": ([("decisions", set_to(score=0.9))], {}, "packaging"),
    "dropped one more": (
        [("records", more("z.py")), ("decisions", narrow("z.py", **DROPPED))],
        {"added": 1},
        "packaging",
    ),
    "kept one more": (
        [
            ("records", more("z.py")),
            ("decisions", narrow("z.py", keep=True, stage="keep", reason="kept")),
            ("curated", more("z.py")),
            ("shards", narrow("z.py", split="train", shard=1, position=99)),
        ],
        {"added": 1},
        "additive",
    ),
    "refused one more": (
        [("rejects", lambda rows: rows.append(REFUSED | {"path": "z.py"}))],
        {"added": 1},
        "packaging",
    ),
    "kept one less": (
        [("records", gone), ("decisions", gone), *UNKEPT],
        {"removed": 1},
        "changed",
    ),
    "refused what was kept": (
        [
            ("records", gone),
            ("decisions", gone),
            *UNKEPT,
            ("rejects", lambda rows: rows.append(REFUSED)),
        ],
        {"decision": 1},
        "changed",
    ),
    "dropped what was kept": (
        [("decisions", set_to(**DROPPED)), *UNKEPT],
        {"decision": 1},
        "changed",
    ),
    "moved": (
        [(table, renamed(path=MOVED)) for table in ("records", "curated")]
        + [(table, renamed()) for table in ("decisions", "shards")],
        {"moved": 1},
        "changed",
    ),
    "moved, and dropped what was kept": (
        [
            ("records", renamed(path=MOVED)),
            ("decisions", lambda rows: (set_to(**DROPPED)(rows), renamed()(rows))),
            *UNKEPT,
        ],
        {"moved": 1, "decision": 1},
        "changed",
    ),
    "moved and another content": (
        [(table, renamed(path=MOVED, content_sha256="0" * 64)) for table in ("records", "curated")]
        + [(table, renamed()) for table in ("decisions", "shards")],
        {"added": 1, "removed": 1},
        "changed",
    ),
    "content": (
        [(table, set_to(content_sha256="0" * 64)) for table in ("records", "curated")],
        {"content": 1},
        "changed",
    ),
    "content that is masked now": (
        [("curated", set_to(content_sha256="0" * 64))],
        {"content": 1},
        "changed",
    ),
    "content of a dropped record": (
        [
            ("records", lambda rows: rows[-1].update(content_sha256="0" * 64)),
        ],
        {"content": 1},
        "packaging",
    ),
    "columns": (
        [("curated", set_to(license="ISC", attributes=[("note", "y")]))],
        {"columns": 1},
        "changed",
    ),
    "split": (
        [("curated", set_to(split="test")), ("shards", set_to(split="test", shard=9))],
        {"split": 1},
        "changed",
    ),
    "shard": ([("shards", set_to(shard=7))], {"shard": 1}, "packaging"),
    "position": ([("shards", set_to(position=70))], {"position": 1}, "packaging"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_change_alone(code: Layout, copied: Copied, name: str) -> None:
    changes, expected, step = CASES[name]
    other = copied("code")
    for table, change in changes:
        rewrite(other, table, change)
    found = compare(code.root, other.root)
    assert (counts(found), found.step) == (expected, step)
    back = compare(other.root, code.root)
    turned = {"added": "removed", "removed": "added"}
    assert counts(back) == {turned.get(kind, kind): count for kind, count in expected.items()}
    if step in ("same", "packaging", "changed") and name != "kept one less":
        assert back.step == step or (name.endswith("was kept") and back.step == "additive")
    if name == "moved":
        assert found.because == "1 kept records moved"
    if name == "columns":
        assert found.columns == {"attributes": 1, "license": 1}


def test_of_equal_contents_as_many_moved_as_there_are_on_both_sides(
    code: Layout, copied: Copied, tmp_path: Path
) -> None:
    """Three of one content become two others of it: two moved, and one went."""
    first, other = Layout(Path(shutil.copytree(code.root, tmp_path / "first"))), copied("code")
    for layout, names in ((first, ("x1", "x2", "x3")), (other, ("y1", "y2"))):
        for name in names:
            rewrite(layout, "records", more(name))
            rewrite(layout, "decisions", narrow(name, **DROPPED))
    found = compare(first.root, other.root)
    assert counts(found) == {"removed": 1, "moved": 2}
    assert found.step == "packaging"
    out = io.StringIO()
    write_json(first.root, other.root, out)
    changes = json.loads(out.getvalue())["changes"]
    pairs = {one["path"]: one["moved_from"] for one in changes if one["kinds"] == ["moved"]}
    # the first ids of each side for each other, the last one of the larger side alone
    was, now = (
        sorted((record_id("sample", n), n) for n in names)
        for names in (("x1", "x2", "x3"), ("y1", "y2"))
    )
    assert pairs == {
        name: {"record_id": before, "source": "sample", "path": path}
        for (_, name), (before, path) in zip(now, was, strict=False)
    }
    assert [one["path"] for one in changes if one["kinds"] == ["removed"]] == [was[-1][1]]


def test_another_column_is_additive_and_one_less_is_not(code: Layout, copied: Copied) -> None:
    other = copied("code")
    manifest = other.need("curated", "")
    rows = Table(manifest).read().to_pylist()
    keep = [name for name in manifest.schema.names if name != "license"]
    schema = manifest.schema.remove(manifest.schema.get_field_index("license"))
    rows = [{name: row[name] for name in keep} for row in rows]
    write_table(other, "curated", schema, [("a0", rows)], manifest.origin)
    found, back = compare(code.root, other.root), compare(other.root, code.root)
    assert (found.step, found.columns_removed, found.columns_added) == ("changed", ("license",), ())
    assert (back.step, back.columns_added, back.groups) == ("additive", ("license",), ())


def told(comparison: Comparison) -> dict[tuple[str, str], list[str]]:
    return {
        (one.before[0], one.after[2]): sorted(f"{c.stage} {c.kind} {c.name}" for c in one.causes)
        for one in comparison.transitions
    }


def test_a_decision_changed_for_what_its_stages_had_otherwise(code: Layout, copied: Copied) -> None:
    other = copied("code")
    bounds = [{"name": "max_lines", "most": 9.0}]
    rewrite(other, "decisions", set_to(**DROPPED))
    rewrite(other, "decisions", lambda rows: rows[2].update(keep=False, stage="prune", reason="x"))
    remade(other, "decisions", parameters={"fraction": 0.3, "filters": bounds})
    remade(other, "scores", version="2")
    remade(other, "clusters", inputs={"embeddings": "0" * 64})
    remade(other, "duplicates", parameters={"exact": False})
    found = compare(code.root, other.root)
    # a filter reads no scores and no duplicates, and its bounds stand with what prune wrote
    assert told(found) == {
        ("kept", "too_long"): ["prune parameter filters.max_lines.most"],
        ("kept", "x"): [
            "duplicates parameter exact",
            "prune parameter filters.max_lines.most",
            "prune parameter fraction",
            "score version ",
        ],
    }
    # in the order of the stages; a table that was read is told, and is no cause
    assert [(one.stage, one.kind, one.name, one.a, one.b) for one in found.differences] == [
        ("duplicates", "parameter", "exact", True, False),
        ("cluster", "input", "embeddings", found.differences[1].a, "0" * 64),
        ("cluster", "input", "centroids", found.differences[2].a, None),
        ("score", "version", "", "1", "2"),
        ("prune", "parameter", "fraction", None, 0.3),
        ("prune", "parameter", "filters.max_lines.most", None, 9.0),
    ]


def test_other_inputs_are_a_cause(code: Layout, copied: Copied) -> None:
    other = copied("code")
    rewrite(other, "records", set_to(content_sha256="0" * 64))
    rewrite(other, "decisions", set_to(keep=False, stage="duplicates", reason="near_duplicate"))
    (one,) = compare(code.root, other.root).transitions
    assert one.before == ("kept", "keep", "kept")
    assert one.after == ("dropped", "duplicates", "near_duplicate")
    assert (one.inputs, one.example) == (1, KEPT)
    assert [(c.stage, c.kind, c.b) for c in one.causes] == [("ingest", "data", {"content": 1})]


def test_what_only_one_of_them_wrote(code: Layout, outputs: dict[str, Layout]) -> None:
    found = compare(outputs["plain"].root, code.root).differences
    assert ("embed", "output", "embeddings", None, "written") in [
        (one.stage, one.kind, one.name, one.a, one.b) for one in found
    ]
    assert ("index", "output", "indexes/") in [(one.stage, one.kind, one.name) for one in found]


def plainly(a: Layout, b: Layout) -> dict[str, set[str]]:
    """The same, in dicts and loops."""
    sides = []
    for layout in (a, b):
        inputs: dict[str, Row] = {}
        for name in ("rejects", "records", "decisions", "curated", "shards"):
            for row in Table(layout.need(name, "")).read().to_pylist():
                one = row.get("record_id") or record_id(row["source"], row["path"])
                inputs.setdefault(one, {})[name] = row
        sides.append(inputs)
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for one in sides[0].keys() | sides[1].keys():
        had, has = sides[0].get(one), sides[1].get(one)
        if had is None or has is None:
            found["added" if had is None else "removed"].add(one)
            continue
        for table in ("records", "curated"):
            if table in had and table in has:
                hashes = {had[table]["content_sha256"], has[table]["content_sha256"]}
                if len(hashes) > 1:
                    found["content"].add(one)
        decisions = []
        for side in (had, has):
            row = side.get("decisions") or side["rejects"]
            decisions.append((row.get("keep"), row["stage"], row["reason"]))
        if decisions[0] != decisions[1]:
            found["decision"].add(one)
        if "shards" in had and "shards" in has:
            for kind in ("split", "shard", "position"):
                if had["shards"][kind] != has["shards"][kind]:
                    found[kind].add(one)
                    break
        if "curated" in had and "curated" in has:
            for name in ("license", "language"):
                if had["curated"][name] != has["curated"][name]:
                    found["columns"].add(one)
    return {kind: ids for kind, ids in found.items() if ids}


@pytest.mark.parametrize("seed", range(4))
def test_many_changes_at_once_against_loops(code: Layout, copied: Copied, seed: int) -> None:
    other = copied("code")
    draw = random.Random(seed)

    def shuffle(table: str) -> Callable[[list[Row]], None]:
        def change(rows: list[Row]) -> None:
            for row in list(rows):
                what = draw.random()
                if what < 0.15:
                    rows.remove(row)
                elif what < 0.3:
                    row.update(content_sha256="1" * 64) if "content_sha256" in row else None
                elif what < 0.5 and table == "shards":
                    row.update({draw.choice(["shard", "position"]): draw.randrange(3)})
                elif what < 0.5 and table == "curated":
                    row.update(license=draw.choice(["MIT", None]), language="c++")
                elif what < 0.5 and table == "decisions":
                    row.update(DROPPED)

        return change

    for table in ("curated", "shards", "decisions"):
        rewrite(other, table, shuffle(table))
    decided = {row["record_id"] for row in Table(other.need("decisions", "")).read().to_pylist()}

    def only_decided(rows: list[Row]) -> None:
        rows[:] = [row for row in rows if row["record_id"] in decided]

    for table in ("records", "curated", "shards"):
        rewrite(other, table, only_decided)
    expected = plainly(code, other)
    found = compare(code.root, other.root)
    assert counts(found) == {kind: len(ids) for kind, ids in expected.items()}
    out = io.StringIO()
    write_json(code.root, other.root, out)
    written = json.loads(out.getvalue())
    for kind, ids in expected.items():
        assert {one["record_id"] for one in written["changes"] if kind in one["kinds"]} == ids
    assert written["step"] == found.step == "changed"
    assert len(written["changes"]) == len(set().union(*expected.values()))
    listed = [one["record_id"] for one in written["changes"]]
    assert listed == sorted(listed)


def test_json_tells_both_states(code: Layout, copied: Copied) -> None:
    other = copied("code")
    rewrite(other, "shards", set_to(position=70))
    rewrite(other, "rejects", lambda rows: rows.pop(0))
    out = io.StringIO()
    write_json(code.root, other.root, out)
    first, second = sorted(json.loads(out.getvalue())["changes"], key=lambda one: one["path"])
    assert first["path"] == "bad\\xff.py"
    assert first["b"] is None
    assert first["a"] == {"decision": "refused", "stage": "ingest", "reason": "not_utf8"}
    assert second["record_id"] == ID
    assert second["kinds"] == ["position"]
    assert second["b"] == second["a"] | {"position": 70}
    assert second["a"]["decision"] == "kept"


def test_json_of_equal_curations(code: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    app(["compare", str(code.root), str(code.root), "--format", "json"], standalone_mode=False)
    written = json.loads(capsys.readouterr().out)
    assert (written["changes"], written["groups"], written["step"]) == ([], [], "same")


def test_table_says_it_all(
    code: Layout, copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copied("code")
    rewrite(other, "decisions", set_to(keep=False, stage="prune", reason="[b]small[/b]"))
    for table in ("curated", "shards"):
        rewrite(other, table, gone)
    remade(other, "decisions", parameters={"fraction": 0.3})
    app(["compare", str(code.root), str(other.root)], standalone_mode=False)
    text = " ".join(capsys.readouterr().out.split())
    for part in ("other decision 1", "[b]small[/b]", "fraction", "0.3", "changed (MAJOR, version"):
        assert part in text
    assert [*shown_comparison(compare(code.root, code.root))]


def test_wrong_folders_and_formats(code: Layout, copied: Copied, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        compare(code.root, tmp_path / "none")
    with pytest.raises(UserError, match="no such format"):
        app(["compare", str(code.root), str(code.root), "--format", "x"], standalone_mode=False)
    other = copied("code")
    shutil.rmtree(other.table("shards"))
    with pytest.raises(UserError, match="run stage 'shard' first"):
        compare(code.root, other.root)


@pytest.mark.parametrize(
    ("old", "step", "new"),
    [
        ("1.2.3", "same", "1.2.3"),
        ("1.2.3", "packaging", "1.2.4"),
        ("1.2.3", "additive", "1.3.0"),
        ("1.2.3", "changed", "2.0.0"),
        ("1.0.0+sha256.0a1b", "packaging", "1.0.1"),
        ("0.9", "additive", "0.10.0"),
        ("2.0.0-rc.1", "changed", "3.0.0"),
    ],
)
def test_next_version(old: str, step: str, new: str) -> None:
    assert next_version(old, step) == new


def test_next_version_of_none() -> None:
    with pytest.raises(UserError, match="no semantic version"):
        next_version("2024-01-05x", "changed")
    with pytest.raises(UserError, match="no such step"):
        next_version("1.0.0", "major")


def test_null_that_became_a_section_is_told_by_its_values() -> None:
    was = Origin("duplicates", "1", {"near": None, "keep": None})
    now = replace(was, parameters={"near": {"threshold": 0.7}})
    found = differences({"duplicates": was}, {"duplicates": now})
    assert [(one.name, one.a, one.b) for one in found] == [
        ("keep", None, None),
        ("near.threshold", None, 0.7),
    ]
