"""Records that hold items of a benchmark: by shared n-grams, and by near embeddings.

An n-gram is a window of consecutive words, see ``shardwright.quality.shingles``: white space and
punctuation count for nothing. A record that holds a given share of an item's n-grams is a hit.
(Brown et al., "Language models are few-shot learners", arXiv 2005.14165, appendix C, take a single
shared n-gram of 13 words for one.)

A renamed variable breaks the n-grams around it, and moves an embedding of the text too far for any
threshold that spares unrelated code. Embeddings of the ``abstracted`` texts stay near.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.errors import UserError
from shardwright.quality.normalise import normalised
from shardwright.quality.shingles import shingle_hashes, token_hashes

Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
UInt64: TypeAlias = npt.NDArray[np.uint64]

LEAST_WORDS = 8
"""An item of fewer words is not looked for by n-grams: too many files hold it by chance."""

# Words that make up the structure of code in the languages that have grammars.
_STRUCTURE = """
    abstract and as assert async await begin bool boolean break byte case catch char class
    const continue def default defer del delete do done double elif else elsif end ensure enum
    esac except export extends extern false final finally float fn for foreach from func
    function global go goto if impl implements import in instanceof int interface is lambda let
    local long loop match mod module mut namespace new nil none nonlocal not null operator or
    package pass private protected pub public raise rescue return self short signed sizeof
    static struct super switch template then this throw throws trait true try type typedef
    typeof union unless unsafe unsigned until use using var virtual void volatile when where
    while with yield
"""
_KEYWORDS = frozenset(_STRUCTURE.split())
_DEFINING = ("def", "fn", "func", "function")
_LONG_STRING = re.compile(r"""(\"\"\"|''').*?\1""", re.DOTALL)
_NAME = re.compile(r"(\.\s*)?\b([^\W\d]\w*)(?=(\s*\()?)")
_BLANK = re.compile(r" (?!\w)|(?<!\w) ")
_FARTHEST = 9

_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_BROKEN = (
    OSError,
    EOFError,
    UnicodeDecodeError,
    json.JSONDecodeError,
    RecursionError,
    zlib.error,
    pa.ArrowException,
)


@dataclass(frozen=True)
class Item:
    """One problem, or one file, of a benchmark."""

    benchmark: str
    name: str
    text: str


@dataclass(frozen=True, eq=False)
class NgramIndex:
    """The n-grams of a benchmark's items.

    Attributes:
        ngram: Words in an n-gram.
        items: Benchmark and name of each item; hits give the place in here.
        sizes: int64 [items], n-grams of an item; 0 if it has too few words to be looked for.
        hashes: uint64 [n-grams], ascending and distinct.
        offsets: int64 [n-grams + 1]: n-gram i is in ``owners[offsets[i] : offsets[i + 1]]``.
        owners: int64, places of items, ascending for each n-gram.
    """

    ngram: int
    items: tuple[tuple[str, str], ...]
    sizes: Int64
    hashes: UInt64
    offsets: Int64
    owners: Int64

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Benchmark and name of the items that have too few words to be looked for."""
        return tuple(item for item, size in zip(self.items, self.sizes, strict=True) if not size)

    def save(self, path: Path) -> None:
        """Writes one file, the same bytes for the same index; ``load`` reads it."""
        names = json.dumps(self.items).encode()
        with path.open("wb") as file:
            np.savez(
                file,
                ngram=np.int64(self.ngram),
                items=np.frombuffer(names, np.uint8),
                sizes=self.sizes,
                hashes=self.hashes,
                offsets=self.offsets,
                owners=self.owners,
            )

    @staticmethod
    def load(path: Path) -> "NgramIndex":
        """Reads what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return NgramIndex(
                ngram=int(arrays["ngram"]),
                items=tuple((b, name) for b, name in json.loads(arrays["items"].tobytes())),
                **{name: arrays[name] for name in ("sizes", "hashes", "offsets", "owners")},
            )


def ngram_index(items: Sequence[Item], ngram: int) -> NgramIndex:
    """Indexes the n-grams of items.

    An item of fewer than ``LEAST_WORDS`` words gets none. One of fewer than ``ngram`` words has
    one n-gram, of all its words, and is found only in a record that has the same words and no
    other.

    Args:
        items: The items, of one benchmark or of several.
        ngram: Words in an n-gram, 1 or more.

    Raises:
        ValueError: ``ngram`` is less than 1.
    """
    shingles = [np.empty(0, np.uint64)]
    for item in items:
        data = item.text.encode()
        enough = len(token_hashes(data)) >= LEAST_WORDS
        shingles.append(shingle_hashes(data if enough else b"", ngram))
    sizes = np.array([len(found) for found in shingles[1:]], np.int64)
    every = np.concatenate(shingles)
    owners = np.repeat(np.arange(len(items)), sizes)
    order = np.argsort(every, kind="stable")
    hashes, starts = np.unique(every[order], return_index=True)
    return NgramIndex(
        ngram=ngram,
        items=tuple((item.benchmark, item.name) for item in items),
        sizes=sizes,
        hashes=hashes,
        offsets=np.append(starts, len(every)),
        owners=owners[order],
    )


