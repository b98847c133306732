"""Files of a folder: one file is one input."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardwright.pipelines.sources.listing import list_files
from shardwright.pipelines.sources.names import Globs, folder_label
from shardwright.pipelines.sources.storage import read_file
from shardwright.pipelines.sources.types import Input, Refusal, Unit


@dataclass(frozen=True)
class FilesSource:
    """Files under a folder, on this machine or on any of Beam's filesystems.

    Attributes:
        uri: A folder, a file or a glob.
        globs: What is wanted of it.
        max_bytes: Most bytes of a file; of a larger one no more is read.
        labelled: Whether the folder that holds a file is its label.
    """

    uri: str
    globs: Globs
    max_bytes: int
    labelled: bool

    def units(self, limit: int | None) -> Iterator[Unit]:
        """Lists the files; the limit is their number."""
        return itertools.islice(list_files(self.uri, self.globs), limit)

    def read(self, units: Sequence[Unit]) -> Iterator[Input | Refusal]:
        """Yields every file."""
        for unit in units:
            if unit.problem is not None:
                yield Refusal(unit.path, *unit.problem)
                continue
            data = read_file(unit.location, unit.path, self.max_bytes)
            if isinstance(data, Refusal):
                yield data
            else:
                label = folder_label(unit.path) if self.labelled else None
                yield Input(unit.path, data, label=label)
