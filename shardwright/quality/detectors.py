"""What the study of damage leaves: models of the corpus, and detectors calibrated on it; one file.

The file is a NumPy archive without pickles, and equal detectors have equal bytes.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shardwright.quality.calibration import ALL, Gauge
from shardwright.quality.damage import Damage
from shardwright.quality.probe import Mixture, Probe, Usual

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Detectors:
    """Calibrated detectors of damage.

    Attributes:
        probe: Judges by embeddings alone.
        damage: Judges by all views.
    """

    probe: Probe
    damage: Damage

    def save(self, path: Path) -> None:
        """Writes them."""
        probe, damage = self.probe, self.damage
        arrays: Arrays = {
            "direction": probe.direction,
            "probe_weights": probe.weights,
            "biases": np.array([probe.bias, damage.bias]),
            "names": np.array(damage.names),
            "odd": damage.odd,
            "damage_weights": damage.weights,
            "damage_tops": damage.tops,
            **_gauge("probe_gauge", probe.gauge),
            **_gauge("damage_gauge", damage.gauge),
        }
        for name, usual in (("documents", probe.documents), ("windows", probe.windows)):
            for fold, mixture in enumerate(usual.mixtures):
                arrays |= {
                    f"{name}_{fold}_means": mixture.means,
                    f"{name}_{fold}_whiteners": mixture.whiteners,
                    f"{name}_{fold}_offsets": mixture.offsets,
                    **_gauge(f"{name}_{fold}_gauge", usual.gauges[fold]),
                }
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        path.write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Detectors":
        """Reads them."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        biases = arrays["biases"].tolist()
        probe = Probe(
            _usual("documents", arrays),
            _usual("windows", arrays),
            arrays["direction"],
            _read_gauge("probe_gauge", arrays),
            arrays["probe_weights"],
            biases[0],
        )
        damage = Damage(
            tuple(arrays["names"].tolist()),
            arrays["odd"],
            _read_gauge("damage_gauge", arrays),
            arrays["damage_weights"],
            arrays["damage_tops"],
            biases[1],
        )
        return cls(probe, damage)


def _usual(name: str, arrays: Arrays) -> Usual:
    return Usual(
        (_mixture(f"{name}_0", arrays), _mixture(f"{name}_1", arrays)),
        (_read_gauge(f"{name}_0_gauge", arrays), _read_gauge(f"{name}_1_gauge", arrays)),
    )


def _mixture(name: str, arrays: Arrays) -> Mixture:
    return Mixture(*(arrays[f"{name}_{part}"] for part in ("means", "whiteners", "offsets")))


def _gauge(name: str, gauge: Gauge) -> Arrays:
    return {f"{name}/{group}/": knots for group, knots in gauge.knots.items()}


def _read_gauge(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Gauge:
    knots = {
        key.removeprefix(f"{name}/")[:-1]: array
        for key, array in arrays.items()
        if key.startswith(f"{name}/")
    }
    assert ALL in knots
    return Gauge(knots)
