"""Where inputs come from. A source is looked up by the recipe's ``source.kind``.

Packages add their own kinds through the entry-point group ``shardwright.sources``: a callable
like ``open_source``, under the kind's name.
"""

from collections.abc import Callable
from typing import TypeAlias

from shardwright.errors import UserError
from shardwright.pipelines import sections
from shardwright.pipelines.sources.archive import ArchiveSource
from shardwright.pipelines.sources.columns import Columns
from shardwright.pipelines.sources.croissant import open_croissant
from shardwright.pipelines.sources.files import FilesSource
from shardwright.pipelines.sources.git import GitSource
from shardwright.pipelines.sources.jsonl import JsonlSource
from shardwright.pipelines.sources.names import Globs
from shardwright.pipelines.sources.parquet import ParquetSource
from shardwright.pipelines.sources.types import Input, Refusal, Source, Unit
from shardwright.plugins import find, installed

__all__ = ["Input", "Refusal", "Source", "Unit", "open_source"]

_Factory: TypeAlias = Callable[[sections.Source, int, str], Source]


def open_source(settings: sections.Source, max_bytes: int, modality: str) -> Source:
    """The source that a recipe names.

    Args:
        settings: The recipe's ``source``.
        max_bytes: The recipe's ``limits.max_bytes``.
        modality: ``code`` or ``image``.

    Raises:
        UserError: Nothing has this kind, or its settings do not fit.
    """
    plugin = find(sections.SOURCES, settings.kind, _KINDS)
    if plugin is None and settings.kind not in _KINDS:
        known = ", ".join([*_KINDS, *(added.name for added in installed(sections.SOURCES))])
        raise UserError(
            f"source.kind {settings.kind!r} is unknown; use {known}, or install a package that "
            f"has it in the entry points {sections.SOURCES!r}"
        )
    factory: _Factory = _KINDS[settings.kind] if plugin is None else plugin.load()
    return factory(settings, max_bytes, modality)


def _files(settings: sections.Source, max_bytes: int, modality: str) -> Source:
    return FilesSource(settings.uri, _globs(settings), max_bytes, modality == "image")


def _archive(settings: sections.Source, max_bytes: int, modality: str) -> Source:
    return ArchiveSource(settings.uri, _globs(settings), max_bytes, modality == "image")


def _git(settings: sections.Source, max_bytes: int, modality: str) -> Source:
    labelled = modality == "image"
    return GitSource(settings.uri, _globs(settings), settings.revision, max_bytes, labelled)


def _parquet(settings: sections.Source, max_bytes: int, modality: str) -> Source:
    return ParquetSource(settings.uri, _globs(settings), _columns(settings, modality))


def _jsonl(settings: sections.Source, max_bytes: int, modality: str) -> Source:
    return JsonlSource(settings.uri, _globs(settings), _columns(settings, modality), max_bytes)


_KINDS: dict[str, _Factory] = {
    "files": _files,
    "archive": _archive,
    "parquet": _parquet,
    "jsonl": _jsonl,
    "git": _git,
    "croissant": open_croissant,
}


def _globs(settings: sections.Source) -> Globs:
    return Globs(settings.include, settings.exclude)


def _columns(settings: sections.Source, modality: str) -> Columns:
    return Columns(modality, dict(settings.columns), settings.keep)
