"""CUDA cards: sources compiled with NVRTC at first use, kept on disk, launched by the driver.

Only NVIDIA's bindings and NVRTC's wheel are needed (torch's CUDA builds bring both libraries):
no nvcc, no toolkit, no headers.
"""

import ctypes
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

SOURCES = Path(__file__).parent / "cuda"
WIDTHS = (128, 256)
"""Columns of a tile that the Hopper scan is built for."""
_SLICE = 64
"""Numbers of a row in a stage of the Hopper scan: ``SLICE`` of hopper.cu."""


@dataclass(frozen=True)
class Binary:
    """A compiled source.

    Attributes:
        code: the cubin.
        report: what the compiler said: registers, stack and spills of each kernel; "" if the
            binary comes from the disk.
    """

    code: bytes
    report: str


def compile_source(source: str, architecture: str) -> Binary:
    """Compiles one of the sources with NVRTC.

    Args:
        source: a file name under ``cuda/``.
        architecture: what the code is for, such as ``sm_80`` or ``sm_90a``.

    Returns:
        The binary, with the compiler's report.

    Raises:
        RuntimeError: NVRTC refused the source; the message is its log.
        ImportError: NVIDIA's bindings are not installed.
    """
    from cuda.bindings import nvrtc

    headers = _headers()
    texts = [text.encode() for text in headers.values()]
    names = [name.encode() for name in headers]
    code = (SOURCES / source).read_bytes()
    program = _checked(nvrtc.nvrtcCreateProgram(code, source.encode(), len(headers), texts, names))
    options = [option.encode() for option in _options(architecture)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    report = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
    _checked(nvrtc.nvrtcGetProgramLog(program, report))
    text = report.rstrip(b"\0").decode()
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC cannot compile {source} for {architecture}:\n{text}")
    binary = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, binary))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return Binary(bytes(binary), text)


def cached_binary(source: str, architecture: str, folder: Path | None = None) -> Binary:
    """Like ``compile_source``, from the disk if it was compiled before.

    The file's name is a hash of the sources, the architecture, the options and NVRTC's version.
    It is written whole or not at all, so that processes may race for it.

    Args:
        source: a file name under ``cuda/``.
        architecture: see ``compile_source``.
        folder: where binaries are kept; by default ``$SHARDWRIGHT_KERNEL_CACHE``, or
            ``shardwright/kernels`` in the user's cache folder.
    """
    from cuda.bindings import nvrtc

    version = _checked(nvrtc.nvrtcVersion())
    key = hashlib.sha256()
    parts = [source, (SOURCES / source).read_text(), *_headers().values()]
    for part in [*parts, *_options(architecture), repr(version)]:
        key.update(part.encode() + b"\0")
    name = f"{Path(source).stem}-{architecture}-{key.hexdigest()[:32]}.cubin"
    kept = (folder or _cache_folder()) / name
    if kept.is_file():
        return Binary(kept.read_bytes(), "")
    binary = compile_source(source, architecture)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            file.write(binary.code)
        Path(file.name).replace(kept)
    except OSError as error:  # works as well, only slower at each start
        warnings.warn(f"compiled kernels cannot be kept in {kept.parent}: {error}", stacklevel=2)
    return binary


