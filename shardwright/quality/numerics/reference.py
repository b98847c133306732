"""A torch model as the reference of numeric deviation, and the switches around a pass of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from shardwright.embeddings.sentence import SentenceTransformerEncoder
from shardwright.quality.numerics.inputs import Resizing


class Reference(SentenceTransformerEncoder):
    """The recipe's model in the precision that its options name, which also says how it resizes."""

    @property
    def resizing(self) -> Resizing | None:
        """To what size, and how, the model's processor resizes images; None if it does not say."""
        processor = getattr(self._model[0], "processor", None)
        processor = getattr(processor, "image_processor", processor)
        size: Any = getattr(processor, "size", None)
        if not getattr(processor, "do_resize", False) or not hasattr(size, "get"):
            return None
        how = getattr(processor, "resample", None)
        name = None if how is None else int(how)
        if edge := size.get("shortest_edge"):
            return Resizing(None, int(edge), name)
        sides = size.get("width"), size.get("height")
        return Resizing((int(sides[0]), int(sides[1])), None, name) if all(sides) else None


@contextmanager
def switches(threads: int | None, tf32: bool | None) -> Iterator[None]:
    """Sets torch's threads and its use of TF32 for a while; None leaves them as they are.

    TF32 reads the first 10 bits of the fraction of float32 factors; on a CPU nothing reads it.
    """
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        if tf32 is not None:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = tf32
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.allow_tf32 = convolutions


def threads() -> int:
    """How many threads torch uses for a pass."""
    return int(torch.get_num_threads())
