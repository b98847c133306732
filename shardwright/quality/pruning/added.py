"""Scores that packages add: what they are handed, what they give, and how a name finds one.

A package adds a score through an entry point of the group ``shardwright.scores``, whose name is
that of the score: of its column in ``scores``, and of the method that prunes by it. It loads an
object with an attribute ``method`` (a ``Method``) and a function ``score``, see ``AddedScore``. A
recipe gets it by naming it in ``prune.method`` or ``prune.scores``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from shardwright.errors import UserError
from shardwright.plugins import Plugin, find, installed
from shardwright.quality.pruning.methods import METHODS, Method

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

ENTRY_POINTS: Final = "shardwright.scores"

_OURS: Final = {method.name: method for method in METHODS}
# Of two words or more: so no word of SQL, and of columns beside it only `record_id` could be meant.
_COLUMN: Final = re.compile(r"(?!record_id$)[a-z][a-z0-9]*(_[a-z0-9]+)+")
_REASON: Final = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class LiveRecords:
    """The n records that are scored, in the order of the input.

    Attributes:
        modality: ``code`` or ``image``.
        record_ids: string [n], all different.
        lengths: int64 [n], bytes of a text, pixels of a picture.
        clusters: int32 [n], of the stage ``cluster``.
        distances: float64 [n], 1 - cosine to the centroid of the own cluster.
        read_vectors: Reads ``vectors``.
    """

    modality: str
    record_ids: "pa.Array"
    lengths: "npt.NDArray[np.int64]"
    clusters: "npt.NDArray[np.int32]"
    distances: "npt.NDArray[np.float64]"
    read_vectors: "Callable[[], npt.NDArray[np.float32]]"

    @cached_property
    def vectors(self) -> "npt.NDArray[np.float32]":
        """Unit rows float32 [n, d]; read when first asked for, mapped from a file if large."""
        return self.read_vectors()


class AddedScore(Protocol):
    """What an entry point loads: a method, and the function that scores by it."""

    method: Method

    def score(self, records: LiveRecords) -> "npt.NDArray[np.float64]":
        """What each record is worth, float64 [n]: finite, higher is more worth keeping."""
        ...


def find_method(name: str) -> Method:
    """The pruning method of a name: one that ships, or one that a package adds.

    Raises:
        UserError: There is none, two packages add it, or what one adds is no score.
    """
    plugin = _plugin(name)
    return _OURS[name] if plugin is None else _load(plugin).method


def score_packages(names: set[str]) -> dict[str, str]:
    """Packages, with their versions, of those methods that packages add.

    Raises:
        UserError: See ``find_method``.
    """
    found = {name: _plugin(name) for name in sorted(names - _OURS.keys())}
    return {name: plugin.package for name, plugin in found.items() if plugin is not None}


def added_score(name: str, records: LiveRecords) -> "npt.NDArray[np.float64]":
    """Scores records by a method that a package adds.

    Args:
        name: Name of the method.
        records: n records.

    Returns:
        float64 [n], finite.

    Raises:
        UserError: See ``find_method``; or what it returns is no such array.
    """
    import numpy as np

    plugin = _plugin(name)
    if plugin is None:
        raise UserError(f"{name!r} is no score that a package adds")
    values = np.asarray(_load(plugin).score(records))
    n = len(records.record_ids)
    if values.shape != (n,) or values.dtype != np.float64:
        raise UserError(
            f"{plugin} returned {values.dtype} {list(values.shape)} for {n} records: a score is "
            f"float64 [{n}]"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(
            f"{plugin} scored record {records.record_ids[int(bad[0])]} {values[bad[0]]}, and "
            f"{len(bad)} in all so: a score is finite"
        )
    return values


def _plugin(name: str) -> Plugin | None:
    """The plug-in of a name; None for a name of ours."""
    plugin = find(ENTRY_POINTS, name, _OURS)
    if plugin is None and name not in _OURS:
        known = ", ".join([*_OURS, *(added.name for added in installed(ENTRY_POINTS))])
        raise UserError(
            f"no such method as {name!r}; there are {known}, and a package that adds one has it in "
            f"the entry points {ENTRY_POINTS!r}"
        )
    return plugin


def _load(plugin: Plugin) -> AddedScore:
    if not _COLUMN.fullmatch(plugin.name):
        raise UserError(
            f"{plugin} becomes a column: name it in lower case, of words joined by '_' of which "
            "the first is the package's, like acme_length"
        )
    own: AddedScore = plugin.load()
    method = getattr(own, "method", None)
    if not isinstance(method, Method) or not callable(getattr(own, "score", None)):
        raise UserError(f"{plugin} has no Method as its method, or no function score")
    if method.name != plugin.name:
        raise UserError(f"{plugin} has a method named {method.name!r}: give both one name")
    if len(method.reasons) != 1 or not _REASON.fullmatch(method.reasons[0]):
        raise UserError(
            f"{plugin} gives the reasons {list(method.reasons)}: a score has one, of lower-case "
            "letters, digits and '_'"
        )
    return own
