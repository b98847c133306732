"""The plan of a table: which inputs make which part, by boundaries that the content defines.

A part ends behind a unit whose path says so, so that a unit more or less changes the part it
belongs to and not the parts that follow. Between the least and the greatest size a unit ends the
part with a probability in proportion to its weight, read from the hash of its path; the mean part
then weighs about ``target`` whatever the units weigh.
"""

import hashlib
from collections.abc import Iterable, Iterator

from shardwright.errors import DataError
from shardwright.pipelines.sources.types import Unit

_OVERHEAD = 1024  # what a unit weighs beside its bytes: a row's narrow columns, a file's opening
_LEAST, _GREATEST = 0.5, 4.0


def plan_parts(units: Iterable[Unit], target: int) -> Iterator[tuple[str, list[Unit]]]:
    """Cuts a sorted stream of units into parts of about ``target`` bytes.

    Yields:
        The part's key (16 hex digits of a hash of its first unit) and its units.

    Raises:
        DataError: Two units have one path.
    """
    part: list[Unit] = []
    weight = 0
    last: tuple[str, int] | None = None
    for unit in units:
        if last == (unit.path, unit.first) and unit.problem is None:
            raise DataError(f"{unit.path}: stands twice in the source; give each input one path")
        last = (unit.path, unit.first)
        part.append(unit)
        share = unit.size + _OVERHEAD
        weight += share
        if weight >= _GREATEST * target or (
            weight >= _LEAST * target and _draw(unit.path) < share / ((1 - _LEAST) * target)
        ):
            yield _key(part[0]), part
            part, weight = [], 0
    if part:
        yield _key(part[0]), part


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _draw(path: str) -> float:
    """A number in [0, 1) that depends on the path alone."""
    return int.from_bytes(_digest(path)[:6]) / 2**48


def _key(unit: Unit) -> str:
    return _digest(f"{unit.path}\0{unit.first}\0{unit.problem is not None}").hex()[:16]
