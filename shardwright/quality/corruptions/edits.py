"""Replacing ranges of a text: which of the possible places are taken, and what comes of it."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Edit: TypeAlias = tuple[int, int, bytes]
"""Start and stop in bytes, and what stands there afterwards."""

Place: TypeAlias = tuple[Edit, ...]
"""Edits that only make sense together, such as all occurrences of a name."""


def choose(places: Sequence[Place], dose: float) -> list[Place]:
    """Takes the first share of the places, passing over those that overlap an earlier one.

    A greater dose takes the same places and more.

    Args:
        places: Places in the order in which they are wanted.
        dose: Share of the places, in (0, 1]; at least one is taken.
    """
    wanted = max(1, round(dose * len(places)))
    taken: list[Place] = []
    spans: list[tuple[int, int]] = []  # sorted, disjoint
    for place in places:
        if len(taken) == wanted:
            break
        if any(_overlaps(spans, start, stop) for start, stop, _ in place):
            continue
        for start, stop, _ in place:
            insort(spans, (start, stop))
        taken.append(place)
    return taken


def apply(data: bytes, places: Iterable[Place]) -> bytes:
    """Makes the edits of disjoint places; everything else stays.

    Insertions at one point come in the order of their places, and before what is replaced there.
    """
    edits = sorted((edit for place in places for edit in place), key=lambda edit: edit[:2])
    pieces = []
    done = 0
    for start, stop, replacement in edits:
        pieces += [data[done:start], replacement]
        done = stop
    return b"".join([*pieces, data[done:]])


def _overlaps(spans: list[tuple[int, int]], start: int, stop: int) -> bool:
    """Whether bytes are shared; two insertions, or one at the edge of a span, share none."""
    # of disjoint spans the last one that begins before the stop also reaches farthest
    before = bisect_left(spans, (stop, -1)) - 1
    return before >= 0 and spans[before][1] > start
