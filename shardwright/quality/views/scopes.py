"""Which names does a function assign, and where does it read them?"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.views.trees import FlatTree

Indexes: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

PUNCTUATION = ("(", ")", "[", "]", "{", "}", ",", ";", ":", "\n", "")
FUNCTIONS = (
    "function_definition",
    "function_declaration",
    "function_expression",
    "generator_function_declaration",
    "arrow_function",
    "method_definition",
    "method_declaration",
    "constructor_declaration",
    "func_literal",
    "function_item",
    "closure_expression",
    "lambda",
    "lambda_expression",
)
_PARAMETERS = (
    "parameters",
    "lambda_parameters",
    "formal_parameters",
    "parameter_list",
    "inferred_parameters",
    "closure_parameters",
    "catch_formal_parameter",
    "catch_clause",
    "except_clause",
    "global_statement",
    "nonlocal_statement",
)
# Field of a kind of node in which names are assigned.
_TARGETS = {
    "assignment": "left",
    "named_expression": "name",
    "for_statement": "left",
    "as_pattern": "alias",
    "variable_declarator": "name",
    "assignment_expression": "left",
    "short_var_declaration": "left",
    "var_spec": "name",
    "assignment_statement": "left",
    "range_clause": "left",
    "enhanced_for_statement": "name",
    "declaration": "declarator",
    "init_declarator": "declarator",
    "for_range_loop": "declarator",
    "let_declaration": "pattern",
    "for_expression": "pattern",
    "for_in_statement": "left",
    "augmented_assignment": "left",
}
# Kinds that declare, by how many levels above stands the block in which a name is new.
_DECLARES = {
    1: ("short_var_declaration", "declaration"),
    2: ("variable_declarator", "var_spec", "init_declarator"),
}
# What a target may be wrapped in; anything else (a call, an index, a member) is read, not assigned.
_PATTERNS = (
    "pattern_list",
    "tuple_pattern",
    "list_pattern",
    "expression_list",
    "tuple",
    "as_pattern_target",
    "array_pattern",
    "object_pattern",
    "pair_pattern",
    "pointer_declarator",
    "reference_declarator",
    "array_declarator",
    "init_declarator",
    "mut_pattern",
    "list_splat_pattern",
    "rest_pattern",
    "variable_declarator",
)
_NAMES = ("identifier", "shorthand_property_identifier_pattern", "shorthand_property_identifier")
# Fields in which a name is not a variable's.
_NOT_VARIABLES = ("attribute", "field", "property", "label", "type", "key")
_COMPREHENSIONS = ("for_in_clause",)


@dataclass(frozen=True)
class Locals:
    """Variables that functions assign themselves, one for each function and name.

    Attributes:
        names: int64 [variables]; index into the names of the file.
        written: int64 [variables]; the first node that assigns it.
        read: int64 [variables]; the first that reads it, -1 for none. What a function inside of
            another reads counts for both.
        outer: bool [variables]; whether the name also means something around the function.
        again: How many declarations are of what the same block has declared.
    """

    names: Indexes
    written: Indexes
    read: Indexes
    outer: Flags
    again: int


@dataclass(frozen=True)
class Scopes:
    """A file's functions, and where it names variables.

    Attributes:
        functions: int64 [functions]; their nodes.
        owners: int64 [nodes]; number of the innermost function around each node, -1 for none.
        names: The distinct names.
        places: int64 [mentions]; nodes that name variables, in the order of the text.
        which: int64 [mentions]; index into ``names``.
        written: bool [mentions]; whether the name is assigned there.
        local: What functions assign.
    """

    functions: Indexes
    owners: Indexes
    names: list[bytes]
    places: Indexes
    which: Indexes
    written: Flags
    local: Locals


def find_scopes(tree: FlatTree) -> Scopes:
    """Finds the functions of a file, and what they write and read.

    Args:
        tree: The tree of a file.
    """
    functions = np.flatnonzero(tree.is_kind(FUNCTIONS) & (tree.sizes > 3))
    owners = np.full(len(tree), -1, np.int64)
    # One more, so that around no function there is none.
    outer = np.full(len(functions) + 1, -1, np.int64)
    spans = zip(functions.tolist(), tree.sizes[functions].tolist(), strict=True)
    for number, (node, size) in enumerate(spans):
        outer[number] = owners[node]
        owners[node + 1 : node + size] = number
    target, blocks = _targets(tree)
    names = tree.is_kind(_NAMES) & ~tree.is_field(_NOT_VARIABLES)
    method = tree.is_kind(("method_invocation", "keyword_argument"))
    names &= ~(method[tree.parents] & tree.is_field(("name",)))
    at = np.flatnonzero(names)
    numbers: dict[bytes, int] = {}
    which = np.array([numbers.setdefault(t, len(numbers)) for t in tree.texts(at)], np.int64)
    mentions = _Mentions(at, which, target[at], _parameters(tree)[at], blocks[at], owners[at])
    local = _locals(mentions, outer, len(numbers), len(tree))
    return Scopes(functions, owners, list(numbers), at, which, target[at], local)


@dataclass(frozen=True)
class _Mentions:
    """Names as they stand in the text: node, name, what is done to it, declaring block, function.

    Arrays of one length; -1 for no block and for no function.
    """

    at: Indexes
    which: Indexes
    written: Flags
    bound: Flags
    block: Indexes
    function: Indexes


def _locals(found: _Mentions, outer: Indexes, names: int, nodes: int) -> Locals:
    inside = found.function >= 0
    keys = found.function * names + found.which  # a function's variable
    parameters = keys[inside & found.bound & ~found.written]
    writes = inside & found.written
    bound = np.concatenate([parameters, keys[writes]])
    variables, first = np.unique(keys[writes], return_index=True)
    own = np.isin(variables, parameters, invert=True)
    variables, first = variables[own], first[own]
    which = variables % max(names, 1)

    read_keys, read_first = _reads(found, outer, names, nodes)
    place = np.searchsorted(read_keys, variables)
    read = np.where(np.append(read_keys, -1)[place] == variables, read_first[place], -1)

    outside = np.zeros(names, np.bool_)
    outside[found.which[~inside]] = True
    means = outside[which]
    around = outer[variables // max(names, 1)]
    while (around >= 0).any():
        means |= (around >= 0) & np.isin(around * names + which, bound)
        around = outer[around]

    declared = writes & (found.block >= 0)
    distinct = np.unique(keys[declared] * nodes + found.block[declared])
    again = int(declared.sum()) - len(distinct)
    return Locals(which, found.at[writes][first], read, means, again)


def _reads(found: _Mentions, outer: Indexes, names: int, nodes: int) -> tuple[Indexes, Indexes]:
    """Variables of functions that are read, ascending, and the first node of each and -1."""
    packed = []
    function = np.where(found.written, -1, found.function)
    while (function >= 0).any():
        inside = function >= 0
        keys = function[inside] * names + found.which[inside]
        packed.append(keys * nodes + found.at[inside])
        function = outer[function]
    every = np.sort(np.concatenate([np.zeros(0, np.int64), *packed]))
    keys = every // nodes
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], np.append(every[first] % nodes, -1)


def _parameters(tree: FlatTree) -> Flags:
    """Nodes at which names are bound without being assigned."""
    parameter = np.zeros(len(tree), np.bool_)
    for node, size in _spans(tree, (*_PARAMETERS, *_COMPREHENSIONS)):
        # A catch or a comprehension binds in its head; its body is read in any case.
        parameter[node : node + (size if size < 200 else 0)] = True
    for node, size in _spans(tree, ("catch_clause", "except_clause")):
        parameter[node : node + size] = False
        parameter[node : node + min(5, size)] = True
    alone = tree.is_kind(("arrow_function", "lambda_expression", "closure_expression"))
    return parameter | (alone[tree.parents] & tree.is_field(("parameter", "parameters")))


def _spans(tree: FlatTree, kinds: tuple[str, ...]) -> Iterable[tuple[int, int]]:
    """Nodes of these kinds, and their sizes."""
    at = np.flatnonzero(tree.is_kind(kinds))
    return zip(at.tolist(), tree.sizes[at].tolist(), strict=True)


def _targets(tree: FlatTree) -> tuple[Flags, Indexes]:
    """Nodes that are assigned, and for those that are declared the block that they stand in."""
    parents = tree.parents
    target = tree.fills(_TARGETS)
    # Left sides wrap their names a few levels deep.
    wrapped = tree.is_kind(_PATTERNS)[parents]
    for _ in range(4):
        target |= target[parents] & wrapped
    target[0] = False
    blocks = np.full(len(tree), -1, np.int64)
    for levels, kinds in _DECLARES.items():
        own = np.flatnonzero(target & tree.is_kind(kinds)[parents])
        block = parents[own]
        for _ in range(levels):
            block = parents[block]
        blocks[own] = block
        # Go lets a list name what is there already, if another name is new.
        lists = tree.is_kind(("expression_list",))[own] & (tree.sizes[own] == 2)
        blocks[own[lists] + 1] = block[lists]
    return target, blocks
