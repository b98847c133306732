"""Do functions return what they are declared, named or used to return?"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.views.scopes import PUNCTUATION, Scopes
from shardwright.quality.views.trees import FlatTree

_RETURNS = ("return_statement", "return_expression")
_YIELDS = ("yield", "yield_expression", "yield_statement")
_ENDS = (
    "if_statement",
    "for_statement",
    "while_statement",
    "do_statement",
    "switch_statement",
    "switch_expression",
    "expression_switch_statement",
    "type_switch_statement",
    "select_statement",
    "throw_statement",
    "raise_statement",
    "try_statement",
    "try_with_resources_statement",
    "with_statement",
    "match_statement",
    "match_expression",
    "if_expression",
    "loop_expression",
    "synchronized_statement",
    "labeled_statement",
    "block",
    "unsafe_block",
    "goto_statement",
    "asm_statement",
    "preproc_if",
    "preproc_ifdef",
    "preproc_else",
    "macro_invocation",
)
_BODIES = ("block", "statement_block", "compound_statement", "constructor_body")
_NO_RESULT = re.compile(
    rb"^(:\s*)?(void|None|unit|\(\)|!)$|\bvoid\b|NoReturn|Never|never|any\b|asserts"
)
_STOPS = re.compile(
    rb"^(panic|os\.Exit|log\.Fatal|t\.Fatal|sys\.exit|abort|unreachable|exit|__builtin)"
)
_GIVES = re.compile(
    rb"^_*(get|is|has|can|find|compute|calculate|make|create|build|parse|to|as)[_A-Z]"
)


@dataclass(frozen=True)
class Returns:
    """Counts of functions.

    Attributes:
        typed: Functions that declare a result.
        missing: Those of them that end without one, or have a return without a value.
        untyped: Other functions with a body of more than one statement.
        mixed: Those of them that return a value at one place and none at another.
        used_empty: Those of them that return no value, though a call's value is used in the file
            or their name says that they give one.
    """

    typed: int
    missing: int
    untyped: int
    mixed: int
    used_empty: int


def find_returns(tree: FlatTree, scopes: Scopes, language: str | None) -> Returns:
    """Compares what functions return with what they say.

    Args:
        tree: The tree of a file.
        scopes: Its functions.
        language: Its language by the name of ``detect_language``.
    """
    at = np.flatnonzero(tree.is_kind(_RETURNS))
    empty = _without_value(tree, at)
    valued, bare = set(scopes.owners[at[~empty]].tolist()), set(scopes.owners[at[empty]].tolist())
    yields = set(scopes.owners[tree.is_kind(_YIELDS)].tolist())
    said = language in ("Python", "JavaScript", "TypeScript")
    used = _used_calls(tree) if said else set()
    bodies, lists = tree.is_kind(_BODIES), tree.is_kind(("statement_list",))
    last_child, children = _statements(tree)
    typed = missing = untyped = mixed = used_empty = 0
    for number, node in enumerate(scopes.functions.tolist()):
        parts = _fields(tree, node)
        body = parts.get("body")
        if body is None or not bodies[body] or number in yields:
            continue
        while tree.sizes[body] > 2 and lists[body + 2]:
            body += 2
        last, statements = int(last_child[body]), children[body]
        if last < 0 or (statements < 2 and number not in valued and language == "Python"):
            continue
        result = _declared(tree, parts)
        falls = _falls_off(tree, last)
        if result:
            named = result.startswith(b"(") and b" " in result
            typed += 1
            wrong = falls or (number in bare and not named)
            missing += bool(wrong and not (named and number in bare))
        elif said:
            untyped += 1
            mixed += number in valued and (number in bare or falls)
            name = tree.text(parts["name"]) if "name" in parts else b""
            wanted = name in used or _GIVES.match(name)
            used_empty += bool(number not in valued and wanted and falls)
    return Returns(typed, missing, untyped, mixed, used_empty)


def _without_value(tree: FlatTree, at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether returns are "return" alone, perhaps with a semicolon."""
    sizes, last = tree.sizes[at], at + tree.sizes[at] - 1
    empty: NDArray[np.bool_] = (
        (sizes == 3) & (tree.parents[last] == at) & (tree.elders[last] == at + 1)
    )
    empty[empty] = [text == b";" for text in tree.texts(last[empty])]
    empty |= sizes <= 2
    return empty


def _statements(tree: FlatTree) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The last child of each node, -1 for none, and how many there are; punctuation aside."""
    last = np.full(len(tree), -1, np.int64)
    told = np.flatnonzero(~tree.is_kind(PUNCTUATION)[1:]) + 1
    last[tree.parents[told]] = told  # of several the last stays
    return last, np.bincount(tree.parents[told], minlength=len(tree))


def _fields(tree: FlatTree, node: int) -> dict[str, int]:
    """Children of a function by what they are for it."""
    found: dict[str, int] = {}
    child, stop = node + 1, node + int(tree.sizes[node])
    while child < stop:
        name = tree.field_name(child)
        if name is not None and name not in found:
            found[name] = child
        child += int(tree.sizes[child])
    return found


def _declared(tree: FlatTree, parts: dict[str, int]) -> bytes:
    """Text of the declared result, empty for none or for one that says that there is none."""
    for name in ("result", "return_type", "type"):
        if name in parts:
            text = tree.text(parts[name])
            if name == "type" and "declarator" in parts:
                declarator = tree.text(parts["declarator"])
                if declarator.startswith((b"*", b"main")) or b"operator" in declarator:
                    return b""
            return b"" if _NO_RESULT.search(text) else text
    return b""


def _falls_off(tree: FlatTree, last: int) -> bool:
    """Whether a body that ends with this statement ends without a result."""
    kind = tree.kind_name(last)
    if kind in _RETURNS or kind in _ENDS:
        return False
    if kind == "expression_statement":
        inner = tree.kind_name(last + 1) if tree.sizes[last] > 1 else ""
        text = tree.text(last)
        return not (inner in _RETURNS or inner in _ENDS or _STOPS.match(text))
    return kind.endswith(("statement", "declaration", "_definition", "pass_statement"))


def _used_calls(tree: FlatTree) -> set[bytes]:
    """Names of functions and methods of which a call's value is used."""
    calls = np.flatnonzero(tree.is_kind(("call", "call_expression", "method_invocation")))
    alone = tree.is_kind(("expression_statement", "await", "await_expression"))
    calls = calls[~alone[tree.parents[calls]]]
    stops = np.arange(len(tree)) + tree.sizes
    arguments = np.flatnonzero(tree.is_kind(("argument_list", "arguments")))[::-1]
    stops[tree.parents[arguments]] = arguments  # of several the first stays
    return set(tree.texts(stops[calls] - 1))
