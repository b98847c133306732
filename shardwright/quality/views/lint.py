"""What a linter would object to: facts of data flow and of control flow, by scope.

One algorithm for all languages: what differs is a table of kinds of nodes and of fields, by the
names of tree-sitter's grammars. The rules are those of well-known checkers, among them Pylint's
``used-before-assignment``, ``unused-variable``, ``unreachable``, ``inconsistent-return-statements``
and ``comparison-with-itself``, ``go vet``'s and the Java compiler's "missing return", and the null
dereferences of Hovemeyer and Pugh, "Finding bugs is easy", OOPSLA 2004. They see one file and no
types, so each is a hint; a share of them says something.
"""

from collections import defaultdict
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
    names = list(scopes.mentions)
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
    early = unused = again = 0
    for scope in scopes.local.values():
        for name, writes in scope.writes.items():
            reads = scope.reads.get(name, ())
            if reads and reads[0] < writes[0] and not scopes.is_outer(scope, name):
                early += 1
            if not reads and not name.startswith(b"_"):
                unused += 1
        again += sum(count - 1 for count in scope.declared.values())
    every = sum(len(scope.writes) for scope in scopes.local.values())
    twice = _Count(again if language != "Python" else 0, every)
    return {
        "read_early": _Count(early, every),
        "unused": _Count(unused, every),
        "redeclared": twice,
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
    same = sum(
        tree.text(a) == tree.text(b)
        for a, b in zip(left[pairs].tolist(), right[pairs].tolist(), strict=True)
    )
    return _Count(same, len(at))


def _duplicates(tree: FlatTree, statements: NDArray[np.int64]) -> _Count:
    """Two neighbours that read the same and do something."""
    elders = tree.elders[statements]
    skip = (elders >= 0) & tree.is_kind((";", "\n"))[elders]
    elders = np.where(skip, tree.elders[elders], elders)
    sizes = tree.ends - tree.starts
    like = (elders >= 0) & (sizes[elders] == sizes[statements]) & (sizes[statements] > 4)
    like &= tree.sizes[statements] > 1
    same = sum(
        tree.text(a) == tree.text(b)
        for a, b in zip(elders[like].tolist(), statements[like].tolist(), strict=True)
    )
    return _Count(same, len(statements))


def _contradictions(tree: FlatTree, scopes: Scopes) -> _Count:
    """In the branch where a name is nothing, it is used as if it were something.

    The branch is the one after ``x == null`` or ``!x``, or the other one after ``x != null``; a
    name that the branch assigns first is fine.
    """
    tests = _null_tests(tree)
    by_name: dict[bytes, list[int]] = defaultdict(list)
    for name, places in scopes.mentions.items():
        by_name[name] += places
    found = 0
    members = tree.is_kind(_MEMBERS)
    for name, start, stop, strict in tests:
        for place in by_name.get(name, ()):
            if start <= place < stop:
                written = place in scopes.targets
                used = strict or (members[tree.parents[place]] and tree.elders[place] < 0)
                found += not written and bool(used)
                break
    return _Count(found, len(tests))


def _null_tests(tree: FlatTree) -> list[tuple[bytes, int, int, bool]]:
    """Name, nodes of the branch in which it is nothing, and whether nothing was named."""
    nothing = tree.is_kind(_NOTHING)
    equal, unequal = tree.is_kind(_EQUAL), tree.is_kind(_UNEQUAL)
    names = tree.is_kind(("identifier",))
    negation = tree.is_kind(("!", "not"))
    wrapped = tree.is_kind(("parenthesized_expression", "condition_clause"))
    conditions = tree.is_field(("condition",))
    first, second = tree.is_field(("consequence",)), tree.is_field(("alternative",))
    found = []
    for at in np.flatnonzero(conditions).tolist():
        inner = at
        while wrapped[inner] and inner + 2 < len(tree):
            inner += 2
        children = [inner + 1, inner + 2, inner + 3]
        if children[-1] >= len(tree):
            continue
        a, b, c = children
        if tree.sizes[inner] == 4 and names[a] and nothing[c] and (equal[b] or unequal[b]):
            name, branch, strict = tree.text(a), first if equal[b] else second, True
        elif tree.sizes[inner] == 3 and negation[a] and names[b]:
            name, branch, strict = tree.text(b), first, False
        else:
            continue
        parent = int(tree.parents[at])
        place = at + int(tree.sizes[at])
        while place < len(tree) and tree.parents[place] == parent:
            if branch[place]:
                found.append((name, place, place + int(tree.sizes[place]), strict))
                break
            place += int(tree.sizes[place])
    return found
