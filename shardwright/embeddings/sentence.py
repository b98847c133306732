"""``sentence-transformers:NAME`` and ``preset:NAME``: torch models for text and images.

A thread reads and prepares (tokenises; decodes and resizes) the next batches while the model runs
on the one before, and vectors come back from the device once for each call. Vectors are those of
the library's own ``encode``, made unit length.
"""

import io
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import sentence_transformers
import torch
import transformers
from PIL import Image
from sentence_transformers import SentenceTransformer

from shardwright.embeddings.batches import Batch, Preparer, halves
from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.encoder import TorchOptions, fingerprint
from shardwright.embeddings.image_batches import BYTES, ImageBatches
from shardwright.embeddings.model_source import Source, not_found, resolve_source
from shardwright.embeddings.presets import PRESETS, find_preset, load_preset
from shardwright.embeddings.read_ahead import read_ahead
from shardwright.embeddings.text_batches import text_batches
from shardwright.errors import DataError, UserError

_VERSION = "2"
_MODALITIES = {"code": "text", "image": "image"}
"""What sentence-transformers calls a recipe's modality."""
_AHEAD = 2
"""Batches that are ready and wait for the model."""
_TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_TENSOR_CORES = 16
"""On a GPU batches are padded to a multiple of this many tokens."""


class SentenceTransformerEncoder:
    """An ``Encoder`` around a sentence-transformers model.

    Padding, and with it the last bits of a vector, depend on who shares a batch. So batches are
    formed from the inputs of one call, and the caller forms calls from the data and never from
    workers or memory. On a CPU the bits also depend on torch's thread count: it is read here, for
    the fingerprint, and never changed. Several threads may use one encoder; one pass runs at a
    time, as it takes all cores or the whole GPU.
    """

    def __init__(
        self,
        model: str,
        *,
        modality: str,
        device: str,
        dtype: str,
        batch_size: int,
        options: TorchOptions,
    ) -> None:
        """Loads a model.

        Args:
            model: ``sentence-transformers:`` and ``ORGANISATION/NAME`` or ``NAME`` (of the
                organisation sentence-transformers) with an optional ``@REVISION``, or a folder;
                or ``preset:NAME``, see ``presets``.
            modality: ``code`` (any text) or ``image``.
            device: ``auto``, ``cpu`` or ``cuda``: torch's current one of them.
            dtype: ``float16`` computes in half precision on a GPU, unless the options say
                otherwise; a CPU computes in float32.
            batch_size: texts, windows of texts, or images of a forward pass.
            options: see ``TorchOptions``. ``compute`` may also be ``float64``, for which a recipe
                has no name: vectors are then rounded once, when they are unit rows.

        Raises:
            UserError: the device, the folder, the model or its revision is not there, or the
                model does not take this modality or these options.
        """
        kind, _, rest = model.partition(":")
        preset, place = find_preset(rest) if kind == "preset" else (None, rest)
        label = kind if preset is None else f"{kind}:{preset}"
        on_gpu = resolve_device(device, "embedding.device") == "cuda"
        self._device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else _CPU
        compute = options.compute or ("float16" if dtype == "float16" and on_gpu else "float32")
        source = resolve_source(place)
        self._model = _load(source, preset, str(self._device))
        self._model.to(_TYPES[compute]).eval()
        if _MODALITIES[modality] not in self._model.modalities:
            takes = ", ".join(str(each) for each in self._model.modalities)
            raise UserError(f"embedding.model {model} encodes {takes}, not {modality} records")
        self._modality = modality
        self._pool = None if options.window is None else options.window.pool
        self._normalise: torch.nn.Module | None = None
        self._preparer = self._prepare(batch_size, options)
        if options.compile:
            self._model.compile(dynamic=True)
        self._lock = threading.Lock()
        self.name = f"{label}:{source.label}@{source.revision}"
        self.dimension = self._width()
        self.description = {
            "model": f"{label}:{source.label}",
            "revision": source.revision,
            "device": self._device.type,
            "dtype": compute,
            "batch_size": str(batch_size),
            **_libraries(modality),
            **self._preparer.description,
            **_described(options),
        }
        if attention := _attention(self._model):
            self.description["attention"] = attention
        if source.weights:
            self.description["weights_sha256"] = source.weights
        if modality == "code" and self._model.max_seq_length:
            self.description["max_tokens"] = str(self._model.max_seq_length)
        hardware = (
            {"gpu": torch.cuda.get_device_name(self._device)}
            if on_gpu
            else {
                "threads": str(torch.get_num_threads()),
                "instructions": torch.backends.cpu.get_cpu_capability(),
            }
        )
        parts = {**self.description, **hardware, "version": _VERSION, "modality": modality}
        self.fingerprint = fingerprint(parts)
        license = source.license or (PRESETS[preset].licence if preset else None)
        if license:
            self.description["license"] = license

    def encode(self, batch: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Encodes texts or images.

        Args:
            batch: n texts, or n encoded images.

        Returns:
            Unit rows float32 [n, dimension] in the order given.

        Raises:
            DataError: an image does not decode, or a vector is zero or not finite; the message
                says which.
        """
        with closing(self.encode_stream([batch])) as rows:
            return next(rows)

    def encode_stream(
        self, batches: Iterable[Sequence[str] | Sequence[bytes]]
    ) -> Generator[npt.NDArray[np.float32], None, None]:
        """Yields what ``encode`` returns, for each of the batches; they are read in a thread."""
        done: list[tuple[Batch, torch.Tensor]] = []
        with closing(read_ahead(self._prepared(batches), _AHEAD)) as prepared:
            for item in prepared:
                if isinstance(item, Batch):
                    done.append((item, self._forward(item.features)))
                else:
                    yield self._rows(done, item)
                    done = []

    def _prepare(self, batch_size: int, options: TorchOptions) -> Preparer:
        on_gpu = self._device.type == "cuda"
        if self._modality == "code":
            if options.draft:
                raise UserError("embedding.draft is for images: leave it out for code")
            multiple = _TENSOR_CORES if on_gpu else 1
            return text_batches(self._model, batch_size, options.window, multiple)
        if options.window is not None:
            raise UserError("embedding.window is for texts: leave it out for images")
        # A model on the CPU needs the cores itself.
        threads = (cpu_count() or 1) if on_gpu else 1
        images = ImageBatches(self._model, batch_size, threads, options.draft)
        if images.normalise is not None:
            self._normalise = images.normalise.to(self._device)
        return images

    def _prepared(self, batches: Iterable[Sequence[Any]]) -> Iterator[Batch | int]:
        """Batches of the model, and after those of a call its number of inputs."""
        expected = str if self._modality == "code" else bytes
        for inputs in batches:
            for row, value in enumerate(inputs):
                if not isinstance(value, expected):
                    wanted = "a text" if expected is str else "bytes"
                    raise TypeError(f"input {row} is {type(value).__name__}, not {wanted}")
            yield from self._preparer.batches(inputs)
            yield len(inputs)

    def _forward(self, features: dict[str, Any]) -> torch.Tensor:
        """The model's own vectors of a batch, [n, d] on the device, in float32 or finer.

        What does not fit in memory goes through in halves, padded as the whole is.

        Raises:
            UserError: a single input does not fit.
        """
        try:
            with self._lock, torch.inference_mode():
                return self._vectors(features)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        # Here, where the error and the tensors that its frames hold are gone.
        shape = _shape(features)
        parts = halves(features)
        if parts is None:
            raise UserError(
                f"embedding: a batch of shape {shape} does not fit in the memory of the "
                f"{self._device.type} and cannot be halved: lower embedding.batch_size, or use "
                "embedding.window, a smaller model or another device"
            )
        warnings.warn(
            f"embedding: out of memory on a batch of shape {shape}; it goes through in halves, "
            "with the same vectors, but more slowly: lower embedding.batch_size",
            stacklevel=2,
        )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return torch.cat([self._forward(part) for part in parts])

    def _vectors(self, features: dict[str, Any]) -> torch.Tensor:
        there = {
            key: value.to(self._device, non_blocking=True)
            if isinstance(value, torch.Tensor)
            else value
            for key, value in features.items()
        }
        if self._normalise is not None:
            there["pixel_values"] = self._normalise(there.pop(BYTES)).to(self._model.dtype)
        vectors: torch.Tensor = self._model(there)["sentence_embedding"]
        vectors = vectors[:, : self._model.truncate_dim]
        return vectors.to(torch.promote_types(vectors.dtype, torch.float32))

    def _rows(
        self, done: Sequence[tuple[Batch, torch.Tensor]], count: int
    ) -> npt.NDArray[np.float32]:
        """Unit rows float32 [count, dimension] of the batches of one call."""
        if not done:
            return np.empty((0, self.dimension), dtype=np.float32)
        rows = np.concatenate([batch.rows for batch, _ in done])
        raw = torch.cat([vectors for _, vectors in done]).cpu().numpy().astype(np.float64)
        units = self._unit(raw, rows)
        vectors = np.empty((count, raw.shape[1]))
        if self._pool is None:
            vectors[rows] = units
        else:
            vectors[:] = 0 if self._pool == "mean" else -np.inf
            add = np.add if self._pool == "mean" else np.maximum
            add.at(vectors, rows, units)  # the mean's divisor goes with the norm
            vectors = self._unit(vectors, np.arange(count))
        return vectors.astype(np.float32)

    def _unit(
        self, raw: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        norms = np.sqrt(np.square(raw).sum(axis=1))
        for place in np.flatnonzero(~(np.isfinite(norms) & (norms > 0))):
            raise DataError(
                f"input {rows[place]} of the batch: {self.name} gives a vector of norm "
                f"{norms[place]}; if it computes in float16, use float32 or bfloat16"
            )
        units: npt.NDArray[np.float64] = raw / norms[:, None]
        return units

    def _width(self) -> int:
        probe = "" if self._modality == "code" else _pixel()
        (batch,) = self._preparer.batches([probe])
        return self._forward(batch.features).shape[1]


_CPU = torch.device("cpu")


def _load(source: Source, preset: str | None, device: str) -> SentenceTransformer:
    revision = None if source.weights else source.revision
    try:
        if preset is not None:
            return load_preset(PRESETS[preset], source.location, revision, device)
        model: SentenceTransformer = SentenceTransformer(
            source.location,
            revision=revision,
            device=device,
            local_files_only=source.weights is not None,
        )
        return model
    except (OSError, ValueError, KeyError) as error:
        if source.weights:
            raise UserError(
                f"embedding.model: the folder {source.location} holds no sentence-transformers "
                f"model that loads ({error}): save one there with SentenceTransformer.save"
            ) from error
        raise not_found(source.location, source.revision, error) from error


def _out_of_memory(error: Exception) -> bool:
    """Whether a device, or the allocator of the CPU, which has no type for it, ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _shape(features: dict[str, Any]) -> list[int]:
    first = next(value for value in features.values() if isinstance(value, torch.Tensor))
    return list(first.shape)


def _attention(model: SentenceTransformer) -> str | None:
    """Which implementation of attention transformers has chosen: sdpa where the model has it."""
    inner = model.transformers_model
    return None if inner is None else str(inner.config._attn_implementation)


def _described(options: TorchOptions) -> dict[str, str]:
    found = {}
    if options.window is not None:
        window = options.window
        found["window"] = f"{window.tokens} tokens, stride {window.stride}, {window.pool}"
    if options.compile:
        found["compile"] = "true"
    return found


def _libraries(modality: str) -> dict[str, str]:
    """Versions of what decides the vectors."""
    found = {
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    if modality == "code":
        return {**found, "tokenizers": version("tokenizers")}
    with suppress(PackageNotFoundError):  # prepares the images of some models if it is there
        found["torchvision"] = version("torchvision")
    return {**found, "pillow": PIL.__version__}


def _pixel() -> bytes:
    """The bytes of some image."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "PNG")
    return buffer.getvalue()
