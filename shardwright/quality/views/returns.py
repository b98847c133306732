"""Do functions return what they are declared, named or used to return?"""

import re
from dataclasses import dataclass

import numpy as np

from shardwright.quality.views.scopes import FUNCTIONS, PUNCTUATION, Scopes
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
    valued: dict[int, int] = {}
    bare: dict[int, int] = {}
    for node in np.flatnonzero(tree.is_kind(_RETURNS)).tolist():
        function = scopes.owners[node]
        # "return" and perhaps a semicolon
        last = node + int(tree.sizes[node]) - 1
        empty = tree.sizes[node] <= 2 or (
            tree.sizes[node] == 3
            and tree.data[tree.starts[last] : tree.ends[last]] == b";"
            and tree.parents[last] == node
            and tree.elders[last] == node + 1
        )
        which = bare if empty else valued
        which[function] = which.get(function, 0) + 1
    yields = {scopes.owners[node] for node in np.flatnonzero(tree.is_kind(_YIELDS)).tolist()}
    used = _used_calls(tree)
    typed = missing = untyped = mixed = used_empty = 0
    for node in np.flatnonzero(tree.is_kind(FUNCTIONS) & (tree.sizes > 3)).tolist():
        parts = _fields(tree, node)
        body = parts.get("body")
        if body is None or not tree.is_kind(_BODIES)[body] or node in yields:
            continue
        last, statements = _last_statement(tree, body)
        if last < 0 or (statements < 2 and node not in valued and language == "Python"):
            continue
        result = _declared(tree, parts)
        falls = _falls_off(tree, last)
        if result:
            named = result.startswith(b"(") and b" " in result
            typed += 1
            wrong = falls or (node in bare and not named)
            missing += bool(wrong and not (named and node in bare))
        elif language in ("Python", "JavaScript", "TypeScript"):
            untyped += 1
            mixed += node in valued and (node in bare or falls)
            name = tree.text(parts["name"]) if "name" in parts else b""
            wanted = name in used or _GIVES.match(name)
            used_empty += bool(node not in valued and wanted and falls)
    return Returns(typed, missing, untyped, mixed, used_empty)


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


def _last_statement(tree: FlatTree, body: int) -> tuple[int, int]:
    """The last statement of a body, -1 for none, and how many there are."""
    child, stop = body + 1, body + int(tree.sizes[body])
    if tree.is_kind(("statement_list",))[np.minimum(body + 2, len(tree) - 1)] and body + 2 < stop:
        return _last_statement(tree, body + 2)
    punctuation = tree.is_kind(PUNCTUATION)
    last, count = -1, 0
    while child < stop:
        if not punctuation[child]:
            last, count = child, count + 1
        child += int(tree.sizes[child])
    return last, count


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
    arguments = tree.is_kind(("argument_list", "arguments"))
    found = set()
    for call in calls[~alone[tree.parents[calls]]].tolist():
        child, stop = call + 1, call + int(tree.sizes[call])
        while child < stop and not arguments[child]:
            child += int(tree.sizes[child])
        found.add(tree.text(child - 1))
    return found
