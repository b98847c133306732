"""What grammars say of code: how much is comment, how much is no valid syntax.

The grammars are tree-sitter's own, installed as wheels; nothing is downloaded. Parsing holds
Python's lock, so threads do not speed it up; every call has a parser of its own, so they do no
harm.
"""

import functools
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from shardwright.quality.code_statistics import count_characters
from shardwright.quality.filters import CodeGroup, Filter, Value

if TYPE_CHECKING:
    from tree_sitter import Language, Node

# Language by Pygments' name: the module, and its functions that yield the grammar. Of several
# grammars the first that finds the fewest errors is taken: files named .ts and .tsx are both
# TypeScript, and neither grammar reads all of the other's files.
_GRAMMARS = {
    "Bash": ("tree_sitter_bash", ("language",)),
    "C": ("tree_sitter_c", ("language",)),
    "C#": ("tree_sitter_c_sharp", ("language",)),
    "C++": ("tree_sitter_cpp", ("language",)),
    "CSS": ("tree_sitter_css", ("language",)),
    "Go": ("tree_sitter_go", ("language",)),
    "HTML": ("tree_sitter_html", ("language",)),
    "Java": ("tree_sitter_java", ("language",)),
    "JavaScript": ("tree_sitter_javascript", ("language",)),
    "JSON": ("tree_sitter_json", ("language",)),
    "PHP": ("tree_sitter_php", ("language_php",)),
    "Python": ("tree_sitter_python", ("language",)),
    "Ruby": ("tree_sitter_ruby", ("language",)),
    "Rust": ("tree_sitter_rust", ("language",)),
    "TypeScript": ("tree_sitter_typescript", ("language_typescript", "language_tsx")),
}
_COMMENTS = ("comment", "line_comment", "block_comment", "html_comment", "js_comment")
_DOCUMENTED = ("module", "class_definition", "function_definition")
# Data and markup: a share of comments says nothing of their quality.
_UNCOMMENTED = ("CSS", "HTML", "JSON")

# The parser reports each hundred operations, and reads again where it looks far ahead. Code takes
# one report or read per 100 bytes, at worst 60 in all that was tried; junk takes more and more the
# longer it is. A count, unlike a clock, gives the same answer on every machine.
# What no count bounds is the parser's last step, after all is read: where a text of another
# language leaves thousands of constructs open, that step takes time by the square of their number.
_FREE_STEPS, _BYTES_PER_STEP = 1000, 20
_PIECE = 4096

_LINE_END = re.compile(rb"[ \t]*(?:\r\n|\n|\r|\Z)")

_Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class _Grammar:
    """A grammar, and the kinds of its nodes that count."""

    language: "Language"
    comments: frozenset[int]
    documented: frozenset[int]


@dataclass(frozen=True)
class _Findings:
    """Byte ranges of comments and docstrings, both in order, and bytes that fit no rule."""

    comments: list[_Range]
    docstrings: list[_Range]
    errors: int


def measure_syntax(data: bytes, language: str | None) -> dict[str, Value]:
    """Measures shares of comments and of syntax errors by the language's grammar.

    ``comment_share`` is the share of characters in comments and, as BigCode counts them, Python's
    docstrings. ``syntax_error_share`` is the share of bytes in tokens for which no rule was found:
    what stands directly in ``ERROR`` nodes, and one byte for each token that is ``MISSING``. A
    construct that was understood whole inside of an ``ERROR`` counts as understood; otherwise one
    brace too many would condemn a file.

    Args:
        data: The text, UTF-8.
        language: The language by its name of ``detect_language``.

    Returns:
        Both shares; None for a language without grammar, for a file that the parser does not
        get through in steps in proportion to its size, and for comments in data and markup.
    """
    found = _parse(data, language)
    if found is None:
        return {"comment_share": None, "syntax_error_share": None}
    errors = found.errors / max(len(data), 1)
    if language in _UNCOMMENTED:
        return {"comment_share": None, "syntax_error_share": errors}
    ranges = found.comments + found.docstrings
    comments = count_characters(b"".join(data[start:stop] for start, stop in ranges))
    return {
        "comment_share": comments / max(count_characters(data), 1),
        "syntax_error_share": errors,
    }


def strip_comments(data: bytes, language: str | None) -> bytes:
    """Removes comments, where the grammar finds them; docstrings stay.

    Lines that hold nothing but comment go whole. A comment between two tokens on a line leaves a
    space, so that they stay two.

    Args:
        data: The text, UTF-8.
        language: The language by its name of ``detect_language``.

    Returns:
        The text without comments; unchanged for a language without grammar and for a file that
        the parser does not get through.
    """
    found = _parse(data, language)
    if found is None:
        return data
    kept = bytearray()
    done = 0
    for start, stop in found.comments:
        kept += data[done:start]
        done = stop
        end = _LINE_END.match(data, stop)
        if end is not None:
            while kept and kept[-1] in b" \t":
                kept.pop()
            if not kept or kept[-1] in b"\r\n":
                done = end.end()
        elif kept and not kept[-1:].isspace() and not data[stop : stop + 1].isspace():
            kept += b" "
    return bytes(kept + data[done:])


