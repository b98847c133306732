"""``duplicates``: records with equal content; the first by path stays."""

from shardwright.metadata.schemas import DUPLICATES
from shardwright.pipelines.progress import StageProgress
from shardwright.pipelines.relational import commit_query
from shardwright.pipelines.run import Run

VERSION = "1"

# The group's id is its content hash, its representative the first by path.
_EXACT = """
WITH grouped AS (
  SELECT record_id, content_sha256,
    first_value(record_id) OVER (
      PARTITION BY content_sha256 ORDER BY path, source, record_id) AS representative_id,
    count(*) OVER (PARTITION BY content_sha256) AS size
  FROM records)
SELECT record_id, 'exact' AS kind, content_sha256 AS group_id, representative_id,
  1.0::DOUBLE AS similarity
FROM grouped WHERE size > 1 ORDER BY group_id, record_id
"""


def run_duplicates(run: Run, progress: StageProgress) -> None:
    """Runs the stage."""
    records = run.layout.need("records", "ingest")
    if not run.recipe.duplicates.exact:
        run.drop("duplicates")
        return
    tables = commit_query(
        run,
        "duplicates",
        VERSION,
        {"duplicates": (DUPLICATES, _EXACT)},
        parameters=run.recipe.duplicates.model_dump(mode="json"),
        inputs=[records],
    )
    progress.records = records.rows
    progress.bytes = tables["duplicates"].bytes
