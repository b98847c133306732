"""A corpus of any size out of real code, for ``scale.py``."""

import builtins
import keyword
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SHORT, LONG = 200, 1500
"""Characters of a record."""
FILE_RECORDS = 20_000
_NAMES = re.compile(r"\b[a-z_][a-z0-9_]{2,}\b")
_LEFT = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "cls", "args", "kwargs"}


def functions() -> list[str]:
    """Functions and classes of the standard library and of what is installed, each once."""
    found: dict[str, None] = {}
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(folder).rglob("*.py")):
            try:
                text = path.read_text("utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            for piece in re.split(r"\n\n\n+", text):
                if SHORT <= len(piece) <= LONG:
                    found[piece.strip() + "\n"] = None
    pieces = list(found)
    random.Random(0).shuffle(pieces)
    return pieces


def renamed(text: str, rng: random.Random, words: list[str]) -> str:
    """The text with each name in it replaced by another, the same one wherever it stands."""
    names: dict[str, str] = {}

    def other(match: re.Match[str]) -> str:
        name = match.group()
        if name in _LEFT:
            return name
        return names.setdefault(name, rng.choice(words))

    return _NAMES.sub(other, text)


def records(count: int) -> Iterator[tuple[str, str]]:
    """Yields (path, text): the functions as they are, then again under other names."""
    pieces = functions()
    words = sorted({name for piece in pieces[:5000] for name in _NAMES.findall(piece)} - _LEFT)
    for i in range(count):
        piece = pieces[i % len(pieces)]
        if i >= len(pieces):
            piece = renamed(piece, random.Random(i), words)
        yield f"folder{i // 1000:05d}/piece{i:08d}.py", piece


def make(folder: Path, count: int) -> Path:
    """Writes that many records as Parquet files of ``path`` and ``content``; the folder."""
    folder.mkdir()
    rows: list[tuple[str, str]] = []

    def write() -> None:
        paths, texts = zip(*rows, strict=True)
        file = folder / f"{paths[0].split('/')[0]}.parquet"
        pq.write_table(pa.table({"path": paths, "content": texts}), file, compression="zstd")
        rows.clear()

    for row in records(count):
        rows.append(row)
        if len(rows) == FILE_RECORDS:
            write()
    if rows:
        write()
    return folder
