"""A syntax tree as flat arrays, and its nodes as events in the context of their relatives.

The arrays come from one walk with a cursor, which is most of the work; everything else is array
work on them. The events are those of a probabilistic grammar whose rules know more than their left
side: Johnson, "PCFG models of linguistic tree representations", Computational Linguistics 24
(1998), annotates a node with its parent; here a child is told by its parent, its elder siblings,
its grandparent, and its parent's elder siblings. That a list of children ends is an event too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

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
        siblings: int64 [nodes - 1]; all nodes but the root, those of one parent side by side.
        comments: int64 [comments, 2]; where comments start and end, bytes.
    """

    data: bytes
    kinds: Indexes
    fields: Indexes
    starts: Indexes
    ends: Indexes
    parents: Indexes
    elders: Indexes
    sizes: Indexes
    siblings: Indexes
    comments: Indexes

    def __len__(self) -> int:
        return len(self.kinds)

    def text(self, node: int) -> bytes:
        """The bytes that a node spans."""
        return self.data[self.starts[node] : self.ends[node]]

    def texts(self, nodes: Indexes) -> list[bytes]:
        """The bytes that each of some nodes spans."""
        spans = zip(self.starts[nodes].tolist(), self.ends[nodes].tolist(), strict=True)
        data = self.data
        return [data[start:end] for start, end in spans]

    def kind_name(self, node: int) -> str:
        """Name of a node's kind."""
        return _KINDS.names[int(self.kinds[node])] or ""

    def field_name(self, node: int) -> str | None:
        """Name of the field of the parent that a node fills, or None."""
        return _FIELDS.names[int(self.fields[node])]

    def is_kind(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Whether each node is of one of these kinds."""
        return _KINDS.among(names).take(self.kinds)

    def fills(self, fields: Mapping[str, str]) -> NDArray[np.bool_]:
        """Whether each node fills the field of its parent that is given for the parent's kind."""
        wanted = np.full(len(_KINDS), -1, np.int64)
        for kind, field in fields.items():
            if kind in _KINDS:
                wanted[_KINDS[kind]] = _FIELDS[field]
        filled: NDArray[np.bool_] = wanted.take(self.kinds).take(self.parents) == self.fields
        return filled

    def is_field(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Whether each node fills one of these fields of its parent."""
        return _FIELDS.among(names).take(self.fields)


class _Numbers(dict[str | None, int]):
    """Numbers of names in the order of asking; they mean nothing outside of this process."""

    def __init__(self, *names: str | None) -> None:
        super().__init__()
        self.names: list[str | None] = []
        self._tables: dict[tuple[str, ...], NDArray[np.bool_]] = {}
        for name in names:
            self[name]

    def __missing__(self, name: str | None) -> int:
        value = self[name] = len(self.names)
        self.names.append(name)
        return value

    def among(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """For each number whether its name is one of these; not to be changed."""
        table = self._tables.get(names)
        if table is None or len(table) < len(self):
            table = np.zeros(len(self), np.bool_)
            table[[self[name] for name in names if name in self]] = True
            self._tables[names] = table
        return table


_KINDS, _FIELDS = _Numbers(), _Numbers(None)


def flatten(data: bytes, root: "Node") -> FlatTree:
    """Lists the nodes of a tree, without comments.

    Args:
        data: The text.
        root: Its tree, of ``shardwright.quality.syntax.parse``.
    """
    kinds, fields, starts, ends, sizes = _nodes(root)
    cursor = root.walk()
    table, comment = np.zeros(kinds.max() + 1, np.int64), np.zeros(kinds.max() + 1, np.bool_)
    for own, place in _firsts(kinds):
        cursor.goto_descendant(place)
        assert cursor.node is not None
        name = cursor.node.type
        table[own], comment[own] = _KINDS[name], name in _COMMENTS
    names = np.zeros(fields.max() + 1, np.int64)
    for own, place in _firsts(fields):
        cursor.goto_descendant(place)
        names[own] = _FIELDS[cursor.field_name]
    comments = np.flatnonzero(comment[kinds])
    kept = _outside(comments, sizes)
    before = np.append(0, np.cumsum(kept))
    left = np.arange(len(kinds))[kept]
    sizes = before[left + sizes[left]] - before[left]
    parents, elders, siblings = _relatives(sizes)
    return FlatTree(
        data,
        table[kinds[left]],
        names[fields[left]],
        starts[left],
        ends[left],
        parents,
        elders,
        sizes,
        siblings,
        np.stack([starts[comments], ends[comments]], axis=1),
    )


def _nodes(root: "Node") -> list[Indexes]:
    """Kind, field, start, end and size of each node; the numbers are the grammar's own.

    This loop is most of the work: it asks for nothing twice, for no name, and keeps no object.
    """
    count = root.descendant_count
    columns = [memoryview(bytearray(8 * count)).cast("q") for _ in range(5)]
    kinds, fields, starts, ends, sizes = columns
    cursor = root.walk()
    down, right, up = cursor.goto_first_child, cursor.goto_next_sibling, cursor.goto_parent
    place = 0
    while True:
        node: Any = cursor.node
        kinds[place] = node.kind_id
        starts[place] = node.start_byte
        ends[place] = node.end_byte
        sizes[place] = size = node.descendant_count
        field = cursor.field_id
        if field is not None:
            fields[place] = field
        place += 1
        if size > 1:
            down()
            continue
        while not right():
            if not up():
                return [np.asarray(column) for column in columns]


def _firsts(numbers: Indexes) -> list[tuple[int, int]]:
    """Each number that occurs, and the first place of it."""
    firsts = np.full(numbers.max() + 1, -1, np.int64)
    firsts[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return [(number, place) for number, place in enumerate(firsts.tolist()) if place >= 0]


def _outside(roots: Indexes, sizes: Indexes) -> NDArray[np.bool_]:
    """Whether nodes stand outside of these subtrees."""
    count = len(sizes) + 1
    opened = np.bincount(roots, minlength=count)
    closed = np.bincount(roots + sizes[roots], minlength=count)
    outside: NDArray[np.bool_] = np.cumsum(opened - closed)[:-1] == 0
    return outside


def _relatives(sizes: Indexes) -> tuple[Indexes, Indexes, Indexes]:
    """Parents, elder siblings, and nodes sorted as siblings, from the sizes of subtrees."""
    count = len(sizes)
    places = np.arange(count)
    # The elder ends where its sibling begins, and so do its last child, and that one's last child;
    # of them the elder is the first.
    stops = places + sizes
    elders = np.full(count + 1, -1, np.int64)
    elders[stops[::-1]] = places[::-1]
    elders = elders[:count]
    depths = places - np.cumsum(np.bincount(stops, minlength=count + 1))[:count]
    # Siblings are neighbours of one level. Short integers are sorted in linear time.
    order = np.argsort(depths.astype(np.min_scalar_type(depths.max())), kind="stable")
    opens = elders[order] < 0
    parents = np.empty(count, np.int64)
    parents[order] = np.maximum(order[opens] - 1, 0)[np.cumsum(opens) - 1]
    return parents, elders, order[1:]


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
    stream = tokens.hash_tokens(tree.texts(leaves))
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
    order = tree.siblings
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
    """Hashes of the names of all kinds so far."""
    hashes = _HASHES[-1]
    if len(hashes) < len(_KINDS):
        more = [tokens.hash_text((name or "").encode()) for name in _KINDS.names[len(hashes) :]]
        _HASHES[-1] = hashes = np.append(hashes, np.array(more, np.uint64))
    return hashes


_HASHES: list[Hashes] = [np.zeros(0, np.uint64)]
