"""The report: one page that shows a curation, with nothing to fetch.

What comes from data is escaped and bounded. The page's security policy lets a browser load nothing
but data URIs and run nothing but the two scripts that draw the map, named by their hashes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

import shardwright
from shardwright.metadata.catalog import connect
from shardwright.metadata.files import write_whole
from shardwright.metadata.layout import Layout
from shardwright.service import overview, sections
from shardwright.service.blocks import Block, PointMap
from shardwright.service.evaluation import evaluation_section
from shardwright.service.heterogeneity import heterogeneity_section
from shardwright.service.lineage import lineage_section
from shardwright.service.measures import distributions
from shardwright.service.pairs import duplicates_section
from shardwright.service.pointmap import map_section
from shardwright.service.rendering import rendered, source_hash, static
from shardwright.service.samples import extremes_section, samples_section
from shardwright.service.study import study_section

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
_SCRIPTS = ("echarts.min.js", "map.js")


def write_report(layout: Layout) -> Path:
    """Writes ``report/index.html`` from whichever tables are there.

    Returns:
        Its path.

    Raises:
        UserError: There are no records.
    """
    path = layout.root / "report" / "index.html"
    recipe = overview.recipe(layout)
    with connect(layout) as connection:
        blocks = list(_blocks(layout, connection, recipe))
    drawn = any(isinstance(block, PointMap) for block in blocks)
    scripts = [static(name) for name in _SCRIPTS] if drawn else []
    allowed = " ".join(map(source_hash, scripts)) or "'none'"
    curated = layout.manifest("curated")
    page = rendered(
        "report.html",
        name=recipe.get("name", layout.root.name),
        policy=f"{_POLICY}; script-src {allowed}",
        blocks=blocks,
        scripts=scripts,
        content="" if curated is None else curated.content_sha256,
        version=shardwright.__version__,
    )
    write_whole(path, page)
    return path


def _blocks(
    layout: Layout, connection: duckdb.DuckDBPyConnection, recipe: dict[str, Any]
) -> Iterator[Block]:
    totals, modality = overview.totals(layout, connection), overview.modality(layout)
    tables = {manifest.table: manifest for manifest in layout.manifests()}
    metrics, splits = overview.metrics(layout), overview.splits(layout)
    method = overview.method(layout, recipe)
    name = str(recipe.get("name", layout.root.name))
    yield from sections.summary(name, modality, totals, splits, metrics)
    yield from sections.funnel_section(overview.funnel(connection), totals)
    yield from sections.rejects_section(overview.reject_reasons(connection, tables))
    columns = tables["records"].schema.names
    yield from sections.distributions_section(distributions(connection, tables, columns))
    if {"embeddings", "decisions"} <= tables.keys():
        yield from map_section(layout, connection, method)
    if "lookup" in tables:
        yield from duplicates_section(layout, connection, modality)
        if method is not None and "decisions" in tables:
            yield from extremes_section(layout, connection, modality, method)
    if "corruption_study" in tables:
        yield from study_section(connection)
    if {"evaluation", "side_effects"} <= tables.keys():
        yield from evaluation_section(connection)
    if "device_groups" in tables:
        yield from heterogeneity_section(connection)
    yield from sections.shards_section(splits)
    if {"decisions", "lookup"} <= tables.keys():
        yield from samples_section(layout, connection, modality)
    yield from lineage_section(layout)
    yield from sections.stages_section(metrics)
    yield from sections.recipe_section(recipe)
