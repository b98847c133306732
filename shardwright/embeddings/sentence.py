"""``sentence-transformers:NAME``: text and image models from the Hub or from a folder.

A Hub model is pinned: whatever revision the recipe names (the default branch if none) is
resolved to a commit first, and that commit is loaded, named and fingerprinted. A folder is known
by its own name and the hash of its files, so it can lie anywhere.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import sentence_transformers
import torch
import transformers
import yaml
from huggingface_hub import hf_hub_download, metadata_load
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image
from sentence_transformers import SentenceTransformer

from shardwright.embeddings.device import resolve_device
from shardwright.embeddings.encoder import fingerprint
from shardwright.embeddings.pixels import decode_rgb
from shardwright.errors import DataError, UserError

_KIND = "sentence-transformers"
_VERSION = "1"
_MODALITIES = {"code": "text", "image": "image"}
"""What sentence-transformers calls a recipe's modality."""


class SentenceTransformerEncoder:
    """An ``Encoder`` around a sentence-transformers model.

    The inputs of a call are sorted by length, longest first, and cut into batches of fixed size;
    padding, and with it the last bits of a vector, depend on who shares a batch. So the caller
    forms calls from the data and never from workers or memory. On a CPU the bits also depend on
    torch's thread count: it is read here, for the fingerprint, and never changed.
    """

    def __init__(
        self, model: str, *, modality: str, device: str, dtype: str, batch_size: int
    ) -> None:
        """Loads a model.

        Args:
            model: ``ORGANISATION/NAME`` or ``NAME`` (of the organisation sentence-transformers)
                with an optional ``@REVISION``, or a folder.
            modality: ``code`` (any text) or ``image``.
            device: ``auto``, ``cpu`` or ``cuda``.
            dtype: ``float16`` computes in half precision on a GPU; a CPU computes in float32.
            batch_size: inputs per forward pass.

        Raises:
            UserError: the device, the folder, the model or its revision is not there, or the
                model does not take this modality.
        """
        self._device = resolve_device(device, "embedding.device")
        self._modality = modality
        self._batch_size = batch_size
        source = _resolve(model)
        half = dtype == "float16" and self._device == "cuda"
        self._model = _load(source, self._device)
        self._model.to(torch.float16 if half else torch.float32).eval()
        if _MODALITIES[modality] not in self._model.modalities:
            takes = ", ".join(str(each) for each in self._model.modalities)
            raise UserError(f"embedding.model {model} encodes {takes}, not {modality} records")
        self.name = f"{_KIND}:{source.label}@{source.revision}"
        probe = "" if modality == "code" else Image.new("RGB", (32, 32))
        self.dimension = self._forward([probe]).shape[1]
        self.description = {
            "model": f"{_KIND}:{source.label}",
            "revision": source.revision,
            "device": self._device,
            "dtype": "float16" if half else "float32",
            "batch_size": str(batch_size),
            "sentence_transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }
        if source.weights:
            self.description["weights_sha256"] = source.weights
        if modality == "code" and self._model.max_seq_length:
            self.description["max_tokens"] = str(self._model.max_seq_length)
        hardware = (
            {"gpu": torch.cuda.get_device_name()}
            if self._device == "cuda"
            else {
                "threads": str(torch.get_num_threads()),
                "instructions": torch.backends.cpu.get_cpu_capability(),
            }
        )
        self.fingerprint = fingerprint(
            {
                **self.description,
                **hardware,
                "version": _VERSION,
                "modality": modality,
                **({"pillow": PIL.__version__, **_torchvision()} if modality == "image" else {}),
            }
        )
        if source.license:
            self.description["license"] = source.license

    def encode(self, batch: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Encodes texts or images.

        Args:
            batch: n texts, or n encoded images; no more than ``batch_size`` images are decoded
                at once.

        Returns:
            Unit rows float32 [n, dimension] in the order given.

        Raises:
            DataError: an image does not decode, or a vector is zero or not finite; the message
                says which.
        """
        vectors = np.empty((len(batch), self.dimension), dtype=np.float32)
        order = list(range(len(batch)))
        if self._modality == "code":
            order.sort(key=lambda row: -len(batch[row]))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            raw = self._forward([self._input(batch[row], row) for row in rows])
            norms = np.sqrt(np.square(raw).sum(axis=1))
            for row, norm in zip(rows, norms, strict=True):
                if not (np.isfinite(norm) and norm > 0):
                    raise DataError(
                        f"input {row} of the batch: {self.name} gives a vector of norm {norm}; "
                        "if the dtype is float16, use float32"
                    )
            vectors[rows] = raw / norms[:, None]
        return vectors

    def _input(self, value: str | bytes, row: int) -> str | Image.Image:
        if isinstance(value, str) != (self._modality == "code"):
            expected = "a text" if self._modality == "code" else "bytes"
            raise TypeError(f"input {row} is {type(value).__name__}, not {expected}")
        if isinstance(value, str):
            return value
        try:
            return decode_rgb(value)
        except DataError as error:
            raise DataError(f"input {row} of the batch: {error}") from error

    def _forward(self, inputs: Sequence[str | Image.Image]) -> npt.NDArray[np.float64]:
        """The model's own vectors of one batch, float64 [n, d]; runs in inference mode."""
        options: dict[str, Any] = {"batch_size": self._batch_size, "show_progress_bar": False}
        raw = self._model.encode(list(inputs), convert_to_numpy=True, **options)
        return np.asarray(raw, dtype=np.float64)


@dataclass(frozen=True)
class _Source:
    """A model that is there.

    Attributes:
        location: Hub name or folder.
        label: what to call it: Hub name, or the folder's own name.
        revision: commit, or ``sha256-`` and the first 16 hex digits of ``weights``.
        weights: hex sha256 of the folder's files; none for a Hub model, whose commit says it all.
        license: as its model card says, if it does.
    """

    location: str
    label: str
    revision: str
    weights: str | None
    license: str | None


def _resolve(model: str) -> _Source:
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        weights = _hash_folder(folder)
        return _Source(
            location=str(folder),
            label=folder.resolve().name,
            revision=f"sha256-{weights[:16]}",
            weights=weights,
            license=_license(folder / "README.md"),
        )
    name, _, revision = model.partition("@")
    if name and Path(name).expanduser().is_dir():
        raise UserError(f"embedding.model {model}: {name} is a folder, leave out @{revision}")
    if model.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"embedding.model names the folder {model}: there is no such folder")
    hub = name if "/" in name else f"{_KIND}/{name}"
    commit = _resolve_commit(hub, revision or None)
    try:
        license = _license(Path(hf_hub_download(hub, "README.md", revision=commit)))
    except (OSError, EntryNotFoundError):
        license = None
    return _Source(location=hub, label=hub, revision=commit, weights=None, license=license)


def _resolve_commit(hub: str, revision: str | None) -> str:
    """The commit of a Hub model, from the Hub or, without a network, from the local cache."""
    reason: Exception | None = None
    for file in ("modules.json", "config.json"):  # the second for plain transformers models
        try:
            return Path(hf_hub_download(hub, file, revision=revision)).parent.name
        except EntryNotFoundError as error:
            reason = error
        except (OSError, ValueError) as error:
            raise _not_found(hub, revision, error) from error
    raise _not_found(hub, revision, reason) from reason


def _not_found(hub: str, revision: str | None, reason: Exception | None) -> UserError:
    wanted = f"{hub}@{revision}" if revision else hub
    first_line = str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)
    return UserError(
        f"embedding.model {_KIND}:{wanted} is neither a folder, nor in the local cache, nor to be "
        f"had from the Hub ({first_line}): check the name and the revision, or download it where "
        f"there is a network with `hf download {hub}` and copy the folder here"
    )


