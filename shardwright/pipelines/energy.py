"""Energy that a machine's own counters saw: of its processors (RAPL) and its cards (NVML).

What cannot be read is unknown, never guessed from a model of the machine. Counters are the
machine's: what else ran on it meanwhile is in them, and workers on other machines are not.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardwright.errors import UserError

INTENSITY: Final = "SHARDWRIGHT_GRAMS_CO2E_PER_KWH"
_RAPL: Final = Path("/sys/class/powercap")
_JOULES_PER_KWH: Final = 3.6e6


@dataclass(frozen=True)
class Counter:
    """One counter of energy.

    Attributes:
        name: As the machine calls it.
        read: Joules since some moment.
        range: Joules after which it begins again at 0, or None where it does not.
    """

    name: str
    read: Callable[[], float]
    range: float | None = None


@dataclass(frozen=True)
class Energy:
    """What a span of time took.

    Attributes:
        joules: By counter; empty where none can be read.
        grams_co2e: Of the sum, by the intensity that the environment states; None without one.
    """

    joules: Mapping[str, float]
    grams_co2e: float | None


class Meter:
    """Reads the counters when it is made and when it is asked."""

    def __init__(self, counters: tuple[Counter, ...] | None = None) -> None:
        self._counters = find_counters() if counters is None else counters
        self._before = [counter.read() for counter in self._counters]

    def energy(self) -> Energy:
        """What was taken since the meter was made; a counter that wrapped did so once."""
        joules = {}
        for counter, before in zip(self._counters, self._before, strict=True):
            taken = counter.read() - before
            if taken < 0 and counter.range is not None:
                taken += counter.range
            joules[counter.name] = taken
        grams = intensity()
        known = bool(joules) and grams is not None
        whole = sum(joules.values()) / _JOULES_PER_KWH * (grams or 0.0)
        return Energy(joules, whole if known else None)


def intensity() -> float | None:
    """Grams of CO2 equivalent for each kWh of the machine's electricity, as the user states it.

    Raises:
        UserError: What is stated is no number.
    """
    stated = os.environ.get(INTENSITY)
    if not stated:
        return None
    try:
        return float(stated)
    except ValueError:
        raise UserError(f"{INTENSITY}={stated}: is no number of grams; unset or mend it") from None


def find_counters(rapl: Path = _RAPL) -> tuple[Counter, ...]:
    """The counters of this machine that can be read."""
    return (*_processors(rapl), *_cards())


def _processors(rapl: Path) -> list[Counter]:
    """Packages of the powercap interface; parts of a package are in it already."""
    found = []
    for zone in sorted(rapl.glob("*-rapl:[0-9]*")):
        if zone.name.count(":") > 1:
            continue
        try:
            name, most = ((zone / file).read_text().strip() for file in ("name", _RANGE))
            counter = Counter(name, _micro(zone / "energy_uj"), int(most) / 1e6)
            counter.read()
        except (OSError, ValueError):  # not there, or not for this user
            continue
        found.append(counter)
    return found


_RANGE: Final = "max_energy_range_uj"


def _micro(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def _cards() -> list[Counter]:
    """Cards of NVIDIA since Volta, where ``nvidia-ml-py`` is installed."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return []

    def reading(handle: object) -> Callable[[], float]:
        return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3

    return [Counter(f"gpu-{i}", reading(handle)) for i, handle in enumerate(handles)]
