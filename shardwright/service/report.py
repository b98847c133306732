"""The report: one page that shows a curation, with nothing to fetch and nothing to run.

Everything that comes from data is escaped and bounded, and the page's security policy lets a
browser load nothing but the data URIs in it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb

import shardwright
from shardwright.metadata.catalog import connect
from shardwright.metadata.credentials import recipe_without_credentials
from shardwright.metadata.filelist import read_file_list
from shardwright.metadata.files import write_whole
from shardwright.metadata.layout import Layout
from shardwright.metadata.schemas import blob
from shardwright.service.evaluation import evaluation_section
from shardwright.service.figures import picture
from shardwright.service.heterogeneity import heterogeneity_section
from shardwright.service.measures import Distribution, distributions
from shardwright.service.samples import Sample, reject_reasons, sample, thumbnail
from shardwright.service.study import study_section
from shardwright.service.style import CSS
from shardwright.service.text import block, escaped, number, percent, size

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
_RECIPE_CHARACTERS = 20_000


@dataclass(frozen=True)
class _Totals:
    seen: int
    rejected: int
    records: int
    kept: int | None

    @property
    def dropped(self) -> int:
        return 0 if self.kept is None else self.records - self.kept


def write_report(layout: Layout) -> Path:
    """Writes ``report/index.html`` from whichever tables are there.

    Returns:
        Its path.

    Raises:
        UserError: There are no records.
    """
    path = layout.root / "report" / "index.html"
    write_whole(path, "\n".join(_page(layout)) + "\n")
    return path


def _page(layout: Layout) -> Iterator[str]:
    records = layout.need("records", "ingest")
    tables = {manifest.table: manifest for manifest in layout.manifests()}
    recipe, metrics = _json(layout.root / "recipe.json"), _json(layout.root / "metrics.json")
    name = str(recipe.get("name", layout.root.name))
    modality = "image" if "image" in records.schema.names else "code"
    rejects = tables.get("rejects")
    rejected = 0 if rejects is None else rejects.rows
    with connect(layout) as connection:
        kept = None
        if "decisions" in tables:
            counted = "SELECT count(*) FROM decisions WHERE keep"
            kept = int(connection.execute(counted).fetchall()[0][0])
        totals = _Totals(records.rows + rejected, rejected, records.rows, kept)
        yield _head(name)
        yield from _summary(layout, name, modality, totals, metrics)
        if "funnel" in _views(connection):
            yield from _funnel(connection, totals)
        yield from _rejects(reject_reasons(connection, tables))
        yield from _figures(distributions(connection, tables, records.schema.names))
        if "corruption_study" in tables:
            yield from study_section(connection)
        if "evaluation" in tables and "side_effects" in tables:
            yield from evaluation_section(connection)
        if "device_groups" in tables:
            yield from heterogeneity_section(connection)
        yield from _shards(layout)
        if "decisions" in tables and "lookup" in tables:
            yield from _samples(layout, connection, modality)
    yield from _stages(metrics)
    yield from _recipe(recipe)
    curated = tables.get("curated")
    content = "" if curated is None else f" Curated records <code>{curated.content_sha256}</code>."
    yield (
        f"<footer>Shardwright {escaped(shardwright.__version__)}.{content} "
        "Each record's own story: <code>shardwright explain DIR RECORD</code>.</footer>"
    )
    yield "</main></body></html>"


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _views(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {
        view for (view,) in connection.execute("SELECT view_name FROM duckdb_views()").fetchall()
    }


def _head(name: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escaped(name)}: curation report</title>\n<style>{CSS}</style></head>\n"
        "<body><main>"
    )


def _summary(
    layout: Layout, name: str, modality: str, totals: _Totals, metrics: dict[str, Any]
) -> Iterator[str]:
    yield f"<h1>{escaped(name)}</h1>"
    what = {"code": "source files", "image": "images"}[modality]
    yield f'<p class="soft">What became of {number(totals.seen)} {what}, record by record.</p>'
    facts = [("inputs seen", number(totals.seen)), ("rejected", number(totals.rejected))]
    if totals.kept is not None:
        facts += [
            ("dropped", number(totals.dropped)),
            (f"kept, {percent(totals.kept, totals.seen)}", number(totals.kept)),
        ]
    listed = read_file_list(layout.shards)
    if listed is not None:
        shards = listed.shards
        facts += [
            ("shards", number(len(shards))),
            ("in the shards", size(sum(file.bytes for file in shards))),
        ]
    if isinstance(metrics.get("seconds"), int | float):
        facts.append(("run time", _duration(metrics["seconds"])))
    cards = "".join(
        f'<div class="fact"><b>{value}</b><span>{label}</span></div>' for label, value in facts
    )
    yield f'<div class="figures-row">{cards}</div>'
    if totals.kept is None or not totals.seen:
        return
    flow = [
        ("kept", totals.kept),
        ("dropped", totals.dropped),
        ("rejected", totals.rejected),
    ]
    bars = "".join(
        f'<i class="{kind}" style="flex:{count} 0 0"></i>' for kind, count in flow if count
    )
    yield f'<div class="flow" aria-hidden="true">{bars}</div>'
    items = "".join(
        f'<li><i class="{kind}"></i>{kind} {percent(count, totals.seen)}</li>'
        for kind, count in flow
    )
    yield f'<ul class="legend">{items}</ul>'


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 90 else f"{hours:.1f} h"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int]) -> str:
    """A table of cells that are HTML already; columns in ``right`` hold numbers."""
    kinds = [' class="n"' if place in right else "" for place in range(len(heads))]
    head = "".join(f"<th{kind}>{text}</th>" for kind, text in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def _funnel(connection: duckdb.DuckDBPyConnection, totals: _Totals) -> Iterator[str]:
    rows = connection.execute("SELECT stage, reason, records FROM funnel LIMIT 200").fetchall()
    yield "<h2>What became of every input</h2>"
    largest = max((count for _, _, count in rows), default=1)
    body = ""
    for stage, reason, count in rows:
        kind = "kept" if stage == "keep" else "dropped"
        if stage == "ingest":
            kind = "rejected"
        body += (
            f"<tr><td>{escaped(stage, 40)}</td><td>{escaped(reason, 60)}</td>"
            f'<td class="bar"><i class="{kind}" style="width:{100 * count / largest:.2f}%"></i>'
            f'</td><td class="n">{number(count)}</td>'
            f'<td class="n">{percent(count, totals.seen)}</td></tr>'
        )
    yield (
        '<div class="scroll"><table><thead><tr><th>stage</th><th>reason</th><th class="bar"></th>'
        f'<th class="n">inputs</th><th class="n">share</th></tr></thead><tbody>{body}</tbody>'
        f'<tfoot><tr><td>all</td><td></td><td class="bar"></td><td class="n">'
        f'{number(sum(count for _, _, count in rows))}</td><td class="n"></td></tr></tfoot>'
        "</table></div>"
    )


def _rejects(reasons: list[dict[str, Any]]) -> Iterator[str]:
    if not reasons:
        return
    yield "<h2>Rejected inputs</h2>"
    yield _table(
        ["reason", "inputs", "one of them", "what it said"],
        [
            [
                escaped(row["reason"], 60),
                number(row["records"]),
                f"<code>{escaped(row['path'], 100)}</code>",
                escaped(row["message"], 200),
            ]
            for row in reasons
        ],
        right=[1],
    )


def _figures(found: list[Distribution]) -> Iterator[str]:
    if not found:
        return
    yield "<h2>Distributions</h2>"
    yield '<div class="grid">'
    for distribution in found:
        legend = "".join(
            f'<li><i class="{kind}"></i>{escaped(series.name)}</li>'
            for series, kind in zip(distribution.series, ("all", "kept"), strict=True)
        ) + "".join(
            f'<li><i class="dash"></i>{escaped(name)}</li>' for name, _ in distribution.marks
        )
        yield (
            f"<figure><figcaption>{escaped(distribution.title)}</figcaption>"
            f'{picture(distribution)}<ul class="legend">{legend}</ul>'
            f"<details><summary>the numbers</summary>{_numbers(distribution)}</details></figure>"
        )
    yield "</div>"


def _numbers(distribution: Distribution) -> str:
    counts = list(zip(*(series.counts for series in distribution.series), strict=True))
    heads = [*(escaped(series.name) for series in distribution.series)]
    if distribution.names is not None:
        rows = [
            [escaped(name, 60), *map(number, values)]
            for name, values in zip(distribution.names, counts, strict=True)
        ]
        return _table([escaped(distribution.key), *heads], rows, right=[1, 2])
    edges = distribution.edges or ()
    rows = [
        [_edge(low, distribution), _edge(high, distribution), *map(number, values)]
        for (low, high), values in zip(pairwise(edges), counts, strict=True)
    ]
    return _table(["from", "to below", *heads], rows, right=[0, 1, 2, 3])


def _edge(value: float, distribution: Distribution) -> str:
    if distribution.logarithmic:
        return number(int(value))
    return f"{value:,.4g}"


def _shards(layout: Layout) -> Iterator[str]:
    listed = read_file_list(layout.shards)
    if listed is None:
        return
    splits: dict[str, list[int]] = {}
    for file in listed.shards:
        counts = splits.setdefault(file.path.partition("/")[0], [0, 0, 0])
        counts[0], counts[1], counts[2] = (
            counts[0] + 1,
            counts[1] + file.rows,
            counts[2] + file.bytes,
        )
    yield "<h2>Shards</h2>"
    total = sum(samples for _, samples, _ in splits.values())
    yield _table(
        ["split", "shards", "samples", "share", "size"],
        [
            [escaped(name), number(shards), number(samples), percent(samples, total), size(space)]
            for name, (shards, samples, space) in splits.items()
        ],
        right=[1, 2, 3, 4],
    )


def _samples(layout: Layout, connection: duckdb.DuckDBPyConnection, modality: str) -> Iterator[str]:
    outcomes = sample(layout, connection, 5 if modality == "image" else 4)
    if not outcomes:
        return
    yield "<h2>Samples</h2>"
    for stage, reason, count, rows in outcomes:
        title = "kept" if stage == "keep" else f"{escaped(reason, 60)} ({escaped(stage, 40)})"
        yield f'<h3>{title} <span class="count">{number(count)} records</span></h3>'
        yield f'<div class="{"pictures" if modality == "image" else "grid"}">'
        for row in rows:
            yield _card(row, modality)
        yield "</div>"


def _card(row: Sample, modality: str) -> str:
    record, decision = row.record, row.decision
    about = [size(record["bytes"])]
    for name in ("language", "format", "label"):
        if record.get(name):
            about.append(escaped(record[name], 40))
    if modality == "image":
        about.append(f"{record['width']} &times; {record['height']}")
    for name in ("score", "threshold"):
        if decision[name] is not None:
            about.append(f"{name} {decision[name]:.6g}")
    if decision["representative_id"] is not None:
        about.append(f"as {escaped(decision['representative_id'], 32)}")
    payload = record[blob(modality)]
    text = (
        f'<div class="path">{escaped(record["path"], 160)}</div>'
        f'<div class="about">{" · ".join(about)}</div>'
    )
    if modality == "image":
        uri = thumbnail(payload)
        shown = f'<img alt="" src="{uri}">' if uri else '<div class="none">not drawn</div>'
        return f'<div class="sample">{shown}{text}</div>'
    return f'<div class="sample">{text}<pre>{block(payload)}</pre></div>'


def _stages(metrics: dict[str, Any]) -> Iterator[str]:
    stages = metrics.get("stages")
    if not stages:
        return
    yield "<h2>Stages</h2>"
    yield _table(
        ["stage", "records", "read or written", "parts", "reused", "seconds"],
        [
            [
                escaped(stage["stage"], 40),
                number(stage["records"]),
                size(stage["bytes"]),
                number(stage["parts"]),
                number(stage["reused"]),
                f"{stage['seconds']:,.1f}",
            ]
            for stage in stages
        ],
        right=[1, 2, 3, 4, 5],
    )


def _recipe(recipe: dict[str, Any]) -> Iterator[str]:
    if not recipe:
        return
    text = json.dumps(recipe_without_credentials(recipe), indent=2, ensure_ascii=False)[
        :_RECIPE_CHARACTERS
    ]
    yield "<h2>Recipe</h2>"
    yield f"<details><summary>as it ran</summary><pre>{block(text, 600, 400)}</pre></details>"
