"""What exact duplicates may differ in: content brought to one form before it is hashed."""

import re
from collections.abc import Callable, Sequence

_BLANKS = b" \t\f\v"
_LONE_RETURN = re.compile(rb"\r(?!\n)")


def normalised(data: bytes, steps: Sequence[str], language: str | None) -> bytes:
    """Takes out of a text what the named steps take out, in one order however they are named.

    - ``comments``: comments, by the language's grammar; lines that held nothing else go whole. A
      carriage return alone becomes a line feed first, because most grammars know it as no line end
      and would take the rest of the file for part of the comment.
    - ``trailing_space``: blanks at the ends of lines, and blank lines at the end of the text.
    - ``line_ends``: CR LF and CR alone become LF, and a text that has any other byte ends in
      exactly one of them.

    Args:
        data: The text, UTF-8.
        steps: Names of steps.
        language: The language by its name of ``detect_language``.

    Returns:
        The text to hash; the record keeps its own.

    Raises:
        ValueError: a step is unknown.
    """
    for step in steps:
        if step not in STEPS:
            raise ValueError(f"{step!r} is no step of normalisation; use {', '.join(STEPS)}")
    for step, apply in STEPS.items():
        if step in steps:
            data = apply(data, language)
    return data


def _comments(data: bytes, language: str | None) -> bytes:
    from shardwright.quality.syntax import strip_comments

    return strip_comments(_LONE_RETURN.sub(b"\n", data), language)


def _trailing_space(data: bytes, language: str | None) -> bytes:
    lines = []
    for line in data.splitlines(keepends=True):
        text = line.rstrip(b"\r\n")
        lines.append((text.rstrip(_BLANKS), line[len(text) :]))
    while lines and not lines[-1][0]:
        lines.pop()
    return b"".join(text + end for text, end in lines)


def _line_ends(data: bytes, language: str | None) -> bytes:
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b"\n")
    return text + b"\n" if text else b""


STEPS: dict[str, Callable[[bytes, str | None], bytes]] = {
    "comments": _comments,
    "trailing_space": _trailing_space,
    "line_ends": _line_ends,
}
"""The steps in the order in which they are taken."""
