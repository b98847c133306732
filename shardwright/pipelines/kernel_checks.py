"""The distance kernels against float64 on rows made to be hard: ``shardwright doctor``'s part.

Imports torch, so it is imported when the check runs.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from shardwright import kernels

Metric = Literal["cosine", "dot", "l2"]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")
_ROWS = 320
_DIMENSION = 72
_NEIGHBOURS = 7
_OFFSETS = (0, 0, 1, 90, 90, 200, 320)
"""Groups of which some are empty and one holds a single row."""
_GAMMAS = (0.003, 0.05)
_TOLERANCE = 1e-12
"""Of a value, relative to the largest one: both sides are float64 sums of 72 terms."""
_SUM_TOLERANCE = 1e-9
"""Of a kernel sum, relative."""


@dataclass(frozen=True)
class Check:
    """What one kernel did in one metric on one device.

    Attributes:
        name: the kernel and the metric, such as ``nearest cosine``.
        device: ``cpu``, or ``cuda:`` and a number.
        fault: what is wrong, or "".
        seconds: how long the call took, with the compiling that a first call on a GPU does.
    """

    name: str
    device: str
    fault: str
    seconds: float


def hard_rows() -> Float32:
    """Rows float32 [320, 72]: random ones, copies, doubles, close neighbours, zeros.

    Neighbours differ by one part in 10^6 in some places. That moves a cosine by 10^-13: float32
    cannot see it and float64 can.
    """
    draw = np.random.default_rng(0)
    base = draw.standard_normal((_ROWS // 4, _DIMENSION)).astype(np.float32)
    near = base.copy()
    near[:, ::9] *= np.float32(1 + 2.0**-20)
    rows: Float32 = np.concatenate([base, base, 2 * base, near])[draw.permutation(_ROWS)]
    rows[[5, 250]] = 0
    return rows


def pair_values(x: Float32, y: Float32, metric: Metric) -> Float64:
    """The metric of all pairs, float64 [n, m]; equal rows have equal values to the last bit.

    A matrix product would not do: what it gives for a pair can depend on the pair's place.
    """
    wide, other = x.astype(np.float64), y.astype(np.float64)
    if metric == "l2":
        distances: Float64 = np.square(wide[:, None] - other).sum(axis=2)
        return distances
    dots: Float64 = (wide[:, None] * other).sum(axis=2)
    if metric == "dot":
        return dots
    squares = np.square(wide).sum(axis=1)[:, None] * np.square(other).sum(axis=1)
    norms = np.sqrt(squares)
    return np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)


def devices() -> list[str]:
    """The CPU and every CUDA device."""
    return ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]


def check_kernels(device: str) -> Iterator[Check]:
    """Runs every kernel in every metric on a device; an error is a fault like a wrong answer."""
    rows = hard_rows()
    for metric in METRICS:
        values = pair_values(rows, rows, metric)
        for kernel, compare in _COMPARISONS.items():
            started = time.perf_counter()
            fault = _fault_of(compare, rows, values, metric, device)
            yield Check(f"{kernel} {metric}", device, fault, time.perf_counter() - started)
    started = time.perf_counter()
    fault = _fault_of(_kernel_sum, rows, pair_values(rows, rows, "l2"), "l2", device)
    yield Check("kernel_sum", device, fault, time.perf_counter() - started)


def compile_without_device() -> str:
    """Compiles a kernel for a GPU that need not be there; says with which NVRTC, or what failed.

    Raises:
        ImportError: NVIDIA's bindings are not installed.
        RuntimeError: NVRTC is not there, or refuses the source.
    """
    from cuda.bindings import nvrtc

    from shardwright.kernels.device import compile_source

    compile_source("rows.cu", "sm_90a")
    _, major, minor = nvrtc.nvrtcVersion()
    return f"NVRTC {major}.{minor} compiles sm_90a"


Compare = Callable[[Float32, Float64, Metric, str], str]


def _fault_of(compare: Compare, rows: Float32, values: Float64, metric: Metric, device: str) -> str:
    try:
        return compare(rows, values, metric, device)
    # whatever a kernel, a driver or a compiler raises is what the check is there to report
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _nearest(rows: Float32, values: Float64, metric: Metric, device: str) -> str:
    targets = slice(0, 200)
    x = torch.from_numpy(rows).to(device)
    index, value = kernels.nearest(x, x[targets], metric)
    ranked = _ranked(values[:, targets], metric)
    return _difference(index, value, ranked[:, 0], values)


def _topk(rows: Float32, values: Float64, metric: Metric, device: str) -> str:
    x = torch.from_numpy(rows).to(device)
    index, value = kernels.topk(x, x, _NEIGHBOURS, metric)
    return _difference(index, value, _ranked(values, metric)[:, :_NEIGHBOURS], values)


def _pairs_above(rows: Float32, values: Float64, metric: Metric, device: str) -> str:
    groups = np.repeat(np.arange(len(_OFFSETS) - 1), np.diff(_OFFSETS))
    inside = np.triu(groups[:, None] == groups, 1)
    # in the middle of a wide gap, where no rounding decides
    threshold = _gap(values[inside])
    wanted = inside & (values < threshold if metric == "l2" else values > threshold)
    i, j = np.nonzero(wanted)
    x = torch.from_numpy(rows).to(device)
    offsets = torch.tensor(_OFFSETS, device=device)
    found = kernels.pairs_above(x, threshold, offsets, metric)
    pairs = [part.cpu().numpy() for part in found]
    if not (np.array_equal(pairs[0], i) and np.array_equal(pairs[1], j)):
        return f"{len(pairs[0])} pairs, {len(i)} expected, or others"
    return _wrong_values(pairs[2], values[i, j])


def _group_max(rows: Float32, values: Float64, metric: Metric, device: str) -> str:
    groups = np.repeat(np.arange(len(_OFFSETS) - 1), np.diff(_OFFSETS))
    earlier = np.tril(groups[:, None] == groups, -1)
    worst = np.inf if metric == "l2" else -np.inf
    masked = np.where(earlier, values, worst)
    expected = np.where(earlier.any(axis=1), _ranked(masked, metric)[:, 0], -1)
    x = torch.from_numpy(rows).to(device)
    index, value = kernels.group_max(x, torch.tensor(_OFFSETS, device=device), metric)
    if not (value.cpu().numpy()[expected < 0] == worst).all():
        return f"a row without an earlier one has another value than {worst}"
    some = torch.from_numpy(np.flatnonzero(expected >= 0)).to(device)
    expected_some = expected[expected >= 0]
    if bool((index.cpu().numpy()[expected < 0] != -1).any()):
        return "a row without an earlier one has an index"
    return _difference(index[some], value[some], expected_some, masked[expected >= 0])


def _kernel_sum(rows: Float32, values: Float64, metric: Metric, device: str) -> str:
    x = torch.from_numpy(rows).to(device)
    total, row_sums = kernels.kernel_sum(x, x[:100], _GAMMAS)
    expected = np.stack([np.exp(-gamma * values[:, :100]).sum(axis=1) for gamma in _GAMMAS])
    pairs = ((row_sums, expected), (total, expected.sum(axis=1)))
    errors = [float(np.abs(got.cpu().numpy() / true - 1).max()) for got, true in pairs]
    return "" if max(errors) <= _SUM_TOLERANCE else f"sums are off by {max(errors):.1e}"


_COMPARISONS: dict[str, Compare] = {
    "nearest": _nearest,
    "topk": _topk,
    "pairs_above": _pairs_above,
    "group_max": _group_max,
}


def _ranked(values: Float64, metric: Metric) -> npt.NDArray[np.int64]:
    """Columns from best to worst, equal ones by number, int64 [n, m]."""
    ranked: npt.NDArray[np.int64] = np.argsort(
        values if metric == "l2" else -values, axis=1, kind="stable"
    )
    return ranked


def _gap(values: Float64) -> float:
    """The middle of the widest gap between neighbouring values, among the middle half of them."""
    ordered = np.sort(values)[len(values) // 4 : -len(values) // 4]
    widest = int(np.diff(ordered).argmax())
    return float(ordered[widest] + ordered[widest + 1]) / 2


def _difference(
    index: torch.Tensor, value: torch.Tensor, expected: npt.NDArray[np.int64], values: Float64
) -> str:
    """Compares indices [n] or [n, k] and their values; says how many are wrong, or nothing."""
    got: Any = index.cpu().numpy()
    if got.shape != expected.shape:
        return f"indices of shape {got.shape}, {expected.shape} expected"
    wrong = int((got != expected).sum())
    if wrong:
        return f"{wrong} of {expected.size} indices are wrong"
    columns = expected.reshape(len(expected), -1)
    true = np.take_along_axis(values, columns, axis=1).reshape(expected.shape)
    return _wrong_values(value.cpu().numpy(), true)


def _wrong_values(got: Any, true: Float64) -> str:
    worst = float(np.abs(got - true).max(initial=0.0))
    limit = _TOLERANCE * max(1.0, float(np.abs(true).max(initial=0.0)))
    return "" if worst <= limit else f"values are off by {worst:.1e}"
