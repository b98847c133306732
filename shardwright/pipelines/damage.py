"""The jobs of the study of damage, and of judging records by it; models are in ``quality``."""

import hashlib
import io
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.embeddings.sampling import sample_keys
from shardwright.metadata.manifest import Manifest
from shardwright.metadata.schemas import blob, views
from shardwright.pipelines.alive import LivePart, live_batches
from shardwright.pipelines.clustering import read_centroids, share_cores
from shardwright.pipelines.encoding import Encoding
from shardwright.pipelines.jobs import Output
from shardwright.pipelines.quality_sections import Study
from shardwright.pipelines.vectors import matrix
from shardwright.quality import observations
from shardwright.quality.calibrate import Observed, judge
from shardwright.quality.calibrate_copies import damaged_copies, extent, plain_copy
from shardwright.quality.windows import image_windows, text_windows

if TYPE_CHECKING:
    from shardwright.quality.detectors import Detectors
    from shardwright.quality.probe import Vectors
    from shardwright.quality.trials import Trial
    from shardwright.quality.views import Views

_ROWS = 256
CHUNK = 16
"""Records of a sample that a task damages."""
SLOWNESS = 4000
"""A byte takes them about so many times as long as in a stage that only reads and writes."""


@dataclass(frozen=True)
class Models:
    """Models of texts that a process reads from their file once; None for pictures."""

    path: Path | None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def fitted(self) -> "Views | None":
        """The models."""
        if self.path is None:
            return None
        from shardwright.quality.views import Views

        return Views.load(self.path)


@dataclass(frozen=True)
class CorruptChunk:
    """Damages some records, and embeds and observes them and their copies.

    Attributes:
        encoding: How vectors are made.
        settings: The recipe's section ``study``.
        sample: File of the sampled records, a row group for each task.
        models: Models of texts.
    """

    encoding: Encoding
    settings: Study
    sample: Path
    models: Models

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads row group ``payload["group"]``."""
        with pq.ParquetFile(self.sample) as file:
            rows = file.read_row_group(payload["group"]).to_pylist()
        first = payload["first"]
        kinds, sources, contents = [], [], []
        for place, row in enumerate(rows, first):
            for kind, content in self._variants(row):
                kinds.append(kind)
                sources.append(place)
                contents.append(content)
        owners = [rows[source - first] for source in sources]
        columns = {"kinds": np.array(kinds), "sources": np.array(sources)}
        leave(self.encoding, self.models.fitted, contents, owners, output, columns)

    def _variants(self, row: dict[str, Any]) -> list[tuple[str, bytes]]:
        """The record itself, and copies damaged in ways that its id and the seed choose."""
        modality = self.encoding.modality
        content = plain_copy(modality, row["content"])
        digest = hashlib.sha256(f"{self.settings.seed} {row['record_id']}".encode()).digest()
        copies = damaged_copies(
            modality,
            content,
            row["language"],
            random.Random(digest),
            self.settings.seed,
            count=self.settings.copies,
            dose=self.settings.dose,
            without=self.settings.without,
        )
        return [("", content), *copies]


@dataclass(frozen=True)
class TrialChunk:
    """Plants damage in some records, and embeds and observes them, and copies that teach.

    Attributes:
        encoding: How vectors are made.
        trial: What is damaged, and what teaches.
        sample: File of the sampled records, a row group for each task.
        models: Models of the trial's texts.
    """

    encoding: Encoding
    trial: "Trial"
    sample: Path
    models: Models

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads row group ``payload["group"]``."""
        with pq.ParquetFile(self.sample) as file:
            rows = file.read_row_group(payload["group"]).to_pylist()
        first = payload["first"]
        planted, kinds, sources, contents = [], [], [], []
        for record, row in enumerate(rows, first):
            drawn = record, row["record_id"]
            plain = plain_copy(self.encoding.modality, row["content"])
            damage, content = self.trial.plant(*drawn, plain, row["language"])
            copies = self.trial.teach(*drawn, content, row["language"])
            planted += [damage] * (1 + len(copies))
            sources += [record] * (1 + len(copies))
            kinds += ["", *(kind for kind, _ in copies)]
            contents += [content, *(copy for _, copy in copies)]
        columns = {
            "planted": np.array(planted),
            "kinds": np.array(kinds),
            "sources": np.array(sources),
            "extents": np.array([extent(self.encoding.modality, c) for c in contents]),
        }
        owners = [rows[source - first] for source in sources]
        leave(self.encoding, self.models.fitted, contents, owners, output, columns)


