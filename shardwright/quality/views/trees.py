"""A syntax tree as flat arrays, and its nodes as events in the context of their relatives.

The arrays come from one walk with a cursor, which is most of the work; everything else is array
work on them. The events are those of a probabilistic grammar whose rules know more than their left
side: Johnson, "PCFG models of linguistic tree representations", Computational Linguistics 24
(1998), annotates a node with its parent; here a child is told by its parent, its elder siblings,
its grandparent, and its parent's elder siblings. That a list of children ends is an event too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shardwright.quality.shingles import mix64
from shardwright.quality.views import ngrams, tokens

if TYPE_CHECKING:
    from tree_sitter import Node

Indexes: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]

_STEP = np.uint64(0xA0761D6478BD642F)
_END = np.uint64(0x5851F42D4C957F2D)
_COMMENTS = frozenset({"comment", "line_comment", "block_comment", "html_comment"})
_NONE = np.uint64(0x14057B7EF767814F)


@dataclass(frozen=True)
class FlatTree:
    """Nodes of a syntax tree in the order of the text, parents before children.

    Attributes:
        data: The text.
        kinds: int64 [nodes]; numbers that ``is_kind`` and ``kind_name`` know.
        fields: int64 [nodes]; the field of the parent that the node fills, 0 for none.
        starts: int64 [nodes], bytes.
        ends: int64 [nodes], bytes.
        parents: int64 [nodes]; the root's is 0, itself.
        elders: int64 [nodes]; the sibling before, -1 for a first child.
        sizes: int64 [nodes]; nodes of the subtree, itself included.
    """

    data: bytes
    kinds: Indexes
    fields: Indexes
    starts: Indexes
    ends: Indexes
    parents: Indexes
    elders: Indexes
    sizes: Indexes

    def __len__(self) -> int:
        return len(self.kinds)

    def text(self, node: int) -> bytes:
        """The bytes that a node spans."""
        return self.data[self.starts[node] : self.ends[node]]

    def kind_name(self, node: int) -> str:
        """Name of a node's kind."""
        return _KINDS.names[int(self.kinds[node])] or ""

    def field_name(self, node: int) -> str | None:
        """Name of the field of the parent that a node fills, or None."""
        return _FIELDS.names[int(self.fields[node])]

    def is_kind(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Whether each node is of one of these kinds."""
        return _among(self.kinds, _KINDS, names)

    def is_field(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Whether each node fills one of these fields of its parent."""
        return _among(self.fields, _FIELDS, names)


def _among(values: Indexes, numbers: "_Numbers", names: Iterable[str]) -> NDArray[np.bool_]:
    wanted = np.zeros(len(numbers) + 1, np.bool_)
    wanted[[numbers[name] for name in names if name in numbers]] = True
    found: NDArray[np.bool_] = wanted[values]
    return found


class _Numbers(dict[str | None, int]):
    """Numbers of names in the order of asking; they mean nothing outside of this process."""

    def __init__(self, *names: str | None) -> None:
        super().__init__()
        self.names: list[str | None] = []
        for name in names:
            self[name]

    def __missing__(self, name: str | None) -> int:
        value = self[name] = len(self.names)
        self.names.append(name)
        return value


_KINDS, _FIELDS = _Numbers(), _Numbers(None)


def flatten(data: bytes, root: "Node") -> FlatTree:
    """Lists the nodes of a tree, without comments.

    Args:
        data: The text.
        root: Its tree, of ``shardwright.quality.syntax.parse``.
    """
    rows: list[int] = []  # flat: a tuple per node would keep the garbage collector busy
    # A grammar's own numbers, because names are slow to ask for; -1 is a comment.
    kinds: dict[int, int] = {}
    fields: dict[int | None, int] = {None: 0}
    cursor = root.walk()
    depth = 0
    while True:
        node = cursor.node
        assert node is not None
        kind = kinds.get(node.kind_id)
        if kind is None:
            kind = -1 if node.type in _COMMENTS else _KINDS[node.type]
            kinds[node.kind_id] = kind
        if kind >= 0:
            field = fields.get(cursor.field_id)
            if field is None:
                field = fields[cursor.field_id] = _FIELDS[cursor.field_name]
            rows += (kind, field, node.start_byte, node.end_byte, depth)
            if cursor.goto_first_child():
                depth += 1
                continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return _linked(data, rows)
            depth -= 1


def _linked(data: bytes, rows: list[int]) -> FlatTree:
    kinds, fields, starts, ends, depths = np.array(rows, np.int64).reshape(-1, 5).T.copy()
    count = len(kinds)
    # A node's parent is the last one before it that is a level higher. Sorted by level and place,
    # these are neighbours of where the node would stand a level higher.
    keys = np.sort(depths * count + np.arange(count))
    above = (depths - 1) * count + np.arange(count)
    parents = np.where(depths > 0, keys[np.searchsorted(keys, above) - 1] % count, 0)
    # The next node that is no deeper ends the subtree: the next of the level, or its parent's end.
    order = np.argsort(parents[1:], kind="stable") + 1
    elders = np.full(count, -1, np.int64)
    same = parents[order[1:]] == parents[order[:-1]]
    elders[order[1:][same]] = order[:-1][same]
    sizes = _sizes(depths, parents, elders)
    return FlatTree(data, kinds, fields, starts, ends, parents, elders, sizes)


def _sizes(depths: Indexes, parents: Indexes, elders: Indexes) -> Indexes:
    """Nodes of each subtree: it ends at the next sibling, or where its parent's ends."""
    count = len(depths)
    stops = np.full(count, count, np.int64)
    with_elder = np.flatnonzero(elders >= 0)
    stops[elders[with_elder]] = with_elder
    last = np.ones(count, np.bool_)
    last[elders[with_elder]] = False
    last[0] = False
    lasts = np.flatnonzero(last)
    lasts = lasts[np.argsort(depths[lasts], kind="stable")]
    bounds = np.flatnonzero(np.diff(depths[lasts], prepend=-1)).tolist()
    for low, high in pairwise([*bounds, len(lasts)]):
        level = lasts[low:high]
        stops[level] = stops[parents[level]]
    return stops - np.arange(count)


@dataclass(frozen=True)
class Labels:
    """What nodes are, as hashes.

    Attributes:
        kinds: uint64 [nodes].
        words: uint64 [nodes]; for leaves also what they are, names and all.
        plain: uint64 [nodes]; as ``words``, but names that are not common only by shape.
        rich: uint64 [nodes]; ``plain`` with that of the first and of the last child.
    """

    kinds: Hashes
    words: Hashes
    plain: Hashes
    rich: Hashes


def label(tree: FlatTree, common: Hashes) -> Labels:
    """Labels the nodes of a tree.

    Args:
        tree: The tree of a file.
        common: Names that are told apart, as ``tokens.abstract`` takes them.
    """
    kinds = _kind_hashes()[tree.kinds]
    leaves = np.flatnonzero(tree.sizes == 1)
    spans = zip(tree.starts[leaves].tolist(), tree.ends[leaves].tolist(), strict=True)
    stream = tokens.hash_tokens([tree.data[start:end] for start, end in spans])
    words, plain = kinds.copy(), kinds.copy()
    words[leaves] = mix64(kinds[leaves] + stream)
    plain[leaves] = mix64(kinds[leaves] + tokens.abstract(stream, common))
    children = np.arange(1, len(tree))
    first, last = np.zeros_like(plain), np.zeros_like(plain)
    last[tree.parents[children]] = plain[children]
    first[tree.parents[children[::-1]]] = plain[children[::-1]]
    return Labels(kinds, words, plain, mix64((plain * _STEP + first) * _STEP + last))


def tree_events(tree: FlatTree, labels: Labels) -> tuple[ngrams.Events, NDArray[np.bool_]]:
    """What each node is, and that a list of children ends, in the context of the relatives.

    The contexts, each with those before: the parent's kind; the elder sibling with its outermost
    children; the grandparent's kind; all of the parent's elder siblings (among them a function's
    declared result); the elder sibling but one.

    Args:
        tree: The tree of a file.
        labels: Its labels.

    Returns:
        One event per node but the root, and then one per node with children; and for each event
        whether it is a node that has children itself.
    """
    count = len(tree)
    children = np.arange(1, count)
    # Elder siblings as a set: the sum of their labels.
    sums = np.zeros(count, np.uint64)
    order = np.argsort(tree.parents[1:], kind="stable") + 1
    running = np.cumsum(mix64(labels.plain[order]), dtype=np.uint64)
    before = np.concatenate([np.zeros(1, np.uint64), running[:-1]])[: len(order)]
    opens = tree.elders[order] < 0
    sums[order] = before - before[opens][np.cumsum(opens) - 1]
    youngest = np.full(count, -1, np.int64)
    youngest[tree.parents[children]] = children
    ends = np.flatnonzero(youngest >= 0)
    who = np.concatenate([tree.parents[children], ends])
    elder = np.concatenate([tree.elders[children], youngest[ends]])
    symbols = np.concatenate([labels.plain[children], np.full(len(ends), _END)])
    padded = np.append(labels.rich, _NONE)
    elder_but_one = np.where(elder >= 0, tree.elders[elder], -1)
    columns = [
        labels.kinds[who],
        padded[elder],
        labels.kinds[tree.parents[who]],
        sums[who],
        padded[elder_but_one],
    ]
    inner = np.append(tree.sizes[children] > 1, np.zeros(len(ends), np.bool_))
    return ngrams.grow(symbols, columns), inner


def _kind_hashes() -> Hashes:
    if len(_HASHES) < len(_KINDS):
        for name in _KINDS.names[len(_HASHES) :]:
            _HASHES.append(tokens.hash_text((name or "").encode()))
    return np.array(_HASHES, np.uint64)


_HASHES: list[int] = []
