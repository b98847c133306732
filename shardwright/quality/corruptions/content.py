"""Damage that parses: conditions, operators, offsets, arguments and names that are not right."""

import itertools
import random
import re
import string

from shardwright.quality.corruptions.edits import Edit, Place
from shardwright.quality.corruptions.names import find_variables
from shardwright.quality.corruptions.registry import Corruption
from shardwright.quality.corruptions.trees import LANGUAGES, Finder, Piece, Source

_OPERATIONS = frozenset(
    {
        *("assignment_expression", "assignment_statement", "augmented_assignment"),
        *("augmented_assignment_expression", "binary_expression", "binary_operator"),
        *("boolean_operator", "comparison_operator", "compound_assignment_expr"),
    }
)
_OPPOSITES = {
    b"==": b"!=",
    b"===": b"!==",
    b"<": b">=",
    b">": b"<=",
    b"is": b"is not",
    b"in": b"not in",
    b"&&": b"||",
    b"and": b"or",
}
_OPPOSITES |= {other: operator for operator, other in _OPPOSITES.items()}
_SWAPS = {b"+": b"-", b"*": b"/", b"<<": b">>", b"&": b"|"}
_SWAPS |= {other: operator for operator, other in _SWAPS.items()}
_SWAPS |= {operator + b"=": other + b"=" for operator, other in _SWAPS.items()}
# A slash next to a star begins a comment, two minus signs are another operator.
_SIGNS = b"+-*/%&|^<>=!~"

# What takes a negation in front without parentheses, in every one of the languages.
_CALLS = frozenset({"call", "call_expression", "method_invocation"})
_PLAIN = _CALLS | {
    *("array_access", "attribute", "field_access", "field_expression", "identifier"),
    *("index_expression", "member_expression", "selector_expression", "subscript"),
    "subscript_expression",
}
_CONDITIONAL = frozenset(
    {"elif_clause", "for_clause", "if_expression", "if_statement", "while_expression"}
    | {"while_statement"}
)
_ENCLOSED = frozenset({"condition_clause", "parenthesized_expression"})

_INTEGERS = frozenset(
    {
        *("decimal_integer_literal", "int_literal", "integer", "integer_literal", "number"),
        "number_literal",
    }
)
_DECIMAL = re.compile(rb"(0|[1-9][0-9]{0,17})([A-Za-z]\w*)?")
_INDEXED = frozenset(
    {"array_access", "index_expression", "subscript", "subscript_argument_list"}
    | {"subscript_expression"}
)
_SLICES = frozenset({"range_expression", "slice", "slice_expression"})
_LOOP_HEADS = frozenset({"condition", "init", "initializer"})
_LOOPS = frozenset({"for_clause", "for_statement"})
_LEVELS = 4
_TYPES = frozenset({b"bool", b"bytes", b"dict", b"float", b"int", b"list", b"object", b"str"})

_ARGUMENTS = frozenset({"argument_list", "arguments"})
_NOT_POSITIONAL = frozenset(
    {
        *("dictionary_splat", "keyword_argument", "list_splat", "spread_element"),
        *("variadic_argument", "ERROR"),
    }
)


def _find_conditions(source: Source, rng: random.Random) -> list[Place]:
    places = []
    for piece in source.pieces:
        edits = _opposite(source, piece) or _without_negation(source, piece)
        if not edits and piece.role == "condition" and piece.under() in _CONDITIONAL:
            edits = _negated(source, piece)
        if edits:
            places.append(edits)
    rng.shuffle(places)
    return places


def _opposite(source: Source, piece: Piece) -> Place:
    if piece.named or piece.under() not in _OPERATIONS:
        return ()
    operator = source.text(piece)
    if operator in (b"is", b"in") and piece.under() != "comparison_operator":
        return ()  # JavaScript's in has no opposite
    operator = b" ".join(operator.split())
    other = _OPPOSITES.get(operator)
    return () if other is None else ((piece.start, piece.stop, other),)


def _without_negation(source: Source, piece: Piece) -> Place:
    negations = {"not_operator": b"not", "unary_expression": b"!"}
    if piece.kind not in negations or len(piece.children) != 2:
        return ()
    negation, rest = piece.children
    if source.text(negation) != negations[piece.kind]:
        return ()
    gap = source.data[negation.stop : rest.start]
    return ((piece.start, negation.stop if gap.strip() else rest.start, b""),)


def _negated(source: Source, condition: Piece) -> Place:
    inner = condition.inner
    if condition.kind in _ENCLOSED and len(inner) == 1:
        condition = inner[0]
    if condition.kind not in _PLAIN:
        return ()
    negation = b"not " if source.language == "Python" else b"!"
    return ((condition.start, condition.start, negation),)


def _find_operators(source: Source, rng: random.Random) -> list[Place]:
    places: list[Place] = []
    for piece in source.pieces:
        parent = piece.parent
        if piece.named or parent is None or parent.kind not in _OPERATIONS:
            continue
        other = _SWAPS.get(source.text(piece))
        near = source.data[piece.start - 1 : piece.start] + source.data[piece.stop : piece.stop + 1]
        if other is None or any(sign in _SIGNS for sign in near):
            continue
        # neither text that is put together nor a union of types is arithmetic
        texts = any("string" in operand.kind for operand in parent.inner)
        if not texts and not _in_type(parent):
            places.append(((piece.start, piece.stop, other),))
    rng.shuffle(places)
    return places


def _in_type(piece: Piece | None) -> bool:
    while piece is not None and piece.kind in ("binary_operator", "type"):
        if piece.kind == "type":
            return True
        piece = piece.parent
    return False


