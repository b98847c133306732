"""Trains a small autoencoder; the job is killed half-way and goes on on other ranks.

    python examples/train_images.py [--input FOLDER]

Curates the pictures that installed packages bring, and shows that the job saw each exactly once in
each epoch. The job alone:
``torchrun --nproc-per-node 3 examples/train_images.py --train CURATION --work FOLDER``.
"""

import io
import sysconfig
from typing import Any

import job
import numpy as np
import torch
from PIL import Image

SIDE = 32


def pixels_of(sample: dict[str, Any]) -> dict[str, Any]:
    """A picture as ``(3, 32, 32)`` float32 from 0 to 1, and which it is."""
    with Image.open(io.BytesIO(sample["image"])) as picture:
        small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    return {"record_id": sample["record_id"], "data": pixels}


def model() -> torch.nn.Module:
    """5,700 parameters: pictures of 3,072 numbers through 512."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 4, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 8, 4, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(16, 3, 4, stride=2, padding=1),
        torch.nn.Sigmoid(),
    )


def loss(network: torch.nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each picture ``(b,)``."""
    return (network(pictures) - pictures).square().mean((1, 2, 3))


EXAMPLE = job.Example(
    script="train_images.py",
    recipe="images.yaml",
    folder=sysconfig.get_path("purelib"),
    settings=("name=pictures", "filters=[truncated]", *job.QUICK),
    transform=pixels_of,
    model=model,
    loss=loss,
)

if __name__ == "__main__":
    job.main(EXAMPLE)