def _load(source: _Source, device: str) -> SentenceTransformer:
    revision = None if source.weights else source.revision
    offline = source.weights is not None
    try:
        model: SentenceTransformer = SentenceTransformer(
            source.location, revision=revision, device=device, local_files_only=offline
        )
        return model
    except (OSError, ValueError, KeyError) as error:
        if source.weights:
            raise UserError(
                f"embedding.model: the folder {source.location} holds no sentence-transformers "
                f"model that loads ({error}): save one there with SentenceTransformer.save"
            ) from error
        raise _not_found(source.location, source.revision, error) from error


def _torchvision() -> dict[str, str]:
    """The version of torchvision, which prepares the images of some models if it is there."""
    try:
        return {"torchvision": version("torchvision")}
    except PackageNotFoundError:
        return {}


def _hash_folder(folder: Path) -> str:
    """Hex sha256 of a folder's files by relative path, but for hidden ones and Markdown."""
    digest = hashlib.sha256()
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    for name in names:
        if name.endswith(".md") or any(part.startswith(".") for part in name.split("/")):
            continue
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _license(readme: Path) -> str | None:
    """The licence in a model card's header, if there is one that can be read."""
    try:
        header = metadata_load(readme)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    license = (header or {}).get("license")
    return str(license) if license else None
