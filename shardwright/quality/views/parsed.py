"""A text that is parsed once, for all that is asked of its syntax.

Parsing takes as long as most of what follows, so views and the share of comments, which filters
measure for themselves, take the same tree.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality import syntax
from shardwright.quality.code_statistics import count_characters
from shardwright.quality.views import trees

Indexes: TypeAlias = NDArray[np.int64]

_UNCOMMENTED = ("CSS", "HTML", "JSON")
_DOCUMENTED = ("module", "class_definition", "function_definition")


@dataclass(frozen=True)
class Parsed:
    """A text and its tree.

    Attributes:
        data: The text, UTF-8.
        language: Its language by the name of ``detect_language``, or None.
        tree: None for a language without grammar, and for a text that the parser gives up.
        errors: Bytes that fit no rule of the grammar.
    """

    data: bytes
    language: str | None
    tree: trees.FlatTree | None
    errors: int


def read(data: bytes, language: str | None) -> Parsed:
    """Parses a text.

    Args:
        data: The text, UTF-8.
        language: Its language by the name of ``detect_language``.
    """
    root = syntax.parse(data, language)
    if root is None:
        return Parsed(data, language, None, 0)
    return Parsed(data, language, trees.flatten(data, root), syntax.count_errors(root))


def comment_share(text: Parsed) -> float | None:
    """Share of characters in comments and Python's docstrings, as ``measure_syntax`` counts it.

    Returns:
        0 to 1; None without a tree, and for data and markup.
    """
    if text.tree is None or text.language in _UNCOMMENTED:
        return None
    data = text.data
    # Rust's documentation comments include the end of their line.
    told = [data[start:stop].rstrip(b"\r\n") for start, stop in text.tree.comments.tolist()]
    if text.language == "Python":
        told += _docstrings(text.tree)
    return count_characters(b"".join(told)) / max(count_characters(data), 1)


def _docstrings(tree: trees.FlatTree) -> list[bytes]:
    """The strings that modules, classes and functions of Python begin with."""
    owners = np.flatnonzero(tree.is_kind(_DOCUMENTED))
    own = np.arange(len(tree))
    bodies = np.flatnonzero(tree.is_field(("body",)))[::-1]
    own[tree.parents[bodies]] = bodies  # of several the first stays
    statements = _first_children(tree, own[owners])
    statements = statements[tree.is_kind(("expression_statement",))[statements]]
    strings = _first_children(tree, statements)
    strings = strings[tree.is_kind(("string",))[strings]]
    # Nothing else stands in the statement, but for a comma.
    statements, behind = tree.parents[strings], strings + tree.sizes[strings]
    comma = tree.is_kind((",",))[np.minimum(behind, len(tree) - 1)]
    alone = statements + tree.sizes[statements] - behind
    return tree.texts(strings[(alone == 0) | ((alone == 1) & comma)])


def _first_children(tree: trees.FlatTree, nodes: Indexes) -> Indexes:
    return nodes[tree.sizes[nodes] > 1] + 1
