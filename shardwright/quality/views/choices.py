"""Places where code could as well have said something else, and what it did say.

A mean over all tokens of a file drowns a wrong operator in the noise of vocabulary. Here only
places count at which a writer chooses among few alternatives, and a place is judged against its own
alternatives: the operator of a comparison among operators of comparison, a condition or its
negation, a number, an index, two neighbours in one order or in the other. Code that was changed at
such a place keeps its grammar but loses what is usual (Hindle, Barr, Su, Gabel and Devanbu, "On the
naturalness of software", ICSE 2012; Ray et al., "On the naturalness of buggy code", ICSE 2016).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.views import ngrams
from shardwright.quality.views.trees import FlatTree, Labels

Indexes: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]

_OPERATORS = {
    "comparison": ("==", "!=", "<", ">", "<=", ">=", "===", "!==", "is", "is not", "in", "not in"),
    "logic": ("&&", "||", "and", "or"),
    "arithmetic": ("+", "-", "*", "/", "%", "<<", ">>", "&", "|", "^", "//"),
    "update": ("+=", "-=", "*=", "/=", "<<=", ">>=", "&=", "|="),
}
_NEGATION, _INDEX, _NUMBER, _ARGUMENT, _STATEMENT = range(4, 9)
NAMES = (*_OPERATORS, "negation", "index", "number", "argument_order", "statement_order")
"""Kinds of places."""

_NEGATIONS = ("!", "not")
_PARENTHESES = ("parenthesized_expression", "condition_clause")
_INDEXED = ("subscript", "index_expression", "subscript_expression", "array_access")
_NUMBERS = (
    "integer",
    "float",
    "number",
    "number_literal",
    "int_literal",
    "float_literal",
    "integer_literal",
    "decimal_integer_literal",
    "hex_integer_literal",
    "decimal_floating_point_literal",
)
_BINARY = ("binary_expression", "comparison_operator", "boolean_operator")
_ARGUMENTS = ("argument_list", "arguments")
_BLOCKS = (
    "block",
    "statement_block",
    "compound_statement",
    "constructor_body",
    "statement_list",
    "module",
    "program",
    "source_file",
    "translation_unit",
)
_PUNCTUATION = ("(", ")", "[", "]", "{", "}", ",", ";", ":", "\n", "")
_NONE = np.uint64(0x14057B7EF767814F)


@dataclass(frozen=True)
class Choices:
    """What was chosen, and how neighbours would read in the other order.

    Attributes:
        groups: int64 [places]; index into ``NAMES``.
        events: The choices in their contexts; the group is the first part of a context.
        pairs: int64 [2, pairs]; places of neighbours whose order is judged.
        others: 2 * pairs events: all right ones of a pair in the left one's place, then all left
            ones behind the right ones.
    """

    groups: Indexes
    events: ngrams.Events
    pairs: Indexes
    others: ngrams.Events


@dataclass(frozen=True)
class _Places:
    """Places of one kind: what stands there, and the parts of the context, most telling first."""

    group: int
    symbols: Hashes
    columns: list[Hashes]


def choices(tree: FlatTree, labels: Labels) -> Choices:
    """All places of choice in a file.

    Args:
        tree: The tree of a file.
        labels: Its labels.
    """
    near = _Neighbours.of(tree, labels)
    single = [
        *_operators(tree, near),
        _negations(tree, near),
        _indexes(tree, near),
        _numbers(tree, near),
    ]
    ordered = [_arguments(tree, near), _statements(tree, near)]
    here, pairs, before, behind = single, [], [], []
    done = sum(len(places.symbols) for places in single)
    for places, owner in ordered:
        left = np.flatnonzero(owner[1:] == owner[:-1])
        actual, right_first, left_last = _both_orders(places, left, owner)
        here.append(actual)
        before.append(right_first)
        behind.append(left_last)
        pairs.append(np.stack([left, left + 1]) + done)
        done += len(owner)
    groups, events = _events([*here, *before, *behind])
    return Choices(
        groups[:done],
        ngrams.Events(events.symbols[:done], events.contexts[:, :done]),
        np.concatenate(pairs, axis=1),
        ngrams.Events(events.symbols[done:], events.contexts[:, done:]),
    )


def measure_choices(model: ngrams.NgramModel, found: Choices) -> dict[str, NDArray[np.float64]]:
    """How unlikely is what was chosen?

    Args:
        model: Trained on the events of other files.
        found: The places of a file.

    Returns:
        For each kind of place float64 [places of the kind]: bits of surprise given the
        alternatives; for the orders, by how many bits the other order of two neighbours is more
        likely.
    """
    bits = model.surprise(found.events)
    left, right = found.pairs
    turned = model.surprise(found.others).reshape(2, -1).sum(0)
    margins = bits[left] + bits[right] - turned
    symbols = found.events.symbols
    differ = symbols[left] != symbols[right]
    out = {}
    for group, name in enumerate(NAMES):
        if group in (_ARGUMENT, _STATEMENT):
            out[name] = margins[differ & (found.groups[left] == group)]
        else:
            out[name] = bits[found.groups == group]
    return out


def _both_orders(
    places: _Places, left: Indexes, owner: Indexes
) -> tuple[_Places, _Places, _Places]:
    """Siblings after their elders; of each two the right one before, the left one behind."""
    follows = np.append(False, owner[1:] == owner[:-1])
    elder = np.where(follows, np.roll(places.symbols, 1), _NONE)

    def moved(symbols: Hashes, where: Indexes, elder: Hashes) -> _Places:
        columns = [column[where] for column in places.columns]
        return _Places(places.group, symbols, [*columns, elder])

    left_symbols, right_symbols = places.symbols[left], places.symbols[left + 1]
    return (
        _Places(places.group, places.symbols, [*places.columns, elder]),
        moved(right_symbols, left, elder[left]),
        moved(left_symbols, left + 1, right_symbols),
    )


def _events(parts: Sequence[_Places]) -> tuple[Indexes, ngrams.Events]:
    """The groups of all places, and the places as events; all at once, because most are few."""
    sizes = [len(part.symbols) for part in parts]
    groups = np.repeat([part.group for part in parts], sizes)
    columns = np.tile(groups.astype(np.uint64), (6, 1))
    stops = np.cumsum(sizes).tolist()
    for part, size, stop in zip(parts, sizes, stops, strict=True):
        columns[1 : len(part.columns) + 1, stop - size : stop] = part.columns
    return groups, ngrams.grow(np.concatenate([part.symbols for part in parts]), list(columns))


@dataclass(frozen=True)
class _Neighbours:
    """Relatives of nodes; -1 for none, and labels that give ``_NONE`` for it."""

    younger: Indexes
    tops: Indexes
    plain: Hashes
    rich: Hashes
    kinds: Hashes
    words: Hashes
    meaning: NDArray[np.bool_]

    @classmethod
    def of(cls, tree: FlatTree, labels: Labels) -> "_Neighbours":
        younger = np.full(len(tree) + 1, -1, np.int64)
        has = np.flatnonzero(tree.elders >= 0)
        younger[tree.elders[has]] = has
        # Out of parentheses: from an expression to what stands in its statement.
        tops = np.arange(len(tree))
        wrapped = tree.is_kind(_PARENTHESES)
        for _ in range(3):
            tops = np.where(wrapped[tree.parents[tops]], tree.parents[tops], tops)
        meaning = ~tree.is_kind(_PUNCTUATION)
        parts = (labels.plain, labels.rich, labels.kinds, labels.words)
        plain, rich, kinds, words = (np.append(part, _NONE) for part in parts)
        return cls(younger, tops, plain, rich, kinds, words, meaning)


def _branch(tree: FlatTree, near: _Neighbours, tops: Indexes) -> Indexes:
    """The first statement of the block that follows an expression, or -1.

    After the expression comes at most a bracket or a colon; a block's first child may be a brace.
    """
    block = near.younger[tops]
    for _ in range(2):
        skip = (block >= 0) & ~near.meaning[block]
        block = np.where(skip, near.younger[block], block)
    inside = np.where((block >= 0) & (tree.sizes[block] > 1), block + 1, -1)
    for _ in range(2):
        skip = (inside >= 0) & ~near.meaning[inside]
        inside = np.where(skip, near.younger[inside], inside)
    wrapped = (inside >= 0) & tree.is_kind(("statement_list", "expression_statement"))[inside]
    return np.where(wrapped, inside + 1, inside)


def _operators(tree: FlatTree, near: _Neighbours) -> list[_Places]:
    """Operators between two operands, each group by itself."""
    found = []
    for group, members in enumerate(_OPERATORS.values()):
        at = np.flatnonzero(tree.is_kind(members) & (tree.elders >= 0))
        at = at[near.younger[at] >= 0]
        right, left = near.younger[at], tree.elders[at]
        top = near.tops[tree.parents[at]]
        branch = _branch(tree, near, top)
        columns = [near.plain[right], near.kinds[tree.parents[top]], near.kinds[branch]]
        columns += [near.plain[left], near.rich[branch]]
        found.append(_Places(group, near.kinds[at], columns))
    return found


def _negations(tree: FlatTree, near: _Neighbours) -> _Places:
    """Conditions of one operand: negated or not."""
    last = len(tree) - 1
    top = np.flatnonzero(tree.is_field(("condition",)))
    inner = top
    wrapped = tree.is_kind(_PARENTHESES)
    for _ in range(2):
        child = np.minimum(inner + 2, last)
        inner = np.where(wrapped[inner] & (tree.parents[child] == inner), child, inner)
    sign = np.minimum(inner + 1, last)
    negated = tree.is_kind(_NEGATIONS)[sign] & (tree.parents[sign] == inner)
    what = np.where(negated, np.minimum(inner + 2, last), inner)
    single = ~tree.is_kind(_BINARY)[what]
    top, what, negated = top[single], what[single], negated[single]
    branch = _branch(tree, near, top)
    end = what + tree.sizes[what] - 1
    columns = [near.kinds[branch], near.kinds[what], near.rich[branch]]
    columns += [near.plain[what], near.plain[end]]
    return _Places(_NEGATION, negated.astype(np.uint64) + np.uint64(1), columns)


def _indexes(tree: FlatTree, near: _Neighbours) -> _Places:
    """What stands in the brackets of an index: a name, a number, a name and one more, .."""
    inside = tree.is_kind(_INDEXED)[tree.parents] & (tree.elders > 0)
    at = np.flatnonzero(inside & near.meaning)
    owner = tree.parents[at]
    columns = [near.kinds[tree.parents[owner]], near.plain[tree.elders[owner]]]
    columns += [near.plain[owner + 1], near.words[tree.elders[at]]]
    return _Places(_INDEX, near.rich[at], [near.kinds[owner], *columns])


def _numbers(tree: FlatTree, near: _Neighbours) -> _Places:
    """Numbers, by what stands around them."""
    at = np.flatnonzero(tree.is_kind(_NUMBERS) & (tree.parents != 0))
    owner, elder = tree.parents[at], tree.elders[at]
    columns = [near.kinds[owner], near.plain[elder], near.words[np.maximum(owner - 1, 0)]]
    columns += [near.plain[np.where(elder >= 0, tree.elders[elder], -1)]]
    columns += [near.plain[near.younger[at]]]
    return _Places(_NUMBER, near.words[at], columns)


def _arguments(tree: FlatTree, near: _Neighbours) -> tuple[_Places, Indexes]:
    """Arguments of calls by their place, and the list that each stands in."""
    at, place, count = _siblings(tree, tree.is_kind(_ARGUMENTS)[tree.parents] & near.meaning)
    owner = tree.parents[at]
    where = (np.minimum(place, 15) * 16 + np.minimum(count, 15)).astype(np.uint64)
    columns = [where, near.words[np.maximum(owner - 1, 0)]]
    return _Places(_ARGUMENT, near.words[at], columns), owner


def _statements(tree: FlatTree, near: _Neighbours) -> tuple[_Places, Indexes]:
    """Statements by their place, and the block that each stands in."""
    inside = tree.is_kind(_BLOCKS)[tree.parents] & near.meaning
    inside[0] = False
    at, place, count = _siblings(tree, inside)
    owner = tree.parents[at]
    where = (np.minimum(place, 1) * 4 + np.minimum(count - 1 - place, 1)).astype(np.uint64)
    return _Places(_STATEMENT, near.rich[at], [where, near.kinds[tree.parents[owner]]]), owner


def _siblings(tree: FlatTree, wanted: NDArray[np.bool_]) -> tuple[Indexes, Indexes, Indexes]:
    """Nodes sorted by parent, their places among the wanted children, and how many there are."""
    at = np.flatnonzero(wanted)
    at = at[np.argsort(tree.parents[at], kind="stable")]
    opens = np.flatnonzero(np.diff(tree.parents[at], prepend=-1))
    counts = np.diff(opens, append=len(at))
    return at, np.arange(len(at)) - np.repeat(opens, counts), np.repeat(counts, counts)
