"""Formats of shard files that packages add: a writer and a reader under one name.

A package adds a format through an entry point of the group ``shardwright.shard_formats``, whose
name is what ``shards.format`` says and what the list of files keeps. It loads an object, see
``AddedFormat``. Only what reads a shard runs in a training job.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from shardwright.errors import UserError
from shardwright.plugins import Plugin, find, installed

if TYPE_CHECKING:
    import pyarrow as pa

    from shardwright.shards.readers import ShardReader

ENTRY_POINTS: Final = "shardwright.shard_formats"
OURS: Final = ("mds", "webdataset", "parquet")
"""Formats that ship."""

_LISTED: Final = ("json", "faiss")  # what the lists of files call something else
_SUFFIX: Final = re.compile(r"\.(?!(mds|tar|parquet|json)$)[a-z0-9]+")
_DOES: Final = ("size_sql", "overhead", "write", "open")


class AddedFormat(Protocol):
    """What an entry point loads: how samples become files of a format, and samples again.

    Attributes:
        suffix: What the names of its files end on, like ``.npz``.
    """

    suffix: str

    def size_sql(self, schema: "pa.Schema", lengths: Mapping[str, str]) -> str:
        """SQL (DuckDB) for the bytes that a row adds to its file, never too small.

        ``lengths`` holds SQL for the byte lengths of columns that are better not read.
        """
        ...

    def overhead(self, schema: "pa.Schema") -> int:
        """Bytes of a file without samples, never too small."""
        ...

    def write(self, path: Path, samples: "pa.Table") -> None:
        """Writes a file of the samples in their order; no text among them is missing.

        The same samples give the same bytes.
        """
        ...

    def open(self, path: Path) -> "ShardReader":
        """Opens a file for reading samples by their positions.

        A sample has the columns that were written, as plain values.
        """
        ...


def find_format(name: str) -> tuple[Plugin, AddedFormat] | None:
    """The format that a package adds under a name; None for a format that ships.

    Raises:
        UserError: There is none, two packages add it, or what one adds is no format.
    """
    plugin = find(ENTRY_POINTS, name, (*OURS, *_LISTED))
    if plugin is not None:
        return plugin, _load(plugin)
    if name not in OURS:
        known = ", ".join([*OURS, *(added.name for added in installed(ENTRY_POINTS))])
        raise UserError(
            f"no such format as {name!r}; there are {known}, and a package that adds one has it in "
            f"the entry points {ENTRY_POINTS!r}"
        )
    return None


@functools.cache
def added_format(name: str) -> AddedFormat:
    """The format that a package adds under a name, looked up once in a process.

    Raises:
        UserError: See ``find_format``; or it is one that ships.
    """
    found = find_format(name)
    if found is None:
        raise UserError(f"{name!r} is no format that a package adds")
    return found[1]


def _load(plugin: Plugin) -> AddedFormat:
    own: AddedFormat = plugin.load()
    missing = [name for name in _DOES if not callable(getattr(own, name, None))]
    if missing:
        raise UserError(f"{plugin} has no {', '.join(missing)}: a format has {', '.join(_DOES)}")
    suffix = getattr(own, "suffix", None)
    if not isinstance(suffix, str) or not _SUFFIX.fullmatch(suffix):
        raise UserError(
            f"{plugin} has the suffix {suffix!r}: use one like .npz, with one dot, that no format "
            "that ships has"
        )
    return own
