"""The jobs of the near duplicates: signatures, bands, candidate pairs, verified pairs.

Contents are read once, for the signatures. From there on ids, hashes and sketches move, and only
through bucketed tables: each part's band keys by bucket, each bucket's pairs, and the pairs of each
part with the signatures of the parts that they lead to.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shardwright.metadata.bucketed import open_listed, write_bucketed
from shardwright.metadata.files import fingerprint
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import SKETCH, blob, signatures
from shardwright.metadata.tables import read_batches
from shardwright.pipelines.jobs import Output, Task
from shardwright.pipelines.sections import Near
from shardwright.quality.candidates import hamming, hamming_keys, pairs_of
from shardwright.quality.minhash import band_keys, banding, sketch
from shardwright.quality.shingles import jaccards, shingle_hashes

VERSION = "1"
BUCKET_ROWS = 2_000_000
"""Rows of a bucket of bands, on average and at most."""
_HOT = 256
"""Records that share a key and are compared each with each."""
_ROWS = 256
_BANDS = pa.schema([("key", pa.uint64()), ("vertex", pa.int64()), ("check", pa.uint64())])
_PAIRS = pa.schema([("a", pa.int64()), ("b", pa.int64())])
_EDGES = _PAIRS.append(pa.field("similarity", pa.float64()))


@dataclass(frozen=True)
class SignPart:
    """Reads the contents of a part and writes what tells duplicates.

    Attributes:
        modality: ``code`` or ``image``.
        normalise: Steps before the hash for exact duplicates; none makes no hash.
        ngram: Tokens of a shingle of code; None makes no signature for near duplicates.
    """

    modality: str
    normalise: tuple[str, ...]
    ngram: int | None

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` into ``signatures``."""
        if payload["records"] is None:
            return
        Image.MAX_IMAGE_PIXELS = None  # ingest has decoded them whole, under the recipe's limit
        columns = ["record_id", blob(self.modality)]
        columns += ["language"] if self.modality == "code" else []
        sign = self._texts if self.modality == "code" else self._images
        for batch in read_batches(Path(payload["records"]), columns, rows=_ROWS):
            contents = [value.as_buffer().to_pybytes() for value in batch.column(1)]
            arrays = [batch.column("record_id"), *sign(batch, contents)]
            schema = signatures(self.modality)
            output.write("signatures", pa.RecordBatch.from_arrays(arrays, schema=schema))

    def _texts(self, batch: pa.RecordBatch, contents: list[bytes]) -> list[pa.Array]:
        from hashlib import sha256

        from shardwright.quality.normalise import normalised

        schema, count = signatures("code"), len(contents)
        languages = batch.column("language").to_pylist()
        hashes: list[str | None] = [None] * count
        if self.normalise:
            hashes = [
                sha256(normalised(data, self.normalise, language)).hexdigest()
                for data, language in zip(contents, languages, strict=True)
            ]
        if self.ngram is None:
            return [
                pa.array(hashes, pa.string()),
                *(pa.nulls(count, field.type) for field in list(schema)[2:]),
            ]
        shingles = [shingle_hashes(data, self.ngram) for data in contents]
        sketches = [sketch(values, SKETCH) if len(values) else None for values in shingles]
        keys = [
            sha256(values.tobytes()).hexdigest() if len(values) else None for values in shingles
        ]
        return [
            pa.array(hashes, pa.string()),
            pa.array(keys, pa.string()),
            pa.array(sketches, schema.field("sketch").type),
            pa.array(shingles, schema.field("shingles").type),
        ]

    def _images(self, batch: pa.RecordBatch, contents: list[bytes]) -> list[pa.Array]:
        from shardwright.quality.perceptual import perceptual_hash, pixel_sha256

        none = [None] * len(contents)
        pixels = [pixel_sha256(data) for data in contents] if self.normalise else none
        hashes = none if self.ngram is None else [perceptual_hash(data) for data in contents]
        keys = [None if value is None else f"{value:016x}" for value in hashes]
        return [
            pa.array(pixels, pa.string()),
            pa.array(keys, pa.string()),
            pa.array(hashes, pa.uint64()),
        ]


