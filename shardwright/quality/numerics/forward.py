"""The recipe's model run in other ways: precision, batches, threads, device.

Each way changes one thing from strict float32 (TF32 off) with the recipe's batches and device.
A way that a model or a machine does not have is named with the reason, never left out.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shardwright.embeddings.encoder import Encoder, encode_stream
from shardwright.embeddings.model import Model
from shardwright.errors import DataError, UserError
from shardwright.quality.numerics.deviation import Float32
from shardwright.quality.numerics.inputs import Resizing

BATCHES = (1, 7)
"""Batch sizes that are tried beside the recipe's: alone, and one that is no power of two."""
_CALL = 2048
"""Records that an encoder is handed at a time, as in the stage ``embed``."""


@dataclass(frozen=True)
class Way:
    """One way to run the model.

    Attributes:
        name: Of the variant.
        says: What differs.
        missing: Why it is not run; empty if it is.
        compute: Type that it computes in; None for the recipe's.
        batch_size: None for the recipe's.
        threads: Of a CPU; None for as many as there are.
        device: None for the recipe's.
        tf32: None leaves torch as it is.
    """

    name: str
    says: str
    missing: str = ""
    compute: str | None = None
    batch_size: int | None = None
    threads: int | None = None
    device: str | None = None
    tf32: bool | None = None


@dataclass(frozen=True)
class Golden:
    """The reference.

    Attributes:
        encoder: Gives its vectors.
        says: What it is.
        resizing: Of an encoder of pictures, if it says.
        drafts: Whether it decodes large JPEGs at a fraction of their size; None if not known.
        strict: Whether it is a torch model, whose TF32 has to be off.
    """

    encoder: Encoder
    says: str
    resizing: Resizing | None = None
    drafts: bool | None = None
    strict: bool = False

    def vectors(self, sample: Sequence[Any]) -> Float32:
        """Vectors float32 [n, d] of n texts or encoded pictures."""
        with _switched(None, False) if self.strict else nullcontext():
            return encode(self.encoder, sample)


def golden(model: Model, encoder: Encoder, sample: Sequence[Any]) -> tuple[Golden, Float32]:
    """The reference and its vectors: float64 where the model can, else strict float32.

    Args:
        model: The recipe's.
        encoder: Of the recipe.
        sample: n texts or encoded pictures.

    Returns:
        It, and float32 [n, d].
    """
    if model.kind != "torch":
        says = f"{model.name}, which has no precision to choose"
        resizing, drafts = None, None
        if model.name == "builtin:descriptor":
            from PIL import Image

            from shardwright.embeddings.descriptor import SIDE

            resizing, drafts = Resizing((SIDE, SIDE), None, int(Image.Resampling.BOX)), True
        found = Golden(encoder, says, resizing, drafts)
        return found, found.vectors(sample)
    from shardwright.quality.numerics.reference import Reference

    trouble = ""
    for compute in ("float64", "float32"):
        says = f"{compute}, batches of {model.batch_size}, on {model.runs_on}{trouble}"
        drafts = model.options.draft if model.modality == "image" else None
        try:
            reference = Reference(
                model.name,
                modality=model.modality,
                device=model.device,
                dtype="float32",
                batch_size=model.batch_size,
                options=replace(model.options, compute=compute, compile=False),
            )
            found = Golden(reference, says, reference.resizing, drafts, strict=True)
            return found, found.vectors(sample)
        except RuntimeError as error:  # torch has no operation of this type, or none here
            if compute == "float32":
                raise
            trouble = f"; float64 does not run ({_line(error)})"
    raise AssertionError


def ways(model: Model) -> Iterator[Way]:
    """The ways to run the model beside the recipe's own."""
    if model.kind == "torch":
        yield from _torch_ways(model)
        return
    for size in BATCHES:
        yield Way(f"batch {size}", _batches(size), batch_size=size)
    why = (
        f"{model.name} computes in integers: the same bits in any precision, thread or device"
        if model.kind == "builtin"
        else f"{model.name} comes from a package, which has no switch for it"
    )
    for name, says in (
        ("TF32", "products in TF32"),
        ("bfloat16", "computed in bfloat16"),
        ("float16", "computed in float16"),
        ("threads", "other numbers of threads"),
        ("device", "on another device"),
    ):
        yield Way(name, says, why)


def vectors(way: Way, model: Model, sample: Sequence[Any]) -> Float32:
    """Vectors float32 [n, d] of n records, by one way.

    Raises:
        DataError: the model does not run this way; says why.
    """
    size = way.batch_size or model.batch_size
    changes: dict[str, Any] = {"batch_size": size}
    if model.kind == "torch":
        changes["options"] = replace(model.options, compute=way.compute, compile=False)
        changes["device"] = way.device or model.device
        changes["dtype"] = "float32"
    try:
        with _switched(way.threads, way.tf32) if model.kind == "torch" else nullcontext():
            encoder = model.load(**changes)
            # built-in encoders have no batches but those that they are handed
            return encode(encoder, sample, _CALL if model.kind == "torch" else min(size, _CALL))
    except (RuntimeError, UserError, DataError) as error:
        if model.kind != "torch":
            raise
        raise DataError(f"does not run so here: {_line(error)}") from error


def encode(encoder: Encoder, sample: Sequence[Any], rows: int = _CALL) -> Float32:
    """Vectors float32 [n, d] of n records, ``rows`` of them handed over at a time."""
    batches = (sample[start : start + rows] for start in range(0, len(sample), rows))
    found: Float32 = np.concatenate(list(encode_stream(encoder, batches)))
    return found


def _torch_ways(model: Model) -> Iterator[Way]:
    from shardwright.quality.numerics.reference import threads

    here, on_gpu = threads(), model.runs_on == "cuda"
    strict: dict[str, Any] = {"compute": "float32", "tf32": False}
    no_cuda = "needs a CUDA device" if not _has_cuda() else ""
    computes = model.options.compute or (
        "float16" if model.dtype == "float16" and on_gpu else "float32"
    )
    if on_gpu or computes != "float32" or model.options.compile:
        yield Way("float32", "computed in float32, TF32 off", **strict)
    for size in BATCHES:
        yield Way(f"batch {size}", _batches(size), batch_size=size, **strict)
    why = no_cuda or ("" if on_gpu else "the recipe's device is the CPU, which has no TF32")
    yield Way("TF32", "products in TF32", why, compute="float32", tf32=True)
    for compute in ("bfloat16", "float16"):
        yield Way(compute, f"computed in {compute}", compute=compute, tf32=False)
    for count in sorted({1, 2 * here} - {here}):
        why = "the model runs on the GPU" if on_gpu else ""
        name = f"{count} thread{'s' * (count > 1)}"
        yield Way(name, f"{name} instead of {here}", why, threads=count, **strict)
    if on_gpu:
        yield Way("CPU", "on the CPU", device="cpu", **strict)
    else:
        yield Way("CUDA", "on the GPU", no_cuda, device="cuda", **strict)


def _batches(size: int) -> str:
    return "every record alone" if size == 1 else f"batches of {size}"


def _switched(threads: int | None, tf32: bool | None) -> AbstractContextManager[None]:
    from shardwright.quality.numerics.reference import switches

    return switches(threads, tf32)


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _line(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
