"""Runs the CUDA sources on a host: ``EmulatedCard`` stands in for ``shardwright.kernels.device``.

Sources are compiled by a host compiler together with this folder's ``ptx.cuh`` (the machine's
instructions) and ``prelude.cuh`` (the words of CUDA), one shared library per kernel, kept in
``.cache/emulator``. What the machine checks
stands in ``barriers.cc``, ``copies.cc``, ``products.cc`` and ``races.cc``.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from shardwright.kernels.device import SOURCES

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / ".cache" / "emulator"
MACHINE = ("machine.cc", "barriers.cc", "copies.cc", "products.cc", "races.cc")
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-fno-exceptions", "-fno-rtti", "-ffp-contract=off", "-w")


class EmulatorError(RuntimeError):
    """A kernel did what a card forbids, or came to a stop."""


class _Range(ctypes.Structure):
    """``struct Range`` of machine.h."""

    _fields_ = [("start", ctypes.c_uint64), ("stop", ctypes.c_uint64)]


class _Launch(ctypes.Structure):
    """``struct Launch`` of machine.h."""

    _fields_ = [
        *[(name, ctypes.c_int) for name in ("blocks", "threads", "cluster", "memory")],
        *[(name, ctypes.c_ulonglong) for name in ("seed", "most_steps")],
        ("range", ctypes.POINTER(_Range)),
        ("ranges", ctypes.c_int),
    ]


class _Matrix(ctypes.Structure):
    """A TensorMap as copy_box reads it: ``struct Matrix`` of machine.h, and a mark at the end."""

    _fields_ = [
        ("numbers", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("box_rows", ctypes.c_int),
        ("unused", ctypes.c_int),
        ("words", ctypes.c_uint64 * 11),
        ("mark", ctypes.c_uint64),
    ]


class EmulatedCard:
    """A card whose memory is the host's, with the interface of ``device.Card``.

    Attributes:
        hopper: which of the two scans it runs.
        processors: how many multiprocessors it says it has.
        seed: of the schedule: which thread goes on, and when copies land.
        changes: ``(file, old, new)``, replacements in a copy of the sources: planted faults.
        launches: kernels run so far.
    """

    def __init__(
        self,
        hopper: bool,
        processors: int,
        seed: int = 0,
        changes: tuple[tuple[str, str, str], ...] = (),
        most_steps: int = 1 << 27,
    ) -> None:
        self.hopper = hopper
        self.processors = processors
        self.seed = seed
        self.changes = changes
        self.most_steps = most_steps
        self.launches = 0

    def launch(
        self, source: str, kernel: str, blocks: int, threads: int, memory: int, *arguments: Any
    ) -> None:
        """Runs a kernel to its end.

        Raises:
            EmulatorError: what went wrong, and where.
        """
        values = [_argument(argument) for argument in arguments]
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        seed = self.seed * 1000 + self.launches
        found = [span for argument in arguments for span in _memory(argument)]
        found += [(ctypes.addressof(item), ctypes.sizeof(item)) for item in (addresses, *values)]
        ranges = (_Range * len(found))(*[_Range(at, at + size) for at, size in found])
        launch = _Launch(blocks, threads, 0, memory, seed, self.most_steps, ranges, len(found))
        self.launches += 1
        run = _library(source, kernel, self.changes).run_kernel
        run.restype = ctypes.c_char_p
        problem = run(ctypes.byref(launch), addresses, len(values))
        if problem is not None:
            raise EmulatorError(f"{kernel}: {problem.decode()}")

    def tensor_map(self, matrix: torch.Tensor, rows: int) -> ctypes.Structure:
        """What the copy engine needs to know of float16 [n, d]: boxes of rows x 64 numbers."""
        assert matrix.dtype == torch.float16
        assert matrix.is_contiguous()
        assert matrix.data_ptr() % 16 == 0
        assert matrix.shape[1] % 8 == 0
        assert 0 < rows <= 256
        found = _Matrix(matrix.data_ptr(), *matrix.shape, rows)
        found.mark = 0x6D617000
        return found


def _memory(argument: Any) -> list[tuple[int, int]]:
    """Address and bytes of the global memory that an argument names."""
    if isinstance(argument, torch.Tensor):
        return [(argument.data_ptr(), argument.numel() * argument.element_size())]
    if not hasattr(argument, "capacity"):
        return []
    sizes = dict.fromkeys(("scale", "slack", "floor", "lo", "hi", "count", "bound"), argument.rows)
    sizes |= {"bias": argument.columns + 256, "order": argument.items}  # numbers of 4 bytes
    sizes |= {"list": argument.rows * argument.capacity * 2, "pairs": argument.room * 2, "total": 2}
    at = {name: getattr(argument, name) for name in sizes}
    return [(address, sizes[name] * 4) for name, address in at.items() if address]


def _argument(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, _Matrix):  # aligned as a TensorMap must be
        raw = (ctypes.c_ubyte * (ctypes.sizeof(argument) + 64))()
        offset = -ctypes.addressof(raw) % 64
        ctypes.memmove(ctypes.addressof(raw) + offset, ctypes.addressof(argument), 128)
        return _Matrix.from_buffer(raw, offset)
    return argument


@cache
def compiler() -> tuple[str, ...]:
    """The first C++ compiler there is: ``$CXX``, g++, clang++, PyPI's ziglang."""
    named = os.environ.get("CXX")
    if named:
        return tuple(named.split())
    for name in ("g++", "clang++"):
        if shutil.which(name):
            return (name,)
    return (sys.executable, "-m", "ziglang", "cc", "-x", "c++")