class Card:
    """A CUDA device and the kernels loaded on it.

    Attributes:
        processors: its multiprocessors.
        hopper: whether it runs hopper.cu, else it runs portable.cu.
        architecture: what its kernels are compiled for.
    """

    def __init__(self, index: int) -> None:
        properties = torch.cuda.get_device_properties(index)
        if properties.major < 8:
            raise RuntimeError(
                f"{properties.name} has compute capability {properties.major}.{properties.minor}: "
                "the kernels need 8.0 or higher; use device cpu"
            )
        self.index = index
        self.processors: int = properties.multi_processor_count
        self.hopper = (properties.major, properties.minor) == (9, 0)
        suffix = "a" if self.hopper else ""
        self.architecture = f"sm_{properties.major}{properties.minor}{suffix}"
        self._kernels: dict[tuple[str, str], Any] = {}
        self._modules: dict[str, Any] = {}

    def launch(
        self, source: str, kernel: str, blocks: int, threads: int, memory: int, *arguments: Any
    ) -> None:
        """Starts a kernel on torch's current stream; returns at once.

        Args:
            source: the file under ``cuda/`` that holds it; compiled if it was not yet.
            kernel: its name.
            blocks: of the grid, one-dimensional.
            threads: of a block.
            memory: dynamic shared memory of a block in bytes.
            *arguments: tensors (their addresses; they must live until the kernel ran, which
                torch's allocator sees to on one stream), ctypes values, or tensor maps.
        """
        from cuda.bindings import driver

        with torch.cuda.device(self.index):
            function = self._function(source, kernel, memory)
            values = [_argument(argument) for argument in arguments]
            addresses = (ctypes.c_void_p * len(values))(*map(_address, values))
            stream = driver.CUstream(torch.cuda.current_stream().cuda_stream)
            _checked(
                driver.cuLaunchKernel(
                    function,
                    *(blocks, 1, 1),
                    *(threads, 1, 1),
                    memory,
                    stream,
                    ctypes.addressof(addresses),
                    0,
                )
            )

    def tensor_map(self, matrix: torch.Tensor, rows: int) -> Any:
        """How the copy engine sees a matrix: boxes of rows x 64 numbers, 128-byte swizzle.

        Args:
            matrix: float16 [n, d], contiguous, d a multiple of 8; it must outlive the map.
            rows: of a box. What lies outside the matrix reads as zero.

        Returns:
            An argument for ``launch``.
        """
        from cuda.bindings import driver

        count, width = matrix.shape
        size = matrix.element_size()
        return _checked(
            driver.cuTensorMapEncodeTiled(
                driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                2,
                matrix.data_ptr(),
                [driver.cuuint64_t(width), driver.cuuint64_t(count)],
                [driver.cuuint64_t(width * size)],
                [driver.cuuint32_t(_SLICE), driver.cuuint32_t(rows)],
                [driver.cuuint32_t(1), driver.cuuint32_t(1)],
                driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
                driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        )

    def _function(self, source: str, kernel: str, memory: int) -> Any:
        """The kernel, loaded and allowed ``memory`` bytes; the device's context is current."""
        from cuda.bindings import driver

        found = self._kernels.get((source, kernel))
        if found is None:
            if source not in self._modules:
                torch.cuda.current_stream().synchronize()  # makes torch's context current
                code = cached_binary(source, self.architecture).code
                self._modules[source] = _checked(driver.cuModuleLoadData(code))
            found = _checked(driver.cuModuleGetFunction(self._modules[source], kernel.encode()))
            attribute = driver.CUfunction_attribute
            shared = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _checked(driver.cuFuncSetAttribute(found, shared, memory))
            self._kernels[source, kernel] = found
        return found


@cache
def card_of(device: torch.device) -> Card:
    """The card of a CUDA device; one for each, so that kernels are loaded once."""
    return Card(torch.cuda.current_device() if device.index is None else device.index)


def wgmma_header() -> str:
    """``wgmma.cuh``: warpgroup products of all widths, whose operand lists nobody should type.

    ``wgmma(acc, a, b, add)``: acc = a b + (add ? acc : 0), a float16 [64, 16] and b
    float16 [width, 16] in shared memory, as descriptors, acc float32 [64, width] in the registers
    of 128 threads (PTX ISA, "wgmma.mma_async", shape m64nNk16).
    """
    return "\n".join(["#pragma once", *map(_wgmma, WIDTHS)])


def _wgmma(width: int) -> str:
    count = width // 2
    names = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+f"(acc[{i}])' for i in range(count))
    return f"""
__device__ __forceinline__ void wgmma(float (&acc)[{count}], unsigned long long a,
                                      unsigned long long b, int add) {{
  asm volatile(
      "{{\\n.reg .pred add;\\nsetp.ne.b32 add, %{count + 2}, 0;\\n"
      "wgmma.mma_async.sync.aligned.m64n{width}k16.f32.f16.f16 {{{names}}}, "
      "%{count}, %{count + 1}, add, 1, 1, 0, 0;\\n}}"
      : {operands}
      : "l"(a), "l"(b), "r"(add));
}}
"""


def _headers() -> dict[str, str]:
    """Name to text of what sources include."""
    kept = {path.name: path.read_text() for path in sorted(SOURCES.glob("*.cuh"))}
    return {**kept, "wgmma.cuh": wgmma_header()}


def _options(architecture: str) -> list[str]:
    return [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"]


def _cache_folder() -> Path:
    named = os.environ.get("SHARDWRIGHT_KERNEL_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "shardwright/kernels"


def _argument(argument: Any) -> Any:
    return ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, torch.Tensor) else argument


def _address(value: Any) -> int:
    point: Callable[[], int] | None = getattr(value, "getPtr", None)  # NVIDIA's structures
    return point() if point else ctypes.addressof(value)


def _checked(answer: tuple[Any, ...]) -> Any:
    """The result of a call of NVIDIA's bindings, whose first item is its status."""
    status, *results = answer
    if status.value != 0:
        raise RuntimeError(f"{type(status).__name__}: {status.name}")
    return results[0] if len(results) == 1 else tuple(results)