@dataclass(frozen=True)
class JudgePart:
    """Observes the live records of a part and judges them.

    Attributes:
        encoding: How vectors are made.
        models: Models of texts.
        detectors: File of the detectors.
        sizes: File of the number of live records in each cluster, int64 [k].
        driver: The process that made this.
    """

    encoding: Encoding
    models: Models
    detectors: Path
    sizes: Path
    driver: int = field(default_factory=os.getpid)

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in vars(self).items() if n != "calibrated"}

    @cached_property
    def calibrated(self) -> "Detectors":
        """The detectors, read once in a worker."""
        from shardwright.quality.detectors import Detectors

        return Detectors.load(self.detectors)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Streams ``payload["records"]`` beside its vectors and clusters into ``views``."""
        if payload["records"] is None or payload["clusters"] is None:
            return
        share_cores(self.driver)
        modality = self.encoding.modality
        names = [view.name for view in observations.views(modality)]
        schema = views(names)
        placed = pq.read_table(payload["clusters"], columns=["cluster", "distance"])
        cluster, distance = (placed.column(name).to_numpy() for name in placed.column_names)
        sizes = np.load(self.sizes)
        columns = ["record_id", blob(modality)]
        columns += ["language"] if modality == "code" else []
        held = Path(payload["embeddings"]), ["vector"], payload["without_vectors"]
        documents = np.concatenate([matrix(b.column("vector")) for b in live_batches(*held)])
        done = 0
        path = Path(payload["records"])
        for batch in live_batches(path, columns, payload["dropped"], _ROWS):
            rows = as_rows(batch, modality)
            contents = [row["content"] for row in rows]
            here = slice(done, done + len(rows))
            done += len(rows)
            vectors = embed(self.encoding, contents, documents[here])
            values = observe(modality, contents, rows, self.models.fitted)
            seen = Observed(
                vectors,
                values,
                [row["language"] for row in rows],
                sizes[cluster[here]],
                distance[here],
                np.array([len(content) for content in contents]),
            )
            probed, judged, spoke = judge(self.calibrated, seen)
            measured = [pa.array(column, pa.float64(), from_pandas=True) for column in values.T]
            output.write(
                "views",
                pa.RecordBatch.from_arrays(
                    [
                        batch.column("record_id"),
                        *measured,
                        pa.array(probed),
                        pa.array(judged),
                        pa.array(spoke, pa.string()),
                    ],
                    schema=schema,
                ),
            )


def leave(
    encoding: Encoding,
    models: "Views | None",
    contents: Sequence[bytes],
    owners: Sequence[dict[str, Any]],
    output: Output,
    columns: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Embeds and observes contents and leaves what was seen as a file, beside further columns."""
    vectors = embed(encoding, contents)
    values = observe(encoding.modality, contents, owners, models)
    path = output.file(".npz")
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **dict(columns),
        ids=np.array([owner["record_id"] for owner in owners]),
        languages=np.array([owner["language"] or "" for owner in owners]),
        lengths=np.array([len(content) for content in contents]),
        documents=vectors.documents,
        windows=vectors.windows,
        starts=vectors.starts,
        values=values,
    )
    path.write_bytes(buffer.getvalue())
    output.result = {"file": path.name}


def gather(paths: Sequence[Path]) -> dict[str, Any]:
    """What ``leave`` left in files, one after the other; ``languages`` as a list."""
    chunks = []
    shift = 0
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            chunk = dict(archive)
        chunk["starts"] = chunk["starts"] + shift
        shift += len(chunk["windows"])
        chunks.append(chunk)
    joined: dict[str, Any] = {
        name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]
    }
    joined["languages"] = [language or None for language in joined["languages"].tolist()]
    return joined


