"""What ``shardwright compare`` ends with: tables for a terminal."""

import json
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from shardwright.metadata.causes import Difference
from shardwright.metadata.compare import Comparison
from shardwright.service.text import number, shown

_HAPPENED = {
    "added": "only in B",
    "removed": "only in A",
    "moved": "other path or source",
    "content": "other content",
    "columns": "other values in columns",
    "decision": "other decision",
    "split": "other split",
    "shard": "same split, other shard",
    "position": "same shard, other position",
}
_LEVELS = {"same": "", "packaging": "PATCH", "additive": "MINOR", "changed": "MAJOR"}
_MOST = 20


def shown_comparison(comparison: Comparison) -> Iterator[Table | Text]:
    """Both sides, what happened to inputs, which decisions changed, why, and the version's step."""
    yield _sides(comparison)
    if comparison.groups:
        table = _table("what happened", "inputs", "first")
        for group in comparison.groups:
            table.add_row(_HAPPENED[group.kind], number(group.inputs), _text(group.example, 60))
        for column, records in comparison.columns.items():
            table.add_row(f"other {shown(column, 40)}", number(records), "")
        yield table
    if comparison.transitions:
        table = _table("in A", "inputs", "in B", "first", "what differs there or before")
        for one in comparison.transitions[:_MOST]:
            causes = [_told(cause) for cause in one.causes]
            table.add_row(
                _decision(one.before),
                number(one.inputs),
                _decision(one.after),
                _text(one.example, 40),
                Text("\n".join(causes[:5]) or "nothing that is recorded"),
            )
        yield table
        yield from _more(len(comparison.transitions), "changed decisions")
    own = [one for one in comparison.differences if one.kind not in ("data", "input")]
    if own:
        table = Table("stage", "what", "A", "B", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for difference in own[:_MOST]:
            what = difference.name if difference.kind != "version" else "version of its code"
            table.add_row(
                difference.stage, _text(what, 50), _value(difference.a), _value(difference.b)
            )
        yield table
        yield from _more(len(own), "differences")
    level = _LEVELS[comparison.step]
    if level and comparison.next_version is not None:
        level += f", version {comparison.a.version} to {comparison.next_version}"
    yield Text(f"{comparison.step}{f' ({level})' if level else ''}: {comparison.because}")


def _sides(comparison: Comparison) -> Table:
    table = Table("", "inputs", "records", "kept", "folder", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        counts = (number(count) for count in (side.inputs, side.records, side.kept))
        table.add_row(name, *counts, _text(side.folder, 60))
    return table


def _table(first: str, count: str, *others: str) -> Table:
    table = Table(first, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(count, justify="right")
    for name in others:
        table.add_column(name)
    return table


def _more(count: int, what: str) -> Iterator[Text]:
    if count > _MOST:
        yield Text(f"and {count - _MOST} more {what}; --format json has all")


def _text(value: str, limit: int) -> Text:
    """Text in which rich sees no markup."""
    return Text(shown(value, limit))


def _decision(state: tuple[str, str, str]) -> Text:
    decision, stage, reason = state
    return Text(decision if decision == "kept" else f"{decision} by {stage}: {shown(reason, 40)}")


def _value(value: Any) -> Text:
    return _text(value if isinstance(value, str) else json.dumps(value), 40)


def _told(cause: Difference) -> str:
    """A cause in a few words."""
    if cause.kind == "data":
        counts = ", ".join(f"{count:,} {kind}" for kind, count in cause.b.items())
        return f"inputs: {counts}"
    if cause.kind == "version":
        return f"code of {cause.stage}: {shown(cause.a, 10)} -> {shown(cause.b, 10)}"
    values = (shown(json.dumps(value), 24) for value in (cause.a, cause.b))
    return f"{cause.stage} {shown(cause.name, 40)}: {' -> '.join(values)}"
