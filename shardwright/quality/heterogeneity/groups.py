"""Which images were made alike: the group of an image by a rule of the recipe.

Rules: ``device`` (EXIF make and model), ``software`` (EXIF), ``column:NAME`` (an attribute or a
column of the record), ``folder:DEPTH`` (the first folders of its path), ``fingerprint`` (how the
file was encoded), and ``auto``: the device, or the fingerprint where the EXIF names none.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shardwright.errors import UserError
from shardwright.quality.heterogeneity.provenance import Provenance

LEAST = 50
"""Images that a group needs before anything is said about it."""

_PLAIN_RULES = ("auto", "device", "software", "fingerprint")
_MEMBER = re.compile(r"(?<=\.zip|\.tar|.\.gz|.tgz|.\.xz|.bz2|.zst)!", re.IGNORECASE)


@dataclass(frozen=True)
class Sized:
    """Groups by size; each mapping from the largest to the smallest, equals by name.

    Attributes:
        enough: Images of each group that has enough of them.
        small: Images of each group that has too few.
        none: Images without a group.
    """

    enough: Mapping[str, int]
    small: Mapping[str, int]
    none: int


def check_rule(rule: str) -> None:
    """Raises UserError where a recipe's rule is none of those above."""
    kind, _, rest = rule.partition(":")
    if (
        rule in _PLAIN_RULES
        or (kind == "column" and rest)
        or (kind == "folder" and re.fullmatch("[1-9][0-9]?", rest))
    ):
        return
    raise UserError(
        f"rule of groups {rule!r} is unknown: use one of {', '.join(_PLAIN_RULES)}, "
        "column:NAME, or folder:DEPTH with a depth of 1 or more"
    )


def group_of(
    rule: str, facts: Provenance, path: str = "", columns: Mapping[str, object] | None = None
) -> str | None:
    """The group of an image.

    Args:
        rule: One of the rules of this module.
        facts: What the file says.
        path: Of the record, with ``/`` between folders; an archive counts as a folder.
        columns: The record's attributes and columns.

    Returns:
        The group's name; None where the rule gives none.

    Raises:
        UserError: the rule is unknown.
    """
    check_rule(rule)
    kind, _, rest = rule.partition(":")
    if kind == "device":
        return device(facts.make, facts.model)
    if kind == "software":
        return _spaced(facts.software)
    if kind == "fingerprint":
        return fingerprint(facts)
    if kind == "auto":
        return device(facts.make, facts.model) or fingerprint(facts)
    if kind == "column":
        value = (columns or {}).get(rest)
        return None if value is None else _spaced(str(value))
    folders = [part for part in _MEMBER.sub("/", path).split("/")[:-1] if part]
    depth = int(rest)
    return "/".join(folders[:depth]) if len(folders) >= depth else None


def device(make: str | None, model: str | None) -> str | None:
    """``make model``, the make once: ``NIKON CORPORATION`` and ``NIKON D90`` give ``NIKON D90``."""
    make, model = _spaced(make), _spaced(model)
    if make is None or model is None:
        return make or model
    repeated = make.split()[0].casefold() == model.split()[0].casefold()
    return model if repeated else f"{make} {model}"


def fingerprint(facts: Provenance) -> str:
    """A short name of how a file was encoded, such as ``q92 4:2:0 4032x3024 a1b2c3``.

    Of a JPEG: quality (``q~92`` where its tables are no standard ones), subsampling, and the longer
    and the shorter side, so that turning the camera changes nothing; of other formats the name of
    the format and the sides. The six digits are a hash of the quantisation tables, whether it is
    progressive, and the ICC profile. Devices that share an encoder and a size share a fingerprint.
    """
    sides = f"{max(facts.width, facts.height)}x{min(facts.width, facts.height)}"
    key = [facts.icc_sha256 or ""]
    if facts.jpeg is None:
        parts = [facts.format, sides]
    else:
        exact = not facts.jpeg.rmse and not facts.jpeg.chroma_rmse
        exact = exact and facts.jpeg.chroma_quality in (None, facts.jpeg.quality)
        parts = [f"q{'' if exact else '~'}{facts.jpeg.quality}"]
        parts += [facts.jpeg.subsampling, sides]
        key += [facts.jpeg.sha256, str(facts.jpeg.progressive)]
    digest = hashlib.sha256("\n".join([*parts, *key]).encode()).hexdigest()
    return " ".join([*parts, digest[:6]])


def sized(groups: Iterable[str | None], least: int = LEAST) -> Sized:
    """Tells which groups have enough images.

    Args:
        groups: The group of each image.
        least: Images that are enough.
    """
    counts = Counter(groups)
    none = counts.pop(None, 0)
    named = [(name, count) for name, count in counts.items() if name is not None]
    named.sort(key=lambda pair: (-pair[1], pair[0]))
    return Sized(
        {name: count for name, count in named if count >= least},
        {name: count for name, count in named if count < least},
        none,
    )


def _spaced(text: str | None) -> str | None:
    return " ".join((text or "").split()) or None
