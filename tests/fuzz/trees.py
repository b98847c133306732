"""Changes to JSON and YAML: to their trees, and to what only their texts have."""

import json
import random
from collections.abc import Iterator
from typing import Any

from fuzz.mutations import NUMBERS, mutated_text

_PATTERNS = (
    "(a+)+$",
    "(.*)*x",
    "(",
    "[",
    "(?P<a>x)(?P<a>y)",
    "a{99999}",
    "(?i)",
    "\\",
    "^(.|..)+$",
)
_GLOBS = ("**", "**/*", "*" * 50, "**a" * 30 + "b", "[", "[!", "[]]", "../**", "/etc/*", "{a,b}")
_URLS = (
    "file:///etc/passwd",
    "../../etc/passwd",
    "/etc/passwd",
    "http://[",
    "http://h:x@0/",
    "s3:",
)
_URLS += ("s3://b/k", "gs://b", ".", "..", "a//b", "data:,x", "x\0y", "C:\\x", "hf://x")
_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, float("inf"), float("nan"), "", " ", "null", "\ud800"),
    *("x" * 5000, "\u202e", "a\nb", "1MB", "9" * 400 + "TB", "-1", "1e999", "auto", "curated"),
    *({}, [], [[]], [{}], {"": None}, {"@id": "rows/text"}, {"@value": {}}, {"@id": []}),
    *_PATTERNS,
    *_GLOBS,
    *_URLS,
    *NUMBERS,
)


def tree_mutated(rng: random.Random, tree: Any, words: list[Any] | None = None) -> Any:
    """A tree of lists, dicts and values with one to four changes.

    Args:
        rng: Decides.
        tree: The tree, which stays as it is.
        words: Values that mean something here, used as often as those that mean trouble.
    """
    tree = copied(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        places = list(_places(tree))
        if not places:
            return rng.choice(_SCALARS)
        holder, key = rng.choice(places)
        which = rng.randrange(8)
        if which == 0:
            del holder[key]
        elif which == 1:
            holder[key] = rng.choice(words or _SCALARS)
        elif which == 2:
            other, place = rng.choice(places)
            holder[key] = copied(other[place]) if place in _keys(other) else None
        elif which == 3 and isinstance(holder, dict):
            holder[rng.choice(_names(tree))] = holder.pop(key)
        elif which == 4:
            holder[key] = [copied(holder[key])] * rng.choice((1, 2, 20))
        elif which == 5:
            holder[key] = {rng.choice(_names(tree)): copied(holder[key])}
        elif which == 6:
            holder[key] = nested(rng.choice((5, 60, 3000)), rng.random() < 0.5, holder[key])
        else:
            holder[key] = rng.choice(_SCALARS)
        if not isinstance(tree, dict | list):
            return tree
    return tree


def copied(tree: Any) -> Any:
    """A copy of however deep a tree."""
    holder = [tree]
    work: list[Any] = [holder]
    while work:
        item = work.pop()
        for key in _keys(item):
            if isinstance(item[key], dict | list):
                item[key] = item[key].copy()
                work.append(item[key])
    return holder[0]


def nested(depth: int, by_key: bool, value: Any) -> Any:
    """A value in so many lists, or dicts."""
    for _ in range(depth):
        value = {"a": value} if by_key else [value]
    return value


def dumped(value: Any) -> bytes:
    """JSON of however deep a tree; what JSON has no word for is written as Python's does."""
    out: list[str] = []
    work: list[Any] = [value]
    while work:
        item = work.pop()
        if isinstance(item, _Raw):
            out.append(item.text)
        elif isinstance(item, dict):
            inside: list[Any] = [_Raw("}")]
            for place, (key, below) in enumerate(reversed(item.items())):
                inside += [_Raw(",")] if place else []
                inside += [below, _Raw(json.dumps(str(key)) + ":")]
            work += [*inside, _Raw("{")]
        elif isinstance(item, list):
            inside = [_Raw("]")]
            for place, below in enumerate(reversed(item)):
                inside += [_Raw(","), below] if place else [below]
            work += [*inside, _Raw("[")]
        else:
            out.append(json.dumps(item))
    return "".join(out).encode()


def yaml_mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """YAML with an anchor, a tag or a bomb in it, or with changed text."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(lines))
    key, colon, value = lines[at].partition(":")
    which = rng.randrange(9)
    if which == 0 and colon:
        lines[at] = f"{key}: &a{value}"
        lines.append(f"{rng.choice(('limits', 'name', 'about', 'x'))}: *a")
    elif which == 1 and colon:
        lines[at] = f"{key}: {rng.choice(_TAGS)}{value}"
    elif which == 2:
        lines.insert(at, _bomb(rng))
    elif which == 3 and colon:
        lines[at] = f"{key}: {_bomb(rng).partition(': ')[2]}"
    elif which == 4:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif which == 5:
        lines[at] = rng.choice((" ", "\t", "- ", "? ", "  ")) + lines[at]
    elif which == 6 and colon:
        lines[at] = f"{key}: {rng.choice(_LITERALS)}"
    else:
        return mutated_text(rng, data, other)
    return "\n".join(lines).encode()


_TAGS = ("!!python/object/apply:os.system ", "!!python/name:os.system ", "!!python/module:os ")
_TAGS += ("!!binary ", "!!timestamp ", "!!set ", "!!omap ", "!!pairs ", "!!int ", "!!float ", "!x ")
_TAGS += (
    "!!str ",
    "!!null ",
    "!!map ",
    "!!seq ",
    "!!bool ",
    "!!merge ",
    "!<tag:yaml.org,2002:int> ",
)
_LITERALS = (
    "0o777",
    "0x" + "f" * 5000,
    "1:60:60",
    "190:20:30.15",
    "2020-99-99",
    ".inf",
    ".nan",
    "~",
)
_LITERALS += (
    "9" * 5000,
    "1e999999",
    "[" * 2000,
    "{a: " * 1000,
    "|",
    ">-",
    "'",
    '"\\ud800"',
    "*x",
    "<<",
)
_LITERALS += (
    "{<<: {a: 1}}",
    "{? [a]: b}",
    "&a [*a]",
    "{a: &b {c: *b}}",
    "9" * 400 + "TB",
    "=",
    "on",
)


def _bomb(rng: random.Random) -> str:
    """Anchors of anchors, whose whole has a billion values; or of a few."""
    levels, width = rng.choice(((9, 10), (3, 3), (30, 2)))
    parts = [f"&b0 [{', '.join(['lol'] * width)}]"]
    parts += [f"&b{i} [{', '.join([f'*b{i - 1}'] * width)}]" for i in range(1, levels)]
    return f"{rng.choice(('include', 'keep', 'about', 'x', 'filters'))}: [{', '.join(parts)}]"


class _Raw:
    """Text that goes out as it is."""

    def __init__(self, text: str) -> None:
        self.text = text


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a tree that holds something, as its holder and key."""
    work = [tree]
    while work:
        holder = work.pop()
        for key in _keys(holder):
            yield holder, key
            if isinstance(holder[key], dict | list):
                work.append(holder[key])


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def _names(tree: Any) -> list[str]:
    found = [key for holder, key in _places(tree) if isinstance(holder, dict)]
    return [*found, "", "@id", "@type", "sc:name", "content", "text", "image", "\ud800", "a.b"]
