"""Which names does a function assign, and where does it read them?"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.views.trees import FlatTree

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
# Kinds that declare, and how many levels above stands the block in which a name is new.
_DECLARES = {
    "variable_declarator": 2,
    "short_var_declaration": 1,
    "var_spec": 2,
    "init_declarator": 2,
    "declaration": 1,
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


@dataclass
class Scope:
    """A function: places (nodes) at which it writes and reads names, in the order of the text."""

    node: int
    outer: int
    writes: dict[bytes, list[int]] = field(default_factory=dict)
    reads: dict[bytes, list[int]] = field(default_factory=dict)
    parameters: set[bytes] = field(default_factory=set)
    declared: Counter[tuple[int, bytes]] = field(default_factory=Counter)


@dataclass(frozen=True)
class Scopes:
    """A file's functions by node.

    Attributes:
        local: Functions with what they write themselves; -1 is the file.
        outside: Names that are written outside of all functions.
        mentions: Nodes of each name.
        targets: Nodes at which a name is assigned.
        owners: For each node the innermost function around it, -1 for none.
    """

    local: dict[int, Scope]
    outside: frozenset[bytes]
    mentions: dict[bytes, list[int]]
    targets: frozenset[int]
    owners: list[int]

    def is_outer(self, scope: Scope, name: bytes) -> bool:
        """Whether a name also means something around the function."""
        if name in self.outside or name in scope.parameters:
            return True
        outer = scope.outer
        while outer in self.local:
            around = self.local[outer]
            if name in around.parameters or name in around.writes:
                return True
            outer = around.outer
        return False


def find_scopes(tree: FlatTree) -> Scopes:
    """Finds the functions of a file, and what they write and read.

    What a function inside of another reads counts for both.

    Args:
        tree: The tree of a file.
    """
    owner = np.full(len(tree), -1, np.int64)
    functions = np.flatnonzero(tree.is_kind(FUNCTIONS) & (tree.sizes > 3))
    scopes: dict[int, Scope] = {}
    for node in functions.tolist():
        scopes[node] = Scope(node, int(owner[node]))
        owner[node + 1 : node + tree.sizes[node]] = node
    target, declares = _targets(tree)
    parameter = np.zeros(len(tree), np.bool_)
    for node in np.flatnonzero(tree.is_kind((*_PARAMETERS, *_COMPREHENSIONS))).tolist():
        # A catch or a comprehension binds in its head; its body is read in any case.
        size = int(tree.sizes[node])
        parameter[node : node + (size if size < 200 else 0)] = True
    clause = tree.is_kind(("catch_clause", "except_clause"))
    for node in np.flatnonzero(clause).tolist():
        parameter[node : node + tree.sizes[node]] = False
        parameter[node : node + min(5, int(tree.sizes[node]))] = True
    names = tree.is_kind(_NAMES) & ~tree.is_field(_NOT_VARIABLES)
    method = tree.is_kind(("method_invocation", "keyword_argument"))
    names &= ~(method[tree.parents] & tree.is_field(("name",)))
    alone = tree.is_kind(("arrow_function", "lambda_expression", "closure_expression"))
    parameter |= alone[tree.parents] & tree.is_field(("parameter", "parameters"))
    mentions: dict[bytes, list[int]] = defaultdict(list)
    outside: set[bytes] = set()
    at = np.flatnonzero(names)
    rows = zip(
        at.tolist(),
        tree.starts[at].tolist(),
        tree.ends[at].tolist(),
        owner[at].tolist(),
        target[at].tolist(),
        parameter[at].tolist(),
        declares[at].tolist(),
        strict=True,
    )
    data = tree.data
    for node, start, end, function, written, bound, block in rows:
        name = data[start:end]
        mentions[name].append(node)
        if function < 0:
            outside.add(name)
            continue
        scope = scopes[function]
        if bound and not written:
            scope.parameters.add(name)
        if written:
            scope.writes.setdefault(name, []).append(node)
            if block >= 0:
                scope.declared[(block, name)] += 1
        else:
            while True:
                scope.reads.setdefault(name, []).append(node)
                if scope.outer < 0:
                    break
                scope = scopes[scope.outer]
    for scope in scopes.values():
        for name in list(scope.writes):
            if name in scope.parameters:
                del scope.writes[name]
    targets = frozenset(at[target[at]].tolist())
    return Scopes(scopes, frozenset(outside), dict(mentions), targets, owner.tolist())


def _targets(tree: FlatTree) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Nodes that are assigned, and for those that are declared the block that they stand in."""
    target = np.zeros(len(tree), np.bool_)
    parents = tree.parents
    for kind, name in _TARGETS.items():
        target |= tree.is_kind((kind,))[parents] & tree.is_field((name,))
    wrapped = tree.is_kind(_PATTERNS)
    # Left sides wrap their names a few levels deep.
    for _ in range(4):
        target |= target[parents] & wrapped[parents]
    target[0] = False
    declares = np.full(len(tree), -1, np.int64)
    for kind, levels in _DECLARES.items():
        own = np.flatnonzero(target & tree.is_kind((kind,))[parents])
        block = parents[own]
        for _ in range(levels):
            block = parents[block]
        declares[own] = block
        # Go lets a list name what is there already, if another name is new.
        lists = tree.is_kind(("expression_list",))[own] & (tree.sizes[own] == 2)
        declares[own[lists] + 1] = block[lists]
    return target, declares
