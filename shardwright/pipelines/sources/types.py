"""What every source speaks: units to plan with, and inputs to accept or reject."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Unit:
    """What the plan cuts into parts: a file, an archive, a row group.

    Attributes:
        path: Name relative to the source's uri as the tables show it, unique among units.
        location: What to open; undecodable bytes of a local name are kept by surrogate escapes.
        size: Bytes to read, the unit's weight in its part.
        state: Changes whenever the unit's content may have (size and times, an etag, a blob id).
        problem: Reason and message when the listing already knows that it cannot be read.
        first: First row or member to read.
        take: How many inputs to read from here, or None for all (row groups, ``--limit``).
    """

    path: str
    location: str
    size: int
    state: str
    problem: tuple[str, str] | None = None
    first: int = 0
    take: int | None = None


@dataclass(frozen=True)
class Input:
    """One input as its source gives it: the bytes, and what the source knows of them."""

    path: str
    data: bytes
    repository: str | None = None
    revision: str | None = None
    language: str | None = None
    license: str | None = None
    label: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """One input that cannot become a record, with the reason's code and what happened."""

    path: str
    reason: str
    message: str


class Source(Protocol):
    """A place that inputs come from. Pickled to workers: holds settings, no handles."""

    def units(self, limit: int | None) -> Iterator[Unit]:
        """Lists the units sorted by path, for at most ``limit`` inputs.

        Raises:
            UserError: The uri names nothing that this kind of source can list.
        """
        ...

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every wanted input of the units, in order, as bytes or as a refusal.

        No two inputs of a source have one path: what comes second is a refusal.
        """
        ...
