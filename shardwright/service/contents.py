"""All that there is to say of a curation, in the order in which it is told."""

from collections.abc import Iterator
from typing import Any

import duckdb

from shardwright.metadata.layout import Layout
from shardwright.metadata.lookup import StoredRows
from shardwright.service import overview, sections
from shardwright.service.blocks import Block
from shardwright.service.evaluation import evaluation_section
from shardwright.service.heterogeneity import heterogeneity_section
from shardwright.service.lineage import lineage_section
from shardwright.service.measures import distributions
from shardwright.service.pairs import duplicates_section
from shardwright.service.pointmap import map_section
from shardwright.service.samples import extremes_section, samples_section
from shardwright.service.study import study_section


def contents(
    layout: Layout,
    connection: duckdb.DuckDBPyConnection,
    recipe: dict[str, Any],
    linked: str | None = None,
) -> Iterator[Block]:
    """A curation from whichever tables are there.

    Args:
        layout: Of its folder.
        connection: With its tables.
        recipe: As it ran.
        linked: Name in the addresses of the service, whose other pages show the map, duplicates and
            records; None puts all of that here.

    Raises:
        UserError: There are no records.
    """
    totals, modality = overview.totals(layout, connection), overview.modality(layout)
    tables = {manifest.table: manifest for manifest in layout.manifests()}
    metrics, splits = overview.metrics(layout), overview.splits(layout)
    method = overview.method(layout, recipe)
    name, alone = linked or str(recipe.get("name", layout.root.name)), linked is None
    yield from sections.summary(name, modality, totals, splits, metrics)
    yield from sections.funnel_section(overview.funnel(connection), totals, linked)
    yield from sections.rejects_section(overview.reject_reasons(connection, tables))
    columns = tables["records"].schema.names
    yield from sections.distributions_section(distributions(connection, tables, columns))
    if alone and {"embeddings", "decisions"} <= tables.keys():
        yield from map_section(layout, connection, method)
    stored = StoredRows(layout, connection) if "lookup" in tables else None
    if alone and stored is not None:
        yield from duplicates_section(layout, connection, stored, modality)
    if stored is not None and "decisions" in tables and method is not None:
        yield from extremes_section(connection, stored, modality, method, linked)
    if "corruption_study" in tables:
        yield from study_section(connection)
    if {"evaluation", "side_effects"} <= tables.keys():
        yield from evaluation_section(connection)
    if "device_groups" in tables:
        yield from heterogeneity_section(connection)
    yield from sections.shards_section(splits)
    if alone and stored is not None and "decisions" in tables:
        yield from samples_section(connection, stored, modality)
    yield from lineage_section(layout)
    yield from sections.stages_section(metrics)
    yield from sections.recipe_section(recipe)
