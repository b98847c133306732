"""Secrets planted wherever a credential can be given, and looked for in all that a run leaves."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fuzz.seeds import datasets

from shardwright.metadata.credentials import recipe_without_credentials, without_credentials

ROOT = Path(__file__).parents[2]
SECRET = "PLANTED"


class _Site(SimpleHTTPRequestHandler):
    """Serves a folder, takes what is posted or put, and keeps it."""

    taken: list[str] = []  # noqa: RUF012 - of the class, as a server makes many handlers

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.taken.append(self.rfile.read(length).decode("utf-8", "replace"))
        self.send_response(200)
        self.end_headers()

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(_Site, "taken", [])
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: _Site(*given, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def publish(folder: Path, host: str) -> None:
    """A dataset whose files have addresses with a password and a signature; one is not there."""
    document, files = datasets()[0]
    ((name, data),) = files.items()
    (folder / "a.parquet").write_bytes(data)
    content = json.loads(json.dumps(document))
    content["distribution"] = [
        {
            "@type": "cr:FileObject",
            "@id": f"file-{place}",
            "contentUrl": f"http://me:{SECRET}-3@{host}/{path}?token={SECRET}-4",
            "encodingFormat": "application/x-parquet",
            "sha256": hashlib.sha256(data).hexdigest(),
            "containedIn": [],
        }
        for place, path in enumerate(("a.parquet", "lost.parquet"))
    ]
    content["distribution"].append(
        {
            "@type": "cr:FileSet",
            "@id": "set",
            "encodingFormat": "application/x-parquet",
            "includes": "*",
            "containedIn": [{"@id": "file-0"}, {"@id": "file-1"}],
        }
    )
    (folder / "croissant.json").write_text(json.dumps(content))
    assert name.endswith(".parquet")


def leaks(output: Path, *texts: str) -> list[str]:
    """Places that hold a secret: files, rows of tables, and what was printed or sent."""
    found = [f"text {text[:80]}" for text in texts if SECRET in text]
    for path in sorted(output.rglob("*")):
        if not path.is_file():
            continue
        if SECRET.encode() in path.read_bytes():
            found.append(str(path.relative_to(output)))
        if path.suffix == ".parquet" and SECRET in str(pq.read_table(path).to_pylist()):
            found.append(f"rows of {path.relative_to(output)}")
    return found


def curate(tmp_path: Path, uri: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(str(Path(sys.executable).with_name("shardwright")), "curate"),
        *(str(ROOT / "recipes" / "code.yaml"), "--output", str(tmp_path / "out"), "--input", uri),
        *("--set", "source.kind=croissant", "--set", "source.include=['**/*']"),
        *("--set", "limits.reject_threshold=1", "--set", "clusters.k=2"),
        *("--set", f"runner={{embed: ['--s3_secret_access_key={SECRET}-6']}}"),
        *more,
        *("--", "--runner=FnApiRunner", f"--s3_secret_access_key={SECRET}-7"),
    ]
    secret = {f"{name}": f"{SECRET}-5" for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN")}
    environment = {**os.environ, **secret, "OPENLINEAGE_API_KEY": f"{SECRET}-5"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)


def test_a_whole_curation_tells_no_secret(tmp_path: Path, site: str) -> None:
    publish(tmp_path / "site", site)
    uri = f"http://me:{SECRET}-1@{site}/croissant.json?signature={SECRET}-2"
    told = f"http://me:{SECRET}-8@{site}/"
    figures = tmp_path / "figures.prom"
    done = curate(tmp_path, uri, "--openlineage", told, "--prometheus", str(figures))
    assert done.returncode == 0, done.stderr
    output = tmp_path / "out"
    rejects = pq.read_table(output / "tables" / "rejects").to_pylist()
    assert [row["reason"] for row in rejects] == ["missing_file"]
    assert any("shardwright" in text for text in _Site.taken)  # something was told
    assert site in (output / "croissant.json").read_text()  # and the address is, without them
    assert leaks(output, done.stdout, done.stderr, figures.read_text(), *_Site.taken) == []


def test_a_run_that_fails_tells_no_secret(tmp_path: Path, site: str) -> None:
    uri = f"http://me:{SECRET}-1@{site}/nothing.json?signature={SECRET}-2"
    for more in ([], ["--dry-run"]):
        done = curate(tmp_path, uri, *more)
        assert done.returncode == 2
        assert "nothing.json" in done.stderr
        assert SECRET not in done.stdout + done.stderr


def test_a_plan_tells_no_secret(tmp_path: Path, site: str) -> None:
    publish(tmp_path / "site", site)
    uri = f"http://me:{SECRET}-1@{site}/croissant.json?signature={SECRET}-2"
    done = curate(tmp_path, uri, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:p@h.org:1/x@y?sig=1#part", "https://h.org:1/x@y#part"),
        ("'s3://key:secret@bucket/a?.py' and http://u@h", "'s3://bucket/a?.py' and http://h"),
        ("a@b.org, ./x?y=1", "a@b.org, ./x?y=1"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_options_of_beam() -> None:
    options = ["--s3_secret_access_key=x", "--azure_connection_string", "y", "--password", "z"]
    options += ["--runner=FlinkRunner", "--job_endpoint=http://u:p@h:1", "--api-key", "--streaming"]
    shown = recipe_without_credentials({"name": "n", "runner": {"all": options}})
    assert shown["runner"]["all"] == [
        *("--s3_secret_access_key=***", "--azure_connection_string", "***", "--password", "***"),
        *("--runner=FlinkRunner", "--job_endpoint=http://h:1", "--api-key", "--streaming"),
    ]
