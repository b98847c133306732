"""Whether an item is in a curation already: byte for byte, normalised, or nearly."""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardwright.metadata.layout import Layout
from shardwright.metadata.schemas import SKETCH
from shardwright.quality.language import detect_language
from shardwright.quality.minhash import Banding, band_keys, banding, sketch
from shardwright.quality.normalise import normalised
from shardwright.quality.perceptual import perceptual_hash, pixel_sha256
from shardwright.quality.shingles import jaccards, shingle_hashes
from shardwright.service.rows import HeldRows

_MOST = 20
"""Matches of a kind."""
_BATCH = 10_000
_HASH = np.dtype("S32")

UInt64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Match:
    """A record that an item is a copy of.

    Attributes:
        kind: ``exact`` (equal bytes), ``normalised`` (equal after the recipe's steps, or equal
            pixels), ``near`` (the recipe's measure of near duplicates) or ``semantic``.
        record_id: Of the record.
        similarity: 0 to 1.
    """

    kind: str
    record_id: str
    similarity: float


@dataclass(frozen=True)
class _Hashes:
    """SHA-256 hashes, sorted, and the records that have them."""

    values: npt.NDArray[np.bytes_]
    owners: npt.NDArray[np.int64]

    def find(self, digest: bytes) -> npt.NDArray[np.int64]:
        wanted = np.array(digest, dtype=_HASH)
        ends = (np.searchsorted(self.values, wanted, side) for side in ("left", "right"))
        found: npt.NDArray[np.int64] = self.owners[slice(*ends)]
        return found


