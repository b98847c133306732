"""Which kinds of damage are there, and what does one do to this text?

A kind finds all places where it could strike, as edits of byte ranges; how many of them are taken
is the dose. Everything is drawn from a generator that is seeded by kind, seed and content, so the
result is a function of the arguments alone, and equal files get equal damage wherever they lie.

The groups are those of the study in "Decoding Data Quality via Synthetic Corruptions" (Yang et al.,
arXiv 2312.02418), syntax and content, and what crawling itself does to code.
"""

import functools
import hashlib
import importlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardwright.errors import UserError

if TYPE_CHECKING:
    from shardwright.quality.corruptions.edits import Place
    from shardwright.quality.corruptions.trees import Finder, Source

_CODE = ("syntax", "content", "statements", "crawl", "pages")
_TRIALS = 24


@dataclass(frozen=True)
class Corruption:
    """A kind of damage.

    Attributes:
        name: Like ``flip_conditions``.
        modality: ``code`` or ``image``.
        group: ``syntax`` (does not parse any more), ``content`` (parses, and is wrong or poor),
            ``crawl`` (what fetching and cutting leave behind), or ``image``.
        family: Kinds of one family share a mechanism, so whoever learns from one of them has seen
            the others: cross-validation leaves out whole families.
        languages: Languages of ``detect_language`` that it works on; None: any text, or an image.
        parseable: What could be parsed before can be parsed afterwards.
        description: One line.
    """

    name: str
    modality: str
    group: str
    family: str
    languages: frozenset[str] | None
    parseable: bool
    description: str


def corruptions(modality: str) -> dict[str, Corruption]:
    """All kinds of a modality by name, in a fixed order.

    Args:
        modality: ``code`` or ``image``.

    Raises:
        UserError: The modality is another one.
    """
    if modality == "code":
        return {name: corruption for name, (corruption, _) in _kinds().items()}
    if modality == "image":
        images = importlib.import_module("shardwright.quality.corruptions.images")
        return dict[str, Corruption](images.IMAGES)
    raise UserError(f"modality {modality!r} is unknown: use code or image")


def corrupt_text(
    name: str, data: bytes, language: str | None, seed: int, dose: float = 0.5
) -> bytes | None:
    """Damages a text.

    Args:
        name: A kind of ``corruptions("code")``.
        data: The text, UTF-8.
        language: Its language by the name of ``detect_language``, or None.
        seed: Another seed, other damage.
        dose: Share of the possible places that is changed, in (0, 1]; at least one is. A greater
            dose changes the same places and more, but for those that would no longer parse.

    Returns:
        Another text, UTF-8; None where nothing can be damaged: a language that the kind does not
        cover, no such construct, no UTF-8, or a file that the parser does not get through.

    Raises:
        UserError: The kind is unknown, or the dose is out of range.
    """
    places = chosen_places(name, data, language, seed, dose)
    if not places:
        return None
    from shardwright.quality.corruptions.edits import apply

    changed = apply(data, places)
    return None if changed == data else changed


def chosen_places(
    name: str, data: bytes, language: str | None, seed: int, dose: float
) -> list["Place"]:
    """The edits that ``corrupt_text`` makes, place by place; none where it returns None."""
    if name not in _kinds():
        known = ", ".join(_kinds())
        raise UserError(f"corruption {name!r} is unknown for code: use one of {known}")
    if not 0 < dose <= 1:
        raise UserError(f"dose {dose} is out of range: use a share above 0 and at most 1")
    kind, find = _kinds()[name]
    if not _is_text(data) or (kind.languages is not None and language not in kind.languages):
        return []
    from shardwright.quality.corruptions.edits import choose

    source = _source(data, language)
    digest = hashlib.sha256(b"%s\0%d\0%s" % (name.encode(), seed, data)).digest()
    places = choose(find(source, random.Random(int.from_bytes(digest))), dose)
    return _sound(source, places) if kind.parseable else places


@functools.lru_cache(maxsize=4)  # one kind after another asks for the same text
def _source(data: bytes, language: str | None) -> "Source":
    from shardwright.quality.corruptions.trees import Source

    return Source(data, language)


@functools.cache
def _kinds() -> dict[str, tuple[Corruption, "Finder"]]:
    kinds: dict[str, tuple[Corruption, Finder]] = {}
    for home in _CODE:
        module = importlib.import_module(f"shardwright.quality.corruptions.{home}")
        kinds |= {corruption.name: (corruption, find) for corruption, find in module.KINDS}
    return kinds


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _sound(source: "Source", places: Sequence["Place"]) -> list["Place"]:
    """Those places that leave no more errors of syntax than there were.

    The tables of node types know what can be exchanged for what, but a grammar without the
    compiler's knowledge reads some things otherwise once a neighbour has changed (C++ templates,
    macros). Where all places together do harm, halves are tried; what cannot be told in a bounded
    number of trials is left out.
    """
    from shardwright.quality.corruptions.edits import apply
    from shardwright.quality.corruptions.trees import Source

    if source.errors is None:
        return []
    trials = _TRIALS
    good: list[Place] = []
    waiting = [list(places)]
    while waiting and trials:
        part = waiting.pop()
        trials -= 1
        errors = Source(apply(source.data, [*good, *part]), source.language).errors
        if errors is not None and errors <= source.errors:
            good += part
        elif len(part) > 1:
            half = len(part) // 2
            waiting += [part[half:], part[:half]]
    return good
