"""The jobs of the study of damage, and of judging records by it; models are in ``quality``."""

import hashlib
import io
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from shardwright.metadata.schemas import blob, views
from shardwright.pipelines.alive import live_batches
from shardwright.pipelines.clustering import read_centroids, share_cores
from shardwright.pipelines.encoding import Encoding
from shardwright.pipelines.jobs import Output
from shardwright.pipelines.sections import Study
from shardwright.pipelines.vectors import matrix
from shardwright.quality import observations
from shardwright.quality.windows import image_windows, text_windows

if TYPE_CHECKING:
    from shardwright.quality.detectors import Detectors
    from shardwright.quality.probe import Vectors
    from shardwright.quality.views import Views

REFERENCE = 4
"""Of the study's records every fourth stays as it is, to tell what windows are like."""
EXTRA = ("scip_probe", "rare", "far", "length")
"""Views of ``damage`` beside those of ``observations``: the probe, the cluster, and the length."""
_ROWS = 256
_LONGEST = 1024


@dataclass(frozen=True)
class CorruptChunk:
    """Damages some records, and embeds and observes them and their copies.

    Attributes:
        encoding: How vectors are made.
        settings: The recipe's section ``study``.
        sample: File of the sampled records, a row group for each task.
        models: File of the models of texts; None for pictures.
    """

    encoding: Encoding
    settings: Study
    sample: Path
    models: Path | None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "fitted"}

    @cached_property
    def fitted(self) -> "Views | None":
        """The models, read once in a worker."""
        return read_models(self.models)

    def __call__(self, payload: dict[str, Any], output: Output) -> None:
        """Reads row group ``payload["group"]``."""
        with pq.ParquetFile(self.sample) as file:
            rows = file.read_row_group(payload["group"]).to_pylist()
        first = payload["first"]
        kinds, sources, contents = [], [], []
        for place, row in enumerate(rows, first):
            for kind, content in self._variants(row, damage=place % REFERENCE != 0):
                kinds.append(kind)
                sources.append(place)
                contents.append(content)
        owners = [rows[source - first] for source in sources]
        vectors = embed(self.encoding, contents)
        values = observe(self.encoding.modality, contents, owners, self.fitted)
        path = output.file(".npz")
        buffer = io.BytesIO()
        np.savez(
            buffer,
            kinds=np.array(kinds),
            sources=np.array(sources),
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

    def _variants(self, row: dict[str, Any], damage: bool) -> list[tuple[str, bytes]]:
        """The record itself, and copies damaged in ways that its id and the seed choose."""
        from shardwright.quality.corruptions import corruptions

        modality = self.encoding.modality
        content = row["content"] if modality == "code" else _plain(row["content"])
        variants = [("", content)]
        digest = hashlib.sha256(f"{self.settings.seed} {row['record_id']}".encode()).digest()
        names = [
            kind.name
            for kind in corruptions(modality).values()
            if kind.family not in self.settings.without
        ]
        random.Random(digest).shuffle(names)
        for name in names if damage else ():
            damaged = _damaged(modality, name, content, row["language"], self.settings)
            if damaged is not None:
                variants.append((name, damaged))
            if len(variants) > self.settings.copies:
                break
        return variants


@dataclass(frozen=True)
class JudgePart:
    """Observes the live records of a part and judges them.

    Attributes:
        encoding: How vectors are made.
        models: File of the models of texts; None for pictures.
        detectors: File of the detectors.
        sizes: File of the number of live records in each cluster, int64 [k].
        driver: The process that made this.
    """

    encoding: Encoding
    models: Path | None
    detectors: Path
    sizes: Path
    driver: int = field(default_factory=os.getpid)

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in vars(self).items() if n not in ("fitted", "calibrated")}

    @cached_property
    def fitted(self) -> "Views | None":
        """The models, read once in a worker."""
        return read_models(self.models)

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
            values = observe(modality, contents, rows, self.fitted)
            probed, judged, spoke = judge(
                self.calibrated,
                vectors,
                values,
                [row["language"] for row in rows],
                sizes[cluster[here]],
                distance[here],
                np.array([len(content) for content in contents]),
            )
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


def judge(
    detectors: "Detectors",
    vectors: "Vectors",
    values: npt.NDArray[np.float64],
    languages: Sequence[str | None],
    sizes: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float64],
    lengths: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[str | None]]:
    """Log odds of the probe and of ``damage``, and the view that says most for damage."""
    probed = detectors.probe.judge(vectors)
    full = with_extra(values, probed, sizes, distances, lengths)
    added = detectors.damage.contributions(full, languages)
    judged = added.sum(axis=1) + detectors.damage.bias
    most = added.argmax(axis=1)
    names = detectors.damage.names
    spoke = [names[j] if added[i, j] > 0 else None for i, j in enumerate(most)]
    return probed, judged, spoke


def with_extra(
    values: npt.NDArray[np.float64],
    probed: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float64],
    lengths: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """The views of ``observations`` and those of ``EXTRA`` side by side."""
    extra = [probed, -np.log(sizes), distances, np.log1p(lengths)]
    return np.column_stack([values, *extra])


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


def read_models(path: Path | None) -> "Views | None":
    """The models of texts."""
    if path is None:
        return None
    from shardwright.quality.views import Views

    return Views.load(path)


def assigned(
    vectors: npt.NDArray[np.float32], centroids: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The nearest of a table of centroids to each vector, and its distance."""
    from shardwright.embeddings.kmeans import KMeans

    centres = read_centroids(centroids)
    return KMeans(len(centres), device="cpu").assign(vectors, centres)


def _damaged(
    modality: str, name: str, content: bytes, language: str | None, settings: Study
) -> bytes | None:
    from shardwright.quality.corruptions import corrupt_image, corrupt_text

    if modality == "code":
        damaged: bytes | None = corrupt_text(name, content, language, settings.seed, settings.dose)
        return damaged
    pixels = corrupt_image(name, _pixels(content), settings.seed, settings.dose)
    return None if pixels is None else _encoded(pixels)


def _plain(data: bytes) -> bytes:
    """A picture as its damaged copies come: small, and without a trace of how it was encoded."""
    from shardwright.embeddings.pixels import decode_rgb

    image = decode_rgb(data)
    image.thumbnail((_LONGEST, _LONGEST))
    return _encoded(np.asarray(image))


def _pixels(data: bytes) -> npt.NDArray[np.uint8]:
    from shardwright.embeddings.pixels import decode_rgb

    return np.asarray(decode_rgb(data))


def _encoded(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