def sign_tasks(records: Manifest, settings: dict[str, Any]) -> Iterator[Task]:
    """A part of signatures for each part of records, whoever is dropped."""
    for part in records.parts():
        if part.key != "empty":
            file = None if part.file is None else str(records.folder / part.file)
            work = fingerprint(job="sign", version=VERSION, records=part.sha256, **settings)
            yield Task(part.key, work, {"records": file}, part.bytes)


@dataclass(frozen=True)
class BandPart:
    """Writes the band keys of a part's vertices by bucket.

    Attributes:
        modality: ``code`` or ``image``.
        near: What counts as near.
        vertices: File of (part, row, vertex) of the records that are compared.
        buckets: How many buckets the keys go to, a power of two.
    """

    modality: str
    near: Near
    vertices: Path
    buckets: int

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["signatures"]``."""
        places = pq.read_table(self.vertices, filters=[("part", "=", payload["part"])])
        rows, vertices = places.column("row").to_numpy(), places.column("vertex").to_numpy()
        keys, owners, checks = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], []
        offset = 0
        for batch in read_batches(Path(payload["signatures"]), self._columns(), rows=4096):
            here = slice(*np.searchsorted(rows, [offset, offset + batch.num_rows]))
            found, check, valid = self._keys(batch.take(pa.array(rows[here] - offset)))
            offset += batch.num_rows
            keys.append(found.ravel())
            owners.append(np.repeat(vertices[here][valid], found.shape[1]))
            checks.append(np.repeat(check, found.shape[1]))
        columns = [np.concatenate(keys), np.concatenate(owners), np.concatenate([*checks, keys[0]])]
        mixed = (columns[0] * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        buckets = (mixed % np.uint64(self.buckets)).astype(np.int32)
        path = output.file(".bands.parquet")
        write_bucketed(path, pa.table(columns, schema=_BANDS), buckets)
        output.result = {"file": path.name}

    def _columns(self) -> list[str]:
        return ["sketch", "shingles"] if self.modality == "code" else ["perceptual_hash"]

    def _keys(
        self, batch: pa.RecordBatch
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Keys [n, m] and check [n] of the rows that have a signature, and which rows those are."""
        column = batch.column(0)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        column = column.drop_null()
        if self.modality == "image":
            hashes = column.to_numpy()
            return hamming_keys(hashes, self.near.radius), hashes, valid
        sketches = column.flatten().to_numpy().reshape(-1, SKETCH)
        lengths = batch.column(1).filter(pa.array(valid)).value_lengths().to_numpy()
        keys = band_keys(sketches, banding(self.near.threshold, SKETCH))
        return keys, lengths.astype(np.uint64), valid


