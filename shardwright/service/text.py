"""Text from data, made safe and short for a page."""

import html


def shown(value: object, limit: int = 120) -> str:
    """One bounded line in which nothing is invisible or turns the text around; not yet escaped."""
    text = str(value)[: limit + 1]
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escaped(value: object, limit: int = 120) -> str:
    """``shown``, for between tags and inside quoted attributes."""
    return html.escape(shown(value, limit))


def block(text: str, lines: int = 14, width: int = 140) -> str:
    """The first lines of a text, escaped, each bounded, with its layout."""
    head = text[: 4 * lines * width].expandtabs(4).split("\n")
    kept = [_line(line, width) for line in head[:lines]]
    if len(head) > lines or len(text) > 4 * lines * width:
        kept.append("…")
    return html.escape("\n".join(kept))


def _line(line: str, width: int) -> str:
    line = line.rstrip("\r")
    cut = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[: width + 1])
    return cut if len(cut) <= width else cut[: width - 1] + "…"


def number(value: int | float) -> str:
    """Digits in groups of three."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def size(value: float) -> str:
    """Bytes in the unit that reads well."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:,.1f} {unit}"
    return f"{value:,.0f} B"


def percent(part: float, whole: float) -> str:
    """Share of a whole; nothing of nothing is 0 %."""
    return f"{100 * part / whole if whole else 0.0:.1f} %"
