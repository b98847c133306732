"""What an input of each kind is, how one is made, and what must be told of it.

Each input is read by the functions that a curation reads it with: the source's listing, the plan's
parts, and ``ingest``. What is accepted goes on to what later stages do in the worker itself.
"""

import collections
import functools
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from fuzz import archives, pictures, seeds, tables, trees
from fuzz.mutations import MUTATIONS, mutated, mutated_text

from shardwright.embeddings.descriptor import DescriptorEncoder
from shardwright.embeddings.hashing import HashingEncoder
from shardwright.errors import DataError, UserError
from shardwright.metadata.layout import Layout
from shardwright.metadata.provenance import SOURCE_CROISSANT, source
from shardwright.pipelines.ingest import ingest
from shardwright.pipelines.parts import plan_parts
from shardwright.pipelines.recipe import load_recipe
from shardwright.pipelines.sections import Limits, Source
from shardwright.pipelines.sources import open_source
from shardwright.pipelines.sources.croissant_document import lineage_document
from shardwright.quality.filters import filters, measure_code, measure_image
from shardwright.quality.heterogeneity.provenance import read_provenance
from shardwright.quality.language import detect_language
from shardwright.quality.normalise import STEPS, normalised
from shardwright.quality.perceptual import perceptual_hash, pixel_sha256
from shardwright.quality.sandbox import ImageDecoder
from shardwright.quality.shingles import shingle_hashes
from shardwright.service.samples import thumbnail

LIMITS = Limits(max_bytes=300_000, max_pixels=4_000_000, decode_seconds=20)
_MOST_MESSAGE = 10_000  # a document may have long names


class UntoldError(Exception):
    """Nothing is told of an input, or what is told cannot be."""