@dataclass(frozen=True)
class PairBucket:
    """Pairs the vertices of a bucket that share a key and may be near by what the keys carry.

    Attributes:
        modality: ``code`` or ``image``.
        near: What counts as near.
        settled: Vertices below belong to earlier curations: they are not compared with each other.
        listing: JSON file of the bucketed files.
    """

    modality: str
    near: Near
    settled: int
    listing: Path

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads bucket ``payload["bucket"]``."""
        rows = open_listed(self.listing).read(payload["bucket"])
        keys, vertices, check = (rows.column(name).to_numpy() for name in _BANDS.names)
        a, b, hot = pairs_of(keys, vertices, _HOT)
        known, first = np.unique(vertices, return_index=True)
        left, right = (check[first][np.searchsorted(known, side)] for side in (a, b))
        if self.modality == "image":
            near = hamming(left, right) <= self.near.radius
        else:  # of the smaller set and the larger one: their Jaccard similarity is no greater
            smaller, larger = np.minimum(left, right), np.maximum(left, right)
            near = smaller >= self.near.threshold * larger
        near &= b >= self.settled  # a < b, so that both are of earlier curations otherwise
        path = output.file(".pairs.parquet")
        pq.write_table(pa.table([a[near], b[near]], schema=_PAIRS), path)
        output.result = {"file": path.name, "hot": hot, "candidates": int(near.sum())}


@dataclass(frozen=True)
class VerifyPart:
    """Measures pairs by their whole signatures.

    Attributes:
        modality: ``code`` or ``image``.
        least: Similarity from which on a pair counts.
        pairs: File of (part_a, row_a, part_b, row_b, a, b), sorted.
        files: JSON file of the parts of signatures.
    """

    modality: str
    least: float
    pairs: Path
    files: Path

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Measures the pairs from ``payload["part"]`` to each of ``payload["others"]``."""
        files = [Path(name) for name in json.loads(self.files.read_text())]
        part = payload["part"]
        path = output.file(".edges.parquet")
        with pq.ParquetWriter(path, _EDGES) as writer:
            for other in payload["others"]:
                which = [("part_a", "=", part), ("part_b", "=", other)]
                pairs = pq.read_table(self.pairs, filters=which)
                left = self._read(files[part], pairs.column("row_a").to_numpy())
                right = self._read(files[other], pairs.column("row_b").to_numpy())
                similarity = self._similarity(*left, *right)
                near = similarity >= self.least
                columns = [pairs.column(name).to_numpy()[near] for name in _PAIRS.names]
                writer.write_table(pa.table([*columns, similarity[near]], schema=_EDGES))
        output.result = {"file": path.name}

    def _read(self, path: Path, rows: np.ndarray[Any, Any]) -> tuple[pa.Array, Any]:
        """The signatures of the distinct rows, and which of them each row has."""
        column = "shingles" if self.modality == "code" else "perceptual_hash"
        distinct, place = np.unique(rows, return_inverse=True)
        return read_rows(path, column, distinct), place

    def _similarity(
        self, left: pa.Array, left_place: Any, right: pa.Array, right_place: Any
    ) -> np.ndarray[Any, Any]:
        if self.modality == "image":
            first, second = left.to_numpy()[left_place], right.to_numpy()[right_place]
            return 1 - hamming(first, second) / 64
        both = pa.concat_arrays([left, right])
        offsets, values = both.offsets.to_numpy().astype(np.int64), both.values.to_numpy()
        return jaccards(values, offsets, left_place, len(left) + right_place)


def read_rows(path: Path, column: str, rows: np.ndarray[Any, Any]) -> pa.Array:
    """A column's values in the given rows (ascending) of a Parquet file; reads their row groups."""
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        group = np.searchsorted(starts, rows, side="right") - 1
        needed, place = np.unique(group, return_inverse=True)
        begins = np.concatenate([[0], np.cumsum(np.array(sizes)[needed])])
        table = file.read_row_groups(needed.tolist(), columns=[column], use_threads=False)
    within = begins[place] + rows - starts[group]
    return table.column(column).take(pa.array(within)).combine_chunks()


def part_tasks(name: str, work: str, files: Sequence[Path | None]) -> Iterator[Task]:
    """A task for each part of signatures that has rows."""
    for part, file in enumerate(files):
        if file is not None:
            payload = {"part": part, "signatures": str(file)}
            yield Task(f"{part:08d}", fingerprint(job=name, work=work, part=part), payload)


def bucket_tasks(work: str, buckets: Iterable[int]) -> Iterator[Task]:
    """A task for each bucket."""
    for bucket in buckets:
        fingerprinted = fingerprint(job="pairs", work=work, bucket=bucket)
        yield Task(f"{bucket:08d}", fingerprinted, {"bucket": bucket})


def verify_tasks(name: str, work: str, others: dict[int, list[int]]) -> Iterator[Task]:
    """A task for each part that pairs lead from."""
    for part, leads_to in sorted(others.items()):
        payload = {"part": part, "others": sorted(leads_to)}
        yield Task(f"{part:08d}", fingerprint(job=name, work=work, part=part), payload)
