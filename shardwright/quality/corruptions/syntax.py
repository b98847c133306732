"""Damage after which a file does not parse: brackets, names, keywords, strings, lines, its end."""

import random
import re

from shardwright.quality.corruptions.edits import Place
from shardwright.quality.corruptions.names import find_variables
from shardwright.quality.corruptions.registry import Corruption
from shardwright.quality.corruptions.trees import LANGUAGES, Finder, Piece, Source

_STRINGS = frozenset(
    {
        *("char_literal", "interpreted_string_literal", "raw_string_literal", "string"),
        *("string_literal", "template_string"),
    }
)
_CLOSING = re.compile(rb"(\"\"\"|'''|[\"'`])#*$")
_WORD = re.compile(rb"[A-Za-z0-9_]{2,}")
# What a slip of a letter can make of a longer keyword, and is one too.
_SHORT_KEYWORDS = frozenset({"as", "do", "fn", "if", "in", "is", "of", "or"})
_NEIGHBOURS = {
    letter: row[max(place - 1, 0) : place] + row[place + 1 : place + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for place, letter in enumerate(row)
}
_BRACKETS = {"(": ")", "[": "]", "{": "}", "${": "}"}
_CUT = (0.3, 0.9)
_SHIFTS = (-3, -2, -1, 1, 2, 3)


def _find_closing_brackets(source: Source, rng: random.Random) -> list[Place]:
    closing = [piece for piece in source.pieces if piece.kind in (")", "]", "}")]
    return _shuffled(rng, [((piece.start, piece.stop, b""),) for piece in closing if _real(piece)])


def _find_names(source: Source, rng: random.Random) -> list[Place]:
    places = []
    for name, pieces in find_variables(source).items():
        broken = _break_name(name, rng)
        places.append(tuple((piece.start, piece.stop, broken) for piece in pieces))
    return _shuffled(rng, places)


def _break_name(name: bytes, rng: random.Random) -> bytes:
    way = rng.randrange(4)
    text = name.decode()  # a name is cut between characters, not inside of one
    if way == 0 or len(text) < 2:
        return b"%d%s" % (rng.randint(1, 9), name)
    if way == 1 and b"_" in name.strip(b"_"):
        separator = rng.choice((b"-", b" "))
        return name.strip(b"_").replace(b"_", separator)
    middle = rng.randrange(1, len(text))
    return (text[:middle] + (" ", "-", " ", "?")[way] + text[middle:]).encode()


def _find_keywords(source: Source, rng: random.Random) -> list[Place]:
    places: list[Place] = []
    for piece in source.pieces:
        word = piece.kind
        if piece.named or not word.isalpha() or len(word) < 2 or not word.islower():
            continue
        # A type of one word is as good as any name, and so is a statement of one word.
        lone = piece.parent is not None and not piece.parent.inner
        if piece.children or not _real(piece) or (lone and piece.under() != "else_clause"):
            continue
        typo = _mistype(word, rng)
        if typo is not None:
            places.append(((piece.start, piece.stop, typo.encode()),))
    return _shuffled(rng, places)


def _mistype(word: str, rng: random.Random) -> str | None:
    at = rng.randrange(len(word))
    letter = word[at]
    typos = [
        word[:at] + word[at + 1 :],
        word[:at] + letter + word[at:],
        word[:at] + rng.choice(_NEIGHBOURS[letter]) + word[at + 1 :],
        *(word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)),
    ]
    typos = [typo for typo in typos if typo != word and typo not in _SHORT_KEYWORDS and typo]
    return rng.choice(typos) if typos else None


def _find_string_ends(source: Source, rng: random.Random) -> list[Place]:
    places: list[Place] = []
    for piece in source.pieces:
        if piece.kind in _STRINGS and piece.named:
            closing = _CLOSING.search(source.text(piece))
            if closing is not None and closing.start(1) > 0:
                start, stop = closing.span(1)
                places.append(((piece.start + start, piece.start + stop, b""),))
    return _shuffled(rng, places)