class Presence:
    """The hashes and signatures of a curation, held in memory once they are asked for.

    A record takes 40 bytes for its hash, as much again for the normalised one, and for near
    duplicates 12 bytes a band of code (some 60 bands) or 8 bytes an image.
    """

    def __init__(
        self,
        layout: Layout,
        connection: duckdb.DuckDBPyConnection,
        rows: HeldRows,
        recipe: Mapping[str, Any],
    ) -> None:
        """Takes the recipe's section ``duplicates`` as the run resolved it."""
        self._rows = rows
        self._connection = connection
        self._modality = str(recipe["modality"])
        self._settings: dict[str, Any] = recipe.get("duplicates") or {}
        self._signatures = layout.manifest("signatures")
        self._lock = threading.RLock()

    @property
    def kinds(self) -> list[str]:
        """What can be told of this curation."""
        return [
            "exact",
            *(["normalised"] if self._steps else []),
            *(["near"] if self._near else []),
        ]

    def find(self, data: bytes, language: str | None = None) -> list[Match]:
        """Records that are copies of an item, the surest first; at most 20 of a kind.

        Args:
            data: Of a text in UTF-8, or of an image that decodes.
            language: Of a text, for steps of normalisation that depend on it; empty is none, and
                None detects it.
        """
        with self._lock:  # the first who asks waits for it, and so do all others
            self._made()
        found: dict[int, tuple[str, float]] = {}
        for kind, places, similarities in self._matches(data, language):
            for place, similarity in zip(places, similarities, strict=True):
                found.setdefault(int(place), (kind, similarity))
        ids = self._ids.take(pa.array(found, pa.int64())).to_pylist()
        return [Match(kind, name, s) for name, (kind, s) in zip(ids, found.values(), strict=True)]

    def _matches(
        self, data: bytes, language: str | None
    ) -> Iterator[tuple[str, Sequence[int], Sequence[float]]]:
        exact = self._exact.find(hashlib.sha256(data).digest())[:_MOST]
        yield "exact", exact.tolist(), [1.0] * len(exact)
        if self._steps:
            same = self._normalised.find(self._normal(data, language))[:_MOST]
            yield "normalised", same.tolist(), [1.0] * len(same)
        if self._near:
            near = self._near_texts(data) if self._modality == "code" else self._near_images(data)
            near = sorted(near, key=lambda one: (-one[1], one[0]))[:_MOST]
            yield "near", [place for place, _ in near], [similarity for _, similarity in near]

    def _normal(self, data: bytes, language: str | None) -> bytes:
        if self._modality == "image":
            return bytes.fromhex(pixel_sha256(data))
        if language is None and "comments" in self._steps:
            language = detect_language("", data.decode())
        return hashlib.sha256(normalised(data, self._steps, language or None)).digest()

    def _near_texts(self, data: bytes) -> list[tuple[int, float]]:
        shingles = shingle_hashes(data, int(self._near["ngram"]))
        if not len(shingles):
            return []
        keys, owners = self._bands
        own = band_keys(sketch(shingles, SKETCH)[None], self._banding)[0]
        ends = zip(*(np.searchsorted(keys, own, side) for side in ("left", "right")), strict=True)
        places = np.unique(np.concatenate([owners[slice(*one)] for one in ends]))
        if not len(places) or self._signatures is None:
            return []
        others = self._rows.aligned(self._signatures, "shingles", places).combine_chunks()
        sizes = [len(shingles), *np.diff(others.offsets.to_numpy())]
        values = np.concatenate([shingles, others.flatten().to_numpy()])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        pairs = np.arange(1, len(sizes))
        similar = jaccards(values, offsets, np.zeros_like(pairs), pairs)
        near = np.flatnonzero(similar >= self._near["threshold"])
        return [(int(places[i]), float(similar[i])) for i in near]

    def _near_images(self, data: bytes) -> list[tuple[int, float]]:
        own = perceptual_hash(data)
        if own is None:
            return []
        hashes, places = self._perceptual
        apart = np.bitwise_count(hashes ^ np.uint64(own))
        near = np.flatnonzero(apart <= self._near["radius"])
        return [(int(places[i]), 1 - int(apart[i]) / 64) for i in near]

    def _made(self) -> None:
        _ = self._exact, self._steps and self._normalised
        if self._near:
            _ = self._bands if self._modality == "code" else self._perceptual

    @property
    def _steps(self) -> list[str]:
        return (self._settings.get("normalise") or []) if self._signatures else []

    @property
    def _near(self) -> dict[str, Any]:
        return (self._settings.get("near") or {}) if self._signatures else {}

    @cached_property
    def _banding(self) -> Banding:
        return banding(float(self._near["threshold"]), SKETCH)

    @property
    def _ids(self) -> pa.StringArray:
        """Ids of all records, ascending; a place is one in this order."""
        return self._rows.ids

    @cached_property
    def _exact(self) -> _Hashes:
        return self._hashes("records", "content_sha256")

    @cached_property
    def _normalised(self) -> _Hashes:
        return self._hashes("signatures", "normal_sha256")

    @cached_property
    def _bands(self) -> tuple[UInt64, npt.NDArray[np.int32]]:
        """Keys of all bands of all records, ascending, and their owners."""
        keys, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        query = "SELECT sketch, place FROM placed JOIN signatures USING (record_id)"
        for batch in self._placed(f"{query} WHERE sketch IS NOT NULL"):
            sketches = batch["sketch"].flatten().to_numpy().reshape(-1, SKETCH)
            own = band_keys(sketches, self._banding)
            keys.append(own.ravel())
            owners.append(np.repeat(batch["place"].to_numpy(), own.shape[1]).astype(np.int32))
        every = np.concatenate(keys)
        order = np.argsort(every, kind="stable")
        return every[order], np.concatenate(owners)[order]

    @cached_property
    def _perceptual(self) -> tuple[UInt64, npt.NDArray[np.int64]]:
        hashes, places = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        query = "SELECT perceptual_hash, place FROM placed JOIN signatures USING (record_id)"
        for batch in self._placed(f"{query} WHERE perceptual_hash IS NOT NULL"):
            hashes.append(batch["perceptual_hash"].to_numpy())
            places.append(batch["place"].to_numpy())
        return np.concatenate(hashes), np.concatenate(places)

    def _hashes(self, table: str, column: str) -> _Hashes:
        values, places = [np.empty(0, _HASH)], [np.empty(0, np.int64)]
        query = (
            f"SELECT unhex({column}) AS digest, place FROM placed JOIN {table} USING (record_id)"
        )
        for batch in self._placed(f"{query} WHERE {column} IS NOT NULL"):
            digests = b"".join(batch["digest"].to_pylist())
            values.append(np.frombuffer(digests, np.dtype("V32")).view(_HASH))
            places.append(batch["place"].to_numpy())
        every = np.concatenate(values)
        order = np.argsort(every, kind="stable")
        return _Hashes(every[order], np.concatenate(places)[order])

    def _placed(self, query: str) -> Iterator[pa.RecordBatch]:
        """Batches of a query that knows each record's place as ``placed (record_id, place)``."""
        places = pa.array(np.arange(len(self._ids)))
        with self._lock:
            self._connection.register(
                "placed", pa.table([self._ids, places], ["record_id", "place"])
            )
            yield from self._connection.sql(query).to_arrow_reader(_BATCH)
            self._connection.unregister("placed")