def parse(data: bytes, language: str | None) -> "Node | None":
    """Parses a text by that grammar of its language which finds the fewest errors.

    Args:
        data: The text, UTF-8.
        language: The language by its name of ``detect_language``.

    Returns:
        The root of the syntax tree; None for a language without grammar, and for a file that the
        parser does not get through in steps in proportion to its size.
    """
    best = _best(data, language)
    return None if best is None else best[0]


def count_errors(root: "Node") -> int:
    """Bytes of tokens that fit no rule of the grammar, as ``syntax_error_share`` counts them."""
    if not root.has_error:
        return 0
    errors = 0
    cursor = root.walk()
    while True:
        node = cursor.node
        assert node is not None
        errors += _error_bytes(node)
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return errors


def _best(data: bytes, language: str | None) -> "tuple[Node, _Grammar, int] | None":
    best: tuple[Node, _Grammar, int] | None = None
    for grammar in _grammars(language) if language in _GRAMMARS else ():
        root = _root(data, grammar.language)
        if root is None:
            continue
        errors = count_errors(root)
        if best is None or errors < best[2]:
            best = root, grammar, errors
        if not best[2]:
            break
    return best


def _parse(data: bytes, language: str | None) -> _Findings | None:
    best = _best(data, language)
    return None if best is None else _walk(data, *best)


@functools.cache
def _grammars(language: str) -> tuple[_Grammar, ...]:
    from tree_sitter import Language

    module, functions = _GRAMMARS[language]
    found = []
    for function in functions:
        grammar = Language(getattr(importlib.import_module(module), function)())
        documented = _DOCUMENTED if language == "Python" else ()
        found.append(_Grammar(grammar, _kinds(grammar, _COMMENTS), _kinds(grammar, documented)))
    return tuple(found)


def _kinds(grammar: "Language", names: Sequence[str]) -> frozenset[int]:
    kinds = (grammar.id_for_node_kind(name, True) for name in names)
    return frozenset(kind for kind in kinds if kind is not None)


def _root(data: bytes, language: "Language") -> "Node | None":
    from tree_sitter import Parser

    steps = _FREE_STEPS + len(data) // _BYTES_PER_STEP

    def report(offset: int, erroneous: bool) -> bool:
        nonlocal steps
        steps -= 1
        return steps < 0

    def read(offset: int, point: object) -> bytes:
        nonlocal steps
        steps -= 1
        return data[offset : offset + _PIECE]

    try:
        return Parser(language).parse(read, progress_callback=report).root_node
    except ValueError:  # what a parser raises that was told to stop
        return None


def _walk(data: bytes, root: "Node", grammar: _Grammar, errors: int) -> _Findings:
    comments: list[_Range] = []
    docstrings: list[_Range] = []
    cursor = root.walk()
    while True:
        node = cursor.node
        assert node is not None
        kind = node.kind_id
        if kind in grammar.comments:
            comments.append(_without_line_end(data, node.byte_range))
        elif kind in grammar.documented:
            docstrings += _docstring(node, grammar)
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return _Findings(comments, docstrings, errors)


def _without_line_end(data: bytes, span: _Range) -> _Range:
    """Rust's documentation comments include the end of their line."""
    start, stop = span
    while stop > start and data[stop - 1] in b"\r\n":
        stop -= 1
    return start, stop


def _docstring(node: "Node", grammar: _Grammar) -> list[_Range]:
    """The string that a module, a class or a function of Python begins with, if any."""
    body = node.child_by_field_name("body") or node
    for child in body.named_children:
        if child.kind_id in grammar.comments:
            continue
        if child.type == "expression_statement" and child.named_child_count == 1:
            value = child.named_child(0)
            return [value.byte_range] if value.type == "string" else []
        return []
    return []


def _error_bytes(node: "Node") -> int:
    """Bytes of the tokens that stand directly in an error; one for a token that is missing."""
    if node.is_missing:
        return 1
    if not node.is_error:
        return 0
    if not node.child_count:
        return node.end_byte - node.start_byte
    # A comment may stand anywhere, in an error too. An error within this one is counted when the
    # walk comes to it.
    tokens = [child for child in node.children if not child.child_count and not child.is_extra]
    return sum(child.end_byte - child.start_byte for child in tokens if not child.is_error)


FILTERS = (
    Filter(
        "comment_share",
        "code",
        "number",
        0.01,
        0.8,
        "Share of characters in comments and Python's docstrings; null without a grammar, and for "
        "data and markup (0.01 to 0.8: BigCode).",
        "syntax",
    ),
    Filter(
        "syntax_error_share",
        "code",
        "number",
        None,
        0.1,
        "Share of bytes that fit no rule of the language's grammar; null without a grammar "
        "(most 0.1: convention).",
        "syntax",
    ),
)

GROUPS: dict[str, CodeGroup] = {"syntax": measure_syntax}
