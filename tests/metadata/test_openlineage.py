"""What OpenLineage is told of a curation, by the official client, to a file and over HTTP."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from metadata.sample_output import build, recipe

from shardwright.errors import DataError, UserError
from shardwright.metadata.layout import Layout
from shardwright.metadata.openlineage import told_stages
from shardwright.pipelines.curate import STAGES, curate
from shardwright.pipelines.recipe import Recipe

Event = dict[str, Any]
STAGES_MADE = ("ingest", "duplicates", "embed", "index", "cluster", "score", "prune", "shard")


def test_without_the_client_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    with (
        pytest.raises(UserError, match=r"pip install 'shardwright\[openlineage\]'"),
        told_stages(str(tmp_path / "events"), Layout(tmp_path), {}, print),
    ):
        raise AssertionError("nothing may run")


@pytest.fixture
def client() -> None:
    pytest.importorskip("openlineage.client", reason="the extra 'openlineage' is not installed")


def events(path: Path) -> list[Event]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("client")
def test_events_say_what_the_manifests_say(tmp_path: Path) -> None:
    layout = build(tmp_path / "output")
    path = tmp_path / "events.jsonl"
    with told_stages(str(path), layout, recipe("code"), print) as stages:
        for stage in (*STAGES_MADE, "describe"):
            with stages(stage):
                pass
    told = events(path)
    names = ["sample", *(f"sample.{stage}" for stage in (*STAGES_MADE, "describe"))]
    in_order = [("START", "sample")]
    in_order += [(state, name) for name in names[1:] for state in ("START", "COMPLETE")]
    assert [(e["eventType"], e["job"]["name"]) for e in told] == [*in_order, ("COMPLETE", "sample")]
    assert "secret" not in path.read_text()
    whole = told[0]["run"]["runId"]
    for event in told[1:-1]:
        assert event["run"]["facets"]["parent"]["run"]["runId"] == whole
        assert event["job"]["namespace"] == "shardwright"
    runs = {name: {e["run"]["runId"] for e in told if e["job"]["name"] == name} for name in names}
    assert all(len(ids) == 1 for ids in runs.values())
    assert len({one for ids in runs.values() for one in ids}) == len(names)
    done = {e["job"]["name"]: e for e in told if e["eventType"] == "COMPLETE"}
    outputs = {o["name"]: o for e in done.values() for o in e["outputs"]}
    for manifest in layout.manifests():
        output = outputs[str(manifest.folder)]
        assert output["namespace"] == "file"
        statistics = output["outputFacets"]["outputStatistics"]
        assert (statistics["rowCount"], statistics["size"]) == (manifest.rows, manifest.bytes)
        assert statistics["fileCount"] == len(manifest.files())
        assert output["facets"]["version"]["datasetVersion"] == manifest.content_sha256
        fields = [(f["name"], f["type"]) for f in output["facets"]["schema"]["fields"]]
        assert fields == [(f.name, str(f.type)) for f in manifest.schema]
        inputs = done[f"sample.{manifest.origin.stage}"]["inputs"]
        read = {i["name"]: i["facets"].get("version", {}).get("datasetVersion") for i in inputs}
        for table, sha256 in manifest.origin.inputs.items():
            if layout.need(table, "").origin.stage != manifest.origin.stage:
                assert read[str(layout.table(table))] == sha256
    assert {str(layout.shards), str(layout.indexes), str(layout.croissant)} <= outputs.keys()
    source = done["sample.ingest"]["inputs"]
    assert [(i["namespace"], i["name"]) for i in source] == [("https://example.org", "data")]
    code = json.loads(done["sample.cluster"]["job"]["facets"]["sourceCode"]["sourceCode"])
    assert (code["version"], code["stage"]) == ("1", "cluster")
    assert {"k": 3} in code["parameters"]


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("error", "state", "trace"),
    [
        (DataError("gs://me:secret@bucket is gone"), "FAIL", False),
        (RuntimeError("https://me:secret@host"), "FAIL", True),
        (KeyboardInterrupt(), "ABORT", False),
    ],
)
def test_a_stage_that_fails(tmp_path: Path, error: BaseException, state: str, trace: bool) -> None:
    layout = build(tmp_path / "output")
    path = tmp_path / "events.jsonl"
    with (
        pytest.raises(type(error)),
        told_stages(str(path), layout, recipe("code"), print) as stages,
        stages("embed"),
    ):
        raise error
    told = events(path)
    assert [e["eventType"] for e in told] == ["START", "START", state, state]
    assert told[2]["outputs"] == []
    assert "secret" not in path.read_text()
    facet = told[2]["run"]["facets"].get("errorMessage")
    assert (facet is not None) == (state == "FAIL")
    if facet is not None:
        assert facet["message"] == str(error).replace("me:secret@", "")
        assert ("Traceback" in (facet.get("stackTrace") or "")) == trace


TASK = ("prod/airflow", "dag.task", "0192d1a5-1111-7222-8333-444455556666")
DAG = ("prod/airflow", "dag", "0192d1a5-aaaa-7bbb-8ccc-ddddeeeeffff")


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("root", [None, DAG])
def test_the_run_that_started_it_is_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: tuple[str, str, str] | None
) -> None:
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", "/".join(TASK))
    if root is not None:
        monkeypatch.setenv("OPENLINEAGE_ROOT_PARENT_ID", "/".join(root))
    path = tmp_path / "events.jsonl"
    layout = build(tmp_path / "output")
    with (
        told_stages(str(path), layout, recipe("code"), print) as stages,
        stages("embed"),
    ):
        pass
    first, stage, *_ = events(path)
    found = [parents(event) for event in (first, stage)]
    assert found == [(TASK, root), (("shardwright", "sample", first["run"]["runId"]), root)]


@pytest.mark.usefixtures("client")
def test_a_curation_that_nothing_started_is_the_root_of_its_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", "")
    path = tmp_path / "events.jsonl"
    layout = build(tmp_path / "output")
    with (
        told_stages(str(path), layout, recipe("code"), print) as stages,
        stages("embed"),
    ):
        pass
    first, stage, *_ = events(path)
    whole = ("shardwright", "sample", first["run"]["runId"])
    assert (parents(first), parents(stage)) == ((None, None), (whole, whole))


def parents(event: Event) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """(namespace, job, run) of an event's parent, and of the root that it tells."""
    facet = event["run"]["facets"].get("parent")

    def named(node: Any) -> tuple[str, ...] | None:
        return node and (node["job"]["namespace"], node["job"]["name"], node["run"]["runId"])

    return named(facet), named((facet or {}).get("root"))


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("value", [TASK[2], f"dag.task/{TASK[2]}", "airflow/dag.task/manual__1"])
def test_a_parent_of_another_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", value)
    with (
        pytest.raises(UserError, match=f"OPENLINEAGE_PARENT_ID '{value}': names no run"),
        told_stages(str(tmp_path / "events"), Layout(tmp_path), recipe("code"), print),
    ):
        raise AssertionError("nothing may run")