def _find_indentations(source: Source, rng: random.Random) -> list[Place]:
    """Lines that begin a statement, never a block's first: that one would take the others along.

    A column that no line of the file has is a column of no block that is open.
    """
    taken = {_columns(line) for line in source.data.splitlines() if line.strip()}
    places: list[Place] = []
    for block in source.pieces:
        if block.kind not in ("block", "module"):
            continue
        for piece in block.inner[1:]:
            before = source.indentation(piece)
            if before is None or source.data[: piece.start].rstrip(b" \t")[-2:-1] == b"\\":
                continue
            moved = [other for other in _reindent(before) if _columns(other + b".") not in taken]
            if moved:
                places.append(((piece.start - len(before), piece.start, rng.choice(moved)),))
    return _shuffled(rng, places)


def _reindent(before: bytes) -> list[bytes]:
    """Other white space: a few columns more or less, and tabs among blanks."""
    moved = [before + b" " * shift for shift in _SHIFTS if shift > 0]
    moved += [before[:shift] for shift in _SHIFTS if shift < 0 and len(before) > -shift]
    if before.endswith(b" " * 4):
        moved += [before[:-4] + b"\t", before + b"\t", b"\t" + before[4:]]
    if before.startswith(b"\t"):
        moved += [before.replace(b"\t", b" " * 8, 1), before.replace(b"\t", b" " * 4, 1)]
    return moved


def _columns(line: bytes) -> tuple[int, int]:
    """Where a line begins, with tabs to each eighth column and with tabs as one: Python's rule."""
    before = line[: len(line) - len(line.lstrip(b" \t\f"))]
    return len(before.expandtabs(8)), len(before.expandtabs(1))


def _find_cuts(source: Source, rng: random.Random) -> list[Place]:
    """Ends of the file inside of a word, where a bracket is open, so that something is missing."""
    low, high = (share * len(source.data) for share in _CUT)
    words = []
    closed = 0  # where the last of the brackets ends that are open here
    for piece in source.pieces:
        if piece.children or piece.parent is None:
            continue
        if piece.kind in _BRACKETS:
            ends = (after.stop for after in piece.parent.children if _closes(piece, after))
            closed = max(closed, next(ends, 0))
        elif piece.stop < closed and piece.start >= low and piece.stop <= high:
            words.append(piece)
    words = [piece for piece in words if _WORD.fullmatch(source.text(piece))]
    if not words:
        return []
    piece = rng.choice(words)
    return [((rng.randrange(piece.start + 1, piece.stop), len(source.data), b""),)]


def _closes(opening: Piece, piece: Piece) -> bool:
    """Whether a token is the bracket that closes another one of the same node."""
    return piece.kind == _BRACKETS[opening.kind] and piece.start > opening.start and _real(piece)


def _real(piece: Piece) -> bool:
    """Whether a token stands in the text: the parser puts in those that it misses."""
    return not piece.named and piece.stop > piece.start


def _shuffled(rng: random.Random, places: list[Place]) -> list[Place]:
    rng.shuffle(places)
    return places


def _kind(
    name: str, family: str, description: str, languages: frozenset[str] = LANGUAGES
) -> Corruption:
    return Corruption(name, "code", "syntax", family, languages, False, description)


KINDS: tuple[tuple[Corruption, Finder], ...] = (
    (
        _kind("remove_closing_brackets", "brackets", "Closing brackets are missing."),
        _find_closing_brackets,
    ),
    (
        _kind("invalid_names", "names", "Variables have names that are none: 2name, na-me, na me."),
        _find_names,
    ),
    (
        _kind("break_keywords", "keywords", "Keywords are mistyped: retrun, whlie."),
        _find_keywords,
    ),
    (
        _kind(
            "unterminate_strings", "strings", "Strings do not end: the closing quote is missing."
        ),
        _find_string_ends,
    ),
    (
        _kind(
            "break_indentation",
            "indentation",
            "Lines are shifted to columns of no block; tabs stand among blanks.",
            frozenset({"Python"}),
        ),
        _find_indentations,
    ),
    (
        _kind("cut_mid_token", "truncation", "The file ends in the middle of a word."),
        _find_cuts,
    ),
)
