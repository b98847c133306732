"""What installed packages add, by name: sources, filters, encoders, scores and shard formats.

A package names what it adds in entry points, in one group for each kind. Which packages are there
is looked up when a name is asked for, and only what has the name is imported.
"""

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from shardwright.errors import UserError


@dataclass(frozen=True)
class Plugin:
    """What a package adds under a name; nothing of it is imported yet.

    Attributes:
        point: Its entry point.
    """

    point: EntryPoint

    @property
    def name(self) -> str:
        """What recipes call it."""
        return self.point.name

    @property
    def package(self) -> str:
        """Name and version of the package: part of what decides the results."""
        package = self.point.dist
        return "unknown" if package is None else f"{package.name} {package.version}"

    def load(self) -> Any:
        """Imports it.

        Raises:
            UserError: That fails.
        """
        try:
            return self.point.load()
        except Exception as error:  # whatever a foreign module raises while it is imported
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{self} cannot be imported ({why}); repair or uninstall the package"
            ) from error

    def __str__(self) -> str:
        return (
            f"the entry point {self.name!r} of {self.point.group!r} "
            f"({self.package}: {self.point.value})"
        )


def installed(group: str) -> list[Plugin]:
    """All that packages add to a group of entry points, sorted by name."""
    found = (Plugin(point) for point in entry_points(group=group))
    return sorted(found, key=lambda plugin: (plugin.name, plugin.package, plugin.point.value))


def find(group: str, name: str, ours: Collection[str]) -> Plugin | None:
    """What a package adds to a group under a name; None if no package does.

    Args:
        group: Group of entry points, like ``shardwright.encoders``.
        name: Name of the entry point.
        ours: Names of what ships, which no package can take.

    Raises:
        UserError: A package takes a name of ours, or two packages have the name.
    """
    found = [plugin for plugin in installed(group) if plugin.name == name]
    if found and name in ours:
        raise UserError(
            f"{found[0]} has a name that is Shardwright's own: rename it, or uninstall the package"
        )
    if len(found) > 1:
        raise UserError(
            f"{' and '.join(map(str, found))} have one name: rename one, or uninstall its package"
        )
    return found[0] if found else None
