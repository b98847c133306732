"""Corpora of real source files for benchmarks/pruning.py: a half to develop on, a half to judge by.

Halves are told by the hash of the top folder (of Java: the module), so that files of one project
never straddle them.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEAST, MOST = 300, 60_000
"""Bytes of a file."""


@dataclass(frozen=True)
class File:
    """A source file.

    Attributes:
        name: Path below the corpus.
        project: What stays on one side.
        language: As ``detect_language`` names it.
        data: The text, UTF-8.
    """

    name: str
    project: str
    language: str
    data: bytes


def read_corpus(half: str, files: int) -> list[File]:
    """Reads the corpus.

    Args:
        half: ``develop`` or ``judge``.
        files: How many files at most, the languages in equal shares as far as they go round.

    Raises:
        SystemExit: There are fewer than three languages on this machine.
    """
    found: dict[str, list[File]] = {}
    seen: set[bytes] = set()
    for file in _everything():
        _, top, *below = file.name.split("/")
        key = top if below else Path(top).stem
        odd = hashlib.sha256(key.encode()).digest()[0] % 2
        digest = hashlib.sha256(file.data).digest()
        if odd == (half == "judge") and digest not in seen:
            seen.add(digest)
            found.setdefault(file.language, []).append(file)
    if len(found) < 3:
        raise SystemExit(f"only {sorted(found)} here; install Go and a JDK with its src.zip")
    chosen: list[File] = []
    for place, (_, members) in enumerate(sorted(found.items(), key=lambda pair: len(pair[1]))):
        share = (files - len(chosen)) // (len(found) - place)
        chosen += random.Random(0).sample(members, min(share, len(members)))
    return sorted(chosen, key=lambda file: file.name)


def corpus_sha256(corpus: list[File]) -> str:
    """The corpus' name: the hash of all names and contents."""
    digest = hashlib.sha256()
    for file in corpus:
        digest.update(f"{file.name}\0{hashlib.sha256(file.data).hexdigest()}\0".encode())
    return digest.hexdigest()


def _everything() -> Iterator[File]:
    packages = Path(sysconfig.get_path("purelib"))
    yield from _folder(packages, ".py", "Python", 1)
    go = shutil.which("go")
    if go is not None:
        root = subprocess.run([go, "env", "GOROOT"], capture_output=True, text=True, check=True)
        yield from _folder(Path(root.stdout.strip()) / "src", ".go", "Go", 2)
    npm = Path("/usr/lib/node_modules")
    if npm.is_dir():
        yield from _folder(npm / "npm", ".js", "JavaScript", 2)
    for sources in sorted(Path("/usr/lib/jvm").glob("*/lib/src.zip")):
        if sources.is_file():
            yield from _archive(sources)
            break


def _folder(root: Path, suffix: str, language: str, depth: int) -> Iterator[File]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.endswith(suffix):
                path = Path(folder) / name
                parts = path.relative_to(root).parts
                project = "/".join([language, *parts[:depth]][: len(parts)])
                data = path.read_bytes() if path.is_file() else b""
                if _fits(data):
                    yield File(f"{language}/{'/'.join(parts)}", project, language, data)


def _archive(path: Path) -> Iterator[File]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".java"):
                data = archive.read(name)
                if _fits(data):
                    project = "/".join(name.split("/")[:-1])
                    yield File(f"Java/{name}", project, "Java", data)


def _fits(data: bytes) -> bool:
    if not LEAST <= len(data) <= MOST or b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
