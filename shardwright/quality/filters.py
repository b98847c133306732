"""Which filters are there, and what do they say of one record?

A filter has a name, and measures one value of a record. Measuring decides nothing: the value
becomes a column of ``filter_scores``, and the recipe's bounds, or the filter's own where the recipe
gives none, say which records go. Filters that share work form a group that is measured at once.

A package adds filters through entry points of the group ``shardwright.filters``. Each loads an
object with an attribute ``filter`` (a ``Filter``) and a function ``measure``, which returns a
number, a text or None: ``measure(data: bytes, language: str | None)`` for code,
``measure(image: PIL.Image.Image)`` for images.
"""

import functools
import importlib
import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from shardwright.errors import UserError
from shardwright.plugins import Plugin, installed

ENTRY_POINTS = "shardwright.filters"

Value: TypeAlias = float | str | None
CodeGroup: TypeAlias = Callable[[bytes, str | None], dict[str, Value]]

_HOMES = {
    "code": ("code_statistics", "syntax", "licences", "secrets"),
    "image": ("image_statistics",),
}


@dataclass(frozen=True)
class Filter:
    """What is measured, and which values are fine where the recipe names no bounds.

    Attributes:
        name: Column of ``filter_scores`` and reason code, like ``max_line_length``.
        modality: ``code`` or ``image``.
        kind: ``number`` (a float64 column) or ``text`` (a string column, null when nothing was
            found). A number is null where the measure does not apply to the record.
        least: A record whose value is below goes; None for no bound. Null passes every bound.
        most: A record whose value is above goes; None for no bound.
        description: One line: what is measured, and its unit.
        group: Filters of one group are measured together by one function.
    """

    name: str
    modality: str
    kind: str
    least: float | None
    most: float | None
    description: str
    group: str


class AddedFilter(Protocol):
    """What an entry point loads: a filter and the function that measures it."""

    filter: Filter

    @property
    def measure(self) -> Callable[..., Value]:
        """Takes ``(data, language)`` for code, ``(image)`` for images."""


def filters(modality: str) -> dict[str, Filter]:
    """All filters of a modality by name: the built-in ones first, then added ones by name.

    Entry points are looked up once per process.

    Args:
        modality: ``code`` or ``image``.

    Raises:
        UserError: An added filter has the name of another one.
    """
    return _built_in(modality) | {name: own.filter for name, (_, own) in _added(modality).items()}


def filter_packages(modality: str, names: Collection[str]) -> dict[str, str]:
    """Packages, with their versions, of those of the named filters that packages add."""
    added = _added(modality)
    return {name: added[name][0].package for name in names if name in added}


def measure_code(names: Sequence[str], data: bytes, language: str | None) -> dict[str, Value]:
    """Measures one text, running only the groups that the names need.

    Args:
        names: Names of filters of the modality ``code``.
        data: The text, UTF-8.
        language: Its language by the name of ``detect_language``, or None.

    Returns:
        Value by name, in the order of ``names``.

    Raises:
        UserError: A name is unknown.
    """
    built_in = _built_in("code")
    measured: dict[str, Value] = {}
    for group in dict.fromkeys(built_in[name].group for name in names if name in built_in):
        measured |= _code_groups()[group](data, language)
    for name in names:
        if name not in built_in:
            measured[name] = _find_added("code", name).measure(data, language)
    return {name: measured[name] for name in names}


def measure_image(names: Sequence[str], data: bytes) -> dict[str, Value]:
    """Measures one image; added filters get it decoded, once for all of them.

    Args:
        names: Names of filters of the modality ``image``.
        data: The encoded image, whose pixels have been read before without a fault.

    Returns:
        Value by name, in the order of ``names``.

    Raises:
        UserError: A name is unknown.
    """
    built_in = _built_in("image")
    inner = [name for name in names if name in built_in]
    outer = {name: _find_added("image", name) for name in names if name not in built_in}
    measured: dict[str, Value] = {}
    if inner:
        measured |= _home("image_statistics").measure_image(inner, data)
    if outer:
        from PIL import Image

        from shardwright.embeddings.pixels import SILENCE
        from shardwright.quality.images import decodable_extensions

        formats = {Image.registered_extensions()[name] for name in decodable_extensions()}
        # some formats have extensions, but are opened through another's
        known = sorted(formats & set(Image.OPEN))
        with SILENCE:
            image = Image.open(io.BytesIO(data), formats=known)
            image.load()
        with image:
            measured |= {name: own.measure(image) for name, own in outer.items()}
    return {name: measured[name] for name in names}


def _home(name: str) -> Any:
    return importlib.import_module(f"shardwright.quality.{name}")


@functools.cache
def _built_in(modality: str) -> dict[str, Filter]:
    found: tuple[Filter, ...] = sum((_home(name).FILTERS for name in _HOMES.get(modality, ())), ())
    return {item.name: item for item in found}


@functools.cache
def _code_groups() -> dict[str, CodeGroup]:
    groups: dict[str, CodeGroup] = {}
    for name in _HOMES["code"]:
        groups |= _home(name).GROUPS
    return groups


@functools.cache
def _added(modality: str) -> dict[str, tuple[Plugin, AddedFilter]]:
    added: dict[str, tuple[Plugin, AddedFilter]] = {}
    for plugin in installed(ENTRY_POINTS):
        own: AddedFilter = plugin.load()
        if own.filter.modality != modality:
            continue
        name = own.filter.name
        if name in _built_in(modality) or name in added:
            other = added[name][0] if name in added else "Shardwright itself"
            raise UserError(
                f"{plugin} adds a filter {name!r}, and so does {other}: rename it, or uninstall "
                "its package"
            )
        added[name] = plugin, own
    return dict(sorted(added.items()))


def _find_added(modality: str, name: str) -> AddedFilter:
    added = _added(modality)
    if name not in added:
        known = ", ".join([*_built_in(modality), *added])
        raise UserError(
            f"filter {name!r} is unknown for {modality}: use one of {known}, or install a package "
            f"that adds it"
        )
    return added[name][1]