def write_sample(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes sampled records, ``CHUNK`` of them in a row group."""
    schema = pa.schema(
        [("record_id", pa.string()), ("content", pa.large_binary()), ("language", pa.string())]
    )
    staged = path.with_suffix(".staged")
    pq.write_table(pa.Table.from_pylist(list(rows), schema), staged, row_group_size=CHUNK)
    staged.rename(path)


def smallest(
    records: Manifest, live: Sequence[LivePart], size: int, seed: int, modality: str
) -> list[dict[str, Any]]:
    """The ``size`` records whose sample keys are smallest, in the order of the keys."""
    keys = np.empty(0, np.uint64)
    for part, dropped in live:
        if part.file is not None:
            for batch in live_batches(records.folder / part.file, ["record_id"], dropped, 65536):
                keys = np.concatenate([keys, sample_keys(batch.column("record_id"), seed)])
                keys = np.partition(keys, size - 1)[:size] if len(keys) > size else keys
    wanted = set(keys.tolist())
    columns = ["record_id", blob(modality)]
    columns += ["language"] if modality == "code" else []
    found: list[tuple[int, dict[str, Any]]] = []
    for part, dropped in live:
        if part.file is not None:
            for batch in live_batches(records.folder / part.file, columns, dropped, 256):
                mine = sample_keys(batch.column("record_id"), seed).tolist()
                hits = [place for place, key in enumerate(mine) if key in wanted]
                rows = as_rows(batch.take(pa.array(hits, pa.int64())), modality)
                found += [(mine[place], row) for place, row in zip(hits, rows, strict=True)]
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def as_rows(batch: pa.RecordBatch, modality: str) -> list[dict[str, Any]]:
    """Records as (record_id, content, language)."""
    contents = batch.column(blob(modality)).to_pylist()
    ids = batch.column("record_id").to_pylist()
    languages = batch.column("language").to_pylist() if modality == "code" else [None] * len(ids)
    return [
        {
            "record_id": record_id,
            "content": content.encode() if modality == "code" else content,
            "language": language,
        }
        for record_id, content, language in zip(ids, contents, languages, strict=True)
    ]


def embed(
    encoding: Encoding,
    contents: Sequence[bytes],
    documents: npt.NDArray[np.float32] | None = None,
) -> "Vectors":
    """Vectors of contents and of their windows; those of the contents may be known."""
    from shardwright.quality.probe import Vectors

    given: list[Any] = list(contents)
    pieces: list[list[Any]]
    if encoding.modality == "code":
        given = [content.decode() for content in contents]
        pieces = [list(text_windows(text)) for text in given]
    else:
        pieces = [list(image_windows(content)) for content in contents]
    if documents is None:
        documents = np.asarray(encoding.encoder.encode(given), np.float32)
    windows = [piece for several in pieces for piece in several]
    counts = np.array([len(several) for several in pieces])
    found = np.asarray(encoding.encoder.encode(windows), np.float32)
    return Vectors(documents, found, np.cumsum(counts) - counts)


def observe(
    modality: str,
    contents: Sequence[bytes],
    rows: Sequence[dict[str, Any]],
    models: "Views | None",
) -> npt.NDArray[np.float64]:
    """The views float64 [n, m], NaN where one does not apply."""
    names = [view.name for view in observations.views(modality)]
    values = np.full((len(contents), len(names)), np.nan)
    for place, (content, row) in enumerate(zip(contents, rows, strict=True)):
        if modality == "code":
            assert models is not None
            found = observations.observe_text(content, row["language"], models, row["record_id"])
        else:
            found = observations.observe_image(content)
        values[place] = [np.nan if found[name] is None else found[name] for name in names]
    return values


def assigned(
    vectors: npt.NDArray[np.float32], centroids: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The nearest of a table of centroids to each vector, and its distance."""
    from shardwright.embeddings.kmeans import KMeans

    centres = read_centroids(centroids)
    return KMeans(len(centres), device="cpu").assign(vectors, centres)
