"""Damage that parses: returns that are gone, statements that come twice or in another order."""

import random

from shardwright.quality.corruptions.edits import Edit, Place
from shardwright.quality.corruptions.registry import Corruption
from shardwright.quality.corruptions.trees import BLOCKS, LANGUAGES, Finder, Piece, Source

# A statement that does nothing, where one must stand.
_EMPTY = {"Python": b"pass", "Go": b""}
_LEAST = 3
_MOST_BYTES = 400
# Their place is part of what they say.
_FIXED = frozenset(
    {"explicit_constructor_invocation", "future_import_statement", "global_statement"}
    | {"labeled_statement", "nonlocal_statement"}
)


def _find_returns(source: Source, rng: random.Random) -> list[Place]:
    places: list[Place] = []
    for piece in source.pieces:
        edit: Edit | None = None
        if piece.kind in ("return_statement", "return_expression"):
            edit = _drop_return(source, piece, rng)
        elif source.language == "Rust" and _is_tail(piece):
            edit = (piece.stop, piece.stop, b";")
        if edit is not None:
            places.append((edit,))
    rng.shuffle(places)
    return places


def _drop_return(source: Source, piece: Piece, rng: random.Random) -> Edit | None:
    """Removes the value, or the statement: with its line where something else remains."""
    value = piece.inner
    word = piece.children[0]
    without_value = (word.stop, value[-1].stop, b"") if value else None
    if piece.kind == "return_expression":
        if piece.under() != "expression_statement" or piece.parent is None:
            return without_value
        piece = piece.parent
    if without_value is not None and rng.random() < 0.5:
        return without_value
    parent = piece.parent
    if parent is None or (source.language != "Python" and parent.kind not in BLOCKS):
        return piece.start, piece.stop, b";"
    others = [child for child in parent.inner if child.kind != "return_statement"]
    if source.stands_alone(piece) and (others or source.language != "Python"):
        return *source.line_of(piece), b""
    return piece.start, piece.stop, _EMPTY.get(source.language or "", b";")


def _is_tail(piece: Piece) -> bool:
    """Whether an expression is the value of a function of Rust's."""
    parent = piece.parent
    if parent is None or parent.kind != "block" or parent.under() != "function_item":
        return False
    last = parent.inner[-1:] == [piece]
    return last and (piece.kind.endswith("_expression") or piece.kind == "identifier")


def _find_duplicates(source: Source, rng: random.Random) -> list[Place]:
    places: list[Place] = []
    for run in _runs(source):
        for piece in run:
            text = source.text(piece)
            declares = "declaration" in piece.kind and piece.kind != "let_declaration"
            if declares or "definition" in piece.kind or len(text) > _MOST_BYTES:
                continue  # a second declaration is an error, and a function comes twice elsewhere
            line = source.newline + (source.indentation(piece) or b"") + text
            places.append(((piece.stop, piece.stop, line * rng.choice((1, 1, 1, 2))),))
    rng.shuffle(places)
    return places


def _find_orders(source: Source, rng: random.Random) -> list[Place]:
    places = []
    for run in _runs(source):
        texts = [source.text(piece) for piece in run]
        order = texts[:]
        rng.shuffle(order)
        if order == texts:
            order = texts[1:] + texts[:1]
        moved = zip(run, texts, order, strict=True)
        place = tuple((piece.start, piece.stop, new) for piece, old, new in moved if new != old)
        if place:
            places.append(place)
    rng.shuffle(places)
    return places


def _runs(source: Source) -> list[list[Piece]]:
    """Statements of one block that follow each other, each with lines of its own, three or more."""
    runs: list[list[Piece]] = []
    for block in source.pieces:
        if block.kind not in BLOCKS:
            continue
        run: list[Piece] = []
        for piece in block.inner:
            if _moves(source, piece) and _same_indentation(source, run, piece):
                run.append(piece)
                continue
            runs.append(run)
            run = []
        runs.append(run)
    return [run for run in runs if len(run) >= _LEAST]


def _moves(source: Source, piece: Piece) -> bool:
    if piece.kind in _FIXED or piece.kind.startswith("preproc") or piece.kind in ("ERROR", "block"):
        return False
    if source.language == "Python" and [part.kind for part in piece.inner] == ["string"]:
        return False  # a docstring
    if source.language == "Rust" and not piece.kind.endswith(("_statement", "_declaration")):
        return False  # the value of the block
    return source.stands_alone(piece)


def _same_indentation(source: Source, run: list[Piece], piece: Piece) -> bool:
    return not run or source.indentation(run[-1]) == source.indentation(piece)


def _kind(name: str, family: str, description: str) -> Corruption:
    return Corruption(name, "code", "content", family, LANGUAGES, True, description)


KINDS: tuple[tuple[Corruption, Finder], ...] = (
    (
        _kind("drop_returns", "returns", "Return statements are gone, or return nothing."),
        _find_returns,
    ),
    (
        _kind("duplicate_statements", "statements", "Statements come twice or three times."),
        _find_duplicates,
    ),
    (
        _kind("shuffle_statements", "statements", "Statements of a block are in another order."),
        _find_orders,
    ),
)