def hits(index: NgramIndex, shingles: UInt64, threshold: float) -> list[tuple[int, float]]:
    """Finds the items that a record holds.

    Args:
        index: The items.
        shingles: uint64, ascending and distinct: ``shingle_hashes(record, index.ngram)``.
        threshold: Least share of an item's distinct n-grams that the record has, above 0.

    Returns:
        Place in ``index.items``, ascending, and share of each.

    Raises:
        ValueError: the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie above 0 and at most at 1, not at {threshold}")
    if not len(index.hashes):
        return []
    places = np.searchsorted(index.hashes, shingles)
    places = places[index.hashes[np.minimum(places, len(index.hashes) - 1)] == shingles]
    if not len(places):
        return []
    starts, counts = index.offsets[places], np.diff(index.offsets)[places]
    # the runs from starts[i] of counts[i] places, one after the other
    runs = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    shared = np.bincount(index.owners[runs], minlength=len(index.items))
    shares = shared / np.maximum(index.sizes, 1)
    return [(int(item), float(shares[item])) for item in np.flatnonzero(shares >= threshold)]


def abstracted(data: bytes, language: str | None) -> str:
    """The text of code without what a copyist changes first: names, comments and layout.

    Comments (by the language's grammar) and strings in three quotes go. A name stands as how many
    names back it last stood, 0 where it is new and 9 where that is farther: so Baker, "A theory of
    parameterized pattern matching" (STOC 1993), makes texts that differ by a renaming equal.
    Keywords stay, and so do names after a dot and names that at first are called, as these are
    seldom the author's own. White space goes but for one blank between two words.

    Args:
        data: The text, UTF-8.
        language: The language by its name of ``detect_language``.

    Returns:
        The text to embed in the place of the text.
    """
    text = normalised(data, ["comments"], language).decode("utf-8", "replace")
    seen: dict[str, int] = {}
    count = 0
    defines = False

    def number(found: re.Match[str]) -> str:
        nonlocal count, defines
        dot, name, call = found.groups()
        foreign = call and name not in seen and not defines
        kept = dot or foreign or name.lower() in _KEYWORDS
        defines = name in _DEFINING
        if kept:
            return found.group()
        count += 1
        back = count - seen.get(name, count)
        seen[name] = count
        return f"x{min(back, _FARTHEST)}"

    return _BLANK.sub("", " ".join(_NAME.sub(number, _LONG_STRING.sub("", text)).split()))


def nearest_items(
    vectors: npt.NDArray[np.float32], items: npt.NDArray[np.float32], threshold: float
) -> tuple[Int64, Int64, Float64]:
    """Finds the records whose nearest item by cosine similarity is near enough.

    Args:
        vectors: float32 [n, d], of the records.
        items: float32 [m, d], of the items, m >= 1.
        threshold: Least cosine similarity.

    Returns:
        Rows of ``vectors`` int64 [hits], ascending; for each its nearest row of ``items`` int64
        [hits], of several the first; and their cosine similarity float64 [hits].

    Raises:
        TypeError, ValueError: see ``shardwright.kernels.nearest``.
    """
    from shardwright import kernels

    nearest, similarity = kernels.nearest(vectors, items, "cosine")
    rows = np.flatnonzero(similarity >= threshold)
    return rows, nearest[rows], similarity[rows]


def read_items(
    benchmark: str, uri: Path, *, text: Sequence[str] = (), name: str | None = None
) -> list[Item]:
    """Reads a benchmark.

    Args:
        benchmark: What it is called.
        uri: A folder, in which each file is an item named by its path in there (hidden files and
            folders are left out); or a file ``.jsonl``, ``.jsonl.gz`` or ``.parquet``, in which
            each row is an item.
        text: Columns that hold texts or lists of texts; an item's text is all of them, joined by
            line ends in this order, nulls left out. A folder takes none.
        name: Column that names the item; its row, counted from 0, by default. A folder takes none.

    Returns:
        The items, sorted by name.

    Raises:
        UserError: there is no such file, its suffix is another, it does not read, a column is
            missing or holds something else, or there are no items.
    """
    where = f"benchmark {benchmark}: {uri}"
    if not uri.exists():
        raise UserError(f"{where} does not exist")
    try:
        found = _files(where, uri) if uri.is_dir() else _rows(where, uri, text, name)
        items = [Item(benchmark, _clean(name), _clean(text)) for name, text in found]
    except _BROKEN as error:
        raise UserError(f"{where} does not read: {error}") from error
    if not items:
        raise UserError(f"{where} holds no items")
    return sorted(items, key=lambda item: (item.name, item.text))


def _files(where: str, folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob("*"):
        place = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in place.parts):
            try:
                yield place.as_posix(), path.read_bytes().decode()
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: {place} is no UTF-8 text: take it out") from error


def _rows(
    where: str, path: Path, text: Sequence[str], name: str | None
) -> Iterator[tuple[str, str]]:
    if not path.name.endswith(_SUFFIXES):
        raise UserError(f"{where} is neither a folder nor a file {' or '.join(_SUFFIXES)}")
    if not text:
        raise UserError(f"{where}: name the columns that hold the text of an item")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    for number, row in rows:
        spot = f"{where}, row {number}"
        if not isinstance(row, dict):
            raise UserError(f"{spot} is a {type(row).__name__}, and no object")
        for column in (*text, *([] if name is None else [name])):
            if column not in row:
                raise UserError(f"{spot} has no column {column!r}; it has {', '.join(row)}")
        named = number if name is None else row[name]
        if not isinstance(named, str | int):
            raise UserError(f"{spot}: {name} is a {type(named).__name__}, and no name")
        yield str(named), "\n".join(_texts(spot, row, text))


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines):
            if line.strip():
                yield number, json.loads(line.decode("utf-8-sig"))


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    with pq.ParquetFile(path) as file:
        yield from enumerate(row for batch in file.iter_batches() for row in batch.to_pylist())


def _texts(spot: str, row: Mapping[str, Any], columns: Sequence[str]) -> Iterator[str]:
    for column in columns:
        value = row[column]
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield text
            elif text is not None:
                raise UserError(f"{spot}: {column} holds a {type(text).__name__}, and no text")


def _clean(text: str) -> str:
    """The text with half surrogates, which JSON and file names may hold, spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()
