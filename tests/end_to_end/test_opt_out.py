"""Records taken out by a list: only the shards that held them change, and the ledger says so."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardwright.errors import UserError
from shardwright.metadata.explain import explain
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.layout import Layout
from shardwright.metadata.verify import verify
from shardwright.pipelines.opt_out import name_opted_out, read_opt_outs
from shardwright.pipelines.run import Run
from shardwright.pipelines.stages import shard
from shardwright.shards.order import assign_split, id_keys
from shardwright.shards.readers import open_shard

_SECRET = "AKIA" + "Z7QJ4M2N5P8R1T3V"
SETTINGS = (
    *("source.kind=jsonl", "source.include=['**/*.jsonl']"),
    *("shards.split={train: 0.7, validation: 0.3}", "shards.size=12KB"),
    *("limits.part_bytes=20KB", "limits.reject_threshold=0.5", "index=null", "clusters.k=4"),
    "filters=[{name: secrets, action: mask}, {name: mean_line_length, most: 60}]",
    "duplicates.near=null",
)
LAST = ("prune", "shard", "describe")  # all that a list has a part in
UNDESCRIBED = "croissant.json: missing, so the curation is not complete; run it to its end"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real files of ten repositories, as rows of tables; copies and a secret among them."""
    folder = tmp_path_factory.mktemp("rows")
    texts = [p.read_text() for p in common.source_files(400) if 300 < p.stat().st_size < 4000][:48]
    texts[7] += f'\nkey = "{_SECRET}"\n'
    texts += [*texts[:3], "x = 1  # " + "long " * 400 + "\n"]
    for first in range(0, len(texts), 10):
        rows = [
            {"content": text, "repository": f"owner/{(first + i) % 10}", "name": f"{first + i}"}
            for i, text in enumerate(texts[first : first + 10])
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"rows{first:03d}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The curation that nothing was taken out of."""
    output = tmp_path_factory.mktemp("whole") / "out"
    common.assert_accounted(output, common.run("code", source, output, *SETTINGS))
    assert len(read_file_list(output / "shards").shards) > 6  # type: ignore[union-attr]
    return output


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


@pytest.fixture(scope="module")
def lessened(
    source: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The curation without one record, which stood in a shard with the one that is masked; its id.

    Nothing describes it yet.
    """
    output = tmp_path_factory.mktemp("lessened") / "out"
    shutil.copytree(whole, output)
    ids = next(ids for ids in samples(whole).values() if masked(whole) in ids)
    gone = next(record for record in ids if record != masked(whole))
    take_out(source, output, "record_id", [gone])
    return output, gone


def masked(output: Path) -> str:
    """The record with the secret."""
    found = rows(output, f"SELECT record_id FROM records WHERE content LIKE '%{_SECRET}%'")
    return str(found[0][0])


def rows(output: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for table in ("records", "decisions", "curated", "shards"):
            connection.execute(
                f"CREATE VIEW {table} AS FROM '{output / 'tables' / table}/*.parquet'"
            )
        return connection.execute(query).fetchall()


def take_out(
    source: Path,
    output: Path,
    column: str,
    values: list[Any],
    *more: str,
    describe: bool = False,
    **options: Any,
) -> Any:
    """Curates once more with a list, and describes the outcome where that is looked at."""
    path = output.parent / "list.csv"
    path.write_text("\n".join([f"ticket,{column}", *(f'1,"{value}"' for value in values)]))
    stages = LAST if describe else LAST[:2]
    given = (*SETTINGS, f"opt_out={path}", *more)
    summary = common.run("code", source, output, *given, stages=stages, **options)
    common.assert_accounted(output, summary)
    faults = verify(Layout(output))
    assert faults in ([], [UNDESCRIBED]) if not describe else faults == []
    return summary


def files(output: Path) -> dict[str, tuple[str, int, int]]:
    """(sha256, time of writing, inode) of each shard file and part of curated."""
    found = {}
    for folder, pattern in (("shards", "*/*.mds"), ("tables/curated", "part-*")):
        for path in (output / folder).glob(pattern):
            status = path.stat()
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            name = path.relative_to(output).as_posix()
            found[name] = (sha256, status.st_mtime_ns, status.st_ino)
    return found


def samples(output: Path) -> dict[str, list[str]]:
    """Ids of each shard file, in order, as its reader gives them."""
    found = {}
    for file in read_file_list(output / "shards").shards:  # type: ignore[union-attr]
        reader = open_shard(output / "shards" / file.path, file.format)
        found[file.path] = [row["record_id"] for row in reader.read(np.arange(len(reader)))]
    return found


def test_only_the_shards_that_hold_them_change(source: Path, output: Path) -> None:
    before, ids = files(output), samples(output)
    version = common.croissant_without_times(output)["version"]
    decided = dict(rows(output, "SELECT record_id, (keep, stage, reason, score) FROM decisions"))
    names = list(ids)
    first = next(name for name in names if len(ids[name]) > 3)
    last = next(name for name in reversed(names) if len(ids[name]) > 1)
    gone = {ids[first][0], ids[first][2], ids[last][-1]}
    paths = dict(rows(output, "SELECT record_id, path FROM curated"))
    summary = take_out(source, output, "record_id", sorted(gone), describe=True)
    assert summary.dropped["opt_out"] == 3
    assert {name: [i for i in now if i not in gone] for name, now in ids.items()} == samples(output)
    after = files(output)
    touched = {f"shards/{first}", f"shards/{last}"}
    for name in (name for name in before if name.startswith("shards/")):
        assert (after[name] == before[name]) == (name not in touched), name
    parts = [name for name in before if name.startswith("tables/")]
    assert any(after.get(name) == before[name] for name in parts), "parts without any stay"
    stages = common.stage_metrics(output)
    assert 0 < stages["shard"]["reused"] < stages["shard"]["parts"]
    for now in rows(output, "SELECT record_id, keep, stage, reason, score FROM decisions"):
        want = (False, "prune", "opt_out", None) if now[0] in gone else decided[now[0]]
        assert now[1:] == tuple(want)
    for record in gone:
        life = explain(Layout(output), record)
        assert (life["decision"], life["reason"]) == ("dropped", "opt_out")
        assert "shard" not in life
        assert paths[record] not in samples_of_report(output)
    croissant = common.croissant_without_times(output)
    assert croissant["version"] != version
    told = {a["name"]: json.loads(a["shardwright:parameters"]) for a in lineage(croissant)}
    assert told["prune"]["decisions"]["opt_out"]["values"] == 3
    assert told["shard"]["shards files"]["taken_out"] == 3


def lineage(croissant: dict[str, Any]) -> list[dict[str, Any]]:
    return list(croissant["prov:wasGeneratedBy"])


def test_a_list_that_grows_and_shrinks(
    source: Path, lessened: tuple[Path, str], whole: Path, tmp_path: Path
) -> None:
    output, gone = Path(shutil.copytree(lessened[0], tmp_path / "out")), lessened[1]
    one, ids, before = common.contents(output), samples(output), files(output)
    name, lost = next((name, of) for name, of in ids.items() if name.startswith("train/"))
    beside = next(of for other, of in ids.items() if other != name and len(of) > 2)
    more = [gone, *lost, *beside[1:3]]
    take_out(source, output, "record_id", more)
    two, after = common.contents(output), files(output)
    left = {other: [i for i in of if i not in more] for other, of in ids.items()}
    assert left.pop(name) == []
    assert samples(output) == left, "a shard that loses all has no file, and its number stays free"
    stay = [other for other in left if left[other] == ids[other]]
    assert len(stay) == len(ids) - 2
    assert all(after[f"shards/{other}"] == before[f"shards/{other}"] for other in stay)
    take_out(source, output, "record_id", more, force=True)
    assert common.contents(output) == two, "what was left is what would have been written"
    take_out(source, output, "record_id", [gone])
    assert common.contents(output) == one
    common.run("code", source, output, *SETTINGS)  # all stages: none but the last have changed
    assert common.contents(output) == common.contents(whole)
    assert common.croissant_without_times(output) == common.croissant_without_times(whole)


def test_names_of_each_kind(source: Path, output: Path, tmp_path: Path) -> None:
    """A list of each kind in one run; what they name is apart."""
    records = rows(output, "SELECT record_id, path, repository, content_sha256 FROM records")
    kept = {i for (i,) in rows(output, "SELECT record_id FROM decisions WHERE keep")}
    dropped = dict(rows(output, "SELECT record_id, stage FROM decisions WHERE NOT keep"))
    of_all: dict[str, str] = {}
    lists = []
    for place, column in enumerate(("path", "repository", "content_sha256"), 1):
        value, named = next(
            (row[place], named)
            for row in sorted(records)
            if row[0] in kept
            and (named := {other[0] for other in records if other[place] == row[place]})
            and named.isdisjoint(of_all)
            and (len(named) > 1) == (column != "path")  # of contents one with a dropped copy
        )
        of_all |= dict.fromkeys(named, column)
        lists.append(tmp_path / f"{column}.csv")
        lists[-1].write_text(f'ticket,{column}\n1,"{value}"\n2,"{value}"\n')
    given = (*SETTINGS, f"opt_out=[{', '.join(map(str, lists))}]")
    summary = common.run("code", source, output, *given, stages=LAST[:2])
    common.assert_accounted(output, summary)
    assert verify(Layout(output)) == [UNDESCRIBED]
    assert summary.dropped["opt_out"] == len(of_all)
    opted = dict(rows(output, "SELECT record_id, stage FROM decisions WHERE reason = 'opt_out'"))
    assert opted == {record: dropped.get(record, "prune") for record in of_all}
    assert {i for (i,) in rows(output, "SELECT record_id FROM curated")} == kept - set(of_all)


def test_what_an_earlier_stage_dropped_keeps_its_stage(source: Path, output: Path) -> None:
    stages = {"duplicates": "exact_duplicate", "filter": "mean_line_length", "prune": "%"}
    gone = {
        stage: rows(
            output,
            "SELECT record_id, score, threshold FROM decisions WHERE NOT keep "
            f"AND stage = '{stage}' AND reason LIKE '{reason}' ORDER BY ALL",
        )[0]
        for stage, reason in stages.items()
    }
    before = files(output)
    named = [row[0] for row in gone.values()]
    summary = take_out(source, output, "record_id", named, describe=True)
    assert summary.dropped["opt_out"] == 3
    assert files(output) == before, "none of them was in a shard"
    for stage, row in gone.items():
        found = rows(
            output,
            "SELECT stage, reason, record_id, score, threshold FROM decisions "
            f"WHERE record_id = '{row[0]}'",
        )
        assert found == [(stage, "opt_out", *row)]
    assert "opt_out" not in samples_of_report(output)


def samples_of_report(output: Path) -> str:
    """The report from its samples on: it shows contents there and nowhere else."""
    text = (output / "report" / "index.html").read_text()
    return text[text.index("<h2>Samples</h2>") : text.index("<h2>Stages</h2>")]


def test_workers_formats_and_masks(
    source: Path, tmp_path: Path, whole: Path, lessened: tuple[Path, str]
) -> None:
    gone, hidden = lessened[1], masked(whole)
    two = ("--runner=FnApiRunner", "--direct_running_mode=multi_threading")
    outputs = {"one": lessened[0]}
    for name, more, beam in (
        ("two", (), (*two, "--direct_num_workers=2")),
        ("parquet", ("shards.format=parquet",), ()),
    ):
        output = outputs[name] = tmp_path / name / "out"
        shutil.copytree(whole, output)
        if more:
            common.run("code", source, output, *SETTINGS, *more, stages=LAST[:2])
        take_out(source, output, "record_id", [gone], *more, beam=beam)
    for output in outputs.values():
        left = {i for of_shard in samples(output).values() for i in of_shard}
        assert hidden in left
        assert gone not in left
        curated = pq.read_table(output / "tables" / "curated").column("content").to_pylist()
        assert not any(_SECRET in text for text in curated)
    assert common.contents(outputs["one"]) == common.contents(outputs["two"])


@pytest.mark.parametrize("step", ["_commit_shards", "_commit_curated", "forget_places"])
def test_a_run_that_is_cut_off(
    source: Path, output: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, ids = files(output), samples(output)
    gone = ids[next(iter(ids))][:1]
    remembered = output / ".staging" / "placed"

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shard, step, cut)
        with pytest.raises(KeyboardInterrupt):
            take_out(source, output, "record_id", gone)
    assert remembered.exists()
    take_out(source, output, "record_id", gone)
    assert not remembered.exists(), "it names what was taken out"
    after = files(output)
    changed = [n for n in before if n.startswith("shards/") and after[n] != before[n]]
    assert changed == [f"shards/{next(iter(ids))}"]
    assert gone[0] not in dict(rows(output, "SELECT record_id, split FROM curated"))


def test_a_missing_shard_file_is_written_again(source: Path, output: Path) -> None:
    before = files(output)
    name = next(name for name in before if name.startswith("shards/"))
    (output / name).unlink()
    common.run("code", source, output, *SETTINGS, stages=LAST[:2])
    after = files(output)
    assert {n for n in before if before[n][0] != after[n][0]} == set()
    shards = {n for n in before if n.startswith("shards/")}
    assert {n for n in shards if before[n] != after[n]} == {name}
    assert verify(Layout(output)) == [UNDESCRIBED]


def words(chain: int, first: int, count: int) -> str:
    return " ".join(f"word{chain}_{number}" for number in range(first, first + count))


def test_groups_keep_their_split(tmp_path: Path) -> None:
    """The first kept record of a group names its split, taken out or not."""
    folder, output = tmp_path / "chains", tmp_path / "out"
    folder.mkdir()
    for chain in range(4):  # a ~ b ~ c, and a and c apart: b goes, c is kept beside a
        for name, first, count in (("a", 0, 300), ("b", 50, 310), ("c", 100, 320)):
            (folder / f"{chain}{name}.py").write_text(words(chain, first, count))
    settings = (
        *("filters=[]", "embedding=null", "index=null", "prune=null"),
        *("duplicates.near={threshold: 0.6}", "shards.group_by=near_duplicates"),
        *("shards.split={train: 0.5, validation: 0.5}", "shards.size=12KB"),
    )
    common.run("code", folder, output, *settings, stages=("ingest", "duplicates", *LAST[:2]))
    before, split = samples(output), dict(rows(output, "SELECT record_id, split FROM shards"))
    ids = {path: i for i, path in rows(output, "SELECT record_id, path FROM records")}
    assert set(split) == {i for path, i in ids.items() if path[1] != "b"}
    pairs = [sorted((ids[f"{chain}a.py"], ids[f"{chain}c.py"])) for chain in range(4)]
    assert all(split[a] == split[c] for a, c in pairs)
    shares = {"train": 0.5, "validation": 0.5}
    alone = [assign_split(id_keys(pa.array(pair)), shares, 0).tolist() for pair in pairs]
    gone = [pair[0] for pair, (one, other) in zip(pairs, alone, strict=True) if one != other]
    assert gone, "the other one, first now, would go to another split"
    listed = tmp_path / "list.csv"
    listed.write_text("record_id\n" + "\n".join(gone))
    common.run("code", folder, output, *settings, f"opt_out={listed}", stages=LAST[:2])
    left = {name: [i for i in of_shard if i not in gone] for name, of_shard in before.items()}
    assert samples(output) == {name: of_shard for name, of_shard in left.items() if of_shard}
    assert verify(Layout(output)) == [UNDESCRIBED]


def test_what_names_nothing_is_told(
    source: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = common.contents(output)
    capfd.readouterr()
    take_out(source, output, "path", ["no such", "it's not", "nor this", "nor that"])
    told = capfd.readouterr().err
    assert "opt_out: 4 of 4 values name no record: path \"it's not\", path 'no such', " in told
    assert "and 1 more" in told
    assert common.stage_metrics(output)["prune"]["details"]["opt_outs_unmatched"] == 4
    assert common.contents(output) == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "its first line has nothing"),
        ("owner\na\n", "'owner'; head one column"),
        ("path,repository\na,b\n", "'path', 'repository'; head one"),
        ("path,path\na,b\n", "'path', 'path'"),
        ("record_id\n" + "0" * 31 + "\n", "line 2: record_id is '0000"),
        ("record_id\n\n" + "0" * 32 + "\ng" + "0" * 31, "line 4: record_id is 'g0"),
        ("content_sha256\n" + "a" * 32, "write 64 hex digits"),
        ('repository\nok\n""\n', "line 3: repository is empty"),
        ("path\na,b.py\n", "line 2: 2 values and 1 columns"),
        ('path\n"a', "line 2"),
        ("path\nname\xff", "no UTF-8 at byte 9"),
        (None, "No such file or directory; name a readable CSV file"),
    ],
)
def test_a_wrong_list_is_one_clear_line(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "list.csv"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_opt_outs([str(path)])
    said = str(caught.value)
    assert said.startswith(f"opt_out {path}")
    assert problem in said
    assert "\n" not in said


def test_a_wrong_list_stops_before_anything_runs(source: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("record_id\nnone\n")
    with pytest.raises(UserError, match="line 2: record_id is 'none'"):
        common.run("code", source, tmp_path / "out", *SETTINGS, f"opt_out={listed}")
    assert not (tmp_path / "out" / "tables").exists()


def test_lists_add_up(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("﻿ path ,why\r\n\"a, b\",x\r\n' c',\r\n")
    (tmp_path / "b.csv").write_text(f"record_id\n{'AB' * 16} \n\n{'ab' * 16}")
    found = read_opt_outs([str(tmp_path / name) for name in ("a.csv", "b.csv")])
    assert found == {("path", "a, b"), ("path", "' c'"), ("record_id", "ab" * 16)}
    assert read_opt_outs(None) == frozenset()


def named(connection: duckdb.DuckDBPyConnection, *opt_outs: tuple[str, str]) -> list[str]:
    name_opted_out(connection, frozenset(opt_outs))
    found = connection.execute("SELECT record_id FROM opted_out ORDER BY ALL").fetchall()
    connection.execute("DROP TABLE opted_out")
    return [record for (record,) in found]


def test_a_name_is_of_its_own_column() -> None:
    table: Callable[..., Any] = pa.table
    with duckdb.connect() as connection:
        records = table(
            {
                "record_id": list("abcd"),
                "path": ["x", "y", "a", "z"],
                "repository": ["r", "r", None, "x"],
                "content_sha256": ["1", "2", "2", "3"],
            }
        )
        connection.register("records", records)
        assert named(connection, ("path", "x")) == ["a"]
        assert named(connection, ("repository", "r"), ("path", "x")) == ["a", "b"]
        assert named(connection, ("record_id", "a"), ("content_sha256", "2")) == ["a", "b", "c"]
        assert named(connection, ("record_id", "x"), ("path", "r")) == []


def test_a_run_knows_what_it_is_given(source: Path, tmp_path: Path) -> None:
    recipe = common.recipe("code", source, *SETTINGS, "opt_out=[a.csv, b.csv]")
    assert Run(recipe, Layout(tmp_path)).recipe.opt_out == ("a.csv", "b.csv")
    assert common.recipe("code", source, *SETTINGS, "opt_out=null").opt_out is None
