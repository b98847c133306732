"""What an encoder is, and how a recipe's ``embedding.model`` becomes one.

A model is named by its kind and the rest: ``builtin:hashing``, ``builtin:descriptor``,
``preset:<name>``, ``sentence-transformers:<hub name or folder>[@revision]``. Other kinds come from
installed packages through the entry points group ``shardwright.encoders``: an entry point ``mine``
serves ``mine`` and every ``mine:<rest>``, and is called with the arguments of ``load_encoder`` but
``options``. The version of its package enters the fingerprint of what it builds.
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shardwright.errors import UserError
from shardwright.plugins import find, installed

ENTRY_POINTS = "shardwright.encoders"
_TORCH = ("sentence-transformers", "preset")
_OURS = ("builtin", *_TORCH)


class Encoder(Protocol):
    """Turns texts (``code``) or encoded images (``image``) into unit vectors.

    The threads of a worker share one encoder, so ``encode`` can be called by several at once.

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


@dataclass(frozen=True)
class Window:
    """How a long text is read in overlapping windows.

    Attributes:
        tokens: length of a window with the special tokens that the model puts around it.
        stride: how many tokens of the text lie between the starts of two windows.
        pool: ``mean`` or ``max`` of the windows' unit vectors, element by element.
    """

    tokens: int
    stride: int
    pool: str = "mean"


@dataclass(frozen=True)
class TorchOptions:
    """How a torch model runs, beyond what every encoder is told.

    Attributes:
        compute: ``float32``, ``float16`` or ``bfloat16``; None is float16 for vectors that are
            stored so on a GPU, else float32.
        window: None cuts a text at the model's limit.
        compile: runs the model through ``torch.compile``.
        draft: decodes large JPEGs at a fraction of their size.
    """

    compute: str | None = None
    window: Window | None = None
    compile: bool = False
    draft: bool = False


class EncoderFactory(Protocol):
    """What an entry point of the group ``shardwright.encoders`` is: builds one kind's encoders."""

    def __call__(
        self, model: str, *, modality: str, device: str, dtype: str, batch_size: int
    ) -> Encoder:
        """Builds the encoder that ``model`` names, or raises UserError."""
        ...


def load_encoder(
    model: str,
    *,
    modality: str,
    device: str,
    dtype: str,
    batch_size: int,
    options: TorchOptions | None = None,
) -> Encoder:
    """Loads the encoder that a recipe names.

    Args:
        model: name of the model, see the module.
        modality: ``code`` or ``image``.
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` takes a GPU if the encoder can use one.
        dtype: ``float32`` or ``float16``; what the caller stores, and what a model on a GPU
            computes in. ``encode`` returns float32 either way.
        batch_size: inputs that go through a model at once; part of what decides its bits.
        options: for the kinds ``sentence-transformers`` and ``preset`` only.

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
    kind = model.partition(":")[0]
    plugin = find(ENTRY_POINTS, kind, _OURS)
    if kind in _TORCH:
        return _torch_model(model, modality, device, dtype, batch_size, options or TorchOptions())
    if plugin is None and kind != "builtin":
        known = "".join(f", {added.name}" for added in installed(ENTRY_POINTS))
        raise UserError(
            f"embedding.model {model!r} is unknown: use builtin:hashing, builtin:descriptor, "
            f"sentence-transformers:NAME, preset:NAME{known}, or install a package that adds it"
        )
    factory: EncoderFactory = _builtin if plugin is None else plugin.load()
    if options is not None and options != TorchOptions():
        raise UserError(
            f"embedding.compute, window, compile and draft are not for {model}: they are for "
            "sentence-transformers:NAME and preset:NAME"
        )
    found = factory(model, modality=modality, device=device, dtype=dtype, batch_size=batch_size)
    return found if plugin is None else _Added(found, plugin.package)


class _Added:
    """A package's encoder, whose fingerprint holds the version of the package too."""

    def __init__(self, encoder: Encoder, package: str) -> None:
        self._encoder = encoder
        self.name, self.dimension = encoder.name, encoder.dimension
        self.description = {**encoder.description, "package": package}
        self.fingerprint = fingerprint({"encoder": encoder.fingerprint, "package": package})

    def encode(self, batch: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.float32]:
        return self._encoder.encode(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)  # `encode_stream`, if it has one


def encode_stream(
    encoder: Encoder, batches: Iterable[Sequence[str] | Sequence[bytes]]
) -> Generator[npt.NDArray[np.float32], None, None]:
    """Yields ``encoder.encode(batch)`` for each of the batches.

    An encoder that has a method of this name prepares the next inputs while its model runs. It
    may iterate over ``batches`` in another thread, and some batches ahead of what it yields.
    """
    stream = getattr(encoder, "encode_stream", None)
    if stream is None:
        yield from map(encoder.encode, batches)
    else:
        with closing(stream(batches)) as rows:
            yield from rows


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


def _torch_model(
    model: str, modality: str, device: str, dtype: str, batch_size: int, options: TorchOptions
) -> Encoder:
    from shardwright.embeddings.sentence import SentenceTransformerEncoder

    return SentenceTransformerEncoder(
        model,
        modality=modality,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        options=options,
    )


def _expect(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"embedding.{key} is {value!r}: use {', '.join(allowed)}")
