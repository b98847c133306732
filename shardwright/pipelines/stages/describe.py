"""``describe``: metadata, catalog, metrics and report, written last of all."""

import json
from dataclasses import asdict

from shardwright.metadata.catalog import write_catalog
from shardwright.metadata.croissant import write_croissant
from shardwright.metadata.files import write_whole
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run
from shardwright.service.report import write_report


def run_describe(run: Run, progress: StageProgress) -> None:
    """Runs the stage. ``croissant.json`` comes last: it says that the curation is complete."""
    layout = run.layout
    run.incomplete()
    recipe = run.recipe.model_dump(mode="json")
    write_whole(layout.root / "recipe.json", json.dumps(recipe, indent=1) + "\n")
    stages = [asdict(stage) for stage in run.reporter.metrics]
    metrics = {"stages": stages, "seconds": sum(stage["seconds"] for stage in stages)}
    write_whole(layout.root / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    write_catalog(layout)
    write_report(layout)
    write_croissant(layout, recipe)
    progress.records = layout.need("records", "ingest").rows
