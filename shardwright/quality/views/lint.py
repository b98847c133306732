"""What a linter would object to: facts of data flow and of control flow, by scope.

One algorithm for all languages: what differs is a table of kinds of nodes and of fields, by the
names of tree-sitter's grammars. The rules are those of well-known checkers, among them Pylint's
``used-before-assignment``, ``unused-variable``, ``unreachable``, ``inconsistent-return-statements``
and ``comparison-with-itself``, ``go vet``'s and the Java compiler's "missing return", and the null
dereferences of Hovemeyer and Pugh, "Finding bugs is easy", OOPSLA 2004. They see one file and no
types, so each is a hint; a share of them says something.
"""

import operator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.views.returns import Returns, find_returns
from shardwright.quality.views.scopes import PUNCTUATION, Scopes, find_scopes
from shardwright.quality.views.trees import FlatTree

Flags: TypeAlias = NDArray[np.bool_]

NAMES = (
    "read_early",
    "unused",
    "redeclared",
    "unreachable",
    "missing_return",
    "mixed_returns",
    "empty_value",
    "same_operands",
    "duplicate_statement",
    "contradiction",
)
"""Facts, in the order of ``lint``'s result."""

_EXITS = (
    "return_statement",
    "raise_statement",
    "throw_statement",
    "break_statement",
    "continue_statement",
    "goto_statement",
    "return_expression",
    "break_expression",
    "continue_expression",
)
_REACHED = (
    "function_declaration",
    "class_declaration",
    "labeled_statement",
    "case_statement",
    "preproc_endif",
    "preproc_else",
    "preproc_if",
    "preproc_ifdef",
    "#endif",
    "else_clause",
    "function_item",
    "function_definition",
)
_BLOCKS = (
    "block",
    "statement_block",
    "compound_statement",
    "constructor_body",
    "statement_list",
    "module",
    "program",
    "switch_block_statement_group",
    "case_statement",
    "switch_case",
)
_OPERATORS = (
    "==",
    "!=",
    "<",
    ">",
    "<=",
    ">=",
    "===",
    "!==",
    "is",
    "is not",
    "-",
    "/",
    "%",
    "&&",
    "||",
    "and",
    "or",
    "&",
    "|",
    "^",
)
_EQUAL, _UNEQUAL = ("==", "===", "is"), ("!=", "!==", "is not")
_NOTHING = ("none", "nil", "null", "null_literal", "undefined")
_MEMBERS = (
    "attribute",
    "member_expression",
    "selector_expression",
    "field_access",
    "method_invocation",
    "field_expression",
    "subscript",
    "index_expression",
    "call",
)
_PRIOR = 3
_SHORT = 4


@dataclass(frozen=True)
class _Count:
    """How often a fact was found, and how often it could have been."""

    found: int
    possible: int


def lint(tree: FlatTree, language: str | None) -> dict[str, float | None]:
    """Shares of what could be objected to.

    A share is the number found over the number of places where it could be found and three more,
    so that one hint in a file of one function is not taken for certain.

    Args:
        tree: The tree of a file.
        language: Its language by the name of ``detect_language``.

    Returns:
        For each of ``NAMES`` a share from 0 to 1, None where there is no place for it; and
        ``short_names`` and ``numbered_names``, shares of the distinct names that have at most four
        letters, and that end with a digit.
    """
    scopes = find_scopes(tree)
    statements = _statements(tree)
    counts = {
        **_names(scopes, language),
        "unreachable": _unreachable(tree, statements),
        **_returns(find_returns(tree, scopes, language)),
        "same_operands": _same_operands(tree),
        "duplicate_statement": _duplicates(tree, statements),
        "contradiction": _contradictions(tree, scopes),
    }
    shares: dict[str, float | None] = {}
    for name in NAMES:
        count = counts[name]
        shares[name] = count.found / (count.possible + _PRIOR) if count.possible else None
    names = scopes.names
    short = sum(len(name.strip(b"_")) <= _SHORT for name in names)
    numbered = sum(name[-1:].isdigit() for name in names)
    shares["short_names"] = short / len(names) if names else None
    shares["numbered_names"] = numbered / len(names) if names else None
    return shares


def _statements(tree: FlatTree) -> NDArray[np.int64]:
    inside = tree.is_kind(_BLOCKS)[tree.parents] & ~tree.is_kind(PUNCTUATION)
    inside[0] = False
    return np.flatnonzero(inside)


def _names(scopes: Scopes, language: str | None) -> dict[str, _Count]:
    """Locals that are read before they are assigned, never read, or declared twice."""
    local = scopes.local
    every = len(local.names)
    early = (local.read >= 0) & (local.read < local.written) & ~local.outer
    never = local.names[local.read < 0].tolist()
    unused = sum(not scopes.names[name].startswith(b"_") for name in never)
    return {
        "read_early": _Count(int(early.sum()), every),
        "unused": _Count(unused, every),
        "redeclared": _Count(local.again if language != "Python" else 0, every),
    }


