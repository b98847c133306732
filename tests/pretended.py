"""Packages that are installed for a test only, and nowhere."""

from collections.abc import Iterable
from importlib.metadata import Distribution, EntryPoint

import pytest

from shardwright import plugins


class Package(Distribution):
    """A package of a name and a version, without files."""

    def __init__(self, name: str, version: str) -> None:
        self._named = f"Name: {name}\nVersion: {version}\n"

    def read_text(self, filename):
        return self._named if filename == "METADATA" else None

    def locate_file(self, path):
        raise AssertionError("no test looks for its files")


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    group: str,
    points: Iterable[tuple[str, str, str]],
) -> None:
    """Makes these all entry points there are: name, what of ``module``, package and version."""
    found = [
        EntryPoint(name, f"{module}:{what}", group)._for(Package(*package.split()))
        for name, what, package in points
    ]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [one for one in found if one.group == group]
    )
