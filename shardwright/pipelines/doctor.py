"""``shardwright doctor``: is everything here that a curation needs, and does it compute rightly?"""

import os
import platform
from importlib import metadata

import numpy as np

from shardwright import __version__

_PACKAGES = (
    "apache-beam",
    "pyarrow",
    "duckdb",
    "mlcroissant",
    "torch",
    "sentence-transformers",
    "faiss-cpu",
    "faiss-gpu-cuvs",
    "pillow",
    "magika",
    "numpy",
)


def examine() -> tuple[list[str], bool]:
    """Lines to show, and whether all is well."""
    lines = [
        f"shardwright {__version__} on Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    ]
    healthy = True
    versions = {name: _version(name) for name in _PACKAGES}
    for name, version in versions.items():
        if not name.startswith("faiss"):
            lines.append(f"{name:<24} {version or 'FAILED: not installed'}")
            healthy = healthy and version is not None
    found = [
        f"{name} {version}" for name, version in versions.items() if "faiss" in name and version
    ]
    if len(found) == 1:
        lines.append(f"{'faiss':<24} {found[0]}")
    else:
        healthy = False
        there = " and ".join(found) or "none"
        lines.append(f"{'faiss':<24} FAILED: {there}; install exactly one of the extras cpu, gpu")
    lines.append(f"{'devices':<24} {_devices()}")
    wrong = _wrong_labels()
    healthy = healthy and wrong == 0
    verdict = "agrees with float64" if wrong == 0 else f"FAILED: {wrong} wrong labels"
    lines.append(f"{'kernels.nearest (cpu)':<24} {verdict}")
    return lines, healthy


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(["cpu", *names])


def _wrong_labels() -> int:
    from shardwright.kernels import nearest

    draw = np.random.default_rng(0)
    x = draw.standard_normal((2000, 96)).astype(np.float32)
    c = np.repeat(draw.standard_normal((100, 96)).astype(np.float32), 2, axis=0)
    index, _ = nearest(x, c, "dot")
    oracle = (x.astype(np.float64) @ c.astype(np.float64).T)[:, ::2].argmax(axis=1) * 2
    return int((index != oracle).sum())
