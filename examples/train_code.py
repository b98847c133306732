"""Trains a small model of source code; the job is killed half-way and goes on on other ranks.

    python examples/train_code.py [--input FOLDER]

Curates files of the interpreter's standard library, and shows that the job saw each exactly once in
each epoch. The model predicts each byte from the eight bytes before it. The job alone:
``torchrun --nproc-per-node 3 examples/train_code.py --train CURATION --work FOLDER``.
"""

import sysconfig
from typing import Any

import job
import torch

LENGTH = 512
CONTEXT = 8


def bytes_of(sample: dict[str, Any]) -> dict[str, Any]:
    """The first bytes of a text, filled up with zeros, and whose they are."""
    text = sample["content"].encode()[:LENGTH].ljust(LENGTH, b"\0")
    return {"record_id": sample["record_id"], "data": torch.tensor(list(text))}


def model() -> torch.nn.Module:
    """17,000 parameters: bytes ``(b, t)`` -> logits of the next byte ``(b, 256, t + 1)``."""
    return torch.nn.Sequential(
        torch.nn.Embedding(256, 16),
        Transposed(),
        torch.nn.Conv1d(16, 32, CONTEXT, padding=CONTEXT - 1),
        torch.nn.ReLU(),
        torch.nn.Conv1d(32, 256, 1),
    )


class Transposed(torch.nn.Module):
    """``(b, t, c)`` -> ``(b, c, t)``."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Puts channels before time."""
        return given.transpose(1, 2)


def loss(network: torch.nn.Module, texts: torch.Tensor) -> torch.Tensor:
    """Mean nats a byte of each text ``(b,)``; what texts are filled up with does not count."""
    logits = network(texts)[:, :, : LENGTH - 1]
    following = texts[:, 1:]
    nats = torch.nn.functional.cross_entropy(logits, following, reduction="none")
    real = (following != 0).float()
    return (nats * real).sum(1) / real.sum(1).clamp(min=1)


EXAMPLE = job.Example(
    script="train_code.py",
    recipe="code.yaml",
    folder=sysconfig.get_path("stdlib"),
    settings=(
        "name=stdlib",
        'source.exclude=["site-packages/**", "**/__pycache__/**"]',
        *job.QUICK,
    ),
    transform=bytes_of,
    model=model,
    loss=loss,
)

if __name__ == "__main__":
    job.main(EXAMPLE)
