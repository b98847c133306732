"""The API says what the tables say."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common
import fsspec.config
import numpy as np
import pytest
from fastapi.testclient import TestClient
from service.command import command
from service.hostile import NEAR

import shardwright
from shardwright.metadata.explain import explain
from shardwright.metadata.layout import Layout
from shardwright.metadata.manifest import MANIFEST
from shardwright.metadata.query import plain
from shardwright.quality.shingles import jaccard, shingle_hashes
from shardwright.service.app import create_app
from shardwright.service.settings import Limits, Settings

pytest_plugins = ("service.served",)


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    found = shardwright.open(folder).sql(sql)
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def record_of(folder: Path, path: str) -> str:
    ((found,),) = rows(folder, f"SELECT record_id FROM records WHERE path = '{path}'")
    return str(found)


def test_curations(client: TestClient, code_folder: Path) -> None:
    listed = {one["name"]: one for one in client.get("/api/curations").json()}
    assert list(listed) == ["code", "images"]
    detail = client.get("/api/curations/code").json()
    layout = Layout(code_folder)
    assert detail["tables"] == {m.table: m.rows for m in layout.manifests()}
    ((records, kept),) = rows(code_folder, "SELECT count(*), count(*) FILTER (keep) FROM decisions")
    assert (
        (detail["records"], detail["kept"])
        == (records, kept)
        == (
            listed["code"]["records"],
            listed["code"]["kept"],
        )
    )
    assert detail["presence"] == ["exact", "normalised", "near"]
    assert detail["search"]
    funnel = client.get("/api/curations/code/funnel").json()
    assert [(s["stage"], s["reason"], s["records"]) for s in funnel] == rows(
        code_folder, "SELECT stage, reason, records FROM funnel"
    )


def test_croissant(client: TestClient, code_folder: Path) -> None:
    answer = client.get("/api/curations/code/croissant")
    assert answer.headers["content-type"].startswith("application/ld+json")
    assert answer.json() == json.loads((code_folder / "croissant.json").read_text())


@pytest.mark.parametrize(
    ("asked", "condition"),
    [
        ({}, "true"),
        ({"keep": "true"}, "keep"),
        ({"keep": "false", "stage": "prune"}, "NOT keep AND stage = 'prune'"),
        ({"reason": "exact_duplicate"}, "reason = 'exact_duplicate'"),
        ({"language": "Python", "cluster": 2}, "language = 'Python' AND cluster = 2"),
        ({"path": "SCRIPT"}, "contains(lower(path), 'script')"),
        ({"path": "%"}, "contains(path, '%')"),
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 200])
def test_pages_have_every_record_once(
    client: TestClient, code_folder: Path, asked: dict[str, object], condition: str, limit: int
) -> None:
    sql = (
        "SELECT record_id FROM records JOIN decisions USING (record_id) "
        f"LEFT JOIN clusters USING (record_id) WHERE {condition} ORDER BY record_id"
    )
    found, after = [], ""
    while after is not None and len(found) < 100:
        query = asked | {"limit": limit, "after": after}
        page = client.get("/api/curations/code/records", params=query).json()
        found += [row["record_id"] for row in page["records"]]
        after = page["next"]
    assert found == [row[0] for row in rows(code_folder, sql)][: max(len(found), 1)]
    assert after is not None or len(found) == len(rows(code_folder, sql))


def test_a_record(client: TestClient, code_folder: Path) -> None:
    for path in (NEAR, "near/same.py"):
        record_id = record_of(code_folder, path)
        told = client.get(f"/api/curations/code/records/{record_id}").json()
        alone = json.loads(json.dumps(plain(explain(Layout(code_folder), record_id))))
        assert ("nearest_kept" in told) == (path == NEAR)  # the other one has no vector
        for life in (told, alone):
            for near in filter(None, [life.get("nearest_kept")]):
                near["similarity"] = pytest.approx(near["similarity"], abs=1e-6)
        assert told == alone
        assert told["path"] == path


@pytest.mark.parametrize("name", ["code", "images"])
@pytest.mark.parametrize("kept", [False, True])
def test_neighbours_are_those_of_brute_force(
    client: TestClient, settings: Settings, name: str, kept: bool
) -> None:
    folder = settings.folders[name]
    joined = "JOIN decisions USING (record_id) WHERE keep" if kept else ""
    table = rows(folder, f"SELECT record_id, vector FROM embeddings {joined} ORDER BY record_id")
    ids, vectors = [row[0] for row in table], np.array([row[1] for row in table])
    for own in (0, 5):
        item = {"record": ids[own]}
        asked = {"item": item, "k": 6, "kept": kept}
        answer = client.post(f"/api/curations/{name}/neighbours", json=asked).json()
        assert answer["recall"] is None
        cosines = np.sort(vectors @ vectors[own])[::-1][:6]
        found = answer["neighbours"]
        assert np.allclose([one["similarity"] for one in found], cosines, atol=1e-5)
        for one in found:
            assert np.isclose(
                vectors[ids.index(one["record_id"])] @ vectors[own], one["similarity"], atol=1e-5
            )


def presence(
    client: TestClient, name: str, *items: object, **more: object
) -> list[list[dict[str, object]]]:
    answer = client.post(f"/api/curations/{name}/presence", json={"items": items} | more)
    assert answer.status_code == 200, answer.text
    found: list[list[dict[str, object]]] = answer.json()["items"]
    return found


def test_is_this_text_there(client: TestClient, code_folder: Path) -> None:
    ((text, sha256),) = rows(
        code_folder, "SELECT content, content_sha256 FROM records WHERE path = 'near/same.py'"
    )
    assert isinstance(text, str)
    equal = rows(code_folder, f"SELECT path FROM records WHERE content_sha256 = '{sha256}'")
    same, comment, near, new = presence(
        client,
        "code",
        {"text": text},
        {"text": text + "# one more line of words\n", "language": "Python"},
        {"text": text + "\n\ndef another():\n    return 17\n"},
        {"text": "no = 'such text is anywhere here at all, or is it'\n" * 3},
    )
    kinds = [{one["kind"] for one in found} for found in (same, comment, near)]
    assert kinds == [{"exact", "near"}, {"normalised", "near"}, {"near"}]
    assert {one["path"] for one in same if one["kind"] == "exact"} == {one for (one,) in equal}
    assert {NEAR, "near/same.py"} <= {one["path"] for one in near}
    assert all(0.7 <= float(str(one["similarity"])) <= 1 for one in near)
    assert new == []


def test_what_is_near_is_measured(client: TestClient, code_folder: Path) -> None:
    """Texts that share ever more with a record; below the threshold they share bands by chance."""
    near = client.get("/api/curations/code").json()["recipe"]["duplicates"]["near"]
    ((text, record_id),) = rows(
        code_folder,
        "SELECT content, record_id FROM records WHERE lines BETWEEN 200 AND 600 ORDER BY 2 LIMIT 1",
    )
    lines = str(text).splitlines()
    wanted = shingle_hashes(str(text).encode(), near["ngram"])
    shares = np.linspace(0.5, 1, 60)
    texts = ["\n".join(lines[: int(share * len(lines))]) for share in shares]
    items = [{"text": one, "language": "Python"} for one in texts]
    for one, found in zip(texts, presence(client, "code", *items), strict=True):
        measured = jaccard(shingle_hashes(one.encode(), near["ngram"]), wanted)
        told = [match for match in found if match["record_id"] == record_id]
        if measured > near["threshold"] + 0.1:
            assert told
        for match in told:
            assert measured >= near["threshold"]
            if match["kind"] == "near":
                assert match["similarity"] == pytest.approx(measured)


def test_is_this_image_there(client: TestClient, image_folder: Path) -> None:
    ((data, path),) = rows(
        image_folder,
        "SELECT image, path FROM records WHERE path LIKE '%.png' ORDER BY path LIMIT 1",
    )
    assert isinstance(data, bytes)
    (found,) = presence(client, "images", {"image": base64.b64encode(data).decode()}, semantic=0.9)
    assert (found[0]["kind"], found[0]["path"], found[0]["similarity"]) == ("exact", path, 1.0)
    for wrong in ("no base64!", base64.b64encode(b"no image").decode()):
        answer = client.post("/api/curations/images/presence", json={"items": [{"image": wrong}]})
        assert answer.status_code == 400


def test_all_records_are_present(client: TestClient, code_folder: Path) -> None:
    ids = [str(row[0]) for row in rows(code_folder, "SELECT record_id FROM records ORDER BY 1")]
    for first in range(0, len(ids), 20):
        some = ids[first : first + 20]
        for record_id, found in zip(
            some, presence(client, "code", *({"record": one} for one in some)), strict=True
        ):
            assert ("exact", record_id) in [(one["kind"], one["record_id"]) for one in found]


def test_what_is_not_there(client: TestClient) -> None:
    for path in (
        "/api/curations/none",
        "/api/curations/code/records/00ff",
        "/data/code/shards/none.mds",
        "/c/none",
        "/c/code/clusters/99999999999",
        "/c/code/map/100000",
        "/api/compare?a=code&b=none",
    ):
        assert client.get(path).status_code == 404, path


@pytest.mark.parametrize(
    "path",
    [
        "../croissant.json",
        "..%2fcroissant.json",
        "%2e%2e/recipe.json",
        "train/../../recipe.json",
        "/etc/passwd",
        "train/%00",
        "train//shard.00000.mds",
    ],
)
def test_nothing_but_shards_can_be_had(client: TestClient, path: str) -> None:
    answer = client.get(f"/data/code/shards/{path}")
    assert answer.status_code == 404
    assert b"root:" not in answer.content


def test_shards_whole_and_in_ranges(client: TestClient, code_folder: Path) -> None:
    listed = client.get("/api/curations/code/shards").json()
    manifest = client.get(f"/data/code/shards/{MANIFEST}").content
    assert manifest == (code_folder / "shards" / MANIFEST).read_bytes()
    for file in listed:
        address = f"/data/code/shards/{file['path']}"
        whole = client.get(address)
        assert hashlib.sha256(whole.content).hexdigest() == file["sha256"]
        assert whole.headers["etag"] == f'"{file["sha256"]}"'
        part = client.get(address, headers={"Range": "bytes=3-9"})
        assert (part.status_code, part.content) == (206, whole.content[3:10])
        assert client.head(address).headers["content-length"] == str(file["bytes"])
        beyond = client.get(address, headers={"Range": f"bytes={file['bytes'] + 1}-"})
        assert beyond.status_code == 416
        many = ",".join(f"{i}-{i}" for i in range(0, 2000, 2))
        assert client.get(address, headers={"Range": f"bytes={many}"}).status_code < 500


@contextmanager
def alone(code_folder: Path, **environment: str) -> Iterator[str]:
    """A service of its own process; its address."""
    program = [sys.executable, "-m", "shardwright.pipelines.cli"]
    line = command(program, [str(code_folder)], "127.0.0.1", 0)
    everything = os.environ | environment
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=everything) as process:
        assert process.stderr is not None
        try:
            yield process.stderr.readline().split()[0]
        finally:
            process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode in (0, -signal.SIGTERM)
    assert said == ""


def test_a_training_job_reads_from_it(code_folder: Path, tmp_path: Path) -> None:
    with alone(code_folder) as address:
        with urllib.request.urlopen(f"{address}/health") as answer:
            assert json.load(answer) == {"status": "ok", "curations": 1}
        there = shardwright.dataset(f"{address}/data/code", "train", seed=3, cache=tmp_path)
        here = shardwright.open(code_folder).dataset("train", seed=3)
        assert [one["record_id"] for one in there] == [one["record_id"] for one in here]


def test_a_training_job_brings_the_token(
    code_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "a-token-of-this-test"
    said = re.search(r"FSSPEC_HTTP='(.+)'", Path("docs/service.md").read_text())
    assert said is not None
    with alone(code_folder, SHARDWRIGHT_TOKEN=token) as address:
        where = f"{address}/data/code"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{where}/shards/{MANIFEST}")
        monkeypatch.setattr(fsspec.config, "conf", {})
        line = {"FSSPEC_HTTP": said[1].replace("TOKEN", token)}
        fsspec.config.set_conf_env(fsspec.config.conf, line)
        there = shardwright.dataset(where, "train", seed=3, cache=tmp_path)
        here = shardwright.open(code_folder).dataset("train", seed=3)
        assert [one["record_id"] for one in there] == [one["record_id"] for one in here]


def test_a_curation_that_is_run_again(tmp_path: Path, code_folder: Path) -> None:
    source = common.copy_sources(tmp_path / "in", 12)
    common.run("code", source, tmp_path / "out", "index=null", "embedding=null", "prune=null")
    settings = Settings({"one": tmp_path / "out"}, limits=Limits(requests_a_minute=0))
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        assert client.get("/api/curations/one").json()["records"] == 12
        next(source.rglob("*.py")).unlink()
        common.run("code", source, tmp_path / "out", "index=null", "embedding=null", "prune=null")
        assert client.get("/api/curations/one").json()["records"] == 11
        refused = client.post("/api/curations/one/neighbours", json={"item": {"text": "x"}})
        assert refused.status_code == 400
        shutil.rmtree(tmp_path / "out" / "tables" / "decisions")
        assert client.get("/api/curations/one").json()["kept"] is None


def test_compare(client: TestClient, code_folder: Path) -> None:
    found = client.get("/api/compare", params={"a": "code", "b": "code"}).json()
    assert found["step"] == "same"
    assert str(code_folder) not in json.dumps(found)


def test_what_the_documentation_says(client: TestClient) -> None:
    text = Path("docs/service.md").read_text()
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    told = set(re.findall(r"(?:`|, `)(?:GET |POST )?(/[^`?]+)", table.partition("## Who")[0]))
    known = set(client.get("/openapi.json").json()["paths"])
    names = {"{name}": "NAME", "{record_id}": "ID", "{path}": "PATH"}
    for inside, outside in names.items():
        known = {path.replace(inside, outside) for path in known}
    assert known <= told
    (body,) = re.findall(r"presence -H .*\n +-d '(.+)'", text)
    asked = client.post("/api/curations/code/presence", json=json.loads(body))
    assert (asked.status_code, len(asked.json()["items"])) == (200, 1)


def test_a_copy_stands_beside_the_record_that_stays(client: TestClient, code_folder: Path) -> None:
    stays = f"(SELECT record_id FROM records WHERE path = '{NEAR}')"
    ((copy,),) = rows(
        code_folder,
        "SELECT min(record_id) FROM decisions WHERE reason = 'near_duplicate' "
        f"AND representative_id = {stays}",
    )
    page = client.get(f"/c/code/records/{copy}").text
    _, _, beside = page.partition("Beside the record that stays")
    assert (
        f'href="/c/code/records/{record_of(code_folder, NEAR)}"' in beside.partition("Its story")[0]
    )
    ((kept,),) = rows(code_folder, "SELECT min(record_id) FROM decisions WHERE keep")
    assert "Beside the record" not in client.get(f"/c/code/records/{kept}").text
