"""What pages are made of: plain values that one template turns into HTML.

Text is escaped by the template, and bounded and made visible there too (``text.shown``), whatever
built it. Only ``Markup`` of this package's own words and drawings stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup


@dataclass(frozen=True)
class Code:
    """A cell in the type of code."""

    text: str


@dataclass(frozen=True)
class Link:
    """A cell that leads to another page of the service."""

    text: str
    href: str


@dataclass(frozen=True)
class Bar:
    """A cell with a bar.

    Attributes:
        kind: Class that colours it: ``kept``, ``dropped``, ``rejected``.
        share: Its length, 0 to 1.
    """

    kind: str
    share: float


Cell: TypeAlias = str | Code | Link | Bar


@dataclass(frozen=True)
class Heading:
    """A heading, and what stands small beside it."""

    text: str
    level: int = 2
    note: str = ""


@dataclass(frozen=True)
class Words:
    """A paragraph; ``soft`` ones explain what comes."""

    text: str | Markup
    soft: bool = True


@dataclass(frozen=True)
class Listed:
    """Sentences, one under the other."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Large numbers side by side, (value, what it counts)."""

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Flow:
    """One bar cut into kinds, (kind, inputs), and its legend."""

    parts: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        heads: Names of the columns.
        rows: Cells.
        right: Places of the columns that hold numbers.
        foot: A last row of sums.
        folded: The words to click on where the table is folded away.
        label: What the table holds, where no heading says so.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Sequence[int] = ()
    foot: Sequence[Cell] = ()
    folded: str = ""
    label: str = ""

    @property
    def bars(self) -> list[int]:
        """Places of the columns that hold bars."""
        first = self.rows[0] if self.rows else ()
        return [place for place, cell in enumerate(first) if isinstance(cell, Bar)]


@dataclass(frozen=True)
class Picture:
    """A drawing with its numbers.

    Attributes:
        drawing: An ``<svg>`` element.
        caption: Its title.
        legend: (class of the mark, words).
        numbers: The table behind it, folded away.
    """

    drawing: Markup
    caption: str = ""
    legend: Sequence[tuple[str, str]] = ()
    numbers: Table | None = None


@dataclass(frozen=True)
class Card:
    """A record to look at.

    Attributes:
        title: Its path.
        about: Facts in a few words each.
        text: Of a text, the first lines.
        image: Of an image, a data URI; empty where it cannot be drawn; None for a text.
        href: Where the record has a page of its own.
    """

    title: str
    about: Sequence[str]
    text: str = ""
    image: str | None = None
    href: str = ""


@dataclass(frozen=True)
class Gallery:
    """Cards or pictures side by side."""

    items: Sequence["Card | Picture"]


@dataclass(frozen=True)
class Pair:
    """Two records that are held against each other.

    Attributes:
        about: What they are to each other.
        left: The one that stays.
        right: The other.
        diff: Of texts, (sign, line): sign ``+``, ``-``, a space, or ``@`` where lines are left out.
    """

    about: str
    left: Card
    right: Card
    diff: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Preformatted:
    """A long text, folded away under ``title``."""

    title: str
    text: str


@dataclass(frozen=True)
class PointMap:
    """Records as points, drawn by the page's script.

    Attributes:
        data: What ``static/map.js`` draws, as JSON holds it.
        fallback: What is shown without scripts and on paper.
        about: How the places were found.
        open: In the service the address of a point's record, but for the number of the point.
    """

    data: dict[str, object]
    fallback: Markup
    about: str
    open: str = ""


@dataclass(frozen=True)
class Field:
    """One thing that a form asks for.

    Attributes:
        name: In the request.
        label: For people.
        value: What stands there.
        kind: ``text``, ``area``, ``number``, ``file``, ``password``, or ``choice``.
        choices: Of a choice, (value, words).
    """

    name: str
    label: str
    value: str = ""
    kind: str = "text"
    choices: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Form:
    """A form of a page of the service; ``post`` ones may carry files."""

    fields: Sequence[Field]
    submit: str
    post: bool = False


@dataclass(frozen=True)
class Links:
    """Links in a row, (words, address)."""

    links: Sequence[tuple[str, str]]


Block: TypeAlias = (
    Heading
    | Words
    | Listed
    | Facts
    | Flow
    | Table
    | Picture
    | Card
    | Gallery
    | Pair
    | Preformatted
    | PointMap
    | Form
    | Links
)
