"""Made pictures of made devices: two labels, three devices, one of which warms colours."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

MAKES = {"plain": ("Acme", "One"), "warm": ("Acme", "Acme Two"), "again": ("Other", "Box")}
LABELS = ("blobs", "stripes")


def picture(rng: np.random.Generator, kind: int, gain: float) -> Image.Image:
    """Stripes or blobs; a device's gain warms them."""
    y, x = np.mgrid[:64, :64] / 64
    waves = np.sin((x if kind else y) * rng.uniform(8, 20) + rng.uniform(0, 6))
    tint = rng.uniform(60, 110, 3)
    pixels = 90 + waves[..., None] * tint / 2 + rng.normal(0, 4, (64, 64, 3))
    return Image.fromarray(np.clip(pixels * [gain, 1, 1 / gain], 0, 255).astype(np.uint8))


def saved(image: Image.Image, make: str | None, model: str = "") -> bytes:
    """The JPEG of an image, with a camera in its EXIF."""
    exif = Image.Exif()
    if make is not None:
        exif[0x010F], exif[0x0110] = make, model
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92, exif=exif)
    return out.getvalue()


def write_devices(folder: Path, each: int) -> np.random.Generator:
    """Writes so many pictures of each device and label; returns the generator for more."""
    rng = np.random.default_rng(0)
    for kind, label in enumerate(LABELS):
        (folder / label).mkdir()
        for device, named in MAKES.items():
            for number in range(each):
                image = picture(rng, kind, 1.6 if device == "warm" else 1.0)
                (folder / label / f"{device}{number}.jpg").write_bytes(saved(image, *named))
    return rng
