import os
import pickle
import subprocess

import pytest
from ingest.bad_inputs import GOOD, run_git

from shardwright.errors import UserError
from shardwright.pipelines.sections import Source
from shardwright.pipelines.sources import Input, Refusal, open_source
from shardwright.pipelines.sources.git import repository_name


def git(uri, revision="HEAD", include=("**/*",), max_bytes=1000):
    settings = Source(kind="git", uri=str(uri), revision=revision, include=include)
    return open_source(settings, max_bytes, "code")


def read(source) -> list[Input | Refusal]:
    return list(pickle.loads(pickle.dumps(source)).read(list(source.units(None))))


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / "src/a.py").write_bytes(GOOD)
    (folder / "notes.txt").write_bytes(b"one\n")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message", "one")
    run_git(folder, "tag", "v1")
    (folder / "notes.txt").write_bytes(b"two\n")
    run_git(folder, "commit", "--quiet", "--all", "--message", "two")
    return folder


def test_a_work_tree_and_a_bare_repository_read_alike(repository, tmp_path):
    bare = tmp_path / "project.git"
    run_git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    commit = run_git(repository, "rev-parse", "HEAD")
    for uri in (repository, bare, f"file://{repository}", repository / ".git"):
        assert read(git(uri)) == [
            Input("notes.txt", b"two\n", repository="project", revision=commit),
            Input("src/a.py", GOOD, repository="project", revision=commit),
        ]


def test_a_revision_and_what_is_wanted(repository):
    commit = run_git(repository, "rev-parse", "v1")
    for revision in ("v1", commit, commit[:10], "main~1", "HEAD^"):
        items = read(git(repository, revision, ["*.txt"]))
        assert items == [Input("notes.txt", b"one\n", repository="project", revision=commit)]


def test_a_branch_that_moves_between_listing_and_reading(repository):
    source = git(repository, "main", ["*.txt"])
    units = list(source.units(None))
    run_git(repository, "reset", "--quiet", "--hard", "v1")
    (item,) = source.read(units)
    assert isinstance(item, Input)
    assert item.data == b"two\n"
    assert item.revision != run_git(repository, "rev-parse", "main")


def test_a_large_file_is_not_asked_for_and_a_lost_one_is_refused(repository):
    source = git(repository, max_bytes=3)
    assert {item.reason for item in read(source)} == {"too_large"}
    blob = run_git(repository, "rev-parse", "HEAD:src/a.py")
    os.unlink(repository / ".git/objects" / blob[:2] / blob[2:])
    fine, lost = read(git(repository))
    assert isinstance(fine, Input)
    assert isinstance(lost, Refusal)
    assert lost.reason == "unreadable"


def test_many_files_come_back_in_order(repository):
    for i in range(300):
        (repository / f"src/{i:03d}.py").write_text(f"# {i}\n" * i)
    run_git(repository, "add", "--all")
    run_git(repository, "commit", "--quiet", "--message", "many")
    items = read(git(repository, include=["src/[0-9]*.py"], max_bytes=10_000))
    assert [item.data for item in items] == [(f"# {i}\n" * i).encode() for i in range(300)]


def test_nothing_of_the_repository_is_run(repository, tmp_path):
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    for setting in ("core.fsmonitor", "filter.x.smudge", "filter.x.clean", "diff.x.textconv"):
        run_git(repository, "config", setting, str(trap))
    run_git(repository, "config", "core.hooksPath", str(tmp_path))
    (repository / ".git/info/attributes").write_text("* filter=x diff=x\n")
    assert len(read(git(repository))) == 2
    assert not (tmp_path / "sprung").exists()


def test_objects_are_read_as_they_were_committed(repository):
    replaced = run_git(repository, "rev-parse", "HEAD:notes.txt")
    run_git(repository, "replace", replaced, run_git(repository, "rev-parse", "v1:notes.txt"))
    assert read(git(repository))[0].data == b"two\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a repository away")
def test_another_users_repository(repository):
    for folder, _, names in os.walk(repository):
        for name in (".", *names):
            os.chown(os.path.join(folder, name), 12345, 12345)
    # Git itself refuses it: the test has something to get around
    plain = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True)
    assert plain.returncode
    assert len(read(git(repository))) == 2


@pytest.mark.parametrize("revision", ["nothing", "--help", "HEAD:src", "v1:notes.txt", ""])
def test_an_unknown_revision(repository, revision):
    with pytest.raises(UserError, match=r"source\.revision"):
        read(git(repository, revision))


def test_no_repository(repository, tmp_path):
    (tmp_path / "plain").mkdir()
    # a folder below a repository's top would be named differently than from the top
    for uri in (tmp_path / "plain", repository / "src", tmp_path / "none", "https://host/x.git"):
        with pytest.raises(UserError, match=r"source\.uri"):
            read(git(uri))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/owner/name.git", "https://host/owner/name.git"),
        ("https://user:secret@host/owner/name", "https://host/owner/name"),
        ("https://token@host:8443/name?private=1#x", "https://host:8443/name"),
        ("ssh://git@host/owner/name", "ssh://host/owner/name"),
        ("git@host:owner/name.git", "git@host:owner/name.git"),
        ("/somewhere/else/other.git", "folder"),
        ("file:///somewhere/else/other.git", "folder"),
        ("../other", "folder"),
        ("", "folder"),
    ],
)
def test_repositories_have_names_without_credentials(url, name):
    assert repository_name(url, "/anywhere/folder.git") == name
    assert repository_name(url, "/anywhere/folder/.git") == name