@cache
def _library(source: str, kernel: str, changes: tuple[tuple[str, str, str], ...]) -> ctypes.CDLL:
    """A kernel with the machine, built if it was not yet."""
    texts = {path.name: path.read_text() for path in sorted(SOURCES.iterdir()) if path.is_file()}
    for file, old, new in changes:
        assert texts[file].count(old) == 1, f"{file} has no single {old!r}"
        texts[file] = texts[file].replace(old, new)
    texts |= {path.name: path.read_text() for path in sorted(HERE.iterdir()) if path.is_file()}
    cluster = "BLOCKS" if source == "hopper.cu" else "1"
    named = (f'-DSOURCE="{source}"', f"-DKERNEL={kernel}", f"-DCLUSTER={cluster}")
    entry = _build(texts, "entry.cc", ("-c", "-fsanitize=thread", *named))
    return ctypes.CDLL(str(_link((entry, *_machine()))))


@cache
def _machine() -> tuple[Path, ...]:
    texts = {path.name: path.read_text() for path in sorted(HERE.iterdir()) if path.is_file()}
    return tuple(_build(texts, file, ("-c", "-O3")) for file in MACHINE)


def _build(texts: dict[str, str], file: str, options: tuple[str, ...]) -> Path:
    """Compiles one file of a set; the result's name is a hash of all that matters."""
    command = [*compiler(), *FLAGS, *options, file, "-o"]
    used = [f"{n}\0{t}" for n, t in texts.items() if n.endswith((".cuh", ".cu", ".h")) or n == file]
    built = CACHE / f"{Path(file).stem}-{_key(*command, *used)}.o"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as folder:
            for name, text in texts.items():
                (Path(folder) / name).write_text(text)
            _run([*command, built.name], folder)
            (Path(folder) / built.name).rename(built)
    return built


def _link(objects: tuple[Path, ...]) -> Path:
    """A shared library of objects."""
    linker = [word for word in compiler() if word not in ("-x", "c++")]
    command = [*linker, "-shared", *map(str, objects), "-lm", "-o"]
    built = CACHE / f"kernel-{_key(*command)}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as folder:
            _run([*command, built.name], folder)
            (Path(folder) / built.name).rename(built)
    return built


def _cache() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _run(command: list[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