def _unreachable(tree: FlatTree, statements: NDArray[np.int64]) -> _Count:
    exits = tree.is_kind(_EXITS)
    wrapped = tree.is_kind(("expression_statement",))
    inner = np.minimum(np.arange(len(tree)) + 1, len(tree) - 1)
    exits |= wrapped & exits[inner] & (tree.parents[inner] == np.arange(len(tree)))
    elders = tree.elders[statements]
    semicolons = tree.is_kind((";", "\n"))
    elders = np.where((elders >= 0) & semicolons[elders], tree.elders[elders], elders)
    after = (elders >= 0) & exits[elders] & ~tree.is_kind(_REACHED)[statements]
    return _Count(int(after.sum()), len(statements))


def _returns(found: Returns) -> dict[str, _Count]:
    return {
        "missing_return": _Count(found.missing, found.typed),
        "mixed_returns": _Count(found.mixed, found.untyped),
        "empty_value": _Count(found.used_empty, found.untyped),
    }


def _same_operands(tree: FlatTree) -> _Count:
    """Both sides of a comparison, a difference or the like read the same."""
    at = np.flatnonzero(tree.is_kind(_OPERATORS) & (tree.elders >= 0))
    left, right = tree.elders[at], at + 1
    right = np.minimum(right, len(tree) - 1)
    pairs = (tree.parents[right] == tree.parents[at]) & (tree.sizes[left] == tree.sizes[right])
    return _Count(_alike(tree, left[pairs], right[pairs]), len(at))


def _duplicates(tree: FlatTree, statements: NDArray[np.int64]) -> _Count:
    """Two neighbours that read the same and do something."""
    elders = tree.elders[statements]
    skip = (elders >= 0) & tree.is_kind((";", "\n"))[elders]
    elders = np.where(skip, tree.elders[elders], elders)
    like = (elders >= 0) & (tree.ends - tree.starts > 4)[statements] & (tree.sizes > 1)[statements]
    return _Count(_alike(tree, elders[like], statements[like]), len(statements))


def _alike(tree: FlatTree, left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """How many of these pairs of nodes read the same."""
    lengths = tree.ends - tree.starts
    like = lengths[left] == lengths[right]
    return sum(map(operator.eq, tree.texts(left[like]), tree.texts(right[like])))


def _contradictions(tree: FlatTree, scopes: Scopes) -> _Count:
    """In the branch where a name is nothing, it is used as if it were something.

    The branch is the one after ``x == null`` or ``!x``, or the other one after ``x != null``; a
    name that the branch assigns first is fine.
    """
    tests = _null_tests(tree)
    numbers = {name: number for number, name in enumerate(scopes.names)} if tests else {}
    members = tree.is_kind(_MEMBERS)
    found = 0
    for name, start, stop, strict in tests:
        low, high = np.searchsorted(scopes.places, (start, stop))
        here = np.flatnonzero(scopes.which[low:high] == numbers.get(name, -1))
        if not len(here):
            continue
        first = low + here[0]
        place = scopes.places[first]
        used = strict or (members[tree.parents[place]] and tree.elders[place] < 0)
        found += not scopes.written[first] and bool(used)
    return _Count(found, len(tests))


def _null_tests(tree: FlatTree) -> list[tuple[bytes, int, int, bool]]:
    """Name, nodes of the branch in which it is nothing, and whether nothing was named."""
    wrapped = tree.is_kind(("parenthesized_expression", "condition_clause"))
    at = np.flatnonzero(tree.is_field(("condition",)))
    inner = at
    while (deeper := wrapped[inner] & (inner + 2 < len(tree))).any():
        inner = np.where(deeper, inner + 2, inner)
    at, inner = at[inner + 3 < len(tree)], inner[inner + 3 < len(tree)]
    name, negation = tree.is_kind(("identifier",)), tree.is_kind(("!", "not"))
    equal, unequal = tree.is_kind(_EQUAL)[inner + 2], tree.is_kind(_UNEQUAL)[inner + 2]
    strict = (tree.sizes[inner] == 4) & name[inner + 1] & tree.is_kind(_NOTHING)[inner + 3]
    strict &= equal | unequal
    negated = (tree.sizes[inner] == 3) & negation[inner + 1] & name[inner + 2]
    first, second = tree.is_field(("consequence",)), tree.is_field(("alternative",))
    found = []
    for test in np.flatnonzero(strict | negated).tolist():
        named = int(inner[test]) + (1 if strict[test] else 2)
        branch = second if strict[test] and not equal[test] else first
        node, parent = int(at[test]), int(tree.parents[at[test]])
        place = node + int(tree.sizes[node])
        while place < len(tree) and tree.parents[place] == parent:
            size = int(tree.sizes[place])
            if branch[place]:
                found.append((tree.text(named), place, place + size, bool(strict[test])))
                break
            place += size
    return found
