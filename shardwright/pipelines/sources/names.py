"""Names of inputs: how they are shown, and which of them are wanted."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import re2

from shardwright.errors import UserError

_REGEX_BYTES = 1 << 28
_MAGIC = re.compile(r"[*?\[]")


def shown(name: str) -> str:
    r"""A name as the tables show it: bytes that are no UTF-8 become ``\xNN``.

    Args:
        name: A name whose undecodable bytes are kept by surrogate escapes.
    """
    if name.isascii():
        return name
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that escapes no byte, as JSON can spell it
        raw = name.encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "backslashreplace")


def folder_label(path: str) -> str | None:
    """The name of the folder that holds a file, which image collections use as its class."""
    return path.rpartition("/")[0].rpartition("/")[2].rpartition("!")[2] or None


def has_magic(uri: str) -> bool:
    """Whether a uri is a glob."""
    return _MAGIC.search(uri) is not None


def split_glob(uri: str) -> tuple[str, str]:
    """Splits a glob into the folder that it begins at and the pattern below that folder."""
    components = uri.split("/")
    first = next(i for i, component in enumerate(components) if has_magic(component))
    return "/".join(components[:first]), "/".join(components[first:])


@dataclass(frozen=True)
class Globs:
    """The paths that a recipe wants: matched by ``include`` and not by ``exclude``.

    Patterns are matched against the whole path relative to the source's uri, ignoring case.
    ``*``, ``?`` and ``[abc]`` stay within a folder; ``**`` crosses folders and matches none too.
    """

    include: tuple[str, ...] = ("**/*",)
    exclude: tuple[str, ...] = ()

    def wants(self, path: str) -> bool:
        """Whether a path is wanted."""
        suffixes, include = self._included
        if not (path.lower().endswith(suffixes) or (include and include.fullmatch(path))):
            return False
        return self._excluded is None or self._excluded.fullmatch(path) is None

    def skips_folder(self, path: str) -> bool:
        """Whether ``exclude`` drops everything below a folder, so that none need look there."""
        return self._excluded_folders is not None and bool(self._excluded_folders.fullmatch(path))

    def __getstate__(self) -> dict[str, tuple[str, ...]]:
        return {"include": self.include, "exclude": self.exclude}  # what is compiled stays here

    @functools.cached_property
    def _included(self) -> tuple[tuple[str, ...], Any]:
        # ``**/*.py`` and its like are most of what recipes hold; a suffix is found far faster.
        suffixes: list[str] = []
        others: list[str] = []
        for pattern in self.include:
            suffix = pattern.removeprefix("**/*")
            if pattern in ("**", "**/*") or (suffix != pattern and _is_plain_suffix(suffix)):
                suffixes.append("" if pattern == "**" else suffix.lower())
            else:
                others.append(pattern)
        return tuple(suffixes), _compiled(others)

    @functools.cached_property
    def _excluded(self) -> Any:
        return _compiled(self.exclude)

    @functools.cached_property
    def _excluded_folders(self) -> Any:
        tails = ("/**", "/**/*")
        return _compiled([p.removesuffix(t) for p in self.exclude for t in tails if p.endswith(t)])


def _is_plain_suffix(text: str) -> bool:
    return text.startswith(".") and "/" not in text and text.isascii() and not has_magic(text)


def _compiled(patterns: Sequence[str]) -> Any:
    if not patterns:
        return None
    for pattern in patterns:
        linear_regex(_expression(pattern), f"source pattern {pattern[:200]!r} is no glob")
    every = "|".join(map(_expression, patterns))
    return linear_regex(f"(?is:{every})", "source: the patterns are too many")


@functools.lru_cache
def linear_regex(expression: str, place: str) -> Any:
    """A regular expression whose time is linear in what it is held against: RE2's.

    Patterns may come with strangers' data, and Python's own can take years over a short name.

    Raises:
        UserError: It is none; the message begins with ``place``.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_BYTES
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        problem = error.args[0]
        text = problem.decode("utf-8", "replace") if isinstance(problem, bytes) else str(problem)
        raise UserError(f"{place}: {' '.join(text.split())[:200]}") from None
    except UnicodeEncodeError:
        raise UserError(f"{place}: it holds half a character") from None


def _expression(pattern: str) -> str:
    """The regular expression of one pattern."""
    out = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif pattern[at] == "*":
            out.append("[^/]*")
            at += 1
        elif pattern[at] == "?":
            out.append("[^/]")
            at += 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end]
            negated = inside[0] in "!^"
            out.append(_class(inside[1:] if negated else inside, negated))
            at = end + 1
        else:
            out.append(re.escape(pattern[at]))
            at += 1
    return "".join(out)


def _class(inside: str, negated: bool) -> str:
    """The expression of one character of a set, or not of it; never a slash."""
    if negated:
        return f"[^/{_quoted(inside)}]"
    return (
        f"[{_quoted(re.sub('(.)-(.)', _without_slash, inside, flags=re.DOTALL).replace('/', ''))}]"
    )


def _without_slash(span: re.Match[str]) -> str:
    first, last = span[1], span[2]
    if not first <= "/" <= last:
        return span[0]
    return (f"{first}-." if first < "/" else "") + (f"0-{last}" if last > "/" else "")


def _quoted(inside: str) -> str:
    return re.sub(r"([\\\[\]^])", r"\\\1", inside)
