"""Detectors are files: what is read back judges to the last bit as what was written."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from shardwright.quality.calibration import ALL, Gauge
from shardwright.quality.damage import fit_damage
from shardwright.quality.detectors import Detectors
from shardwright.quality.probe import Vectors, fit_probe

LANGUAGES = ("C++", "Visual Basic/6", "Ü", "file")


def vectors(rng, rows, shift=0.0):
    counts = rng.integers(1, 4, rows)
    x = rng.normal(size=(rows + counts.sum(), 8)) + shift
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Vectors(x[:rows], x[rows:], np.cumsum(counts) - counts)


def fitted(seed=0):
    rng = np.random.default_rng(seed)
    clean, damaged = vectors(rng, 60), vectors(rng, 60, 0.5)
    reference = vectors(rng, 200)
    families = ["a", "b", "c"] * 20
    probe = fit_probe(reference.documents, clean, damaged, np.arange(60), families)
    good, bad = rng.normal(size=(240, 3)), rng.normal([1, 0.5, 0], size=(60, 3))
    groups = np.repeat(LANGUAGES, 60).tolist()
    damage = fit_damage(
        ["one", "two", "three"], [False, True, False], good, groups, bad, groups[:60], families
    )
    return Detectors(probe, damage)


@pytest.fixture(scope="module")
def detectors():
    return fitted()


def test_what_is_read_back_judges_alike(detectors, tmp_path):
    path = tmp_path / "detectors.npz"
    detectors.save(path)
    again = Detectors.load(path)
    rng = np.random.default_rng(1)
    asked = vectors(rng, 50)
    np.testing.assert_array_equal(again.probe.judge(asked), detectors.probe.judge(asked))
    values = rng.normal(size=(50, 3))
    values[::7, 1] = np.nan
    groups = [*LANGUAGES, "Zig", None] * 8 + [None] * 2
    np.testing.assert_array_equal(
        again.damage.contributions(values, groups), detectors.damage.contributions(values, groups)
    )
    np.testing.assert_array_equal(
        again.damage.judge(values, groups), detectors.damage.judge(values, groups)
    )
    assert again.damage.names == ("one", "two", "three")
    assert again.damage.odd.tolist() == [False, True, False]
    assert set(again.damage.gauge.knots) == {ALL, *LANGUAGES}
    assert set(again.probe.gauge.knots) == {ALL}


def test_equal_detectors_have_equal_bytes(detectors, tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    detectors.save(first)
    fitted().save(second)
    Detectors.load(first).save(third)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    fitted(1).save(second)
    assert first.read_bytes() != second.read_bytes()


def test_the_file_holds_no_time_and_no_pickle(detectors, tmp_path):
    path = tmp_path / "detectors.npz"
    detectors.save(path)
    with zipfile.ZipFile(path) as archive:
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with np.load(path, allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)


def test_gauges_are_not_mixed_up(detectors, tmp_path):
    """The probe's and the model's own gauges, with groups of the same names."""
    probe, damage = detectors.probe, detectors.damage
    other = Gauge({ALL: damage.gauge.knots[ALL] + 1, "C++": damage.gauge.knots["C++"] + 2})
    path = tmp_path / "detectors.npz"
    Detectors(probe, replace(damage, gauge=other)).save(path)
    again = Detectors.load(path)
    assert set(again.damage.gauge.knots) == {ALL, "C++"}
    for name, knots in other.knots.items():
        np.testing.assert_array_equal(again.damage.gauge.knots[name], knots)
    np.testing.assert_array_equal(again.probe.gauge.knots[ALL], probe.gauge.knots[ALL])
