"""The parts of a report that every curation has, as blocks."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from shardwright.metadata.credentials import recipe_without_credentials
from shardwright.service.addresses import at
from shardwright.service.blocks import (
    Bar,
    Block,
    Cell,
    Code,
    Facts,
    Flow,
    Gallery,
    Heading,
    Link,
    Picture,
    Preformatted,
    Table,
    Words,
)
from shardwright.service.figures import picture
from shardwright.service.measures import Distribution
from shardwright.service.overview import SplitSize, Step, Totals
from shardwright.service.text import duration, number, percent, shown, size

_RECIPE_CHARACTERS = 20_000
_SEEN = {"code": "source files", "image": "images"}


def summary(
    name: str, modality: str, totals: Totals, splits: Sequence[SplitSize], metrics: dict[str, Any]
) -> Iterator[Block]:
    """What became of the inputs, in large numbers."""
    yield Heading(name, 1)
    yield Words(f"What became of {number(totals.seen)} {_SEEN[modality]}, record by record.")
    facts = [(number(totals.seen), "inputs seen"), (number(totals.rejected), "rejected")]
    if totals.kept is not None:
        kept = f"kept, {percent(totals.kept, totals.seen)}"
        facts += [(number(totals.dropped), "dropped"), (number(totals.kept), kept)]
    if splits:
        facts += [
            (number(sum(split.shards for split in splits)), "shards"),
            (size(sum(split.bytes for split in splits)), "in the shards"),
        ]
    if isinstance(metrics.get("seconds"), int | float):
        facts.append((duration(metrics["seconds"]), "run time"))
    yield Facts(facts)
    if totals.kept is not None and totals.seen:
        yield Flow(
            [("kept", totals.kept), ("dropped", totals.dropped), ("rejected", totals.rejected)]
        )


def funnel_section(
    steps: Sequence[Step], totals: Totals, linked: str | None = None
) -> Iterator[Block]:
    """Where inputs were lost, and why; reasons lead to their records in a linked curation."""
    if not steps:
        return
    yield Heading("What became of every input")
    largest = max(step.records for step in steps) or 1
    rows = [
        (
            shown(step.stage, 40),
            _reason(step, linked),
            Bar(step.kind, step.records / largest),
            number(step.records),
            percent(step.records, totals.seen),
        )
        for step in steps
    ]
    every = number(sum(step.records for step in steps))
    yield Table(
        ("stage", "reason", "", "inputs", "share"), rows, (3, 4), foot=("all", "", "", every, "")
    )


def _reason(step: Step, linked: str | None) -> Cell:
    text = shown(step.reason, 60)
    if linked is None or step.kind == "rejected":  # which are no records
        return text
    wanted = {"stage": step.stage} | ({"reason": step.reason} if step.kind == "dropped" else {})
    return Link(text, at(linked, "records", **wanted))


def rejects_section(reasons: Sequence[dict[str, Any]]) -> Iterator[Block]:
    """Why inputs were refused."""
    if not reasons:
        return
    yield Heading("Rejected inputs")
    rows = [
        (
            shown(row["reason"], 60),
            number(row["records"]),
            Code(shown(row["path"], 100)),
            shown(row["message"], 200),
        )
        for row in reasons
    ]
    yield Table(("reason", "inputs", "one of them", "what it said"), rows, (1,))


def distributions_section(found: Sequence[Distribution]) -> Iterator[Block]:
    """Histograms before and after, each with its numbers."""
    if not found:
        return
    yield Heading("Distributions")
    yield Gallery([_distribution(one) for one in found])


def _distribution(one: Distribution) -> Picture:
    marks = [(kind, series.name) for series, kind in zip(one.series, ("all", "kept"), strict=True)]
    dashes = [("dash", name) for name, _ in one.marks]
    return Picture(picture(one), one.title, [*marks, *dashes], _numbers(one))


def _numbers(one: Distribution) -> Table:
    counts = list(zip(*(series.counts for series in one.series), strict=True))
    heads = [series.name for series in one.series]
    if one.names is not None:
        named = [
            (shown(name, 60), *map(number, values))
            for name, values in zip(one.names, counts, strict=True)
        ]
        return Table((one.key, *heads), named, (1, 2), folded="the numbers")
    binned = [
        (_edge(low, one), _edge(high, one), *map(number, values))
        for (low, high), values in zip(pairwise(one.edges or ()), counts, strict=True)
    ]
    return Table(("from", "to below", *heads), binned, range(4), folded="the numbers")


def _edge(value: float, one: Distribution) -> str:
    return number(int(value)) if one.logarithmic else f"{value:,.4g}"


def shards_section(splits: Sequence[SplitSize]) -> Iterator[Block]:
    """What each split holds."""
    if not splits:
        return
    yield Heading("Shards")
    total = sum(split.samples for split in splits)
    rows = [
        (
            shown(split.name, 60),
            number(split.shards),
            number(split.samples),
            percent(split.samples, total),
            size(split.bytes),
        )
        for split in splits
    ]
    yield Table(("split", "shards", "samples", "share", "size"), rows, range(1, 5))


def stages_section(metrics: dict[str, Any]) -> Iterator[Block]:
    """What each stage took."""
    stages = metrics.get("stages")
    if not stages:
        return
    yield Heading("Stages")
    heads = ("stage", "records", "read", "written", "parts", "reused", "most held", "seconds")
    rows = [
        (
            shown(stage["stage"], 40),
            number(stage["records"]),
            size(stage["bytes"]),
            size(stage.get("written", 0)),
            number(stage["parts"]),
            number(stage["reused"]),
            size(stage.get("peak_bytes", 0)),
            f"{stage['seconds']:,.1f}",
        )
        for stage in stages
    ]
    yield Table(heads, rows, range(1, 8))


def recipe_section(recipe: dict[str, Any]) -> Iterator[Block]:
    """The recipe as it ran."""
    if not recipe:
        return
    text = json.dumps(recipe_without_credentials(recipe), indent=2, ensure_ascii=False)
    yield Heading("Recipe")
    yield Preformatted("as it ran", text[:_RECIPE_CHARACTERS])