class Server(ThreadingHTTPServer):
    """Keeps what is posted; refuses with ``status`` where that is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[tuple[str, str | None, Event]] = []
        self.status = 201


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = (self.path, self.headers.get("Authorization"), json.loads(body))
        self.server.posted.append(known)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("endpoint", ["", "/api/v1/lineage", "/own/place"])
def test_events_over_http(
    tmp_path: Path, server: Server, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key")
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "ours")
    target = f"http://127.0.0.1:{server.server_port}{endpoint}"
    layout = build(tmp_path / "output")
    with told_stages(target, layout, recipe("code"), print) as stages, stages("ingest"):
        pass
    assert [e["eventType"] for _, _, e in server.posted] == ["START", "START"] + ["COMPLETE"] * 2
    assert {path for path, _, _ in server.posted} == {endpoint or "/api/v1/lineage"}
    assert {key for _, key, _ in server.posted} == {"Bearer key"}
    assert {e["job"]["namespace"] for _, _, e in server.posted} == {"ours"}
    assert server.posted[2][2]["outputs"]


@pytest.mark.usefixtures("client")
def test_an_endpoint_that_refuses(tmp_path: Path, server: Server) -> None:
    target = f"http://me:secret@127.0.0.1:{server.server_port}"
    layout = build(tmp_path / "output")
    server.status = 403
    with (
        pytest.raises(UserError, match="403") as caught,
        told_stages(target, layout, recipe("code"), print),
    ):
        raise AssertionError("nothing may run")
    server.status = 201
    notes: list[str] = []
    with told_stages(target, layout, recipe("code"), notes.append) as stages:
        server.status = 403
        with stages("ingest"):
            pass
        server.status = 201
    assert ["START of sample.ingest" in notes[0], "COMPLETE of sample.ingest" in notes[1]] == [
        True
    ] * 2
    assert len(notes) == 2
    assert "secret" not in f"{caught.value} {notes}"


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("target", ["kafka://host/topic", "missing/folder/events"])
def test_targets_that_cannot_be_written(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UserError, match="--openlineage"),
        told_stages(target, Layout(tmp_path), recipe("code"), print),
    ):
        raise AssertionError("nothing may run")


@pytest.mark.usefixtures("client")
def test_a_curation_tells_of_every_stage(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n")
    settings = {"name": "small", "modality": "code", "embedding": None, "prune": None}
    source = {"kind": "files", "uri": str(folder)}
    output = tmp_path / "output"
    target = output / "events.jsonl"
    small = Recipe.model_validate({**settings, "source": source})
    for _ in range(2):  # the second run reuses all, and says so of the same tables
        curate(small, output, openlineage=str(target))
    told = events(target)
    half = len(told) // 2
    ran = [e["job"]["name"] for e in told[:half] if e["eventType"] == "COMPLETE"]
    assert ran == [*(f"small.{stage}" for stage in STAGES), "small"]
    first, second = (
        [o for e in part for o in e["outputs"] if "tables" in o["name"]]
        for part in (told[:half], told[half:])
    )
    assert first == second
    assert {Path(o["name"]).name for o in first} >= {"records", "decisions", "curated"}
