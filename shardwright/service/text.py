"""Text from data, made safe to look at and short; templates escape it."""


def shown(value: object, limit: int = 120) -> str:
    """One bounded line in which nothing is invisible or turns the text around; not yet escaped."""
    text = str(value)[: limit + 1]
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def block(text: str, lines: int = 14, width: int = 140) -> str:
    """The first lines of a text, each bounded, with its layout; not yet escaped."""
    head = text[: 4 * lines * width].expandtabs(4).split("\n")
    kept = [_line(line, width) for line in head[:lines]]
    if len(head) > lines or len(text) > 4 * lines * width:
        kept.append("…")
    return "\n".join(kept)


def _line(line: str, width: int) -> str:
    return shown(line.rstrip("\r"), width)


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


def duration(seconds: float) -> str:
    """A time in the unit that reads well."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 90 else f"{hours:.1f} h"