@dataclass
class Told:
    """What is told of an input.

    Attributes:
        records: Number of records.
        reasons: Number of rejects by reason.
        refused: ``UserError`` or ``DataError`` where the whole input is refused.
        contents: What the records hold, with their language.
    """

    records: int = 0
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    refused: str | None = None
    contents: list[tuple[bytes, str | None]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Records and rejects."""
        return self.records + self.reasons.total()

    @property
    def outcome(self) -> str:
        """In a word or two."""
        if self.refused is not None:
            return self.refused
        if self.records:
            return "records and rejects" if self.reasons else "records"
        return "rejects" if self.reasons else "nothing in it"


Files = dict[str, bytes]


@dataclass(frozen=True)
class Kind:
    """One kind of source.

    Attributes:
        make: An input as files by name, from a generator.
        read: Reads the input that lies in a folder; raises whatever the code raises.
    """

    make: Callable[[random.Random], Files]
    read: Callable[[Path, Files, ImageDecoder], Told]


def read_input(kind: Kind, folder: Path, files: Files, decoder: ImageDecoder) -> Told:
    """Lays an input into a folder and reads it; a refusal in one line is an answer like others.

    Raises:
        UntoldError: Nothing is told, or an answer is not as a user should get it.
    """
    _empty(folder)
    for name, data in files.items():
        path = os.path.join(os.fsencode(folder), name.encode("utf-8", "surrogateescape"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    try:
        return kind.read(folder, files, decoder)
    except (UserError, DataError) as error:
        text = str(error)
        if "\n" in text or not 0 < len(text) <= _MOST_MESSAGE:
            raise UntoldError(f"a message of {len(text)} characters: {text[:200]!r}") from None
        return Told(refused=type(error).__name__)


def _empty(folder: Path) -> None:
    """Leaves no file below a folder; folders stay, which are slow to remove."""
    for place, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            os.unlink(os.path.join(place, name))


def _through(settings: Source, modality: str, decoder: ImageDecoder) -> Told:
    """Everything that a source tells, by way of the plan."""
    told = Told()
    opened = open_source(settings, LIMITS.max_bytes, modality)
    paths: set[str] = set()
    for _, units in plan_parts(opened.units(None), LIMITS.part_bytes):
        listed = json.loads(json.dumps([vars(unit) for unit in units]))  # as a plan holds them
        units = [
            replace(unit, problem=tuple(one["problem"]) if one["problem"] else None)
            for unit, one in zip(units, listed, strict=True)
        ]
        found = ingest(
            opened, units, source_name="fuzz", modality=modality, limits=LIMITS, decoder=decoder
        )
        for table, batch in found:
            batch.validate(full=True)
            if table == "rejects":
                told.reasons.update(batch["reason"].to_pylist())
                for text in batch["message"].to_pylist():
                    if "\n" in text or not 0 < len(text) <= _MOST_MESSAGE:
                        raise UntoldError(f"a reject says {text[:200]!r}")
                continue
            names = batch["path"].to_pylist()
            if paths.intersection(names) or len(set(names)) < len(names):
                raise UntoldError("two records have one path")
            paths.update(names)
            told.records += batch.num_rows
            blob = batch["content" if modality == "code" else "image"].to_pylist()
            words = batch["language"].to_pylist() if modality == "code" else [None] * len(blob)
            told.contents += [
                (data.encode() if isinstance(data, str) else data, word)
                for data, word in zip(blob, words, strict=True)
            ]
    return told


def _expect(told: Told, rows: int | None) -> None:
    """Raises unless so many rows are told; None asks for one or more."""
    if told.rows == rows or (rows is None and told.rows):
        return
    raise UntoldError(f"{told.rows} rows are told, {'1 or more' if rows is None else rows} should")


_NAMES = (*(f"x{suffix}" for suffix in (".py", ".h", ".m", ".pl", ".v", ".html", ".c", ".js", "")),)
_NAMES += ("Makefile", "x.unknown", "\udcff.py", "line\nfeed.c", "x" * 250, "#x!y.py", "x.min.js")


def _make_code(rng: random.Random) -> Files:
    (name, data), (_, other) = (seeds.pick(rng, seeds.sources()) for _ in range(2))
    change = mutated if rng.random() < 0.3 else mutated_text
    name = name if rng.random() < 0.7 else seeds.pick(rng, _NAMES)
    return {name: change(rng, data, other)}


def _read_code(folder: Path, _: Files, decoder: ImageDecoder) -> Told:
    told = _through(Source(kind="files", uri=str(folder)), "code", decoder)
    _expect(told, 1)
    for data, language in told.contents:
        with _accepted():
            measure_code(tuple(filters("code")), data, language)
            shingle_hashes(normalised(data, STEPS, language), 5)
            _hashing().encode([data.decode()])
    return told


@functools.cache
def _hashing() -> HashingEncoder:
    return HashingEncoder()


def warm_up() -> None:
    """Loads what the readers load at first use, so that children begin with it.

    But for what starts threads, which a child would not have.
    """
    by_suffix = {name.rpartition(".")[2]: data for name, data in seeds.sources()}
    for suffix, data in by_suffix.items():
        language = detect_language(f"x.{suffix}", data.decode("utf-8", "replace"))
        measure_code(tuple(filters("code")), data, language)
    _hashing()
    tables.made_parquet(random.Random(0), list(seeds.rows()))


_OF_PICTURES = (pictures.png_chunk, pictures.jpeg_segment, pictures.riff_chunk)
_BY_HEAD = {
    b"\x89PNG": _OF_PICTURES[:1],
    b"RIFF": _OF_PICTURES[2:],
    b"\xff\xd8\xff": _OF_PICTURES[1:2],
}
_BY_HEAD |= dict.fromkeys((b"II*\0", b"MM\0*"), (pictures.tiff_entry,))


def _make_picture(rng: random.Random) -> Files:
    data, other = (seeds.pick(rng, seeds.pictures()) for _ in range(2))
    own = next((ways for head, ways in _BY_HEAD.items() if data.startswith(head)), ())
    ways = (*own, pictures.header_number) if rng.random() < 0.7 else MUTATIONS
    return {"x.img": mutated(rng, data, other, ways)}


def _read_picture(folder: Path, _: Files, decoder: ImageDecoder) -> Told:
    told = _through(Source(kind="files", uri=str(folder)), "image", decoder)
    _expect(told, 1)
    for data, _unused in told.contents:
        with _accepted():
            _use_picture(data)
    return told


def _use_picture(data: bytes) -> None:
    """What later stages do with a picture."""
    measure_image(tuple(filters("image")), data)
    read_provenance(data)
    perceptual_hash(data)
    pixel_sha256(data)
    thumbnail(data)
    DescriptorEncoder().encode([data])


@contextmanager
def _accepted() -> Iterator[None]:
    """What has become a record stops no later stage."""
    try:
        yield
    except DataError as error:
        raise UntoldError(f"a record that a later stage cannot read: {error}") from error


_OF_ZIPS = (archives.zip_field, archives.zip_field, archives.zip_names, archives.zip_nested)
_OF_TARS = tuple(
    archives.compressed(change)
    for change in (
        archives.tar_field,
        archives.tar_field,
        archives.tar_extended,
        archives.tar_zeroed,
    )
)


def _make_archive(rng: random.Random) -> Files:
    (name, data), (_, other) = (seeds.pick(rng, seeds.archives()) for _ in range(2))
    own = _OF_ZIPS if name.endswith(".zip") else _OF_TARS
    return {name: mutated(rng, data, other, own if rng.random() < 0.7 else MUTATIONS)}


def _read_archive(folder: Path, files: Files, decoder: ImageDecoder) -> Told:
    told = _through(Source(kind="archive", uri=str(folder)), "code", decoder)
    (data,) = files.values()
    if told.rows == 0 and not _holds_nothing(data):
        raise UntoldError("an archive that holds something, of which nothing is told")
    return told


def _holds_nothing(data: bytes) -> bool:
    """Whether an archive has no members, as far as can be told without reading it as one."""
    for inflate in (archives.gzip.decompress, archives.bz2.decompress, archives.lzma.decompress):
        try:
            data = inflate(data)
        except (OSError, EOFError, ValueError, archives.lzma.LZMAError, archives.zlib.error):
            continue
    folders_only = b"PK\x01\x02" not in data and b"PK\x03\x04" not in data
    return not any(data) or (data[:4] == b"PK\x05\x06" and folders_only)


def _make_parquet(rng: random.Random) -> Files:
    some = list(seeds.rows())[: rng.randint(1, 12)]
    data = tables.made_parquet(rng, some)
    other = data[::-1]
    ways = rng.choice(((tables.parquet_footer,), (tables.parquet_pages,), MUTATIONS))
    return {"x.parquet": mutated(rng, data, other, ways)}


_KEEP = ("stars", "when", "tree", "map", "license")


def _read_parquet(folder: Path, files: Files, decoder: ImageDecoder) -> Told:
    (data,) = files.values()
    try:
        footer = pq.ParquetFile(io.BytesIO(data))
        stated, names = footer.metadata.num_rows, set(footer.schema_arrow.names)
    except Exception:  # what the reader raises is the source's to sort out
        stated, names = None, set()
    keep = [name for name in _KEEP if name in names]
    told = _through(Source(kind="parquet", uri=str(folder), keep=keep), "code", decoder)
    whole = not told.reasons["unreadable_table"] and not told.reasons["schema_mismatch"]
    _expect(told, stated if whole and stated is not None else None)
    return told


def _make_lines(rng: random.Random) -> Files:
    lines = [json.dumps(row).encode() for row in seeds.rows()[: rng.randint(1, 12)]]
    data = b"\n".join(lines)
    ways = (tables.json_line,) if rng.random() < 0.7 else MUTATIONS
    return {"x.jsonl": mutated(rng, data, b"\n".join(reversed(lines)), ways)}


def _read_lines(folder: Path, files: Files, decoder: ImageDecoder) -> Told:
    settings = Source(kind="jsonl", uri=str(folder), keep=["stars", "license"])
    told = _through(settings, "code", decoder)
    (data,) = files.values()
    if data[:2] == b"\x1f\x8b":
        _expect(told, None)
    else:
        _expect(told, sum(1 for line in data.split(b"\n") if line and not line.isspace()))
    return told


_WORDS: list[Any] = [
    "set",
    "rows",
    "rows/text",
    {"@id": "set"},
    {"@id": "rows/lang"},
    "data/*",
    "*",
]
_WORDS += [
    {"fileProperty": "content"},
    {"column": "text"},
    {"regex": "(.*)"},
    {"jsonPath": "$.text"},
]


def _make_croissant(rng: random.Random) -> Files:
    document, files = seeds.pick(rng, seeds.datasets())
    files = dict(files)
    if rng.random() < 0.2:
        name = rng.choice(sorted(files))
        files[name] = mutated(rng, files[name], b"")
    text = json.dumps(document).encode()
    if rng.random() < 0.8:
        text = trees.dumped(trees.tree_mutated(rng, document, _WORDS))
    else:
        text = mutated(rng, text, text)
    return {**files, "croissant.json": text}


def _read_croissant(folder: Path, _: Files, decoder: ImageDecoder) -> Told:
    document = folder / "croissant.json"
    settings = Source(kind="croissant", uri=str(document), keep=[])
    told = _through(settings, "code", decoder)
    (folder / SOURCE_CROISSANT).write_text(lineage_document(str(document)))
    source(Layout(folder), {"source": settings.model_dump(), "name": "fuzz"})
    return told


def _make_recipe(rng: random.Random) -> Files:
    data, other = (seeds.pick(rng, seeds.recipes()) for _ in range(2))
    which = rng.random()
    if which < 0.45:
        data = mutated(rng, data, other, (trees.yaml_mutated,))
    elif which < 0.8:
        tree = yaml.safe_load(data)
        data = trees.dumped(trees.tree_mutated(rng, tree))  # JSON is YAML
    else:
        data = mutated(rng, data, other)
    overrides = []
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        key = rng.choice(("limits.max_bytes", "source.include", "name", "prune", "a.b.c", "", "."))
        value = mutated_text(rng, rng.choice((b"1MB", b"[a, b]", b"{a: 1}")), other[:200])
        overrides.append(f"{key}{rng.choice(('=', '=', '=', ''))}{value.decode()}")
    return {"recipe.yaml": data, "overrides.json": json.dumps(overrides).encode()}


def _read_recipe(folder: Path, files: Files, _: ImageDecoder) -> Told:
    overrides = json.loads(files["overrides.json"])
    recipe = load_recipe(folder / "recipe.yaml", overrides, str(folder))
    recipe.model_dump_json()
    opened = open_source(recipe.source, recipe.limits.max_bytes, recipe.modality)
    for _, units in plan_parts(opened.units(None), recipe.limits.part_bytes):
        list(opened.read(units))
    return Told(refused="accepted")


KINDS: dict[str, Kind] = {
    "files": Kind(_make_code, _read_code),
    "archives": Kind(_make_archive, _read_archive),
    "parquet": Kind(_make_parquet, _read_parquet),
    "jsonl": Kind(_make_lines, _read_lines),
    "images": Kind(_make_picture, _read_picture),
    "croissant": Kind(_make_croissant, _read_croissant),
    "recipes": Kind(_make_recipe, _read_recipe),
}


def inputs(kind: str, seed: int, numbers: range) -> Iterator[tuple[int, Files]]:
    """Inputs by their numbers: the same number is the same input in every campaign of a seed."""
    for number in numbers:
        yield number, KINDS[kind].make(random.Random(f"{seed}:{kind}:{number}"))
