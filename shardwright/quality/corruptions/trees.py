"""A text with its lines and its syntax tree: what the kinds of corruption look for places in."""

import functools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from shardwright.quality.corruptions.edits import Place
from shardwright.quality.syntax import count_errors, parse

if TYPE_CHECKING:
    from tree_sitter import Node

WORD = re.compile(rb"[A-Za-z][a-z0-9]{2,14}")
"""A word of a name, however the name is put together."""

LANGUAGES = frozenset({"C", "C++", "Go", "Java", "JavaScript", "Python", "Rust", "TypeScript"})
"""The languages whose grammars' node types stand in the tables of this package."""

BLOCKS = frozenset(
    {"block", "compound_statement", "constructor_body", "statement_block", "statement_list"}
)
"""Nodes whose children are statements, in all these languages."""

COMMENTS = frozenset({"comment", "line_comment", "block_comment"})


@dataclass(slots=True, eq=False)
class Piece:
    """A node of a syntax tree.

    The parser's own nodes find their parent by descending from the root, and are slow to ask.

    Attributes:
        kind: The grammar's type of the node; the text itself for keywords and punctuation.
        named: Whether the grammar has a name for it; keywords and punctuation have none.
        role: The role in the parent that the grammar gives it, or an empty text.
        start: First byte.
        stop: Byte after the last.
        parent: The node that this one is a child of.
        children: All of its children, in order.
    """

    kind: str
    named: bool
    role: str
    start: int
    stop: int
    parent: "Piece | None"
    children: list["Piece"] = field(default_factory=list)

    @property
    def inner(self) -> list["Piece"]:
        """Named children, comments apart."""
        return [child for child in self.children if child.named and child.kind not in COMMENTS]

    def under(self) -> str:
        """Kind of the parent, or an empty text."""
        return "" if self.parent is None else self.parent.kind


@dataclass(frozen=True)
class Source:
    """A text, and what is found out about it when it is asked for.

    Attributes:
        data: UTF-8.
        language: Its name of ``detect_language``, or None.
    """

    data: bytes
    language: str | None

    def text(self, piece: Piece) -> bytes:
        """The bytes of a node."""
        return self.data[piece.start : piece.stop]

    @functools.cached_property
    def _root(self) -> "Node | None":
        return parse(self.data, self.language)

    @functools.cached_property
    def pieces(self) -> list[Piece]:
        """All nodes, each before its children; none where the parser finds no tree."""
        root = self._root
        if root is None:
            return []
        pieces: list[Piece] = []
        parents: list[Piece] = []
        cursor = root.walk()
        while True:
            node = cursor.node
            assert node is not None
            parent = parents[-1] if parents else None
            role = cursor.field_name or ""
            start, stop = node.byte_range
            piece = Piece(node.type, node.is_named, role, start, stop, parent)
            if parent is not None:
                parent.children.append(piece)
            pieces.append(piece)
            if cursor.goto_first_child():
                parents.append(piece)
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return pieces
                parents.pop()

    @functools.cached_property
    def errors(self) -> int | None:
        """Bytes that fit no rule of the grammar; None where there is no tree."""
        return None if self._root is None else count_errors(self._root)

    @functools.cached_property
    def words(self) -> list[bytes]:
        """The different words, sorted."""
        return sorted(set(WORD.findall(self.data)))

    @functools.cached_property
    def newline(self) -> bytes:
        """What ends a line of this text: the end of the first line, else a line feed."""
        end = self.data.find(b"\n")
        return b"\r\n" if end > 0 and self.data[end - 1 : end] == b"\r" else b"\n"

    @functools.cached_property
    def lines(self) -> list[tuple[int, int, int]]:
        """Start, stop without the line's end, and stop with it, of each line."""
        lines = []
        start = 0
        while start < len(self.data):
            end = self.data.find(b"\n", start)
            stop = len(self.data) if end < 0 else end + 1
            bare = len(self.data) if end < 0 else end
            if bare < stop and bare > start and self.data[bare - 1 : bare] == b"\r":
                bare -= 1
            lines.append((start, bare, stop))
            start = stop
        return lines

    def line_of(self, piece: Piece) -> tuple[int, int]:
        """From the start of a node's first line to the end of its last, line end included."""
        end = self.data.find(b"\n", piece.stop)
        return self.data.rfind(b"\n", 0, piece.start) + 1, len(self.data) if end < 0 else end + 1

    def indentation(self, piece: Piece) -> bytes | None:
        """White space before a node on its line; None if there is anything else."""
        before = self.data[self.line_of(piece)[0] : piece.start]
        return None if before.strip(b" \t") else before

    def stands_alone(self, piece: Piece) -> bool:
        """Whether a node has its lines for itself."""
        after = self.data[piece.stop : self.line_of(piece)[1]]
        return self.indentation(piece) is not None and not after.strip()


Finder: TypeAlias = Callable[[Source, random.Random], list[Place]]
"""Finds all places of a kind, in the order in which a growing dose takes them."""
