"""Speed of the built-in encoders and of ``nearest`` on one thread.

Texts are the interpreter's own standard library; images are drawn here. Prints MB of source,
images and rows per second, the best of three runs.

    python benchmarks/encoders.py
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when NumPy loads its BLAS, below
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import io
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from shardwright.embeddings import KMeans, load_encoder
from shardwright.kernels import nearest


def best_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Wall-clock seconds of the fastest of a few runs."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def standard_library() -> list[str]:
    """The texts of the interpreter's own ``.py`` files, without installed packages."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = (p for p in folder.rglob("*.py") if "site-packages" not in p.parts)
    return [path.read_bytes().decode("utf-8", "replace") for path in sorted(paths)]


def photographs(count: int, side: int = 512) -> list[Image.Image]:
    """Smooth colours, some shapes and a camera's noise, ``side`` pixels square."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        base = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        image = base.resize((side, side), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(25):
            x, y, w, h = (int(v) for v in rng.integers(0, side, 4))
            colour = tuple(rng.integers(0, 256, 3).tolist())
            draw.ellipse((x, y, x + w // 4, y + h // 4), fill=colour)
        noisy = np.asarray(image, dtype=np.int16) + rng.integers(-12, 13, (side, side, 3))
        images.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return images


def encoded(image: Image.Image, kind: str) -> bytes:
    """An image's bytes as JPEG of quality 90 or as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=90)
    return buffer.getvalue()


def main() -> None:
    """Runs all and prints one line each."""
    options = {"device": "cpu", "dtype": "float32", "batch_size": 256}
    hashing = load_encoder("builtin:hashing", modality="code", **options)
    texts = standard_library()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds = best_seconds(lambda: hashing.encode(texts))
    print(f"hashing     {len(texts)} files, {megabytes:.1f} MB: {megabytes / seconds:.0f} MB/s")

    descriptor = load_encoder("builtin:descriptor", modality="image", **options)
    images = photographs(64)
    for kind in ("JPEG", "PNG"):
        batch = [encoded(image, kind) for image in images]
        kilobytes = sum(map(len, batch)) / len(batch) / 1e3
        seconds = best_seconds(lambda batch=batch: descriptor.encode(batch))
        rate = len(batch) / seconds
        print(f"descriptor  {kind} of 512 x 512, {kilobytes:.0f} kB: {rate:.0f} images/s")

    vectors = hashing.encode(texts)
    rows = np.tile(vectors, (20, 1))
    for k in (100, 1000):
        centroids = KMeans(k, iterations=5).fit(vectors).centroids
        seconds = best_seconds(lambda centroids=centroids: nearest(rows, centroids))
        product = best_seconds(lambda centroids=centroids: (rows @ centroids.T).argmax(axis=1))
        print(
            f"nearest     {len(rows)} x {k} x 256: {len(rows) / seconds:.0f} rows/s "
            f"(inexact float32 product and argmax: {len(rows) / product:.0f})"
        )


if __name__ == "__main__":
    main()
