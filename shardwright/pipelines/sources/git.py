"""Files of a Git commit, read from its objects: no checkout, no hook, no filter, no network."""

import itertools
import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from shardwright.errors import UserError
from shardwright.pipelines.sources.names import Globs, folder_label, shown
from shardwright.pipelines.sources.storage import is_remote, local_path, too_large
from shardwright.pipelines.sources.types import Input, Refusal, Unit

_AHEAD = 64  # requests written ahead of their answers; they fit into a pipe
_CHUNK = 1 << 16
_KINDS = {"120000": "a link", "160000": "a submodule"}


@dataclass(frozen=True)
class GitSource:
    """Files of one commit of a repository on this machine, bare or with a work tree.

    A unit's location is ``commit blob``, so that reading needs no name that may have moved on.

    Attributes:
        uri: The work tree's top folder, or the bare repository.
        globs: Which files are wanted.
        revision: A branch, a tag or a commit.
        max_bytes: Most bytes of a file; a larger one is not asked for.
        labelled: Whether the folder that holds a file is its label.
    """

    uri: str
    globs: Globs
    revision: str
    max_bytes: int
    labelled: bool

    def units(self, limit: int | None) -> Iterator[Unit]:
        """Lists the files in Git's order, the order of their paths' bytes."""
        return itertools.islice(self._units(), limit)

    def _units(self) -> Iterator[Unit]:
        commit = self._commit()
        odd: set[str] = set()  # names that may show like another one
        with _git(self.uri, "ls-tree", "-r", "-z", "--long", "--full-tree", commit) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for entry in _entries(process.stdout):
                head, _, raw = entry.partition(b"\t")
                mode, _, blob, size = head.decode().split()
                path = shown(raw.decode("utf-8", "surrogateescape"))
                if not self.globs.wants(path):
                    continue
                problem = None
                if mode in _KINDS:
                    problem = ("not_regular_file", f"{_KINDS[mode]}, and no file")
                if "\\x" in path:
                    if path in odd:
                        problem = ("duplicate_path", "another name reads the same when shown")
                    odd.add(path)
                state = f"{blob}:{commit}"
                length = int(size) if size.isdecimal() else 0
                yield Unit(path, f"{commit} {blob}", length, state, problem)
            error = process.stderr.read().decode("utf-8", "replace")
        if process.returncode:
            raise UserError(f"source.uri {self.uri!r}: git ls-tree failed: {_line(error)}")

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every file, all of them from one ``git cat-file``."""
        repository = self._repository()
        wanted = [u for u in units if u.problem is None and u.size <= self.max_bytes]
        with _git(self.uri, "cat-file", "--batch", requests=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            asked = 0
            answered = 0
            for unit in units:
                if unit.problem is not None:
                    yield Refusal(unit.path, *unit.problem)
                    continue
                if unit.size > self.max_bytes:
                    yield too_large(unit.path, unit.size, self.max_bytes)
                    continue
                commit, _, blob = unit.location.partition(" ")
                if answered == asked:
                    ahead = wanted[asked : asked + _AHEAD]
                    _ask(process.stdin, ahead)
                    asked += len(ahead)
                answered += 1
                data = _blob(process.stdout, blob)
                if data is None:
                    yield Refusal(
                        unit.path, "unreadable", f"object {blob} is not in the repository"
                    )
                    continue
                yield Input(
                    unit.path,
                    data,
                    repository=repository,
                    revision=commit,
                    label=folder_label(unit.path) if self.labelled else None,
                )
            process.stdin.close()

    def _commit(self) -> str:
        if is_remote(self.uri) and not self.uri.startswith("file://"):
            raise UserError(f"source.uri {self.uri!r} is no local repository; clone it first")
        if not os.path.isdir(local_path(self.uri)):
            raise UserError(f"source.uri {self.uri!r} is no folder; name a Git repository")
        status, folder, error = _answer(self.uri, "rev-parse", "--absolute-git-dir")
        if status or not folder:
            raise UserError(f"source.uri {self.uri!r} is no Git repository: {_line(error)}")
        status, commit, _ = _answer(
            self.uri,
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{self.revision}^{{commit}}",
        )
        if status:
            raise UserError(
                f"source.revision {self.revision!r} is no commit of {self.uri!r}; "
                "name a branch, a tag or a commit"
            )
        return commit

    def _repository(self) -> str:
        """A name that does not depend on where the repository lies, where it has one."""
        _, url, _ = _answer(self.uri, "config", "--get", "remote.origin.url")
        return repository_name(url, os.path.realpath(local_path(self.uri)))


def repository_name(url: str, folder: str) -> str:
    """The origin's url without credentials, or the folder's name where there is none to share."""
    if "://" in url and not url.startswith("file://"):
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return shown(urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", "")))
    if re.match(r"([^/@:]+@)?[^/@:]+:(?!//)", url):
        return shown(url)  # user@host:path, which holds no password
    name = os.path.basename(folder.rstrip("/"))
    if name == ".git":
        name = os.path.basename(os.path.dirname(folder.rstrip("/")))
    return shown(name.removesuffix(".git"))


def _git(uri: str, *arguments: str, requests: bool = False) -> "subprocess.Popen[bytes]":
    """Starts Git in a repository that may be another user's and is not trusted."""
    folder = os.path.realpath(local_path(uri))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {
        "GIT_CEILING_DIRECTORIES": os.path.dirname(folder),
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    safe = ["safe.directory=" + path for path in (folder, f"{folder}/.git")]
    settings = [*safe, "core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.allow=never"]
    options = [part for setting in settings for part in ("-c", setting)]
    try:
        return subprocess.Popen(
            ["git", *options, "-C", folder, *arguments],
            stdin=subprocess.PIPE if requests else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if requests else subprocess.PIPE,
            env=environment,
            bufsize=_CHUNK,
        )
    except FileNotFoundError:
        raise UserError("source.kind git needs the program git, which is not installed") from None


def _answer(uri: str, *arguments: str) -> tuple[int, str, str]:
    with _git(uri, *arguments) as process:
        out, error = process.communicate()
    text = out.decode("utf-8", "surrogateescape").strip()
    return process.returncode, text, error.decode("utf-8", "replace")


def _line(text: str) -> str:
    return " ".join(text.split())[:300] or "git says no more"


def _entries(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole


def _ask(stream: IO[bytes], units: Sequence[Unit]) -> None:
    try:
        for unit in units:
            stream.write(unit.location.partition(" ")[2].encode() + b"\n")
        stream.flush()
    except BrokenPipeError:
        pass  # git has died; every answer that is missing says so


def _blob(stream: IO[bytes], blob: str) -> bytes | None:
    header = stream.readline().split()
    if len(header) != 3 or header[1] != b"blob":
        return None
    size = int(header[2])
    data = stream.read(size + 1)
    return data[:size] if len(data) == size + 1 else None
