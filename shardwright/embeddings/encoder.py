"""What an encoder is, and how a recipe's ``embedding.model`` becomes one.

A model is named by its kind and the rest: ``builtin:hashing``, ``builtin:descriptor``,
``sentence-transformers:<hub name or folder>[@revision]``. Other kinds come from installed
packages through the entry points group ``shardwright.encoders``: an entry point ``mine`` serves
``mine`` and every ``mine:<rest>``, and is called with the arguments of ``load_encoder``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shardwright.errors import UserError

ENTRY_POINTS = "shardwright.encoders"


class Encoder(Protocol):
    """Turns texts (``code``) or encoded images (``image``) into unit vectors.

    Attributes:
        name: what stands in the ``model`` column; names the model wherever it lies.
        dimension: length of a vector.
        fingerprint: hex sha256 over everything that decides the vectors' bits.
        description: model, revision, licence if known, device, dtype and so on, for metadata.
    """

    name: str
    dimension: int
    fingerprint: str
    description: dict[str, str]

    def encode(self, batch: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Unit rows float32 [n, dimension], one per text or image, in the batch's order."""
        ...


class EncoderFactory(Protocol):
    """What an entry point of the group ``shardwright.encoders`` is: builds one kind's encoders."""

    def __call__(
        self, model: str, *, modality: str, device: str, dtype: str, batch_size: int
    ) -> Encoder:
        """Builds the encoder that ``model`` names, or raises UserError."""
        ...


def load_encoder(model: str, *, modality: str, device: str, dtype: str, batch_size: int) -> Encoder:
    """Loads the encoder that a recipe names.

    Args:
        model: name of the model, see the module.
        modality: ``code`` or ``image``.
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` takes a GPU if the encoder can use one.
        dtype: ``float32`` or ``float16``; what the caller stores, and what a model on a GPU
            computes in. ``encode`` returns float32 either way.
        batch_size: inputs that go through a model at once; part of what decides its bits.

    Returns:
        The encoder, ready to use.

    Raises:
        UserError: a value is unknown, does not fit the others, or names what is not there.
    """
    _expect("modality", modality, ("code", "image"))
    _expect("device", device, ("auto", "cpu", "cuda"))
    _expect("dtype", dtype, ("float32", "float16"))
    if batch_size < 1:
        raise UserError(f"embedding.batch_size is {batch_size}: it must be at least 1")
    factory = _factory(model)
    return factory(model, modality=modality, device=device, dtype=dtype, batch_size=batch_size)


def fingerprint(parts: Mapping[str, str]) -> str:
    """Hex sha256 of named strings, whatever their order."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def unit_rows(vectors: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Unit rows float64 [n, d] of integer rows, with the same bits everywhere.

    The squared norm is an exact integer sum; root and quotient are correctly rounded by IEEE
    754. A row of zeros stays one.

    Args:
        vectors: int64 [n, d] whose rows' squared norms stay below 2^63.
    """
    squares = np.einsum("nd,nd->n", vectors, vectors)
    norms = np.sqrt(squares.astype(np.float64))
    rows: npt.NDArray[np.float64] = vectors / np.where(norms > 0, norms, 1.0)[:, None]
    return rows


def _factory(model: str) -> EncoderFactory:
    kind = model.partition(":")[0]
    if kind == "builtin":
        return _builtin
    if kind == "sentence-transformers":
        return _sentence_transformer
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if kind in found:
        factory: EncoderFactory = found[kind].load()
        return factory
    installed = "".join(f", {name}" for name in sorted(found))
    raise UserError(
        f"embedding.model {model!r} is unknown: use builtin:hashing, builtin:descriptor, "
        f"sentence-transformers:NAME{installed}, or install a package that adds it"
    )


def _builtin(model: str, *, modality: str, device: str, dtype: str, batch_size: int) -> Encoder:
    """The encoders that need no weights: any device, dtype and batch gives the same vectors."""
    modalities = {"builtin:hashing": "code", "builtin:descriptor": "image"}
    if model not in modalities:
        known = " or ".join(modalities)
        raise UserError(f"embedding.model {model!r} is unknown: use {known}")
    if modality != modalities[model]:
        other = next(name for name, served in modalities.items() if served == modality)
        raise UserError(
            f"embedding.model {model} encodes {modalities[model]}, not {modality}: use {other}"
        )
    if device == "cuda":
        raise UserError(f"embedding.device cuda: {model} runs on the CPU only, use auto or cpu")
    if model == "builtin:hashing":
        from shardwright.embeddings.hashing import HashingEncoder

        return HashingEncoder()
    from shardwright.embeddings.descriptor import DescriptorEncoder

    return DescriptorEncoder()


def _sentence_transformer(
    model: str, *, modality: str, device: str, dtype: str, batch_size: int
) -> Encoder:
    from shardwright.embeddings.sentence import SentenceTransformerEncoder

    return SentenceTransformerEncoder(
        model.partition(":")[2],
        modality=modality,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    )


def _expect(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"embedding.{key} is {value!r}: use {', '.join(allowed)}")
