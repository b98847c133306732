"""``describe``: metadata, catalog, metrics and report, written last of all."""

import json

from shardwright.errors import DataError
from shardwright.metadata.catalog import write_catalog
from shardwright.metadata.credentials import recipe_without_credentials
from shardwright.metadata.croissant import write_croissant
from shardwright.metadata.files import write_whole
from shardwright.metadata.integrity import lineage_faults
from shardwright.metadata.mend import sweep
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.run import Run


def run_describe(run: Run, progress: StageProgress) -> None:
    """Runs the stage. ``croissant.json`` comes last: it says that the curation is complete.

    Raises:
        DataError: A table was made from other tables than those that are there.
    """
    layout = run.layout
    stale = next(lineage_faults(layout), None)
    if stale is not None:
        raise DataError(f"{stale}; run the stages again that come after")
    from shardwright.service.report import write_report  # matplotlib takes a while to load

    run.incomplete()
    sweep(layout)
    recipe = recipe_without_credentials(run.recipe.model_dump(mode="json"))
    write_whole(layout.root / "recipe.json", json.dumps(recipe, indent=1) + "\n")
    write_catalog(layout)
    write_report(layout)
    write_croissant(layout, recipe)
    progress.records = layout.need("records", "ingest").rows
