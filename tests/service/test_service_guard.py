"""Who may ask, from where, how often and how much."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import common
import pytest
from fastapi.testclient import TestClient

from shardwright.errors import UserError
from shardwright.service.app import bound, create_app
from shardwright.service.guard import COOKIE, HEADERS
from shardwright.service.settings import Limits, Settings, checked_token, named_folders

pytest_plugins = ("service.served",)
TOKEN = "a token of enough characters"


def served(settings: Settings, **changes: object) -> TestClient:
    return TestClient(create_app(replace(settings, **changes)), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def locked(settings: Settings) -> Iterator[TestClient]:
    with served(settings, token=TOKEN) as client:
        yield client


@pytest.mark.parametrize("path", ["/api/curations", "/metrics", "/data/code/shards/_manifest.json"])
def test_a_token_opens(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code == 401
    for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}"):
        assert locked.get(path, headers={"Authorization": wrong}).status_code == 401
    for right in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert locked.get(path, headers={"Authorization": right}).status_code == 200
    elsewhere = {"Authorization": f"Bearer {TOKEN}", "Host": "shards.example"}
    assert locked.get(path, headers=elsewhere).status_code == 200


def test_what_is_open(locked: TestClient) -> None:
    for path in ("/health", "/openapi.json", "/sign-in", "/static/page.css"):
        assert locked.get(path).status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/openapi.json/x"):
        assert locked.get(path).status_code in (401, 404)


def test_people_sign_in(settings: Settings) -> None:
    with served(settings, token=TOKEN) as client:
        sent = client.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
        assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in")
        assert client.post("/sign-in", data={"token": "wrong"}).status_code == 401
        assert COOKIE not in client.cookies
        done = client.post("/sign-in", data={"token": TOKEN}, follow_redirects=False)
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/").status_code == 200


def test_pages_of_other_sites(client: TestClient) -> None:
    query = {"sql": "SELECT 1"}
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
        answer = client.post(
            "/api/curations/code/query", json=query, headers={"Sec-Fetch-Site": site}
        )
        assert answer.status_code == status
    for host in ("evil.example", "127.0.0.1.evil.example", "[::2]:80", ""):
        assert client.get("/api/curations", headers={"Host": host}).status_code == 403
    for host in ("localhost:80", "127.0.0.1", "[::1]:8000"):
        assert client.get("/api/curations", headers={"Host": host}).status_code == 200


def test_every_answer_has_the_headers(locked: TestClient, client: TestClient) -> None:
    for asked in (client, locked):
        for path in ("/", "/api/curations", "/none", "/openapi.json", "/static/map.js"):
            answer = asked.get(path)
            for name in HEADERS:
                assert name in answer.headers, (path, name)
    assert "unsafe-eval" not in str(HEADERS)
    script = HEADERS["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
    assert script.strip() == "'self'"


def test_bodies_are_bounded(client: TestClient) -> None:
    most = 2_000_000
    long = client.post("/api/curations/code/query", content=b"x" * (most + 1))
    assert long.status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 100_000

    assert client.post("/api/curations/code/query", content=pieces()).status_code == 413
    for length in ("-1", "x", "1e3"):
        headers = {"Content-Length": length}
        assert client.get("/health", headers=headers).status_code == 400


def test_rates(settings: Settings) -> None:
    with served(settings, limits=Limits(requests_a_minute=5)) as client:
        codes = [client.get("/health").status_code for _ in range(12)]
        assert codes.count(200) == 10
        refused = client.get("/health")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 12


def test_metrics_have_no_series_of_strangers(client: TestClient) -> None:
    for i in range(20):
        client.get(f"/strange/{i}")
        client.get(f"/c/none{i}")
    text = client.get("/metrics").text
    assert "strange" not in text
    assert "none3" not in text
    assert 'route="/c/{name}"' in text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "shards.example"])
def test_others_need_a_token(host: str) -> None:
    with pytest.raises(UserError, match="SHARDWRIGHT_TOKEN"):
        checked_token(host, None)
    with pytest.raises(UserError, match="at least 16"):
        checked_token(host, "short")
    assert checked_token(host, TOKEN) == TOKEN
    assert checked_token("127.0.0.5", None) is None


def test_names(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "my data", tmp_path / "b" / "my data", tmp_path / "\u00fc"]
    named = named_folders([*map(str, folders), "s3://bucket/out/"], [*folders, tmp_path])
    assert list(named) == ["my-data", "my-data-2", "curation", "out"]


def test_mistakes_of_the_command_line(tmp_path: Path, code_folder: Path) -> None:
    with bound("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        for arguments, said in (
            ([str(tmp_path)], "holds no committed table"),
            ([str(tmp_path / "none")], "no such folder"),
            ([str(code_folder), "--host", "0.0.0.0"], "SHARDWRIGHT_TOKEN"),
            ([str(code_folder), "--port", port], "cannot be listened on"),
        ):
            done = common.shardwright("serve", *arguments)
            assert done.returncode == 2
            assert said in done.stderr
            assert "Traceback" not in done.stderr
