"""``shardwright doctor``: is everything here that a curation needs, and does it compute rightly?"""

import os
import platform
from collections.abc import Iterator
from importlib import metadata

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
    for told, well in (*_kernels(), *_cuda()):
        lines.append(told)
        healthy = healthy and well
    return lines, healthy


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _kernels() -> Iterator[tuple[str, bool]]:
    """A line for each device, kernel and metric, and whether it is right."""
    import torch

    from shardwright.pipelines.kernel_checks import check_kernels, devices

    for device in devices():
        name = "" if device == "cpu" else f" {torch.cuda.get_device_name(device)}"
        for check in check_kernels(device):
            # a GPU's first call compiles the kernel, and that takes seconds
            took = "" if device == "cpu" else f", {check.seconds:.1f} s"
            verdict = f"FAILED: {check.fault}" if check.fault else "agrees with float64"
            yield f"{check.name:<24} {device}{name}: {verdict}{took}", not check.fault


def _cuda() -> Iterator[tuple[str, bool]]:
    """Where there is no GPU: a line that says whether the kernels could be compiled for one."""
    import torch

    from shardwright.pipelines.kernel_checks import compile_without_device

    if torch.cuda.is_available():
        return
    try:
        yield f"{'cuda':<24} no device; {compile_without_device()}: ok", True
    except ImportError:
        yield f"{'cuda':<24} no device, and no NVRTC (the extra gpu brings it)", True
    except RuntimeError as error:
        yield f"{'cuda':<24} no device; FAILED: {str(error).splitlines()[0]}", False