def _find_offsets(source: Source, rng: random.Random) -> list[Place]:
    places: list[Place] = []
    for piece in source.pieces:
        edit = None
        if piece.named and _counts(source, piece):
            edit = _shift(source, piece, rng)
        if edit is not None:
            places.append((edit,))
    rng.shuffle(places)
    return places


def _counts(source: Source, piece: Piece) -> bool:
    """Whether a node is a number or a value that says where to look or how often to turn."""
    if _is_index(piece) or _is_bound(source, piece):
        return True
    return piece.kind in _INTEGERS and _in_loop_head(piece)


def _is_index(piece: Piece) -> bool:
    parent = piece.parent
    if parent is None or parent.kind not in _INDEXED:
        return False
    if parent.kind == "subscript_argument_list":
        return True
    # Rust's grammar gives neither side a name
    last = not piece.role and len(parent.inner) == 2 and parent.inner[1] is piece
    return piece.role in ("subscript", "index") or last


def _is_bound(source: Source, piece: Piece) -> bool:
    """An end of a slice or of a range, or the right side of a loop's comparison."""
    parent = piece.parent
    if parent is None:
        return False
    if parent.kind in _SLICES:
        return piece.role != "operand"
    if parent.kind == "argument_list" and parent.parent is not None:
        call = source.data[parent.parent.start : parent.start].strip()
        return call == b"range" and parent.under() == "call" and piece.kind not in _NOT_POSITIONAL
    compared = parent.kind == "binary_expression" and parent.role == "condition"
    return compared and piece.role == "right" and parent.under() in _LOOPS


def _in_loop_head(piece: Piece) -> bool:
    above: Piece | None = piece
    for _ in range(_LEVELS):
        # an index or a bound within the head is found as such
        if above is None or _is_index(above) or above.under() in _SLICES:
            return False
        if above.role in _LOOP_HEADS and above.under() in _LOOPS:
            return True
        above = above.parent
    return False


def _shift(source: Source, piece: Piece, rng: random.Random) -> Edit | None:
    """One more or one less: of a number in its digits, of anything else behind it."""
    step = rng.choice((1, -1))
    if piece.kind == "unary_operator" and len(piece.children) == 2:
        piece = piece.children[1]
        step = 1
        if piece.kind not in _INTEGERS:
            return None
    right = piece.inner[-1] if piece.inner else piece
    if piece.kind in ("binary_expression", "binary_operator") and right.kind in _INTEGERS:
        piece = right
    text = source.text(piece)
    if piece.kind in _INTEGERS:
        match = _DECIMAL.fullmatch(text)
        if match is None:
            return None
        number = int(match[1])
        return piece.start, piece.start + len(match[1]), b"%d" % (number + (step if number else 1))
    if piece.kind == "identifier" and (text in _TYPES or text[:1].isupper()):
        return None  # a parameter of a type
    if piece.kind not in _CALLS | {"identifier", "binary_expression", "binary_operator"}:
        return None
    return piece.stop, piece.stop, b" + 1" if step > 0 else b" - 1"


def _find_arguments(source: Source, rng: random.Random) -> list[Place]:
    places: list[Place] = []
    for piece in source.pieces:
        if piece.kind not in _ARGUMENTS or piece.under() == "class_definition":
            continue
        given = [
            child
            for child in piece.inner
            if child.kind not in _NOT_POSITIONAL and not child.kind.endswith("_type")
        ]
        pairs = [
            pair
            for pair in itertools.combinations(given[:8], 2)
            if source.text(pair[0]) != source.text(pair[1])
        ]
        if pairs:
            one, other = rng.choice(pairs)
            places.append(
                (
                    (one.start, one.stop, source.text(other)),
                    (other.start, other.stop, source.text(one)),
                )
            )
    rng.shuffle(places)
    return places


def _find_renamings(source: Source, rng: random.Random) -> list[Place]:
    variables = find_variables(source)
    spoken_for = {source.text(piece) for piece in source.pieces if not piece.children}
    names = _meaningless(rng)
    places = []
    for pieces in variables.values():
        new = next(other for other in names if other not in spoken_for)
        places.append(tuple((piece.start, piece.stop, new) for piece in pieces))
    rng.shuffle(places)
    return places


def _meaningless(rng: random.Random) -> "itertools.chain[bytes]":
    """Endless names, the short ones first; one file has one taste in them."""
    letters = [letter for letter in string.ascii_lowercase if letter not in "lo"]
    stems = ["foo", "bar", "baz", "tmp", "temp", "data", "val", "var1", "x1", "aa", "bb", "thing"]
    stems += ["stuff", "qux", "test1", "obj", "res", "abc", "xx", "yy", "zz", "item", "spam"]
    first = rng.choice(([*letters], [*stems], [*letters, *stems]))
    rng.shuffle(first)
    more = (f"{stem}{number}" for number in itertools.count(2) for stem in first)
    return itertools.chain(map(str.encode, first), map(str.encode, more))


def _kind(name: str, family: str, description: str) -> Corruption:
    return Corruption(name, "code", "content", family, LANGUAGES, True, description)


KINDS: tuple[tuple[Corruption, Finder], ...] = (
    (
        _kind("flip_conditions", "conditions", "Comparisons and conditions say the opposite."),
        _find_conditions,
    ),
    (
        _kind("swap_operators", "operators", "Arithmetic is done with the inverse operator."),
        _find_operators,
    ),
    (
        _kind("shift_offsets", "offsets", "Indices, slices and bounds of loops are off by one."),
        _find_offsets,
    ),
    (
        _kind("swap_arguments", "arguments", "Two arguments of a call are exchanged."),
        _find_arguments,
    ),
    (
        _kind("meaningless_names", "renaming", "Variables are called a, x1, foo, tmp2."),
        _find_renamings,
    ),
)
